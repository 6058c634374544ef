"""What went wrong with an answer, in one sentence that says what to do."""

from pathlib import Path

from phi3flow.phi3_contract import (
    CutOff,
    EndpointError,
    FlowFailed,
    Garbled,
    Overloaded,
    Rejected,
    TimedOut,
    TooLong,
    Unauthorized,
    Unreachable,
    Untrusted,
)
from ui.answers.served_flow import port_of
from ui.rendering import label

SENTENCES: dict[type[EndpointError], str] = {
    Unauthorized: (
        "The model's endpoint refused the key. Store the current one with `phi3flow connect`, then start "
        "`phi3flow up` again."
    ),
    Unreachable: "The model's endpoint does not answer. Start it again: `phi3flow up`.",
    Untrusted: (
        "The TLS certificate of the model's endpoint is not trusted here. Set REQUESTS_CA_BUNDLE, then start "
        "`phi3flow up` again."
    ),
    TimedOut: "The model took too long. Ask again, or allow fewer tokens.",
    Overloaded: "The model's endpoint stayed overloaded. Ask again later.",
    Garbled: (
        "The model's endpoint does not speak the contract of its connection. Store the connection again: "
        "`phi3flow connect`."
    ),
    CutOff: "The connection broke before the answer was complete.",
}


def explained(error: EndpointError, model: str, run: Path) -> str:
    """What went wrong and what to do: a fixed text, or the endpoint's bounded reason for a refusal.

    The contract module has taken keys and URLs out of that reason; here it loses its Markdown.
    """
    if isinstance(error, Unreachable):
        return f"No chat flow answers on port {port_of(model)}: start it with `phi3flow up`."
    if isinstance(error, Unauthorized):
        return f"The chat flow on port {port_of(model)} is of another `phi3flow up`. Start this one again."
    cause = error.cause if isinstance(error, FlowFailed) else error
    if isinstance(cause, TooLong):
        return "This is longer than the model's context. Ask with fewer words, or start a new chat."
    if isinstance(cause, Rejected) and cause is not error:
        return f"The chat flow could not answer: {label(str(cause))}"
    if isinstance(cause, Rejected):
        return f"The chat flow could not answer: its logs are in `{run / 'up'}`."
    return SENTENCES[type(cause)]
