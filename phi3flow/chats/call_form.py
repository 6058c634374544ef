"""How a chat template writes the calls of an answer, found by rendering two of them."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.chats.tool_template import calling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION: Mapping[str, Any] = {"role": "user", "content": "probe-question"}
_ANSWER = "probe-answer"
_GIVEN = ({"first": "probe-1"}, {"second": "probe-2"})


class CallForm(NamedTuple):
    """An answer that calls: HEAD name MIDDLE arguments (BETWEEN name MIDDLE arguments)* TAIL.

    The arguments are a JSON object.
    """

    head: str
    middle: str
    between: str
    tail: str

    @property
    def opening(self) -> str:
        """How an answer shows that a call begins: the head before its JSON, or all of it."""
        return re.split(r"[{[]", self.head, maxsplit=1)[0].rstrip() or self.head


def call_form(tokenizer: "PreTrainedTokenizerBase", template: str) -> CallForm | None:
    """None where the template writes no calls, or in a form that is not like this."""
    try:
        one, two = (_answer(tokenizer, template, calling(*_GIVEN[:count])) for count in (1, 2))
        first, second = ([f"probe_name{at}", json.dumps(given)] for at, given in enumerate(_GIVEN))
        head, middle, tail = _around(one, first)
        again, same, between, also, end = _around(two, first + second)
    except Exception:  # a template can fail in any way
        return None
    found = CallForm(head, middle, between, tail)
    return found if (again, same, also, end) == (head, middle, middle, tail) else None


def _around(text: str, parts: list[str]) -> list[str]:
    """The text before, between and after the parts. Raises ValueError if one is missing."""
    found = []
    for part in parts:
        before, part_itself, text = text.partition(part)
        if not part_itself:
            raise ValueError(part)
        found.append(before)
    return [*found, text]


def _answer(tokenizer: "PreTrainedTokenizerBase", template: str, turn: Mapping[str, Any]) -> str:
    """The text of an assistant's turn, without what closes every turn. Raises ValueError."""

    def text(*messages: Mapping[str, Any], prompt: bool = False) -> str:
        return str(
            tokenizer.apply_chat_template(
                list(messages), chat_template=template, tokenize=False, add_generation_prompt=prompt
            )
        )

    opened = text(_QUESTION, prompt=True)
    closing = text(_QUESTION, {"role": "assistant", "content": _ANSWER}).rpartition(_ANSWER)[2]
    whole = text(_QUESTION, turn)
    if not whole.startswith(opened) or not whole.endswith(closing):
        raise ValueError("the template rewrites the prompt")
    return whole[len(opened) :].removesuffix(closing)
