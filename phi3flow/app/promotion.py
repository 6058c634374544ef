"""Which model the chat app serves, decided by a verdict, or by a person who says why."""

import shlex
from datetime import UTC, datetime
from pathlib import Path

from phi3flow.app.run_folder import require_model
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json
from phi3flow.core.folder_lock import writing
from phi3flow.core.lineage import read_manifest, sha256_of
from phi3flow.core.served_model import (
    PROMOTIONS,
    Promotion,
    improvement_folder,
    keep_promotions,
    promotions,
    served_run,
)
from phi3flow.core.sides import TUNED

PROMOTE, REPORT = "promote", "report.json"


def promote_improvement(run: Path, number: int, because: str) -> Promotion:
    """Serve the model of this improvement from now on.

    Raises BadInput where it is served already, or where its comparison does not say promote, or is about
    other models; words in `because` overrule the verdict, but not that nothing was compared.
    """
    folder = improvement_folder(run, number)
    require_model(folder, TUNED.name, f"phi3flow improve {_quoted(run)} --resume")
    with writing(run / PROMOTIONS):
        standing = promotions(run)
        if standing and standing[-1].improvement == number:
            raise BadInput(f"{folder / TUNED.name} is served already", hint=f"phi3flow up {_quoted(run)}")
        verdict, reasons = _verdict_on(folder)
        problem = _problem(run, folder, verdict)
        if problem and not because.strip():
            told = "\n".join([problem, *reasons])
            raise BadInput(told, hint=f'phi3flow promote {_quoted(run)} --because "WHY IT IS SERVED ANYWAY"')
        now = datetime.now(UTC).isoformat(timespec="seconds")
        made = Promotion(number, now, verdict, because.strip() if problem else "")
        keep_promotions(run, [*standing, made])
    return made


def undo_promotion(run: Path) -> Path:
    """Serve the former model again; returns its folder. Raises BadInput where nothing was promoted."""
    with writing(run / PROMOTIONS):
        standing = promotions(run)
        if not standing:
            raise BadInput(f"{run}: nothing was promoted", hint=f"phi3flow promote {_quoted(run)}")
        keep_promotions(run, standing[:-1])
        return served_run(run) / TUNED.name


def _problem(run: Path, folder: Path, verdict: str) -> str:
    """Why the verdict is not enough, or an empty text."""
    if verdict != PROMOTE:
        return f"{folder}: the verdict is {verdict.replace('_', ' ')}, not promote"
    compared = {found["sha256"] for found in (read_manifest(folder) or {}).get("inputs", [])}
    present = served_run(run) / TUNED.name
    if sha256_of(present) not in compared:
        return f"{folder}: the comparison was with another model than {present}, which is served now"
    return ""


def _verdict_on(folder: Path) -> tuple[str, list[str]]:
    """The verdict on the model in `folder` and its reasons. Raises BadInput where no comparison tells."""
    compare = f"phi3flow compare {_quoted(folder)} --force"
    manifest, report = read_manifest(folder) or {}, folder / REPORT
    if manifest.get("kind") != "report" or not report.is_file():
        raise BadInput(f"{folder}: not compared yet", hint=compare)
    inputs, outputs = ({each["sha256"] for each in manifest[name]} for name in ("inputs", "outputs"))
    if sha256_of(report) not in outputs:
        raise BadInput(f"{report}: has changed since the comparison", hint=compare)
    if sha256_of(folder / TUNED.name) not in inputs:
        raise BadInput(f"{report} is about another model than {folder / TUNED.name}", hint=compare)
    told = read_json(report)
    return str(told["verdict"]), [str(reason) for reason in told.get("reasons", [])]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
