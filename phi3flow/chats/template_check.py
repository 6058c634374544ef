"""Does the model's chat template say what the chats say? Checked once per data set, before training.

Some templates leave out what they do not know: Phi-3-medium's drops system messages, Phi-3's drops tools. A
model trained through one would never see them, and nothing would tell. So a system message is folded into the
question, and tools are told in the system message (`tool_template`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from phi3flow.chats.chat import Chat, Message
from phi3flow.chats.chat_template import TemplateRefused, render, safe_for
from phi3flow.chats.tool_template import with_tools, without_ours
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
    given = str(tokenizer.chat_template)
    template = without_ours(given)
    tools = given.removesuffix(template)
    own = template.removeprefix(_FOLD).removeprefix(_REFUSE)
    if own != template and rule is None:
        return
    tokenizer.chat_template = own
    if _drops_system(tokenizer):
        tokenizer.chat_template = _RULES[rule or "fold"] + own
    tokenizer.chat_template = tools + tokenizer.chat_template


def keep_tools(tokenizer: "PreTrainedTokenizerBase", chats: Iterable[Chat]) -> None:
    """Let a template that leaves tools out tell them in the system message, if one of the chats has any.

    Call it after `keep_system`.
    """
    if any(chat.uses_tools for chat in chats):
        tokenizer.chat_template = with_tools(tokenizer)


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
    safe, at = safe_for(tokenizer, str(tokenizer.chat_template), chat.messages, chat.tools), 0
    for i, message in enumerate(safe.messages):
        for field, words in _words_of(message):
            at = text.find(words, at)
            if at < 0:
                return RowError(f"messages[{i}].{field}", "the model's chat template leaves it out")
            at += len(words)
    for i, tool in enumerate(safe.tools):
        if _in_json(tool["function"]["name"]) not in text:
            return RowError(f"tools[{i}]", "the model's chat template knows no tools")
    return None


def _words_of(message: Message) -> Iterator[tuple[str, str]]:
    if words := message["content"].strip():
        yield "content", words
    for i, call in enumerate(message.get("tool_calls", [])):
        yield f"tool_calls[{i}]", _in_json(call["function"]["name"])


def _in_json(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]
