"""What people write in TOML, held against a pydantic model: everything that is wrong, at once."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from phi3flow.core.errors import BadInput, nearest

T = TypeVar("T")


def read_toml(path: Path, hint: str = "") -> dict[str, Any]:
    """Raises BadInput for a file that cannot be read, is not UTF-8 or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}", hint="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: not valid TOML: {error}", hint=hint or f"edit {path}") from error


def validated(kind: type[T], values: Mapping[str, Any], source: str, *, hint: str = "") -> T:
    """`values` as a `kind`. Raises BadInput with one `source: field: what` for each problem."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise BadInput(
            "\n".join(f"{source}: {problem}" for problem in problems_of(kind, error)), hint=hint
        ) from None


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
    message = str(found["msg"]).removeprefix("Value error, ")
    told = message[0].lower() + message[1:]
    return told if found["type"] in {"missing", "value_error"} else f"{found['input']!r}: {told}"


def _known(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The names that `kind`, or the section of it at `path`, has."""
    from typing import get_args, get_type_hints

    for part in path:
        hint = get_type_hints(kind)[str(part)]
        kind = next((option for option in get_args(hint) if isinstance(option, type)), hint)
    return list(get_type_hints(kind))
