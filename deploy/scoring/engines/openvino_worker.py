"""OpenVINO GenAI's pipeline in a process of its own: `step` keeps Python's lock, and HTTP would stand still.

Started by `OpenVinoEngine` with the number of an inherited socket. It hears `Begin`, and the number of a
request to cancel, and after every step says what each request got. It ends when the other side does.
"""

import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from deploy.scoring.engines.quiet_openvino import silence_openvino


class Setup(NamedTuple):
    """`exact`: compute and cache in fp32."""

    folder: Path
    exact: bool
    threads: int | None
    max_running: int


class Begin(NamedTuple):
    """A request and the fields of GenAI's GenerationConfig that it sets."""

    number: int
    prompt_token_ids: tuple[int, ...]
    config: dict[str, Any]


class News(NamedTuple):
    """Tokens that a request got in a step; `over` when it gets no more."""

    number: int
    tokens: list[int]
    over: bool


def main(connection: Connection) -> None:
    pipeline = make_pipeline(connection.recv())
    connection.send("ready")
    handles: dict[int, Any] = {}
    while True:
        while not handles or connection.poll():
            message = connection.recv()
            if isinstance(message, Begin):
                handles[message.number] = _begin(pipeline, message)
            elif message in handles:
                handles.pop(message).cancel()
        pipeline.step()
        heard = [_read(number, handle) for number, handle in handles.items()]
        if news := [one for one in heard if one]:
            connection.send(news)
            for one in news:
                if one.over:
                    del handles[one.number]


def make_pipeline(setup: Setup) -> Any:
    """Keys and values are allocated as answers grow; how far they may is the engine's business."""
    from openvino_genai import ContinuousBatchingPipeline, SchedulerConfig

    scheduler = SchedulerConfig()
    scheduler.cache_size = 0  # no upper bound, allocated as needed
    scheduler.max_num_seqs = setup.max_running
    scheduler.enable_prefix_caching = False
    properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": setup.threads} if setup.threads else {}
    if setup.exact:
        properties |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    return ContinuousBatchingPipeline(str(setup.folder), scheduler, "CPU", properties)


def _begin(pipeline: Any, request: Begin) -> Any:
    import numpy as np
    from openvino import Tensor
    from openvino_genai import GenerationConfig

    prompt = Tensor(np.array([request.prompt_token_ids], dtype=np.int64))
    return pipeline.add_request(request.number, prompt, GenerationConfig(**request.config))


def _read(number: int, handle: Any) -> News | None:
    from openvino_genai import GenerationStatus

    tokens: list[int] = []
    while handle.can_read():
        for output in handle.read().values():
            tokens += output.generated_ids
    over = handle.get_status() != GenerationStatus.RUNNING
    return News(number, tokens, over) if tokens or over else None


if __name__ == "__main__":
    from deploy.scoring.engines import openvino_worker  # noqa: PLW0406 - its classes are the engine's, not __main__'s

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which drains first
    silence_openvino()
    try:
        openvino_worker.main(Connection(int(sys.argv[1])))
    except (EOFError, ConnectionError):
        sys.exit(0)  # the engine is closed, or its process is gone
