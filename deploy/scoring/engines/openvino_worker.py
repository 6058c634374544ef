"""OpenVINO GenAI's pipeline in a process of its own: `step` holds Python's lock, which would block HTTP.

`OpenVinoEngine` starts it with the number of an inherited socket. It receives `Begin`, or the number of a
request to cancel, and sends what each request got in a step. It ends when the engine does.
"""

import signal
import sys
from collections.abc import Iterator
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from deploy.scoring.engines.openvino_guided import Guided, TooComplex, Vocabulary, guided_tokens
from deploy.scoring.engines.openvino_logits import EXACT, Logits, Score
from deploy.scoring.guide import Guides

MODEL_FILE = "openvino_model.xml"


class Setup(NamedTuple):
    """`exact`: compute and cache in fp32."""

    folder: Path
    exact: bool
    threads: int | None
    max_running: int


class Begin(NamedTuple):
    """A request and the fields of GenAI's GenerationConfig that it sets.

    `score_prompt` asks for the log-likelihoods of the prompt's tokens as well, which come first. What is
    `guided` is not GenAI's to answer; a Vocabulary was sent before.
    """

    number: int
    prompt_token_ids: tuple[int, ...]
    config: dict[str, Any]
    score_prompt: bool
    guided: Guided | None


class StepResult(NamedTuple):
    """The tokens that a request got in a step; `over` if it gets no more."""

    number: int
    tokens: list[int]
    over: bool


class TooComplexSchema(NamedTuple):
    number: int
    problem: str


class PromptScores(NamedTuple):
    """One score for each token of a request's prompt but the first."""

    number: int
    scores: list[Score]


def silence_openvino() -> None:
    """Keep OpenVINO from reporting its use to Intel, which it does on import.

    Call before anything imports openvino or nncf: without openvino_telemetry both use their own stubs.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


class Running:
    """The requests that are being answered."""

    def __init__(self, connection: Connection, setup: Setup) -> None:
        self._connection, self._pipeline = connection, make_pipeline(setup)
        self._logits = cache(lambda: Logits(setup.folder / MODEL_FILE, _arithmetic(setup)))
        self._handles: dict[int, Any] = {}
        self._guided: dict[int, Iterator[int | None]] = {}
        self._guides: Guides | None = None

    def __bool__(self) -> bool:
        return bool(self._handles or self._guided)

    def take(self, message: Vocabulary | Begin | int) -> None:
        """A vocabulary, a request, or the number of one that is cancelled."""
        if isinstance(message, Vocabulary):
            self._guides = Guides(*message)
        elif isinstance(message, Begin):
            self._begin(message)
        elif message in self._handles:
            self._handles.pop(message).cancel()
        else:
            self._guided.pop(message, None)

    def _begin(self, request: Begin) -> None:
        number, prompt = request.number, request.prompt_token_ids
        if request.score_prompt:
            self._connection.send([PromptScores(number, self._logits().scores(prompt))])
        if request.guided:
            assert self._guides is not None  # noqa: S101 - the engine sends the vocabulary first
            guide = self._guides.guide(request.guided.grammar)
            self._guided[number] = guided_tokens(self._logits().reading(), guide, prompt, request.guided)
        else:
            self._handles[number] = _begun(self._pipeline, request)

    def step(self) -> "list[StepResult | TooComplexSchema]":
        """A token for each, as far as there is one."""
        if self._handles:
            self._pipeline.step()
        read = [_read(number, handle) for number, handle in self._handles.items()]
        results = [result for result in read if result]
        for result in results:
            if result.over:
                del self._handles[result.number]
        nexts = [_next(number, tokens) for number, tokens in self._guided.items()]
        guided = [result for result in nexts if result]
        for ended in guided:
            if isinstance(ended, TooComplexSchema):
                del self._guided[ended.number]
        return [*results, *guided]


def main(connection: Connection) -> None:
    running = Running(connection, connection.recv())
    connection.send("ready")
    while True:
        while not running or connection.poll():
            running.take(connection.recv())
        if results := running.step():
            connection.send(results)


def _next(number: int, tokens: Iterator[int | None]) -> StepResult | TooComplexSchema | None:
    try:
        token = next(tokens)
    except TooComplex as error:
        return TooComplexSchema(number, str(error))
    return None if token is None else StepResult(number, [token], over=False)


def make_pipeline(setup: Setup) -> Any:
    """The key-value cache grows with the answers; the engine limits it."""
    from openvino_genai import ContinuousBatchingPipeline, SchedulerConfig

    scheduler = SchedulerConfig()
    scheduler.cache_size = 0  # no upper bound, allocated as needed
    scheduler.max_num_seqs = setup.max_running
    scheduler.enable_prefix_caching = False
    return ContinuousBatchingPipeline(str(setup.folder), scheduler, "CPU", _arithmetic(setup))


def _arithmetic(setup: Setup) -> dict[str, Any]:
    """What both the pipeline and the scores of a prompt are computed with."""
    threads: dict[str, Any] = {"INFERENCE_NUM_THREADS": setup.threads} if setup.threads else {}
    return threads | (EXACT if setup.exact else {})


def _begun(pipeline: Any, request: Begin) -> Any:
    import numpy as np
    from openvino import Tensor
    from openvino_genai import GenerationConfig

    prompt = Tensor(np.array([request.prompt_token_ids], dtype=np.int64))
    return pipeline.add_request(request.number, prompt, GenerationConfig(**request.config))


def _read(number: int, handle: Any) -> StepResult | None:
    from openvino_genai import GenerationStatus

    tokens: list[int] = []
    while handle.can_read():
        for output in handle.read().values():
            tokens += output.generated_ids
    over = handle.get_status() != GenerationStatus.RUNNING
    return StepResult(number, tokens, over) if tokens or over else None


if __name__ == "__main__":
    from deploy.scoring.engines import openvino_worker  # noqa: PLW0406 - its classes are the engine's, not __main__'s

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which drains first
    silence_openvino()
    try:
        openvino_worker.main(Connection(int(sys.argv[1])))
    except (EOFError, ConnectionError):
        sys.exit(0)  # the engine is closed, or its process is gone
