"""`phi3flow distill`: a teacher's questions and answers about documents, as chats to train on."""

import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from custom_connections.promptflow_home import enter_home
from phi3flow.core.console import Outcome, complain, say, table
from phi3flow.core.errors import BadInput
from phi3flow.core.files import for_owner_alone
from phi3flow.core.folder_lock import writing
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from phi3flow.distillation.distill import Distilled, Model, Plan, Work
    from phi3flow.distillation.replies import Price


@for_owner_alone()
def distill(
    *,
    source: Annotated[
        list[str],
        Option(
            "--from",
            metavar="SOURCE",
            help="Documents (txt, md, html, pdf), a folder of them, or a file of questions as for prepare; "
            "with both, the questions are answered from the documents. Several: --from A --from B.",
        ),
    ],
    teacher: Annotated[
        str,
        Option(metavar="NAME", help="Connection of the model that writes, as `phi3flow connect` stored it."),
    ],
    judge: Annotated[
        str | None,
        Option(
            metavar="NAME", help="Connection of the model that checks the answers (default: the teacher)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            metavar="DIR", help="Folder to write (default: only show what would be asked, and the tokens)."
        ),
    ] = None,
    rows: Annotated[
        int | None,
        Option(metavar="N", help="Rows to make (default: four for each passage, or one for each question)."),
    ] = None,
    price: Annotated[
        str | None,
        Option(
            metavar="SENT,RECEIVED",
            help="The provider's price of a million tokens, sent and received (default: no cost is shown).",
        ),
    ] = None,
) -> Outcome:
    """Let a teacher write questions and answers about documents, as chats to train on.

    example: phi3flow distill --from handbook/ --teacher gpt --price 0.15,0.60

    example: phi3flow distill --from handbook/ --teacher gpt --rows 300 --out distilled

    Without --out nothing is asked. A killed run goes on with the same command, and asks nothing twice. Exit
    code 5: done, but some requests got no reply, or there are fewer rows than asked for.
    """
    from phi3flow.distillation.distill import Work, distill, plan_of
    from phi3flow.distillation.documents import read_material

    paid = _price(price)
    if rows is not None and rows < 1:
        raise BadInput("--rows: must be 1 or more", hint="leave it out to take all")
    settings = Settings.load()
    with writing(out) if out else nullcontext():
        material = read_material(source)
        models = _models(teacher, judge, settings)
        work = Work(material, rows)
        plan = plan_of(work)
        shown = "\n".join(_shown(work, plan, models, paid))
        told = {"plan": asdict(plan) | {"cost": plan.usage.cost(paid)}, "path": str(out) if out else None}
        if out is None:
            return Outcome(told, f"{shown}\nnothing was asked: --out DIR starts")
        say(shown)
        done = distill(material, *models, out, rows=rows, workers=settings.batch_workers, price=paid)
    return _outcome(done, out, paid, told)


def _price(given: str | None) -> "Price | None":
    """Raises BadInput unless it is two numbers."""
    from phi3flow.distillation.replies import Price

    if given is None:
        return None
    try:
        sent, received = (float(part) for part in given.split(","))
    except ValueError:
        sent = received = -1
    if not (0 <= sent < 1e9 and 0 <= received < 1e9):
        raise BadInput(f"--price: {given!r} is not two numbers", hint="--price 0.15,0.60")
    return Price(sent, received)


def _models(teacher: str, judge: str | None, settings: Settings) -> "tuple[Model, Model]":
    from custom_connections.store import load_endpoint
    from phi3flow.distillation.distill import Model

    enter_home(settings)
    writes = Model(teacher, load_endpoint(teacher))
    return writes, Model(judge, load_endpoint(judge)) if judge else writes


def _shown(work: "Work", plan: "Plan", models: "tuple[Model, Model]", price: "Price | None") -> Iterator[str]:
    """What would be asked of whom, before it is."""
    counts = [("documents", plan.documents), ("passages", plan.passages), ("questions given", plan.questions)]
    if work.passages.repeated:
        counts.append(("passages that repeat another, left out", len(work.passages.repeated)))
    counts += [("rows wanted", plan.rows), ("requests, about", plan.usage.requests)]
    yield table(("", "number"), [(name, f"{count:,}") for name, count in counts])
    yield f"if every answer passes: {plan.usage.told(price)}"
    if price is None:
        yield "no price was given, so no cost is shown: --price SENT,RECEIVED, for a million tokens each"
    if unused := work.material.unused:
        yield "fields not used: " + ", ".join(f"{name} ({rows:,} rows)" for name, rows in unused.items())
    if work.material.left_out:
        yield "not read: " + ", ".join(work.material.left_out)
    hosts = dict.fromkeys(f"{model.host} (connection {model.name})" for model in models)
    yield f"The text of these files goes to {' and '.join(hosts)}."


def _outcome(done: "Distilled", out: Path, price: "Price | None", told: dict[str, Any]) -> Outcome:
    from phi3flow.distillation.distill import CHATS, LEFT_OUT, TEST

    made, split = done.made, done.split
    if not split.test:
        complain(f"{out}: no test set, because no passage or only one was cited; prepare holds out rows")
    data = told | {
        "rows": len(made.rows),
        "missing": done.missing,
        "train": len(split.chats),
        "test": len(split.test),
        "held_out": split.unit,
        "left_out": made.reasons(),
        "failed_requests": done.failed,
        "usage": done.usage._asdict() | {"cost": done.usage.cost(price)},
    }
    rows = [(f"left out: {reason}", str(count)) for reason, count in made.reasons().items()]
    rows += [(f"{out / CHATS}, for train and val", str(len(split.chats)))]
    rows += [(f"{out / TEST}, held out by {split.unit}", str(len(split.test)))] if split.test else []
    lines = [table(("rows", "number"), rows), f"all replies so far: {done.usage.told(price)}"]
    if made.left_out:
        lines.append(f"reasons and repairs: {out / LEFT_OUT}")
    if done.failed:
        lines.append(f"{done.failed} requests got no reply: the same command asks them again")
    if done.missing:
        lines.append(f"{done.missing} rows fewer than asked for: there is nothing more to ask")
    words = ["phi3flow", "prepare", out / CHATS, *(["--test", out / TEST] if split.test else [])]
    lines.append(
        f"next: {shlex.join(map(str, [*words, '--out', out.with_name(f'{out.name}-run') / 'data']))}"
    )
    return Outcome(data, "\n".join(lines), 5 if done.failed or done.missing else 0)
