"""Whether the endpoint obeys temperature, top_p, max tokens and seed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from deploy.verify.checks import Check, quoted
from deploy.verify.probes import ProbeAnswer
from phi3flow.phi3_contract import Endpoint, EndpointError, Sampling

HOT, NEARLY_GREEDY = 1.5, 0.01
NARROW = 0.001  # top_p that allows only the most likely token
TOKENS = 16  # enough to see whether two answers differ
ENOUGH_VARYING = 4  # prompts, so that one near tie of two tokens decides nothing
SEEDLESS = "promptflow"
HALF_CHARACTER = "\ufffd"  # how some servers end an answer that is cut within a character


class Varying(NamedTuple):
    """A prompt whose answer varies at a high temperature.

    `greedy` and `hot` are the first TOKENS of its greedy answer and of the one drawn with seed 1.
    """

    answer: ProbeAnswer
    greedy: str
    hot: str


def check_sampling(endpoint: Endpoint, answers: Sequence[ProbeAnswer]) -> Check:
    """Compares the endpoint's answers with one another, so it works for quantised models too."""
    try:
        faults = _faults(endpoint, answers)
    except EndpointError as error:
        return Check("sampling", "fail", f"a request with sampling parameters was not answered: {error}")
    if faults:
        return Check("sampling", "fail", "; ".join(faults))
    if endpoint.contract == SEEDLESS:
        reason = f"temperature and max tokens are honoured; contract {SEEDLESS} has no top_p and no seed"
        return Check("sampling", "not-checkable", reason)
    return Check("sampling", "pass", "temperature, top_p, max tokens and seed are honoured")


def _faults(endpoint: Endpoint, answers: Sequence[ProbeAnswer]) -> list[str]:
    faults = _max_tokens_faults(endpoint, max(answers, key=lambda answer: len(answer.text)))
    varying = _varying(endpoint, answers)
    if not varying:
        return [*faults, f"temperature {HOT} varies none of {len(answers)} answers"]
    faults += _temperature_faults(endpoint, varying)
    return faults if endpoint.contract == SEEDLESS else faults + _draw_faults(endpoint, varying)


def _max_tokens_faults(endpoint: Endpoint, longest: ProbeAnswer) -> list[str]:
    reply = endpoint.ask(longest.probe.messages, Sampling(max_tokens=1))
    text = reply.text.rstrip(HALF_CHARACTER).strip()
    if reply.completion_tokens == 1 or (text != longest.text and longest.text.startswith(text)):
        return []
    return [f"max tokens 1 gives {quoted(text)}"]


def _varying(endpoint: Endpoint, answers: Sequence[ProbeAnswer]) -> list[Varying]:
    """The first few prompts whose answer varies with the seed (or, without seeds, with chance)."""
    found: list[Varying] = []
    for answer in answers:
        first, second = (_ask(endpoint, answer, Sampling(HOT, seed=seed)) for seed in (1, 2))
        if first != second:
            found.append(Varying(answer, _ask(endpoint, answer, Sampling(0.0, seed=1)), first))
        if len(found) == ENOUGH_VARYING:
            break
    return found


def _temperature_faults(endpoint: Endpoint, varying: Sequence[Varying]) -> list[str]:
    faults = []
    if not all(one.answer.text.startswith(one.greedy) for one in varying):
        faults.append("temperature 0 gives varying answers")
    cold = [_ask(endpoint, one.answer, Sampling(NEARLY_GREEDY, seed=2)) for one in varying]
    # A near tie of two tokens may fall either way, but not in every answer.
    if not any(text == one.greedy for text, one in zip(cold, varying, strict=True)):
        faults.append(f"temperature {NEARLY_GREEDY} draws as freely as a high one")
    return faults


def _draw_faults(endpoint: Endpoint, varying: Sequence[Varying]) -> list[str]:
    faults = []
    if any(_ask(endpoint, one.answer, Sampling(HOT, seed=1)) != one.hot for one in varying):
        faults.append("the same seed gives varying answers")
    narrow = Sampling(HOT, top_p=NARROW, seed=1)
    if any(_ask(endpoint, one.answer, narrow) != one.greedy for one in varying):
        faults.append(f"top_p {NARROW} does not narrow the answers to the greedy one")
    return faults


def _ask(endpoint: Endpoint, answer: ProbeAnswer, sampling: Sampling) -> str:
    text = endpoint.complete(answer.probe.messages, replace(sampling, max_tokens=TOKENS))
    return text.rstrip(HALF_CHARACTER).strip()
