"""A whole conversation: every turn with its tools, and the last answer while it grows."""

from functools import partial

import streamlit as st

from ui.chat.asking import ask_instead
from ui.chat.question_view import show_question
from ui.chat.turn_view import follow, show_answer, show_tools
from ui.store.records import COMPLETE, CUT, STOPPED, Conversation, Turn
from ui.workspace import Workspace

AVATARS = {"user": ":material/person:", "assistant": ":material/auto_awesome:"}


def show_conversation(workspace: Workspace, conversation: Conversation, turns: list[Turn]) -> None:
    """The last answer has a fixed place, so that it stays visible until it is drawn over."""
    last = turns[-1]
    if dropped := workspace.prompt(conversation, last.question, turns[:-1]).dropped:
        st.info(
            f"This conversation does not fit into the model's context: the first {dropped} answers and their "
            "questions are dropped (by an estimate of their tokens)."
        )
    versions = workspace.conversations.versions(conversation.id)
    for turn in turns:
        beside = versions.get(turn.id, [turn.id])
        with st.chat_message("user", avatar=AVATARS["user"]):
            asking = partial(ask_instead, workspace, conversation, turn)
            show_question(turn, beside, asking, workspace.conversations.show)
        with st.chat_message("assistant", avatar=AVATARS["assistant"]):
            if turn is last:
                with st.empty().container():
                    _show_last(workspace, conversation, turn, beside)
            else:
                show_answer(turn)
                show_tools(turn, workspace)


def _show_last(workspace: Workspace, conversation: Conversation, turn: Turn, beside: list[str]) -> None:
    turn, answer = workspace.state_of(turn)
    if answer:
        place = st.empty()
        st.button(
            "Stop", key=f"stop-{turn.id}", on_click=workspace.streams.stop, args=(turn.id,), shortcut="Esc"
        )
        follow([(answer, place)])
        return
    show_answer(turn)
    if conversation.temperature == 0 and _is_the_same_again(workspace, turn, beside):
        st.caption(
            "The same answer again: at temperature 0 the model always picks the most likely token. Raise the "
            "temperature in Model settings to get others."
        )
    with show_tools(turn, workspace):
        _last_tools(workspace, conversation, turn)


def _is_the_same_again(workspace: Workspace, turn: Turn, beside: list[str]) -> bool:
    """Whether the version before this one asked and answered the same."""
    at = beside.index(turn.id) if turn.id in beside else 0
    before = workspace.conversations.turn(beside[at - 1]) if at and turn.status == COMPLETE else None
    return before is not None and (before.question, before.answer) == (turn.question, turn.answer)


def _last_tools(workspace: Workspace, conversation: Conversation, turn: Turn) -> None:
    again = partial(ask_instead, workspace, conversation, turn, turn.question)
    st.button("Regenerate", key=f"again-{turn.id}", type="tertiary", on_click=again)
    if turn.status in {CUT, STOPPED} and turn.answer:
        st.button(
            "Continue",
            key=f"continue-{turn.id}",
            type="tertiary",
            on_click=partial(again, already=turn.answer),
            help="Asks again, and keeps this text until the new answer is longer",
        )
