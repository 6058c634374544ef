"""A judge reads each answer beside one that declines, in both orders, with the passage as the reference.

An answer that the passage supports is better than "the text does not answer this". One that it does not
support, or that answers something else, is not. The judge's prompt is that of `phi3flow compare`: it must
choose the answer first and second (Zheng et al. 2023, section 3.4); a choice that follows the order is none.
"""

from collections.abc import Sequence

from evaluation.judge.pairwise import MAX_TOKENS, UNREADABLE
from evaluation.judge.prompt import CHOICES, addresses_judge, judge_messages, read_choice
from phi3flow.distillation.candidates import ADDRESSES, BY_ORDER, NOT_BETTER, Candidate, Checked, LeftOut
from phi3flow.distillation.prompts import Marks
from phi3flow.distillation.replies import Asker, Request, Said
from phi3flow.phi3_contract import EndpointError

DECLINES, DECLINES_ALONE = "The text does not answer this question.", "I do not know."


def judged(candidates: Sequence[Candidate], judge: Asker, marks: Marks) -> Checked:
    """The candidates that the judge chooses in both orders. Raises what `Asker.ask` raises."""
    left_out: list[LeftOut] = []
    sent = []
    for one in candidates:
        if addresses_judge(one.answer, one.prompt, _reference(one)):
            left_out.append(LeftOut.of(one, ADDRESSES))
        else:
            sent.append(one)
    for first in (True, False):
        reasons = _reasons(sent, judge, marks, first=first)
        left_out += [LeftOut.of(one, why) for one, why in zip(sent, reasons, strict=True) if why]
        sent = [one for one, why in zip(sent, reasons, strict=True) if not why]
    return Checked(sent, left_out)


def judge_request(one: Candidate, marks: Marks, *, first: bool) -> Request:
    """The request with the answer in the first or the second place."""
    none = DECLINES if one.passage else DECLINES_ALONE
    answers = (one.answer, none) if first else (none, one.answer)
    messages = judge_messages(one.prompt, _reference(one), *answers, marks(_asked(one)))
    return Request(messages, MAX_TOKENS)


def _reasons(candidates: Sequence[Candidate], judge: Asker, marks: Marks, *, first: bool) -> list[str]:
    """Why each candidate is left out; empty if it was chosen."""
    requests = [judge_request(one, marks, first=first) for one in candidates]
    order = "first" if first else "second"
    replies = judge.ask(f"judgments with the answer {order}", requests, _names_a_choice)
    marked = [marks(_asked(one)) for one in candidates]
    return [_reason(said, mark, first=first) for said, mark in zip(replies, marked, strict=True)]


def _names_a_choice(said: Said) -> bool:
    return any(choice in said.text.lower() for choice in CHOICES)


def _reason(said: Said | EndpointError, mark: str, *, first: bool) -> str:
    if isinstance(said, EndpointError):
        return f"the judge: {said}"
    choice = read_choice(said.text, mark)
    if choice is None:
        return UNREADABLE
    if choice == ("first" if first else "second"):
        return ""
    return NOT_BETTER if first or choice == "tie" else BY_ORDER


def _reference(one: Candidate) -> str:
    return one.passage.text if one.passage else ""


def _asked(one: Candidate) -> str:
    return f"{one.question}\0{one.answer}"
