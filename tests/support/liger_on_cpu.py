"""Prints how far Liger's rotary kernel moves loss and gradients of a small model of each kind.

Triton interprets it. The other kernels are put in and not run: its interpreter (3.6) gives them plain numbers
where they expect tensors. A process of its own: they replace functions of transformers' Phi-3 for good.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
from transformers import Phi3Config, Phi3ForCausalLM
from transformers.integrations.liger import apply_liger_kernel

from training.recipes.recipe import load_recipe
from training.recipes.training_arguments import arguments

SMALL = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
KINDS = {
    "phi-3": {"num_key_value_heads": 4},
    "phi-4": {"num_key_value_heads": 2, "partial_rotary_factor": 0.75, "tie_word_embeddings": True},
}


def loss_and_gradients(model):
    ids = torch.arange(24).view(2, 12)
    model.zero_grad()
    loss = model(ids, labels=ids).loss
    loss.backward()
    return [loss.detach(), *(weight.grad.clone() for weight in model.parameters())]


def moved():
    """The largest difference that the rotary kernel makes to each kind. The first use replaces it for all."""
    models = {kind: seeded(kind) for kind in KINDS}
    plain = {kind: loss_and_gradients(model) for kind, model in models.items()}
    for model in models.values():
        apply_liger_kernel(model, ASKED | {"rms_norm": False, "swiglu": False})
    return {
        kind: max(
            float((one - other).abs().max())
            for one, other in zip(plain[kind], loss_and_gradients(model), strict=True)
        )
        for kind, model in models.items()
    }


def seeded(kind):
    torch.manual_seed(0)
    return Phi3ForCausalLM(Phi3Config(**SMALL, **KINDS[kind]))


def names():
    """What the modules of a layer call themselves with all kernels."""
    model = seeded("phi-3")
    apply_liger_kernel(model, ASKED)
    return sorted({module._get_name() for module in (model.model.norm, *model.model.layers[0].children())})


ASKED = arguments(replace(load_recipe("tiny-cpu"), liger=True), Path("checkpoints"), 0).liger_kernel_config
print(json.dumps({"moved": moved(), "names": names()}))
