"""The improve page: what people said, a training on it, a comparison, and the promotion of the new model.

Everything runs the commands of a terminal, and what it makes is in the run folder.
"""

from pathlib import Path

import streamlit as st

from phi3flow.core.background import job_in
from phi3flow.core.errors import BadInput
from phi3flow.core.folder_lock import writing
from phi3flow.core.served_model import IMPROVEMENTS
from phi3flow.core.sides import TUNED
from ui.improving.collected import choose, show_rows, show_said
from ui.improving.serving import offer_promotion, served_now, show_served
from ui.improving.training import (
    begin,
    show_commands,
    show_end,
    show_needs,
    show_problem,
    show_refusal,
    show_steps,
    watch,
)
from ui.improving.verbs import plan
from ui.login import on_this_machine
from ui.rendering import label
from ui.report_page import show_comparison
from ui.store.improvements import ShownImprovement, latest_shown
from ui.store.latest_report import REPORT
from ui.workspace import this_workspace


def main() -> None:
    show_page(this_workspace().run, may_change=on_this_machine())


def show_page(run: Path, *, may_change: bool) -> None:
    """With `may_change`, for the person at this machine: read what others wrote, train, promote."""
    st.title("Improve")
    if not (run / TUNED.name / "config.json").is_file():
        st.info("What answers here was not trained here. What people said about it becomes a file with:")
        st.code(f"phi3flow feedback {run} --out preferences.jsonl", language="shell", wrap_lines=True)
        return
    now = served_now(run)
    show_served(run, now, may_change=may_change)
    show_refusal()
    if not may_change:
        st.info("Whoever runs this server trains and promotes, on its own machine:")
        st.code(f"phi3flow improve {run}", language="shell", wrap_lines=True)
        return
    _work(run, served=now.improvement if now else 0)


def _work(run: Path, served: int) -> None:
    """What the run is at: a running training, one that ended, its result, or none yet."""
    job, latest = job_in(run / IMPROVEMENTS), latest_shown(run)
    if job and job.is_running:
        st.subheader("Training", anchor=False)
        watch(run)
    elif latest and latest.is_done:
        _result(run, latest, served=served == latest.number)
        _another(run)
    elif latest:
        _unfinished(run, latest)
    else:
        _plan(run)


def _plan(run: Path) -> None:
    """What there is to learn from, and what it would take."""
    st.subheader("What people said", anchor=False)
    counts = st.container()  # filled once they are known
    chosen = choose()
    with st.spinner("Reading what people said"):
        told = plan(run, chosen.options())
    if told.error:
        show_problem(told)
        return
    with counts:
        show_said(told.data["said"])
    show_rows(told.data, replaced=chosen.replace_personal)
    if not told.data["rows"]:
        st.info("There is nothing to learn from yet: vote in the arena, or give thumbs and corrections.")
        return
    st.subheader("Training", anchor=False)
    show_needs(told.data["training"])
    show_commands(told.data["commands"])
    if not _held(run):
        started = (run, *chosen.options(), "--start")
        st.button("Start the training", type="primary", on_click=begin, args=started)


def _another(run: Path) -> None:
    """The plan of one more improvement, which takes seconds to find out: for who opens it."""
    another = st.expander("Another improvement", on_change="rerun", key="another")
    if another.open:
        with another:
            _plan(run)


def _unfinished(run: Path, latest: ShownImprovement) -> None:
    st.subheader("Training", anchor=False)
    show_steps(latest)
    show_end(run, job_in(run / IMPROVEMENTS))
    show_commands([step.command for step in latest.steps])
    if not _held(run):
        st.button("Continue", type="primary", on_click=begin, args=(run, "--resume"))
    _another(run)


def _result(run: Path, latest: ShownImprovement, *, served: bool) -> None:
    st.subheader("New model against the present one", anchor=False)
    new = (latest.folder / TUNED.name).relative_to(run.parent)
    st.caption(
        label(
            f"tuned is the new model, {new}; base is the one that it started from. The test set is the run's."
        )
    )
    show_comparison(latest.report, latest.folder / REPORT)
    show_steps(latest)
    show_commands([step.command for step in latest.steps])
    if not served:
        offer_promotion(run, latest)


def _held(run: Path) -> bool:
    """Whether another command writes the run; says which."""
    try:
        with writing(run), writing(run / TUNED.name), writing(run / IMPROVEMENTS):
            return False
    except BadInput as error:
        st.info(label(f"{error}. A training can start once it has ended."))
        return True


if __name__ == "__main__":
    main()
