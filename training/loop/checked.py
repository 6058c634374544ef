"""What our trainers add to TRL's, whatever they learn: order, finite numbers, and names for what is wrong."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from phi3flow.core.errors import Phi3flowError
from training.checkpoints import best_of
from training.loop.attention import attend_in_fp32
from training.loop.compiled import CompiledLayers
from training.loop.sampler import LengthGroupedSampler, TellEpoch
from training.ranks import several

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CheckedTrainer(Trainer):
    """Raises Phi3flowError at the first loss that is not finite, naming the step and the rows.

    A row's `line` says where it is; to be put before one of TRL's trainers.
    """

    layers: CompiledLayers | None = None
    answers: Any = None  # of preferences: a row for each answer, as the estimate counts them
    fewest = 1  # rows of a batch

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.device.type == "cpu":
            attend_in_fp32(self.accelerator.unwrap_model(self.model))

    def lengths(self, rows: Any) -> list[int]:
        """How long each row is, in tokens."""
        return [len(ids) for ids in rows["input_ids"]]

    def told(self, lines: list[int]) -> str:
        """Where rows are, for people."""
        return f"train.jsonl lines {', '.join(map(str, lines))}"

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths, size = self.lengths(rows), self._train_batch_size
        sampler = LengthGroupedSampler(lengths, size, self.args.seed, fewest=self.fewest)
        self.add_callback(TellEpoch(sampler))
        return sampler

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        lines = inputs.pop("line").tolist()
        loss = self._stepped(model, inputs, *args, **kwargs)
        if not math.isfinite(loss.item()):
            raise Phi3flowError(
                f"the loss is not finite at step {self.state.global_step + 1}, {self.told(sorted(lines))}",
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
