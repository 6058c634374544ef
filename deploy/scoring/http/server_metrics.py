"""The endpoint's Prometheus metrics."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from deploy.scoring.engine import Generation

FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """`waiting` and `running` return how many requests are in the engine's queue and in its batch now.

    Labels are only status codes and finish reasons, never a user's text.
    """

    def __init__(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        self._registry = kept = CollectorRegistry()
        self.responses = Counter("phi3flow_responses", "HTTP answers by status", ["status"], registry=kept)
        self._ended = Counter("phi3flow_answers", "generations by how they ended", ["reason"], registry=kept)
        self._prompt = Counter("phi3flow_prompt_tokens", "tokens of all prompts", registry=kept)
        self._completion = Counter("phi3flow_completion_tokens", "tokens sampled", registry=kept)
        self._first = Histogram(
            "phi3flow_time_to_first_token_seconds",
            "from the engine's acceptance to its first token",
            buckets=FIRST_TOKEN_SECONDS,
            registry=kept,
        )
        queue = Gauge("phi3flow_requests_waiting", "requests in the engine's queue", registry=kept)
        queue.set_function(waiting)
        batch = Gauge("phi3flow_requests_running", "answers in the engine's batch", registry=kept)
        batch.set_function(running)

    @contextmanager
    def measuring(self, generations: Sequence[Generation]) -> Iterator[None]:
        """Count these generations, however the block ends."""
        try:
            yield
        finally:
            for generation in generations:
                self._count(generation)

    def _count(self, generation: Generation) -> None:
        self._prompt.inc(len(generation.request.prompt_token_ids))
        self._completion.inc(generation.completion_tokens)
        self._ended.labels(generation.finish_reason or "unfinished").inc()
        if generation.first_token_seconds is not None:
            self._first.observe(generation.first_token_seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
