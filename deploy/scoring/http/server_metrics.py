"""The endpoint's Prometheus metrics."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from deploy.scoring.engine import Engine, Generation

FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Labels are only status codes and finish reasons, never a user's text."""

    def __init__(self) -> None:
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
        self._queue = Gauge("phi3flow_requests_waiting", "requests in the engine's queue", registry=kept)
        self._memory = Gauge("phi3flow_memory_bytes", "the engine's, by use", ["use"], registry=kept)
        self._tokens = Gauge("phi3flow_cache_tokens", "whose keys and values fit", registry=kept)
        self._batch = Gauge("phi3flow_requests_running", "answers in the engine's batch", registry=kept)

    def watch(self, engine: Engine) -> None:
        self._queue.set_function(lambda: engine.waiting)
        self._batch.set_function(lambda: engine.running)
        for use in ("weights", "cache", "work"):
            self._memory.labels(use).set(getattr(engine.memory, use))
        self._tokens.set(engine.memory.tokens)

    def count(self, generations: Sequence[Generation]) -> None:
        """Count generations that have ended, whatever ended them."""
        for generation in generations:
            self._prompt.inc(len(generation.request.prompt_token_ids))
            self._completion.inc(generation.completion_tokens)
            self._ended.labels(generation.finish_reason or "unfinished").inc()
            if generation.first_token_seconds is not None:
                self._first.observe(generation.first_token_seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
