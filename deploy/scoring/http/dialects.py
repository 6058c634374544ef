"""Request bodies as they arrive, and what is asked in them.

    A            {"input_data": [text], "params": {..}}                       each text is one user turn
    B            {"input_data": {"input_string": [..], "parameters": {..}}}   one conversation
    openai       POST /v1/chat/completions
    completion   POST /v1/completions                                         the prompt is one user turn

A body is strict JSON, within limits on its size and time. The models stand in `bodies`.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import ValidationError

from deploy.scoring.http.bodies import BodyA, BodyB, ChatBody, CompletionBody
from deploy.scoring.http.body import Body
from deploy.scoring.http.http_errors import RequestError
from deploy.scoring.http.turns import ChatTurn, Said
from phi3flow.chats.chat_template import check_prompt
from phi3flow.core.errors import translating
from phi3flow.core.jsonl import RowError, without_repeated_keys

MAX_BODY_BYTES = 1 << 20
LONG_BODY = 1 << 15  # bytes; longer ones wait for each other beside the event loop, and short ones for none
REST = 4  # times as long as the last long body took: then the next one is parsed
BODY_SECONDS = 10.0  # no longer than a drain lasts, so that a half-sent body never holds it up
AnyBody = TypeVar("AnyBody", bound=Body)
AnyTurn = TypeVar("AnyTurn", bound=Said)


async def read_json(request: Request) -> Any:
    """Raises RequestError: 413 above MAX_BODY_BYTES, 408 after BODY_SECONDS, 400 for invalid JSON."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await _read(request)
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
    try:
        if len(raw) <= LONG_BODY:
            return _parsed(raw)
        return await _LONG_BODIES.parsed(raw)
    except UnicodeError:
        raise RequestError(400, "the body is not UTF-8 text") from None
    except RowError as error:
        raise RequestError(400, f"the body: {error}", error.field) from None
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not valid JSON, or nested too deeply") from None


def _parsed(raw: bytearray) -> Any:
    """Raises ValueError (also UnicodeError), RowError and RecursionError."""
    text = raw.decode("utf-8")
    body = json.loads(text, parse_constant=_not_json, object_pairs_hook=without_repeated_keys)
    if rb"\u" in raw:  # an escape may be half a surrogate pair: valid JSON, but no text
        json.dumps(body, ensure_ascii=False).encode("utf-8")
    return body


class _LongBodies:
    """A thread that leaves the processor, and Python's lock, to others most of the time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "long-bodies")
        self._next = 0.0

    async def parsed(self, raw: bytearray) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._parsed, raw)

    def _parsed(self, raw: bytearray) -> Any:
        time.sleep(max(0.0, self._next - time.monotonic()))  # the rest itself; only long bodies wait for it
        began = time.monotonic()
        try:
            return _parsed(raw)
        finally:
            ended = time.monotonic()
            self._next = ended + REST * (ended - began)


_LONG_BODIES = _LongBodies()


async def _read(request: Request) -> bytearray:
    declared = request.headers.get("content-length", "0")
    raw = bytearray()
    if int(declared) <= MAX_BODY_BYTES:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > MAX_BODY_BYTES:
                break
        else:
            return raw
    raise RequestError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def parse_score(body: Any) -> BodyA | BodyB:
    """Contract A if `input_data` is a list, B if it is an object. Raises RequestError."""
    match body:
        case {"input_data": list()}:
            a = _parse(BodyA, body)
            empty = next((at for at, text in enumerate(a.input_data) if not text.strip()), None)
            if empty is not None:
                raise RequestError(400, f"input_data[{empty}]: the text is empty", f"input_data[{empty}]")
            return a
        case {"input_data": dict()}:
            b = _parse(BodyB, body)
            turns = _prompt(b.input_data.input_string, "input_data.input_string")
            return b.model_copy(
                update={"input_data": b.input_data.model_copy(update={"input_string": turns})}
            )
    raise RequestError(
        400, "give a list of texts (contract A) or an object with input_string (contract B)", "input_data"
    )


def parse_chat(body: Any) -> ChatBody:
    """Raises RequestError."""
    chat = _parse(ChatBody, body)
    _require_whole_turns(chat.messages)
    _require_known_tools(chat)
    turns = _prompt(chat.messages, "messages", ends_with_user=chat.add_generation_prompt)
    if chat.stream and chat.prompt_logprobs is not None:
        raise RequestError(400, "prompt_logprobs: not available in a stream", "prompt_logprobs")
    return chat.model_copy(update={"messages": turns})


def parse_completion(body: Any) -> CompletionBody:
    """Raises RequestError."""
    completion = _parse(CompletionBody, body)
    if not completion.prompt.strip():
        raise RequestError(400, "prompt: the text is empty", "prompt")
    return completion


def _require_whole_turns(turns: Sequence[ChatTurn]) -> None:
    """Raise RequestError for a turn without content, and for a call or a result in the wrong place."""
    called: set[str] = set()
    for at, turn in enumerate(turns):
        path = f"messages[{at}]"
        if "content" not in turn.model_fields_set and not turn.tool_calls:
            _refuse(f"{path}.content", "is missing")
        if turn.tool_calls and turn.role != "assistant":
            _refuse(f"{path}.tool_calls", "only the assistant calls tools")
        if turn.tool_call_id and turn.role != "tool":
            _refuse(f"{path}.tool_call_id", "only a tool message answers a call")
        if turn.role != "tool":
            called = {call.id for call in turn.tool_calls}
        elif turn.tool_call_id not in called:
            _refuse(f"{path}.tool_call_id", "the assistant's turn before it has no call of this id")


def _require_known_tools(chat: ChatBody) -> None:
    """Raise RequestError for tools that do not go with each other or with the rest."""
    names = [tool.function.name for tool in chat.tools]
    twice = next((at for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        _refuse(f"tools[{twice}].function.name", "an earlier tool has this name")
    if chat.tool_choice.function and chat.tool_choice.function.name not in names:
        _refuse("tool_choice.function.name", "there is no tool of this name")
    if chat.tool_choice.type == "required" and not names:
        _refuse("tool_choice", "there are no tools")
    if chat.stop and chat.told_tools:
        _refuse("stop", "is not supported with tools: it might end a call in its middle")


def _refuse(field: str, what: str) -> NoReturn:
    raise RequestError(400, f"{field}: {what}", field)


def _parse(model: type[AnyBody], body: Any) -> AnyBody:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        problem = "is not supported" if first["type"] == "extra_forbidden" else first["msg"]
        field = _path(first["loc"])
        raise RequestError(400, f"{field or 'the body'}: {problem}", field) from None


def _path(location: tuple[str | int, ...]) -> str | None:
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in location]
    return "".join(steps).removeprefix(".") or None


def _prompt(turns: Sequence[AnyTurn], path: str, *, ends_with_user: bool = True) -> list[AnyTurn]:
    """The turns with one system message, the first. Raises RequestError for turns that make no prompt.

    Chat templates know one system message at most, so those of a client are joined, wherever they stand.
    """
    with translating({RowError: lambda error: RequestError(400, str(error), getattr(error, "field", None))}):
        check_prompt(
            [_in_place(turn, at) for at, turn in enumerate(turns)], path, ends_with_user=ends_with_user
        )
    system = [turn for turn in turns if turn.role == "system"]
    if len(system) > 1 or (system and turns[0].role != "system"):
        joined = "\n\n".join(turn.content for turn in system if turn.content.strip())
        return [
            system[0].model_copy(update={"content": joined}),
            *(turn for turn in turns if turn.role != "system"),
        ]
    return list(turns)


def _in_place(turn: Said, position: int) -> dict[str, str]:
    """A turn for `check_prompt`: a later system message counts as the assistant's, a result as the user's."""
    if turn.role == "tool":
        return {"role": "user", "content": f"result: {turn.content}"}
    role = "assistant" if turn.role == "system" and position else turn.role
    return {"role": role, "content": turn.content}
