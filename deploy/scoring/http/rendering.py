"""Prompts become token ids beside the event loop, within bounds on characters, time and memory.

A model's chat template is a program, and nothing in this process could stop it within one expression. So it
runs in a process of its own.
"""

import asyncio
import json
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deploy.scoring.engine import ContextOverflow, Engine, EngineClosed
from deploy.scoring.http.bodies import Turn
from deploy.scoring.http.template_worker import RENDER_SECONDS
from phi3flow.chats.chat_template import TemplateRefused, neutralised
from phi3flow.core.child_process import Worker, start_worker
from phi3flow.core.errors import first_line

LONG_TEXT = 20_000  # characters; longer prompts wait for each other, and not short ones for them


class Rendering:
    """Renders for one engine. Every method is for the event loop, `close` for any thread."""

    def __init__(self, engine: Engine) -> None:
        self._context, self._tokenizer = engine.context, engine.tokenizer
        self._token_characters = max(map(len, engine.tokenizer.get_vocab()))
        self._short, self._long = _Renderer("short-prompts"), _Renderer("long-prompts")
        self._short.start()

    async def encode(self, turns: Sequence[Turn], *, add_generation_prompt: bool = True) -> list[int]:
        """The prompt's token ids, rendered as in training.

        Raises ContextOverflow, EngineClosed and TemplateRefused.
        """
        characters = sum(len(turn.content) for turn in turns)
        self._check(characters)  # perhaps it is not worth a rendering
        renderer = self._long if characters > LONG_TEXT else self._short
        try:
            ids = await asyncio.get_running_loop().run_in_executor(
                renderer.pool, self._encode, renderer, turns, add_generation_prompt
            )
        except RuntimeError:  # the pool is closed
            raise EngineClosed("the server is going down") from None
        if not ids:
            raise TemplateRefused("the model's chat template makes nothing of these messages")
        return ids

    def close(self) -> None:
        """Stop what is being rendered, and drop what waits: Python would wait for it at its end."""
        for renderer in (self._short, self._long):
            renderer.close()

    def _encode(self, renderer: "_Renderer", turns: Sequence[Turn], add_generation_prompt: bool) -> list[int]:
        try:
            template = self._tokenizer.get_chat_template()
        except ValueError as error:
            raise TemplateRefused(first_line(error)) from None
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        answer = renderer.ask(
            {
                "messages": neutralised(self._tokenizer, messages),
                "template": template,
                "special_tokens": self._tokenizer.special_tokens_map,
                "add_generation_prompt": add_generation_prompt,
                "most": self._context * self._token_characters,
            }
        )
        self._check(answer.get("characters", 0))
        return list(self._tokenizer(answer["text"], add_special_tokens=False)["input_ids"])

    def _check(self, characters: int) -> None:
        """Raise ContextOverflow for a text that cannot fit."""
        fewest = -(-characters // self._token_characters)
        if fewest > self._context:
            raise ContextOverflow(
                f"the prompt has at least {fewest} tokens, the model's context is {self._context}"
            )


class _Renderer:
    """A thread, and the process that renders for it, which starts when it is needed."""

    def __init__(self, name: str) -> None:
        self.pool = ThreadPoolExecutor(1, name)
        self._worker: Worker | None = None
        self._closed = False

    def start(self) -> Worker:
        """The running worker; a new one where the last has ended. Raises EngineClosed."""
        worker = self._worker
        if worker is None or worker.process.poll() is not None:
            worker = self._worker = start_worker("deploy.scoring.http.template_worker")
        if self._closed:
            worker.process.kill()
            raise EngineClosed("the server is going down")
        return worker

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's answer. Raises TemplateRefused and EngineClosed."""
        worker = self.start()
        try:
            worker.connection.send_bytes(json.dumps(request, default=str).encode())
            answer: dict[str, Any] = json.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            raise self._ended(worker) from None
        if "refused" in answer:
            raise TemplateRefused(answer["refused"])
        return answer

    def close(self) -> None:
        self._closed = True
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self._worker:
            self._worker.process.kill()
            self._worker.process.wait()

    def _ended(self, worker: Worker) -> Exception:
        code = worker.process.wait()
        if self._closed:
            return EngineClosed("the server is going down")
        if code == -signal.SIGALRM:
            return TemplateRefused(
                f"the model's chat template took longer than {RENDER_SECONDS:.0f} s for these messages"
            )
        return TemplateRefused(f"the model's chat template ended its process for these messages ({code})")
