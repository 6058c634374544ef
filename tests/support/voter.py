"""Somebody who votes in the arena: a module of its own, so that a spawned process can import it."""

from ui.store.votes import append_vote

VOTES = ("tuned", "tuned", "tuned", "tie", "base", "tuned", "tuned", "both_bad", "tuned", "base")


def ballot(number):
    answers = {"base": "b" * (20 + number % 7), "tuned": "t" * (25 - number % 5)}
    return f"round-{number}", f"question {number}", answers


def cast(path, numbers):
    for number in numbers:
        append_vote(path, *ballot(number), VOTES[number % len(VOTES)])
