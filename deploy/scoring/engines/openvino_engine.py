"""The CPU engine: OpenVINO GenAI's continuous batching.

Late arrivals join the running batch at the next step, so no request waits for another one's answer.
"""

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.scoring.engine import (
    CACHE_BYTES,
    MAX_WAITING,
    Engine,
    EngineClosed,
    Generation,
    GenerationRequest,
    Memory,
    Overloaded,
    SchemaRefused,
    TokenScore,
)
from deploy.scoring.engines.answer import Answer
from deploy.scoring.engines.fixed_cache import bytes_per_token
from deploy.scoring.engines.openvino_guided import Guided, Vocabulary
from deploy.scoring.engines.openvino_worker import Begin, PromptScores, Setup, StepResult, TooComplexSchema
from phi3flow.core.child_process import Worker, start_worker
from phi3flow.core.errors import Phi3flowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_RUNNING = 64
BYTES_PER_VALUE = 4  # of the cache, in fp32
GREEDY_BELOW = 1e-3  # temperature or top_p below which sampling in fp32 is greedy
SEED_MASK = (1 << 63) - 1  # GenAI takes a signed 64-bit number
STEPS_AT_ONCE = 16
STOP_SECONDS = 5.0


class OpenVinoEngine(Engine):
    """`exact` computes and caches in fp32, so that greedy answers equal the transformers engine's.

    At most `max_running` answers are made at once, and at most `max_waiting` requests wait for them. All
    methods but `close` run on the event loop that submits: a thread in between would compete with it for
    Python's lock at every token. Raises Phi3flowError if the pipeline does not load.
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
        cache_bytes: int | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        from transformers import AutoConfig, GenerationConfig

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        generation_config = GenerationConfig.from_pretrained(folder)
        super().__init__(config, generation_config, tokenizer, max_waiting, on_failure)
        self._max_running = max_running
        cache = CACHE_BYTES if cache_bytes is None else cache_bytes
        weights = (folder / "openvino_model.bin").stat().st_size
        self._memory = Memory(weights, cache, 0, cache // bytes_per_token(config, BYTES_PER_VALUE))
        self._answers: dict[int, Answer] = {}
        self._reserved_tokens = 0  # prompt and longest answer of each in `_answers`
        self._number = 0
        self._knows_vocabulary = False  # the worker, for guided answers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process, self._connection = _start_worker(Setup(folder, exact, threads, max_running))
        self._watcher = threading.Thread(target=self._watch, name="openvino-watcher", daemon=True)
        self._watcher.start()

    @property
    def running(self) -> int:
        return len(self._answers)

    @property
    def memory(self) -> Memory:
        return self._memory

    def submit(self, request: GenerationRequest) -> Generation:
        """Raises ContextOverflow, Overloaded, EngineClosed or EngineFailed."""
        generation = super().submit(request)
        self._listen()
        self._admit()
        return generation

    def close(self) -> None:
        """For any thread. Pending requests fail when the worker's end arrives on the loop."""
        self._set_end(EngineClosed("the server is going down"))
        self._process.terminate()  # it has nothing to save
        self._watcher.join(STOP_SECONDS)
        if self._watcher.is_alive():
            self._process.kill()
            self._watcher.join()
        if self._loop is None or self._loop.is_closed():
            self._connection.close()

    def _listen(self) -> None:
        """Read the worker's messages on the running loop; tests and exports use one engine on several."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.add_reader(self._connection.fileno(), self._read, loop)

    def _admit(self) -> None:
        """Send the worker the requests of the queue that fit, in order."""
        while (generation := self._first_waiting()) and self._fits(generation.request):
            self._number += 1
            decode = self._decoder_for(generation.request)
            self._answers[self._number] = Answer(generation, decode, self._stop_ids)
            self._reserved_tokens += _most_tokens(generation.request)
            if generation.request.grammar:
                self._tell_vocabulary()
            self._send(_begin(self._number, generation.request, self._stop_ids))
            self._queue.popleft()

    def _tell_vocabulary(self) -> None:
        if not self._knows_vocabulary:
            self._knows_vocabulary = True
            self._send(Vocabulary(self._tokenizer_text(), self._vocabulary, self._stop_ids))

    def _fits(self, request: GenerationRequest) -> bool:
        """Whether the key-value cache stays within its limit with one more; a request alone always fits."""
        return not self._answers or (
            len(self._answers) < self._max_running
            and self._reserved_tokens + _most_tokens(request) <= self._memory.tokens
        )

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the results of the worker's last steps, or notice that the worker is gone.

        A loop that is busy refusing requests gets here seldom, and must then read more than one step.
        """
        try:
            for _ in range(STEPS_AT_ONCE):
                results: list[StepResult | PromptScores | TooComplexSchema] = self._connection.recv()
                for result in results:
                    if isinstance(result, PromptScores):
                        self._take_scores(result)
                    elif isinstance(result, TooComplexSchema):
                        self._refuse(result)
                    else:
                        self._take(result)
                if not self._connection.poll():
                    break
        except (EOFError, OSError):
            self._fail_all(loop)
            return
        self._admit()

    def _take_scores(self, result: PromptScores) -> None:
        generation = self._answers[result.number].generation
        prompt = generation.request.prompt_token_ids[1:]
        texts = self.tokenizer.batch_decode([[token] for token in prompt])
        generation.prompt_scores = [
            TokenScore(token, text, *score)
            for token, text, score in zip(prompt, texts, result.scores, strict=True)
        ]

    def _take(self, result: StepResult) -> None:
        answer = self._answers.get(result.number)
        if answer is None:  # cancelled; the worker had not read that yet
            return
        goes_on = all(answer.accept(token) for token in result.tokens) and not answer.generation.over
        if result.over:
            answer.generation.fail(Overloaded("there is no memory for its keys and values"))
        elif not goes_on:  # a stop string, or the client left
            self._send(result.number)
        if result.over or not goes_on:
            self._end_answer(result.number)

    def _refuse(self, result: TooComplexSchema) -> None:
        if answer := self._answers.get(result.number):
            answer.generation.fail(SchemaRefused(f"the schema is too complex: {result.problem}"))
            self._end_answer(result.number)

    def _end_answer(self, number: int) -> None:
        answer = self._answers.pop(number)
        self._reserved_tokens -= _most_tokens(answer.generation.request)

    def _send(self, message: Begin | Vocabulary | int) -> None:
        try:
            self._connection.send(message)
        except OSError:  # the worker is gone; `_read` will fail every request
            self._fail()

    def _fail_all(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._connection.fileno())
        self._connection.close()
        self._fail()
        self._fail_pending(answer.generation for answer in self._answers.values())
        self._queue.clear()
        self._answers.clear()

    def _watch(self) -> None:
        """Notice a worker that dies while there is no request."""
        self._process.wait()
        self._fail()


def _start_worker(setup: Setup) -> Worker:
    worker = start_worker("deploy.scoring.engines.openvino_worker")
    try:
        worker.connection.send(setup)
        worker.connection.recv()
    except (EOFError, OSError):
        worker.process.wait()
        raise Phi3flowError(
            f"{setup.folder}: the openvino engine did not start", hint="its traceback is above"
        ) from None
    return worker


def _most_tokens(request: GenerationRequest) -> int:
    return len(request.prompt_token_ids) + request.max_tokens


def _begin(number: int, request: GenerationRequest, stop_ids: frozenset[int]) -> Begin:
    """The request in GenAI's words. `Answer` cuts stop strings, which also keeps them out of a stream."""
    config: dict[str, Any] = {
        "max_new_tokens": request.max_tokens,
        "stop_token_ids": set(stop_ids),
        "eos_token_id": min(stop_ids),
    }
    if request.temperature > GREEDY_BELOW and request.top_p > GREEDY_BELOW:
        # Without a seed the pipeline would draw the same numbers for every request.
        seed = random.getrandbits(63) if request.seed is None else request.seed & SEED_MASK
        config |= {
            "do_sample": True,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "rng_seed": seed,
        }
    grammar = request.grammar
    guided = Guided(grammar, request.temperature, request.top_p, request.seed) if grammar else None
    return Begin(number, request.prompt_token_ids, config, request.score_prompt, guided)
