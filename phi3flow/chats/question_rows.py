"""Rows with one question and one answer: Alpaca, Dolly, SQuAD, prompt and completion, tables."""

from collections.abc import Mapping
from typing import Any

from phi3flow.chats.chat import Message
from phi3flow.chats.chat_template import check_prompt
from phi3flow.chats.field_names import ANSWERS, QUESTIONS, SYSTEMS
from phi3flow.chats.fields import Fields, plain, unfolded
from phi3flow.chats.turns import full_text, joined_parts, read_turn, text_of
from phi3flow.core.jsonl import RowError, json_name


def read_turns(name: str, value: Any, unused: list[str]) -> list[dict[str, Any]]:
    """A list of messages. Raises RowError."""
    turns = unfolded(value)
    if not isinstance(turns, list):
        raise RowError(name, f"must be a list, not {json_name(turns)}")
    return [read_turn(f"{name}[{i}]", turn, unused.append) for i, turn in enumerate(turns)]


def system_of(fields: Fields) -> list[dict[str, Any]]:
    """The system message that stands in a field of its own, if there is one."""
    name = fields.only(SYSTEMS)
    if name is None or not fields.present(name):
        return []
    where, value = fields.spelled(name), unfolded(fields.take(name))
    if isinstance(value, Mapping):  # Gemini's: a message, whatever its role says
        where, value = f"{where}.parts", joined_parts(f"{where}.parts", value.get("parts"))
    return [{"role": "system", "content": full_text(where, value)}]


def question_and_answer(fields: Fields, unused: list[str]) -> list[dict[str, Any]]:
    question, answered = question_of(fields, unused), fields.only(ANSWERS)
    if not question or answered is None:
        wanted = ANSWERS if question else QUESTIONS
        raise RowError(
            wanted[0], f"missing (or {', '.join(map(repr, wanted[1:]))}; --columns names any other)"
        )
    return question + _answer(fields, answered, unused)


def question_of(fields: Fields, unused: list[str]) -> list[dict[str, Any]]:
    """Earlier turns and the question with what belongs to it; empty if the row has no question."""
    asked = fields.only(QUESTIONS) or ("input" if fields.has("input") else None)
    if asked is None:
        return []
    history, question = _history(fields, unused), _prompt(fields, asked, unused)
    if question[-1]["role"] == "user":
        for extra in ("input", "context"):
            question[-1]["content"] += _extra(fields, extra) if extra != asked else ""
    return history + question


def _prompt(fields: Fields, name: str, unused: list[str]) -> list[dict[str, Any]]:
    where, value = fields.spelled(name), fields.take(name)
    if is_messages(value):
        return read_turns(where, value, unused)
    return [{"role": "user", "content": full_text(where, "" if value is None else value)}]


def _answer(fields: Fields, name: str, unused: list[str]) -> list[dict[str, Any]]:
    where, value = fields.spelled(name), fields.take(name)
    if is_messages(value):
        return read_turns(where, value, unused)
    return [{"role": "assistant", "content": full_text(where, "" if value is None else value)}]


def is_messages(value: Any) -> bool:
    """Whether a prompt or an answer is a list of messages, not of a text's parts, and not text."""
    value = unfolded(value)
    return isinstance(value, list) and any(
        isinstance(turn, Mapping) and {"role", "from"} & set(map(plain, turn)) for turn in value
    )


def _extra(fields: Fields, name: str) -> str:
    """What stands after the question: Alpaca's input, Dolly's context, passages of a search."""
    where, value = fields.spelled(name), fields.take(name)
    if value is None:
        return ""
    texts = value if isinstance(value, list) else [value]
    return "".join("\n\n" + text_of(where, text) for text in texts)


def _history(fields: Fields, unused: list[str]) -> list[dict[str, Any]]:
    """Earlier turns: pairs of question and answer as in Alpaca, or messages."""
    where, value = fields.spelled("history"), unfolded(fields.take("history"))
    if value is None:
        return []
    if is_messages(value):
        return read_turns(where, value, unused)
    if not isinstance(value, list):
        raise RowError(where, f"must be a list, not {json_name(value)}")
    messages = []
    for i, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError(f"{where}[{i}]", "must be a pair of question and answer")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            messages.append({"role": role, "content": full_text(f"{where}[{i}]", text)})
    return messages


def squad(fields: Fields, unused: list[str]) -> list[dict[str, Any]]:
    """SQuAD: answers with their places in a context; the first one is the reference."""
    found = unfolded(fields.take("answers"))
    texts = found.get("text") if isinstance(found, Mapping) else found
    if not isinstance(texts, list) or not texts:
        raise RowError(fields.spelled("answers"), "has no text in it: an unanswerable question")
    first = texts[0].get("text") if isinstance(texts[0], Mapping) else texts[0]
    if any(text != texts[0] for text in texts):
        unused.append("answers[1:]")
    asked = fields.only(QUESTIONS)
    question = _prompt(fields, asked, unused) if asked else []
    if not question:
        raise RowError(QUESTIONS[0], "missing")
    question[-1]["content"] += _extra(fields, "context")
    return [*question, {"role": "assistant", "content": full_text("answers", first)}]


def prompt_of(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The `question` or the `messages` of a row that asks and has no reference answer. Raises RowError."""
    if "messages" not in row:
        if "question" not in row:
            raise RowError("question", "missing (or 'messages')")
        return ({"role": "user", "content": full_text("question", row["question"])},)
    if "question" in row:
        raise RowError("question", "given together with 'messages'; keep one of them")
    messages = read_turns("messages", row["messages"], [])
    if not messages or messages[-1]["role"] != "user":
        raise RowError("messages", "must end with the user's question")
    check_prompt(messages, "messages")
    return tuple(messages)
