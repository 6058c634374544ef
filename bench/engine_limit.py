"""OpenVINO's pipeline alone, without our engine and HTTP: an upper limit for the endpoint.

Started by bench/serve.py. Reads the prompts, then lines `clients seconds`; prints tokens per second.
"""

import json
import sys
import time

from deploy.scoring.engines.openvino_worker import Setup, make_pipeline, silence_openvino
from deploy.scoring.load import SMALL_MODEL, weights_bytes

silence_openvino()

import numpy as np  # noqa: E402 - after the telemetry is off
from openvino import Tensor  # noqa: E402
from openvino_genai import GenerationConfig  # noqa: E402


class Limit:
    """Keeps `clients` answers in the batch: when one ends, the next prompt starts."""

    def __init__(self, pipeline, prompts, config) -> None:
        self._pipeline, self._prompts, self._config = pipeline, prompts, config
        self._number = 0

    def measure(self, clients: int, seconds: float) -> float:
        handles = [self._next() for _ in range(clients)]
        began = time.monotonic()
        tokens = 0
        while handles:
            self._pipeline.step()
            going_on = time.monotonic() - began < seconds
            kept = []
            for handle in handles:
                ended = False
                while handle.can_read():
                    for output in handle.read().values():
                        tokens += len(output.generated_ids)
                        ended = ended or output.finish_reason.name != "NONE"
                if not ended:
                    kept.append(handle)
                elif going_on:
                    kept.append(self._next())
            handles = kept
        return tokens / (time.monotonic() - began)

    def _next(self):
        prompt = self._prompts[self._number % len(self._prompts)]
        self._number += 1
        return self._pipeline.add_request(
            self._number, Tensor(np.array([prompt], dtype=np.int64)), self._config
        )


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    threads = 1 if weights_bytes(asked["folder"]) < SMALL_MODEL else None
    pipeline = make_pipeline(Setup(asked["folder"], asked["exact"], threads, 64))
    config = GenerationConfig(max_new_tokens=asked["max_tokens"], stop_token_ids=set(asked["stop_ids"]))
    limit = Limit(pipeline, asked["prompts"], config)
    print("ready", flush=True)
    for line in sys.stdin:
        clients, seconds = line.split()
        print(json.dumps(round(limit.measure(int(clients), float(seconds)), 1)), flush=True)


if __name__ == "__main__":
    main()
