"""One question and its answer: the texts, how the answer ended, what may be done about it."""

from collections.abc import Callable

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.conversations import COMPLETE, CUT, FAILED, STOPPED, Turn
from ui.history import estimated_tokens
from ui.rendering import answer_html, plain_html
from ui.run_record import SHOWN_HASH, verdict_on
from ui.workspace import Workspace

AVATARS = {"user": ":material/person:", "assistant": ":material/auto_awesome:"}


def show_question(turn: Turn, edit: Callable[[str], None]) -> None:
    """The question, and a form to ask it differently: `edit` gets the new words."""
    with st.chat_message("user", avatar=AVATARS["user"]), st.container(horizontal=True):
        st.html(plain_html(turn.question))
        form = st.popover("Edit", type="tertiary", on_change="rerun", key=f"edit-{turn.id}")
        if form.open:
            with form:
                key = f"edited-{turn.id}"
                st.text_area("Question", turn.question, key=key)
                st.caption("The answers below this question are put aside.")
                st.button(
                    "Ask this",
                    key=f"ask-{turn.id}",
                    on_click=lambda: edit(st.session_state[key].strip()),
                    type="primary",
                )


def assistant() -> DeltaGenerator:
    return st.chat_message("assistant", avatar=AVATARS["assistant"])


def show_answer(turn: Turn, *, named: bool = True) -> None:
    """`named` tells who answered and how fast, which gives away who it was."""
    if turn.answer:
        st.html(answer_html(turn.answer))
    if turn.status == COMPLETE and not turn.answer.strip():
        st.caption("The model gave an empty answer.")
    elif turn.status in {CUT, STOPPED}:
        st.warning(f"Cut off. {turn.error}", icon=":material/content_cut:")
    elif turn.status == FAILED:
        st.error(turn.error, icon=":material/error:")
    if named:
        st.caption(_figures(turn))


def show_tools(turn: Turn, workspace: Workspace) -> DeltaGenerator:
    """Thumbs, details and text to copy; returns the row, for what else may be done with this turn."""
    row = st.container(horizontal=True, vertical_alignment="center")
    with row:
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
        comment = f"comment-{turn.id}"
        st.text_input(
            "What about this answer?",
            turn.comment,
            key=comment,
            on_change=lambda: workspace.conversations.save(turn.id, comment=st.session_state[comment]),
        )
    return row


def _details(turn: Turn, workspace: Workspace) -> None:
    rows = {
        "Answered by": f"{turn.model} of {workspace.run.name}",
        "Model": turn.model_hash[:SHOWN_HASH] or "no manifest",
        "Data": turn.data_hash[:SHOWN_HASH] or "none",
        "Verdict": verdict_on(workspace.run, turn.model_hash),
    }
    for name, value in rows.items():
        st.text(f"{name}: {value}")
    st.caption("The answer as it came, to copy:")
    st.code(turn.answer, language=None, wrap_lines=True, height=200)


def _figures(turn: Turn) -> str:
    parts = [turn.model]
    if turn.first_token_seconds is not None:
        parts.append(f"first word after {turn.first_token_seconds:.2f} s")
    if turn.seconds is not None:
        parts.append(f"{turn.seconds:.1f} s")
    if turn.answer:
        parts.append(f"about {estimated_tokens(turn.answer)} tokens (estimated)")
    return " · ".join(parts)
