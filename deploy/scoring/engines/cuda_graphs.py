"""Decoding steps as CUDA graphs: a step of few rows takes the GPU less time than Python takes to start it."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy.scoring.engines.fixed_cache import FIRST_SPAN
from phi3flow.core.console import say
from phi3flow.core.errors import first_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Forward = Callable[[int, int], "torch.Tensor"]
FUSED = ("RMSNorm", "MLP")  # how the classes end whose small kernels torch compiles into few
VARIANTS = 32  # of a part; beyond torch's own limit of 8 it would run as written
ROTARY = "apply_rotary_pos_emb"  # transformers' name in the module of every such model


class Size(NamedTuple):
    rows: int
    span: int


def sizes(most_rows: Callable[[int], int], longest: int) -> list[Size]:
    """A graph for each span up to `longest`, and there for 1, 2, 4, ... and `most_rows(span)` rows.

    The largest come first, so that the others find their memory in its pool.
    """
    found, span = set(), FIRST_SPAN
    while span <= longest:
        most, rows = most_rows(span), 1
        while rows < most:
            found.add(Size(rows, span))
            rows *= 2
        found.add(Size(most, span))
        span *= 2
    return sorted(found, reverse=True)


def captured(model: "PreTrainedModel", forward: Forward, wanted: Sequence[Size]) -> Forward:
    """`forward` as graphs, with fused kernels if torch can compile them here; says what it cannot do."""
    import torch

    try:
        with fused(model):
            return Graphs(forward, wanted)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the compiler or its tools raise, often wrapped
        reason = getattr(error, "inner_exception", error)
        say(f"decoding is slower: torch cannot compile kernels here: {first_line(reason)}")
    try:
        return Graphs(forward, wanted)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        say(f"decoding is several times slower: this model gives no CUDA graph: {first_line(error)}")
        return forward


class Graphs:
    """Replays the smallest captured step that holds the rows."""

    def __init__(self, forward: Forward, wanted: Sequence[Size]) -> None:
        import torch

        self._sizes = sorted(wanted)
        self._pool = torch.cuda.graph_pool_handle()
        self._steps = {each: self._capture(forward, each) for each in wanted}

    def __call__(self, rows: int, span: int) -> "torch.Tensor":
        """The logits of all its rows; the next call overwrites them."""
        size = next(size for size in self._sizes if size.span == span and size.rows >= rows)
        graph, logits = self._steps[size]
        graph.replay()
        return logits

    def _capture(self, forward: Forward, size: Size) -> tuple["torch.cuda.CUDAGraph", "torch.Tensor"]:
        """Run it once before: what a first run sets up must not be part of the graph."""
        import torch

        forward(*size)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # The other threads of a server may touch CUDA meanwhile: only this one's calls are checked.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = forward(*size)
        return graph, logits


@contextmanager
def fused(model: "PreTrainedModel") -> Iterator[None]:
    """Compile the norms, the MLPs and the rotary embedding of a model, for the time being.

    Not whole layers: each knows its number, so each would be compiled anew.
    """
    import torch

    parts: list[Any] = [part for part in model.modules() if type(part).__name__.endswith(FUSED)]
    module: Any = sys.modules[type(model).__module__]
    rotary = getattr(module, ROTARY, None)
    try:
        for part in parts:
            part.compile(dynamic=True)
        if rotary:
            setattr(module, ROTARY, torch.compile(rotary, dynamic=True))
        with torch._dynamo.config.patch(recompile_limit=VARIANTS):
            yield
    finally:
        for part in parts:
            part._compiled_call_impl = None
        if rotary:
            setattr(module, ROTARY, rotary)
