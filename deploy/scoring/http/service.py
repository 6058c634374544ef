"""What the routes share: the served model, and whether it can answer now."""

import time
from typing import Literal

from deploy.scoring.engine import Engine
from deploy.scoring.http.http_errors import RETRY_SOON, RequestError
from deploy.scoring.http.rendering import Rendering
from deploy.scoring.http.server_metrics import Metrics

State = Literal["loading", "ready", "draining", "failed"]


class Service:
    """Starts as "loading"; `ready` hands it the engine, `drain` and `fail` end it."""

    def __init__(self, model_id: str, system_prompt: str = "") -> None:
        self.model_id, self.system_prompt = model_id, system_prompt
        self.created = int(time.time())
        self.state: State = "loading"
        self._engine: Engine | None = None
        self._rendering: Rendering | None = None
        self.metrics = Metrics()

    def ready(self, engine: Engine) -> None:
        self._engine, self._rendering = engine, Rendering(engine)
        self.metrics.watch(engine)
        if self.state == "loading":
            self.state = "ready"

    def drain(self) -> None:
        if self.state != "failed":
            self.state = "draining"

    def fail(self) -> None:
        self.state = "failed"

    def close(self) -> None:
        if self._engine and self._rendering:
            self._rendering.close()
            self._engine.close()

    def description(self) -> dict[str, object]:
        """OpenAI's description of a model; `max_model_len` is vLLM's: the context in tokens.

        `system_prompt` is that of the training data, empty if its rows share none.
        """
        described: dict[str, object] = {"id": self.model_id, "object": "model", "created": self.created}
        described |= {"owned_by": "phi3flow", "system_prompt": self.system_prompt}
        return described | ({"max_model_len": self._engine.context} if self._engine else {})

    def engine(self) -> Engine:
        """Raises RequestError (503) unless ready."""
        if self._engine is None or self.state != "ready":
            raise RequestError(503, f"the endpoint is not ready: {self.state}", headers=RETRY_SOON)
        return self._engine

    @property
    def rendering(self) -> Rendering:
        """Of a ready service's engine."""
        self.engine()
        assert self._rendering is not None  # noqa: S101 - made with the engine
        return self._rendering
