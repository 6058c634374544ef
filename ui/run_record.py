"""What a run folder says of itself: who answers, what was found, and where it all came from."""

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
    """One manifest of the lineage, and the folders of the run that its inputs were made in."""

    folder: str
    kind: str
    created: str
    command: str
    commit: str
    inputs: list[str]
    outputs: list[str]


def model_of(run: Path, name: str) -> Model:
    """`base` or `tuned` of the run; hashes are empty where no manifest tells them."""
    manifest = _json(run / name / MANIFEST)
    hashes = {artifact["kind"]: artifact["sha256"] for artifact in reversed(manifest.get("inputs", []))}
    own = [artifact["sha256"] for artifact in manifest.get("outputs", [])]
    return Model(name, own[0] if own else "", hashes.get("data", ""))


def newest_report(run: Path) -> Path | None:
    """The latest `report.json` in the run or a folder of it."""
    found = [*run.glob(REPORT), *run.glob(f"*/{REPORT}")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def read_report(run: Path) -> Mapping[str, Any]:
    """The latest report, or nothing."""
    path = newest_report(run)
    return _json(path) if path else {}


def verdict_on(run: Path, model_hash: str) -> str:
    """The verdict of the latest report if it is about this very model."""
    path = newest_report(run)
    if path is None or not model_hash:
        return "not compared yet, see the report page"
    compared = {artifact["sha256"] for artifact in _json(path.parent / MANIFEST).get("inputs", [])}
    if model_hash not in compared:
        return "the latest report is about another model"
    return VERDICTS.get(str(_json(path).get("verdict")), "unknown")


def sample_questions(run: Path) -> list[str]:
    """Some to begin with: of the run's `samples.jsonl`, or the first ones of its validation chats."""
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
    def shown(side: str) -> list[str]:
        return [
            f"{artifact['kind']} {artifact['sha256'][:SHOWN_HASH]}"
            + (
                f" from {makers[artifact['sha256']]}"
                if side == "inputs" and artifact["sha256"] in makers
                else ""
            )
            for artifact in manifest.get(side, [])
        ]

    words = {name: str(manifest.get(name) or "") for name in ("kind", "created", "command", "commit")}
    return Step(folder.name, **words, inputs=shown("inputs"), outputs=shown("outputs"))


def _json(path: Path) -> dict[str, Any]:
    """A file of ours, or nothing: the page shows what there is, and the verbs complain."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
