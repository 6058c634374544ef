"""The run's manifest records each finished step, so that later steps find its names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import Artifact, read_manifest, write_manifest


def record(
    folder: Path,
    step: str,
    details: Mapping[str, Any],
    inputs: list[Artifact] | None = None,
    outputs: list[Artifact] | None = None,
) -> None:
    """Add `step` to `folder/manifest.json`; other steps stay, and so do their inputs and outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    before = read_manifest(folder) or {}

    def merged(name: str, new: list[Artifact] | None) -> list[Artifact]:
        known = [Artifact(**entry) for entry in before.get(name, [])]
        fresh = [artifact for artifact in new or [] if artifact not in known]
        return [old for old in known if old.path not in {one.path for one in fresh}] + fresh

    steps = {**before.get("steps", {}), step: dict(details)}
    write_manifest(
        folder,
        "azure",
        inputs=merged("inputs", inputs),
        outputs=merged("outputs", outputs),
        details={"steps": steps},
    )


def recorded(folder: Path, step: str) -> dict[str, Any]:
    """What `step` wrote. Raises BadInput where it has not been done."""
    done = (read_manifest(folder) or {}).get("steps", {}).get(step)
    if done is None:
        raise BadInput(f"{folder}: no {step} is recorded there", f"phi3flow azure {step} --out {folder}")
    return dict(done)
