"""The size of a model in numbers. Works on the meta device, so before any weights are loaded."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phi3flow.core.errors import BadInput, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from training.recipes.recipe import Lora


@dataclass(frozen=True)
class ModelSize:
    """Counts of numbers, not bytes. A tied tensor counts once."""

    parameters: int
    linear: int  # parameters of linear layers, without the head
    adapters: int  # parameters that [lora] adds; 0 without it
    adapted_inputs: int  # summed input width of the adapters of one layer
    layers: int
    hidden: int
    intermediate: int
    key_values: int  # width of the keys; the values have the same
    heads: int
    vocabulary: int


def model_size(model: "PreTrainedModel", lora: "Lora | None") -> ModelSize:
    """Count `model`, which may be on the meta device. Raises BadInput for lora.targets it does not have."""
    from torch.nn import Linear

    head = model.get_output_embeddings()
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear) and module is not head
    }
    _require_targets(linear, lora)
    adapted = [module for name, module in linear.items() if lora and _is_target(name, lora)]
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=sum(module.weight.numel() for module in linear.values()),
        adapters=sum(lora.rank * (m.in_features + m.out_features) for m in adapted) if lora else 0,
        adapted_inputs=sum(module.in_features for module in adapted) // config.num_hidden_layers,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        key_values=width * config.num_key_value_heads,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
    )


def _require_targets(names: Iterable[str], lora: "Lora | None") -> None:
    """PEFT would check this only after loading the weights."""
    known = {name.rpartition(".")[2] for name in names}
    for target in lora.targets if lora else ():
        if not any(_matches(name, target) for name in names):
            raise BadInput(
                f"lora.targets: the model has no linear layer '{target}'", hint=nearest(target, known)
            )


def _matches(name: str, target: str) -> bool:
    """PEFT's rule: the whole name or its last parts."""
    return name == target or name.endswith(f".{target}")


def _is_target(name: str, lora: "Lora") -> bool:
    """No targets means all linear layers."""
    return not lora.targets or any(_matches(name, target) for target in lora.targets)
