"""Asking from the page: a question that the database does not take is kept and shown, not lost."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from phi3flow.phi3_contract import Sampling
from ui.chat.open_conversation import open_conversation
from ui.rendering import label
from ui.store.records import Conversation, Turn
from ui.workspace import Workspace

NOT_ASKED = "not asked"  # session key: the question, and what the database said


def ask_next(
    workspace: Workspace, conversation: Conversation | None, question: str, system: str, sampling: Sampling
) -> Conversation | None:
    """Ask in this conversation, or in a new one; returns it."""
    with _kept(question):
        conversation = conversation or workspace.conversations.create(question, system, sampling)
        open_conversation(conversation)
        workspace.ask(conversation, question)
    return conversation


def ask_instead(
    workspace: Workspace, conversation: Conversation, turn: Turn, question: str, already: str = ""
) -> None:
    """Ask a question in the place of a turn; `already` is the text to keep until the answer is longer."""
    with _kept(question):
        workspace.ask(conversation, question, instead_of=turn.id, already=already)


@contextmanager
def _kept(question: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        st.session_state[NOT_ASKED] = (question, str(error))


def show_not_asked() -> None:
    """Once, after a question that could not be asked."""
    if NOT_ASKED not in st.session_state:
        return
    question, error = st.session_state.pop(NOT_ASKED)
    st.error(
        f"This question was not asked, because the conversation cannot be saved: {label(error)}. Free the "
        "disk, or end what holds chat.sqlite; then ask again."
    )
    st.code(question, language=None, wrap_lines=True)
