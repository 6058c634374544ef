"""The CPU engine: OpenVINO GenAI's continuous batching.

Late arrivals join the running batch at the next step, so nobody waits for somebody else's answer.
"""

import asyncio
import random
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.scoring.engine import (
    MAX_WAITING,
    EngineClosed,
    EngineError,
    EngineFailed,
    Generation,
    GenerationRequest,
    NotSupported,
    Overloaded,
)
from deploy.scoring.engines.answer import Answer
from deploy.scoring.engines.model_limits import cache_tokens, stop_ids
from deploy.scoring.engines.openvino_worker import Begin, News, Setup
from phi3flow.core.errors import Phi3flowError
from training.models.loading import served_context

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_RUNNING = 64
COLDEST = 1e-3  # below this temperature, or within this nucleus, sampling in fp32 is greedy
SEED_MASK = (1 << 63) - 1  # GenAI takes a signed 64-bit number
STEPS_AT_ONCE = 16
STOP_SECONDS = 5.0


class OpenVinoEngine:
    """`exact` computes and caches in fp32, so that greedy answers equal the transformers engine's.

    At most `max_running` answers are made at once, and at most `max_waiting` requests wait for them. All but
    `close` happens on the event loop that submits: a thread in between would fight it for Python's lock at
    every token. Raises Phi3flowError where the pipeline does not load.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        exact: bool = True,
        threads: int | None = None,
        max_running: int = MAX_RUNNING,
        max_waiting: int = MAX_WAITING,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        from transformers import AutoConfig, GenerationConfig

        config = AutoConfig.from_pretrained(folder)
        self._context, self._cache_tokens = served_context(config), cache_tokens(config)
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids(GenerationConfig.from_pretrained(folder), tokenizer)
        self._max_running, self._max_waiting, self._on_failure = max_running, max_waiting, on_failure
        self._queue: deque[Generation] = deque()
        self._answers: dict[int, Answer] = {}
        self._tokens = 0  # that the answers of `_answers` may come to, with their prompts
        self._number = 0
        self._end: EngineError | None = None
        self._ending = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process, self._connection = _start_worker(Setup(folder, exact, threads, max_running))
        self._watcher = threading.Thread(target=self._watch, name="openvino-watcher", daemon=True)
        self._watcher.start()

    @property
    def context(self) -> int:
        return self._context

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return len(self._answers)

    @property
    def full(self) -> bool:
        if len(self._queue) >= self._max_waiting:
            self._queue = deque(generation for generation in self._queue if not generation.over)
        return len(self._queue) >= self._max_waiting

    def submit(self, request: GenerationRequest) -> Generation:
        """Raises ContextOverflow, NotSupported, Overloaded, EngineClosed or EngineFailed."""
        if request.score_prompt:
            raise NotSupported.prompt_scores()
        generation = Generation(request.fitted(self._context))
        if self._end:
            raise self._end
        self._listen()
        if self.full:
            raise Overloaded(f"{len(self._queue)} requests are waiting already")
        self._queue.append(generation)
        self._admit()
        return generation

    def close(self) -> None:
        """For any thread. Whoever still waits on the loop hears of it when the worker's end arrives there."""
        self._finish(EngineClosed("the server is going down"))
        self._process.terminate()  # it holds nothing worth a farewell
        self._watcher.join(STOP_SECONDS)
        if self._watcher.is_alive():
            self._process.kill()
            self._watcher.join()
        if self._loop is None or self._loop.is_closed():
            self._connection.close()

    def _listen(self) -> None:
        """Hear the worker on the running loop; tests and exports use one engine on several, in turn."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.add_reader(self._connection.fileno(), self._hear, loop)

    def _admit(self) -> None:
        """Send the worker whatever of the queue fits, in order."""
        while self._queue:
            generation = self._queue[0]
            needed = _room(generation.request)
            if not generation.over:  # not cancelled meanwhile
                if not self._fits(needed):
                    return
                self._number += 1
                self._answers[self._number] = Answer(generation, self._decode, self._stop_ids)
                self._tokens += needed
                self._send(_begin(self._number, generation.request, self._stop_ids))
            self._queue.popleft()

    def _fits(self, needed: int) -> bool:
        """Whether keys and values of all answers stay within their bytes with one more; one alone may."""
        return not self._answers or (
            len(self._answers) < self._max_running and self._tokens + needed <= self._cache_tokens
        )

    def _hear(self, loop: asyncio.AbstractEventLoop) -> None:
        """What every request got in the worker's last steps, or that the worker is gone.

        A loop that is busy with refusing comes here seldom, and must then hear more than one step.
        """
        try:
            for _ in range(STEPS_AT_ONCE):
                heard: list[News] = self._connection.recv()
                for news in heard:
                    self._hand_over(news)
                if not self._connection.poll():
                    break
        except (EOFError, OSError):
            self._fail_all(loop)
            return
        self._admit()

    def _hand_over(self, news: News) -> None:
        answer = self._answers.get(news.number)
        if answer is None:  # was told to cancel, and had not heard of it yet
            return
        goes_on = all(answer.accept(token) for token in news.tokens) and not answer.generation.over
        if news.over:
            answer.generation.fail(Overloaded("there is no memory for its keys and values"))
        elif not goes_on:  # a stop string, or nobody waits for it any more
            self._send(news.number)
        if news.over or not goes_on:
            del self._answers[news.number]
            self._tokens -= _room(answer.generation.request)

    def _send(self, message: Begin | int) -> None:
        try:
            self._connection.send(message)
        except OSError:  # the worker is gone, and `_hear` is about to say so
            self._finish(_FAILED)

    def _fail_all(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._connection.fileno())
        self._connection.close()
        self._finish(_FAILED)
        for generation in (*self._queue, *(answer.generation for answer in self._answers.values())):
            generation.fail(self._end or _FAILED)
        self._queue.clear()
        self._answers.clear()

    def _watch(self) -> None:
        """Nobody may be asking when the worker dies."""
        self._process.wait()
        self._finish(_FAILED)

    def _finish(self, end: EngineError) -> None:
        """For any thread; the first reason to end stays."""
        with self._ending:
            if self._end:
                return
            self._end = end
        if end is _FAILED:
            self._on_failure()

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


_FAILED = EngineFailed("the engine has failed, see the server's log")


def _start_worker(setup: Setup) -> tuple["subprocess.Popen[bytes]", Connection]:
    """In a session of its own, so that a signal to the server's group lets answers finish."""
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.scoring.engines.openvino_worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        ours.send(setup)
        ours.recv()
    except (EOFError, OSError):
        process.wait()
        raise Phi3flowError(
            f"{setup.folder}: the openvino engine did not start", hint="its traceback is above"
        ) from None
    return process, ours


def _room(request: GenerationRequest) -> int:
    return len(request.prompt_token_ids) + request.max_tokens


def _begin(number: int, request: GenerationRequest, stop_ids: frozenset[int]) -> Begin:
    """Stop strings are cut by `Answer`, which also keeps them out of a stream."""
    config: dict[str, Any] = {
        "max_new_tokens": request.max_tokens,
        "stop_token_ids": set(stop_ids),
        "eos_token_id": min(stop_ids),
    }
    if request.temperature > COLDEST and request.top_p > COLDEST:
        # Without a seed the pipeline would draw the same numbers for every request.
        seed = random.getrandbits(63) if request.seed is None else request.seed & SEED_MASK
        config |= {
            "do_sample": True,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "rng_seed": seed,
        }
    return Begin(number, request.prompt_token_ids, config)
