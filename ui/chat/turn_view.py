"""One answer: how it grows, how it ended, and what can be done with it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from phi3flow.core.served_model import served_run
from ui.answers.running_answer import Progress, RunningAnswer
from ui.chat.copy_button import copy_button
from ui.rendering import answer_html, label
from ui.store.history import estimated_tokens
from ui.store.latest_report import verdict_on
from ui.store.records import COMPLETE, CUT, FAILED, STOPPED, Turn
from ui.workspace import SHOWN_HASH, Workspace

CURSOR = "▌"
FRAME_SECONDS = 0.04  # pause between two looks at an answer
REDRAWS_PER_SECOND = 2  # also while no token comes: Streamlit notices a click only when something is drawn
QUIET_SECONDS = 1  # then the page says that it is waiting
REST = 4  # pause at least this many times as long as drawing took: long answers must not use a whole core


def show_answer(turn: Turn, *, named: bool = True) -> None:
    """An answer that has ended. `named` adds the model and its times; the arena hides both."""
    if turn.answer:
        st.html(answer_html(turn.answer))
    if turn.status == COMPLETE and not turn.answer.strip():
        st.caption("The model gave an empty answer.")
    elif turn.status in {CUT, STOPPED}:
        st.warning(f"Cut off. {turn.error}", icon=":material/content_cut:")
    elif turn.status == FAILED:
        st.error(turn.error, icon=":material/error:")
    if named:
        st.caption(_facts(turn))


def follow(shown: Sequence[tuple[RunningAnswer, DeltaGenerator]]) -> None:
    """Draw each running answer into its place until all have ended, then rerun the page.

    A click interrupts this function, never the answers; the next run of the script follows them again.
    """
    drawn: dict[int, tuple[str, int]] = {}
    followed = time.monotonic()
    while True:
        began = time.monotonic()
        running = False
        for number, (answer, place) in enumerate(shown):
            progress = answer.progress()
            running = running or progress.running
            state = (progress.text, int((time.monotonic() - followed) * REDRAWS_PER_SECOND))
            if drawn.get(number) != state:
                _draw(place, progress)
                drawn[number] = state
        if not running:
            st.rerun()
        time.sleep(max(FRAME_SECONDS, REST * (time.monotonic() - began)))


def _draw(place: DeltaGenerator, progress: Progress) -> None:
    if progress.retry_in is not None:
        place.info(f"The endpoint is overloaded. Next try in {progress.retry_in:.0f} s.")
    elif progress.unsaved:
        with place.container():
            st.html(answer_html(progress.text))
            st.warning(
                f"This answer is not saved yet: {label(progress.unsaved)}. The page keeps it and tries "
                "again: free the disk, or end what holds chat.sqlite."
            )
    elif not progress.text and progress.seconds > QUIET_SECONDS:
        place.caption(f"Waiting for the first word, {progress.seconds:.0f} s.")
    else:
        place.html(answer_html(progress.text + (CURSOR if progress.running else "")))


def show_tools(turn: Turn, workspace: Workspace) -> DeltaGenerator:
    """Copy, thumbs, comment, correction, details. Returns the row of buttons: the page can add more."""
    row = st.container(horizontal=True, vertical_alignment="center")
    with row:
        if turn.answer:
            copy_button(turn.answer, f"copy-{turn.id}")
        thumb = f"thumb-{turn.id}"
        st.session_state.setdefault(thumb, turn.thumb)
        st.feedback(
            "thumbs",
            key=thumb,
            on_change=lambda: workspace.conversations.save(turn.id, thumb=st.session_state[thumb]),
        )
        details = st.popover("Details", type="tertiary", on_change="rerun", key=f"details-{turn.id}")
        if details.open:
            with details:
                _details(turn, workspace)
    if turn.thumb is not None:
        _kept(st.text_input, "Comment on this answer", turn, "comment", workspace)
    if turn.thumb == 0:
        _kept(st.text_area, "The answer that you wanted", turn, "correction", workspace)
    return row


def _kept(widget: Callable[..., Any], text: str, turn: Turn, field: str, workspace: Workspace) -> None:
    """A field of the turn that is stored as soon as it changes."""
    key = f"{field}-{turn.id}"
    widget(
        text,
        getattr(turn, field),
        key=key,
        on_change=lambda: workspace.conversations.save(turn.id, **{field: st.session_state[key]}),
    )


def _details(turn: Turn, workspace: Workspace) -> None:
    rows = {
        "Answered by": workspace.name or f"{turn.model} of {workspace.run.name}",
        "Model": turn.model_hash[:SHOWN_HASH] or "no manifest",
        "Data": turn.data_hash[:SHOWN_HASH] or "none",
        "Verdict": verdict_on(served_run(workspace.run), turn.model_hash),
    }
    for name, value in rows.items():
        st.text(f"{name}: {value}")
    st.caption("The raw answer:")
    st.code(turn.answer, language=None, wrap_lines=True, height=200)


def _facts(turn: Turn) -> str:
    parts = [turn.model]
    if turn.first_token_seconds is not None:
        parts.append(f"first word after {turn.first_token_seconds:.2f} s")
    if turn.seconds is not None:
        parts.append(f"{turn.seconds:.1f} s")
    if turn.answer:
        parts.append(f"about {estimated_tokens(turn.answer)} tokens (estimated)")
    return " · ".join(parts)
