"""Log-likelihood of the references under both models: it shows changes even where no answer changed.

A row's value is the mean over the reference's tokens, in nats. The endpoint must return `prompt_logprobs`, as
vLLM and this project's transformers engine do: the conversation is sent with the reference as its last
message and without a generation prompt. The conversation alone, sent as for an answer, tells how many tokens
come before the reference. The end-of-turn token counts, as in training; what the chat template puts behind it
does not.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from evaluation.pacing import pace_of, paced
from evaluation.scored_rows import ScoredRow, spread
from evaluation.statistics.scores import Column, Measured
from phi3flow.chats.end_of_turn import KNOWN_ENDS
from phi3flow.core.console import say
from phi3flow.phi3_contract import (
    Endpoint,
    EndpointError,
    Garbled,
    Message,
    Rejected,
    Sampling,
    Unsupported,
    openai_body,
)

LOG_LIKELIHOOD = "log_likelihood"
ROWS = 250  # each costs four requests
ONE_TOKEN = Sampling(max_tokens=1)


class Token(NamedTuple):
    """A token of the answer; `logprob` in nats."""

    id: int
    logprob: float
    text: str


def reference_likelihoods(
    rows: Sequence[ScoredRow], base: Endpoint, tuned: Endpoint, *, workers: int
) -> Measured:
    """Measure at most `ROWS` lines, at equal distances over the file. Failed lines stay NaN."""
    asked = [pair.row for pair in spread(rows, ROWS) if not (pair.row.declining or pair.row.uses_tools)]
    if not asked:
        return not_measured("both models answered no question with a known answer and without tools")
    base, tuned = paced(base, workers), paced(tuned, workers)
    first = _means(asked[0], base, tuned)
    if isinstance(first, str):
        return not_measured(first)
    say(f"asking both models how likely {len(asked)} references are")
    with ThreadPoolExecutor(max_workers=workers) as pool:
        scored = [first, *pool.map(lambda row: _means(row, base, tuned), asked[1:])]
    if failed := [one for one in scored if isinstance(one, str)]:
        say(f"log-likelihood: {len(failed)} of {len(asked)} references failed: {failed[0]}")
    columns = np.full((2, len(rows)), np.nan)
    for row, one in zip(asked, scored, strict=True):
        if not isinstance(one, str):
            columns[:, row.line - 1] = one
    return Measured({LOG_LIKELIHOOD: Column(*columns)}, {})


def not_measured(why: str) -> Measured:
    return Measured({}, {LOG_LIKELIHOOD: why})


def _means(row: ScoredRow, base: Endpoint, tuned: Endpoint) -> list[float] | str:
    """The mean log-likelihoods under both models, or why there are none."""
    sides: list[list[Token]] = []
    for name, endpoint in (("base", base), ("tuned", tuned)):
        scored = _paced_score(endpoint, row)
        if isinstance(scored, EndpointError):
            return f"{name}: {scored}"
        sides.append(scored)
    if [token.id for token in sides[0]] != [token.id for token in sides[1]]:
        return "the two models tokenize the reference differently"
    return [sum(token.logprob for token in side) / len(side) for side in sides]


def _paced_score(endpoint: Endpoint, row: ScoredRow) -> list[Token] | EndpointError:
    def score() -> list[Token] | EndpointError:
        try:
            return score_reference(endpoint, row.messages, row.reference)
        except EndpointError as error:
            return error

    try:
        return pace_of(endpoint).ask(score, failed=lambda found: isinstance(found, EndpointError))
    except EndpointError as error:
        return error


def score_reference(endpoint: Endpoint, prompt: Sequence[Message], reference: str) -> list[Token]:
    """The reference's tokens, with the end of its turn, after `prompt`.

    Raises Unsupported if the endpoint returns no log-likelihoods, and any other EndpointError.
    """
    if endpoint.contract != "openai":
        raise Unsupported(f"contract {endpoint.contract} carries no log-likelihoods")
    asked = endpoint.ask(prompt, ONE_TOKEN, token_ids=True)
    if asked.prompt_tokens is None:
        raise Garbled("the endpoint does not return the number of prompt tokens")
    body = openai_body(endpoint, [*prompt, {"role": "assistant", "content": reference}], ONE_TOKEN, False)
    body |= {"prompt_logprobs": 0, "add_generation_prompt": False}
    try:
        tokens = endpoint.exchange(body, _tokens)
    except Rejected as error:
        raise Unsupported(f"the endpoint returns no log-likelihoods: {error}") from None
    if tokens is None:
        raise Unsupported("the endpoint returns no log-likelihoods")
    before = asked.prompt_token_ids or []
    if before[1:] != [token.id for token in tokens[: len(before) - 1]] and before:
        raise Garbled("the prompt is tokenized differently with the reference behind it")
    return _until_its_end(tokens[asked.prompt_tokens - 1 :])


def _tokens(reply: Any) -> list[Token] | None:
    """All tokens of the prompt but the first, which has no probability; None if the reply has none."""
    entries = reply.get("prompt_logprobs")
    if not entries:
        return None
    tokens = []
    for entry in entries[1:]:
        ((token, told),) = entry.items()
        tokens.append(Token(int(token), float(told["logprob"]), str(told["decoded_token"])))
    return tokens


def _until_its_end(tokens: Sequence[Token]) -> list[Token]:
    for position, token in enumerate(tokens):
        if token.text in KNOWN_ENDS:
            return [*tokens[: position + 1]]
    raise Garbled("the tokens hold no end of turn after the reference")
