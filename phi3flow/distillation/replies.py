"""Requests to a teacher or a judge: each is asked once, however often the command is killed and run again.

Every reply is appended to a file under the hash of what was asked, with its tokens. A run reads it first.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from evaluation.asking.direct_run import pause_note
from evaluation.asking.measuring import BYTES_PER_TOKEN
from evaluation.in_flight import in_flight
from evaluation.pacing import pace_of, paced
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.jsonl import appending, keep_rows, read_jsonl
from phi3flow.core.progress import Progress
from phi3flow.phi3_contract import (
    Endpoint,
    EndpointError,
    Message,
    OutOfQuota,
    Reply,
    Sampling,
    Unauthorized,
    Unsupported,
    WrongContract,
)

GIVE_UP_AFTER = 20  # requests in a row without a usable reply
FINAL = (OutOfQuota, Unauthorized, Unsupported, WrongContract)  # errors that the next request would get, too
USELESS = f"its last {GIVE_UP_AFTER} replies are not what was asked for"
STRONGER = "name a stronger model with --teacher or --judge, and another --out"
AGAIN = "run the same command again: what was answered is not asked again"


class Request(NamedTuple):
    messages: Sequence[Message]
    max_tokens: int

    @property
    def tokens(self) -> int:
        """About as many as are sent: one for four bytes."""
        return sum(len(turn["content"].encode()) for turn in self.messages) // BYTES_PER_TOKEN


@dataclass(frozen=True)
class Said:
    """A reply and its tokens; `counted` says whether the endpoint counted them, else they are estimated."""

    text: str
    finish_reason: str | None
    sent: int
    received: int
    counted: bool

    @property
    def is_cut(self) -> bool:
        return self.finish_reason == "length"


class Price(NamedTuple):
    """Of a million tokens sent, and of a million received, in the user's currency."""

    sent: float
    received: float


class Usage(NamedTuple):
    """Tokens of all replies so far, those of earlier runs included."""

    requests: int
    sent: int
    received: int
    counted: bool = True

    def told(self, price: Price | None) -> str:
        """`about 1,200 tokens sent, 300 received, cost 0.0042`."""
        cost = self.cost(price)
        paid = "" if cost is None else f", cost {cost:.4f}"
        return (
            f"{'' if self.counted else 'about '}{self.sent:,} tokens sent, {self.received:,} received{paid}"
        )

    def cost(self, price: Price | None) -> float | None:
        return None if price is None else (self.sent * price.sent + self.received * price.received) / 1e6


class Replies:
    """All replies of a folder, by the hash of what was asked."""

    def __init__(self, known: dict[str, Said], append: Callable[[Mapping[str, object]], None]) -> None:
        self.known, self._append = known, append

    def add(self, key: str, said: Said) -> None:
        self._append({"asked": key, **asdict(said)})
        self.known[key] = said

    @property
    def usage(self) -> Usage:
        said = [*self.known.values()]
        sent, received = sum(one.sent for one in said), sum(one.received for one in said)
        return Usage(len(said), sent, received, all(one.counted for one in said))


@contextmanager
def open_replies(path: Path) -> Iterator[Replies]:
    keep_rows(path, lambda row: True)
    known = {row.pop("asked"): Said(**row) for row in (read_jsonl(path) if path.exists() else [])}
    with appending(path) as append:
        yield Replies(known, append)


class Asker:
    """One model behind an endpoint. `name` is its connection, `workers` the most requests in flight.

    `failed` counts the requests that got no reply; the next run asks them again.
    """

    def __init__(
        self, name: str, endpoint: Endpoint, replies: Replies, *, workers: int, price: Price | None = None
    ) -> None:
        self.name, self.endpoint, self.workers = name, paced(endpoint, workers), workers
        self._replies, self._price, self.failed = replies, price, 0
        self._in_a_row = 0  # requests without a usable reply
        self._end: EndpointError | None = None  # why nothing more is asked

    def ask(
        self, what: str, requests: Sequence[Request], usable: Callable[[Said], bool]
    ) -> list[Said | EndpointError]:
        """The reply to each request, in order, or why there is none; `what` they are, for the progress.

        Raises Phi3flowError for an error that every request would get, and after twenty requests in a row
        without a `usable` reply.
        """
        keys = [self._key(request) for request in requests]
        known, failed = self._replies.known, dict[str, EndpointError]()
        todo = {key: one for key, one in zip(keys, requests, strict=True) if key not in known}
        different = len(set(keys))
        with Progress(what, different, different - len(todo), self._note) as progress:
            for key, said in in_flight(self._answer, todo.items(), self.workers):
                if isinstance(said, Said):
                    self._replies.add(key, said)
                else:
                    failed[key] = said
                good = isinstance(said, Said) and usable(said)
                progress.count(failed=not good)
                self._look_for_an_end(said, good=good)
        if self._end:
            raise self._ended()
        self.failed += len(failed)
        return [known[key] if key in known else failed[key] for key in keys]

    def _answer(self, asked: tuple[str, Request]) -> tuple[str, Said | EndpointError]:
        """Ask, unless the run has come to an end: then only what is in flight is waited for and kept."""
        key, request = asked
        if self._end:
            return key, self._end
        sampling = Sampling(max_tokens=request.max_tokens)

        def attempt() -> Reply | EndpointError:
            try:
                return self.endpoint.ask(request.messages, sampling)
            except EndpointError as error:
                return error

        try:
            reply = pace_of(self.endpoint).ask(attempt, failed=lambda one: isinstance(one, EndpointError))
        except EndpointError as error:  # of the pace: the endpoint has stopped answering
            reply = error
        return key, reply if isinstance(reply, EndpointError) else _said(reply, request)

    def _look_for_an_end(self, said: Said | EndpointError, *, good: bool) -> None:
        self._in_a_row = 0 if good else self._in_a_row + 1
        if self._end is None and (isinstance(said, FINAL) or self._in_a_row >= GIVE_UP_AFTER):
            self._end = said if isinstance(said, EndpointError) else EndpointError(USELESS, STRONGER)

    def _ended(self) -> Phi3flowError:
        assert self._end  # noqa: S101 - for the type checker
        kept = f"{len(self._replies.known)} replies are kept, and no rows were written"
        hint = self._end.hint if str(self._end) == USELESS else f"{self._end.hint}; then {AGAIN}"
        return Phi3flowError(f"{self.name}: {self._end}; {kept}", hint=hint)

    def _note(self) -> str:
        paused = pause_note([pace_of(self.endpoint)])
        return "; ".join(filter(None, [self._replies.usage.told(self._price), paused]))

    def _key(self, request: Request) -> str:
        at = self.endpoint
        turns = [[turn["role"], turn["content"]] for turn in request.messages]
        asked = [at.url, at.contract, at.model, at.deployment, turns, request.max_tokens]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _said(reply: Reply, request: Request) -> Said:
    sent, received = reply.prompt_tokens, reply.completion_tokens
    estimated = len(reply.text.encode()) // BYTES_PER_TOKEN
    return Said(
        reply.text,
        reply.finish_reason,
        request.tokens if sent is None else sent,
        estimated if received is None else received,
        counted=sent is not None and received is not None,
    )
