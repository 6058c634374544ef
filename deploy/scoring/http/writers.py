"""An answer's text as the parts of OpenAI's choices: text alone, or words and calls."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from deploy.scoring.http.call_reader import Arguments, Began, CallReader, Part, Words
from phi3flow.chats.call_form import CallForm


class Writer(Protocol):
    """Turns an answer's text into the parts of a choice."""

    def whole(self, text: str) -> dict[str, Any]:
        """The choice of an answer that is not streamed."""

    def pieces(self, text: str) -> Iterator[dict[str, Any]]:
        """What a stream says of the next text."""

    def rest(self) -> Iterator[dict[str, Any]]:
        """What was held back."""

    def reason(self, finish_reason: str | None) -> str | None:
        """Why the answer ended, once it has."""


class Plain(NamedTuple):
    """Text is text: how a choice has it whole, and in pieces."""

    whole: Callable[[str], dict[str, Any]]
    piece: Callable[[str], dict[str, Any]]

    def pieces(self, text: str) -> Iterator[dict[str, Any]]:
        yield self.piece(text)

    def rest(self) -> Iterator[dict[str, Any]]:
        yield from ()

    def reason(self, finish_reason: str | None) -> str | None:
        return finish_reason


class Calling:
    """Words and calls of one answer, in OpenAI's shape."""

    def __init__(self, form: CallForm) -> None:
        self._reader, self._calls = CallReader(form), 0

    def whole(self, text: str) -> dict[str, Any]:
        words, calls = "", []  # type: tuple[str, list[dict[str, Any]]]
        for part in (*self._reader.add(text), *self._reader.rest()):
            match part:
                case Words(said):
                    words += said
                case Began(name):
                    calls.append(self._begun(name))
                case Arguments(more):
                    calls[-1]["function"]["arguments"] += more
        message: dict[str, Any] = {"role": "assistant", "content": words or (None if calls else "")}
        return {"message": message | ({"tool_calls": calls} if calls else {})}

    def pieces(self, text: str) -> Iterator[dict[str, Any]]:
        return map(self._delta, self._reader.add(text))

    def rest(self) -> Iterator[dict[str, Any]]:
        return map(self._delta, self._reader.rest())

    def reason(self, finish_reason: str | None) -> str | None:
        return "tool_calls" if self._calls and finish_reason == "stop" else finish_reason

    def _begun(self, name: str) -> dict[str, Any]:
        self._calls += 1
        identity = f"call_{uuid4().hex[:24]}"
        return {"id": identity, "type": "function", "function": {"name": name, "arguments": ""}}

    def _delta(self, part: Part) -> dict[str, Any]:
        match part:
            case Words(said):
                return {"delta": {"content": said}}
            case Began(name):
                call = self._begun(name)
            case Arguments(more):
                call = {"function": {"arguments": more}}
        return {"delta": {"tool_calls": [{"index": self._calls - 1, **call}]}}
