"""OpenAI's answers: the whole completion, and the events of a streamed one."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from deploy.scoring.engine import Generation
from deploy.scoring.http.dialects import ChatBody

DONE = b"data: [DONE]\n\n"


def models(model_id: str, created: int) -> dict[str, Any]:
    entry = {"id": model_id, "object": "model", "created": created, "owned_by": "phi3flow"}
    return {"object": "list", "data": [entry]}


async def completion(chat: ChatBody, generation: Generation, model_id: str) -> dict[str, Any]:
    """Raises EngineError."""
    message = {"role": "assistant", "content": await generation.text()}
    choice = {"index": 0, "message": message, "finish_reason": generation.finish_reason, "logprobs": None}
    reply = _head("chat.completion", model_id) | {"choices": [choice], "usage": _usage(generation)}
    return reply | _prompt_ids(chat, generation) | _prompt_logprobs(generation)


async def events(chat: ChatBody, generation: Generation, model_id: str) -> AsyncIterator[bytes]:
    """Server-sent events; the last one is DONE, and only a complete answer has it. Raises EngineError."""
    head = _head("chat.completion.chunk", model_id)

    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        return head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

    yield _event(chunk({"role": "assistant", "content": ""}) | _prompt_ids(chat, generation))
    async for piece in generation.pieces():
        yield _event(chunk({"content": piece}))
    yield _event(chunk({}, generation.finish_reason))
    if chat.stream_options.include_usage:
        yield _event(head | {"choices": [], "usage": _usage(generation)})
    yield DONE


def _head(kind: str, model_id: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": model_id}


def _usage(generation: Generation) -> dict[str, int]:
    prompt, completion = len(generation.request.prompt_token_ids), generation.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _prompt_ids(chat: ChatBody, generation: Generation) -> dict[str, list[int]]:
    return {"prompt_token_ids": list(generation.request.prompt_token_ids)} if chat.return_token_ids else {}


def _prompt_logprobs(generation: Generation) -> dict[str, list[dict[str, Any] | None]]:
    """vLLM's shape: one entry a token of the prompt, none for the first, which follows nothing."""
    if not generation.request.score_prompt:
        return {}
    scores = [
        {str(score.token): {"logprob": score.logprob, "rank": score.rank, "decoded_token": score.text}}
        for score in generation.prompt_scores
    ]
    return {"prompt_logprobs": [None, *scores]}


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
