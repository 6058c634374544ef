"""Questions for an empty page, from the run's own data."""

from itertools import islice
from pathlib import Path

import streamlit as st

from phi3flow.core.jsonl import lines_of, parse_object, read_jsonl
from ui.rendering import label

ASKED = "sample question"  # session key: the question whose button was pressed
COUNT, CHARACTERS = 3, 120  # of the questions, and the most of each
LINES = 200  # of a data file that are looked at: the page must not wait for a large one


def offer_samples(run: Path) -> None:
    """A button for each question; `asked_sample` tells which was pressed."""
    for question in sample_questions(run):
        st.button(label(question), on_click=st.session_state.update, args=({ASKED: question},))


def asked_sample() -> str:
    return str(st.session_state.pop(ASKED, ""))


def sample_questions(run: Path) -> list[str]:
    """`samples.jsonl` of the run, or the first short prompts of its validation, test or training data."""
    samples = run / "samples.jsonl"
    if samples.is_file():
        return [row["question"] for row in read_jsonl(samples)]
    files = [run / "data" / f"{split}.jsonl" for split in ("val", "test", "train")]
    found = [question for path in files if path.is_file() for question in _asked_first(path)]
    return list(dict.fromkeys(found))[:COUNT]


def _asked_first(path: Path) -> list[str]:
    """The first question of each chat, where it is short."""
    rows = [parse_object(line) for line in islice(lines_of(path), LINES) if line.strip()]
    asked = [
        next((turn["content"] for turn in row["messages"] if turn["role"] == "user"), "") for row in rows
    ]
    return [question for question in asked if 0 < len(question) <= CHARACTERS]
