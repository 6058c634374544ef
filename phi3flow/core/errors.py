"""The errors a user can repair.

    Phi3flowError         what went wrong, where, and the command that repairs it     exit 1
    └── BadInput          the user's file, recipe or argument is at fault             exit 2

The contract module is copied into flow folders and so cannot import this one; its `EndpointError` carries
the same two attributes, `hint` and `exit_code`. The command line treats every exception that carries a
`hint` alike: one sentence, no traceback. Anything else is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class Phi3flowError(Exception):
    """An error the user can repair; `hint` names the command or edit that does."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadInput(Phi3flowError):
    """What the user gave cannot be used. Nothing was written."""

    exit_code = 2


def first_line(error: Exception) -> str:
    """What a library said, without its further lines; its type where it said nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """Say what exists and which of it comes nearest to `name`, for an error's hint."""
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1)
    return (f"did you mean '{match[0]}'? " if match else "") + "known: " + ", ".join(names)
