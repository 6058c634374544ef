"""The client for every wire contract of a Phi-3 endpoint.

Flows include this file (`additional_includes`), so it imports only the standard library and `requests` (with
its urllib3), and azure-identity for an endpoint that wants Entra tokens. It keeps to Python 3.9, which Prompt
flow's image in the cloud has. Contracts:

    A           {"input_data": [text], "params": {..}}                        -> ["text"]
    B           {"input_data": {"input_string": [..], "parameters": {..}}}    -> {"output": "text"}
    openai      POST /v1/chat/completions                                     -> choices, streams
    promptflow  POST /score of `pf flow serve`                                -> {"answer": "text"}, streams

A and B are the scoring contracts of Azure ML's Phi-3 deployments, as the clients of Microsoft's Phi-3
cookbook send them. Error messages are fixed texts and, for a refusal, the reason that the endpoint gives: one
bounded line, in which the key and URLs are blacked out.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import requests
from urllib3.exceptions import ProtocolError

Message = Mapping[str, str]
T = TypeVar("T")
NEW_NAME = "max_completion_tokens"  # what OpenAI's newer models call `max_tokens`
ENTRA, ENTRA_SCOPE, ENTRA_SPARE_SECONDS = "entra", "https://ml.azure.com/.default", 300
CONTRACTS = ("A", "B", "openai", "promptflow")
CONNECT_SECONDS = 5.0
TOLD_SECONDS = 2.0  # to ask what an endpoint tells of its model; it goes without, too
SPENT_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})  # OpenAI's, with status 429
RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
FIRST_BACKOFF_SECONDS = 0.25
ERROR_BYTES = 4096  # how much of an error's body is read
REASON_CHARACTERS = 300  # of the reason that an endpoint gives for a refusal
FLOW_FAILURE = "Execution failure in"  # how Prompt flow begins to tell of an exception in a node
SHAPE_WORDS = ("input_data", "ield required")  # in a refusal of a body that has another contract's fields
SECRET_FIELD = re.compile(
    r"(?i)(?:[\w.-]*(?:key|token|secret|password|pwd|auth|credentials?)|sig|signature|code|pass|sas|jwt)="
)
HALF_CHARACTER = "the answer holds half a surrogate pair"  # valid in JSON, and no text
READ_BYTES = 16  # bytes per read; the deadline is checked after each


class EndpointError(Exception):
    """A request to an endpoint failed; `hint` says what to do.

    ├── Unauthorized, TimedOut, Garbled, CutOff
    ├── Overloaded
    │   └── OutOfQuota     the account behind the key has used up what it paid for; not asked again
    ├── Unreachable
    │   └── Untrusted      its TLS certificate is not trusted here
    └── Rejected
        ├── WrongContract  the shape of the request is not what the endpoint takes
        ├── TooLong        prompt and history exceed the model's context
        ├── Unsupported    raised before anything is sent
        └── FlowFailed     by a served flow; `cause` is one of the errors above
    """

    exit_code = 1
    default_hint = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint


class Unauthorized(EndpointError):
    default_hint = "store the endpoint's current key: phi3flow connect NAME --endpoint URL"


class Unreachable(EndpointError):
    default_hint = "start it (phi3flow serve MODEL) or correct the connection's endpoint"


class Untrusted(Unreachable):
    default_hint = (
        "export REQUESTS_CA_BUNDLE=FILE with the certificates of your company's authority in PEM format"
    )


class TimedOut(EndpointError):
    default_hint = "the endpoint is slow or overloaded; raise the connection's 'timeout' or lower max_tokens"


class Overloaded(EndpointError):
    default_hint = "the endpoint refuses more work; try again later or lower the number of workers"


class OutOfQuota(Overloaded):
    default_hint = "add credit to the account or raise its limit, and run the same command again"


class Rejected(EndpointError):
    default_hint = "change what the endpoint names; its log says more"


class WrongContract(Rejected):
    default_hint = "check that the connection's contract is the one this endpoint speaks"


class TooLong(Rejected):
    default_hint = "ask with less text, or start a new conversation"


class Unsupported(Rejected):
    default_hint = "connect with contract openai"


class FlowFailed(Rejected):
    """A served flow failed; `cause` is the error its node got from the endpoint behind it."""

    def __init__(self, cause: EndpointError) -> None:
        super().__init__(f"the flow could not answer: {cause}", cause.hint)
        self.cause = cause


class Garbled(EndpointError):
    default_hint = "check that the connection's endpoint and contract belong together"


class CutOff(EndpointError):
    default_hint = "the endpoint stopped mid-answer; ask again"


NODE_ERRORS: dict[type[EndpointError], str] = {
    Unauthorized: "the endpoint refused the key",
    Unreachable: "the endpoint cannot be reached",
    Untrusted: "the endpoint's TLS certificate is not trusted",
    TimedOut: "the endpoint did not answer in time",
    Overloaded: "the endpoint is overloaded",
    OutOfQuota: "the endpoint's quota is used up",
    Garbled: "the endpoint's answer is not the connection's contract",
    CutOff: "the endpoint broke off before its first word",
    Rejected: "the endpoint rejected the request",
    WrongContract: "the endpoint does not take the connection's contract",
    TooLong: "the conversation is longer than the model's context",
    Unsupported: "the connection's contract cannot carry this conversation",
}


@dataclass(frozen=True)
class Sampling:
    """Decoding options. `temperature` 0 is greedy; None uses the endpoint's default."""

    temperature: float = 0.0
    max_tokens: int = 256
    top_p: float | None = None
    seed: int | None = None


class Reply(NamedTuple):
    """An answer with its metadata; None for what the endpoint or its contract does not report."""

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_token_ids: list[int] | None = None


class Pause:
    """Shared by all threads that ask one endpoint, so that all of them respect its `Retry-After`.

    Otherwise each thread would have to be refused first, and together they would never stop asking.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = 0.0

    def extend(self, seconds: float) -> None:
        """Pause all requests for `seconds`. Never shortens a longer pause."""
        with self._lock:
            self._over = max(self._over, time.monotonic() + seconds)

    def seconds_left(self) -> float:
        return max(self._over - time.monotonic(), 0.0)


@dataclass(frozen=True)
class Endpoint:
    """A scoring URL and its key: all that the rest of the system knows of a deployed model.

    `contract` is A, B, openai or promptflow. `deployment` selects one deployment behind an Azure ML endpoint.
    `timeout` is in seconds, for one question with all its retries. Threads that ask together share a `pause`.
    `auth` entra takes a token for each request instead of `key`: one dies after an hour, so none is stored.
    Conversations without a system message are asked with `system`, if that is not empty.
    Raises Rejected for an unknown contract, and for a URL that is not http(s) or holds a secret.
    """

    url: str
    key: str = field(default="", repr=False)
    contract: str = "B"
    model: str | None = None
    deployment: str | None = None
    timeout: float = 60.0
    auth: str = "key"
    pause: Pause | None = field(default=None, repr=False, compare=False)
    system: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise Rejected("the endpoint is not an http(s) URL", "give the full scoring URL")
        if public := _without_secrets(self.url):
            raise Rejected(
                "the endpoint's URL holds a password or a key, which would be stored and shown in clear text",
                f"set PHI3FLOW_ENDPOINT_KEY to it, and: phi3flow connect NAME --endpoint {public}",
            )
        if self.contract not in CONTRACTS:
            raise Rejected(f"unknown contract '{self.contract}'", "known: " + ", ".join(CONTRACTS))

    @classmethod
    def from_connection(cls, configs: Mapping[str, str], secrets: Mapping[str, str]) -> Endpoint:
        """Read a custom connection. Foundry's Custom keys put every entry into `secrets`.

        Raises Rejected if there is no endpoint.
        """
        values = {**secrets, **configs}
        if not values.get("endpoint"):
            raise Rejected(
                "the connection has no 'endpoint'", "store it again: phi3flow connect NAME --endpoint URL"
            )
        return cls(
            url=values["endpoint"],
            key=secrets.get("key", ""),
            contract=values.get("contract") or "B",
            model=values.get("model") or None,
            deployment=values.get("deployment") or None,
            timeout=float(values.get("timeout") or 60.0),
            auth=values.get("auth") or "key",
        )

    def context(self) -> int | None:
        """The model's context in tokens, as `phi3flow serve` tells it; None where nobody says."""
        try:
            return int(self._told("/health/ready")["context"])
        except (ValueError, LookupError, TypeError):
            return None

    def system_prompt(self) -> str:
        """The system prompt to send where nobody chose another; empty where nobody says.

        `phi3flow serve` tells that of the model's training data, a served flow the default of its input.
        """
        try:
            if self.contract != "promptflow":
                return _text(self._told("/v1/models")["data"][0]["system_prompt"])
            asked = self._told("/swagger.json")["paths"]["/score"]["post"]["requestBody"]
            return _text(asked["content"]["application/json"]["schema"]["properties"]["system"]["default"])
        except (LookupError, TypeError):
            return ""

    def _told(self, path: str) -> Any:
        """The JSON that the endpoint's host answers at `path`; None without one."""
        parts = urlsplit(self.url)
        url = f"{parts.scheme}://{parts.netloc}{path}"
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            with _session(url).get(
                url, headers=headers, timeout=TOLD_SECONDS, allow_redirects=False
            ) as response:
                return response.json()
        except (requests.RequestException, ValueError):
            return None

    def complete(self, messages: Sequence[Message], sampling: Sampling = Sampling()) -> str:
        """Return the full answer. Raises EndpointError."""
        return self.ask(messages, sampling).text

    def ask(
        self, messages: Sequence[Message], sampling: Sampling = Sampling(), *, token_ids: bool = False
    ) -> Reply:
        """Return the full answer with its metadata. Raises EndpointError.

        `token_ids` also asks for the prompt's token ids (contract openai only). vLLM and phi3flow serve
        support `return_token_ids`; other endpoints ignore it or reject the request.
        """
        body = _DIALECTS[self.contract].body(self, self._opened(messages), sampling, False)
        if token_ids and self.contract == "openai":
            body["return_token_ids"] = True
        return self.exchange(body, _DIALECTS[self.contract].reply)

    def _opened(self, messages: Sequence[Message]) -> Sequence[Message]:
        if not self.system or (messages and messages[0]["role"] == "system"):
            return messages
        return [{"role": "system", "content": self.system}, *messages]

    def exchange(self, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """Send a request body and return what `read` makes of the JSON reply. Raises EndpointError.

        A LookupError, TypeError, ValueError or AttributeError from `read` becomes Garbled.
        """
        deadline = time.monotonic() + self.timeout
        with self._open(body, deadline, streaming=False) as response:
            return self._whole(response, deadline, read)

    def _whole(self, response: requests.Response, deadline: float, read: Callable[[Any], T]) -> T:
        try:
            received = b"".join(_until(deadline, response.iter_content(READ_BYTES)))
            return read(json.loads(received))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Garbled(f"the endpoint's answer is not contract {self.contract}") from None
        except requests.RequestException:
            raise CutOff("the connection broke while the answer was read") from None

    def stream(self, messages: Sequence[Message], sampling: Sampling = Sampling()) -> Iterator[str]:
        """Yield the answer in pieces; in one piece if the contract or a served flow cannot stream.

        The iterator ends only after a complete answer. Raises CutOff if the connection breaks before, and
        any other EndpointError.
        """
        dialect = _DIALECTS[self.contract]
        if dialect.delta is None:
            yield self.complete(messages, sampling)
            return
        deadline = time.monotonic() + self.timeout
        body = dialect.body(self, self._opened(messages), sampling, True)
        with self._open(body, deadline, streaming=True) as response:
            if response.headers.get("Content-Type", "").startswith("application/json"):
                yield self._whole(response, deadline, dialect.reply).text
                return
            lines = _until(deadline, response.iter_lines(chunk_size=1))
            pieces = _deltas(lines, dialect.delta, needs_done=self.contract == "openai")
            yield from pieces if self.contract == "promptflow" else _whole_characters(pieces)

    def _open(self, body: Mapping[str, Any], deadline: float, *, streaming: bool) -> requests.Response:
        """Send, and retry until status 200, a final error, or too little time for another try."""
        backoff = FIRST_BACKOFF_SECONDS
        body = self._renamed(body)
        while True:
            self._respect_pause(deadline)
            response = self._post(body, deadline, streaming=streaming)
            if response.status_code == 200:
                return response
            with response:
                error = self._error_of(response)
                if self._wants_other_name(error, body):
                    body = self._renamed(body)
                    continue
                wait = None if isinstance(error, OutOfQuota) else _wait_before_retry(response, backoff)
                if self.pause is not None and wait is not None and "Retry-After" in response.headers:
                    self.pause.extend(wait)
                if wait is None or time.monotonic() + wait >= deadline:
                    raise error
            time.sleep(wait)
            backoff *= 2

    def _error_of(self, response: requests.Response) -> EndpointError:
        status, body = _status(response), _start_of(response)
        reason, code = _refusal(body)
        told = _shown(reason, self.key)
        if self.contract == "promptflow" and status == 400:
            if failed := _node_error(body, told):
                return failed
            told = "" if FLOW_FAILURE in reason else told  # the flow author's words
        words = f": {told}" if told else ""
        if status in {401, 403}:
            return Unauthorized(f"the endpoint refused the key{words}")
        if status in {408, 504}:
            return TimedOut("the endpoint gave up before it answered")
        if status in {402, 429, 503}:
            is_spent = status == 402 or code in SPENT_CODES
            spent = OutOfQuota(f"the endpoint's quota is used up{words}")
            return spent if is_spent else Overloaded("the endpoint is overloaded")
        if status >= 500:
            return Overloaded(f"the endpoint failed (HTTP {status})", "look at the endpoint's log")
        return _kind_of(status, reason, code)(f"the endpoint rejected the request (HTTP {status}){words}")

    def _wants_other_name(self, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """Whether the endpoint, as OpenAI's newer models do, refuses `max_tokens`. It is then remembered."""
        is_about_it = isinstance(error, Rejected) and NEW_NAME in str(error)
        if "max_tokens" not in body or self.contract != "openai" or not is_about_it:
            return False
        _new_names.add((self.url, self.model))
        return True

    def _renamed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if (self.url, self.model) not in _new_names or "max_tokens" not in body:
            return body
        return {NEW_NAME if name == "max_tokens" else name: value for name, value in body.items()}

    def _respect_pause(self, deadline: float) -> None:
        seconds = self.pause.seconds_left() if self.pause is not None else 0.0
        if time.monotonic() + seconds >= deadline:
            raise Overloaded("the endpoint is overloaded")
        if seconds:
            time.sleep(seconds)  # not for 0 seconds: that lets another thread run first

    def _post(self, body: Mapping[str, Any], deadline: float, *, streaming: bool) -> requests.Response:
        headers = {"Accept": "text/event-stream, application/json" if streaming else "application/json"}
        if key := _entra_token() if self.auth == ENTRA else self.key:
            headers["Authorization"] = f"Bearer {key}"
        if self.deployment:
            headers["azureml-model-deployment"] = self.deployment
        seconds_left = max(deadline - time.monotonic(), 0.001)

        def send() -> requests.Response:
            timeout = (CONNECT_SECONDS, seconds_left)
            return _session(self.url).post(self.url, json=body, headers=headers, stream=True, timeout=timeout)

        try:
            try:
                return send()
            except requests.ConnectionError as error:
                if not _was_dropped(error):
                    raise
                return send()  # the server had closed this pooled connection
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise Untrusted("the endpoint's TLS certificate is not trusted on this machine") from None
            raise Unreachable("TLS with the endpoint failed", "does its port speak https, or http?") from None
        except requests.exceptions.ProxyError:
            raise Unreachable(
                "the proxy of this machine does not let the request through",
                "add the endpoint's host to NO_PROXY, or correct HTTPS_PROXY and HTTP_PROXY",
            ) from None
        except requests.Timeout:
            raise TimedOut("the endpoint did not answer in time") from None
        except requests.ConnectionError:
            raise Unreachable("the endpoint cannot be reached") from None
        except requests.RequestException as error:
            raise Rejected(f"the request could not be sent ({type(error).__name__})") from None


class _Dialect(NamedTuple):
    body: Callable[[Endpoint, Sequence[Message], Sampling, bool], dict[str, Any]]
    reply: Callable[[Any], Reply]
    delta: Callable[[Any], str] | None = None  # the text in one server-sent event


def _body_a(endpoint: Endpoint, messages: Sequence[Message], sampling: Sampling, _: bool) -> dict[str, Any]:
    if [message["role"] for message in messages] != ["user"]:
        raise Unsupported(
            "contract A carries one user turn: no system prompt, no history",
            "connect with contract B or openai",
        )
    return {
        "input_data": [messages[0]["content"]],
        "params": {**_parameters(sampling), "return_full_text": False},
    }


def _body_b(endpoint: Endpoint, messages: Sequence[Message], sampling: Sampling, _: bool) -> dict[str, Any]:
    turns = [dict(message) for message in messages]
    return {"input_data": {"input_string": turns, "parameters": _parameters(sampling)}}


def openai_body(
    endpoint: Endpoint, messages: Sequence[Message], sampling: Sampling, streaming: bool
) -> dict[str, Any]:
    body = {
        "model": endpoint.model or "phi3",
        "messages": [dict(message) for message in messages],
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
        "stream": streaming,
    }
    return body | _given(top_p=sampling.top_p, seed=sampling.seed)


def _body_promptflow(
    endpoint: Endpoint, messages: Sequence[Message], sampling: Sampling, _: bool
) -> dict[str, Any]:
    turns = split_turns(messages)
    return {
        "question": turns.question,
        "chat_history": turns.history,
        "system": turns.system,
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
    }


def _parameters(sampling: Sampling) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "max_new_tokens": sampling.max_tokens,
        "do_sample": sampling.temperature > 0,
    } | _given(top_p=sampling.top_p, seed=sampling.seed)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("the answer is not text")
    return _paired(value)


def _reply_openai(reply: Any) -> Reply:
    choice, usage = reply["choices"][0], reply.get("usage") or {}
    return Reply(
        _text(choice["message"]["content"]),
        choice.get("finish_reason"),
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        reply.get("prompt_token_ids"),
    )


_DIALECTS = {
    "A": _Dialect(_body_a, lambda reply: Reply(_text(reply[0]))),
    "B": _Dialect(_body_b, lambda reply: Reply(_text(reply["output"]))),
    "openai": _Dialect(
        openai_body,
        _reply_openai,
        lambda event: event["choices"][0]["delta"].get("content") or "" if event["choices"] else "",
    ),
    "promptflow": _Dialect(
        _body_promptflow, lambda reply: Reply(_text(reply["answer"])), lambda event: event.get("answer", "")
    ),
}


class Turns(NamedTuple):
    """Messages as Prompt flow's chat inputs: the last question, earlier turns, system prompt."""

    question: str
    history: list[dict[str, dict[str, str]]]
    system: str


def split_turns(messages: Sequence[Message]) -> Turns:
    """Convert messages to Prompt flow's chat inputs. Raises Unsupported unless the roles alternate.

    A first assistant turn, which greets, becomes the answer to an empty question.
    """
    system = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
    turns = list(messages[1:] if system else messages)
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": ""})
    if not turns or [turn["role"] for turn in turns] != [
        ("user", "assistant")[i % 2] for i in range(len(turns))
    ]:
        raise Unsupported("a prompt is [system], then user and assistant in turn")
    if turns[-1]["role"] != "user":
        raise Unsupported("a prompt ends with the user's question")
    history = [
        {"inputs": {"question": asked["content"]}, "outputs": {"answer": answered["content"]}}
        for asked, answered in zip(turns[0:-1:2], turns[1::2])
    ]
    return Turns(turns[-1]["content"], history, system)


def join_turns(question: str, history: Sequence[Mapping[str, Any]], system: str = "") -> list[dict[str, str]]:
    """Convert Prompt flow's chat inputs to messages. Raises Rejected for an empty or malformed input."""
    if not isinstance(question, str) or not question.strip():
        raise Rejected("the question is empty", "ask something")
    messages = [{"role": "system", "content": system}] if system else []
    for position, turn in enumerate(history or []):
        try:
            asked, answered = turn["inputs"]["question"], turn["outputs"]["answer"]
        except (LookupError, TypeError):
            raise Rejected(
                f"chat_history[{position}] is not {{inputs: {{question}}, outputs: {{answer}}}}"
            ) from None
        messages += [{"role": "user", "content": str(asked)}] if asked or position else []
        messages += [{"role": "assistant", "content": str(answered)}]
    return [*messages, {"role": "user", "content": question}]


def _until(deadline: float, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces; raise TimedOut after the deadline. The socket's timeout restarts with every read."""
    for piece in pieces:
        if time.monotonic() > deadline:
            raise TimedOut("the endpoint did not finish its answer in time")
        yield piece


def _deltas(lines: Iterator[bytes], delta: Callable[[Any], str], *, needs_done: bool) -> Iterator[str]:
    done = False
    try:
        for line in lines:
            payload = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if payload == b"[DONE]":
                done = True
            elif payload:
                piece = delta(json.loads(payload))
                if piece:
                    yield piece
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Garbled("the endpoint's stream is not the connection's contract") from None
    except requests.RequestException:
        raise CutOff("the stream broke before the answer was complete") from None
    if needs_done and not done:
        raise CutOff("the stream ended before the answer was complete")


def _whole_characters(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces of one answer; a surrogate pair that two of them share is kept together. Raises Garbled."""
    held = ""
    for piece in pieces:
        text = held + piece
        held = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        if whole := text.removesuffix(held):
            yield _paired(whole)
    if held:
        raise Garbled(HALF_CHARACTER)


def _paired(text: str) -> str:
    """Text whose surrogates are joined to characters. Raises Garbled for one that stands alone."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise Garbled(HALF_CHARACTER) from None


def _was_dropped(error: requests.ConnectionError) -> bool:
    """Whether the server closed an open connection before it answered. Asking again is safe then."""
    return bool(error.args) and isinstance(error.args[0], ProtocolError)


def _wait_before_retry(response: requests.Response, backoff: float) -> float | None:
    """Seconds until the next try, or None if the status is final.

    Azure ML reports any failure of the container as 424; only an overloaded container is asked again.
    """
    status = _status(response)
    if status not in RETRIED_STATUSES:
        return None
    asked = _retry_after(response.headers.get("Retry-After", ""))
    return backoff * random.uniform(0.75, 1.25) if asked is None else asked


def _retry_after(value: str) -> float | None:
    """`Retry-After` in seconds from now: a number or a date (RFC 9110, 10.2.3); None for anything else."""
    if value.replace(".", "", 1).isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):  # TypeError: a date without a zone
        return None


def _status(response: requests.Response) -> int:
    inner = response.headers.get("ms-azureml-model-error-statuscode", "")
    return int(inner) if response.status_code == 424 and inner.isdigit() else response.status_code


def _kind_of(status: int, reason: str, code: str) -> type[Rejected]:
    """What a refusal is about, by OpenAI's code or the words that other servers use."""
    if code == "context_length_exceeded" or "maximum context length" in reason:
        return TooLong
    of_model = code == "model_not_found" or "model" in reason.lower()
    of_shape = not reason or any(word in reason for word in SHAPE_WORDS)
    if status in {405, 415, 422} or of_shape or (status == 404 and not of_model):
        return WrongContract
    return Rejected


def _refusal(body: bytes) -> tuple[str, str]:
    """The reason and its code in the body of a 4xx; empty where there is none.

    Reads OpenAI's `{"error": {"message", "code"}}`, FastAPI's `{"detail"}` and plain text, but no page.
    """
    try:
        value = json.loads(body)
    except ValueError:
        text = body.decode("utf-8", "replace").lstrip()
        cut = re.search(r'"(?:message|detail)":\s*"([^"\\]+)', text)  # of JSON longer than ERROR_BYTES
        return (cut[1] if cut else "" if text.startswith(("<", "{")) else text), ""
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return (error if isinstance(error, str) else ""), ""
    reason = error.get("message") or error.get("detail") or ""
    return (reason if isinstance(reason, str) else json.dumps(reason)), str(error.get("code") or "")


def _without_secrets(url: str) -> str:
    """A URL without its user name, password and keys in the query; empty if it has none of these."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Rejected("the endpoint is not an http(s) URL", "give the full scoring URL") from None
    fields = parts.query.split("&")
    public = [field for field in fields if not SECRET_FIELD.match(unquote(field))]
    if public == fields and "@" not in parts.netloc:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="&".join(public)).geturl()


def _shown(reason: str, key: str) -> str:
    """A server's words on one bounded line of printable text, without the key and without URLs."""
    text = reason.replace(key, "***") if key else reason
    text = re.sub(r"\w+://\S+", "***", text)
    text = re.sub(r"\b(sk|Bearer)[-_ ][\w.*-]{4,}", "***", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= REASON_CHARACTERS else text[: REASON_CHARACTERS - 3] + "..."


def _start_of(response: requests.Response) -> bytes:
    try:
        return b"".join(islice(response.iter_content(ERROR_BYTES // 8), 8))
    except requests.RequestException:
        return b""


def _node_error(body: bytes, reason: str) -> FlowFailed | None:
    """The error that a served flow's node raised. Prompt flow answers 400 to any and names its class.

    Its words are taken where this module refuses a request so; others are the flow author's, and may contain
    anything.
    """
    named = re.search(rb"\((\w+)\)", body)
    name = named[1].decode() if named else ""
    for kind, fixed in NODE_ERRORS.items():
        if kind.__name__ == name:
            said = reason.partition(f"({name}) ")[2]
            return FlowFailed(kind(said if said and issubclass(kind, (Rejected, Unauthorized)) else fixed))
    return None


_local = threading.local()
_new_names: set[tuple[str, str | None]] = set()  # URL and model of endpoints that want NEW_NAME


_entra: dict[str, Any] = {}  # the last token


def _entra_token() -> str:
    """A token for online endpoints, fetched when asked, and again five minutes before it expires.

    Needs azure-identity. Raises Unauthorized where nobody is logged in.
    """
    known = _entra.get("token")
    if known is None or known.expires_on - time.time() < ENTRA_SPARE_SECONDS:
        try:
            from azure.identity import DefaultAzureCredential

            known = _entra["token"] = DefaultAzureCredential().get_token(ENTRA_SCOPE)
        except ImportError:
            raise Unsupported("the endpoint takes Entra tokens", "pip install azure-identity") from None
        except Exception as error:  # any: the credentials that are tried in turn raise what they like
            raise Unauthorized(
                f"no Entra token for the endpoint ({type(error).__name__})", "az login"
            ) from None
    return str(known.token)


def _session(url: str) -> requests.Session:
    """One session per thread, which keeps its connections: opening one can take longer than the answer.

    For this machine a second one, which ignores the environment's proxy: it could not reach this machine, and
    would get the key and the text.
    """
    host = urlsplit(url).hostname or ""
    is_here = host in {"localhost", "::1"} or host.startswith("127.")
    name = "direct" if is_here else "session"
    if not hasattr(_local, name):
        made = requests.Session()
        if is_here:
            made.trust_env = False
            made.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        setattr(_local, name, made)
    session: requests.Session = getattr(_local, name)
    return session
