"""Full training with weights, gradients and optimiser state split over the ranks: accelerate's FSDP2.

A checkpoint is rank 0's and has the files of a run that is not sharded, so any number of processes continues
from it, with sharding or without. Rank 0 gathers them in its machine's memory.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from training.loop.trainer import AssistantTrainer
from training.ranks import broadcast, is_main_process

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TO_RANK_0 = StateDictOptions(full_state_dict=True, cpu_offload=True)
FROM_RANK_0 = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


class ShardedTrainer(AssistantTrainer):
    """Splits the model when training starts; until then each rank holds all of it, on the CPU."""

    model: Any
    optimizer: Any

    def create_accelerator_and_postprocess(self) -> None:
        """On a CPU accelerate ignores its FSDP plugin, although torch splits a model there, too."""
        super().create_accelerator_and_postprocess()
        if self.args.device.type == "cpu":
            state = self.accelerator.state
            state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    @contextmanager
    def answering_model(self) -> Iterator["PreTrainedModel"]:
        """Only while it answers is the model where it will be trained: it may not fit beside the others."""
        yield self.model.to(self.args.device)
        self.model.to("cpu")

    def whole_model(self, start: "Callable[[], PreTrainedModel]") -> "PreTrainedModel":
        """On rank 0 a new model with the trained weights; the others only help to gather them."""
        weights = self._gathered_weights()
        self.optimizer.state.clear()
        if not is_main_process():
            return self.model
        model = start()
        model.load_state_dict(weights)
        return model.to(self.args.device)

    def require_finite_weights(self) -> None:
        """Each rank looks at its own shards; all of them raise if one has found something."""
        finite = all(torch.isfinite(_own(weight)).all() for weight in self.model.parameters())
        broken = self.accelerator.reduce(torch.tensor(float(not finite), device=self.args.device), "sum")
        if broken:
            raise self._diverged("a weight is not finite")

    def broadcast_weights(self) -> None:
        """Give each rank its shards of the best weights."""
        if best := broadcast(self.state.best_model_checkpoint):
            self._load_weights(Path(best))

    def load_best_of(self, checkpoint: Path) -> None:
        """Split the model first, which else happens when training starts."""
        self.create_optimizer()
        self.model, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        self.model_wrapped = self.model
        super().load_best_of(checkpoint)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        weights = self._gathered_weights()
        if is_main_process():
            self._save(output_dir, state_dict=weights)

    def _gathered_weights(self) -> dict[str, Any]:
        """All weights on rank 0, on its CPU. Of tied weights torch gathers one and leaves the other split."""
        weights = get_model_state_dict(self.model, options=TO_RANK_0)
        for name, source in self.model.all_tied_weights_keys.items():
            if name in weights:
                weights[name] = weights[source]
        return weights

    def _load_best_model(self) -> None:
        """Left to `broadcast_weights`: only ranks that see rank 0's disk are asked here."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._load_weights(Path(resume_from_checkpoint))

    def _load_weights(self, checkpoint: Path) -> None:
        """Rank 0 reads them and sends each rank its shards."""
        weights: dict[str, Any] = {}
        if is_main_process():
            for path in sorted(checkpoint.glob("*.safetensors")):
                weights |= load_file(path)
            tied = self.model.all_tied_weights_keys
            weights |= {name: weights[source] for name, source in tied.items() if source in weights}
        set_model_state_dict(self.model, weights, options=FROM_RANK_0)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """The files of a run that is not sharded. Gathered tensors are on the CPU."""
        state = get_optimizer_state_dict(self.model, self.optimizer, options=TO_RANK_0)
        if is_main_process():
            numbers = {name: number for number, name in enumerate(self._trained_names())}
            torch.save(_renamed(state, numbers), Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state: dict[str, Any] = {}
        if is_main_process():
            stored = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
            state = _renamed(stored, dict(enumerate(self._trained_names())))
        set_optimizer_state_dict(self.model, self.optimizer, state, options=FROM_RANK_0)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _trained_names(self) -> list[str]:
        """The names of the weights in the optimiser's order, by which torch numbers them."""
        names = {weight: name for name, weight in self.model.named_parameters()}
        return [names[weight] for group in self.optimizer.param_groups for weight in group["params"]]


def _own(weight: torch.Tensor) -> torch.Tensor:
    """This rank's part of a weight."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _renamed(state: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimiser's state with other keys for its weights: numbers for names, or names for numbers."""
    groups = [
        {**group, "params": [names[weight] for weight in group["params"]]} for group in state["param_groups"]
    ]
    return {"state": {names[weight]: kept for weight, kept in state["state"].items()}, "param_groups": groups}
