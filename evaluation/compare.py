"""The comparison from end to end: answers, statistics, verdict, report."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.asking.answer_file import open_answers
from evaluation.asking.batch import DIRECT, PROMPT_FLOW, answer_files, run_compare
from evaluation.asking.forecast import say_forecast
from evaluation.asking.measuring import ServedFlow, measure, ready
from evaluation.asking.subset import subset_of
from evaluation.asking.test_set import require_as_prepared, rows_in_training
from evaluation.judge.declining import declining_judge
from evaluation.judge.grades import check_metrics, grade
from evaluation.judge.pairwise import Judge
from evaluation.judge.pairwise_summary import Judging, judgment_rows, sum_up
from evaluation.metrics.chosen import ChosenMetric, files_of, lineage_of
from evaluation.metrics.content_safety import PACK, Project, grade_safety, parse_project
from evaluation.metrics.likelihood import not_measured, reference_likelihoods
from evaluation.metrics.own import require_share, score_answers, try_metrics, write_values
from evaluation.metrics.text_metrics import score_texts
from evaluation.packs.pack_file import PackRow
from evaluation.packs.packs import PackResult, SaysDeclined, run_packs
from evaluation.report.comparison import Report, compare_rows
from evaluation.report.render import Training, write_report
from evaluation.scored_rows import Lazy, ScoredRow, answered_pairs, chats_in, say_failures, scored_rows
from evaluation.statistics.formats import counted
from evaluation.statistics.scores import Measured
from evaluation.verdict.gate import WIN_RATE, Gate
from phi3flow.chats.system_prompt import shared_system_prompt
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import Artifact, write_manifest
from phi3flow.core.sides import BASE, SIDES, TUNED

TEST_DATA, LINES_ASKED, JUDGMENTS = "test data", "lines asked", "judgments"
OWN_VALUES = "own metrics"
_Graders = tuple[Judge | None, Project | None]


@dataclass(frozen=True)
class Options:
    """How answers are compared. None or empty switches a part off.

    `judge` is the connection of a judge, `text_metrics` the package that computes ROUGE, BLEU and the like,
    `foundry_project` the project that grades content safety. `own` are the user's own metrics. `packs` are
    asked of both models, unless their answers are recorded. `rows` is the number of lines of the test file
    that are asked, at equal distances.
    """

    gate: Gate
    workers: int
    judge: str | None = None
    judge_metrics: Sequence[str] = ()
    text_metrics: str | None = None
    foundry_project: str = ""
    packs: Mapping[str, Sequence[PackRow]] = field(default_factory=dict)
    rows: int | None = None
    own: Sequence[ChosenMetric] = ()


def compare(
    data: Path,
    base: str,
    tuned: str,
    out: Path,
    options: Options,
    *,
    models: Mapping[str, Artifact] | None = None,
    converted: Sequence[Artifact] = (),
    training: Training | None = None,
    runner: str = PROMPT_FLOW,
    flow: ServedFlow | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Compare two connections on `data` and on the packs, and write the report into `out`.

    `models` are the model folders behind the connections, by side, for the lineage, and `converted` those
    that they were exported from; `flow` stands before both endpoints, with the direct runner; `notes` go into
    the report. The packs are asked under the system
    prompt of the training data, as the chat is. Call `enter_home` first. Raises what `require_as_prepared`,
    `ready` and `run_compare` raise.
    """
    test = Artifact.of(TEST_DATA, data)
    require_as_prepared(data)
    graders = _graders(options, out)
    subset = subset_of(data, out, options.rows)
    chats = chats_in(subset.path, tools=flow is None)
    runner = DIRECT if any(chat.uses_tools for chat in chats) else runner
    try_metrics(options.own, chats, subset.path, out, options.gate)
    endpoints = {BASE.name: ready(base, flow), TUNED.name: ready(tuned, flow)}
    system = endpoints[TUNED.name].system_prompt() or shared_system_prompt(chat.messages for chat in chats)
    asking = measure(chats, endpoints, most=options.workers)
    others = sum(map(len, options.packs.values()))
    what = f"comparing {base} and {tuned}"
    say_forecast(what, len(chats), asking, others=others, margin=options.gate.margin)
    rows = run_compare(subset.path, asking, out, runner=runner)
    answers = answer_files(out, runner)
    repair = _kept_answers(subset.path, answers, options.own, out)
    own = score_answers(options.own, rows, subset.path, out, again=repair)
    require_share(own, options.gate, subset.path)
    lineage: dict[str, Any] = {
        "test data": test.sha256,
        **subset.lineage,
        "most tokens of an answer": asking.max_tokens,
        **({"system prompt of the packs": system} if system else {}),
        **({"flow": asdict(flow.source)} if flow else {}),
        "base": {"connection": base},
        "tuned": {"connection": tuned},
    }
    for side, artifact in (models or {}).items():
        lineage[side] |= {"model": artifact.path, "sha256": artifact.sha256}
    both = [asking.endpoints[side.name] for side in SIDES]
    prompted = [replace(endpoint, system=system) for endpoint in both]
    return _conclude(
        rows,
        out,
        options,
        graders,
        inputs=[test, *(models or {}).values(), *converted, *([flow.source] if flow else [])],
        lineage=lineage,
        own=own,
        packs=run_packs(
            options.packs, *prompted, workers=len(SIDES) * options.workers, judge=_declining(graders)
        ),
        measured=[reference_likelihoods(rows, *both, workers=options.workers)],
        training=training,
        in_training=rows_in_training(chats, data),
        notes=notes,
        answers=[
            *([] if subset.path == data else [Artifact.of(LINES_ASKED, subset.path)]),
            *(Artifact.of(f"{name} answers", path) for name, path in answers.items()),
        ],
    )


def _kept_answers(data: Path, answers: Mapping[str, Path], own: Sequence[ChosenMetric], out: Path) -> str:
    """To paste: what compares the answers that are there, without asking the models again."""
    words = ["phi3flow", "compare-answers", "--data", data]
    words += [word for side in SIDES for word in (f"--{side.name}", answers[side.name])]
    words += [word for one in own for word in ("--metric", one)]
    return shlex.join(map(str, [*words, "--out", out / "again"]))


def compare_recorded(
    data: Path,
    base: Path,
    tuned: Path,
    out: Path,
    options: Options,
    *,
    origin: Mapping[str, Any] | None = None,
) -> Report:
    """Compare recorded answers, without asking either model.

    `base` and `tuned` are files as `answer_file` describes; `origin` is added to the report's lineage.
    Raises BadInput with every bad row, and what `require_as_prepared` raises.
    """
    kinds = ((TEST_DATA, data), ("base answers", base), ("tuned answers", tuned))
    inputs = [Artifact.of(kind, path) for kind, path in kinds if path.exists()]
    graders = _graders(options, out)
    recorded = read_recorded(data, base, tuned)
    require_as_prepared(data)
    own = score_answers(options.own, recorded.rows, data, out)
    require_share(own, options.gate, data)
    lineage = {artifact.kind: artifact.sha256 for artifact in inputs} | dict(origin or {})
    return _conclude(
        recorded.rows,
        out,
        options,
        graders,
        inputs=inputs,
        lineage=lineage,
        own=own,
        packs={},
        measured=[not_measured("the answers are recorded, so no model is asked")],
        in_training=rows_in_training(chats_in(data, tools=True), data),
        notes=recorded.notes,
    )


class Recorded(NamedTuple):
    """The chats with both models' recorded answers, and what could not be checked."""

    rows: Lazy[ScoredRow]
    notes: list[str]


def read_recorded(data: Path, base: Path, tuned: Path) -> Recorded:
    """Raises BadInput with every `file:line: field: what`, in any of the three files."""
    chats = chats_in(data, tools=True)
    sides = [open_answers(path, chats) for path in (base, tuned)]
    notes = []
    for side, answers in zip(SIDES, sides, strict=True):
        say_failures(side.name, answers)
        if answers.unchecked:
            notes.append(
                f"{counted(answers.unchecked, 'recorded answer')} of {side.name} without the hash or text of "
                "a question: that they belong to this test file is taken on trust."
            )
    return Recorded(scored_rows(chats, *sides), notes)


def _graders(options: Options, out: Path) -> _Graders:
    """What grades the answers beside the metrics.

    Raises BadInput and Phi3flowError for what the options lack, before anything is asked.
    """
    if options.gate.primary == WIN_RATE and options.judge is None:
        raise BadInput(
            f"the gate's primary metric is {WIN_RATE}, which needs a judge",
            hint="--judge NAME, or another primary metric in gate.toml",
        )
    project = parse_project(options.foundry_project) if options.foundry_project else None
    judge = Judge(options.judge, ready(options.judge), out / "judge-cache") if options.judge else None
    if judge and options.judge_metrics:
        check_metrics(options.judge_metrics, judge.endpoint)
    return judge, project


def _declining(graders: _Graders) -> SaysDeclined | None:
    judge, _ = graders
    return declining_judge(judge.endpoint) if judge else None


def _conclude(
    rows: Sequence[ScoredRow],
    out: Path,
    options: Options,
    graders: _Graders,
    *,
    inputs: Sequence[Artifact],
    lineage: dict[str, Any],
    own: Measured,
    packs: dict[str, PackResult],
    measured: list[Measured],
    training: Training | None = None,
    in_training: int = 0,
    notes: Sequence[str] = (),
    answers: Sequence[Artifact] = (),
) -> Report:
    judge, project = graders
    judging = _judge(judge, rows, out, options) if judge else None
    if project:
        packs[PACK] = grade_safety(rows, project, out)
    if options.text_metrics:
        texts = score_texts(rows, options.text_metrics, out)
        measured.append(texts)
        lineage["text metrics"] = {"package": texts.package}
    measured.append(own)
    report = compare_rows(
        rows,
        options.gate,
        lineage=lineage | lineage_of(options.own),
        measured=measured,
        packs=packs,
        judge=judging,
        in_training=in_training,
        notes=notes,
    )
    written = write_report(report, rows, out, training=training, columns=own.columns)
    outputs = [*(Artifact.of("report", path) for path in written), *answers]
    if own.columns:
        outputs.append(Artifact.of(OWN_VALUES, write_values(out / "own-metrics.jsonl", own)))
    inputs = [*inputs, *files_of(options.own)]
    if judging:
        outputs.append(Artifact.of(JUDGMENTS, out / "judgments.jsonl"))
    write_manifest(out, "report", inputs=inputs, outputs=outputs, seed=0)
    return report


def _judge(judge: Judge, rows: Sequence[ScoredRow], out: Path, options: Options) -> Judging:
    """The judge's preferences, summed up. Writes each to `judgments.jsonl`, for `phi3flow verdict`."""
    pairs = list(answered_pairs(rows))
    judgments = judge.compare(pairs, workers=options.workers)
    write_jsonl(out / "judgments.jsonl", judgment_rows(judgments))
    names = options.judge_metrics
    grades = grade(pairs, names, judge.endpoint, out, workers=options.workers) if names else None
    return sum_up(judge.name, judgments, options.gate, grades, unanswered=len(rows) - len(pairs))
