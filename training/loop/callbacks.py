"""What happens beside the steps of a run: metrics.jsonl, progress on stderr, and Ctrl-C."""

import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from phi3flow.core.console import say
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.progress import Progress
from training.ranks import is_main_process, several

LOGGED = (
    "step",
    "seconds",
    "loss",
    "eval_loss",
    "learning_rate",
    "grad_norm",
    "eval_mean_token_accuracy",
    "eval_margin",
    "eval_accuracy",
)
WATCHED = {"eval_margin": "margin", "eval_accuracy": "accuracy"}


class MetricsFile(TrainerCallback):
    """Writes what the trainer has logged to `path`, and says each validation in one line on stderr.

    A row holds step, seconds and some of LOGGED; sft's losses are in nats per assistant token. A checkpoint
    has the log up to its step, so a resumed run replaces the rows of the steps that it repeats.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.started = time.monotonic()

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        latest, seconds = state.log_history[-1], round(time.monotonic() - self.started, 2)
        latest["seconds"] = seconds
        rows = [{name: row[name] for name in LOGGED if name in row} for row in state.log_history]
        write_jsonl(self.path, (row for row in rows if row.keys() - {"step", "seconds"}))
        if "eval_loss" in latest:
            done, validation = f"{state.global_step}/{state.max_steps}", f"{latest['eval_loss']:.3f}"
            shown = next((f"{row['loss']:.3f}" for row in reversed(rows) if "loss" in row), "-")
            watched = "".join(f"  {name} {latest[key]:.3f}" for key, name in WATCHED.items() if key in latest)
            said = f"loss {shown}  validation {validation}{watched}  {seconds:.0f} s"
            say(f"  {self.name} step {done:>9}  {said}")


class StepProgress(TrainerCallback):
    """How many steps are done, until `stack` closes."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._progress: Progress | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if is_main_process():
            self._progress = self._stack.enter_context(
                Progress("steps", state.max_steps, done=state.global_step)
            )

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._progress:
            self._progress.reach(state.global_step)


class StopOnInterrupt(TrainerCallback):
    """The first Ctrl-C ends the run after this step, with a checkpoint; the second ends it at once.

    With several ranks the first one does, too: they would not all stop after the same step.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._before: Any = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if threading.current_thread() is threading.main_thread() and not several():
            self._before = signal.signal(signal.SIGINT, self._note)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
