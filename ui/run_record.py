"""What the pages read from a run folder: the models, the latest report and the lineage."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from phi3flow.core.jsonl import read_jsonl
from phi3flow.core.lineage import MANIFEST, read_manifest
from ui.conversations import Model

REPORT, SAMPLES = "report.json", "samples.jsonl"
SAMPLE_COUNT, SAMPLE_LENGTH = 3, 120
SHOWN_HASH = 12
VERDICTS = {"promote": "promote", "hold": "hold", "not_enough_data": "not enough data"}


class Step(NamedTuple):
    """One manifest. Inputs made in this run name the folder they came from."""

    folder: str
    kind: str
    created: str
    command: str
    commit: str
    inputs: list[str]
    outputs: list[str]


def model_of(run: Path, name: str) -> Model:
    """Model `base` or `tuned` of the run; hashes are empty without a manifest."""
    manifest = _json(run / name / MANIFEST)
    hashes = {artifact["kind"]: artifact["sha256"] for artifact in reversed(manifest.get("inputs", []))}
    own = [artifact["sha256"] for artifact in manifest.get("outputs", [])]
    return Model(name, own[0] if own else "", hashes.get("data", ""))


def latest_report(run: Path) -> tuple[dict[str, Any], Path]:
    """The latest `report.json` in the run or a folder of it, and its path; empty if there is none."""
    found = [*run.glob(REPORT), *run.glob(f"*/{REPORT}")]
    path = max(found, key=lambda path: path.stat().st_mtime, default=run / REPORT)
    return _json(path), path


def verdict_on(run: Path, model_hash: str) -> str:
    """The latest report's verdict if it is about the model with this hash, else why there is none."""
    report, path = latest_report(run)
    if not report or not model_hash:
        return "not compared yet, see the report page"
    compared = {artifact["sha256"] for artifact in _json(path.parent / MANIFEST).get("inputs", [])}
    if model_hash not in compared:
        return "the latest report is about another model"
    return VERDICTS.get(str(report.get("verdict")), "unknown")


def sample_questions(run: Path) -> list[str]:
    """Questions for an empty page: `samples.jsonl` of the run, or the first short validation prompts."""
    if (run / SAMPLES).is_file():
        return [row["question"] for row in read_jsonl(run / SAMPLES)]
    chats = run / "data" / "val.jsonl"
    rows = read_jsonl(chats) if chats.is_file() else []
    asked = [next(turn["content"] for turn in row["messages"] if turn["role"] == "user") for row in rows]
    return [question for question in dict.fromkeys(asked) if len(question) <= SAMPLE_LENGTH][:SAMPLE_COUNT]


def lineage(run: Path) -> list[Step]:
    """Every manifest of the run, oldest first."""
    folders = [path.parent for path in [*run.glob(MANIFEST), *run.glob(f"*/{MANIFEST}")]]
    manifests = {folder: read_manifest(folder) or {} for folder in folders}
    makers = {
        artifact["sha256"]: folder.name
        for folder, manifest in manifests.items()
        for artifact in manifest.get("outputs", [])
    }
    steps = [_step(folder, manifest, makers) for folder, manifest in manifests.items()]
    return sorted(steps, key=lambda step: step.created)


def _step(folder: Path, manifest: Mapping[str, Any], makers: Mapping[str, str]) -> Step:
    texts = {name: str(manifest.get(name) or "") for name in ("kind", "created", "command", "commit")}
    return Step(
        folder.name,
        **texts,
        inputs=[_short(artifact, makers) for artifact in manifest.get("inputs", [])],
        outputs=[_short(artifact, {}) for artifact in manifest.get("outputs", [])],
    )


def _short(artifact: Mapping[str, str], makers: Mapping[str, str]) -> str:
    maker = makers.get(artifact["sha256"])
    return f"{artifact['kind']} {artifact['sha256'][:SHOWN_HASH]}" + (f" from {maker}" if maker else "")


def _json(path: Path) -> dict[str, Any]:
    """A JSON object of our own; empty if missing or broken: the page shows what there is."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
