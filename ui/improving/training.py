"""A training: what it would take, how far it is, how it ended."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from phi3flow.core.background import Job, job_in, last_lines, start, stop
from phi3flow.core.child_process import module_command
from phi3flow.core.console import INTERRUPTED
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.served_model import IMPROVEMENTS
from ui.improving.verbs import Told, explained
from ui.rendering import label
from ui.store.improvements import ShownImprovement, latest_shown, progress_in

WATCH_SECONDS = 2.0
SHOWN_LINES, SEARCHED_LINES = 8, 200
NAMES = {"rows": "Rows", "data": "Data", "training": "Training", "comparison": "Comparison"}
DONE, NOW, LATER = ":material/check_circle:", ":material/autorenew:", ":material/radio_button_unchecked:"
REFUSED = "refused start"  # session key: why a start was refused


def begin(run: Path, *options: str) -> None:
    """Start `phi3flow improve` in the background; what it refuses is shown by the page."""
    try:
        start(run / IMPROVEMENTS, module_command("phi3flow", "improve", run, *options))
    except Phi3flowError as error:
        st.session_state[REFUSED] = (str(error), error.hint)


def show_refusal() -> None:
    if refused := st.session_state.pop(REFUSED, None):
        show_problem(Told({}, *refused))


def show_problem(told: Told) -> None:
    st.error(label(told.error))
    if told.hint:
        st.code(told.hint, language="shell", wrap_lines=True)


def show_needs(training: Mapping[str, Any]) -> None:
    """Figures of `phi3flow improve`."""
    rows, steps, time = st.columns(3)
    rows.metric("Rows", f"{training['rows']:,}")
    steps.metric("Steps", f"{training['steps']:,}")
    time.metric("Time", training["time"] or "unknown")
    if training["missing"]:
        st.warning(f"Too few rows: this takes {training['missing']} more.")
    needs = f"Recipe {training['recipe']}. At most {training['memory']}; {training['disk']}."
    (st.caption if training["enough"] else st.warning)(label(needs))


def show_commands(commands: Sequence[str]) -> None:
    with st.expander("The same in a terminal"):
        st.code("\n".join(commands), language="shell", wrap_lines=True)


@st.fragment(run_every=WATCH_SECONDS)
def watch(run: Path) -> None:
    """A running job, drawn again every two seconds; the whole page once it has ended."""
    job = job_in(run / IMPROVEMENTS)
    if job is None or not job.is_running:
        st.rerun()
    latest = latest_shown(run)
    lines = last_lines(run / IMPROVEMENTS, SEARCHED_LINES)
    if latest:
        show_steps(latest, running=True)
    progress = progress_in(lines)
    st.progress(progress.share, label(progress.words) or "Starting")
    st.caption("It goes on when you close this page. Stop keeps what is there, and it can continue later.")
    st.button("Stop", icon=":material/stop_circle:", on_click=stop, args=(run / IMPROVEMENTS,))
    _show_log(lines, expanded=True)


def show_steps(improvement: ShownImprovement, *, running: bool = False) -> None:
    now = next((step.name for step in improvement.steps if not step.is_done), "") if running else ""
    with st.container(horizontal=True):
        for step in improvement.steps:
            icon = DONE if step.is_done else NOW if step.name == now else LATER
            st.markdown(f"{icon} {NAMES[step.name]}")


def show_end(run: Path, job: Job | None) -> None:
    """Why an improvement is not finished: stopped, failed, or killed."""
    lines = last_lines(run / IMPROVEMENTS, SEARCHED_LINES)
    error, hint = explained(lines)
    if job and job.exit_code == INTERRUPTED:
        st.info("Stopped. Nothing is lost: it continues where it was.")
    elif error:
        show_problem(Told({}, error, hint))
    else:
        st.warning("It ended before it was finished, and nothing tells why: the machine may have stopped it.")
    _show_log(lines)


def _show_log(lines: Sequence[str], *, expanded: bool = False) -> None:
    if lines:
        with st.expander("Log", expanded=expanded):
            st.code("\n".join(lines[-SHOWN_LINES:]), language=None, wrap_lines=True)
