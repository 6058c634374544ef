"""How an answer ends: the one place that knows it, for any chat template.

A template closes a turn with a special token: `<|end|>` in Phi-3, `<|im_end|>` in ChatML, `</s>` in others.
What it writes behind that, such as a line feed, belongs to no turn: a model that learned to say it would say
it after every answer.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
# For answers of endpoints, whose tokenizer and template nobody here has.
KNOWN_ENDS = ("<|end|>", "<|im_end|>", END_OF_TEXT, "</s>", "<|eot_id|>", "<end_of_turn>")
_QUESTION, _ANSWER = "question", "the answer"


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """Id of the special token that closes an assistant turn in the template.

    None where it is plain text, or where the template refuses a question and an answer.
    """
    return _end_in(tokenizer, str(tokenizer.chat_template))


def stop_token_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The ids that end an answer, sorted: of the end of a turn and of the end of a text."""
    ends = {end_of_turn(tokenizer), tokenizer.eos_token_id, tokenizer.get_added_vocab().get(END_OF_TEXT)}
    return sorted(end for end in ends if end is not None)


def until_end_of_turn(tokenizer: "PreTrainedTokenizerBase", answer: list[int]) -> list[int]:
    """An assistant turn's tokens without those behind the token that closes it."""
    end = end_of_turn(tokenizer)
    return answer[: answer.index(end) + 1] if end in answer else answer


@lru_cache(maxsize=8)
def _end_in(tokenizer: "PreTrainedTokenizerBase", template: str) -> int | None:
    from jinja2 import TemplateError

    chat = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    try:
        rendered = str(tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False))
    except TemplateError:
        return None
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    behind = tokenizer.encode(rendered.rpartition(_ANSWER)[2], add_special_tokens=False)
    return next((token for token in behind if token in special), None)
