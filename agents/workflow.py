"""A flow as an Agent Framework workflow: an executor for each node, an edge for each reference.

    ask                                 chat
    inputs -> score, judge              grade
    inputs -> ask_base, ask_tuned       compare: both sides at once
              ask_base, ask_tuned -> score

A workflow object holds the state of one run, so every request has its own (`agents.running`). What a node
returns leaves the workflow as an output at once; an iterator leaves it piece by piece, for a client that
reads a stream.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import iscoroutine
from typing import Any, NamedTuple

from agent_framework import Executor, Workflow, WorkflowBuilder, WorkflowContext, handler

from agents.failures import Failed, NodeFailed
from agents.flow_file import Reference
from agents.nodes import Bound
from agents.promptflow_names import PromptflowException
from agents.threads import in_this_thread, in_thread, pieces_of
from agents.tracing import Asked, asking

START = "inputs"
PATH_PART = re.compile(r"(\w+)|\['(.*?)'\]|\[(\d+)\]")


class Known:
    """What a node may refer to: the flow's inputs, and the outputs of nodes by their names.

    The framework copies every message for its events. This one is never changed, and may hold an iterator,
    which cannot be copied.
    """

    def __init__(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        self.inputs, self.outputs = inputs, outputs

    def __deepcopy__(self, _: Any) -> "Known":
        return self

    def value(self, reference: Reference) -> Any:
        """What a reference of the flow file means here. Raises Failed for a path that is not there."""
        if not reference.node:
            return self.inputs[reference.name]
        return at_path(reference.node, self.outputs[reference.node], reference.path)


class Returned(NamedTuple):
    """What a node returned; `value` is None for one that `streams`."""

    node: str
    value: Any
    streams: bool = False


class Piece(NamedTuple):
    """The next part of what a node streams."""

    node: str
    text: Any


class Start(Executor):
    """Hands a request's inputs to several nodes that need no other node."""

    @handler
    async def begin(self, known: Known, ctx: WorkflowContext[Known]) -> None:
        await ctx.send_message(known)


class NodeExecutor(Executor):
    """Calls a node's function once all that it refers to is known.

    `feeds`: another node refers to it, and gets an iterator as it is. `streams`: what an iterator gives is
    sent on piece by piece; else joined. `alone`: the flow has no other node, so this one needs no thread.
    """

    def __init__(self, bound: Bound, *, feeds: bool, streams: bool, alone: bool) -> None:
        super().__init__(id=bound.node.name)
        self._bound, self._feeds, self._streams, self._alone = bound, feeds, streams, alone

    @handler
    async def run_after_one(self, known: Known, ctx: WorkflowContext[Known, Returned | Piece]) -> None:
        await self._run(known, ctx)

    @handler
    async def run_after_all(self, known: list[Known], ctx: WorkflowContext[Known, Returned | Piece]) -> None:
        outputs = {name: value for each in known for name, value in each.outputs.items()}
        await self._run(Known(known[0].inputs, outputs), ctx)

    async def _run(self, known: Known, ctx: WorkflowContext[Known, Returned | Piece]) -> None:
        arguments = {name: known.value(asked) for name, asked in self._bound.references().items()}
        with asking(self._bound.connection(), arguments) as asked:
            result = await self._result(arguments)
            if isinstance(result, Iterator) and not self._feeds:
                if self._streams:
                    await self._stream(result, asked, ctx)
                    return
                result = await self._call(lambda: "".join(map(str, result)))
            asked.piece(result)
        await ctx.yield_output(Returned(self.id, result))
        await ctx.send_message(Known(known.inputs, {**known.outputs, self.id: result}))

    async def _stream(self, result: Iterator[Any], asked: Asked, ctx: WorkflowContext[Known, Any]) -> None:
        await ctx.yield_output(Returned(self.id, None, streams=True))
        async for piece in pieces_of(result):
            asked.piece(piece)
            await ctx.yield_output(Piece(self.id, piece))

    async def _result(self, arguments: Mapping[str, Any]) -> Any:
        try:
            result = await self._call(lambda: self._bound.call(**arguments))
            return await result if iscoroutine(result) else result
        except PromptflowException:
            raise
        except Exception as error:
            raise NodeFailed(self.id, error) from error

    async def _call(self, call: Callable[[], Any]) -> Any:
        return in_this_thread(call) if self._alone else await in_thread(call)


def workflow_of(name: str, nodes: Sequence[Bound], *, streams: bool) -> Workflow:
    """A new workflow over these nodes, which takes the flow's inputs as Known; `streams` as above."""
    fed = {asked for bound in nodes for asked in bound.node.asks()}
    executors = {
        node.name: NodeExecutor(bound, feeds=node.name in fed, streams=streams, alone=len(nodes) == 1)
        for bound in nodes
        for node in [bound.node]
    }
    first = [executors[bound.node.name] for bound in nodes if not bound.node.asks()]
    start = first[0] if len(first) == 1 else Start(id=START)
    builder = WorkflowBuilder(start_executor=start, name=name)
    if len(first) > 1:
        builder.add_fan_out_edges(start, first)
    for bound in nodes:
        asked = [executors[node] for node in bound.node.asks()]
        if len(asked) > 1:
            builder.add_fan_in_edges(asked, executors[bound.node.name])
        elif asked:
            builder.add_edge(asked[0], executors[bound.node.name])
    return builder.build()


def at_path(node: str, value: Any, path: str) -> Any:
    """`value.a['b'][0]` for the path `a['b'][0]`. Raises Failed where that is not there."""
    try:
        for word, key, index in PATH_PART.findall(path):
            if index:
                value = value[int(index)]
            else:
                value = value[word or key] if isinstance(value, dict) or key else getattr(value, word)
    except (KeyError, IndexError, AttributeError):
        raise Failed(
            f"Flow execution failed. Invalid property '{path}' when accessing the node '{node}'. "
            "Please check the property and try again."
        ) from None
    return value
