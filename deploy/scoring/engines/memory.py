"""How much memory an engine takes, and how many tokens of keys and values that gives it."""

from collections.abc import Iterator
from contextlib import contextmanager

from deploy.scoring.engine import CACHE_BYTES
from deploy.scoring.engines.fixed_cache import span_of
from phi3flow.core.errors import BadInput
from training.estimate.free_space import size

GPU_SHARE = 3  # of the free memory one part in three: two servers fit beside each other (`up --arena`)


def cache_tokens(
    token_bytes: int, context: int, rows: int, *, wanted: int | None = None, free: int | None = None
) -> int:
    """How many tokens' keys and values to keep, for `rows` answers in a context of so many tokens.

    `wanted` is --cache-gb in bytes, `free` a GPU's free memory; both in bytes. Raises BadInput if not even
    one answer fits.
    """
    longest = span_of(context)
    one = longest * token_bytes
    room = f"one answer of {context:,} tokens takes {size(one)} of keys and values"
    enough = f"--cache-gb {_gigabytes(one)}"
    if wanted is not None and wanted < one:
        raise BadInput(f"--cache-gb {wanted / 1e9:g}: {room}", hint=enough)
    if free is not None and max(one, wanted or 0) > free:
        asked = f"--cache-gb {wanted / 1e9:g}: " if wanted else ""
        hint = f"at most --cache-gb {free // 10**8 / 10:g}" if free > one else "nvidia-smi shows what uses it"
        raise BadInput(f"{asked}{room}, and {size(free)} are free beside the weights", hint=hint)
    default = CACHE_BYTES if free is None else free // GPU_SHARE
    return min(max(wanted or default, one) // token_bytes, rows * longest)


def _gigabytes(count: int) -> str:
    """Rounded up to a tenth."""
    return f"{-(-count // 10**8) / 10:g}"


@contextmanager
def explaining_full_memory(cache: int, least: int) -> Iterator[None]:
    """Turn torch's error into a BadInput that names the option; `cache` and the `least` cache are bytes."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BadInput(
            f"the GPU has no memory left to work in, beside the weights and {size(cache)} of keys and values",
            hint=f"--cache-gb {_gigabytes(least)}" if cache > least else "nvidia-smi shows what uses it",
        ) from error
