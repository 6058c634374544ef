"""Questions and answers on their way to rows, what is left out, and the checks that need no model.

Each reason has a repair, which the file of what was left out names beside it.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.judge.pairwise import UNREADABLE
from phi3flow.chats.alike.same_questions import question_text, text_groups
from phi3flow.chats.chat import Message
from phi3flow.chats.row_shapes import read_row
from phi3flow.core.jsonl import RowError
from phi3flow.distillation.passages import Passage, holds

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

QUESTION_LENGTH, ANSWER_LENGTH, QUOTE_LENGTH = (8, 600), (1, 4000), (12, 1200)  # characters: least and most
SURE = 0.8  # of a language, by py3langid's probabilities
FEWEST_LETTERS = 30  # of a text whose language is looked at

NONSENSE = "the reply holds no question, answer and quote as JSON"
CUT = "the reply was cut off before its first question and answer were complete"
NO_MORE = "the teacher finds no further question in the passage"
NO_PASSAGE = "no passage answers it"
NOT_QUOTED = "the quote is not in the passage"
TOO_SHORT, TOO_LONG = "too short", "too long"
OTHER_LANGUAGE = "in another language than the passage"
REPEATED = "asks what an earlier row asks"
ADDRESSES = "the answer addresses the judge"
BY_ORDER = "the judge's choice changes with the order of the answers"
NOT_BETTER = "the judge does not prefer the answer to none"
_OTHER_JUDGE = "a stronger judge: --judge NAME --out ANOTHER_FOLDER"
REPAIRS = {
    NONSENSE: "a stronger model: --teacher NAME --out ANOTHER_FOLDER",
    CUT: "a model that thinks less before it answers: --teacher NAME --out ANOTHER_FOLDER",
    NO_MORE: "more documents, or fewer rows: --rows N",
    NO_PASSAGE: "a document that answers it: one more --from FILE",
    NOT_QUOTED: "nothing, or a model that quotes: --teacher NAME --out ANOTHER_FOLDER",
    OTHER_LANGUAGE: "a model that keeps to the language: --teacher NAME --out ANOTHER_FOLDER",
    REPEATED: "more documents, or fewer rows: --rows N",
    **dict.fromkeys((BY_ORDER, NOT_BETTER, UNREADABLE), _OTHER_JUDGE),
}
OTHERS = "none needed: another question takes its place"


class Candidate(NamedTuple):
    """A question with its answer. `passage` and `quote` are None and empty where no document was given."""

    prompt: tuple[Message, ...]
    answer: str
    passage: Passage | None = None
    quote: str = ""
    origin: str = ""

    @property
    def question(self) -> str:
        return str(self.prompt[-1]["content"])

    def messages(self) -> list[Message]:
        """As the model learns it: the passage stands after the question, as `context` does in other rows."""
        *earlier, last = self.prompt
        asked = f"{last['content']}\n\n{self.passage.text}" if self.passage else last["content"]
        return [*earlier, {**last, "content": asked}, {"role": "assistant", "content": self.answer}]


class LeftOut(NamedTuple):
    """`place` is the passage, or where the question that was given stands."""

    place: str
    reason: str
    question: str = ""
    answer: str = ""
    quote: str = ""

    @classmethod
    def of(cls, one: Candidate, reason: str) -> "LeftOut":
        return cls(one.origin or str(one.passage), reason, one.question, one.answer, one.quote)

    def row(self) -> dict[str, Any]:
        return {**self._asdict(), "repair": repair_of(self.reason)}


def repair_of(reason: str) -> str:
    return REPAIRS.get(reason, OTHERS)


class Checked(NamedTuple):
    good: list[Candidate]
    left_out: list[LeftOut]


def checked(candidates: Sequence[Candidate], earlier: Sequence[Candidate]) -> Checked:
    """What passes: quote, length, language, and no question of an `earlier` row of the same document."""
    reasons = [problem_of(one) for one in candidates]
    sound = [one for one, reason in zip(candidates, reasons, strict=True) if not reason]
    repeated = set(_repeated(sound, earlier))
    good = [one for i, one in enumerate(sound) if i not in repeated]
    left_out = [LeftOut.of(one, reason) for one, reason in zip(candidates, reasons, strict=True) if reason]
    return Checked(good, left_out + [LeftOut.of(sound[i], REPEATED) for i in sorted(repeated)])


def problem_of(one: Candidate) -> str:
    """Why the candidate, looked at alone, is no row; empty if nothing is wrong."""
    if one.passage and not holds(one.passage.text, one.quote):
        return NOT_QUOTED
    try:
        read_row({"messages": one.messages()})
    except RowError as error:
        return str(error)
    return _wrong_length(one) or ("" if _keeps_language(one) else OTHER_LANGUAGE)


def _wrong_length(one: Candidate) -> str:
    written = not one.origin  # a question that was given is as long as its owner wants
    sizes = [("question", one.question, QUESTION_LENGTH)] if written else []
    sizes += [("answer", one.answer, ANSWER_LENGTH)]
    sizes += [("quote", one.quote, QUOTE_LENGTH)] if one.passage else []
    for name, text, (least, most) in sizes:
        if not least <= len(text) <= most:
            return f"the {name} is {TOO_SHORT if len(text) < least else TOO_LONG}: {len(text)} characters"
    return ""


def _keeps_language(one: Candidate) -> bool:
    """Whether question and answer together are in the passage's language, as far as that is certain."""
    if one.passage is None or one.origin:
        return True
    of_passage, of_row = _language(one.passage.text), _language(f"{one.question} {one.answer}")
    return not of_passage or not of_row or of_passage == of_row


def _language(text: str) -> str:
    """Its code in ISO 639; empty where it is not certain."""
    if sum(map(str.isalpha, text)) < FEWEST_LETTERS:
        return ""
    language, probability = _identifier().classify(text)
    return str(language) if probability >= SURE else ""


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _repeated(candidates: Sequence[Candidate], earlier: Sequence[Candidate]) -> list[int]:
    """Places of candidates that ask nearly what one before them asks, about the same document."""
    both = [*earlier, *candidates]
    groups = text_groups((question_text(one.prompt, with_system=True) for one in both), near=True).tolist()
    seen: set[tuple[str, int]] = set()
    repeated = []
    for i, (one, group) in enumerate(zip(both, groups, strict=True)):
        asked = (one.passage.document if one.passage else "", group)
        if asked in seen and i >= len(earlier):
            repeated.append(i - len(earlier))
        seen.add(asked)
    return repeated
