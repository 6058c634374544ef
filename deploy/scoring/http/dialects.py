"""The request bodies that this endpoint understands.

    A       {"input_data": [text], "params": {..}}                       each text is one user turn
    B       {"input_data": {"input_string": [..], "parameters": {..}}}   one conversation
    openai  POST /v1/chat/completions

A body is strict JSON, within limits on its size and time. A null counts as absent everywhere, as in OpenAI's
clients. An unknown field is refused by name, because a parameter that is ignored in silence is a defect that
is hard to find.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from deploy.scoring.engine import GenerationRequest
from deploy.scoring.http.http_errors import RequestError
from phi3flow.chats.chat_template import check_prompt
from phi3flow.core.errors import translating
from phi3flow.core.jsonl import RowError

MAX_BODY_BYTES = 1 << 20
BODY_SECONDS = 10.0  # no longer than a drain lasts, so that a half-sent body never holds it up
DEFAULT_MAX_TOKENS = 256
MAX_INPUTS = 64  # texts of one contract A request
MAX_STOPS, MAX_STOP_CHARACTERS = 4, 256
SEED_BITS = 64

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
Tokens = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=-(1 << SEED_BITS - 1), lt=1 << SEED_BITS - 1)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
OneOrMore = BeforeValidator(lambda stop: [stop] if isinstance(stop, str) else stop)


AnyBody = TypeVar("AnyBody", bound="Body")


class Body(BaseModel):
    """`NEUTRAL` are fields that clients send with the value that changes nothing: any other is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    NEUTRAL: ClassVar[Mapping[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_absent(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value not in (None, cls.NEUTRAL.get(name))}


def _joined(content: Any) -> Any:
    """OpenAI's list of text parts as one text; anything else is left to the field's own check."""
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in content
    ):
        return "".join(part["text"] for part in content)
    return content


class Turn(Body):
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)]


Conversation = Annotated[list[Turn], Field(min_length=1)]


class Parameters(Body):
    """Contracts A and B. `return_full_text` is accepted, but only the answer is returned."""

    temperature: Temperature | None = None
    top_p: TopP = 1.0
    max_new_tokens: Tokens = DEFAULT_MAX_TOKENS
    do_sample: bool | None = None
    seed: Seed | None = None
    return_full_text: bool = False

    def request(self, prompt: Sequence[int]) -> GenerationRequest:
        """`do_sample` without a temperature means temperature 1; a temperature works without `do_sample`."""
        asked = self.temperature if self.temperature is not None else float(self.do_sample or False)
        temperature = 0.0 if self.do_sample is False else asked
        return GenerationRequest(tuple(prompt), self.max_new_tokens, temperature, self.top_p, self.seed)


class BodyA(Body):
    input_data: Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)]
    params: Parameters = Parameters()


class InputB(Body):
    input_string: Conversation
    parameters: Parameters = Parameters()


class BodyB(Body):
    input_data: InputB


class StreamOptions(Body):
    include_usage: bool = False


class ChatBody(Body):
    """OpenAI's chat completion. `model` and `user` may be anything: one model is served.

    The last three fields are vLLM's. `prompt_logprobs` 0 adds the log-likelihood of each token of the prompt.
    Without `add_generation_prompt` the prompt ends with the last message, which may then be the assistant's,
    such as a reference answer to score.
    """

    NEUTRAL = {
        "n": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "logprobs": False,
        "logit_bias": {},
        "tools": [],
        "response_format": {"type": "text"},
        "store": False,
    }
    messages: Conversation
    model: str = ""
    user: str = ""
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    seed: Seed | None = None
    stop: Annotated[list[StopString], OneOrMore, Field(max_length=MAX_STOPS)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    return_token_ids: bool = False
    add_generation_prompt: bool = True
    prompt_logprobs: Literal[0] | None = None

    def request(self, prompt: Sequence[int]) -> GenerationRequest:
        return GenerationRequest(
            tuple(prompt),
            self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS,
            self.temperature,
            self.top_p,
            self.seed,
            tuple(self.stop),
            self.prompt_logprobs is not None,
        )


async def read_json(request: Request) -> Any:
    """Raises RequestError: 413 above MAX_BODY_BYTES, 408 after BODY_SECONDS, 400 for invalid JSON."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await _read(request)
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_not_json)
        if rb"\u" in raw:  # an escape may be half a surrogate pair: valid JSON, but no text
            json.dumps(body, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise RequestError(400, "the body is not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not valid JSON, or nested too deeply") from None
    return body


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
            _check_turns(b.input_data.input_string, "input_data.input_string")
            return b
    raise RequestError(
        400, "give a list of texts (contract A) or an object with input_string (contract B)", "input_data"
    )


def parse_chat(body: Any) -> ChatBody:
    """Raises RequestError."""
    chat = _parse(ChatBody, body)
    _check_turns(chat.messages, "messages", ends_with_user=chat.add_generation_prompt)
    if chat.stream and chat.prompt_logprobs is not None:
        raise RequestError(400, "prompt_logprobs: not available in a stream", "prompt_logprobs")
    return chat


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


def _check_turns(turns: Sequence[Turn], path: str, *, ends_with_user: bool = True) -> None:
    """Raise RequestError for turns that make no prompt."""
    with translating({RowError: lambda error: RequestError(400, str(error), getattr(error, "field", None))}):
        check_prompt([turn.model_dump() for turn in turns], path, ends_with_user=ends_with_user)
