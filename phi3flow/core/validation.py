"""Check what people write in TOML against a pydantic model: everything that is wrong, at once."""

import contextlib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from phi3flow.core.errors import BadInput, nearest
from phi3flow.core.text_files import read_text

T = TypeVar("T")
NO_RULES: Mapping[str, Callable[[Any], bool]] = MappingProxyType({})


def read_toml(path: Path, hint: str = "") -> dict[str, Any]:
    """Raises BadInput for a file that cannot be read, is neither UTF-8 nor UTF-16, or is not TOML."""
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}", hint="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: not valid TOML: {error}", hint=hint or f"edit {path}") from error


def validated(
    kind: type[T],
    values: Mapping[str, Any],
    source: str,
    *,
    hint: str = "",
    rules: Mapping[str, Callable[[Any], bool]] = NO_RULES,
) -> T:
    """`values` as a `kind`. Raises BadInput with one `source: field: what` for each problem.

    `rules` say how fields must fit together: the message, formatted with the values, and a function that is
    false if they do not. A rule is checked if all the fields that it uses are valid, whatever the others are.
    """
    problems: list[str] = []
    checked: Any = None
    try:
        result = checked = TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problems += problems_of(kind, error)
        checked = _valid_part(kind, values, {found["loc"] for found in error.errors(include_url=False)})
    problems += _broken(rules, checked)
    if problems:
        raise BadInput("\n".join(f"{source}: {problem}" for problem in problems), hint=hint)
    return result


def _broken(rules: Mapping[str, Callable[[Any], bool]], values: Any) -> Iterator[str]:
    for message, holds in rules.items():
        with contextlib.suppress(AttributeError):  # a field that the rule uses is not valid
            if not holds(values):
                yield message.format(values)


def _valid_part(kind: Any, values: Mapping[str, Any], wrong: set[tuple[int | str, ...]]) -> SimpleNamespace:
    """The fields of `kind` that are valid, given or by default; the others are no attributes."""
    part = {}
    for name, field in kind.__pydantic_fields__.items():
        below = {place[1:] for place in wrong if place[0] == name}
        if () in below:
            continue
        if isinstance(values.get(name), Mapping):
            part[name] = _valid_part(_section(field.annotation), values[name], below)
        elif name in values:
            part[name] = values[name]
        elif not field.is_required():
            part[name] = field.get_default(call_default_factory=True)
    return SimpleNamespace(**part)


def problems_of(kind: Any, error: ValidationError) -> Iterable[str]:
    """Each of pydantic's findings as `field: what`, with the nearest known name for an unknown one."""
    for found in error.errors(include_url=False):
        field = ".".join(str(part) for part in found["loc"])
        yield f"{field}: {_what(kind, found)}" if field else _what(kind, found)


def _what(kind: Any, found: Any) -> str:
    if found["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return f"unknown ({nearest(str(found['loc'][-1]), _known(kind, found['loc'][:-1]))})"
    if found["type"] == "literal_error":
        known = [choice.strip("'") for choice in found["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        return f"unknown {found['input']!r} ({nearest(str(found['input']), known)})"
    if found["type"] == "missing":
        return f"missing ({_field(kind, found['loc']).description})"
    message = str(found["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    told = message[0].lower() + message[1:]
    return told if found["type"] == "value_error" else f"{told}, not {found['input']!r}"


def _known(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The names that `kind`, or its section at `path`, has."""
    return list((_section(_field(kind, path).annotation) if path else kind).__pydantic_fields__)


def _field(kind: Any, path: tuple[int | str, ...]) -> FieldInfo:
    """The field of `kind` at `path`."""
    for part in path[:-1]:
        kind = _section(kind.__pydantic_fields__[part].annotation)
    found: FieldInfo = kind.__pydantic_fields__[path[-1]]
    return found


def _section(annotation: Any) -> Any:
    """The class of a section that may be optional."""
    options = (annotation, *get_args(annotation))
    return next(option for option in options if hasattr(option, "__pydantic_fields__"))
