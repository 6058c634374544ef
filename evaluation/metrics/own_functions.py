"""The user's own metrics inside the grader child: their files are imported, their functions are called.

The request has `functions`: for each metric its `name`, its `file`, what it `takes` (ASKED unless that is
said) and `seconds`, the longest that one call may take; an import may take `IMPORT_SECONDS`. Metrics are
asked one after the other, each about every answer in the order of the file, so that the first grade that is
missing tells where the process ended. Standard library only: what a function needs, its file imports.
"""

import faulthandler
import importlib.util
import inspect
import json
import math
import numbers
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

OWN = "own"
ASKED = ("question", "answer", "reference")
IMPORT_SECONDS = 120.0
SHOWN = 200  # characters of a value or an error that a message shows
Function = Callable[..., Any]


def own_grades(request: Mapping[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """The head with the metrics that cannot be called; if all can, then the grade of each answer."""
    modules: dict[str, ModuleType | str] = {}
    found: dict[str, Function | str] = {}
    for spec in request["functions"]:
        path = spec["file"]
        if path not in modules:
            with _no_longer_than(IMPORT_SECONDS):
                modules[path] = _module(Path(path))
        found[spec["name"]] = _function(modules[path], spec["name"], spec.get("takes", ASKED))
    broken = {name: why for name, why in found.items() if isinstance(why, str)}
    yield {"package": "", "unavailable": broken}
    for spec in request["functions"] if not broken else ():
        with (folder / "answers.jsonl").open(encoding="utf-8") as answers:
            for answer in map(json.loads, answers):
                yield _graded(spec, found[spec["name"]], answer)


def _module(path: Path) -> ModuleType | str:
    """The file as a module, its folder last in the search for what it imports; or why there is none."""
    sys.path.append(str(path.parent))
    found = importlib.util.spec_from_file_location(f"own_metrics_{path.stem}", path)
    if found is None or found.loader is None:
        return "is no file of Python"
    module = importlib.util.module_from_spec(found)
    sys.modules[module.__name__] = module
    try:
        found.loader.exec_module(module)
    except SyntaxError as error:
        return f"cannot be imported: line {error.lineno}: {error.msg}"
    except BaseException as error:  # the file may even end the process
        return f"cannot be imported: {_told(error, path)}"
    return module


def _function(module: ModuleType | str, name: str, takes: Sequence[str]) -> Function | str:
    """The function of these arguments, or why it cannot be called."""
    if isinstance(module, str):
        return module
    function = getattr(module, name, None)
    if not callable(function):
        own = [
            one
            for one, value in vars(module).items()
            if inspect.isfunction(value) and not one.startswith("_")
        ]
        return f"has no function {name}; it has: {', '.join(own) or 'none'}"
    try:
        inspect.signature(function).bind(*takes)
    except TypeError as error:
        return f"{name} cannot take {', '.join(takes)}: {error}"
    except ValueError:  # a function of C without a signature: the first call will tell
        pass
    return function


def _graded(spec: Mapping[str, Any], function: Any, answer: Mapping[str, Any]) -> dict[str, Any]:
    name, grade, errors = spec["name"], None, {}
    try:
        with _no_longer_than(spec["seconds"]):
            given = function(*(answer[field] for field in spec.get("takes", ASKED)))
        grade = _number(given)
        if grade is None:
            errors[name] = f"returned {_short(repr(given))}"
    except BaseException as error:  # also what would end the process
        errors[name] = f"raised {_told(error, Path(spec['file']))}"
    return {"line": answer["line"], "side": answer["side"], "grades": {name: grade}, "errors": errors}


def _number(given: Any) -> float | None:
    """A finite number or a bool, also one of NumPy's; None for anything else."""
    if type(given).__name__ in {"bool", "bool_"}:
        return float(bool(given))
    if not isinstance(given, numbers.Real):
        return None
    try:
        number = float(given)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """End the process after `seconds`, with the place where it then is in the log.

    By a thread of the interpreter that needs no lock: it also ends a call that never returns to Python.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _told(error: BaseException, path: Path) -> str:
    """An error in one line, with the last line of the user's file that led to it."""
    places = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    line = f" (line {places[-1]})" if places else ""
    text = " ".join(str(error).split())
    return _short(f"{type(error).__name__}: {text}" if text else type(error).__name__) + line


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
