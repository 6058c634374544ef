"""The latest comparison of a run, as the pages show it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3flow.core.files import read_json
from phi3flow.core.lineage import MANIFEST

REPORT = "report.json"
VERDICTS = {"promote": "promote", "hold": "hold", "not_enough_data": "not enough data"}


def latest_report(run: Path) -> tuple[dict[str, Any], Path]:
    """The latest `report.json` in the run or a folder of it, and its path; empty if there is none."""
    found = [*run.glob(REPORT), *run.glob(f"*/{REPORT}")]
    path = max(found, key=lambda path: path.stat().st_mtime, default=run / REPORT)
    return json_in(path), path


def verdict_on(run: Path, model_hash: str) -> str:
    """The latest report's verdict if it is about the model with this hash, else why there is none."""
    report, path = latest_report(run)
    if not report or not model_hash:
        return "not compared yet, see the report page"
    compared = {artifact["sha256"] for artifact in json_in(path.parent / MANIFEST).get("inputs", [])}
    if model_hash not in compared:
        return "the latest report is about another model"
    return verdict_of(report)


def verdict_of(report: Mapping[str, Any]) -> str:
    """A report's verdict in words."""
    return VERDICTS.get(str(report.get("verdict")), "unknown")


def json_in(path: Path) -> dict[str, Any]:
    """A JSON object of our own; empty if missing or broken: the page shows what there is."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
