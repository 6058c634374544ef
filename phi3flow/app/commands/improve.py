"""`phi3flow improve`: train on what people said, and compare with the present model."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from phi3flow.app.commands.feedback import Found, found_in, more_feedback, what_was_found
from phi3flow.app.improvement import (
    Improvement,
    Kind,
    latest_improvement,
    next_improvement,
    remove_untrained,
)
from phi3flow.app.run_verb import run_verb
from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput
from phi3flow.core.files import for_owner_alone, read_json
from phi3flow.core.folder_lock import writing
from phi3flow.core.served_model import IMPROVEMENTS
from phi3flow.core.service_stack import is_free
from phi3flow.core.settings import PREFIX, Settings
from phi3flow.core.sides import BASE

if TYPE_CHECKING:
    from phi3flow.app.training_needs import Needs

DECIDED = (0, 3, 4, 5)  # exit codes of a comparison that came to an end
OTHER_PORTS = 10  # above those that are set, where `phi3flow up` has them
SHOWN = 50  # rows that --json tells


@for_owner_alone()  # what people wrote
def improve(
    run: Annotated[
        Path, Argument(metavar="RUN", help="Run folder that `phi3flow up` served: its chats and votes.")
    ],
    *,
    kind: Annotated[
        Kind,
        Option(
            help="What to learn from, as for feedback. chats: train on them together with the run's own; "
            "preferences: train --method dpo on them; thumbs: train --method kto."
        ),
    ] = "chats",
    recipe: Annotated[
        str | None,
        Option(metavar="NAME_OR_FILE", help="Recipe of the training (default: the one that fits the model)."),
    ] = None,
    replace_personal: Annotated[
        bool,
        Option("--replace-personal", help="Replace personal data that a pattern finds, as for feedback."),
    ] = False,
    start: Annotated[bool, Option("--start", help="Run the commands, in RUN/improve/N.")] = False,
    resume: Annotated[
        bool, Option("--resume", help="Continue the improvement that was started last, as it was started.")
    ] = False,
) -> Outcome:
    """Learn from what people said: show what there is and what it would take; --start does it.

    example: phi3flow improve runs/mine

    example: phi3flow improve runs/mine --start

    Without --start and --resume nothing is written. The new model is compared with the one that is served
    now, on the run's own test set. Exit codes as for compare: 0 promote, 3 hold, 4 not enough data.
    """
    if start and resume:
        raise BadInput("--start begins another improvement, --resume continues one", hint="give one of them")
    if not (start or resume):
        return _plan(run, next_improvement(run, kind, recipe, replace_personal=replace_personal))
    with writing(run / IMPROVEMENTS):
        if resume:
            return _continued(run)
        remove_untrained(run)
        begun = next_improvement(run, kind, recipe, replace_personal=replace_personal)
        begun.begin()
        return _run(begun)


def _plan(run: Path, planned: Improvement) -> Outcome:
    from phi3flow.app.training_needs import needs_of

    found = found_in(run, planned.kind)
    if planned.replace_personal:
        found = found._replace(rows=found.cleaned)
    needs = needs_of(planned, len(found.rows)) if found.rows else None
    lines = list(_commands(planned))
    return Outcome(_told(planned, found, needs, lines), "\n".join(_text(planned, found, needs, lines)))


def _told(planned: Improvement, found: Found, needs: "Needs | None", lines: list[str]) -> dict[str, Any]:
    return found.told() | {
        "kind": planned.kind,
        "model": str(planned.model),
        "folder": str(planned.folder),
        "shown": found.rows[:SHOWN],
        "training": needs.told() if needs else None,
        "commands": lines,
    }


def _text(planned: Improvement, found: Found, needs: "Needs | None", lines: list[str]) -> Iterator[str]:
    yield from what_was_found(planned.run, found, replaced=planned.replace_personal)
    if needs is None:
        yield f"nothing to learn from; {more_feedback(planned.run)}"
        return
    yield ""
    yield f"training of {planned.model}:"
    yield from (f"  {sentence}" for sentence in needs.sentences())
    yield "the commands:"
    yield from (f"  {line}" for line in lines)
    yield f"all of them: phi3flow improve {shlex.quote(str(planned.run))} --kind {planned.kind} --start"


def _commands(planned: Improvement) -> Iterator[str]:
    """To paste, in this order."""
    for step in planned.steps():
        ports = _ports() if step.name == "comparison" else {}
        if step.name == "comparison" and planned.link:
            yield shlex.join(["ln", "-s", str(planned.link), str(planned.folder / BASE.name)])
        yield " ".join([*(f"{name}={port}" for name, port in ports.items()), step.command])


def _continued(run: Path) -> Outcome:
    latest = latest_improvement(run)
    if latest is None:
        raise BadInput(f"{run}: no improvement to continue", hint=f"phi3flow improve {run} --start")
    return _run(latest)


def _run(improvement: Improvement) -> Outcome:
    """Its steps that are not done yet. Raises Phi3flowError for one that fails."""
    from evaluation.verdict.decision import Decision, exit_code

    steps = list(improvement.steps())
    for number, step in enumerate(steps, 1):
        if step.makes.exists():
            say(f"{number}/{len(steps)} {step.name}: done")
            continue
        say(f"{number}/{len(steps)} {step.name}: {step.command}")
        last = step.name == "comparison"
        run_verb(*step.words, done=DECIDED if last else (0,), environment=_ports() if last else None)
    report = read_json(improvement.folder / "report.json")
    code = exit_code(Decision(report["verdict"]), report["failed"])
    data = {"folder": str(improvement.folder), "verdict": report["verdict"], "reasons": report["reasons"]}
    text = [f"{improvement.folder}: {report['verdict'].replace('_', ' ')}", *report["reasons"]]
    if code == 0:
        text.append(f"next: phi3flow promote {shlex.quote(str(improvement.run))}")
    return Outcome(data, "\n".join(text), code)


def _ports() -> Mapping[str, str]:
    """Where a comparison serves its models while `phi3flow up` has the usual ports."""
    settings = Settings.load()
    usual = {name: getattr(settings, name) for name in ("endpoint_port", "base_port")}
    if all(map(is_free, usual.values())):
        return {}
    return {PREFIX + name.upper(): str(port + OTHER_PORTS) for name, port in usual.items()}
