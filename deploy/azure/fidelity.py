"""Before any traffic: does the deployment answer, and is it the model that was trained?"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.azure.steps.serving import ask_at, show_log
from deploy.azure.steps.session import Cloud
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.files import write_json
from phi3flow.core.jsonl import read_jsonl, write_jsonl

if TYPE_CHECKING:
    from deploy.verify.exact_match import Reference
    from deploy.verify.gate import Verification

PROBES = "probes.jsonl"
QUESTION = "Who founded Microsoft?"


def require_fidelity(
    cloud: Cloud,
    endpoint: str,
    deployment: str,
    card: Path,
    *,
    base: bool,
    reference: "Reference | None",
    workers: int,
    out: Path,
) -> None:
    """Ask the deployment through the pinning header; `out` gets the findings.

    Raises Phi3flowError, after showing the container's log, unless it passes. The base is asked for its own
    recorded answers; what cannot be checked of it does not hold it back, as it never takes users' traffic.
    """
    asked = ask_at(cloud, endpoint, deployment)
    try:
        asked.complete([{"role": "user", "content": QUESTION}])
        found = _base_check(card, asked, workers) if base else _check(card, asked, reference, workers)
    except Exception:  # whatever it is, the container's log tells more; it is raised on
        show_log(cloud, endpoint, deployment)
        raise
    write_json(out, found.as_dict())
    for check in found.checks:
        say(f"  {check}")
    if found.result == "fail" or (found.result != "pass" and not base):
        wrong = [check.name for check in found.checks if check.result != "pass"]
        show_log(cloud, endpoint, deployment)
        raise Phi3flowError(
            f"verify: {', '.join(wrong)} of deployment {deployment} did not pass; it gets no traffic, "
            "and what was live still is",
            f"{out} has the answers; phi3flow azure teardown --old removes the deployment",
        )


def _check(card: Path, asked: object, reference: "Reference | None", workers: int) -> "Verification":
    from deploy.verify.gate import verify

    return verify(card, asked, reference, workers)  # type: ignore[arg-type]


def _base_check(card: Path, asked: object, workers: int) -> "Verification":
    """As for the tuned model, with what training recorded of the base."""
    rows = [row for row in read_jsonl(card / PROBES) if row.get("base_text")]
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as folder:
        copy = Path(folder)
        (copy / "tokenizer.json").write_bytes((card / "tokenizer.json").read_bytes())
        write_jsonl(copy / PROBES, map(_of_base, rows))
        return _check(copy, asked, None, workers)


def _of_base(row: dict[str, Any]) -> dict[str, Any]:
    finish = row.get("base_finish_reason")
    return row | {"tuned_text": row["base_text"], "tuned_finish_reason": finish, "base_text": None}
