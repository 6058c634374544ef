"""Which conversation a session has open."""

import streamlit as st

from ui.store.records import Conversation
from ui.workspace import Workspace

OPEN = "c"  # query parameter, for a reload or a bookmark; session key, for an address without a conversation


def opened(workspace: Workspace) -> Conversation | None:
    """The conversation in the page's address, or the one that this session had open.

    None for a round of the arena: the chat page would tell before the vote who answered.
    """
    name = st.query_params.get(OPEN) or st.session_state.get(OPEN)
    found = workspace.conversations.get(name) if name else None
    chat = found if found and found.kind == "chat" else None
    open_conversation(chat)
    return chat


def open_conversation(conversation: Conversation | None) -> None:
    st.session_state[OPEN] = conversation.id if conversation else None
    if conversation:
        st.query_params[OPEN] = conversation.id
    else:
        st.query_params.pop(OPEN, None)
