"""What can be done with the open conversation: rename, export, delete."""

import streamlit as st

from ui.chat.export import as_markdown, as_training_jsonl
from ui.chat.open_conversation import open_conversation
from ui.store.records import Conversation
from ui.workspace import Workspace

DELETING = "deleting"  # session key: the conversation whose deletion waits for a second click


def conversation_menu(workspace: Workspace, conversation: Conversation) -> None:
    menu = st.popover("This conversation", width="stretch", on_change="rerun", key=f"menu-{conversation.id}")
    if not menu.open:
        st.session_state.pop(DELETING, None)
        return
    with menu:
        _title(workspace, conversation)
        _exports(workspace, conversation)
        _deletion(workspace, conversation)


def _title(workspace: Workspace, conversation: Conversation) -> None:
    key = f"title-{conversation.id}"
    st.text_input(
        "Title",
        conversation.title,
        key=key,
        on_change=lambda: workspace.conversations.rename(conversation.id, st.session_state[key]),
    )


def _exports(workspace: Workspace, conversation: Conversation) -> None:
    turns = workspace.conversations.turns(conversation.id)
    markdown, rows = as_markdown(conversation, turns), as_training_jsonl(conversation, turns)
    st.download_button("Export as Markdown", markdown, "conversation.md", on_click="ignore")
    st.download_button("Export for training (JSONL)", rows, "conversation.jsonl", on_click="ignore")


def _deletion(workspace: Workspace, conversation: Conversation) -> None:
    """Two clicks, because nothing brings the text back."""
    if st.session_state.get(DELETING) != conversation.id:
        asking = {DELETING: conversation.id}
        st.button("Delete", on_click=st.session_state.update, args=(asking,))
        return
    st.warning("This deletes all its questions, answers and ratings. It cannot be undone.")
    with st.container(horizontal=True):
        st.button("Delete for good", type="primary", on_click=_delete, args=(workspace, conversation))
        st.button("Keep it", on_click=st.session_state.pop, args=(DELETING, None))


def _delete(workspace: Workspace, conversation: Conversation) -> None:
    for turn in workspace.conversations.turns(conversation.id):
        workspace.streams.stop(turn.id)
    workspace.conversations.delete(conversation.id)
    open_conversation(None)
