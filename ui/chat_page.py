"""The chat page: one conversation, streamed through the served chat flow and kept in the run folder."""

import streamlit as st

from ui.chat.asking import ask_next, show_not_asked
from ui.chat.conversation_view import show_conversation
from ui.chat.model_settings import show_system_prompt
from ui.chat.open_conversation import opened
from ui.rendering import label
from ui.sidebar import sidebar
from ui.store.samples import asked_sample, offer_samples
from ui.workspace import Workspace, this_workspace

WATCH_SECONDS = 2.0  # how often a tab looks for changes from another tab


def main() -> None:
    workspace = this_workspace()
    conversation = opened(workspace)
    system, sampling = sidebar(workspace, conversation)
    question = st.chat_input(f"Ask {workspace.answered_by}") or asked_sample()
    if question.strip():
        conversation = ask_next(workspace, conversation, question.strip(), system, sampling)
    show_not_asked()
    now = workspace.conversations.get(conversation.id) if conversation else None
    welcome = st.empty()
    if now and (turns := workspace.conversations.turns(now.id)):
        show_system_prompt(now.system)
        show_conversation(workspace, now, turns)
        _watch(workspace, now.id, now.changed)
    else:
        with welcome.container():
            _welcome(workspace, system)


def _welcome(workspace: Workspace, system: str) -> None:
    st.title("Ask your model")
    st.markdown(
        f"Answers come from {label(workspace.name)}."
        if workspace.name
        else "Answers come from the model you tuned, on this machine. No data leaves it."
    )
    show_system_prompt(system)
    offer_samples(workspace.run)


@st.fragment(run_every=WATCH_SECONDS)
def _watch(workspace: Workspace, conversation: str, seen: float) -> None:
    """Redraw the page if another tab changed the conversation since `seen` (a Unix time)."""
    now = workspace.conversations.get(conversation)
    if now is None or now.changed != seen:
        st.rerun()


if __name__ == "__main__":
    main()
