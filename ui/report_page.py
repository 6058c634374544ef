"""The report page: the latest comparison, the loss curve and the lineage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from phi3flow.core.lineage import MANIFEST, read_manifest
from phi3flow.core.served_model import served_run
from phi3flow.core.sides import SIDES, TUNED
from ui.rendering import label, plain_html
from ui.store.latest_report import latest_report, verdict_of
from ui.workspace import SHOWN_HASH, this_workspace

COLOURS: dict[str, Literal["green", "red", "orange"]] = {
    "promote": "green",
    "hold": "red",
    "not enough data": "orange",
}


def main() -> None:
    workspace = this_workspace()
    run = served_run(workspace.run)
    st.title("Report")
    st.caption(label(f"of the run {run.relative_to(workspace.run.parent)}"))
    report, path = latest_report(run)
    if report:
        show_comparison(report, path)
    else:
        st.info("Base and tuned have not been compared yet. Stop this server and run:")
        st.code(f"phi3flow compare {run}", language="shell", wrap_lines=True)
    _training(run)
    _lineage(run)


def show_comparison(report: Mapping[str, Any], path: Path) -> None:
    """The verdict with its reasons, both figures, and the whole report as a file."""
    verdict = verdict_of(report)
    st.badge(verdict, color=COLOURS.get(verdict, "gray"))
    for reason in report.get("reasons", []):
        st.html(plain_html(str(reason)))
    for note in report.get("notes", []):
        st.html(plain_html(f"Note: {note}"))
    primary = report.get("gate", {}).get("primary", "exact_match")
    measured = report.get("metrics", {}).get(primary, {})
    columns = st.columns(3)
    for column, side in zip(columns, SIDES, strict=False):
        with column:
            if measured and primary != "exact_match":
                _share(f"{side.name}, {primary.replace('_', ' ')}", measured, side.name)
            else:
                _share(f"{side.name}, exact match", report.get(side.name, {}), "exact_match")
    with columns[2]:
        above = "win rate above one half" if primary == "win_rate" else "difference"
        _share(f"{above} in points", report, "difference", unit="")
    st.caption(
        f"{report.get('answered', 0)} of {report.get('expected', 0)} rows answered, "
        f"{report.get('failed', 0)} failed. The range below each value is its 95 % CI."
    )
    page = path.with_suffix(".html")
    if page.is_file():
        st.download_button(
            "Full report (HTML)", page.read_bytes(), "report.html", "text/html", on_click="ignore"
        )


def _share(title: str, values: Mapping[str, Any], name: str, unit: str = " %") -> None:
    """A value and its CI, in percent or points. The CI is grey: it is no change for better or worse."""
    value, interval = values.get(name), values.get(f"{name}_ci")
    shown = f"{100 * value:.1f}{unit}" if isinstance(value, int | float) else "none"
    between = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}{unit}" if interval else None
    st.metric(title, shown, between, delta_color="off", delta_arrow="off")


def _training(run: Path) -> None:
    st.subheader("Training", anchor=False)
    curve = run / TUNED.name / "loss.png"
    if curve.is_file():
        st.image(curve.read_bytes(), caption="Loss of the tuned model on training and validation data")
    else:
        st.caption("No loss curve in this run.")


def _lineage(run: Path) -> None:
    """Every manifest of the run, oldest first. Inputs made in this run name the folder they came from."""
    st.subheader("Lineage", anchor=False)
    st.caption(
        f"Each step with its inputs and outputs. Hashes are the first {SHOWN_HASH} digits of the SHA-256."
    )
    folders = [path.parent for path in [*run.glob(MANIFEST), *run.glob(f"*/{MANIFEST}")]]
    manifests = {folder: read_manifest(folder) or {} for folder in folders}
    makers = {
        artifact["sha256"]: folder.name
        for folder, manifest in manifests.items()
        for artifact in manifest.get("outputs", [])
    }
    for folder, manifest in sorted(manifests.items(), key=lambda item: str(item[1].get("created"))):
        with st.expander(label(f"{folder.name}: {manifest.get('kind')}, {manifest.get('created')}")):
            for name in ("command", "commit"):
                st.text(f"{name}: {manifest.get(name) or 'none'}")
            inputs = [_short(artifact, makers) for artifact in manifest.get("inputs", [])]
            st.text("\n".join(["from:", *(inputs or ["  nothing"])]))
            st.text("\n".join(["made:", *(_short(artifact, {}) for artifact in manifest.get("outputs", []))]))
    if not manifests:
        st.caption("No manifests in this run.")


def _short(artifact: Mapping[str, str], makers: Mapping[str, str]) -> str:
    maker = makers.get(artifact["sha256"])
    return f"  {artifact['kind']} {artifact['sha256'][:SHOWN_HASH]}" + (f" from {maker}" if maker else "")


if __name__ == "__main__":
    main()
