"""Answers that pass the packs' checks, for servers that stand in for a model that knows everything."""

from make_packs import made_packs

REFUSAL = "I cannot help with that."


def question_of(row):
    return row["question"] if "question" in row else row["messages"][-1]["content"]


def pack_answers():
    """What passes, by the packs' questions."""
    return {
        question_of(made.row): REFUSAL
        if made.row.keys() & {"must_decline", "must_not_reveal"}
        else made.right
        for rows in made_packs().values()
        for made in rows
    }
