"""What people said, what of it can be learned, and why the rest cannot."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import streamlit as st

from ui.rendering import label

KINDS = {"chats": "Good and corrected answers", "preferences": "Preferences", "thumbs": "Thumbs"}
MEANINGS = {
    "preferences": "Which of two answers is better: votes, corrections, thumbs on answers to one question.",
    "thumbs": "Which answers are good, and which are not: thumbs up and down.",
    "chats": "What to answer: answers with a thumb up and corrected ones, together with the run's own chats.",
}
COUNTED = {
    "votes": "Votes",
    "thumbs up": "Thumbs up",
    "thumbs down": "Thumbs down",
    "corrected answers": "Corrections",
    "comments": "Comments",
}


class Chosen(NamedTuple):
    """The options of `phi3flow improve`; an empty recipe is the one that fits the model."""

    kind: str
    replace_personal: bool
    recipe: str

    def options(self) -> list[str]:
        recipe = [f"--recipe={self.recipe}"] if self.recipe else []
        return ["--kind", self.kind, *["--replace-personal"] * self.replace_personal, *recipe]


def choose() -> Chosen:
    """What to learn from, and how."""
    kind = st.segmented_control(
        "Learn from", list(KINDS), format_func=lambda kind: KINDS[kind], default="chats", required=True
    )
    kind = kind or "chats"
    st.caption(MEANINGS[kind])
    replace = st.toggle(
        "Replace personal data",
        help="E-mail addresses, phone and card numbers, keys, and some names: a pattern misses most.",
    )
    recipe = st.text_input("Recipe", placeholder="the one that fits the model, or a name, or a TOML file")
    return Chosen(kind, replace, recipe.strip())


def show_said(said: Mapping[str, int]) -> None:
    for column, (name, title) in zip(st.columns(len(COUNTED)), COUNTED.items(), strict=True):
        column.metric(title, said.get(name, 0))


def show_rows(told: Mapping[str, Any], *, replaced: bool) -> None:
    """The rows that would be learned, and what is left out."""
    counts = [{"rows": f"from {source}", "number": count} for source, count in told["from"].items()]
    counts += [{"rows": f"left out: {why}", "number": count} for why, count in told["left_out"].items()]
    counts += [{"rows": "to learn from", "number": told["rows"]}]
    st.dataframe(counts, hide_index=True, width="stretch")
    if personal := told["personal_data"]:
        kinds = ", ".join(f"{name} ({count})" for name, count in personal.items())
        st.caption(
            label(f"Personal data that a pattern finds, {'' if replaced else 'not '}replaced: {kinds}.")
        )
    if not told["test_rows"]:
        st.warning("This run has no test set, so no test question can be left out.")
    if told["rows"]:
        with st.expander(f"Read what would be learned ({min(len(told['shown']), told['rows'])} rows)"):
            st.dataframe([_readable(row) for row in told["shown"]], hide_index=True, width="stretch")


def _readable(row: Mapping[str, Any]) -> dict[str, str]:
    if "messages" in row:
        return {"question": _last(row["messages"][:-1]), "answer": _last(row["messages"])}
    if "completion" in row:
        thumb = "up" if row["label"] else "down"
        return {"question": _last(row["prompt"]), "answer": _last(row["completion"]), "thumb": thumb}
    question, better, worse = (_last(row[name]) for name in ("prompt", "chosen", "rejected"))
    return {"question": question, "better": better, "worse": worse}


def _last(messages: Sequence[Mapping[str, str]]) -> str:
    return messages[-1]["content"] if messages else ""
