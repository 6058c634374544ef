"""Messages to token ids with the model's own chat template, the same for training and for serving.

A model that is trained on one format and served with another answers badly. So this module is the only place
that applies a template.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.chats.chat import Message, bears_loss
from phi3flow.chats.end_of_turn import until_end_of_turn
from phi3flow.chats.tool_template import marks_of
from phi3flow.chats.tools import Tools, declared, named
from phi3flow.core.errors import Phi3flowError, first_line
from phi3flow.core.jsonl import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ZERO_WIDTH_SPACE = "\u200b"
SHOWN = 300  # characters of a template's own words


class TemplateRefused(Phi3flowError):
    """The chat template does not take these messages; the message has its own words."""


class Example(NamedTuple):
    """A chat for training: `input_ids`, and a mask of equal length, 1 for tokens that count in the loss."""

    input_ids: list[int]
    assistant_mask: list[int]


def check_prompt(messages: Sequence[Mapping[str, str]], path: str, *, ends_with_user: bool = True) -> None:
    """A system message only first, the user last, no empty user message. Raises RowError."""
    for position, message in enumerate(messages):
        role, at = message["role"], f"{path}[{position}]"
        if role not in ("system", "user", "assistant"):
            raise RowError(f"{at}.role", f"'{role}' is no role")
        if role == "system" and position:
            raise RowError(f"{at}.role", "only the first message may be the system's")
        if role == "user" and not message["content"].strip():
            raise RowError(f"{at}.content", "the user's message is empty")
    if ends_with_user and (not messages or messages[-1]["role"] != "user"):
        raise RowError(f"{path}[{len(messages) - 1}].role", "the last message must be the user's")


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    tools: Tools = (),
    *,
    add_generation_prompt: bool = True,
) -> list[int]:
    """Token ids of the messages; `add_generation_prompt` appends the header of the assistant's next turn.

    Raises TemplateRefused.
    """
    encoded = _applied(tokenizer, messages, tools, tokenize=True, add_generation_prompt=add_generation_prompt)
    return list(encoded["input_ids"])


def render(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], tools: Tools = ()) -> str:
    """The text that `encode_prompt` tokenizes, without the header of a next turn. Raises TemplateRefused."""
    return str(_applied(tokenizer, messages, tools, tokenize=False, add_generation_prompt=False))


def _applied(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], tools: Tools, **how: bool
) -> Any:
    safe = safe_for(tokenizer, str(tokenizer.chat_template), messages, tools)
    with _refusals():
        return tokenizer.apply_chat_template(
            safe.messages, tools=safe.tools or None, return_dict=how["tokenize"], **how
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """A template is a program: what it raises itself, and what goes wrong in it, becomes one sentence."""
    from jinja2 import TemplateError

    try:
        yield
    except TemplateError as error:
        raise TemplateRefused(
            f"the model's chat template refuses these messages: {first_line(error)[:SHOWN]}"
        ) from error
    except Exception as error:
        told = f"{type(error).__name__}: {first_line(error)[:SHOWN]}"
        raise TemplateRefused(f"the model's chat template fails on these messages: {told}") from error


def encode_example(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], tools: Tools = ()
) -> Example:
    """Token ids of a whole chat and the mask of its assistant tokens: text and end of turn.

    An assistant turn is what the rendering grows by when the turn is appended to its prompt. This works for
    every template whose renderings are prefixes of each other; raises Phi3flowError for any other. A turn of
    weight 0 is context: none of its tokens counts. The chat ends with its last turn that bears loss.
    """
    input_ids: list[int] = []
    mask: list[int] = []
    for position, message in enumerate(messages):
        if not bears_loss(message):
            continue
        prompt = encode_prompt(tokenizer, messages[:position], tools)
        through = encode_prompt(tokenizer, messages[: position + 1], tools, add_generation_prompt=False)
        if prompt[: len(input_ids)] != input_ids or through[: len(prompt)] != prompt:
            raise Phi3flowError(
                "the tokenizer's chat template does not render a prompt as a prefix of its answer",
                hint="use the template the model was published with",
            )
        answer = until_end_of_turn(tokenizer, through[len(prompt) :])
        mask += [0] * (len(prompt) - len(mask)) + [1] * len(answer)
        input_ids = prompt + answer
    return Example(input_ids, mask)


class Safe(NamedTuple):
    """What a template gets: no text in it can forge a turn, a tool or a call."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]


def safe_for(
    tokenizer: "PreTrainedTokenizerBase", template: str, messages: Sequence[Message], tools: Tools
) -> Safe:
    """Messages without `weight`, results with the `name` of their tool, tools as `{"type", "function"}`.

    Every text in them is neutralised, names and keys too; roles are ours.
    """
    marks = list(_special_tokens(tokenizer))
    if tools or any(message["role"] == "tool" or "tool_calls" in message for message in messages):
        marks += marks_of(template)
    told = [{name: each for name, each in turn.items() if name != "weight"} for turn in named(messages)]
    return Safe(
        [neutralised(marks, message) for message in told],
        [neutralised(marks, declared(tool)) for tool in tools],
    )


def neutralised(marks: Sequence[str], value: Any) -> Any:
    """A message or a tool, every text in it neutralised."""
    if isinstance(value, str):
        return _broken(marks, value)
    if isinstance(value, Mapping):
        return {_broken(marks, name): neutralised(marks, each) for name, each in value.items()}
    return [neutralised(marks, each) for each in value] if isinstance(value, list) else value


def neutralise(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    """Break up special tokens in a user's text, so that nobody can forge a role or end a turn.

    A zero-width space after the first character keeps the text readable, and the tokenizer no longer sees
    the special token `<|end|>`.
    """
    return _broken(_special_tokens(tokenizer), text)


def _broken(marks: Sequence[str], text: str) -> str:
    for mark in marks:
        if mark in text:
            text = text.replace(mark, mark[0] + ZERO_WIDTH_SPACE + mark[1:])
    return text


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    return sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})
