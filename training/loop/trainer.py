"""TRL's supervised trainer with our batches and our loss."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from training.data.encode import IGNORED
from training.loop.checked import CheckedTrainer

# A CPU compiles a bf16 kernel of 0.6 MB for every shape it meets and keeps it. Rounding keeps them few.
PADDED_TO = 8  # tokens per row
ROUND = 64  # tokens per batch that are projected to the vocabulary


@dataclass
class LineCollator(DataCollatorForLanguageModeling):
    """Pads a batch and adds `line`: which lines of the training file are in it.

    Packed rows name `longest` as the longest chat of every batch: compiled layers would see another number as
    another program.
    """

    longest: int | None = None

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch.pop("seq_idx", None)  # for models with a state, such as Mamba
        if self.longest and "max_length_q" in batch:
            batch["max_length_q"] = batch["max_length_k"] = self.longest
        if "line" in examples[0]:
            lines = [example["line"] for example in examples]
            batch["line"] = torch.tensor(
                sorted({line for packed in lines for line in packed}) if isinstance(lines[0], list) else lines
            )
        return batch


class AssistantTrainer(CheckedTrainer, SFTTrainer):
    """Learns the assistant tokens of chats."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Mean cross-entropy of the assistant tokens. On a CPU only those are projected to the vocabulary.

        TRL does the same on a GPU; elsewhere it projects every token, prompts and padding too, twice.
        """
        if return_outputs or self.args.device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inner: Any = self.model
        labels = inputs["labels"][:, 1:]
        positions = _rounded_up(labels != IGNORED)
        # Padding is on the right, where causal attention never looks: no mask is needed.
        inputs = {name: value for name, value in inputs.items() if name not in {"labels", "attention_mask"}}
        with _project_only(positions, inner.get_output_embeddings()):
            logits = model(**inputs, use_cache=False).logits
        targets = labels[positions]
        counted = (targets != IGNORED).sum()
        if not inner.training:
            accuracy = (logits.argmax(-1) == targets).sum() / counted
            self._metrics["eval"]["mean_token_accuracy"].append(
                self.accelerator.gather(accuracy).mean().item()
            )
        loss = cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
        if num_items_in_batch is None:
            return loss / counted
        # num_items_in_batch counts the tokens of all processes, and their gradients are averaged.
        return loss * self.accelerator.num_processes / num_items_in_batch

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Transformers' loop, with the mean loss per token: its mean over batches favours short answers."""
        self._held_out = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with self.layers.as_written() if self.layers else nullcontext():
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        sums = self.accelerator.reduce(self._held_out, "sum")
        assert output.metrics is not None  # noqa: S101 - Transformers fills it
        output.metrics[f"{metric_key_prefix}_loss"] = (sums[0] / sums[1]).item()
        return output

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Add the batch's loss and its number of tokens to the sums of `evaluation_loop`."""
        inputs.pop("line", None)
        counted = (inputs["labels"][:, 1:] != IGNORED).sum().to(self._held_out)
        loss, *rest = super().prediction_step(model, inputs, *args, **kwargs)
        self._held_out += torch.stack([loss.to(counted) * counted, counted])
        return loss, *rest


def _rounded_up(positions: torch.Tensor) -> torch.Tensor:
    """`positions` with more set to True until their number is a multiple of ROUND, if there are enough."""
    chosen = positions.flatten()
    others = (~chosen).nonzero().flatten()[: -int(chosen.sum()) % ROUND]
    return chosen.index_fill(0, others, True).view_as(positions)


@contextmanager
def _project_only(positions: torch.Tensor, head: torch.nn.Module) -> Iterator[None]:
    """Within this block `head` gets (tokens, hidden): the True ones of `positions` (batch, sequence - 1)."""
    hook = head.register_forward_pre_hook(lambda module, args: (args[0][:, :-1][positions],))
    try:
        yield
    finally:
        hook.remove()
