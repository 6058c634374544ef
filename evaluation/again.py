"""Another gate over the answers of a finished comparison: no model is asked again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.compare import JUDGMENTS, LINES_ASKED, OWN_VALUES, TEST_DATA, read_recorded
from evaluation.judge.pairwise_summary import Judging
from evaluation.metrics.own import read_values, require_share
from evaluation.packs.packs import PackResult
from evaluation.report.comparison import SCHEMA, Report, compare_rows
from evaluation.report.render import Training, write_report
from evaluation.scored_rows import ScoredRow
from evaluation.statistics.contrasts import MetricContrast
from evaluation.statistics.scores import KINDS, Kind, Measured
from evaluation.verdict.gate import Gate
from evaluation.verdict.preference_decision import decide_preference
from evaluation.verdict.preference_file import load_judgments
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json
from phi3flow.core.lineage import Artifact, read_manifest, sha256_of, write_manifest
from phi3flow.core.sides import SIDES
from phi3flow.core.validation import validated

REPORT = "report.json"


@dataclass(frozen=True)
class _Measured:
    """What no gate changes, as `report.json` has it."""

    metrics: dict[str, MetricContrast]
    unavailable: dict[str, str]
    packs: dict[str, PackResult]
    judge: Judging | None
    lineage: dict[str, Any]
    in_training: int
    notes: list[str]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison in a folder: its rows with both answers, and what else was measured."""

    folder: Path
    asked: Path
    rows: list[ScoredRow]
    measured: _Measured
    judgments: Path | None
    own: Measured

    def decided_by(self, gate: Gate) -> Report:
        """The report under `gate`. Raises BadInput where an own metric decides that is no share."""
        require_share(self.own, gate, self.asked)
        seen = self.measured
        report = compare_rows(
            self.rows,
            gate,
            lineage=seen.lineage,
            measured=[self.own],
            packs=seen.packs,
            judge=self._judged_by(gate),
            in_training=seen.in_training,
            notes=seen.notes,
        )
        return replace(report, metrics=seen.metrics, unavailable=seen.unavailable)

    def _judged_by(self, gate: Gate) -> Judging | None:
        judge = self.measured.judge
        if judge is None or self.judgments is None:
            return judge
        failures = load_judgments(self.judgments).failures
        unanswered = len(self.rows) - judge.expected
        verdict = decide_preference(judge.preference, gate, failures, unanswered=unanswered)
        return replace(judge, **vars(verdict))

    def write(self, report: Report, out: Path, training: Training | None) -> None:
        """The three forms of the report, and a manifest that names the comparison."""
        written = write_report(report, self.rows, out, training=training, columns=self.own.columns)
        source = [Artifact.of("report", self.folder / REPORT)]
        outputs = [Artifact.of("report", path) for path in written]
        write_manifest(out, "report", inputs=source, outputs=outputs, seed=0)


def finished_comparison(folder: Path) -> Comparison:
    """Raises BadInput where no comparison is, or where its files are gone or have changed since."""
    manifest = read_manifest(folder) or {}
    if manifest.get("kind") != "report" or not (folder / REPORT).is_file():
        raise BadInput(f"{folder}: no comparison in it", hint=f"phi3flow compare {folder}")
    inputs, outputs = (manifest.get(name, []) for name in ("inputs", "outputs"))
    written = {Path(found["path"]).name: found["sha256"] for found in outputs}
    if written.get(REPORT) != sha256_of(folder / REPORT):
        raise _changed(folder / REPORT)
    artifacts = {found["kind"]: found for found in (*inputs, *outputs)}
    answers = [_found(folder, artifacts, f"{side.name} answers") for side in SIDES]
    asked = _found(folder, artifacts, LINES_ASKED if LINES_ASKED in artifacts else TEST_DATA)
    recorded = read_recorded(asked, *answers)
    judgments = _found(folder, artifacts, JUDGMENTS) if JUDGMENTS in artifacts else None
    values = _found(folder, artifacts, OWN_VALUES) if OWN_VALUES in artifacts else None
    own = read_values(values) if values else Measured({}, {})
    return Comparison(folder, asked, list(recorded.rows), _measured(folder / REPORT), judgments, own)


def _measured(path: Path) -> _Measured:
    report = read_json(path)
    if report.get("schema") != SCHEMA:
        raise BadInput(f"{path}: not a report of this version", hint="compare again")
    kept = {name: report[name] for name in _Measured.__dataclass_fields__ if name in report}
    kept["metrics"] = {  # reports of 0.1.0 do not say what kind a metric is
        name: {"kind": KINDS.get(name, Kind.SHARE), **values} for name, values in report["metrics"].items()
    }
    return validated(_Measured, kept, str(path), hint="compare again: an older version wrote this report")


def _found(folder: Path, artifacts: Mapping[str, Mapping[str, str]], kind: str) -> Path:
    """The file as it was compared: where it was then, or in this folder, which may have been moved."""
    if kind not in artifacts:
        raise BadInput(
            f"{folder}: {kind} were not kept", hint="an older version made this comparison: compare again"
        )
    written = Path(artifacts[kind]["path"])
    beside = (folder.joinpath(*written.parts[-length:]) for length in (1, 2))
    for path in (written, *beside):
        if path.is_file() and sha256_of(path) == artifacts[kind]["sha256"]:
            return path
    raise _changed(written)


def _changed(path: Path) -> BadInput:
    return BadInput(f"{path}: gone or changed since it was compared", hint="put it back, or compare again")
