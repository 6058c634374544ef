"""The errors a user can repair.

    Phi3flowError         what went wrong, where, and the command that repairs it     exit 1
    └── BadInput          the user's file, recipe or argument is at fault             exit 2

The contract module is copied into flow folders and so cannot import this one; its `EndpointError` carries
the same two attributes, `hint` and `exit_code`. The command line treats every exception that carries a
`hint` alike: one sentence, no traceback. Anything else is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager


class Phi3flowError(Exception):
    """An error the user can repair; `hint` names the command or edit that does."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadInput(Phi3flowError):
    """What the user gave cannot be used. Nothing was written."""

    exit_code = 2


@contextmanager
def translating(table: Mapping[type[Exception], Callable[[Exception], Exception]]) -> Iterator[None]:
    """Turn a library's errors into ours: the first type in `table` that matches makes the error to raise.

    An error that already carries a `hint` passes unchanged, and so does one that no type matches: a bug.
    A maker that returns the very error it was given passes it on as well.
    """
    try:
        yield
    except Exception as error:
        if hasattr(error, "hint"):
            raise
        make = next((make for kind, make in table.items() if isinstance(error, kind)), None)
        ours = make(error) if make else error
        if ours is error:
            raise
        raise ours from error


def first_line(error: Exception) -> str:
    """What a library said, without its further lines; its type where it said nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """Say what exists and which of it comes nearest to `name`, for an error's hint."""
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1)
    return (f"did you mean '{match[0]}'? " if match else "") + "known: " + ", ".join(names)
