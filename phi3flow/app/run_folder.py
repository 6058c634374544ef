"""A run folder as `prepare`, `base` and `train` fill it: its two models, and the commands that make them."""

import shlex
from pathlib import Path

from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import read_manifest, sha256_of


def require_model(run: Path, name: str, hint: str = "") -> None:
    """Raises BadInput where `base` or `tuned` is not there; `hint` instead of the command that makes it."""
    if not (run / name / "config.json").is_file():
        raise BadInput(f"{run / name} is not a model folder", hint=hint or _command_that_makes(run, name))


def require_lineage(run: Path) -> None:
    """Raises BadInput where tuned/ says that it was trained from another model than base/."""
    inputs = (read_manifest(run / "tuned") or {}).get("inputs", [])
    start = next((artifact for artifact in inputs if artifact["kind"] == "model"), None)
    if start and start["sha256"] != sha256_of(run / "base"):
        raise BadInput(
            f"{run / 'tuned'} was trained from {start['path']} as it was then, which is not {run / 'base'}",
            hint=f"put that model into {run / 'base'}, or train again from the one that is there",
        )


def _command_that_makes(run: Path, name: str) -> str:
    data, base, tuned = (shlex.quote(str(run / part)) for part in ("data", "base", "tuned"))
    if name == "base":
        return f"phi3flow base --out {base}, or hf download ID --local-dir {base}"
    return f"phi3flow train --data {data} --recipe tiny-cpu --model {base} --out {tuned}"
