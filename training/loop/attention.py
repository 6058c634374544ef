"""Our attention functions for transformers: packed chats by their lengths, and fp32 on a CPU."""

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from training.recipes.training_arguments import has_varlen

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FP32_ATTENTION = "sdpa_fp32"
VARLEN = "varlen"
UNLIMITED = -1  # of varlen_attn's window_size
KERNELS = {grouped: has_varlen(grouped=grouped) for grouped in (False, True)}


def attend_by_lengths(model: "PreTrainedModel") -> None:
    """Give packed rows torch's variable-length attention, which reads no other chat and needs no mask.

    On an H200 it takes 0.11 ms for 8 192 tokens in chats of 256, and sdpa under a mask 3.3 ms (bench/LOG.md).
    """
    AttentionInterface.register(VARLEN, _by_lengths)
    AttentionMaskInterface.register(VARLEN, _mask_of_padding)
    model.set_attn_implementation(VARLEN)


def _mask_of_padding(*, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """Packed rows come without a mask of padding: their lengths are enough."""
    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **kwargs)


def _by_lengths(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each chat of a row: (1, heads, tokens, size) to (1, tokens, heads, size).

    `cu_seq_lens_q` (chats + 1) holds where each chat starts, and the number of tokens. Without it rows are
    not packed, as in generation, and sdpa answers. It does so under a mask where the kernel cannot: on a CPU,
    in fp32, with dropout, in an older torch.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary leaves them fp32, autocast or not
    if cu_seq_lens_q is not None:
        window = sliding_window or query.shape[2]
        grouped = query.shape[1] != key.shape[1]
        if _has_kernel(value, grouped) and not dropout:
            lengths = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
            left = UNLIMITED if window >= max_length_q else window - 1
            packed = (states.transpose(1, 2)[0] for states in (query, key, value))
            more = {"enable_gqa": True} if grouped else {}
            attended = varlen_attn(*packed, *lengths, scale=scaling, window_size=(left, 0), **more)
            return attended[None], None
        attention_mask = _within_chats(cu_seq_lens_q, query.shape[2], window)
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
    )


def _has_kernel(value: torch.Tensor, grouped: bool) -> bool:
    return value.is_cuda and value.dtype in {torch.bfloat16, torch.float16} and KERNELS[grouped]


def _within_chats(starts: torch.Tensor, tokens: int, window: int) -> torch.Tensor:
    """(1, 1, tokens, tokens): True where a token sees itself and the last `window` - 1 of its own chat."""
    positions = torch.arange(tokens, device=starts.device)
    chats = torch.bucketize(positions, starts, right=True)
    distance = positions[:, None] - positions
    return ((chats[:, None] == chats) & (distance >= 0) & (distance < window))[None, None]


def attend_in_fp32(model: "PreTrainedModel") -> None:
    """Make an sdpa model compute attention in fp32, also under bf16 autocast. Its saved config stays sdpa.

    On a CPU torch's bf16 attention takes four to six times as long as fp32 on chats of 20 to 50 tokens,
    forward and backward, and as long on chats of 500 (bench/LOG.md).
    """
    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(FP32_ATTENTION, _in_fp32)
    AttentionMaskInterface.register(FP32_ATTENTION, sdpa_mask)
    model.set_attn_implementation(FP32_ATTENTION)


def _in_fp32(
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
