"""Somebody who votes in the arena: a module of its own, so that a spawned process can import it."""

from ui.votes import Ballot, append_vote

VOTES = ("tuned", "tuned", "tuned", "tie", "base", "tuned", "tuned", "both_bad", "tuned", "base")


def ballot(number):
    return Ballot(
        f"round-{number}", f"question {number}", "b" * (20 + number % 7), "t" * (25 - number % 5), "base"
    )


def cast(path, numbers):
    for number in numbers:
        append_vote(path, ballot(number), VOTES[number % len(VOTES)])
