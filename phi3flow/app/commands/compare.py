"""`phi3flow compare`, `compare-answers` and `verdict`: base against tuned, with a verdict."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from custom_connections.promptflow_home import enter_home
from phi3flow.app.run_folder import compare_run, require_run, test_file, training_of
from phi3flow.app.served_form import served_forms
from phi3flow.app.services import flow_over, served
from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput
from phi3flow.core.files import for_owner_alone
from phi3flow.core.folder_lock import one_writer, writing
from phi3flow.core.lineage import result_file
from phi3flow.core.settings import Settings
from phi3flow.core.sides import BASE, SIDES, TUNED

if TYPE_CHECKING:
    from evaluation.compare import Options
    from evaluation.report.comparison import Report
    from evaluation.verdict.gate import Gate as Limits

Gate = Annotated[
    Path | None, Option(metavar="FILE", help="What a promotion takes (default: the packaged gate.toml).")
]
Judge = Annotated[
    str | None,
    Option(metavar="NAME", help="Connection of a model that compares the answers, too (default: none)."),
]
JudgeMetric = Annotated[
    list[str] | None,
    Option(
        metavar="METRIC",
        help="What the judge grades as well; may be repeated: coherence, fluency, relevance, groundedness, "
        "similarity (default: none).",
    ),
]
TextMetrics = Annotated[
    Literal["azure-ai-evaluation", "promptflow-evals", "none"] | None,
    Option(
        help="Package that computes ROUGE, BLEU, GLEU, METEOR and F1 "
        "(default: azure-ai-evaluation where it is installed)."
    ),
]
Metric = Annotated[
    list[str] | None,
    Option(
        metavar="FILE.py:FUNCTION",
        help="Your own metric: a function of question, answer and reference that returns a number or a bool; "
        "or json_valid, schema_valid, tool_call_match; may be repeated (default: none).",
    ),
]
Schema = Annotated[
    Path | None,
    Option(metavar="FILE", help="JSON schema for schema_valid, of rows without their own (default: none)."),
]
Force = Annotated[bool, Option("--force", help="Replace a report that is there already.")]
Rows = Annotated[
    int | None,
    Option(metavar="N", help="Ask only N lines of the test file, at equal distances (default: all)."),
]
Flow = Annotated[
    Path | None,
    Option(
        metavar="DIR",
        help="Ask through your own flow: input question, output answer; the connection stands in for its own "
        "(default: none).",
    ),
]
Runner = Annotated[Literal["pf", "direct"] | None, Option(hidden=True)]  # tests hold one against the other


@for_owner_alone()  # questions and answers
def compare(
    run: Annotated[
        Path | None,
        Argument(
            metavar="RUN",
            help="Run folder: its base/ and tuned/ are served here and asked its data/test.jsonl "
            "(default: what --data, --base, --tuned and --out name).",
        ),
    ] = None,
    *,
    data: Annotated[
        Path | None, Option(metavar="FILE", help="A test.jsonl of `phi3flow prepare` (default: that of RUN).")
    ] = None,
    base: Annotated[
        str | None, Option(metavar="NAME", help="Connection of the base model (default: RUN/base).")
    ] = None,
    tuned: Annotated[
        str | None, Option(metavar="NAME", help="Connection of the tuned model (default: RUN/tuned).")
    ] = None,
    out: Annotated[Path | None, Option(metavar="DIR", help="Folder of the report (default: RUN).")] = None,
    gate: Gate = None,
    judge: Judge = None,
    judge_metric: JudgeMetric = None,
    packs: Annotated[
        Literal["all", "none"], Option(help="Whether to ask the safety and forgetting questions, too.")
    ] = "all",
    pack: Annotated[
        list[Path] | None,
        Option(
            metavar="FILE", help="Own questions with checks, asked as well; may be repeated (default: none)."
        ),
    ] = None,
    text_metrics: TextMetrics = None,
    metric: Metric = None,
    schema: Schema = None,
    flow: Flow = None,
    rows: Rows = None,
    force: Force = False,
    runner: Runner = None,
) -> Outcome:
    """Ask base and tuned the same questions: promote, hold, or not enough data?

    example: phi3flow compare runs/mine

    example: phi3flow compare --data test.jsonl --base phi3-base --tuned phi3-tuned --out runs/comparison

    Exit code 0: promote; 3: hold; 4: not enough data.
    """
    from evaluation.asking.batch import DIRECT, runner_for
    from evaluation.compare import compare as compare_connections
    from evaluation.packs.pack_file import own_packs, packaged_packs

    settings = Settings.load()
    asked = (packaged_packs() if packs == "all" else {}) | own_packs(pack or [])
    graded = _options(gate, judge, judge_metric, text_metrics, settings, metrics=metric, schema=schema)
    options = replace(graded, packs=asked, rows=rows)
    named = {"--data": data, "--base": base, "--tuned": tuned, "--out": out}
    if run and (judge or data or base or tuned):
        raise BadInput(
            f"{run}: a run folder is compared with nothing but its own base/, tuned/ and data/",
            hint="leave the folder out, and give --data, --out and both connections",
        )
    if run:
        folder = out or run
        result_file(folder / "report.json", force=force)
        require_run(run)
        asker = DIRECT if flow else runner or runner_for(test_file(run), rows)
        sides = {side: side.connection for side in SIDES}
        with writing(run), writing(folder):
            forms = served_forms(run)
            with (
                served(forms, run, settings),
                flow_over(flow, sides, run, settings) if flow else nullcontext() as through,
            ):
                report = compare_run(run, options, runner=asker, served=forms, flow=through, out=folder)
        return compared(report, folder)
    if not (data and base and tuned and out):
        missing = " and ".join(name for name, value in named.items() if not value)
        raise BadInput(f"{missing}: missing", hint="phi3flow compare RUN, or all four of them")
    result_file(out / "report.json", force=force)
    with writing(out):
        enter_home(settings)
        asker = DIRECT if flow else runner or runner_for(data, rows)
        sides = {TUNED: tuned, BASE: base}
        with flow_over(flow, sides, out, settings) if flow else nullcontext() as through:
            report = compare_connections(data, base, tuned, out, options, runner=asker, flow=through)
    return compared(report, out)


@for_owner_alone()
@one_writer
def compare_answers(
    *,
    data: Annotated[Path, Option(metavar="FILE", help="The test.jsonl whose questions were asked.")],
    base: Annotated[Path, Option(metavar="FILE", help="Answers of the base model: id or line, and answer.")],
    tuned: Annotated[Path, Option(metavar="FILE", help="Answers of the tuned model.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder of the report.")],
    gate: Gate = None,
    judge: Judge = None,
    judge_metric: JudgeMetric = None,
    text_metrics: TextMetrics = None,
    metric: Metric = None,
    schema: Schema = None,
    force: Force = False,
) -> Outcome:
    """The same for answers that were recorded earlier.

    example: phi3flow compare-answers --data test.jsonl --base base.jsonl --tuned tuned.jsonl --out answers

    No model is asked but a judge. Exit codes as for compare.
    """
    from evaluation.compare import compare_recorded

    settings = Settings.load()
    options = _options(gate, judge, judge_metric, text_metrics, settings, metrics=metric, schema=schema)
    result_file(out / "report.json", force=force)
    if judge:
        enter_home(settings)
    return compared(compare_recorded(data, base, tuned, out, options), out)


@for_owner_alone()
def verdict(
    judged: Annotated[
        Path,
        Argument(
            metavar="RUN_OR_FILE",
            help="Folder of a finished comparison; or a file with rows of id, base_chars, tuned_chars and "
            "preference (1: tuned is better) or vote.",
        ),
    ],
    gate: Gate = None,
    out: Annotated[
        Path | None,
        Option(metavar="DIR", help="Write the report under this gate there (default: only print it)."),
    ] = None,
    force: Force = False,
) -> Outcome:
    """Decide again by another gate over the same answers, or turn recorded preferences into a verdict.

    example: phi3flow verdict runs/mine --gate gate.toml

    example: phi3flow verdict judgments.jsonl

    No model is asked. Exit code 0: promote; 3: hold; 4: not enough data.
    """
    from evaluation.verdict.gate import load_gate

    if judged.is_dir():
        return _again(judged, gate, out, force=force)
    limits = load_gate(gate, own=None)
    if out:
        raise BadInput("--out: preferences have no report", hint="leave it out; --json prints the verdict")
    return _by_preferences(judged, limits)


def _again(run: Path, gate: Path | None, out: Path | None, *, force: bool) -> Outcome:
    from evaluation.again import finished_comparison
    from evaluation.report.render import summary_table
    from evaluation.verdict.decision import exit_code
    from evaluation.verdict.gate import load_gate

    if out and out.resolve() == run.resolve():
        raise BadInput(f"--out {out}: the comparison itself is there", hint="choose another folder")
    if out:
        result_file(out / "report.json", force=force)
    comparison = finished_comparison(run)
    report = comparison.decided_by(load_gate(gate, comparison.own.columns))
    if not out:
        code = exit_code(report.verdict, report.failed)
        return Outcome(report.as_dict(), summary_table(report), code)
    comparison.write(report, out, training_of(run / TUNED.name))
    return compared(report, out)


def _by_preferences(judgments: Path, limits: "Limits") -> Outcome:
    from evaluation.statistics.win_rate import win_rate
    from evaluation.verdict.decision import exit_code
    from evaluation.verdict.pack_limits import not_asked
    from evaluation.verdict.preference_decision import decide_preference
    from evaluation.verdict.preference_file import load_judgments

    recorded = load_judgments(judgments)
    rate = win_rate(recorded.preferences)
    decided = decide_preference(rate, limits, recorded.failures)
    missing = not_asked({}, limits)
    data = {
        "win_rate": rate.win_rate,
        "win_rate_ci": rate.win_rate_ci,
        "standard_error": rate.standard_error,
        "length_controlled_win_rate": rate.length.win_rate,
        "length_controlled_win_rate_ci": rate.length.win_rate_ci,
        "length_note": rate.length.note,
        "n": rate.n,
        "clusters": rate.clusters,
        "failed": sum(recorded.failures.values()),
        "failures": recorded.failures,
        "verdict": decided.verdict,
        "reasons": decided.reasons,
        "rows_needed": decided.rows_needed,
        "not_asked": missing,
    }
    alone = f"By preferences alone: {' and '.join(missing)} were not asked."
    text = "\n".join([*decided.reasons, alone, f"verdict: {decided.verdict}"])
    return Outcome(data, text, exit_code(decided.verdict, failed=0))


def _options(
    gate: Path | None,
    judge: str | None,
    judge_metrics: list[str] | None,
    text_metrics: str | None,
    settings: Settings,
    *,
    metrics: list[str] | None,
    schema: Path | None,
) -> "Options":
    from evaluation.compare import Options
    from evaluation.metrics.chosen import chosen_metrics
    from evaluation.metrics.text_metrics import default_backend
    from evaluation.verdict.gate import load_gate

    if judge_metrics and not judge:
        raise BadInput("--judge-metric needs a judge", hint="--judge NAME")
    own = chosen_metrics(metrics or [], schema)
    return Options(
        gate=load_gate(gate, [one.name for one in own]),
        own=own,
        workers=settings.batch_workers,
        judge=judge,
        judge_metrics=judge_metrics or [],
        text_metrics={None: default_backend(), "none": None}.get(text_metrics, text_metrics),
        foundry_project=settings.foundry_project,
    )


def compared(report: "Report", out: Path) -> Outcome:
    """The report as a table, and the exit code of its verdict."""
    from evaluation.report.render import summary_table
    from evaluation.verdict.decision import exit_code

    text = f"{summary_table(report)}\n{out / 'report.html'}"
    return Outcome(report.as_dict(), text, exit_code(report.verdict, report.failed))
