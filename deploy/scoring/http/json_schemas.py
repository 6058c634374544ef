"""Which JSON schemas an answer can be held to: those of keywords that every engine enforces.

The others are refused by name. An answer that breaks a keyword in silence would be worse than none.
"""

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic_core import PydanticCustomError

MAX_PARTS, MAX_VALUES, MAX_DEPTH = 1000, 1000, 32  # schemas within a schema, values of all enums, nesting
MAX_NODES = 20_000  # of JSON: looking at a schema with more takes seconds
MANY = 1000  # characters or items that a schema may ask for; more make a grammar that is slow
LISTS = {"enum", "required"}
NAMED, LISTED, SINGLE = (
    {"properties", "$defs", "definitions"},
    {"anyOf", "oneOf"},
    {"items", "additionalProperties"},
)
COUNTS = {"minLength", "maxLength", "minItems", "maxItems"}
BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
ENFORCED = {"type", "enum", "const", "required", "pattern", "format", "$ref"} | COUNTS | BOUNDS
NOTES = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"} | {
    "$schema",
    "$id",
    "$comment",
}
FORMATS = {"date", "time", "date-time", "uuid", "email", "ipv4"}


def enforceable(schema: dict[str, Any]) -> dict[str, Any]:
    """For a field of a body: `schema` itself. Raises PydanticCustomError with its problem."""
    if problem := problem_of(schema):
        raise PydanticCustomError("schema", "{problem}", {"problem": problem})
    return schema


def problem_of(schema: Any) -> str | None:
    """Why no answer can be held to `schema`; None where one can, as far as its keywords say."""
    if has_more_than(MAX_NODES, schema):
        return f"has more than {MAX_PARTS} parts or {MAX_VALUES} values, or is deeper than {MAX_DEPTH}"
    if problem := _too_large(schema):  # first: to check a part takes a quarter of a millisecond
        return problem
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"is no JSON schema: {error.json_path}: {error.message[:200]}"
    except RecursionError:
        return "is nested too deeply"
    return next(
        (f"{path}: {problem}" for path, part, _ in _parts(schema) if (problem := _problem(part))), None
    )


def _too_large(schema: Any) -> str | None:
    values = 0
    for parts, (path, part, depth) in enumerate(_parts(schema), 1):
        values += sum(len(part[name]) for name in LISTS & part.keys() if isinstance(part[name], list))
        if depth > MAX_DEPTH or parts > MAX_PARTS or values > MAX_VALUES:
            return f"has more than {MAX_PARTS} parts or {MAX_VALUES} values, or is deeper than {MAX_DEPTH}"
        if len(str(part.get("pattern", ""))) > MANY:
            return f"{path}.pattern: more than {MANY} characters"
    return None


def has_more_than(nodes: int, value: Any) -> bool:
    """Whether a JSON value has more values in it. Stops there."""
    waiting = [value]
    while waiting and nodes >= 0:
        nodes -= 1
        each = waiting.pop()
        waiting += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
    return nodes < 0


def _parts(schema: Any, path: str = "$", depth: int = 0) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Each schema within `schema` with its path and depth, itself first; true and false have no parts.

    What has another shape than a schema's is left to `check_schema`.
    """
    if not isinstance(schema, dict):
        return
    yield path, schema, depth
    for keyword, value in schema.items():
        inner: dict[str, Any] = {}
        if keyword in NAMED and isinstance(value, dict):
            inner = {f"{keyword}.{name}": each for name, each in value.items()}
        elif keyword in LISTED and isinstance(value, list):
            inner = {f"{keyword}[{at}]": each for at, each in enumerate(value)}
        elif keyword in SINGLE:
            inner = {keyword: value}
        for step, each in inner.items():
            yield from _parts(each, f"{path}.{step}", depth + 1)


def _problem(part: dict[str, Any]) -> str | None:
    unknown = sorted(part.keys() - NAMED - LISTED - SINGLE - ENFORCED - NOTES)
    if unknown:
        return f"answers cannot be held to '{unknown[0]}'"
    if "format" in part and part["format"] not in FORMATS:
        return f"the format '{part['format']}' is none of {', '.join(sorted(FORMATS))}"
    if any(part.get(name, 0) > MANY for name in COUNTS):
        return f"more than {MANY} characters or items"
    return None
