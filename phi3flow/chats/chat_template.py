"""Messages to token ids with the model's own chat template, the same for training and for serving.

A model that is trained on one format and served with another answers badly. So this module is the only place
that applies a template.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.chats.end_of_turn import until_end_of_turn
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.jsonl import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ZERO_WIDTH_SPACE = "\u200b"


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
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = True,
) -> list[int]:
    """Token ids of the messages; `add_generation_prompt` appends the header of the assistant's next turn."""
    safe = [{"role": m["role"], "content": neutralise(tokenizer, m["content"])} for m in messages]
    encoded: Any = tokenizer.apply_chat_template(
        safe, tokenize=True, add_generation_prompt=add_generation_prompt, return_dict=True
    )
    return list(encoded["input_ids"])


def encode_example(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, str]]) -> Example:
    """Token ids of a whole chat and the mask of its assistant tokens: text and end of turn.

    An assistant turn is what the rendering grows by when the turn is appended to its prompt. This works for
    every template whose renderings are prefixes of each other; raises Phi3flowError for any other.
    """
    input_ids: list[int] = []
    mask: list[int] = []
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = encode_prompt(tokenizer, messages[:position])
        through = encode_prompt(tokenizer, messages[: position + 1], add_generation_prompt=False)
        if prompt[: len(input_ids)] != input_ids or through[: len(prompt)] != prompt:
            raise Phi3flowError(
                "the tokenizer's chat template does not render a prompt as a prefix of its answer",
                hint="use the template the model was published with",
            )
        answer = until_end_of_turn(tokenizer, through[len(prompt) :])
        mask += [0] * (len(prompt) - len(mask)) + [1] * len(answer)
        input_ids = prompt + answer
    return Example(input_ids, mask)


def neutralise(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    """Break up special tokens in a user's text, so that nobody can forge a role or end a turn.

    A zero-width space after the first character keeps the text readable, and the tokenizer no longer sees
    the special token `<|end|>`.
    """
    for special in _special_tokens(tokenizer):
        if special in text:
            text = text.replace(special, special[0] + ZERO_WIDTH_SPACE + special[1:])
    return text


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    return sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})
