"""Prompts become token ids beside the event loop, within bounds on characters and on the template's time.

A model's chat template is a program. It cannot be interrupted from outside, so a template that does not end
is stopped by an exception that is raised in its thread.
"""

import asyncio
import ctypes
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from deploy.scoring.engine import ContextOverflow, Engine, EngineClosed
from deploy.scoring.http.bodies import Turn
from phi3flow.chats.chat_template import TemplateRefused, encode_prompt

LONG_TEXT = 20_000  # characters; longer prompts wait for each other, and not short ones for them
RENDER_SECONDS = 5.0


class Rendering:
    """Renders for one engine. Every method is for the event loop, `close` for any thread."""

    def __init__(self, engine: Engine) -> None:
        self._context, self._tokenizer = engine.context, engine.tokenizer
        self._token_characters = max(map(len, engine.tokenizer.get_vocab()))
        self._short = ThreadPoolExecutor(1, "short-prompts")
        self._long = ThreadPoolExecutor(1, "long-prompts")
        self._running: set[_Stoppable] = set()

    async def encode(self, turns: Sequence[Turn], *, add_generation_prompt: bool = True) -> list[int]:
        """The prompt's token ids, rendered as in training.

        Raises ContextOverflow, EngineClosed and TemplateRefused.
        """
        characters = sum(len(turn.content) for turn in turns)
        fewest = -(-characters // self._token_characters)
        if fewest > self._context:  # not worth a rendering
            raise ContextOverflow(
                f"the prompt has at least {fewest} tokens, the model's context is {self._context}"
            )
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        render = partial(
            encode_prompt, self._tokenizer, messages, add_generation_prompt=add_generation_prompt
        )
        pool = self._long if characters > LONG_TEXT else self._short
        try:
            rendering = asyncio.get_running_loop().run_in_executor(pool, self._run, render)
        except RuntimeError:  # the pool is closed
            raise EngineClosed("the server is going down") from None
        ids = await rendering
        if not ids:
            raise TemplateRefused("the model's chat template makes nothing of these messages")
        return ids

    def close(self) -> None:
        """Stop what is being rendered, and drop what waits: Python would wait for it at its end."""
        for pool in (self._short, self._long):
            pool.shutdown(wait=False, cancel_futures=True)
        for running in list(self._running):
            running.stop()

    def _run(self, render: Callable[[], list[int]]) -> list[int]:
        running = _Stoppable(render)
        timer = threading.Timer(RENDER_SECONDS, running.stop)
        timer.daemon = True
        timer.start()
        self._running.add(running)
        try:
            return running()
        finally:
            self._running.discard(running)
            timer.cancel()


class _TooLong(BaseException):
    """Raised in a rendering's thread. Not an Exception, so that nothing in between takes it for its own."""


class _Stoppable:
    """A call that `stop` ends, from another thread, at its next step in Python."""

    def __init__(self, call: Callable[[], list[int]]) -> None:
        self._call = call
        self._lock, self._over, self._stopped = threading.Lock(), False, False
        self._thread = 0

    def __call__(self) -> list[int]:
        try:
            with self._lock:
                self._thread = threading.get_ident()
            outcome = self._outcome()
            with self._lock:
                self._over = True
            while self._stopped:  # the exception is on its way: it must arrive here
                pass
        except _TooLong:
            raise TemplateRefused(
                f"the model's chat template took longer than {RENDER_SECONDS:.0f} s for these messages"
            ) from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _outcome(self) -> list[int] | Exception:
        try:
            return self._call()
        except Exception as error:
            return error

    def stop(self) -> None:
        with self._lock:
            if self._thread and not (self._over or self._stopped):
                self._stopped = True
                exception = ctypes.py_object(_TooLong)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), exception)
