"""TRL's DPO and KTO trainers on our rows, with margin and accuracy of the held-out rows.

Adapters are what is trained, and new ones change nothing: with them off the model is the one that it starts
from, which both methods compare with. No second model is loaded.

The margin of a pair is beta times what the chosen answer has gained in log-likelihood since the start minus
what the rejected one has (DPO, arXiv 2305.18290, section 4; KTO: arXiv 2402.01306): 0 before training.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.trainer_utils import EvalLoopOutput
from trl import DPOTrainer, KTOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from training.loop.checked import CheckedTrainer
from training.loop.sampler import with_a_last_batch

Example = dict[str, Any]


@dataclass
class PairCollator(DataCollatorForPreference):
    """Pads a batch of pairs and adds `line`."""

    def torch_call(self, examples: list[Example]) -> Example:
        batch: Example = super().torch_call(examples)
        return batch | {"line": torch.tensor([example["line"] for example in examples])}


@dataclass
class RatingCollator(DataCollatorForUnpairedPreference):
    """Pads a batch of rated answers and adds `line`, and for each prompt the answer to another one.

    KTO needs those for its KL term, from the same batch; TRL pairs neighbours in the file, which only its own
    order of rows keeps together.
    """

    def torch_call(self, examples: list[Example]) -> Example:
        others = [examples[-1], *examples[:-1]]
        rotated = [
            {**example, "KL_completion_ids": other["completion_ids"]}
            for example, other in zip(examples, others, strict=True)
        ]
        batch: Example = super().torch_call(rotated)
        return batch | {"line": torch.tensor([example["line"] for example in examples])}


class PreferenceTrainer(CheckedTrainer):
    """What both have in common. `origins` says where each line is, `summed` what `_add` adds up."""

    summed: tuple[str, ...]
    origins: list[str]
    _metrics: dict[str, dict[str, list[float]]]

    def told(self, lines: list[int]) -> str:
        return ", ".join(self.origins[line - 1] for line in lines)

    def lengths(self, rows: Any) -> list[int]:
        answers = [name for name in ("chosen_ids", "rejected_ids", "completion_ids") if name in rows.features]
        return [len(row["prompt_ids"]) + max(len(row[name]) for name in answers) for row in rows]

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """The rows are encoded already; TRL would apply the template itself, in its own way."""
        return dataset

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Transformers' loop, with means over rows; its own are means over batches."""
        self._sums: dict[str, float] = defaultdict(float)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        self._sums = self._over_all_ranks(self._sums)
        assert output.metrics is not None  # noqa: S101 - Transformers fills it
        output.metrics[f"{metric_key_prefix}_loss"] = self._sums["loss"] / self._sums["rows"]
        for name, value in self._watched().items():
            output.metrics[f"{metric_key_prefix}_{name}"] = value
        return output

    def prediction_step(self, model: Any, inputs: Example, *args: Any, **kwargs: Any) -> Any:
        rows = len(inputs.pop("line"))
        loss, *rest = super().prediction_step(model, inputs, *args, **kwargs)
        self._sums["rows"] += rows
        self._sums["loss"] += float(loss) * rows
        self._add(inputs, rows)
        return loss, *rest

    def _over_all_ranks(self, sums: dict[str, float]) -> dict[str, float]:
        """Ranks that knew only their own rows would not stop at the same step."""
        names = ("rows", "loss", *self.summed)
        own = torch.tensor([sums[name] for name in names], dtype=torch.float64, device=self.args.device)
        return dict(zip(names, self.accelerator.reduce(own, "sum").tolist(), strict=True))

    def _latest(self, name: str) -> float:
        """TRL's mean of the batch that it has just seen, over all ranks."""
        return self._metrics["eval"][name][-1]

    def _add(self, inputs: Example, rows: int) -> None:
        """Add what TRL has measured of this batch to the sums."""
        raise NotImplementedError

    def _watched(self) -> dict[str, float]:
        """The means of what `_add` has added."""
        raise NotImplementedError


class PairTrainer(PreferenceTrainer, DPOTrainer):  # type: ignore[misc]
    """DPO: which of two answers is better."""

    summed = ("margin", "accuracy")

    def _add(self, inputs: Example, rows: int) -> None:
        for name, measured in (("margin", "rewards/margins"), ("accuracy", "rewards/accuracies")):
            self._sums[name] += self._latest(measured) * rows

    def _watched(self) -> dict[str, float]:
        return {name: self._sums[name] / self._sums["rows"] for name in self.summed}


class RatingTrainer(PreferenceTrainer, KTOTrainer):  # type: ignore[misc]
    """KTO: good answers and bad ones. The margin is between the means of both.

    The KL term measures an answer by another one of its batch, so no batch is of one row.
    """

    summed = ("chosen", "chosen rows", "rejected", "rejected rows")
    fewest = 2

    def _get_eval_sampler(self, eval_dataset: Any) -> Sequence[int]:
        return with_a_last_batch(range(len(eval_dataset)), self.args.eval_batch_size, self.fewest)

    def _add(self, inputs: Example, rows: int) -> None:
        good = int(inputs["label"].sum())
        for name, count in (("chosen", good), ("rejected", rows - good)):
            self._sums[f"{name} rows"] += count
            if count:
                self._sums[name] += self._latest(f"rewards/{name}") * count

    def _watched(self) -> dict[str, float]:
        if not (self._sums["chosen rows"] and self._sums["rejected rows"]):
            return {}
        good, bad = (self._sums[name] / self._sums[f"{name} rows"] for name in ("chosen", "rejected"))
        return {"margin": good - bad}
