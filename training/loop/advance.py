"""From where a run stands to its end: from nothing, from its last whole checkpoint, or when it had ended."""

import json
from pathlib import Path

from phi3flow.core.files import write_text
from training.checkpoints import agreed_checkpoint, step_of, trainer_state
from training.loop.start import METRICS, Run
from training.loop.trainer import AssistantTrainer, StopOnInterrupt
from training.ranks import leads, tell


def advance(run: Run, trainer: AssistantTrainer) -> None:
    """Leave the weights that validated best in `trainer`. Raises KeyboardInterrupt after a checkpoint."""
    checkpoint = agreed_checkpoint(run.checkpoints)
    if leads() and (run.work / METRICS).exists():
        forget_metrics_after(run.work / METRICS, step_of(checkpoint) if checkpoint else 0)
    if checkpoint is None:
        _train(run, trainer, None)
    elif has_ended(checkpoint, run.recipe.patience):
        tell(f"  {run.name} was trained to its end; what follows is done again")
        trainer.take_best_of(checkpoint)
    else:
        tell(f"  {run.name} continues after step {step_of(checkpoint)}")
        _train(run, trainer, checkpoint)


def has_ended(checkpoint: Path, patience: int | None) -> bool:
    """Whether its run had no step left, or had stopped early. Transformers would do one step more."""
    state = trainer_state(checkpoint)
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback", {}).get("attributes", {})
    waited = stopping.get("early_stopping_patience_counter", 0)
    return state["global_step"] >= state["max_steps"] or (patience is not None and waited >= patience)


def forget_metrics_after(path: Path, step: int) -> None:
    """What a resumed run will log again; and a last line that a full disk or a kill cut short."""
    *lines, _ = path.read_text(encoding="utf-8").split("\n")  # the last ends no line
    write_text(path, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))


def _train(run: Run, trainer: AssistantTrainer, checkpoint: Path | None) -> None:
    stopper = StopOnInterrupt()
    trainer.add_callback(stopper)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stopper.interrupted:
        tell(f"  {run.name} stopped after step {trainer.state.global_step}; the same command continues")
        raise KeyboardInterrupt
