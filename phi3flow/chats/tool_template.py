"""Tools in a chat template: the model's own rendering, or ours in front of a template that leaves tools out.

Ours is part of the template text, so that training, our endpoint and every other server of the saved model
render alike. The tools stand in the system message, each as a line of JSON; a call is a part of the
assistant's answer, and what a tool returned is a user's turn:

    <tool_call>
    {"name": "price", "arguments": {"part": 7}}
    </tool_call>

    <tool_response>
    12 euro
    </tool_response>

These are the marks of Hermes, Qwen and SmolLM, which vLLM's parser `hermes` reads. A template that takes
tools as `tools` of the system message, as Phi-4-mini's does, gets them there; its calls are a JSON list
between its own two tokens.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = ("<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_NAME, _ARGUMENTS, _RESULT, _TOLD = "probe_name", {"probe": "argument"}, "probe-result", "probe-system"
_BEGIN = "{#- phi3flow: the template behind this leaves tools out; they are told in the system message -#}"
_END = "{#- phi3flow: end of the tools -#}"
_FUNCTIONS = (
    "{%- set told = namespace(turns=[], tools='', list=[]) -%}"
    "{%- for tool in tools or [] -%}"
    "{%- set function = tool['function'] if 'function' in tool else tool -%}"
    "{%- set entry = {'name': function['name'], 'description': function['description'] or '', "
    "'parameters': function['parameters'] or {}} -%}"
    "{%- set told.list = told.list + [entry] -%}"
    "{%- set told.tools = told.tools + (entry | tojson) + '\\n' -%}"
    "{%- endfor -%}"
)
_SYSTEM = (
    "{%- if messages and messages[0]['role'] == 'system' -%}"
    "{%- set system = messages[0]['content'] -%}{%- set messages = messages[1:] -%}"
    "{%- else -%}{%- set system = '' -%}{%- endif -%}"
)
_TOLD_IN_WORDS = (
    "{%- if tools -%}"
    "{%- set words = 'You can call tools. Each line is one of them, as JSON:\\n<tools>\\n' + told.tools + "
    "'</tools>\\nTo call a tool, answer with its name and its arguments as JSON:\\n<tool_call>\\n"
    '{"name": NAME, "arguments": {...}}\\n</tool_call>\\nWithout need of a tool, answer in words.\' -%}'
    "{%- set system = system + '\\n\\n' + words if system else words -%}"
    "{%- endif -%}"
    "{%- if system -%}{%- set told.turns = [{'role': 'system', 'content': system}] -%}{%- endif -%}"
)
_TOLD_AS_FIELD = (
    "{%- if tools -%}"
    "{%- set told.turns = [{'role': 'system', 'content': system, 'tools': told.list | tojson}] -%}"
    "{%- elif system -%}{%- set told.turns = [{'role': 'system', 'content': system}] -%}{%- endif -%}"
)
_EACH_CALL = (
    "{%- set said = namespace(text=message['content'] or '', calls=[]) -%}"
    "{%- for call in message['tool_calls'] -%}"
    "{%- set one = {'name': call['function']['name'], 'arguments': call['function']['arguments']} -%}"
    "{%- set said.calls = said.calls + [one] -%}"
    "{%- endfor -%}"
)
_CALLS_BETWEEN_MARKS = (
    "{%- for one in said.calls -%}"
    "{%- set said.text = said.text + ('\\n' if said.text else '') + '<tool_call>\\n' + (one | tojson) + "
    "'\\n</tool_call>' -%}"
    "{%- endfor -%}"
)
_CALLS_AS_LIST = (
    "{%- set said.text = said.text + '<|tool_call|>' + (said.calls | tojson) + '<|/tool_call|>' -%}"
)
_RESULT_OF_USER = (
    "{%- set result = '<tool_response>\\n' + message['content'] + '\\n</tool_response>' -%}"
    "{%- if loop.previtem is defined and loop.previtem['role'] == 'tool' -%}"
    "{%- set joined = told.turns[-1]['content'] + '\\n' + result -%}"
    "{%- set told.turns = told.turns[:-1] + [{'role': 'user', 'content': joined}] -%}"
    "{%- else -%}{%- set told.turns = told.turns + [{'role': 'user', 'content': result}] -%}{%- endif -%}"
)
_RESULT_OF_TOOL = "{%- set told.turns = told.turns + [{'role': 'tool', 'content': message['content']}] -%}"


def _rendering(tell: str, call: str, result: str) -> str:
    """Jinja that turns messages with tools into messages without them, for the template behind it."""
    return (
        f"{_BEGIN}{{%- if tools or messages | selectattr('role', 'equalto', 'tool') | list "
        "or messages | selectattr('tool_calls') | list -%}"
        f"{_FUNCTIONS}{_SYSTEM}{tell}"
        "{%- for message in messages -%}"
        f"{{%- if message['role'] == 'tool' -%}}{result}"
        f"{{%- elif message['tool_calls'] -%}}{_EACH_CALL}{call}"
        "{%- set told.turns = told.turns + [{'role': 'assistant', 'content': said.text}] -%}"
        "{%- else -%}{%- set told.turns = told.turns + [message] -%}{%- endif -%}"
        f"{{%- endfor -%}}{{%- set messages = told.turns -%}}{{%- set tools = none -%}}{{%- endif -%}}{_END}"
    )


_IN_WORDS = _rendering(_TOLD_IN_WORDS, _CALLS_BETWEEN_MARKS, _RESULT_OF_USER)
_AS_FIELD = _rendering(_TOLD_AS_FIELD, _CALLS_AS_LIST, _RESULT_OF_TOOL)


def with_tools(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The tokenizer's template, with our rendering in front unless it renders tools, calls and results."""
    own = str(tokenizer.chat_template)
    if is_ours(own) or _says(tokenizer, own, _FIRST, tools=[_TOOL]):
        return own
    if _says(tokenizer, own, [{"role": "system", "content": "", "tools": _NAME}, *_FIRST[:1]], also=(_NAME,)):
        return _AS_FIELD + own
    return _IN_WORDS + own


def is_ours(template: str) -> bool:
    return template.startswith(_BEGIN)


def without_ours(template: str) -> str:
    """The template behind our rendering."""
    return template.partition(_END)[2] if is_ours(template) else template


def marks_of(template: str) -> tuple[str, ...]:
    """The words that our rendering gives a meaning, which no text may hold."""
    return MARKS if template.startswith(_IN_WORDS) else ()


_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {"name": _NAME, "description": _TOLD, "parameters": {"type": "object", "properties": {}}},
}


def calling(*arguments: Any) -> Mapping[str, Any]:
    """An assistant's turn that calls the probe function with each of the arguments."""
    calls = [
        {
            "id": f"call0000{at}",
            "type": "function",
            "function": {"name": f"{_NAME}{at}", "arguments": each},
        }
        for at, each in enumerate(arguments)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


_FIRST: Sequence[Mapping[str, Any]] = (
    {"role": "user", "content": "probe-question"},
    calling(_ARGUMENTS),
    {"role": "tool", "tool_call_id": "call00000", "name": f"{_NAME}0", "content": _RESULT},
)


def _says(
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    also: Sequence[str] = (_TOLD, f"{_NAME}0", "argument", _RESULT),
) -> bool:
    """Whether a rendering has all these words; not if the template refuses or fails."""
    try:
        text = str(
            tokenizer.apply_chat_template(list(messages), tools=tools, chat_template=template, tokenize=False)
        )
    except Exception:  # a template can fail in any way
        return False
    return all(word in text for word in also)
