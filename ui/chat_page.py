"""The chat page: one conversation, streamed through the served chat flow and kept in the run folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st

from phi3flow.core.jsonl import read_jsonl
from ui.conversations import CUT, STOPPED, Conversation, Turn
from ui.rendering import label
from ui.sidebar import open_conversation, opened, sidebar
from ui.turn_view import AVATARS, follow, show_answer, show_question, show_tools
from ui.workspace import Workspace, this_workspace

SAMPLE = "sample question"  # session key: the question whose button was pressed
SAMPLE_COUNT, SAMPLE_LENGTH = 3, 120  # validation prompts on an empty page, and their most characters
WATCH_SECONDS = 2.0  # how often a tab looks for changes from another tab


def main() -> None:
    workspace = this_workspace()
    conversation = opened(workspace)
    system, sampling = sidebar(workspace, conversation)
    question = st.chat_input(f"Ask the tuned model of {workspace.run.name}") or st.session_state.pop(
        SAMPLE, ""
    )
    if question.strip():
        if conversation is None:
            conversation = workspace.conversations.create(question, system, sampling)
            open_conversation(conversation)
        workspace.ask(conversation, question.strip())
    now = workspace.conversations.get(conversation.id) if conversation else None
    welcome = st.empty()
    if now and (turns := workspace.conversations.turns(now.id)):
        _show_all(workspace, now, turns)
        _watch(workspace, now.id, now.changed)
    else:
        with welcome.container():
            _welcome(workspace.run)


def _welcome(run: Path) -> None:
    st.title("Ask your model")
    st.markdown("Answers come from the model you tuned, on this machine. No data leaves it.")
    for sample in _sample_questions(run):
        st.button(label(sample), on_click=st.session_state.update, args=({SAMPLE: sample},))


def _sample_questions(run: Path) -> list[str]:
    """Questions for an empty page: `samples.jsonl` of the run, or the first short validation prompts."""
    samples, chats = run / "samples.jsonl", run / "data" / "val.jsonl"
    if samples.is_file():
        return [row["question"] for row in read_jsonl(samples)]
    rows = read_jsonl(chats) if chats.is_file() else []
    asked = [next(turn["content"] for turn in row["messages"] if turn["role"] == "user") for row in rows]
    return [question for question in dict.fromkeys(asked) if len(question) <= SAMPLE_LENGTH][:SAMPLE_COUNT]


def _show_all(workspace: Workspace, conversation: Conversation, turns: list[Turn]) -> None:
    """The last answer has a fixed place, so that it stays visible until it is drawn over."""
    last = turns[-1]
    if dropped := workspace.prompt(conversation, last.question, turns[:-1]).dropped:
        st.info(
            f"This conversation does not fit into the model's context: the first {dropped} answers and their "
            "questions are dropped (by an estimate of their tokens)."
        )
    for turn in turns:
        again = partial(workspace.ask, conversation, instead_of=turn.id)
        show_question(turn, again)
        with st.chat_message("assistant", avatar=AVATARS["assistant"]):
            if turn is last:
                with st.empty().container():
                    _show_last(workspace, turn, again)
            else:
                show_answer(turn)
                show_tools(turn, workspace)


def _show_last(workspace: Workspace, turn: Turn, again: Callable[..., None]) -> None:
    turn, answer = workspace.state_of(turn)
    if answer:
        place = st.empty()
        st.button(
            "Stop", key=f"stop-{turn.id}", on_click=workspace.streams.stop, args=(turn.id,), shortcut="Esc"
        )
        follow([(answer, place)])
    else:
        show_answer(turn)
        with show_tools(turn, workspace):
            _last_tools(turn, partial(again, turn.question))


def _last_tools(turn: Turn, again: Callable[..., None]) -> None:
    st.button("Regenerate", key=f"again-{turn.id}", type="tertiary", on_click=again)
    if turn.status in {CUT, STOPPED} and turn.answer:
        st.button(
            "Continue",
            key=f"continue-{turn.id}",
            type="tertiary",
            on_click=partial(again, already=turn.answer),
            help="Asks again, and keeps this text until the new answer is longer",
        )


@st.fragment(run_every=WATCH_SECONDS)
def _watch(workspace: Workspace, conversation: str, seen: float) -> None:
    """Redraw the page if another tab changed the conversation since `seen` (a Unix time)."""
    now = workspace.conversations.get(conversation)
    if now is None or now.changed != seen:
        st.rerun()


main()
