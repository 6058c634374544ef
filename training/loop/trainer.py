"""TRL's trainer, which also says which rows made it fail and stops where it can be continued."""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from phi3flow.core.errors import Phi3flowError
from training.checkpoints import best_of
from training.data.encode import IGNORED
from training.loop.attention import attend_in_fp32
from training.loop.sampler import LengthGroupedSampler
from training.ranks import several

# A CPU compiles and keeps its bf16 kernels for every shape it meets, 0.6 MB each: let them be few.
PADDED_TO = 8
ROUND = 64


class LineCollator(DataCollatorForLanguageModeling):
    """Pads a batch, and remembers which lines of the training file are in it."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        if "line" in examples[0]:
            lines = [example["line"] for example in examples]
            batch["line"] = torch.tensor(
                sorted({line for packed in lines for line in packed}) if isinstance(lines[0], list) else lines
            )
        return batch


class AssistantTrainer(SFTTrainer):
    """Raises Phi3flowError at the first loss that is not finite, naming the step and the rows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.device.type == "cpu":
            attend_in_fp32(self.accelerator.unwrap_model(self.model))

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in rows["input_ids"]]
        return LengthGroupedSampler(lengths, self._train_batch_size, self.args.seed)

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        lines = inputs.pop("line").tolist()
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        if not math.isfinite(loss.item()):
            raise Phi3flowError(
                f"the loss is not finite at step {self.state.global_step + 1}, "
                f"train.jsonl lines {', '.join(map(str, sorted(lines)))}",
                hint="lower learning_rate in the recipe or look at these rows; checkpoints before are kept",
            )
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy per token that bears loss; on a CPU only those are projected to the vocabulary.

        TRL does the same on a GPU, and elsewhere projects every token, prompts and padding included, twice.
        """
        if return_outputs or self.args.device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inner: Any = self.model
        labels = inputs["labels"][:, 1:]
        positions = _in_round_number(labels != IGNORED)
        # Batches are padded on the right, where causal attention cannot look: they need no mask.
        inputs = {name: value for name, value in inputs.items() if name not in {"labels", "attention_mask"}}
        with _projecting_only(positions, inner.get_output_embeddings()):
            logits = model(**inputs, use_cache=False).logits
        targets = labels[positions]
        bearing = (targets != IGNORED).sum()
        if not inner.training:
            accuracy = (logits.argmax(-1) == targets).sum() / bearing
            self._metrics["eval"]["mean_token_accuracy"].append(
                self.accelerator.gather(accuracy).mean().item()
            )
        loss = cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
        if num_items_in_batch is None:
            return loss / bearing
        # The count is that of all processes, and their gradients are averaged.
        return loss * self.accelerator.num_processes / num_items_in_batch

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Transformers', but with the loss of a token: the mean of its batches would favour short answers."""
        self._held_out = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        sums = self.accelerator.reduce(self._held_out, "sum")
        assert output.metrics is not None  # noqa: S101 - Transformers fills it
        output.metrics[f"{metric_key_prefix}_loss"] = (sums[0] / sums[1]).item()
        return output

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        if not math.isfinite(metrics.get("eval_loss", 0.0)):
            raise self._diverged("the validation loss is not finite")
        return metrics

    def require_finite_weights(self) -> None:
        """Raises Phi3flowError."""
        parameters = self.accelerator.unwrap_model(self.model).parameters()
        if not all(torch.isfinite(parameter).all() for parameter in parameters):
            raise self._diverged("a weight is not finite")

    def take_weights_of_rank_0(self) -> None:
        """It has loaded the best checkpoint, which may lie on its machine's disk alone."""
        if several():
            for parameter in self.accelerator.unwrap_model(self.model).parameters():
                if parameter.requires_grad:
                    torch.distributed.broadcast(parameter.data, src=0)

    def take_best_of(self, checkpoint: Path) -> None:
        """The weights that validated best in the run that ended at `checkpoint`, and its state."""
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        self.state.is_world_process_zero = self.is_world_process_zero()
        self.state.best_model_checkpoint = str(best_of(checkpoint))
        self._load_best_model()

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Only what one can go on from: a checkpoint of a run that diverged would push a good one out."""
        self.require_finite_weights()
        super()._save_checkpoint(*args, **kwargs)

    def _diverged(self, what: str) -> Phi3flowError:
        return Phi3flowError(
            f"training diverged: {what} after step {self.state.global_step}",
            hint="lower learning_rate in the recipe; checkpoints before are kept",
        )

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Adds the batch to what `evaluation_loop` sums up."""
        inputs.pop("line", None)
        bearing = (inputs["labels"][:, 1:] != IGNORED).sum().to(self._held_out)
        loss, *rest = super().prediction_step(model, inputs, *args, **kwargs)
        self._held_out += torch.stack([loss.to(bearing) * bearing, bearing])
        return loss, *rest


def _in_round_number(positions: torch.Tensor) -> torch.Tensor:
    """`positions` and as many others as make their number a multiple of ROUND, if there are so many."""
    chosen = positions.flatten()
    others = (~chosen).nonzero().flatten()[: -int(chosen.sum()) % ROUND]
    return chosen.index_fill(0, others, True).view_as(positions)


@contextmanager
def _projecting_only(positions: torch.Tensor, head: torch.nn.Module) -> Iterator[None]:
    """Meanwhile `head` sees (tokens, hidden) of the True in `positions`, (batch, sequence - 1)."""
    hook = head.register_forward_pre_hook(lambda module, args: (args[0][:, :-1][positions],))
    try:
        yield
    finally:
        hook.remove()


class StopOnInterrupt(TrainerCallback):
    """Ctrl-C ends the run at the next step, after a checkpoint; `interrupted` says that it did.

    One of several ranks ends at once: they would not stop after the same step.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._before: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if threading.current_thread() is threading.main_thread() and not several():
            self._before = signal.signal(signal.SIGINT, self._note)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt  # asked twice: do not wait for the checkpoint
        self.interrupted = True
