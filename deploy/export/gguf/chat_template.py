"""A model's chat template for llama.cpp, which renders prompts itself."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from phi3flow.chats.chat_template import ZERO_WIDTH_SPACE
from phi3flow.chats.tool_template import without_ours

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WHITE_SPACE = ("\n", " ")


def for_llama_cpp(tokenizer: "PreTrainedTokenizerBase", swallowing: Iterable[str]) -> str:
    """The template between a guard and a repair, in what llama.cpp's Jinja knows.

    The guard breaks up special tokens in what people write, as `chat_template.neutralise` does. The repair
    drops the white space behind the tokens in `swallowing`, as the model's own tokenizer does. Tools are left
    out: the guard passes on roles and texts alone.
    """
    marks = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})
    broken = _replacing({mark: mark[0] + ZERO_WIDTH_SPACE + mark[1:] for mark in marks})
    repaired = _replacing({token + space: token for token in sorted(swallowing) for space in WHITE_SPACE})
    return (
        "{%- set guarded = namespace(messages=[]) -%}"
        "{%- for message in messages -%}"
        "{%- set guarded.messages = guarded.messages + "
        f"[{{'role': message['role'], 'content': message['content']{broken}}}] -%}}"
        "{%- endfor -%}"
        "{%- set messages = guarded.messages -%}"
        f"{{%- set rendered %}}{without_ours(str(tokenizer.chat_template))}{{% endset -%}}"
        f"{{{{ rendered{repaired} }}}}"
    )


def _replacing(table: dict[str, str]) -> str:
    return "".join(f".replace({_quoted(old)}, {_quoted(new)})" for old, new in table.items())


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
