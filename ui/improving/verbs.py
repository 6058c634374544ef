"""The commands of a terminal, asked by the page: what they tell, or their error with its repair."""

import json
import subprocess
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from phi3flow.core.child_process import module_command, without_keys
from phi3flow.core.served_model import IMPROVEMENTS, PROMOTIONS
from ui.store.records import DATABASE, VOTES

ERROR, HINT = "error: ", "hint: "


class Told(NamedTuple):
    """What a command printed with `--json`; empty where it failed, which `error` and `hint` explain."""

    data: dict[str, Any]
    error: str = ""
    hint: str = ""


def ask_verb(*words: object) -> Told:
    """Run `phi3flow WORDS --json` to its end, without any of our keys."""
    done = subprocess.run(
        module_command("phi3flow", *words, "--json"),
        env=without_keys(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stdout:
        return Told(json.loads(done.stdout))
    return Told({}, *explained(done.stderr.splitlines()))


def explained(lines: Iterable[str]) -> tuple[str, str]:
    """The first error of a command's output, which may have several lines, and its hint."""
    error: list[str] = []
    for line in lines:
        if line.startswith(HINT) and error:
            return "\n".join(error), line.removeprefix(HINT)
        if line.startswith(ERROR) or error:
            error.append(line.removeprefix(ERROR))
    return "\n".join(error), ""


def plan(run: Path, options: Sequence[str]) -> Told:
    """What there is to learn from and what it would take; asked again once something of it has changed."""
    names = (DATABASE, f"{DATABASE}-wal", VOTES, PROMOTIONS, "data/test.jsonl", IMPROVEMENTS)
    told = _plan(run, tuple(options), tuple(_changed(run / name) for name in names))
    if told.error:
        _plan.cache_clear()  # what is wrong may be repaired elsewhere
    return told


@lru_cache(maxsize=8)
def _plan(run: Path, options: tuple[str, ...], states: tuple[int, ...]) -> Told:
    return ask_verb("improve", run, *options)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
