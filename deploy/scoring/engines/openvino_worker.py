"""OpenVINO GenAI's pipeline in a process of its own: `step` holds Python's lock, which would block HTTP.

`OpenVinoEngine` starts it with the number of an inherited socket. It receives `Begin`, or the number of a
request to cancel, and sends what each request got in a step. It ends when the engine does.
"""

import signal
import sys
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from deploy.scoring.engines.openvino_logits import EXACT, Logits, Score

MODEL_FILE = "openvino_model.xml"


class Setup(NamedTuple):
    """`exact`: compute and cache in fp32."""

    folder: Path
    exact: bool
    threads: int | None
    max_running: int


class Begin(NamedTuple):
    """A request and the fields of GenAI's GenerationConfig that it sets.

    `score_prompt` asks for the log-likelihoods of the prompt's tokens as well, which come first.
    """

    number: int
    prompt_token_ids: tuple[int, ...]
    config: dict[str, Any]
    score_prompt: bool


class StepResult(NamedTuple):
    """The tokens that a request got in a step; `over` if it gets no more."""

    number: int
    tokens: list[int]
    over: bool


class PromptScores(NamedTuple):
    """One score for each token of a request's prompt but the first."""

    number: int
    scores: list[Score]


def silence_openvino() -> None:
    """Keep OpenVINO from reporting its use to Intel, which it does on import.

    Call before anything imports openvino or nncf: without openvino_telemetry both use their own stubs.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def main(connection: Connection) -> None:
    setup = connection.recv()
    pipeline, logits = (
        make_pipeline(setup),
        cache(lambda: Logits(setup.folder / MODEL_FILE, _arithmetic(setup))),
    )
    connection.send("ready")
    handles: dict[int, Any] = {}
    while True:
        while not handles or connection.poll():
            message = connection.recv()
            if isinstance(message, Begin):
                if message.score_prompt:
                    connection.send([PromptScores(message.number, logits().scores(message.prompt_token_ids))])
                handles[message.number] = _begin(pipeline, message)
            elif message in handles:
                handles.pop(message).cancel()
        pipeline.step()
        found = [_read(number, handle) for number, handle in handles.items()]
        if results := [result for result in found if result]:
            connection.send(results)
            for result in results:
                if result.over:
                    del handles[result.number]


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


def _begin(pipeline: Any, request: Begin) -> Any:
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
