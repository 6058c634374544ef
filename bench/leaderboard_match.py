"""An own metric: a call is right by the rule of the Berkeley Function Calling Leaderboard.

    phi3flow compare RUN --metric bench/leaderboard_match.py:leaderboard_match

`acceptable.json` beside this file has, for each question, the function and the values that each argument may
have; "" among them says that the argument may be left out. Texts are compared without case, blanks and
punctuation, and a whole number stands for a decimal one. The rule is that of the leaderboard's `ast_checker`
(https://github.com/ShishirPatil/gorilla, berkeley-function-call-leaderboard).
"""

import json
import re
from pathlib import Path

ACCEPTABLE = json.loads(Path(__file__).with_name("acceptable.json").read_text(encoding="utf-8"))
IGNORED = re.compile(r"[ ,./\-_*^]")


def leaderboard_match(question: str, answer: str, reference: str) -> bool:
    """Whether the answer calls this question's function, once, with acceptable values for all arguments."""
    try:
        [call] = json.loads(answer)
        name, given = call["name"], call["arguments"]
    except (ValueError, TypeError, KeyError):
        return False
    wanted = ACCEPTABLE[question]
    return name == wanted["name"] and _fits(given, wanted["arguments"])


def _fits(given: object, wanted: dict[str, list[object]]) -> bool:
    if not isinstance(given, dict) or not given.keys() <= wanted.keys():
        return False
    return all(
        any(_same(given[name], value) for value in values) if name in given else "" in values
        for name, values in wanted.items()
    )


def _same(given: object, wanted: object) -> bool:
    """An object among the acceptable values has a list of them for each of its own fields."""
    if isinstance(wanted, dict):
        return _fits(given, wanted)
    if isinstance(wanted, list):
        return isinstance(given, list) and len(given) == len(wanted) and all(map(_same, given, wanted))
    if isinstance(given, bool) or isinstance(wanted, bool):
        return given is wanted
    if isinstance(given, str) and isinstance(wanted, str):
        return _plain(given) == _plain(wanted)
    return given == wanted


def _plain(text: str) -> str:
    return IGNORED.sub("", text).lower().replace("'", '"')
