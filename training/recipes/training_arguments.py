"""A recipe as TRL's configurations and PEFT's LoraConfig, and what the hardware offers."""

import os
import warnings
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from training.recipes.recipe import Lora, Recipe

if TYPE_CHECKING:
    from peft import LoraConfig
    from trl import DPOConfig, KTOConfig, SFTConfig

LIGER = Version("0.8.5")
TOO_OLD = "driver on your system is too old"


def arguments(recipe: Recipe, checkpoints: Path, seed: int) -> "SFTConfig":
    """The SFTConfig of `recipe`: validates and saves a checkpoint every `eval_every` steps."""
    from trl import SFTConfig

    made = SFTConfig(
        **_shared(recipe, checkpoints, seed),
        max_length=recipe.max_length,
        **(_liger() if recipe.liger is True else {}),
        dataset_kwargs={"skip_prepare_dataset": True},
        **(_fsdp2() if recipe.sharding else {}),
    )
    if recipe.sharding:
        made.fsdp_plugin_args |= _fsdp_plugin(in_bf16=bool(made.bf16))
    return made


def _liger() -> dict[str, Any]:
    """Kernels for the layers; the loss stays TRL's, which never holds all logits either.

    TRL's advice to take kernels from the hub instead is not for machines that cannot reach it.
    """
    warnings.filterwarnings("ignore", ".*use_liger_kernel=True.* is deprecated", FutureWarning)
    layers = {"rope": True, "rms_norm": True, "swiglu": True}
    loss = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    return {"use_liger_kernel": True, "liger_kernel_config": layers | loss}


def dpo_arguments(recipe: Recipe, checkpoints: Path, seed: int) -> "DPOConfig":
    """The same for pairs of answers. TRL turns dropout off: both models are to be compared."""
    from trl import DPOConfig

    return DPOConfig(**_of_preferences(recipe, checkpoints, seed))


def kto_arguments(recipe: Recipe, checkpoints: Path, seed: int, good: int, bad: int) -> "KTOConfig":
    """The same for `good` and `bad` answers; the fewer ones weigh more, so that both sides weigh the same.

    Source: KTO (arXiv 2402.01306), equation 8.
    """
    from trl import KTOConfig

    return KTOConfig(
        **_of_preferences(recipe, checkpoints, seed),
        desirable_weight=max(1.0, bad / max(good, 1)),
        undesirable_weight=max(1.0, good / max(bad, 1)),
    )


def _of_preferences(recipe: Recipe, checkpoints: Path, seed: int) -> dict[str, Any]:
    """Runs on preferences are short, so every step is logged."""
    shared = _shared(recipe, checkpoints, seed) | {"logging_steps": 1}
    return shared | {"beta": recipe.beta, "max_length": recipe.max_length}


def _shared(recipe: Recipe, checkpoints: Path, seed: int) -> dict[str, Any]:
    """What TRL's configurations have in common."""
    gpu = has_gpu()
    return {
        "output_dir": str(checkpoints),
        "max_steps": recipe.steps if recipe.steps is not None else -1,
        "num_train_epochs": recipe.epochs if recipe.epochs is not None else 1,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.scheduler,
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.weight_decay,
        "adam_beta2": recipe.beta2,
        "bf16": uses_bf16(recipe.precision),
        "gradient_checkpointing": recipe.gradient_checkpointing is True,
        "remove_unused_columns": False,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": recipe.eval_every,
        "save_steps": recipe.eval_every,
        "load_best_model_at_end": True,
        "restore_callback_states_from_checkpoint": True,  # early stopping's count of validations
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "logging_steps": 10,
        "logging_nan_inf_filter": False,
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "disable_tqdm": True,
    }


def _fsdp2() -> dict[str, Any]:
    """Each decoder layer is split on its own.

    Gradients are split after every batch: accumulated whole, they would take the memory that sharding saves.
    """
    return {
        "fsdp": "full_shard auto_wrap",
        "fsdp_config": {"version": 2},
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
    }


def _fsdp_plugin(*, in_bf16: bool) -> dict[str, Any]:
    """What SFTConfig cannot say: gradients are summed in fp32."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(torch.bfloat16 if in_bf16 else None, torch.float32)
    return {"mixed_precision_policy": policy, "sync_module_states": None}


def peft_config(lora: Lora | None) -> "LoraConfig | None":
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rank_stabilised,
        use_dora=lora.dora,
        target_modules=lora.targets or "all-linear",
        task_type="CAUSAL_LM",
    )


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def old_driver() -> str | None:
    """What torch says of a driver that is older than the CUDA it was built for; None if that is not so."""
    import torch

    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # then the CPU is meant, whatever the driver
        return None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # no GPU, or a torch without CUDA
        return str(error).partition(". ")[0] if TOO_OLD in str(error) else None
    return None


def has_bf16() -> bool:
    """Whether this machine has bf16 instructions and does not emulate them.

    Emulation is slow: on a CPU with AVX2 only, the gradient of a linear layer's input took 140 times as long
    as in fp32 (`bench/LOG.md`, "bf16 without the instructions").
    """
    import torch

    if has_gpu():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def has_varlen(*, grouped: bool) -> bool:
    """Whether torch's kernel for packed chats does what we ask: from 2.11 on, grouped keys from 2.12 on."""
    from torch.nn.attention import varlen

    return ("enable_gqa" if grouped else "window_size") in signature(varlen.varlen_attn).parameters


def has_liger() -> bool:
    """Whether the package liger-kernel is installed, not older than the version that was measured."""
    try:
        return Version(version("liger-kernel")) >= LIGER
    except PackageNotFoundError:
        return False


def uses_bf16(precision: str) -> bool:
    """Whether to autocast to bf16. Trained weights stay fp32, so small updates are not rounded away."""
    return has_bf16() if precision == "auto" else precision == "bf16"


def emulation_warning(recipe: Recipe, *, native: bool) -> str | None:
    """A warning before a run that uses bf16 on a machine without it (`native`); None if all is well."""
    if native or "bf16" not in (recipe.precision, recipe.weights):
        return None
    return (
        "this machine only emulates bf16, which can take a hundred times as long: "
        'set precision = "fp32" and weights = "fp32" in the recipe'
    )
