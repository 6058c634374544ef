"""The served chat flows, all that the page talks to, and what their errors mean to a person."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from phi3flow.core.settings import Settings
from phi3flow.phi3_contract import (
    CutOff,
    Endpoint,
    EndpointError,
    FlowFailed,
    Garbled,
    Message,
    Overloaded,
    Rejected,
    Sampling,
    TimedOut,
    Unauthorized,
    Unreachable,
)

ANSWER_SECONDS = 120.0  # longer than the flow's own deadline, so that the flow says what went wrong
SENTENCES: dict[type[EndpointError], str] = {
    Unauthorized: (
        "The model's endpoint refused the key. Store the current one with `phi3flow connect`, then start "
        "`phi3flow up` again."
    ),
    Unreachable: "The model's endpoint does not answer. Start it again: `phi3flow up`.",
    TimedOut: "The model took too long. Ask again, or allow fewer tokens.",
    Overloaded: "The model's endpoint is overloaded and stayed so. Ask again in a while.",
    Garbled: "The model's endpoint answers in another format than its connection says: `phi3flow connect`.",
    CutOff: "The connection broke before the answer was complete.",
}


def stream_of(model: str, messages: Sequence[Message], sampling: Sampling) -> Callable[[], Iterator[str]]:
    """What asks the flow that serves `model`: once for each call."""
    url = f"http://127.0.0.1:{port_of(model)}/score"
    endpoint = Endpoint(url, contract="promptflow", timeout=ANSWER_SECONDS)
    return lambda: endpoint.stream(messages, sampling)


def port_of(model: str) -> int:
    settings = Settings.load()
    return settings.base_flow_port if model == "base" else settings.flow_port


def explained(error: EndpointError, model: str, run: Path) -> str:
    """One sentence and what to do; fixed texts alone, so no key, URL or word of a stranger is in them."""
    if isinstance(error, Unreachable):
        return f"No chat flow answers on port {port_of(model)}: start it with `phi3flow up`."
    met = error.cause if isinstance(error, FlowFailed) else error
    if isinstance(met, Rejected):
        return f"The chat flow could not answer: its logs are in `{run / 'up'}`."
    return SENTENCES[type(met)]
