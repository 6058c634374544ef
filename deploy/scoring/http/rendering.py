"""Prompts become token ids beside the event loop, within bounds on characters, time and memory.

A model's chat template is a program, and nothing in this process could stop it within one expression. So it
runs in a process of its own.
"""

import asyncio
import json
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from deploy.scoring.engine import ContextOverflow, Engine, EngineClosed
from deploy.scoring.http.template_worker import RENDER_SECONDS
from deploy.scoring.http.turns import Said
from phi3flow.chats.call_form import CallForm
from phi3flow.chats.chat import Message
from phi3flow.chats.chat_template import TemplateRefused, safe_for
from phi3flow.chats.tools import Tools
from phi3flow.core.child_process import Worker, start_worker
from phi3flow.core.errors import first_line

T = TypeVar("T")
LONG_TEXT = 20_000  # characters; longer prompts wait for each other, and not short ones for them


class ToolRendering(NamedTuple):
    """The template that renders tools, and how its answers call them; None where that has no known form."""

    template: str
    form: CallForm | None


class Rendering:
    """Renders for one engine. Every method is for the event loop, `close` for any thread."""

    def __init__(self, engine: Engine) -> None:
        self._context, self._tokenizer = engine.context, engine.tokenizer
        self._token_characters = max(map(len, engine.tokenizer.get_vocab()))
        self._short, self._long = _Renderer("short-prompts"), _Renderer("long-prompts")
        self._tools: ToolRendering | None = None
        self._short.start()

    @property
    def tokens(self) -> Mapping[str, int]:
        """The words that the tokenizer keeps whole, and their ids."""
        return self._tokenizer.get_added_vocab()

    async def tool_rendering(self) -> ToolRendering:
        """Raises EngineClosed and TemplateRefused."""
        if self._tools is None:
            request = {"probe": True, "template": self._template(), **self._special_tokens()}
            found = await self._in_thread(self._short, self._short.ask, request)
            form = CallForm(*found["form"]) if found["form"] else None
            self._tools = ToolRendering(found["template"], form)
        return self._tools

    async def encode(
        self, turns: Sequence[Said], tools: Tools = (), *, add_generation_prompt: bool = True
    ) -> list[int]:
        """The prompt's token ids, rendered as in training.

        Raises ContextOverflow, EngineClosed and TemplateRefused.
        """
        characters = sum(len(turn.content) for turn in turns)
        self._check(characters)  # perhaps it is not worth a rendering
        messages = [turn.message() for turn in turns]
        has_tools = bool(tools) or any("tool_calls" in each or each["role"] == "tool" for each in messages)
        template = (await self.tool_rendering()).template if has_tools else self._template()
        if has_tools:
            characters = len(json.dumps([messages, *tools]))
        renderer = self._long if characters > LONG_TEXT else self._short
        ids = await self._in_thread(
            renderer, self._encode, renderer, template, messages, tools, add_generation_prompt
        )
        if not ids:
            raise TemplateRefused("the model's chat template makes nothing of these messages")
        return ids

    async def _in_thread(self, renderer: "_Renderer", call: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(renderer.pool, call, *arguments)
        except RuntimeError:  # the pool is closed
            raise EngineClosed("the server is going down") from None

    def close(self) -> None:
        """Stop what is being rendered, and drop what waits: Python would wait for it at its end."""
        for renderer in (self._short, self._long):
            renderer.close()

    def _template(self) -> str:
        try:
            return str(self._tokenizer.get_chat_template())
        except ValueError as error:
            raise TemplateRefused(first_line(error)) from None

    def _special_tokens(self) -> dict[str, Any]:
        return {"special_tokens": self._tokenizer.special_tokens_map}

    def _encode(
        self,
        renderer: "_Renderer",
        template: str,
        messages: Sequence[Message],
        tools: Tools,
        add_generation_prompt: bool,
    ) -> list[int]:
        safe = safe_for(self._tokenizer, template, messages, tools)
        answer = renderer.ask(
            {
                **safe._asdict(),
                "template": template,
                **self._special_tokens(),
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
