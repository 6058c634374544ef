"""The protocol of every engine: token ids in, text out as it grows; cancelling frees the slot at any time.

EngineError       the request was not answered
├── ContextOverflow   the prompt leaves no room for an answer
├── NotSupported      this engine cannot do what the request asks
├── Overloaded        slots and queue are full
├── Cancelled         the reader cancelled the request
├── EngineClosed      the server is shutting down
└── EngineFailed      the engine has crashed
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

FinishReason = Literal["stop", "length"]
MAX_WAITING = 128  # requests in an engine's queue


class EngineError(Exception):
    """Base of what an engine raises at `submit` or while its answer is read."""


class ContextOverflow(EngineError):
    def __init__(self, prompt_tokens: int, context: int) -> None:
        super().__init__(f"the prompt has {prompt_tokens} tokens, the model's context is {context}")


class NotSupported(EngineError):
    """`field` is the name of the request's field, as clients send it."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class Overloaded(EngineError): ...


class Cancelled(EngineError): ...


class EngineClosed(EngineError): ...


class EngineFailed(EngineError): ...


@dataclass(frozen=True)
class GenerationRequest:
    """What to answer. `temperature` 0 is greedy; the answer ends before the first stop string.

    `score_prompt` asks for the log-likelihood of the prompt's tokens as well.
    """

    prompt_token_ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    score_prompt: bool = False

    def fitted(self, context: int) -> "GenerationRequest":
        """A copy with `max_tokens` cut to what the context leaves. Raises ContextOverflow."""
        room = context - len(self.prompt_token_ids)
        if room < 1:
            raise ContextOverflow(len(self.prompt_token_ids), context)
        return replace(self, max_tokens=min(self.max_tokens, room))


class TokenScore(NamedTuple):
    """A token's natural log-likelihood, given those before it; `rank` 1 is the most likely token."""

    token: int
    text: str
    logprob: float
    rank: int


class Generation:
    """One answer while it is made: an engine writes it from any thread, one asyncio task reads it.

    The reader's task must create it. Only a reader of `pieces` wakes up for every token.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.finish_reason: FinishReason | None = None
        self.completion_tokens = 0  # with the end-of-turn token
        self.over = False
        self.first_token_seconds: float | None = None
        self.prompt_scores: Sequence[TokenScore] = ()  # one for each token of the prompt but the first
        self._created = time.monotonic()
        self._error: EngineError | None = None
        self._written: deque[str] = deque()
        self.streamed = False  # whether `pieces` reads it, so that text is wanted token by token
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._reader = threading.get_ident()

    async def pieces(self) -> AsyncIterator[str]:
        """The text as it grows. A normal end means a complete answer. Raises EngineError."""
        self.streamed = True
        while True:
            self._changed.clear()
            over = self.over  # read before the text: what was written before the end is then in `_written`
            if text := self._take():
                yield text
            if over:
                break
            await self._changed.wait()
        if self._error:
            raise self._error

    async def text(self) -> str:
        """The whole answer. Raises EngineError."""
        while not self.over:
            await self._changed.wait()
            self._changed.clear()
        if self._error:
            raise self._error
        return self._take()

    def cancel(self) -> None:
        """Free the slot; does nothing if the answer is complete. For the reader's thread."""
        if not self.over:
            self._error = Cancelled("the answer is no longer wanted")
            self.over = True
            self._changed.set()

    def write(self, text: str, tokens: int) -> None:
        """Append `text`; `tokens` is the count so far. This and the next two are for the engine's thread."""
        self.completion_tokens = tokens
        if self.first_token_seconds is None:
            self.first_token_seconds = time.monotonic() - self._created
        if text:
            self._written.append(text)
            if self.streamed:
                self._wake()

    def finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self.over = True
        self._wake()

    def fail(self, error: EngineError) -> None:
        if not self.over:
            self._error = error
            self.over = True
            self._wake()

    def _wake(self) -> None:
        if threading.get_ident() == self._reader:
            self._changed.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    def _take(self) -> str:
        taken = []
        while self._written:
            taken.append(self._written.popleft())
        return "".join(taken)


class Engine(Protocol):
    """`submit` never blocks: it queues the request or raises EngineError."""

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""

    @property
    def running(self) -> int:
        """Answers in the current batch."""

    @property
    def full(self) -> bool:
        """Whether `submit` would raise Overloaded."""

    def submit(self, request: GenerationRequest) -> Generation: ...

    def close(self) -> None:
        """End at once; pending answers raise EngineClosed."""
