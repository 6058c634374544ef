"""From documents or questions to chats that a teacher answered, each grounded in a passage and judged.

    phi3flow distill --from handbook/ --teacher gpt --out distilled

A folder of rows: chats.jsonl for train and val, test.jsonl with passages that stand in no other row, and
left-out.jsonl with what became no row, and why. asked.jsonl keeps every reply: the same command continues.
"""

import hashlib
import json
import math
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import read_json, write_json
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import Artifact, write_manifest
from phi3flow.distillation.candidates import (
    NO_MORE,
    NO_PASSAGE,
    Candidate,
    Checked,
    LeftOut,
    checked,
    repair_of,
)
from phi3flow.distillation.documents import Material
from phi3flow.distillation.judging import judge_request, judged
from phi3flow.distillation.passages import Passages, passages_of
from phi3flow.distillation.prompts import QUESTIONS, Marks, marks_of
from phi3flow.distillation.replies import Asker, Price, Replies, Usage, open_replies
from phi3flow.distillation.split import Split, divided
from phi3flow.distillation.tasks import MOST_VISITS, FromPassages, FromQuestions, Task, Tasks
from phi3flow.phi3_contract import Endpoint

CHATS, TEST, LEFT_OUT, ASKED, RUN = "chats.jsonl", "test.jsonl", "left-out.jsonl", "asked.jsonl", "run.json"
SCHEMA = "phi3flow/distill/1"
TRIED = 40  # answers, before the first one that passes
ITEM_TOKENS, CHOICE_TOKENS = 110, 8  # about what a question with answer and quote takes, and a judge's choice


class Model(NamedTuple):
    """A connection's name and endpoint."""

    name: str
    endpoint: Endpoint

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint.url).hostname or ""


@dataclass(frozen=True)
class Plan:
    """What a run would ask at least, before any reply: `usage` is estimated."""

    documents: int
    passages: int
    questions: int
    rows: int
    usage: Usage


@dataclass
class Made:
    """Rows so far, and what was left out."""

    rows: list[Candidate] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def is_hopeless(self) -> bool:
        """Whether no answer has passed, of many."""
        return not self.rows and sum(bool(one.answer) for one in self.left_out) >= TRIED

    def reasons(self) -> dict[str, int]:
        return dict(Counter(one.reason for one in self.left_out).most_common())


class Distilled(NamedTuple):
    """What a run wrote. `failed` counts the requests that got no reply: the same command asks them again.

    `missing` is how many rows less there are than were asked for.
    """

    split: Split
    made: Made
    usage: Usage
    failed: int
    missing: int


class Work:
    """The sources as passages and tasks. `rows` is how many are wanted; None: what one pass gives."""

    def __init__(self, material: Material, rows: int | None, secret: str = "") -> None:
        self.marks: Marks = marks_of(secret)
        self.material = material
        self.passages: Passages = passages_of(material.documents)
        self.without: list[LeftOut] = []
        self.tasks = self._tasks(visits=1 if rows is None else MOST_VISITS)
        self.is_one_pass = rows is None
        self.rows = self.tasks.most if rows is None else rows

    def _tasks(self, *, visits: int) -> Tasks:
        if not self.material.questions:
            return FromPassages(self.passages.kept, self.marks, visits)
        tasks = FromQuestions(self.material.questions, self.passages.kept, self.marks)
        self.without = [
            LeftOut(one.origin, NO_PASSAGE, str(one.prompt[-1]["content"])) for one in tasks.without
        ]
        return tasks


def plan_of(work: Work) -> Plan:
    """Estimate what a run asks if every question becomes a row. It uses up the work's first tasks."""
    tasks, rows, usage = work.tasks.next(work.rows), work.rows, Usage(0, 0, 0)
    if tasks:
        items = 1 if tasks[0].given else QUESTIONS
        asked = math.ceil(rows / items)
        written = sum(task.request.tokens for task in tasks) / len(tasks)
        read = sum(_judgment_tokens(task, work.marks) for task in tasks) / len(tasks)
        received = rows * (ITEM_TOKENS + 2 * CHOICE_TOKENS)
        usage = Usage(asked + 2 * rows, int(asked * written + 2 * rows * read), received, counted=False)
    material = work.material
    return Plan(len(material.documents), len(work.passages.kept), len(material.questions), rows, usage)


def _judgment_tokens(task: Task, marks: Marks) -> int:
    prompt = task.given.prompt if task.given else ({"role": "user", "content": "x" * 80},)
    passage = task.passages[0] if task.passages else None
    return judge_request(Candidate(prompt, "x" * 120, passage), marks, first=True).tokens


def distill(
    material: Material,
    teacher: Model,
    judge: Model,
    out: Path,
    *,
    rows: int | None,
    workers: int,
    price: Price | None = None,
) -> Distilled:
    """Ask for rows until there are enough, and write them into `out`.

    `workers` is the most requests in flight. Raises BadInput where `out` holds something else, Phi3flowError
    where a model cannot go on or no row is left; then no file of rows is written, and all replies are kept.
    """
    secret = _claim(out, teacher, judge)
    work = Work(material, rows, secret)
    with open_replies(out / ASKED) as replies:
        askers = _askers(teacher, judge, replies, workers, price)
        made = _made(work, *askers)
        failed = sum(asker.failed for asker in {*askers})
        usage = replies.usage
    if not made.rows:
        raise _nothing_left(made)
    split = divided(made.rows)
    names = {"teacher": teacher.name, "judge": judge.name}
    _write(out, split, made, material, {**names, "usage": usage._asdict()})
    missing = 0 if work.is_one_pass else work.rows - len(made.rows)
    return Distilled(split, made, usage, failed, missing)


def _askers(
    teacher: Model, judge: Model, replies: Replies, workers: int, price: Price | None
) -> tuple[Asker, Asker]:
    """The teacher's and the judge's; one if they are the same."""
    asks = Asker(teacher.name, teacher.endpoint, replies, workers=workers, price=price)
    if judge == teacher:
        return asks, asks
    return asks, Asker(judge.name, judge.endpoint, replies, workers=workers, price=price)


def _made(work: Work, teacher: Asker, judge: Asker) -> Made:
    """Ask, check and judge until there are enough rows, or nothing is left to ask.

    Until there is a row, few are asked for at a time: a teacher or a judge of no use costs little.
    """
    made = Made(left_out=[*work.without])
    while (missing := work.rows - len(made.rows)) > 0 and not made.is_hopeless:
        tasks = work.tasks.next(missing if made.rows else min(missing, TRIED))
        if not tasks:
            break
        said = teacher.ask("replies", [task.request for task in tasks], tasks[0].is_readable)
        read = [task.read(one) for task, one in zip(tasks, said, strict=True)]
        sound = checked([one for found in read for one in found.good], made.rows)
        good = judged(sound.good, judge, work.marks)
        for part in (*read, sound, good):
            made.left_out += part.left_out
        made.rows += good.good
        _tell(work.tasks, tasks, read, good)
    del made.rows[work.rows :]
    return made


def _tell(tasks: Tasks, done: Sequence[Task], read: Sequence[Checked], good: Checked) -> None:
    kept = {id(one) for one in good.good}
    for task, found in zip(done, read, strict=True):
        tasks.heard(task, [one for one in found.good if id(one) in kept])


def _claim(out: Path, teacher: Model, judge: Model) -> str:
    """The secret of the folder's marks. Raises BadInput for a folder of other models or of something else."""
    path, models = out / RUN, {"teacher": _hash(teacher), "judge": _hash(judge)}
    if not path.exists():
        if out.exists() and any(not found.name.startswith(".") for found in out.iterdir()):
            raise BadInput(f"{out}: exists and holds no distilled rows", hint="choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, {"schema": SCHEMA, **models, "secret": secrets.token_hex(16)})
    found = read_json(path)
    if others := [name for name in models if found.get(name) != models[name]]:
        raise BadInput(
            f"{out}: holds replies of another {' and another '.join(others)}",
            hint="choose another --out, or name the same connections again",
        )
    return str(found["secret"])


def _hash(model: Model) -> str:
    """Of what replies depend on. URLs are hashed, because a URL may carry a secret."""
    at = model.endpoint
    return hashlib.sha256(json.dumps([at.url, at.contract, at.model, at.deployment]).encode()).hexdigest()


def _nothing_left(made: Made) -> Phi3flowError:
    """Names all reasons, and the repair of the most frequent one."""
    reasons = made.reasons() or {NO_MORE: 0}
    why = "; ".join(f"{reason} ({count})" for reason, count in reasons.items())
    return Phi3flowError(f"no row is left: {why}; no rows were written", hint=repair_of(next(iter(reasons))))


def _write(out: Path, split: Split, made: Made, material: Material, details: Mapping[str, object]) -> None:
    """Every file appears whole, and the manifest last."""
    files = {"chats": (out / CHATS, split.chats), "test": (out / TEST, split.test)}
    files["left out"] = (out / LEFT_OUT, [one.row() for one in made.left_out])
    for path, rows in files.values():
        write_jsonl(path, rows)
    if not split.test:
        (out / TEST).unlink()
    write_manifest(
        out,
        "distilled",
        inputs=[Artifact.of("source", path) for path in material.files],
        outputs=[Artifact.of(kind, path) for kind, (path, _) in files.items() if path.exists()],
        details={"held_out": split.unit, "left_out": made.reasons(), **details},
    )
