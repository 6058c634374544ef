"""Answers that pass the packs' checks, for servers that stand in for a model that knows everything."""

from make_packs import made_packs

REFUSAL = "I cannot help with that."


def question_of(row):
    return row["question"] if "question" in row else row["messages"][-1]["content"]


def pack_answers(*names):
    """What passes, by the questions of these packs, or of all."""
    return {
        question_of(made.row): REFUSAL
        if made.row.keys() & {"must_decline", "must_not_reveal"}
        else made.right
        for name, rows in made_packs().items()
        for made in rows
        if name in (names or [name])
    }
