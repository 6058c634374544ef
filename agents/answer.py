"""One request to a flow: run its workflow, and send what it returns as JSON or as a stream of events."""

import json
from collections import deque
from collections.abc import Iterator, Set
from typing import Any

from agents.failures import Failed, NotAcceptable
from agents.flow_file import Flow, Reference
from agents.running import Runs
from agents.workflow import Known, Piece, Returned

STREAM, ANY = "text/event-stream", "*/*"
JSON_TYPES = frozenset({"application/json", "application/*", ANY})


class Answer:
    """The outputs of one run, until it is closed."""

    def __init__(self, flow: Flow, runs: Runs, inputs: dict[str, Any], *, streams: bool) -> None:
        """Run until every node has returned. Raises Failed, and what an unforeseen error raises.

        `streams`: outputs that are iterators may be read as `events`.
        """
        self._flow, self._inputs = flow, inputs
        self._events = runs.run(Known(inputs, {}), streams=streams)
        self._returned: dict[str, Any] = {}
        self._streams: set[str] = set()
        self._pieces: list[Piece] = []
        while len(self._returned) < len(runs.nodes) and (event := next(self._events, None)) is not None:
            self._take(event)

    def close(self) -> None:
        """End the run: where every node has returned, by itself; else it is cancelled."""
        if not self._streams:
            deque(self._events, maxlen=0)
        self._events.close()

    def streaming_output(self) -> str | None:
        """The output that streams, if there is one. Raises Failed for several."""
        names = [name for name, node in self._sources().items() if node in self._streams]
        if len(names) > 1:
            raise Failed("Multiple stream output fields not supported.")
        return names[0] if names else None

    def whole(self) -> dict[str, Any]:
        """All outputs, with the streamed ones in one piece. Raises what the stream raises."""
        pieces = list(self._rest()) if self._streams else []
        for node in self._streams:
            self._returned[node] = "".join(str(piece.text) for piece in pieces if piece.node == node)
        return self._outputs(without=None)

    def events(self, name: str) -> Iterator[str]:
        """The outputs as server-sent events: first what does not stream, then `name`, piece by piece."""
        node, others = self._sources()[name], self._outputs(without=name)
        if others:
            yield _event(others)
        for piece in self._rest():
            if piece.node == node:
                yield _event({name: piece.text})

    def _rest(self) -> Iterator[Piece]:
        """The pieces so far, and those to come: once every node has returned, there is nothing else."""
        yield from self._pieces
        yield from self._events

    def _take(self, event: Returned | Piece) -> None:
        if isinstance(event, Piece):
            self._pieces.append(event)
            return
        self._returned[event.node] = event.value
        if event.streams:
            self._streams.add(event.node)

    def _sources(self) -> dict[str, str]:
        values = {name: output.value for name, output in self._flow.outputs.items()}
        return {name: value.node for name, value in values.items() if isinstance(value, Reference)}

    def _outputs(self, without: str | None) -> dict[str, Any]:
        return {
            name: self._output(name) for name in self._flow.outputs if name != without and self._has(name)
        }

    def _has(self, name: str) -> bool:
        """Whether a client gets this output: not what aggregates a batch, or is for evaluation alone."""
        output = self._flow.outputs[name]
        node = output.value.node if isinstance(output.value, Reference) else ""
        return not output.evaluation_only and (not node or node in self._returned)

    def _output(self, name: str) -> Any:
        value = self._flow.outputs[name].value
        return Known(self._inputs, self._returned).value(value) if isinstance(value, Reference) else value


def require_json(accepted: Set[str]) -> None:
    """Raise NotAcceptable for a client that does not take JSON; without a header it takes everything."""
    if accepted and not JSON_TYPES & accepted:
        raise NotAcceptable(
            f"Media type {','.join(accepted)} in Accept header is not acceptable. "
            "Supported media type(s) - application/json"
        )


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
