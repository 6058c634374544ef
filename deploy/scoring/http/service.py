"""What the routes share: the served model, and whether it can answer now."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Literal

from deploy.scoring.engine import Engine
from deploy.scoring.http.bodies import Turn
from deploy.scoring.http.http_errors import RETRY_SOON, RequestError
from deploy.scoring.http.server_metrics import Metrics

State = Literal["loading", "ready", "draining", "failed"]
LONG_TEXT = 20_000  # characters; tokenizing more on the event loop would delay all other answers


class Service:
    """Starts as "loading"; `ready` hands it the engine, `drain` and `fail` end it."""

    def __init__(self, model_id: str, system_prompt: str = "") -> None:
        self.model_id, self.system_prompt = model_id, system_prompt
        self.created = int(time.time())
        self.state: State = "loading"
        self._engine: Engine | None = None
        self.metrics = Metrics()

    def ready(self, engine: Engine) -> None:
        self._engine = engine
        self.metrics.watch(engine)
        if self.state == "loading":
            self.state = "ready"

    def drain(self) -> None:
        if self.state != "failed":
            self.state = "draining"

    def fail(self) -> None:
        self.state = "failed"

    def close(self) -> None:
        if self._engine:
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


async def encode(engine: Engine, turns: Sequence[Turn], *, add_generation_prompt: bool = True) -> list[int]:
    """The prompt's token ids, rendered as in training."""
    from phi3flow.chats.chat_template import encode_prompt

    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    render = partial(encode_prompt, engine.tokenizer, messages, add_generation_prompt=add_generation_prompt)
    is_long = sum(len(turn.content) for turn in turns) > LONG_TEXT
    return await asyncio.to_thread(render) if is_long else render()
