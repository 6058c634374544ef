"""One question: edited in place, and the versions of it that were asked."""

from collections.abc import Callable, Sequence

import streamlit as st

from ui.rendering import plain_html
from ui.store.records import Turn

EDITING = "editing"  # session key: the turn whose question is being changed


def show_question(
    turn: Turn, versions: Sequence[str], ask: Callable[[str], None], show: Callable[[str], None]
) -> None:
    """The question, or the form to change it, which calls `ask` with the new text.

    `versions` are the ids of the turns that stand beside it, itself included; `show` goes to another one.
    """
    if st.session_state.get(EDITING) == turn.id:
        _form(turn, ask)
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html(plain_html(turn.question))
        editing = {EDITING: turn.id}
        st.button(
            "Edit",
            type="tertiary",
            key=f"edit-{turn.id}",
            on_click=st.session_state.update,
            args=(editing,),
        )
        if len(versions) > 1:
            _versions(turn.id, versions, show)


def _form(turn: Turn, ask: Callable[[str], None]) -> None:
    key = f"edited-{turn.id}"

    def asked() -> None:
        st.session_state.pop(EDITING, None)
        ask(st.session_state[key].strip())

    with st.form(f"form-{turn.id}", border=False):
        st.text_area("Question", turn.question, key=key)
        st.caption("Ctrl+Enter asks. The question as it was stays, with its answers.")
        with st.container(horizontal=True):
            st.form_submit_button("Ask", type="primary", on_click=asked)
            st.form_submit_button("Cancel", on_click=st.session_state.pop, args=(EDITING, None))


def _versions(turn: str, versions: Sequence[str], show: Callable[[str], None]) -> None:
    """Buttons to the versions before and after."""
    at = versions.index(turn)
    for text, to in (("Earlier", at - 1), ("Later", at + 1)):
        reachable = 0 <= to < len(versions)
        st.button(
            text,
            type="tertiary",
            key=f"{text}-{turn}",
            disabled=not reachable,
            on_click=show,
            args=(versions[to],) if reachable else (),
        )
        if to < at:
            st.caption(f"{at + 1} of {len(versions)}", width="content")
