"""The chat's sidebar: all conversations, what can be done with this one, and how the model is asked."""

import streamlit as st

from phi3flow.phi3_contract import Sampling
from ui.conversations import Conversation
from ui.export import as_markdown, as_training_jsonl
from ui.rendering import label
from ui.workspace import Workspace

OPEN = "open conversation"  # in the session: what to show when the address names none
NAME = "c"  # in the address: so that a reload and a bookmark find the conversation


def opened(workspace: Workspace) -> Conversation | None:
    """The conversation that the address names, or the one that this session had open."""
    name = st.query_params.get(NAME) or st.session_state.get(OPEN)
    found = workspace.conversations.get(name) if name else None
    open_conversation(found)
    return found


def open_conversation(conversation: Conversation | None) -> None:
    st.session_state[OPEN] = conversation.id if conversation else None
    if conversation:
        st.query_params[NAME] = conversation.id
    else:
        st.query_params.pop(NAME, None)


def sidebar(workspace: Workspace, conversation: Conversation | None) -> tuple[str, Sampling]:
    """Draw it; returns the system prompt and the sampling that a new conversation starts with."""
    with st.sidebar:
        st.button(
            "New chat", on_click=open_conversation, args=(None,), width="stretch", disabled=not conversation
        )
        asked = _settings(workspace, conversation)
        if conversation:
            _this_one(workspace, conversation)
        words = st.text_input("Search", placeholder="in questions and answers")
        found = workspace.conversations.search(words) if words else workspace.conversations.latest()
        if words and not found:
            st.caption("Nothing found.")
        for each in found:
            st.button(
                label(each.title) or "Untitled",
                key=f"open-{each.id}",
                type="secondary" if conversation and each.id == conversation.id else "tertiary",
                on_click=open_conversation,
                args=(each,),
            )
    return asked


def _settings(workspace: Workspace, conversation: Conversation | None) -> tuple[str, Sampling]:
    latest = conversation or next(iter(workspace.conversations.latest(limit=1)), None)
    system, sampling = (latest.system, latest.sampling) if latest else ("", Sampling())
    names = {
        name: f"{name}-{conversation.id if conversation else 'new'}" for name in ("system", "heat", "long")
    }

    def chosen() -> tuple[str, Sampling]:
        values = [st.session_state[names[name]] for name in ("system", "heat", "long")]
        return values[0].strip(), Sampling(values[1], values[2])

    def save() -> None:
        if conversation:
            workspace.conversations.set_sampling(conversation.id, *chosen())

    with st.expander("How the model is asked"):
        st.text_area(
            "System prompt",
            system,
            placeholder="none",
            max_chars=4000,
            key=names["system"],
            on_change=save,
        )
        st.slider(
            "Temperature",
            0.0,
            2.0,
            sampling.temperature,
            0.1,
            key=names["heat"],
            on_change=save,
            help="0 gives the likeliest answer, always",
        )
        st.slider(
            "Longest answer, in tokens", 16, 1024, sampling.max_tokens, 16, key=names["long"], on_change=save
        )
    return chosen()


def _this_one(workspace: Workspace, conversation: Conversation) -> None:
    menu = st.popover("This conversation", width="stretch", on_change="rerun", key=f"menu-{conversation.id}")
    if not menu.open:
        return
    turns = workspace.conversations.turns(conversation.id)
    key = f"title-{conversation.id}"
    with menu:
        st.text_input(
            "Title",
            conversation.title,
            key=key,
            on_change=lambda: workspace.conversations.rename(conversation.id, st.session_state[key]),
        )
        st.download_button(
            "Export as Markdown", as_markdown(conversation, turns), "conversation.md", on_click="ignore"
        )
        st.download_button(
            "Export for training (JSONL)",
            as_training_jsonl([(conversation, turns)]),
            "conversation.jsonl",
            on_click="ignore",
        )
        st.button("Delete", on_click=_delete, args=(workspace, conversation), type="primary")


def _delete(workspace: Workspace, conversation: Conversation) -> None:
    for turn in workspace.conversations.turns(conversation.id):
        workspace.streams.stop(turn.id)
    workspace.conversations.delete(conversation.id)
    open_conversation(None)
