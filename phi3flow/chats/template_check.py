"""Does the model's chat template say what the chats say? Checked once per data set, before training.

Some templates leave out what they do not know: Phi-3-medium's drops system messages, Phi-3's drops tools. A
model trained through one would never see them, and nothing would tell.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from phi3flow.chats.chat import Chat, Message
from phi3flow.chats.chat_template import TemplateRefused, neutralised, render
from phi3flow.core.jsonl import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SystemRule = Literal["fold", "refuse"]
_PROBE = "phi3flow-system-probe"
_CONDITION = "{%- if messages and messages[0]['role'] == 'system' -%}"
# Both stand before the model's template and are saved with it, so that every server does as training did.
_FOLD = (
    "{#- phi3flow: this template has no system message; it goes into the first user turn -#}"
    f"{_CONDITION}"
    "{%- if messages[1:] and messages[1]['role'] == 'user' -%}"
    "{%- set joined = messages[0]['content'] + '\\n\\n' + messages[1]['content'] -%}"
    "{%- set messages = [{'role': 'user', 'content': joined}] + messages[2:] -%}"
    "{%- else -%}"
    "{%- set messages = [{'role': 'user', 'content': messages[0]['content']}] + messages[1:] -%}"
    "{%- endif -%}{%- endif -%}"
)
_REFUSE = (
    "{#- phi3flow: this template has no system message, and the recipe refuses it -#}"
    f"{_CONDITION}"
    "{{- raise_exception('the model was trained without system messages') -}}"
    "{%- endif -%}"
)
_RULES: Mapping[SystemRule, str] = {"fold": _FOLD, "refuse": _REFUSE}


def keep_system(tokenizer: "PreTrainedTokenizerBase", rule: SystemRule | None = None) -> None:
    """Let a template that drops system messages fold them into the first user turn, or refuse them.

    Without a rule, what a training run has saved stays, and others fold. Every other template stays as it is.
    """
    template = str(tokenizer.chat_template)
    own = template.removeprefix(_FOLD).removeprefix(_REFUSE)
    if own != template and rule is None:
        return
    tokenizer.chat_template = own
    if _drops_system(tokenizer):
        tokenizer.chat_template = _RULES[rule or "fold"] + own


def _drops_system(tokenizer: "PreTrainedTokenizerBase") -> bool:
    messages = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "Hi"}]
    try:
        return _PROBE not in render(tokenizer, messages)
    except TemplateRefused:
        return False  # it says so itself


def unrendered(tokenizer: "PreTrainedTokenizerBase", chat: Chat) -> RowError | None:
    """What of a chat its rendering lacks; None if every message's words are in it, in their order."""
    try:
        text = render(tokenizer, chat.messages, chat.tools)
    except TemplateRefused as error:
        return RowError("messages", str(error))
    at = 0
    for i, message in enumerate(chat.messages):
        for field, words in _words_of(tokenizer, message):
            at = text.find(words, at)
            if at < 0:
                return RowError(f"messages[{i}].{field}", "the model's chat template leaves it out")
            at += len(words)
    for i, tool in enumerate(chat.tools):
        name = _name_of(tool)
        if name not in text:
            return RowError(f"tools[{i}]", "the model's chat template knows no tools")
    return None


def _words_of(tokenizer: "PreTrainedTokenizerBase", message: Message) -> Iterator[tuple[str, str]]:
    safe = neutralised(tokenizer, message)
    if words := safe["content"].strip():
        yield "content", words
    for i, call in enumerate(safe.get("tool_calls", [])):
        yield f"tool_calls[{i}]", call["function"]["name"]


def _name_of(tool: Mapping[str, Any]) -> str:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else json.dumps(tool)
