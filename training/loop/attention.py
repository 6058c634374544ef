"""Attention on a CPU: in fp32, beneath bf16 autocast too.

Torch's bf16 kernel for CPUs takes four to six times as long as its fp32 kernel on chats of twenty to fifty
tokens, forward and backward, and as long on chats of five hundred (figures in bench/LOG.md).
"""

from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "sdpa_fp32"


def attend_in_fp32(model: "PreTrainedModel") -> None:
    """Make a model that attends by sdpa do it in fp32. Its saved configuration does not tell."""
    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    with torch.autocast("cpu", enabled=False):
        output, _ = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), attention_mask, **kwargs
        )
    return output.to(value.dtype), None
