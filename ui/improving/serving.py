"""Which model answers, and the change to another one."""

from pathlib import Path

import streamlit as st

from phi3flow.core.served_model import Promotion, promotions
from ui.improving.training import REFUSED
from ui.improving.verbs import ask_verb
from ui.rendering import label
from ui.store.improvements import ShownImprovement

RESTART = "The servers start again with the other model; this page is back after some seconds."


def served_now(run: Path) -> Promotion | None:
    return next(iter(reversed(promotions(run))), None)


def show_served(run: Path, now: Promotion | None, *, may_change: bool) -> None:
    if now is None:
        st.caption(label(f"Answers come from the tuned model of {run.name}."))
        return
    told = f"Answers come from improvement {now.improvement}, promoted {now.promoted[:10]}."
    st.success(label(told + (f" Although the verdict was another: {now.because}" if now.because else "")))
    if may_change:
        st.button("Undo: serve the former model again", on_click=_change, args=(run, "--undo"), help=RESTART)


def offer_promotion(run: Path, improvement: ShownImprovement) -> None:
    """A button where the verdict is promote; elsewhere a person must say why."""
    number = str(improvement.number)
    if improvement.report.get("verdict") == "promote":
        st.button(
            "Serve the new model", type="primary", on_click=_change, args=(run, "--improvement", number)
        )
        st.caption(RESTART)
        return
    with st.expander("Serve it anyway"):
        st.markdown("The comparison does not say promote. Your reason is kept with the promotion.")
        why = st.text_input("Why is it served anyway?").strip()
        words = (run, "--improvement", number, f"--because={why}")
        st.button("Serve the new model anyway", on_click=_change, args=words, disabled=not why)
        st.caption(RESTART)


def _change(run: Path, *words: str) -> None:
    told = ask_verb("promote", run, *words)
    if told.error:
        st.session_state[REFUSED] = (told.error, told.hint)
