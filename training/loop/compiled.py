"""Decoder layers that torch compiles one by one, for the steps of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from phi3flow.core.errors import first_line
from training.ranks import print0

GRAPHS = 64  # that torch may compile of a layer's code; beyond its own limit of 8 layers would run as written


class CompiledLayers:
    """The decoder layers of `model`: compiled within `compiling`, and within that as written in `as_written`.

    A layer compiles at its first call, for rows of any length (`dynamic=True`). Its parameters keep their
    names, so checkpoints and adapters do not notice.
    """

    def __init__(self, model: Any) -> None:
        self._layers = list(model.model.layers)
        self.untried = False
        # Below adapters the first layer's input has no gradient: one more program to compile for that layer.
        model.enable_input_require_grads()

    @contextmanager
    def compiling(self) -> Iterator[None]:
        with torch._dynamo.config.patch(recompile_limit=GRAPHS):
            for layer in self._layers:
                layer.compile(dynamic=True)
            self.untried = True
            try:
                yield
            finally:
                self._release()

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """For validation: another mode is another graph, which takes longer to compile than it saves."""
        compiled = [layer._compiled_call_impl for layer in self._layers]
        self._release()
        try:
            yield
        finally:
            for layer, call in zip(self._layers, compiled, strict=True):
                layer._compiled_call_impl = call

    def give_up(self, error: Exception) -> None:
        """Run as written from now on, and say why."""
        self._release()
        print0(
            f"  the layers run uncompiled, more slowly: torch cannot compile them here: {first_line(error)}"
        )

    def _release(self) -> None:
        self.untried = False
        for layer in self._layers:
            layer._compiled_call_impl = None
