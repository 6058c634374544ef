"""The arena's votes in `preferences.jsonl`: `phi3flow verdict` counts them, TRL's DPO trains on them."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.core.jsonl import to_line

if TYPE_CHECKING:
    from evaluation.statistics.win_rate import WinRate


def append_vote(path: Path, ballot: str, question: str, answers: Mapping[str, str], vote: str) -> None:
    """Append one line and sync it to disk; ignores a second vote on the same ballot.

    `answers` are those of base and tuned, the left one first; `vote` is base, tuned, tie or both_bad. Takes a
    lock, because several servers may write the file. If a crash left half a line, the new one starts on its
    own line, so that readers can report the broken one by number.
    """
    row = to_line(_row(ballot, question, answers, vote))
    with path.open("a+b", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        content = stream.read()
        if _vote_in(content, ballot):
            return
        stream.write(row if not content or content.endswith(b"\n") else b"\n" + row)
        os.fsync(stream.fileno())


def vote_on(path: Path, ballot: str) -> str | None:
    """The vote on this ballot, or None."""
    return _vote_in(path.read_bytes(), ballot) if path.exists() else None


def _vote_in(content: bytes, ballot: str) -> str | None:
    for line in content.splitlines():
        if ballot.encode() in line:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row.get("id") == ballot:
                return str(row.get("vote"))
    return None


def score_of(path: Path) -> "WinRate | None":
    """How often tuned was preferred, as `phi3flow verdict` counts. Raises BadInput for a broken file."""
    from evaluation.statistics.win_rate import win_rate
    from evaluation.verdict.preference_file import load_judgments

    return win_rate(load_judgments(path).preferences) if path.exists() else None


def _row(ballot: str, question: str, answers: Mapping[str, str], vote: str) -> dict[str, object]:
    """`prompt`, `chosen` and `rejected` are lists of messages, as TRL reads them."""
    base, tuned = ([{"role": "assistant", "content": answers[model]}] for model in ("base", "tuned"))
    return {
        "id": ballot,
        "prompt": [{"role": "user", "content": question}],
        "chosen": {"base": base, "tuned": tuned}.get(vote),
        "rejected": {"base": tuned, "tuned": base}.get(vote),
        "vote": vote,
        "left": next(iter(answers)),
        "base_chars": len(answers["base"]),
        "tuned_chars": len(answers["tuned"]),
    }
