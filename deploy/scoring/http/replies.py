"""OpenAI's answers, whole and streamed, and what happens to them when the client disconnects."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from deploy.scoring.engine import EngineError, Generation
from deploy.scoring.http.bodies import ChatBody, OpenAiBody
from deploy.scoring.http.server_metrics import Metrics
from deploy.scoring.http.writers import Calling, Plain, Writer
from phi3flow.chats.call_form import CallForm

DONE = b"data: [DONE]\n\n"


class Form(NamedTuple):
    """How one of OpenAI's routes writes a reply: its names, and a writer for each answer."""

    prefix: str
    kind: str
    chunk_kind: str
    writer: Callable[[], Writer]
    opening: Mapping[str, Any] | None  # the first event of a stream
    closing: Mapping[str, Any]  # the event that says why the answer ended

    def calling(self, form: CallForm) -> "Form":
        """The same for an answer that may call tools."""
        return self._replace(writer=lambda: Calling(form))


CHAT = Form(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    lambda: Plain(
        lambda text: {"message": {"role": "assistant", "content": text}},
        lambda text: {"delta": {"content": text}},
    ),
    {"delta": {"role": "assistant", "content": ""}},
    {"delta": {}},
)
TEXT = Form(
    "cmpl",
    "text_completion",
    "text_completion",
    lambda: Plain(lambda text: {"text": text}, lambda text: {"text": text}),
    None,
    {"text": ""},
)


async def whole(form: Form, body: OpenAiBody, generation: Generation, model_id: str) -> dict[str, Any]:
    """Raises EngineError."""
    writer = form.writer()
    text = writer.whole(await generation.text())
    reason = writer.reason(generation.finish_reason)
    choice = {"index": 0} | text | {"finish_reason": reason, "logprobs": None}
    head = _head(form.prefix, form.kind, model_id)
    reply = head | {"choices": [choice], "usage": _usage(generation)}
    return reply | _prompt_ids(body, generation) | _prompt_logprobs(generation)


async def events(form: Form, body: OpenAiBody, generation: Generation, model_id: str) -> AsyncIterator[bytes]:
    """Server-sent events; DONE is the last one of a complete answer. Raises EngineError."""
    head, writer = _head(form.prefix, form.chunk_kind, model_id), form.writer()

    def chunk(text: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return head | {"choices": [{"index": 0, **text, "finish_reason": finish_reason}]}

    if form.opening:
        yield _event(chunk(form.opening) | _prompt_ids(body, generation))
    async for text in generation.pieces():
        for piece in writer.pieces(text):
            yield _event(chunk(piece))
    for piece in writer.rest():
        yield _event(chunk(piece))
    yield _event(chunk(form.closing, writer.reason(generation.finish_reason)))
    if body.stream_options.include_usage:
        yield _event(head | {"choices": [], "usage": _usage(generation)})
    yield DONE


@contextmanager
def attended(receive: Receive, generations: Sequence[Generation], metrics: Metrics) -> Iterator[None]:
    """Cancel the generations when the client disconnects, and when the block ends for any reason; count them.

    The request's body must have been read before. The block may add to `generations`.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        cancel()

    def cancel() -> None:
        for generation in generations:
            generation.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        cancel()
        metrics.count(generations)


class EventStream(StreamingResponse):
    """Server-sent events of one generation, `attended` to while they are sent.

    If the engine fails or `deadline` (in the event loop's time) passes, the last chunk is not sent: the
    server cuts the connection, so no client takes the answer for a complete one.
    """

    def __init__(
        self, events: AsyncIterator[bytes], deadline: float, attending: AbstractContextManager[None]
    ) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache"}, media_type="text/event-stream")
        self._deadline, self._attending = deadline, attending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            with self._attending:
                async with asyncio.timeout_at(self._deadline):
                    async for event in self.body_iterator:
                        await send({"type": "http.response.body", "body": event, "more_body": True})
        except (TimeoutError, EngineError):
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _head(prefix: str, kind: str, model_id: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": model_id}


def _usage(generation: Generation) -> dict[str, int]:
    prompt, completion = len(generation.request.prompt_token_ids), generation.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _prompt_ids(body: OpenAiBody, generation: Generation) -> dict[str, list[int]]:
    asked = isinstance(body, ChatBody) and body.return_token_ids
    return {"prompt_token_ids": list(generation.request.prompt_token_ids)} if asked else {}


def _prompt_logprobs(generation: Generation) -> dict[str, list[dict[str, Any] | None]]:
    """vLLM's format: one entry for each token of the prompt, None for the first, which follows nothing."""
    if not generation.request.score_prompt:
        return {}
    scores = [
        {str(score.token): {"logprob": score.logprob, "rank": score.rank, "decoded_token": score.text}}
        for score in generation.prompt_scores
    ]
    return {"prompt_logprobs": [None, *scores]}


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
