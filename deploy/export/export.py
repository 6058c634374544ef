"""One export: convert, judge the result through its own runtime, and only then let it appear."""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from deploy.export.exporter import Exporter, Judged, Source, Stored
from deploy.export.held_out import held_out_rows, reference_from
from deploy.export.recorded import PROBES, recorded_answers
from deploy.verify.checks import Check
from deploy.verify.fidelity import Reference, Verification, verify
from phi3flow.chats.system_prompt import FIELD as SYSTEM_PROMPT
from phi3flow.chats.system_prompt import recorded_system_prompt
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError, nearest
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import Artifact, new_output, write_manifest

WORKERS = 1  # requests at a time: a batch has other arithmetic than an answer alone


@dataclass(frozen=True)
class Exported:
    """The folder, how its weights are stored, on how many prompts it was checked, and how that went."""

    folder: Path
    format: str
    weights: Stored
    probes: int
    checks: list[Check]


class HeldOut(NamedTuple):
    """A test file; without `at_least` the model itself says how many exact answers are enough."""

    data: Path
    at_least: float | None


def export(
    model: Path, out: Path, exporter: Exporter, *, weights: str | None = None, held_out: HeldOut | None = None
) -> Exported:
    """Convert a model folder; `out` appears when it is complete and has passed verify's checks.

    Without `held_out` the rows are those that the model's manifest leads to. Raises BadInput for an unusable
    model, unknown `weights` or an existing `out`, Phi3flowError for a missing package and a failed check.
    """
    new_output(out)
    stored_as = weights or next(iter(exporter.weights))
    if stored_as not in exporter.weights:
        raise BadInput(
            f"{exporter.name} has no weights '{stored_as}'", hint=nearest(stored_as, exporter.weights)
        )
    rows = _rows_for(exporter.weights[stored_as], stored_as, model, held_out)
    exporter.require(model)
    work = out.with_name(f".{out.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        exported = _export(model, work, exporter, stored_as, rows)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return replace(exported, folder=out)


def _rows_for(judged: Judged, weights: str, model: Path, held_out: HeldOut | None) -> HeldOut | None:
    """Raises BadInput where rows are needed and there are none, and where they have nothing to judge."""
    if held_out and judged is Judged.BY_ANSWERS:
        raise BadInput(
            f"{weights} has to give every recorded answer: no rows judge it", hint="leave out --check"
        )
    if held_out or judged is Judged.BY_ANSWERS:
        return held_out
    found = None if judged is Judged.BY_TOKENS else held_out_rows(model)
    if found is None and judged is Judged.BY_ROWS:
        raise BadInput(
            f"{weights} is judged on held-out rows, and {model} leads to none",
            hint="add --check FILE with chats that it was not trained on, such as prepare's test.jsonl",
        )
    return HeldOut(found, None) if found else None


def _export(model: Path, work: Path, exporter: Exporter, weights: str, rows: HeldOut | None) -> Exported:
    source = _source(model)
    say(f"converting the model to {exporter.name}, {weights}")
    stored = exporter.convert(source, work, weights)
    write_jsonl(work / PROBES, source.probes)
    about = {"format": exporter.name, **asdict(stored), "probes": len(source.probes)}
    about[SYSTEM_PROMPT] = recorded_system_prompt(model)
    _write_manifest(model, work, about)  # which serving reads
    say("asking the converted model")
    checks = _judged(model, work, exporter, stored, rows).checks
    _write_manifest(model, work, about | {"checks": [check._asdict() for check in checks]})
    return Exported(work, exporter.name, stored, len(source.probes), checks)


def _write_manifest(model: Path, work: Path, about: dict[str, Any]) -> None:
    inputs, outputs = [Artifact.of("model", model)], [Artifact.of("model", work)]
    write_manifest(work, "model", inputs=inputs, outputs=outputs, details=about)


def _source(model: Path) -> Source:
    from transformers.utils import logging

    from training.models.loading import load_config, load_tokenizer

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    config, tokenizer = load_config(str(model)), load_tokenizer(str(model))
    return Source(model, config, tokenizer, recorded_answers(model, config, tokenizer))


def _judged(
    model: Path, work: Path, exporter: Exporter, stored: Stored, rows: HeldOut | None
) -> Verification:
    """Raises Phi3flowError unless every check that can be made passes."""
    if rows is None:
        found = _verified(work, exporter, None)
    elif rows.at_least is not None:
        found = _verified(work, exporter, Reference(rows.data, rows.at_least))
    else:
        with reference_from(model, rows.data) as reference:
            found = _verified(work, exporter, reference)
    if rows is None and stored.agreement is not None:
        found = _by_agreement(found, stored.agreement)
    failed = [check for check in found.checks if check.result == "fail"]
    if failed:
        raise Phi3flowError(
            "the converted model answers differently: " + "; ".join(map(str, failed)),
            hint=f"export with other weights: {', '.join(exporter.weights)}; or serve {model} itself",
        )
    return found


def _verified(work: Path, exporter: Exporter, reference: Reference | None) -> Verification:
    with exporter.serving(work) as endpoint:
        return verify(work, endpoint, reference, WORKERS)


def _by_agreement(found: Verification, agreement: float) -> Verification:
    """Without held-out rows quantised weights are judged by their tokens, which the conversion counted."""
    text = Check("text", "pass", f"{agreement:.1%} of the tokens of the recorded answers are unchanged")
    return replace(found, checks=[text if check.name == "text" else check for check in found.checks])
