"""A process that renders a model's chat template, within bounds that hold whatever the template does.

    python -m deploy.scoring.http.template_worker FD

Reads requests from a connection and answers with `{"text"}`, with `{"characters"}` of a text that is too long
or `{"refused"}`, all as JSON; to a `probe` with the `{"template", "form"}` of tools. A rendering that takes
too long ends the process, also in the middle of one expression; memory beyond the limit is a MemoryError.
"""

import json
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from phi3flow.chats.call_form import call_form
from phi3flow.chats.chat_template import TemplateRefused, encode_prompt
from phi3flow.chats.tool_template import with_tools

RENDER_SECONDS = 5.0
RENDER_BYTES = 512 << 20
MEMORY = Path("/proc/self/statm")  # its first number: pages of this process's address space; Linux only


class Template:
    """As much of a tokenizer as rendering needs. Its only token is the text itself."""

    all_special_tokens: Sequence[str] = ()  # the server has broken up those of the texts

    def __init__(self, source: str, special_tokens: Mapping[str, Any]) -> None:
        self.chat_template, self._special_tokens = source, special_tokens

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    def apply_chat_template(
        self,
        messages: Any,
        *,
        tools: Any = None,
        chat_template: str | None = None,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        **_: Any,
    ) -> Any:
        from transformers.utils.chat_template_utils import render_jinja_template

        texts, _ = render_jinja_template(
            conversations=[messages],
            tools=tools,
            chat_template=chat_template or self.chat_template,
            add_generation_prompt=add_generation_prompt,
            **self._special_tokens,
        )
        return {"input_ids": texts} if tokenize else texts[0]


def probed(request: Mapping[str, Any]) -> dict[str, Any]:
    """The template that renders tools, and the form of its calls."""
    template: Any = Template(request["template"], request["special_tokens"])
    with_them = with_tools(template)
    return {"template": with_them, "form": call_form(template, with_them)}


def rendered(request: Mapping[str, Any]) -> dict[str, str | int]:
    """The text of `messages` by `template`, its length if that is above `most`, or why there is none."""
    template = Template(request["template"], request["special_tokens"])
    try:
        text = str(
            encode_prompt(
                template,
                request["messages"],
                request["tools"],
                add_generation_prompt=request["add_generation_prompt"],
            )[0]
        )
    except TemplateRefused as error:
        return {"refused": str(error)}
    if len(text) > request["most"]:
        return {"characters": len(text)}
    return {"text": text}


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    import transformers.utils.chat_template_utils  # noqa: F401 - before the limit is set

    _limit_memory()
    with suppress(EOFError, ConnectionError):  # the server has ended
        while True:
            request = json.loads(connection.recv_bytes())
            signal.setitimer(signal.ITIMER_REAL, RENDER_SECONDS)  # then SIGALRM ends this process
            made = probed(request) if request.get("probe") else rendered(request)
            answer = json.dumps(made).encode()
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send_bytes(answer)


def _limit_memory() -> None:
    if MEMORY.exists():
        limit = int(MEMORY.read_text().split()[0]) * resource.getpagesize() + RENDER_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which drains first
    main()
