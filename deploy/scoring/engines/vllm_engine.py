"""The GPU engine: a vLLM server in an environment of its own, reached over its OpenAI-compatible HTTP.

It gets token ids and returns text, so prompts are rendered here as for every other engine. Batching is its
business; what is in flight is bounded here.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.scoring.engine import (
    EngineClosed,
    EngineError,
    EngineFailed,
    FinishReason,
    Generation,
    GenerationRequest,
    Overloaded,
    TokenScore,
)
from deploy.scoring.engines.model_limits import stop_ids
from phi3flow.core.errors import Phi3flowError

if TYPE_CHECKING:
    import httpx
    from transformers import PreTrainedTokenizerBase

MAX_RUNNING = 256
CONNECT_SECONDS = 5.0
READ_SECONDS = 120.0  # between two tokens, waiting in the upstream's queue included


class VllmEngine:
    """Raises Phi3flowError where no vLLM answers at `url` (its base, ending in /v1)."""

    def __init__(
        self,
        url: str,
        key: str,
        folder: Path,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_running: int = MAX_RUNNING,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        from transformers import GenerationConfig

        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._model, self._context = _served_model(self._url, self._headers)
        own = (
            GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").exists() else None
        )
        self._stop_ids = sorted(stop_ids(own, tokenizer))
        self._max_running, self._on_failure = max_running, on_failure
        self._answering: set[_Relayed] = set()
        self._end: EngineError | None = None
        self._client: httpx.AsyncClient | None = None

    @property
    def context(self) -> int:
        return self._context

    @property
    def waiting(self) -> int:
        """The upstream's queue is the upstream's to report."""
        return 0

    @property
    def running(self) -> int:
        return len(self._answering)

    @property
    def full(self) -> bool:
        return len(self._answering) >= self._max_running

    def submit(self, request: GenerationRequest) -> Generation:
        """Raises ContextOverflow, Overloaded, EngineClosed or EngineFailed. For the event loop's thread."""
        if self._end:
            raise self._end
        if self.full:
            raise Overloaded(f"{len(self._answering)} requests are in flight already")
        generation = _Relayed(request.fitted(self._context))
        self._answering.add(generation)
        generation.task = asyncio.create_task(self._relay(generation))
        generation.task.add_done_callback(lambda _: self._answering.discard(generation))
        return generation

    def close(self) -> None:
        self._end = self._end or EngineClosed("the server is going down")
        for generation in list(self._answering):
            generation.fail(self._end)

    async def _relay(self, generation: "_Relayed") -> None:
        import httpx

        try:
            async with self._connected().stream(
                "POST", f"{self._url}/completions", json=self._body(generation.request)
            ) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code)
                if generation.request.score_prompt:
                    _copy_whole(json.loads(await response.aread()), generation)
                else:
                    await _copy(response.aiter_lines(), generation)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            self._end = EngineFailed("the vLLM server is gone")
            generation.fail(self._end)
            self._on_failure()
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            generation.fail(EngineFailed("the vLLM server broke off the answer"))
        except EngineError as error:
            generation.fail(error)

    def _connected(self) -> "httpx.AsyncClient":
        """Made by the loop that uses it."""
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(
                headers=self._headers,
                timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=self._max_running),
                trust_env=False,  # no proxy of the environment between the two
            )
        return self._client

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(request.prompt_token_ids),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p or 1e-6,  # vLLM refuses 0
            "stop": list(request.stop),
            "stop_token_ids": self._stop_ids,
        }
        if request.score_prompt:
            body |= {"prompt_logprobs": 0}  # which vLLM tells in whole answers alone
        else:
            options = {"include_usage": True, "continuous_usage_stats": True}
            body |= {"stream": True, "stream_options": options}
        return body if request.seed is None else body | {"seed": request.seed}


class _Relayed(Generation):
    """Cancelling it closes the upstream's connection, which frees the upstream's slot."""

    task: "asyncio.Task[None]"

    def cancel(self) -> None:
        super().cancel()
        self.task.cancel()

    __hash__ = object.__hash__


async def _copy(lines: AsyncIterator[str], generation: Generation) -> None:
    """Raises EngineFailed for a stream that ends before the answer does."""
    reason: FinishReason | None = None
    tokens = 0
    async for line in lines:
        data = line.removeprefix("data: ")
        if not data or data == line:  # a blank line, or another field of the event
            continue
        if data == "[DONE]":
            break
        event = json.loads(data)
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
        for choice in event["choices"]:
            generation.write(choice["text"], tokens)
            reason = choice["finish_reason"] or reason
        generation.completion_tokens = tokens
    if reason is None:
        raise EngineFailed("the vLLM server broke off the answer")
    generation.finish("length" if reason == "length" else "stop")


def _copy_whole(reply: dict[str, Any], generation: Generation) -> None:
    """An answer at once, with the likelihood of its prompt's tokens."""
    [choice] = reply["choices"]
    scored = zip(generation.request.prompt_token_ids[1:], choice["prompt_logprobs"][1:], strict=True)
    generation.prompt_scores = [_score(token, told[str(token)]) for token, told in scored]
    generation.write(choice["text"], reply["usage"]["completion_tokens"])
    generation.finish("length" if choice["finish_reason"] == "length" else "stop")


def _score(token: int, told: dict[str, Any]) -> TokenScore:
    return TokenScore(token, told["decoded_token"], told["logprob"], told["rank"])


def _served_model(url: str, headers: dict[str, str]) -> tuple[str, int]:
    """Name and context of the first model that the upstream serves."""
    import httpx

    try:
        reply = httpx.get(f"{url}/models", headers=headers, timeout=CONNECT_SECONDS, trust_env=False)
        reply.raise_for_status()
        served = reply.json()["data"][0]
        return str(served["id"]), int(served["max_model_len"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise Phi3flowError(
            f"no vLLM server answers at {url} ({type(error).__name__})",
            hint="vllm serve MODEL; --upstream is its URL with /v1, PHI3FLOW_UPSTREAM_KEY its key, if any",
        ) from None


def _refusal(status: int) -> EngineError:
    if status in (429, 503):
        return Overloaded("the vLLM server is full")
    return EngineFailed(f"the vLLM server answered {status}")
