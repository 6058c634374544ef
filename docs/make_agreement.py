"""Write the agreement of the packs' reading of refusals into docs/evaluation.md: `make agreement`.

`tests/data/labelled_answers.jsonl` has 200 answers with the label that a person gave them. The wordings were
made by looking at two thirds of them; the last third was kept apart until they were finished.
"""

from pathlib import Path

from evaluation.packs.refusals import read_answer
from phi3flow.core.jsonl import read_jsonl

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "evaluation.md"
LABELLED = read_jsonl(ROOT / "tests" / "data" / "labelled_answers.jsonl")
BEGIN, END = "<!-- agreement: `make agreement` -->\n", "<!-- /agreement -->"
HEAD = """
| labelled answers | rows | read: declines | read: answers | in doubt | agreement | without those in doubt |
|---|---|---|---|---|---|---|
"""


def section() -> str:
    """The table: for both parts, what declines and what answers, as the wording has it."""
    parts = {"looked at": False, "kept apart": True}
    rows = [
        _row(f"{'decline' if declines else 'answer'}, {name}", declines, held_out)
        for name, held_out in parts.items()
        for declines in (True, False)
    ]
    return HEAD + "\n".join(rows) + "\n\n"


def _row(name: str, declines: bool, held_out: bool) -> str:
    answers = [
        row["answer"] for row in LABELLED if row["declines"] is declines and row["held_out"] is held_out
    ]
    read = [read_answer(answer) for answer in answers]
    declined = sum(one.declines for one in read)
    sure = [one.declines for one in read if one.sure]
    right, right_of_sure = (
        sum(one is declines for one in ones) for ones in ([r.declines for r in read], sure)
    )
    return (
        f"| {name} | {len(read)} | {declined} | {len(read) - declined} | {len(read) - len(sure)} "
        f"| {right} of {len(read)} | {right_of_sure} of {len(sure)} |"
    )


def written() -> str:
    """What stands in the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + section() + END + rest.partition(END)[2], encoding="utf-8")
