"""TRL's trainer with our batches and our loss; it names the rows whose loss is not finite."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from phi3flow.core.errors import Phi3flowError
from training.checkpoints import best_of
from training.data.encode import IGNORED
from training.loop.attention import attend_in_fp32
from training.loop.compiled import CompiledLayers
from training.ranks import several

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A CPU compiles a bf16 kernel of 0.6 MB for every shape it meets and keeps it. Rounding keeps them few.
PADDED_TO = 8  # tokens per row
ROUND = 64  # tokens per batch that are projected to the vocabulary
EPOCHS = 1_000_003  # more than any run has: no two pairs of seed and epoch share a generator
POOL_BATCHES = 50  # rows are sorted by length within pools of this many batches


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


class LengthGroupedSampler(Sampler[int]):
    """Batches of rows of similar length, in an order that only seed and epoch decide.

    Transformers' own sampler draws from the global random state, so a resumed run would see later epochs in
    another order, and it leaves the batches of a pool sorted from long to short.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch, also before a resumed one."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * EPOCHS + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        batches = [
            batch for pool in _cut(order, POOL_BATCHES * self._batch_size) for batch in self._batches(pool)
        ]
        # The short batch stays last: elsewhere it would shift all batches that follow.
        short = [batches.pop()] if len(batches[-1]) < self._batch_size else []
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return iter([row for batch in [*(batches[i] for i in shuffled), *short] for row in batch])

    def _batches(self, pool: list[int]) -> list[list[int]]:
        return _cut(sorted(pool, key=lambda row: self._lengths[row]), self._batch_size)


class TellEpoch(TrainerCallback):
    """Calls `set_epoch`. accelerate does, too, but not for the first epoch of several resumed ranks."""

    def __init__(self, sampler: LengthGroupedSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._sampler.set_epoch(int(state.epoch or 0))


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class AssistantTrainer(SFTTrainer):
    """Raises Phi3flowError at the first loss that is not finite, naming the step and the rows."""

    layers: CompiledLayers | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.device.type == "cpu":
            attend_in_fp32(self.accelerator.unwrap_model(self.model))

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in rows["input_ids"]]
        sampler = LengthGroupedSampler(lengths, self._train_batch_size, self.args.seed)
        self.add_callback(TellEpoch(sampler))
        return sampler

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        lines = inputs.pop("line").tolist()
        loss = self._stepped(model, inputs, *args, **kwargs)
        if not math.isfinite(loss.item()):
            raise Phi3flowError(
                f"the loss is not finite at step {self.state.global_step + 1}, "
                f"train.jsonl lines {', '.join(map(str, sorted(lines)))}",
                hint="lower learning_rate in the recipe or look at these rows; earlier checkpoints are kept",
            )
        return loss

    def _stepped(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss of a batch, with its gradients. The first one compiles the layers, which may fail."""
        trying = self.layers is not None and self.layers.untried
        try:
            loss: torch.Tensor = super().training_step(model, dict(inputs), *args, **kwargs)
        except Exception as error:
            if not trying or isinstance(error, torch.OutOfMemoryError):
                raise
            assert self.layers is not None  # noqa: S101 - `trying` says so
            self.layers.give_up(error)
            model.zero_grad()
            loss = super().training_step(model, inputs, *args, **kwargs)
        if self.layers:
            self.layers.untried = False
        return loss

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

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        if not math.isfinite(metrics.get("eval_loss", 0.0)):
            raise self._diverged("the validation loss is not finite")
        return metrics

    def require_finite_weights(self) -> None:
        """Raise Phi3flowError if a weight is infinite or not a number."""
        parameters = self.accelerator.unwrap_model(self.model).parameters()
        if not all(torch.isfinite(parameter).all() for parameter in parameters):
            raise self._diverged("a weight is not finite")

    @contextmanager
    def answering_model(self) -> Iterator["PreTrainedModel"]:
        """The model before training, to answer with on rank 0."""
        yield self.model

    def whole_model(self, start: "Callable[[], PreTrainedModel]") -> "PreTrainedModel":
        """The trained model without autocast, which is rank 0's to save; every rank calls it.

        `start` makes a model of the same shape.
        """
        model: PreTrainedModel = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        return model

    def broadcast_weights(self) -> None:
        """Copy rank 0's trained weights to all ranks: the best checkpoint may be on its disk only."""
        if several():
            for parameter in self.accelerator.unwrap_model(self.model).parameters():
                if parameter.requires_grad:
                    torch.distributed.broadcast(parameter.data, src=0)

    def load_best_of(self, checkpoint: Path) -> None:
        """Load the best weights of the run that ended at `checkpoint`, and its state."""
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        self.state.is_world_process_zero = self.is_world_process_zero()
        self.state.best_model_checkpoint = str(best_of(checkpoint))
        self._load_best_model()

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save finite weights only: a checkpoint of a diverged run would replace a good one."""
        self.require_finite_weights()
        super()._save_checkpoint(*args, **kwargs)

    def _diverged(self, what: str) -> Phi3flowError:
        return Phi3flowError(
            f"training diverged: {what} after step {self.state.global_step}",
            hint="lower learning_rate in the recipe; earlier checkpoints are kept",
        )

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
