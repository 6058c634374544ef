"""The chat's sidebar: all conversations, what can be done with the open one, and the model's settings."""

from collections.abc import Sequence

import streamlit as st

from phi3flow.core.jsonl import to_line
from phi3flow.phi3_contract import Sampling
from ui.conversations import COMPLETE, Conversation, Turn
from ui.history import messages_of
from ui.rendering import label
from ui.workspace import Workspace

OPEN = "c"  # query parameter, for a reload or a bookmark; session key, for an address without a conversation


def opened(workspace: Workspace) -> Conversation | None:
    """The conversation in the page's address, or the one that this session had open."""
    name = st.query_params.get(OPEN) or st.session_state.get(OPEN)
    found = workspace.conversations.get(name) if name else None
    open_conversation(found)
    return found


def open_conversation(conversation: Conversation | None) -> None:
    st.session_state[OPEN] = conversation.id if conversation else None
    if conversation:
        st.query_params[OPEN] = conversation.id
    else:
        st.query_params.pop(OPEN, None)


def sidebar(workspace: Workspace, conversation: Conversation | None) -> tuple[str, Sampling]:
    """Draw it. Returns the system prompt and the sampling for a new conversation."""
    with st.sidebar:
        st.button(
            "New chat", on_click=open_conversation, args=(None,), width="stretch", disabled=not conversation
        )
        chosen = _settings(workspace, conversation)
        if conversation:
            _menu(workspace, conversation)
        words = st.text_input("Search", placeholder="in questions and answers")
        found = workspace.conversations.search(words)
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
    return chosen


def _settings(workspace: Workspace, conversation: Conversation | None) -> tuple[str, Sampling]:
    """A new conversation starts with the settings of the latest one."""
    latest = conversation or next(iter(workspace.conversations.search()), None)
    system, sampling = (latest.system, latest.sampling) if latest else ("", Sampling())
    suffix = conversation.id if conversation else "new"

    def chosen() -> tuple[str, Sampling]:
        values = [st.session_state[f"{name}-{suffix}"] for name in ("system", "temperature", "max-tokens")]
        return values[0].strip(), Sampling(values[1], values[2])

    def save() -> None:
        if conversation:
            workspace.conversations.set_sampling(conversation.id, *chosen())

    with st.expander("Model settings"):
        st.text_area(
            "System prompt",
            system,
            placeholder="none",
            max_chars=4000,
            key=f"system-{suffix}",
            on_change=save,
        )
        st.slider(
            "Temperature",
            0.0,
            2.0,
            sampling.temperature,
            0.1,
            key=f"temperature-{suffix}",
            on_change=save,
            help="0 always picks the most likely token",
        )
        st.slider(
            "Longest answer, in tokens",
            16,
            1024,
            sampling.max_tokens,
            16,
            key=f"max-tokens-{suffix}",
            on_change=save,
        )
    return chosen()


def _menu(workspace: Workspace, conversation: Conversation) -> None:
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
            as_training_jsonl(conversation, turns),
            "conversation.jsonl",
            on_click="ignore",
        )
        st.button("Delete", on_click=_delete, args=(workspace, conversation), type="primary")


def _delete(workspace: Workspace, conversation: Conversation) -> None:
    for turn in workspace.conversations.turns(conversation.id):
        workspace.streams.stop(turn.id)
    workspace.conversations.delete(conversation.id)
    open_conversation(None)


def as_markdown(conversation: Conversation, turns: Sequence[Turn]) -> str:
    """The whole conversation, with a note after each incomplete answer."""
    parts = [f"# {conversation.title}"]
    if conversation.system:
        parts.append(f"*System prompt:* {conversation.system}")
    for turn in turns:
        note = "" if turn.status == COMPLETE else f"\n\n*({turn.status}: {turn.error or 'no end yet'})*"
        parts += [f"## You\n\n{turn.question}", f"## {turn.model}\n\n{turn.answer}{note}"]
    return "\n\n".join(parts) + "\n"


def as_training_jsonl(conversation: Conversation, turns: Sequence[Turn]) -> str:
    """One row that `phi3flow prepare` reads; empty if there is nothing to learn from.

    Leaves out incomplete answers and those with a thumb down.
    """
    good = [turn for turn in turns if turn.status == COMPLETE and turn.answer.strip() and turn.thumb != 0]
    messages = messages_of(conversation.system, good)
    return to_line({"messages": messages, "prompt_id": conversation.id}).decode() if good else ""
