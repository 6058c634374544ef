"""The metrics that `--metric` chooses: the user's functions, and ours of structured answers by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.metrics import structured
from evaluation.metrics.likelihood import LOG_LIKELIHOOD
from evaluation.metrics.own_functions import ASKED
from evaluation.metrics.text_metrics import TEXT_METRICS
from evaluation.statistics.scores import METRICS, STRUCTURED
from evaluation.verdict.gate import PRIMARY
from phi3flow.core.errors import BadInput, nearest
from phi3flow.core.lineage import Artifact, sha256_of

SHAPE = "--metric FILE.py:FUNCTION"
TAKEN = frozenset(
    {
        *METRICS,
        *PRIMARY,
        *TEXT_METRICS,
        *STRUCTURED,
        LOG_LIKELIHOOD,
        "lines",
        "judge_grade",
        "judge_failed",
    }
)


@dataclass(frozen=True)
class ChosenMetric:
    """A function in a file of Python, which gives the metric its name; `schema` is for rows without one."""

    file: Path
    name: str
    ours: bool = False
    schema: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return self.name if self.ours else f"{self.file}:{self.name}"

    def function(self) -> dict[str, Any]:
        """As `own_functions` is asked for it."""
        takes = [*ASKED, *(["schema"] if self.ours and self.name == structured.SCHEMA_VALID else [])]
        return {"name": self.name, "file": str(self.file.resolve()), "takes": takes}

    def require(self, rows: Sequence[structured.Row], data: Path) -> None:
        """Raise BadInput for rows of `data` that lack what the metric needs."""
        if self.ours and self.name == structured.SCHEMA_VALID:
            structured.require_schemas(rows, data, self.schema)


def chosen_metrics(given: Iterable[str], schema: Path | None = None) -> list[ChosenMetric]:
    """From `FILE.py:FUNCTION` and names of ours; `schema` is the file of `schema_valid`.

    Raises BadInput for what names neither, for names that exist already, and for a schema without its metric.
    """
    found: dict[str, ChosenMetric] = {}
    for text in given:
        made = _ours(text, schema) or _own(text)
        if made.name in found or (made.name in TAKEN and not made.ours):
            other = str(found[made.name]) if made.name in found else "a metric of phi3flow"
            hint = f"rename {made.name} in {made.file}" if not made.ours else "name it once"
            raise BadInput(f"--metric {text}: {other} has this name", hint=hint)
        found[made.name] = made
    if schema and structured.SCHEMA_VALID not in found:
        raise BadInput(f"--schema {schema}: no metric uses it", hint=f"--metric {structured.SCHEMA_VALID}")
    return list(found.values())


def _ours(name: str, schema: Path | None) -> ChosenMetric | None:
    if name not in STRUCTURED:
        return None
    read = structured.read_schema(schema) if schema and name == structured.SCHEMA_VALID else None
    return ChosenMetric(structured.FILE, name, ours=True, schema=read)


def _own(text: str) -> ChosenMetric:
    file, _, name = text.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        ours = f"; {nearest(text, STRUCTURED)}"
        raise BadInput(f"--metric {text}: names no function in a file of Python", hint=SHAPE + ours)
    if not Path(file).is_file():
        raise BadInput(f"--metric {text}: {file}: no such file", hint="check the path")
    return ChosenMetric(Path(file), name)


def lineage_of(metrics: Sequence[ChosenMetric]) -> dict[str, Any]:
    """For reports: the file of each metric of the user and its hash, and the schema of ours."""
    own = {one.name: {"file": one.file.as_posix(), "sha256": sha256_of(one.file)} for one in _own_of(metrics)}
    schema = next((one.schema for one in metrics if one.schema is not None), None)
    return ({"own metrics": own} if own else {}) | ({"schema": schema} if schema is not None else {})


def files_of(metrics: Sequence[ChosenMetric]) -> list[Artifact]:
    """The user's files, for the manifest."""
    return [Artifact.of("own metric", one.file) for one in _own_of(metrics)]


def _own_of(metrics: Sequence[ChosenMetric]) -> list[ChosenMetric]:
    return [one for one in metrics if not one.ours]
