"""A workflow run for code that is not async: its outputs as an ordinary iterator."""

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any

from agent_framework import Workflow

_END = object()


def run(workflow: Workflow, message: Any) -> Generator[Any, None, None]:
    """What the workflow yields for a message, as it yields it. Raises what a node or the framework raises.

    The thread that reads drives an event loop of its own. Closing the iterator cancels the run: a client that
    left ends it so.
    """
    with asyncio.Runner() as runner:
        loop, outputs = runner.get_loop(), _outputs(workflow, message)
        while (output := loop.run_until_complete(anext(outputs, _END))) is not _END:
            yield output


async def _outputs(workflow: Workflow, message: Any) -> AsyncIterator[Any]:
    async for event in workflow.run(message, stream=True):
        if event.type == "output":
            yield event.data
