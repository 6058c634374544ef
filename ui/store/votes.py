"""The arena's votes in `preferences.jsonl`: `phi3flow verdict` counts them, TRL's DPO trains on them."""

import fcntl
import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.core.jsonl import to_line
from ui.store.database import OWNER_ALONE

if TYPE_CHECKING:
    from evaluation.statistics.win_rate import WinRate


def append_vote(
    path: Path, ballot: str, question: str, answers: Mapping[str, str], vote: str, *, system: str = ""
) -> None:
    """Append one line and sync it to disk; ignores a second vote on the same ballot.

    `answers` are those of base and tuned, the left one first; `vote` is base, tuned, tie or both_bad. Takes a
    lock, because several servers may write the file. If a crash left half a line, the new one starts on its
    own line, so that readers can report the broken one by number.
    """
    asked = [{"role": "system", "content": system}] if system else []
    prompt = [*asked, {"role": "user", "content": question}]
    row = to_line(_row(ballot, prompt, answers, vote))
    with path.open("a+b", buffering=0) as stream:
        with suppress(PermissionError):  # it is another person's
            os.fchmod(stream.fileno(), OWNER_ALONE)
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        content = stream.read()
        if ballot in _votes_in(content):
            return
        stream.write(row if not content or content.endswith(b"\n") else b"\n" + row)
        os.fsync(stream.fileno())


def vote_on(path: Path, ballot: str) -> str | None:
    """The vote on this ballot, or None. Reads what was appended since the last call, and no line twice."""
    seen = _seen.setdefault(path, _Seen())
    with seen.lock:
        seen.read(path)
        return seen.votes.get(ballot)


class _Seen:
    """The votes of a file up to `offset`, by ballot."""

    def __init__(self) -> None:
        self.lock, self.offset, self.votes = threading.Lock(), 0, dict[str, str]()

    def read(self, path: Path) -> None:
        size = path.stat().st_size if path.exists() else 0
        if size < self.offset:  # another file of this name
            self.offset, self.votes = 0, {}
        if size > self.offset:
            with path.open("rb") as stream:
                stream.seek(self.offset)
                content = stream.read()
            whole = content[: content.rfind(b"\n") + 1]
            self.offset += len(whole)
            self.votes |= _votes_in(whole)


_seen: dict[Path, _Seen] = {}


def _votes_in(content: bytes) -> dict[str, str]:
    """The votes by ballot; leaves out what is no row, which `phi3flow verdict` names."""
    votes = {}
    for line in content.splitlines():
        try:
            row = json.loads(line)
            votes[row["id"]] = str(row["vote"])
        except (ValueError, LookupError, TypeError):
            continue
    return votes


def score_of(path: Path) -> "WinRate | None":
    """How often tuned was preferred, as `phi3flow verdict` counts. Raises BadInput for a broken file.

    Counts again when the file has changed, not at each call.
    """
    if not path.exists():
        return None
    state = path.stat()
    return _score(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _score(path: Path, changed: int, size: int) -> "WinRate":
    from evaluation.statistics.win_rate import win_rate
    from evaluation.verdict.preference_file import load_judgments

    return win_rate(load_judgments(path).preferences)


def _row(
    ballot: str, prompt: list[dict[str, str]], answers: Mapping[str, str], vote: str
) -> dict[str, object]:
    """`prompt`, `chosen` and `rejected` are lists of messages, as TRL reads them."""
    base, tuned = ([{"role": "assistant", "content": answers[model]}] for model in ("base", "tuned"))
    return {
        "id": ballot,
        "prompt": prompt,
        "chosen": {"base": base, "tuned": tuned}.get(vote),
        "rejected": {"base": tuned, "tuned": base}.get(vote),
        "vote": vote,
        "left": next(iter(answers)),
        "base_chars": len(answers["base"]),
        "tuned_chars": len(answers["tuned"]),
    }
