"""The chat's sidebar: the model's settings, and all conversations by the day of their last question."""

from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import groupby
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from phi3flow.phi3_contract import Sampling
from ui.chat.conversation_menu import conversation_menu
from ui.chat.model_settings import model_settings
from ui.chat.open_conversation import open_conversation
from ui.rendering import label
from ui.store.conversations import LISTED
from ui.store.records import Conversation
from ui.workspace import Workspace


def sidebar(workspace: Workspace, conversation: Conversation | None) -> tuple[str, Sampling]:
    """Draw it. Returns the system prompt and the sampling for a new conversation."""
    with st.sidebar:
        st.button(
            "New chat", on_click=open_conversation, args=(None,), width="stretch", disabled=not conversation
        )
        chosen = model_settings(workspace, conversation)
        if conversation:
            conversation_menu(workspace, conversation)
        words = st.text_input("Search", placeholder="in questions and answers")
        found = workspace.conversations.search(words)
        if words and not found:
            st.caption("Nothing found.")
        _list(found, conversation)
        if len(found) == LISTED:
            st.caption(f"The latest {LISTED}; Search finds the others.")
    return chosen


def _list(found: list[Conversation], conversation: Conversation | None) -> None:
    """The latest first, under the day and with the time of their last question."""
    zone = _zone()
    today = datetime.now(zone).date()
    times = {each.id: datetime.fromtimestamp(each.asked, UTC).astimezone(zone) for each in found}
    for day, conversations in groupby(found, lambda each: times[each.id].date()):
        st.caption(day_name(day, today))
        for each in conversations:
            st.button(
                f"{label(each.title) or 'Untitled'} :small[:gray[{times[each.id]:%H:%M}]]",
                key=f"open-{each.id}",
                type="secondary" if conversation and each.id == conversation.id else "tertiary",
                on_click=open_conversation,
                args=(each,),
            )


def day_name(day: date, today: date) -> str:
    if day == today:
        return "Today"
    if day == today - timedelta(days=1):
        return "Yesterday"
    return f"{day.day} {day:%B}" + ("" if day.year == today.year else f" {day.year}")


def _zone() -> tzinfo | None:
    """The time zone of the browser; None, which is this machine's, where it does not say."""
    try:
        return ZoneInfo(st.context.timezone) if st.context.timezone else None
    except (ZoneInfoNotFoundError, ValueError):
        return None
