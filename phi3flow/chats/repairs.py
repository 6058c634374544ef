"""Repairs that everybody makes by hand: each is counted and shown; with --strict it is an error."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from phi3flow.chats.chat import bears_loss
from phi3flow.core.jsonl import RowError

Messages = list[dict[str, Any]]
# Marks that a template puts after an answer, and that stand in data which somebody has rendered.
END_MARKS = ("<|end|>", "<|endoftext|>", "</s>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<eos>")
_MARK = re.compile(r"<\|\w+\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>")
MARKS_INSIDE = "template marks inside texts, kept as plain text"


class Repair(NamedTuple):
    """`kind` is what was done, for the summary; `field` and `what` say why, for --strict."""

    kind: str
    field: str
    what: str


class _Step(NamedTuple):
    messages: Messages
    repairs: list[Repair]


def has_marks_inside(messages: Messages) -> bool:
    """Whether a text holds marks of some chat template, which the tokenizer will see as plain text."""
    return any(_MARK.search(turn["content"]) for turn in messages)


def repaired(messages: Messages) -> tuple[Messages, list[Repair]]:
    """Messages that a chat can have, and what was done to get there. Raises RowError if nothing helps."""
    done: list[Repair] = []
    for step in _STEPS:
        messages, repairs = step(messages)
        done += repairs
    _check(messages)
    return messages, done


def _without_empty_system(messages: Messages) -> _Step:
    kept = [turn for turn in messages if turn["role"] != "system" or turn["content"].strip()]
    dropped = len(messages) - len(kept)
    return _Step(
        kept, [Repair("empty system messages removed", "messages", "empty system")] if dropped else []
    )


def _one_system(messages: Messages) -> _Step:
    """Every system message stands in front, as one: the endpoint does the same with what it is asked."""
    systems = [i for i, turn in enumerate(messages) if turn["role"] == "system"]
    if not systems or systems == [0]:
        return _Step(messages, [])
    content = "\n\n".join(messages[i]["content"] for i in systems)
    others = [turn for turn in messages if turn["role"] != "system"]
    why = Repair(
        "later system messages moved to the front", _role(systems[-1]), "is system, after other turns"
    )
    return _Step([{"role": "system", "content": content}, *others], [why])


def _without_end_marks(messages: Messages) -> _Step:
    repairs, cleaned = [], []
    for i, turn in enumerate(messages):
        content = _before_end_marks(turn["content"]) if turn["role"] == "assistant" else turn["content"]
        if content != turn["content"]:
            what = "ends with a mark that the chat template adds itself"
            repairs.append(Repair("template marks at the end of answers removed", _content(i), what))
        if turn["role"] == "assistant" and not content.strip() and turn["content"].strip():
            raise RowError(_content(i), "is nothing but template marks")
        cleaned.append(turn | {"content": content})
    return _Step(cleaned, repairs)


def _before_end_marks(text: str) -> str:
    """Looks at each character once, where a pattern would look at long white space again and again."""
    end, kept = len(text), len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        mark = next((mark for mark in END_MARKS if text.endswith(mark, 0, end)), None)
        if mark is None:
            return text[:end] if kept < len(text) else text
        end = kept = end - len(mark)


def _joined(messages: Messages) -> _Step:
    """Two turns of one role in a row, as chat exports have them, become one."""
    repairs: list[Repair] = []
    joined: Messages = []
    for i, turn in enumerate(messages):
        before = joined[-1] if joined else None
        if before is None or before["role"] != turn["role"] or not _can_join(before, turn):
            joined.append(turn)
            continue
        if before.get("weight") != turn.get("weight"):
            raise RowError(f"messages[{i}].weight", "differs from that of the assistant turn before it")
        joined[-1] = before | {"content": f"{before['content']}\n\n{turn['content']}"}
        why = f"is {turn['role']}, as the turn before it"
        repairs.append(Repair("turns of one role joined", _role(i), why))
    return _Step(joined, repairs)


def _can_join(before: dict[str, Any], turn: dict[str, Any]) -> bool:
    return turn["role"] in ("user", "assistant") and not ("tool_calls" in before or "tool_calls" in turn)


def _greeting_without_loss(messages: Messages) -> _Step:
    """A first assistant turn answers nobody: it is context."""
    first = int(bool(messages) and messages[0]["role"] == "system")
    if len(messages) <= first or not bears_loss(messages[first]):
        return _Step(messages, [])
    changed = [*messages[:first], messages[first] | {"weight": 0}, *messages[first + 1 :]]
    why = Repair("first assistant turns kept without loss", _role(first), "is assistant, before any question")
    return _Step(changed, [why])


def _ends_with_an_answer(messages: Messages) -> _Step:
    """Cut what follows the last answer that bears loss: nobody learns from it."""
    last = max((i for i, turn in enumerate(messages) if bears_loss(turn)), default=None)
    if last is None:
        raise RowError("messages", _why_nothing_is_learned({turn["role"] for turn in messages}))
    if last == len(messages) - 1:
        return _Step(messages, [])
    why = f"is {messages[-1]['role']}, but a chat ends with the assistant's answer"
    if messages[-1]["role"] == "assistant":
        why = "is an answer without loss, but a chat ends with one that is learned"
    kind = "turns after the last answer cut"
    return _Step(messages[: last + 1], [Repair(kind, _role(len(messages) - 1), why)])


def _why_nothing_is_learned(roles: set[str]) -> str:
    if "assistant" not in roles:
        return "has no assistant turn, so there is no answer to learn"
    if "user" not in roles:
        return "has no user turn, so there is no question"
    return "has no answer that counts toward the loss (weight, train)"


_STEPS: tuple[Callable[[Messages], _Step], ...] = (
    _without_empty_system,
    _one_system,
    _without_end_marks,
    _joined,
    _greeting_without_loss,
    _ends_with_an_answer,
)


def _check(messages: Messages) -> None:
    """Raise RowError for an order of turns that no repair makes right."""
    for i, turn in enumerate(messages[1:], 1):
        before = messages[i - 1]["role"]
        if turn["role"] == "tool" and not (before == "tool" or "tool_calls" in messages[i - 1]):
            raise RowError(_role(i), "is tool, but no assistant turn with tool_calls stands before it")
    if messages[0]["role"] == "tool":
        raise RowError(_role(0), "is tool, but no assistant turn with tool_calls stands before it")


def _role(i: int) -> str:
    return f"messages[{i}].role"


def _content(i: int) -> str:
    return f"messages[{i}].content"
