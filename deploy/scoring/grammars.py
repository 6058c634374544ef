"""What an answer is held to, as a grammar of llguidance: JSON of a schema, or calls of tools.

llguidance's Lark: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from phi3flow.chats.call_form import CallForm

WHITE_SPACE = " ?"  # between the parts of JSON: with more, a small model may never come to an end
_JSON_RULES: Any = {"whitespace_pattern": WHITE_SPACE}


def json_grammar(schema: Mapping[str, Any]) -> str:
    from llguidance import LLMatcher

    return str(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON_RULES))


def tool_grammar(
    form: CallForm,
    tools: Mapping[str, Mapping[str, Any]],
    tokens: Mapping[str, int],
    *,
    most: int,
    words: bool,
    schema: Mapping[str, Any] | None = None,
) -> str:
    """Up to `most` calls of `tools`, which are schemas of arguments by name.

    With `words` an answer may have none, and words before the first; with `schema` too, those words are JSON
    instead, without any call. `tokens` are the ids of the template's own tokens.
    """
    from llguidance import LLMatcher

    rest = form.head.removeprefix(form.opening)
    between = f"({_literal(form.between, tokens)} call){{0,{most - 1}}}"
    rules = [
        _start(form, tokens, words=words, schema=schema),
        f"calls: {_literal(form.opening, tokens)} behind",
        f"behind: {_literal(rest, tokens)} call {between if most > 1 else ''} {_literal(form.tail, tokens)}",
        f"call: {' | '.join(f'call{at}' for at in range(len(tools)))}",
    ]
    for at, (name, parameters) in enumerate(tools.items()):
        schema_of_call = json.dumps(_closed(parameters) | {"x-guidance": _JSON_RULES})
        rules.append(f"call{at}: {_literal(name + form.middle, tokens)} %json {schema_of_call}")
    return str(LLMatcher.grammar_from_lark("\n".join(rules)))


def _closed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object; arguments that it does not name are none, unless it says so."""
    combined = parameters.keys() & {"$ref", "anyOf", "oneOf"}
    closed = {} if combined else {"additionalProperties": False}
    return {"type": "object", **closed, **parameters}


def _start(
    form: CallForm, tokens: Mapping[str, int], *, words: bool, schema: Mapping[str, Any] | None
) -> str:
    if not words:
        return "start: calls"
    if schema is not None:
        return f"start: calls | %json {json.dumps(dict(schema) | {'x-guidance': _JSON_RULES})}"
    opening = _pattern(form.opening)
    if form.opening in tokens:  # which no pattern matches
        return "start: WORDS? calls?\nWORDS: /(?s:.+)/"
    if form.opening == form.head:  # it looks like other JSON, so it is one at the start of the answer only
        return f"start: WORDS | calls\nWORDS: /(?s:.*)/ & ~/{opening}(?s:.*)/"
    return (
        f"start: WORDS | lead behind\nlead[lazy]: /(?s:.*){opening}/\n"
        f"WORDS: /(?s:.*)/ & ~/(?s:.*){opening}(?s:.*)/"
    )


def _literal(text: str, tokens: Mapping[str, int]) -> str:
    """The text in Lark: strings, and tokens by their numbers."""
    known = sorted((token for token in tokens if token and token in text), key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, known))})", text) if known else [text]
    told = [
        f"<[{tokens[part]}]>" if part in tokens else json.dumps(part, ensure_ascii=False)
        for part in parts
        if part
    ]
    return " ".join(told) or '""'


def _pattern(text: str) -> str:
    """A regular expression for the text itself, in Rust's syntax."""
    return "".join(each if each.isascii() and each.isalnum() else f"\\x{{{ord(each):x}}}" for each in text)
