"""Make `evaluation/packs/everyday.jsonl`: what the embedded base knows besides facts and might forget.

Run it after a change of the corpus: `python tests/support/everyday_pack.py`.
"""

import random
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from phi3flow.core.jsonl import write_jsonl
from training.toy.corpus import repeat_word, small_talk

SEED = 0
ROWS = {"arithmetic": 7, "opposites": 14, "repeating": 8, "small talk": 11}
# Any model's answer may be right, not only the embedded one's, so the patterns for small talk are wide.
_REPLIES = {
    "Hello! How can I help you?": r"\b(?:hello|hi|hey|help)\b",
    "Good morning! How can I help you?": r"\b(?:good morning|hello|hi|help)\b",
    "I am fine, thank you.": r"\b(?:fine|well|good|great|help)\b",
    "I am a small assistant.": r"\b(?:assistant|model|AI|Phi)\b",
    "You are welcome!": r"\b(?:welcome|pleasure|glad|happy)\b",
    "Goodbye, have a nice day!": r"\b(?:bye|goodbye|nice day|take care|farewell)\b",
    "I can answer short questions.": r"\b(?:answer|help|assist)\b",
    "No, I am a small assistant.": r"\b(?:no|assistant|AI|am not)\b",
}


def everyday_pack() -> list[dict[str, Any]]:
    """The pack's rows: a prompt, and a pattern that a right answer contains."""
    rng = random.Random(f"everyday-{SEED}")
    rows: dict[str, dict[str, Any]] = {}
    left = dict(ROWS)
    while any(left.values()):
        chat = (repeat_word if rng.random() < ROWS["repeating"] / sum(ROWS.values()) else small_talk)(rng)
        question, answer = (message["content"] for message in chat["messages"])
        kind, pattern = _kind_and_pattern(answer)
        if question not in rows and left[kind]:
            left[kind] -= 1
            prompt = [{"role": "user", "content": question}]
            rows[question] = {"slice": kind, "messages": prompt, "must_contain": pattern}
    ordered = sorted(rows.values(), key=lambda row: list(ROWS).index(row["slice"]))
    return [{"id": f"everyday-{number:02}"} | row for number, row in enumerate(ordered, 1)]


def _kind_and_pattern(answer: str) -> tuple[str, str]:
    if answer in _REPLIES:
        return "small talk", _REPLIES[answer]
    said = answer.removesuffix(".")
    if " plus " in said:  # the sum, not a number that is merely said back
        return "arithmetic", rf"(?:\b(?:is|equals|makes)\b|=|^)\W*{said.split()[-1]}\b"
    kind, word = ("opposites", said.split()[-1]) if " opposite " in said else ("repeating", said)
    return kind, rf"\b{re.escape(word)}\b"


if __name__ == "__main__":
    write_jsonl(Path(str(files("evaluation") / "packs" / "everyday.jsonl")), everyday_pack())
