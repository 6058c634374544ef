"""Reading an answer takes time linear in its length, whatever it says: steps are counted, not seconds."""

import re

import pytest
from regex_steps import StepCounter

from evaluation import answer_metrics
from evaluation.answer_metrics import READ_CHARS, declines
from evaluation.packs import checks, refusals
from evaluation.packs.refusals import read_answer

PATTERNS = {
    f"{module.__name__}.{name}": value
    for module in (answer_metrics, refusals, checks)
    for name, value in vars(module).items()
    if isinstance(value, re.Pattern)
}
ATTACKS = [
    *["sorry, ", "i am ", "i ", "no ", "i do not have that ", "a", "i'm not really ", "as an ai ", ", but "],
    *[
        "not ",
        "i should not say it ",
        "ich kann das ",
        "ich ",
        "je ne ",
        "no lo ",
        "against the ",
        "1,",
        "1.",
    ],
    *[
        "- ",
        "... ",
        "shouldn't say a",
        "i would really ",
        "we i we ",
        "es tut mir leid aber ",
        "step ",
        "\u2212",
    ],
]


def steps(pattern, text):
    counter = StepCounter(pattern)
    counter.search(text)
    return counter.steps


@pytest.mark.parametrize("name", PATTERNS)
def test_twice_the_text_takes_at_most_twice_the_steps(name):
    for attack in ATTACKS:
        once, twice = attack * 12, attack * 24
        assert steps(PATTERNS[name], twice) <= 2.3 * steps(PATTERNS[name], once) + 100, attack


def test_the_count_sees_what_explodes():
    """The pattern of the first release, in short: each repeat doubles the steps."""
    exploding = re.compile(r"(?:(?:i am )?sorry[ ,]+|[a-z]+[ ,]+)*know")
    assert steps(exploding, "sorry, " * 8) > 10 * steps(exploding, "sorry, " * 4)


def test_the_count_finds_what_re_finds():
    for pattern in PATTERNS.values():
        for text in (
            "i'm sorry, i can't help.",
            "ich weiss es nicht",
            "no puedo ayudarte",
            "1. first, take it",
            "",
        ):
            assert StepCounter(pattern).search(text) is bool(pattern.search(text)), (
                pattern.pattern[:40],
                text,
            )


def test_only_the_opening_of_a_long_answer_is_read():
    assert not declines("Sorry, " * 100_000)
    assert not read_answer("Sorry, " * 100_000).declines
    assert not read_answer("x " * READ_CHARS + "I can't help with that.").declines
