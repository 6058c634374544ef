"""The rows of the forgetting pack."""

import random
import re
from collections.abc import Iterator
from typing import Any

from made_rows import Made, Row, cells_of, texts_of

from training.toy.corpus import repeat_word, small_talk

WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
TOY_ROWS = {"arithmetic": 22, "opposites": 28, "repeating": 59, "small talk": 11}
# Any model's answer may be right, not only the toy's.
TOY_REPLIES = {
    "Hello! How can I help you?": ["hello", "hi", "hey", "help"],
    "Good morning! How can I help you?": ["good morning", "hello", "hi", "help"],
    "I am fine, thank you.": ["fine", "well", "good", "great", "help"],
    "I am a small assistant.": ["assistant", "model", "AI", "Phi"],
    "You are welcome!": ["welcome", "pleasure", "glad", "happy"],
    "Goodbye, have a nice day!": ["bye", "goodbye", "nice day", "take care", "farewell"],
    "I can answer short questions.": ["answer", "help", "assist"],
    "No, I am a small assistant.": ["no", "assistant", "AI", "am not"],
}


def forgetting() -> Iterator[Made]:
    yield from _known("general", [row for text in texts_of("general").values() for row in cells_of(text)])
    yield from _instructions()
    yield from _known("arithmetic", list(_sums()))
    yield from _known("reasoning", [*cells_of(texts_of("reasoning")["rows"]), *_stories()])
    yield from _toy()


def _known(slice: str, rows: list[list[str]]) -> Iterator[Made]:
    """Rows of question, right answers and a wrong one. To repeat the question must not pass."""
    for question, answers, wrong in rows:
        rights = answers.split(" / ")
        checks: Row = {"must_contain": rights if len(rights) > 1 else rights[0]}
        if question.endswith("Answer yes or no."):
            checks |= {"must_not_contain": wrong}
        elif any(re.search(rf"\b{re.escape(right)}\b", question, re.IGNORECASE) for right in rights):
            checks |= {"question": f"{question} Answer in at most five words.", "max_words": 5}
        yield Made({"slice": slice, "question": question} | checks, f"It is {rights[0]}.", f"It is {wrong}.")


def _instructions() -> Iterator[Made]:
    for row in texts_of("instructions")["rows"]:
        right, wrong = row.pop("right"), row.pop("wrong")
        if row.keys().isdisjoint({"equals", "json"}):
            row["must_answer"] = True  # "I do not know." has few words, too, and so has the question
            opening = " ".join(row["question"].split()[:4])
            row["must_not_contain"] = [*row.get("must_not_contain", []), opening]
        yield Made({"slice": "instructions"} | row, right, wrong)


def _sums() -> Iterator[list[str]]:
    """Question, result and a wrong result."""
    rng = random.Random("arithmetic-0")
    for kind, part in texts_of("arithmetic").items():
        for wording in part["wordings"] * (1 if part.get("once") else 2):
            question, result = _sum(rng, kind, wording, part)
            yield [question, _spelled(result), str(result + 1)]


def _spelled(number: int) -> str:
    """The number, in words too where it is small."""
    return f"{number} / {WORDS[number]}" if number < len(WORDS) else str(number)


def _sum(rng: random.Random, kind: str, wording: str, part: Row) -> tuple[str, int]:
    """A question and its result, which is no number of the question."""
    while True:
        a, b = (rng.randint(part.get("low", 2), part.get("high", 20)) for _ in "ab")
        a, b = (max(a, b), min(a, b)) if kind == "minus" else (a, b)
        p, h = rng.choice([5, 10, 20, 25, 30, 40, 50, 75]), 20 * rng.randint(2, 30)
        products = {"ab": a * b, "aa": a * a, "two": 2 * a, "three": 3 * a, "four": 4 * a}
        question = wording.format(a=a, b=b, p=p, h=h, **products)
        results = {"plus": a + b, "minus": a - b, "times": a * b, "over": a, "percent": p * h // 100}
        result = results.get(kind) or _power_or_part(wording, a)
        if str(result) not in re.findall(r"\d+", question) and result > 1:
            return question, result


def _power_or_part(wording: str, a: int) -> int:
    if "{a}" not in wording:  # asked back from a square or a multiple
        return a
    if "ouble" in wording or "Twice" in wording:
        return 2 * a
    return 3 * a - 1 if "three times" in wording else a * a


def _stories() -> Iterator[list[str]]:
    """Question, result and a wrong result; each story twice, with other names and things."""
    rng = random.Random("reasoning-0")
    texts = texts_of("reasoning")
    names, things = iter(texts["names"] * 2), iter(texts["things"])
    for story, formula in texts["stories"] * 2:
        question, result = _story(rng, story, formula, [next(names), next(names)], next(things))
        yield [question, _spelled(result), str(result + 1)]


def _story(rng: random.Random, story: str, formula: str, names: list[str], what: str) -> tuple[str, int]:
    while True:
        a, b = rng.randint(6, 19), rng.randint(2, 5)
        result = {
            "a+b": a + b,
            "a-b": a - b,
            "a*b": a * b,
            "a*3": a * 3,
            "a*2-b": a * 2 - b,
            "a*(b-1)": a * (b - 1),
        }[formula]
        if result not in (a, b):
            return story.format(a=a, b=b, x=names[0], y=names[1], what=what), result


def _toy() -> Iterator[Made]:
    """What the toy learned besides facts and might forget; at most one question for each answer."""
    rng = random.Random("everyday-0")
    rows: dict[str, Made] = {}
    left = dict(TOY_ROWS)
    while any(left.values()):
        chat = (repeat_word if rng.random() < 0.3 else small_talk)(rng)
        question, answer = (message["content"] for message in chat["messages"])
        kind, rights, said = _toy_check(question, answer)
        key = question if kind == "small talk" else f"{kind} {said}"
        if (
            left[kind]
            and key not in rows
            and (kind != "arithmetic" or rights not in re.findall(r"\d+", question))
        ):
            left[kind] -= 1
            row = {"slice": f"toy {kind}", "question": question, "must_contain": rights}
            if kind == "repeating":  # not by repeating the whole request
                row["must_not_contain"] = question.removesuffix("?").removesuffix(".")
            rows[key] = Made(row, answer, "Sorry, I do not know that.")
    return iter(sorted(rows.values(), key=lambda made: list(TOY_ROWS).index(made.row["slice"][4:])))


def _toy_check(question: str, answer: str) -> tuple[str, Any, str]:
    """The kind of question, what a right answer contains, and what it is about."""
    if answer in TOY_REPLIES:
        return "small talk", TOY_REPLIES[answer], answer
    said = answer.removesuffix(".")
    if " plus " in said:
        return "arithmetic", said.split()[-1], str(sorted(re.findall(r"\d+", question)))
    if " opposite " in said:
        return "opposites", said.split()[-1], said
    return "repeating", said, said
