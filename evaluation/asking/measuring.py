"""What a batch run asks for and how long it waits: the limit of an answer from the references' lengths, the
deadline and the number of requests from a few questions that are asked first.
"""

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from evaluation.asking.tool_answers import ask_chat
from evaluation.pacing import paced
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.lineage import Artifact
from phi3flow.phi3_contract import Endpoint, EndpointError, Reply, Sampling

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

PREFLIGHT = [{"role": "user", "content": "Who founded Microsoft?"}]
BYTES_PER_TOKEN = 4  # of English text, for endpoints that do not count tokens
REFERENCE_BYTES_PER_TOKEN = (
    2  # allows twice the tokens of an English reference, and as many as most scripts take
)
FEWEST_TOKENS, MOST_TOKENS = 64, 1024
FIRST_TOKENS = 16  # of the first question, which is asked alone
NOISE_SECONDS = 0.1  # of a connection or a busy moment, which say nothing of a token
TELLING_TOKENS = 4  # a shorter answer does not tell what a token takes
AT_ONCE = 4  # questions that are then asked together
DEADLINE_FACTOR = 8  # times as long as the longest answer takes alone
MOST_SECONDS = 1800.0
WORST_SHARE = 1 / 4  # of the deadline, that the longest answers may take with all workers busy


class ServedFlow(NamedTuple):
    """A person's own flow, and where it is served over each connection."""

    source: Artifact
    endpoints: Mapping[str, Endpoint]


class Rate(NamedTuple):
    """What an endpoint did with a few questions at once."""

    tokens_a_second: float
    answers_a_second: float


@dataclass(frozen=True)
class Asking:
    """How a batch run asks its endpoints, by name: each with its deadline and its pace.

    `max_tokens` limits every answer. At most `most` requests are in flight, `workers` of them where the
    number cannot change in a run. `line_seconds` is what a line takes on all endpoints, None if no question
    was answered.
    """

    endpoints: Mapping[str, Endpoint]
    max_tokens: int
    most: int
    workers: int
    line_seconds: float | None

    def stored(self) -> dict[str, Endpoint]:
        """The endpoints as another process takes them, without this one's pace."""
        return {name: replace(endpoint, pause=None) for name, endpoint in self.endpoints.items()}


def answer_limit(chats: "Sequence[Chat]") -> int:
    """Tokens: one for two bytes of the longest reference, from 64 to 1024, in steps of 16."""
    longest = max((len(chat.reference.encode()) for chat in chats), default=0)
    tokens = math.ceil(longest / REFERENCE_BYTES_PER_TOKEN / 16) * 16
    return min(max(tokens, FEWEST_TOKENS), MOST_TOKENS)


def measure(chats: "Sequence[Chat]", endpoints: Mapping[str, Endpoint], *, most: int) -> Asking:
    """Ask each endpoint, which is `ready`, a few questions of the file; one endpoint after the other."""
    limit = answer_limit(chats)
    measured, rates = {}, []
    for name, endpoint in endpoints.items():
        rate, deadline = _measured(endpoint, chats, limit)
        measured[name] = paced(replace(endpoint, timeout=deadline), most)
        rates.append((rate, deadline))
    workers = min(_workers(rate, deadline, limit, most) for rate, deadline in rates)
    known = [rate for rate, _ in rates if rate is not None]
    seconds = sum(1 / rate.answers_a_second for rate in known) if len(known) == len(rates) else None
    return Asking(measured, limit, most, workers, seconds)


def ready(connection: str, flow: ServedFlow | None = None) -> Endpoint:
    """The connection's endpoint, once it has answered one question. Raises Phi3flowError if it does not.

    With `flow`, that of the flow over the connection.
    """
    from custom_connections.store import load_endpoint

    endpoint = flow.endpoints[connection] if flow else load_endpoint(connection)
    try:
        endpoint.complete(PREFLIGHT, Sampling(max_tokens=1))
    except EndpointError as error:
        raise Phi3flowError(f"connection '{connection}': {error}", hint=error.hint) from None
    return endpoint


def _measured(endpoint: Endpoint, chats: "Sequence[Chat]", limit: int) -> tuple[Rate | None, float]:
    """The endpoint's rate, and the deadline in seconds; its own timeout if none of the questions is answered.

    The first question is asked alone, for one token and for a few, so that a slow endpoint answers it in time
    too; the difference is what a token takes.
    """
    asked = [chats[i * len(chats) // AT_ONCE] for i in range(min(AT_ONCE, len(chats)))]
    begun = _timed(endpoint, 1, asked[0]) if asked else None
    first = _timed(endpoint, FIRST_TOKENS, asked[0]) if begun else None
    if begun is None or first is None:
        return None, endpoint.timeout
    deadline = _deadline(endpoint, limit, begun, first)
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        timed = pool.map(partial(_timed, replace(endpoint, timeout=deadline), limit), asked)
        answered = [one for one in timed if one is not None]
    seconds = time.monotonic() - began
    if not answered:
        return None, deadline
    longest = first if first.tokens >= TELLING_TOKENS else max([first, *answered])
    together = sum(one.tokens for one in answered) / seconds
    return Rate(together, len(answered) / seconds), _deadline(endpoint, limit, begun, longest)


class _Timed(NamedTuple):
    tokens: int
    seconds: float


def _timed(endpoint: Endpoint, limit: int, chat: "Chat") -> _Timed | None:
    """None if the question is not answered: the run itself will say why."""
    began = time.monotonic()
    try:
        reply = ask_chat(endpoint, chat, Sampling(max_tokens=limit))
    except EndpointError:
        return None
    return _Timed(_tokens_of(reply), max(time.monotonic() - began, 1e-3))


def _tokens_of(reply: Reply) -> int:
    return reply.completion_tokens or max(len(reply.text.encode()) // BYTES_PER_TOKEN, 1)


def _deadline(endpoint: Endpoint, limit: int, begun: _Timed, answer: _Timed) -> float:
    """Seconds: eight times what the longest answer takes alone, at most half an hour.

    `begun` is an answer of one token to the question of `answer`. At least the connection's timeout.
    People's own packs have answers of the usual limit.
    """
    noise = NOISE_SECONDS if answer.tokens < TELLING_TOKENS else 0.0
    token_seconds = max(answer.seconds - begun.seconds - noise, 0.0) / max(answer.tokens - 1, 1)
    longest = begun.seconds + max(limit, Sampling.max_tokens) * token_seconds
    return max(endpoint.timeout, min(DEADLINE_FACTOR * longest, MOST_SECONDS))


def _workers(rate: Rate | None, deadline: float, limit: int, most: int) -> int:
    """For Prompt flow, which cannot change it in a run: even the longest answers come well in time."""
    if rate is None:
        return most
    return min(max(int(WORST_SHARE * deadline * rate.tokens_a_second / limit), 1), most)
