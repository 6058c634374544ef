"""Errors that a user can repair.

    Phi3flowError         what went wrong, where, and the command that repairs it     exit 1
    └── BadInput          the user's file, recipe or argument is wrong                exit 2

The contract module is copied into flow folders and cannot import this one; its `EndpointError` has the same
attributes `hint` and `exit_code`. The command line prints any exception with a `hint` as one sentence and no
traceback. Every other exception is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager


class Phi3flowError(Exception):
    """An error that the user can repair; `hint` is the command or edit that repairs it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadInput(Phi3flowError):
    """The user's input cannot be used. Nothing was written."""

    exit_code = 2


@contextmanager
def translating(table: Mapping[type[Exception], Callable[[Exception], Exception]]) -> Iterator[None]:
    """Turn a library's errors into ours with the first type in `table` that matches.

    An error that has a `hint` or matches no type passes unchanged; so does one whose function in `table`
    returns it as it is.
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
    """The first line of an error's message; its type's name if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names and the one nearest to `name`, for an error's hint."""
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1)
    return (f"did you mean '{match[0]}'? " if match else "") + "known: " + ", ".join(names)
