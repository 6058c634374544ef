"""The checks that compare an endpoint's answers with what training recorded."""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from deploy.verify.probes import Answers, Probe, ProbeAnswer

Result = Literal["pass", "fail", "not-checkable"]  # of an endpoint
CheckResult = Literal[Result, "not-offered"]
SPECIAL_TOKEN = re.compile(r"<\|\w+\|>")
ECHO_CHARACTERS = 12  # a shorter question may be part of an answer by chance


class Check(NamedTuple):
    """`reason` says what was seen, whatever the result. What is not offered is neither right nor wrong."""

    name: str
    result: CheckResult
    reason: str

    def __str__(self) -> str:
        return f"{self.name:<9} {self.result:<14} {self.reason}"


def quoted(text: str) -> str:
    """An answer within a reason: quoted, and short enough for one line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def check_template(answers: Sequence[ProbeAnswer], contract: str) -> Check:
    """Whether the endpoint renders prompts as training did.

    Compares token ids, or their number if the endpoint does not return ids. One probe has special tokens in
    its user's text: it differs if the endpoint does not break them up.
    """
    if all(answer.reply.prompt_token_ids is not None for answer in answers):
        return _compare_prompts(answers, "token ids", _differing_id)
    if all(answer.reply.prompt_tokens is not None for answer in answers):
        return _compare_prompts(answers, "number of tokens", _differing_number)
    missing = "the endpoint tells neither token ids nor their number"
    if contract != "openai":
        missing = f"contract {contract} tells neither token ids nor their number; openai does"
    return Check("template", "not-checkable", missing)


def _compare_prompts(
    answers: Sequence[ProbeAnswer], what: str, difference: Callable[[ProbeAnswer], str]
) -> Check:
    wrong = [answer for answer in answers if difference(answer)]
    if not wrong:
        return Check("template", "pass", f"{len(answers)} of {len(answers)} prompts have training's {what}")
    reason = f"{len(wrong)} of {len(answers)} prompts have another {what}; "
    reason += f"{wrong[0].probe.id}: {difference(wrong[0])}"
    if all(SPECIAL_TOKEN.search(str(answer.probe.messages)) for answer in wrong):
        reason += "; special tokens in a user's text are not neutralised"
    return Check("template", "fail", reason)


def _differing_id(answer: ProbeAnswer) -> str:
    """The first token ids that differ, or an empty text."""
    served, trained = list(answer.reply.prompt_token_ids or []), list(answer.probe.prompt_token_ids)
    if served == trained:
        return ""
    pairs = zip(served, trained, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(served), len(trained)))
    return f"{served[at : at + 3]} at token {at}, in training {trained[at : at + 3]}"


def _differing_number(answer: ProbeAnswer) -> str:
    served, trained = answer.reply.prompt_tokens, len(answer.probe.prompt_token_ids)
    return "" if served == trained else f"{served}, in training {trained}"


def check_text(answers: Answers) -> Check:
    """Whether greedy answers are those of the transformers model at the end of its training."""
    answered = answers.answered
    wrong = [answer for answer in answered if answer.text != answer.probe.tuned_text.strip()]
    if answers.failed:
        name, error = next(iter(answers.failed.items()))
        return Check("text", "fail", f"{len(answers.failed)} prompts were not answered; {name}: {error}")
    if wrong:
        reason = f"{len(wrong)} of {len(answered)} greedy answers are not the recorded ones; "
        hint = "; a quantised model is judged by --check FILE --at-least X"
        return Check("text", "fail", reason + _difference(wrong[0]) + _recorded(wrong[0].probe) + hint)
    skipped = f"; {len(answers.unsupported)} more do not fit the contract" if answers.unsupported else ""
    return Check(
        "text", "pass", f"{len(answered)} of {len(answered)} greedy answers are the recorded ones{skipped}"
    )


def _recorded(probe: Probe) -> str:
    """Why a right model may answer otherwise: near-ties fall differently in other arithmetic."""
    return "" if probe.dtype == "float32" else f"; recorded in {probe.dtype}, served perhaps in another type"


def _difference(answer: ProbeAnswer) -> str:
    return f"{answer.probe.id}: {quoted(answer.text)} instead of {quoted(answer.probe.tuned_text)}"


def check_stop(answers: Sequence[ProbeAnswer]) -> Check:
    """Whether answers end where the model ended them, though more tokens were allowed.

    Without its stop token an answer continues after the recorded text, or the limit cuts it. A quantised
    model's different answer may begin with the recorded one by chance, so half of the answers decide.
    """
    ended = [(answer, _continues(answer)) for answer in answers if answer.probe.tuned_finish_reason == "stop"]
    checkable = [(answer, continues) for answer, continues in ended if continues is not None]
    if not ended:
        return Check("stop", "not-checkable", "the limit cut every recorded answer")
    if not checkable:
        return Check(
            "stop", "not-checkable", "no answer begins as recorded, and the endpoint tells no finish reason"
        )
    wrong = [answer for answer, continues in checkable if continues]
    if 2 * len(wrong) >= len(checkable):
        reason = (
            f"{len(wrong)} of {len(checkable)} answers go on where the model stops; {_difference(wrong[0])}"
        )
        return Check("stop", "fail", reason)
    return Check(
        "stop", "pass", f"{len(checkable) - len(wrong)} of {len(checkable)} answers end where the model stops"
    )


def _continues(answer: ProbeAnswer) -> bool | None:
    """Whether an answer goes on after the recorded text; None if that cannot be known."""
    recorded = answer.probe.tuned_text.strip()
    if answer.text.startswith(recorded) and answer.text != recorded:
        return True
    if answer.reply.finish_reason is not None:
        return answer.reply.finish_reason != "stop"
    return False if answer.text == recorded else None


def check_echo(answers: Sequence[ProbeAnswer]) -> Check:
    """Whether an answer contains its own question, in cases where no recorded answer does."""
    checked = [answer for answer in answers if _shows_echo(answer.probe)]
    if not checked:
        return Check("echo", "not-checkable", "no question is long enough to be told from an answer")
    echoed = [answer for answer in checked if _question(answer.probe) in answer.text]
    if echoed:
        reason = f"{len(echoed)} of {len(checked)} answers repeat their prompt; {echoed[0].probe.id}: "
        return Check("echo", "fail", reason + quoted(echoed[0].text))
    return Check("echo", "pass", f"none of {len(checked)} answers repeats its prompt")


def _shows_echo(probe: Probe) -> bool:
    question = _question(probe)
    recorded = (probe.tuned_text, probe.base_text or "")
    return len(question) >= ECHO_CHARACTERS and not any(question in text for text in recorded)


def _question(probe: Probe) -> str:
    return probe.messages[-1]["content"].strip()


def check_base(answers: Sequence[ProbeAnswer]) -> Check:
    """Whether the endpoint serves the base model under the tuned one's name."""
    if all(answer.probe.base_text is None for answer in answers):
        reason = "no base answers are recorded: the model was trained from scratch"
        return Check("base", "not-checkable", reason)
    changed = [answer for answer in answers if _was_changed(answer.probe)]
    if not changed:
        return Check("base", "not-checkable", "training changed none of the recorded answers")
    bases = sum(answer.text == (answer.probe.base_text or "").strip() for answer in changed)
    tuned = sum(answer.text == answer.probe.tuned_text.strip() for answer in changed)
    counts = (
        f"of {len(changed)} answers that training changed, {tuned} are the tuned model's, {bases} the base's"
    )
    return Check("base", "fail" if bases and bases >= tuned else "pass", counts)


def _was_changed(probe: Probe) -> bool:
    return probe.base_text is not None and probe.base_text.strip() != probe.tuned_text.strip()
