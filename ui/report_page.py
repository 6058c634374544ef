"""The report page: what the latest comparison found, how the training went, where everything came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from ui.rendering import label, plain_html
from ui.run_record import SHOWN_HASH, VERDICTS, Step, lineage, newest_report, read_report
from ui.workspace import this_workspace

COLOURS: dict[str, Literal["green", "red", "orange"]] = {
    "promote": "green",
    "hold": "red",
    "not_enough_data": "orange",
}


def main() -> None:
    run = this_workspace().run
    st.title("Report")
    st.caption(label(f"of the run {run.name}"))
    report, path = read_report(run), newest_report(run)
    if path and report:
        _comparison(report, path)
    else:
        st.info("Base and tuned are not compared yet. Stop this server, and type:")
        st.code(f"phi3flow compare {run}", language="shell", wrap_lines=True)
    _training(run)
    _lineage(lineage(run))


def _comparison(report: Mapping[str, Any], path: Path) -> None:
    verdict = str(report.get("verdict"))
    st.badge(VERDICTS.get(verdict, "unknown"), color=COLOURS.get(verdict, "gray"))
    for reason in report.get("reasons", []):
        st.html(plain_html(str(reason)))
    sides = st.columns(3)
    for column, side in zip(sides, ("base", "tuned"), strict=False):
        with column:
            _share(f"{side}, exact match", report.get(side, {}), "exact_match")
    with sides[2]:
        _share("difference in points", report, "difference", unit="")
    st.caption(
        f"{report.get('answered', 0)} of {report.get('expected', 0)} rows answered, "
        f"{report.get('failed', 0)} failed. Below each figure its 95 % interval."
    )
    whole = path.with_suffix(".html")
    if whole.is_file():
        st.download_button(
            "The whole report (HTML)", whole.read_bytes(), "report.html", "text/html", on_click="ignore"
        )


def _share(title: str, figures: Mapping[str, Any], name: str, unit: str = " %") -> None:
    """A figure and its interval in percent or points; the interval is neither good nor bad news."""
    value, interval = figures.get(name), figures.get(f"{name}_ci")
    shown = f"{100 * value:.1f}{unit}" if isinstance(value, int | float) else "none"
    between = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}{unit}" if interval else None
    st.metric(title, shown, between, delta_color="off", delta_arrow="off")


def _training(run: Path) -> None:
    st.subheader("Training", anchor=False)
    curve = run / "tuned" / "loss.png"
    if curve.is_file():
        st.image(curve.read_bytes(), caption="Loss of the tuned model on training and validation data")
    else:
        st.caption("No loss curve in this run.")


def _lineage(steps: list[Step]) -> None:
    st.subheader("Lineage", anchor=False)
    st.caption(f"What was made from what; names are the first {SHOWN_HASH} digits of a content's SHA-256.")
    for step in steps:
        with st.expander(label(f"{step.folder}: {step.kind}, {step.created}")):
            for name in ("command", "commit"):
                st.text(f"{name}: {getattr(step, name) or 'none'}")
            st.text("\n".join(["from:", *(f"  {each}" for each in step.inputs or ["nothing"])]))
            st.text("\n".join(["made:", *(f"  {each}" for each in step.outputs)]))
    if not steps:
        st.caption("No manifests in this run.")


main()
