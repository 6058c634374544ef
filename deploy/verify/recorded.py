"""The checks that compare the endpoint's answers with what training recorded."""

from collections.abc import Collection, Sequence
from pathlib import Path

from deploy.verify.check import Check, shown
from deploy.verify.probes import Answers, Given, Probe
from phi3flow.core.errors import BadInput

SURELY_ENDED = 3 / 4  # of the limit
ECHO_CHARACTERS = 12  # a shorter question may well be part of an answer


def check_text(answers: Answers) -> Check:
    """Whether greedy answers are those of the transformers model at the end of its training."""
    given = answers.given
    wrong = [one for one in given if one.text != one.probe.tuned_text.strip()]
    if answers.failed:
        name, error = next(iter(answers.failed.items()))
        return Check("text", "fail", f"{len(answers.failed)} prompts were not answered; {name}: {error}")
    if wrong:
        first = wrong[0]
        return Check(
            "text",
            "fail",
            f"{len(wrong)} of {len(given)} greedy answers are not the recorded ones; {first.probe.id}: "
            f"{shown(first.text)} instead of {shown(first.probe.tuned_text)}; a quantised model is judged by "
            "--data FILE --exact-match X",
        )
    left = f"; {len(answers.unsupported)} more do not fit the contract" if answers.unsupported else ""
    return Check("text", "pass", f"{len(given)} of {len(given)} greedy answers are the recorded ones{left}")


def surely_ended(model: Path, probes: Sequence[Probe]) -> frozenset[str]:
    """The probes whose recorded answer the model itself ended. Raises BadInput.

    An old recording does not say whether it was cut, and its tokens are not in it: decoded and encoded again,
    an answer has about as many, so one well below the limit ended by itself.
    """
    told = {probe.id for probe in probes if probe.tuned_finish_reason == "stop"}
    untold = [probe for probe in probes if probe.tuned_finish_reason is None]
    return frozenset(told | _seemingly_ended(model, untold)) if untold else frozenset(told)


def _seemingly_ended(model: Path, probes: Sequence[Probe]) -> set[str]:
    from tokenizers import Tokenizer

    path = model / "tokenizer.json"
    if not path.is_file():
        raise BadInput(f"{model}: no tokenizer.json", hint="copy the tokenizer files of the trained model")
    tokenizer = Tokenizer.from_file(str(path))
    return {
        probe.id
        for probe in probes
        if len(tokenizer.encode(probe.tuned_text, add_special_tokens=False).ids)
        <= SURELY_ENDED * probe.max_tokens
    }


def check_stop(given: Sequence[Given], ended: Collection[str]) -> Check:
    """Whether answers end where the model ended them, though more tokens were allowed.

    Without its stop token an answer goes on after the recorded text, or is cut by the limit. As a quantised
    model's other answer may happen to begin with the recorded one, half of the answers decide.
    """
    known = [(one, _ran_on(one)) for one in given if one.probe.id in ended]
    judged = [(one, ran_on) for one, ran_on in known if ran_on is not None]
    if not known:
        return Check("stop", "not-checkable", "the limit cut every recorded answer")
    if not judged:
        return Check(
            "stop", "not-checkable", "no answer begins as recorded, and the endpoint tells no finish reason"
        )
    wrong = [one for one, ran_on in judged if ran_on]
    if 2 * len(wrong) >= len(judged):
        first = wrong[0]
        reason = f"{len(wrong)} of {len(judged)} answers go on where the model stops; {first.probe.id}: "
        return Check(
            "stop", "fail", reason + f"{shown(first.text)} instead of {shown(first.probe.tuned_text)}"
        )
    return Check(
        "stop", "pass", f"{len(judged) - len(wrong)} of {len(judged)} answers end where the model stops"
    )


def _ran_on(one: Given) -> bool | None:
    """None where nothing tells."""
    recorded = one.probe.tuned_text.strip()
    if one.text.startswith(recorded) and one.text != recorded:
        return True
    if one.reply.finish_reason is not None:
        return one.reply.finish_reason != "stop"
    return False if one.text == recorded else None


def check_echo(given: Sequence[Given]) -> Check:
    """Whether an answer holds its own question, where no recorded answer does."""
    telling = [one for one in given if _is_telling(one.probe)]
    if not telling:
        return Check("echo", "not-checkable", "no question is long enough to be told from an answer")
    echoed = [one for one in telling if _question(one.probe) in one.text]
    if echoed:
        reason = f"{len(echoed)} of {len(telling)} answers repeat their prompt; {echoed[0].probe.id}: "
        return Check("echo", "fail", reason + shown(echoed[0].text))
    return Check("echo", "pass", f"none of {len(telling)} answers repeats its prompt")


def _is_telling(probe: Probe) -> bool:
    question = _question(probe)
    recorded = (probe.tuned_text, probe.base_text or "")
    return len(question) >= ECHO_CHARACTERS and not any(question in text for text in recorded)


def _question(probe: Probe) -> str:
    return probe.messages[-1]["content"].strip()


def check_base(given: Sequence[Given]) -> Check:
    """Whether the endpoint is the base model under the tuned one's name."""
    if all(one.probe.base_text is None for one in given):
        reason = "no base answers are recorded: the model was trained from scratch"
        return Check("base", "not-checkable", reason)
    telling = [
        one
        for one in given
        if one.probe.base_text is not None and one.probe.base_text.strip() != one.probe.tuned_text.strip()
    ]
    if not telling:
        return Check("base", "not-checkable", "training changed none of the recorded answers")
    bases = sum(one.text == (one.probe.base_text or "").strip() for one in telling)
    tuned = sum(one.text == one.probe.tuned_text.strip() for one in telling)
    counts = (
        f"of {len(telling)} answers that training changed, {tuned} are the tuned model's, {bases} the base's"
    )
    return Check("base", "fail" if bases and bases >= tuned else "pass", counts)
