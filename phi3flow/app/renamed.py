"""Words of the command line that were renamed: the old ones work for one more release, with a notice."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from phi3flow.core.console import complain


class Renamed(NamedTuple):
    """`old` words after a verb, and the `new` ones that mean the same; an option's value stays behind it.

    `value` converts that value. With `several` each of the values behind the old option gets an option of its
    own. `new_verb` replaces the verb, too. With one of the words `unless` behind it, the verb is today's.
    """

    verb: str
    old: str
    new: str
    new_verb: str = ""
    several: bool = False
    unless: tuple[str, ...] = ()
    value: Callable[[str], str] = str


def _a_point_less(share: str) -> str:
    """`--exact-match` was the share of the fp32 model, and one point less was enough."""
    try:
        number = float(share)
    except ValueError:
        return share  # the option's own type says what is wrong with it
    return f"{max(number - 0.01, min(number, 0)):.6g}"


RENAMED = (
    Renamed("base", "", "", new_verb="toy-base", unless=("--pretrained", "--help")),
    Renamed("verify", "--data", "--check"),
    Renamed("verify", "--exact-match", "--at-least", value=_a_point_less),
    Renamed("compare", "--base-answers", "--base", new_verb="compare-answers"),
    Renamed("compare", "--tuned-answers", "--tuned", new_verb="compare-answers"),
    Renamed("compare", "--judge-metrics", "--judge-metric", several=True),
    Renamed("azure deploy", "--data", "--int4 --check"),
    Renamed("azure deploy", "--exact-match", "--at-least", value=_a_point_less),
    Renamed("azure promote", "--to mirror", "--mirror"),
    Renamed("azure promote", "--to", "--traffic"),
)


def up_to_date(words: Sequence[str]) -> list[str]:
    """`words` as they are spelled today; one line on stderr where that is not how they were given."""
    start = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    for verb in dict.fromkeys(renamed.verb for renamed in RENAMED):
        length = len(verb.split())
        if list(words[start : start + length]) == verb.split():
            return [*words[:start], *_renewed(verb, list(words[start + length :]))]
    return list(words)


def _renewed(verb: str, rest: list[str]) -> list[str]:
    new_verb, old_words, new_words = verb, [verb], []
    for renamed in (each for each in RENAMED if each.verb == verb):
        replaced = None if set(renamed.unless) & set(rest) else _replaced(rest, renamed)
        if replaced is not None:
            rest, new_verb = replaced, renamed.new_verb or new_verb
            old_words.append(renamed.old)
            new_words.append(renamed.new)
    if len(old_words) > 1:
        old, new = " ".join(filter(None, old_words)), " ".join(filter(None, [new_verb, *new_words]))
        complain(f"note: phi3flow {old} is now phi3flow {new}; the old spelling goes with the next release")
    return [*new_verb.split(), *rest]


def _replaced(words: list[str], renamed: Renamed) -> list[str] | None:
    """`words` with the new spelling; None where the old one is not among them."""
    old, new = renamed.old.split(), renamed.new.split()
    if not old:
        return words
    words = [part for word in words for part in _apart(word, old[0])]
    at = next((i for i in range(len(words)) if words[i : i + len(old)] == old), None)
    if at is None:
        return None
    before, behind = words[:at], words[at + len(old) :]
    if renamed.several:
        end = next((i for i, word in enumerate(behind) if word.startswith("-")), len(behind))
        return [*before, *(part for value in behind[:end] for part in (*new, value)), *behind[end:]]
    return [*before, *new, *map(renamed.value, behind[:1]), *behind[1:]]


def _apart(word: str, option: str) -> list[str]:
    """`--to=10` as two words."""
    return word.split("=", 1) if word.startswith(f"{option}=") else [word]
