"""Runs of a flow's workflow for code that is not async: their outputs as ordinary iterators."""

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Sequence
from typing import Any

from agent_framework import Workflow

from agents.nodes import Bound
from agents.workflow import Known, workflow_of

_END = object()


class Runs(threading.local):
    """The runs of one flow. Each thread keeps an event loop and a workflow, for one run after the other.

    A workflow object holds the state of its run: no two runs have the same one at a time, and one whose run
    was cut short is thrown away, with its loop.
    """

    def __init__(self, name: str, nodes: Sequence[Bound]) -> None:
        """`nodes`: those that answer a request. Called anew in every thread, as for any `local`."""
        self.nodes = nodes
        self._name = name
        self._idle: dict[bool, tuple[asyncio.Runner, Workflow]] = {}

    def run(self, known: Known, *, streams: bool) -> Generator[Any, None, None]:
        """What the nodes return for these inputs, as they return. Raises what a node or the framework raises.

        `streams`: what a node yields comes piece by piece; else joined. The thread that reads drives the
        event loop. Closing the iterator cancels the run: a client that left ends it so.
        """
        runner, workflow = self._idle.pop(streams) if streams in self._idle else self._new(streams)
        loop, outputs = runner.get_loop(), _outputs(workflow, known)
        try:
            while (output := loop.run_until_complete(anext(outputs, _END))) is not _END:
                yield output
        except BaseException:
            loop.run_until_complete(_cancelled(outputs))
            runner.close()
            raise
        self._idle[streams] = runner, workflow

    def _new(self, streams: bool) -> tuple[asyncio.Runner, Workflow]:
        return asyncio.Runner(), workflow_of(self._name, self.nodes, streams=streams)


async def _outputs(workflow: Workflow, message: Any) -> AsyncIterator[Any]:
    async for event in workflow.run(message, stream=True):
        if event.type == "output":
            yield event.data


async def _cancelled(outputs: AsyncIterator[Any]) -> None:
    """End a run where it waits. Closed at a `yield`, the framework's generators would close each other."""

    async def rest() -> None:
        async for _ in outputs:
            pass

    reading = asyncio.ensure_future(rest())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
