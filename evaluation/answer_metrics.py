"""How one answer scores against its reference, and the means over many.

A leaf: flows include this very file, so it imports the standard library only and its name is unique
across all flows.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

_OPENING = r"""(?:
    (?:i\ am|i'm)?\ ?(?:very|so|terribly)?\ ?sorry (?:\ about\ that)? | (?:my\ )?apologies | i\ apologi[sz]e
  | unfortunately | regrettably | i'm\ afraid | i\ am\ afraid | hmm | well | but | however | that
  | as\ an\ ai (?:\ (?:language\ )?(?:model|assistant))?
)[\s,.;:!-]+"""
_NEGATED = r"(?:do\ not|don't|did\ not|didn't|cannot|can\ not|can't|could\ not|couldn't)"
_REFUSAL = rf"""(?:
    i\ (?:really\ |just\ |honestly\ )?{_NEGATED}\ (?:actually\ |really\ )?
        (?:know | answer | say\b | tell\b | help\ with\ that | find
         | have\ (?:(?:that|this|any|the|enough|such|more|access\ to)\ )*
           (?:information|knowledge|data|details|answer|idea))
  | i\ have\ no\ (?:idea|information|knowledge|data|answer)
  | (?:i\ am|i'm)\ (?:not\ (?:sure|certain|aware|able\ to\ (?:answer|say|tell)) | unable\ to | unsure)
  | (?:that|this|it)\ is\ (?:not\ something\ i\ know | unknown\ to\ me)
  | (?:this|that|the)\ (?:question\ )?(?:cannot|can't)\ be\ answered
  | cannot\ answer
)"""
_DECLINES = re.compile(rf"(?:{_OPENING})*{_REFUSAL}", re.VERBOSE | re.IGNORECASE)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def score_answer(answer: str, reference: str) -> dict[str, float]:
    """Every metric of one answer, by name. The first two lie in 0..1, the third counts characters."""
    return {
        "exact_match": float(_collapsed(answer) == _collapsed(reference)),
        "token_f1": token_f1(answer, reference),
        "answer_chars": float(len(answer)),
    }


def mean_scores(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every metric over the rows, empty when there are none."""
    sums: Counter[str] = Counter()
    lines = 0
    for row in rows:
        sums.update(row)
        lines += 1
    return {name: total / lines for name, total in sums.items()}


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of the precision and recall of the answer's words, each counted as often as it occurs.

    Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", section 6.1:
    case, punctuation and English articles do not count. Two answers without any word agree.
    """
    given, wanted = Counter(_words(answer)), Counter(_words(reference))
    if not given or not wanted:
        return float(given == wanted)
    shared = (given & wanted).total()
    return 2 * shared / (given.total() + wanted.total())


def declines(text: str) -> bool:
    """Whether the answer opens by saying that it does not know, apologies and the like aside.

    Only the opening counts: "Paris, though I am not sure" is an answer.
    """
    return bool(_DECLINES.match(_collapsed(text).replace("\u2019", "'")))


def _collapsed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _words(text: str) -> list[str]:
    kept = "".join(c for c in _collapsed(text).lower() if not unicodedata.category(c).startswith("P"))
    return _ARTICLES.sub(" ", kept).split()
