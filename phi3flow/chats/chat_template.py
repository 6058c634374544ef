"""Messages to token ids, by the model's own chat template: one rendering for training and for serving.

Training on one format and serving another is the defect that makes most fine-tuned models look worthless, so
this module is the only place where a template is applied.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.core.errors import Phi3flowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ZERO_WIDTH_SPACE = "\u200b"


class Example(NamedTuple):
    """One chat as training sees it: `input_ids` and, of equal length, 1 where a token bears loss."""

    input_ids: list[int]
    assistant_mask: list[int]


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = True,
) -> list[int]:
    """Token ids of the messages, and of the header of the assistant's next turn unless it is not wanted."""
    return _render(tokenizer, messages, add_generation_prompt=add_generation_prompt)


def encode_example(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, str]]) -> Example:
    """Token ids of a whole chat with the mask of assistant tokens: their text and their end of turn.

    Each assistant turn is found as what the rendering grows by when that turn is appended to its prompt, so
    any template serves whose renderings are prefixes of each other. Raises Phi3flowError where that does not
    hold.
    """
    input_ids: list[int] = []
    mask: list[int] = []
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = encode_prompt(tokenizer, messages[:position])
        through = _render(tokenizer, messages[: position + 1], add_generation_prompt=False)
        if prompt[: len(input_ids)] != input_ids or through[: len(prompt)] != prompt:
            raise Phi3flowError(
                "the tokenizer's chat template does not render a prompt as a prefix of its answer",
                hint="use the template the model was published with",
            )
        answer = _until_end_of_turn(tokenizer, through[len(prompt) :])
        mask += [0] * (len(prompt) - len(mask)) + [1] * len(answer)
        input_ids = prompt + answer
    return Example(input_ids, mask)


def neutralise(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    """Break up special tokens that stand in a person's text, so that nobody can forge a role or end a turn.

    A zero-width space after the first character leaves the text readable and keeps the tokenizer from reading
    `<|end|>` as its special token.
    """
    for special in _special_tokens(tokenizer):
        if special in text:
            text = text.replace(special, special[0] + ZERO_WIDTH_SPACE + special[1:])
    return text


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    return sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})


def _render(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
) -> list[int]:
    safe = [{"role": m["role"], "content": neutralise(tokenizer, m["content"])} for m in messages]
    encoded: Any = tokenizer.apply_chat_template(
        safe, tokenize=True, add_generation_prompt=add_generation_prompt, return_dict=True
    )
    return list(encoded["input_ids"])


def _until_end_of_turn(tokenizer: "PreTrainedTokenizerBase", answer: list[int]) -> list[int]:
    """Cut what a template appends after `<|end|>`: some close the whole text with `<|endoftext|>`."""
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    return answer[: answer.index(end) + 1] if end in answer else answer
