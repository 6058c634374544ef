"""Ask one side of a comparison; free of Prompt flow so that it outlives it."""

import time
from collections.abc import Callable
from typing import Any

from phi3_contract import Endpoint, EndpointError, Message, Reply, Sampling


def timed_answer(
    endpoint: Endpoint,
    messages: list[Message],
    sampling: Sampling,
    ask: Callable[[Endpoint, list[Message], Sampling], Reply] = Endpoint.ask,
) -> dict[str, Any]:
    """`{text, seconds, tokens, error}`: a failure is recorded, so that the other side still counts.

    `tokens` is None where the endpoint, or its contract, does not tell how many the answer has.
    """
    started = time.perf_counter()
    try:
        reply = ask(endpoint, messages, sampling)
    except EndpointError as error:
        return {"text": None, "seconds": None, "tokens": None, "error": str(error)}
    seconds = round(time.perf_counter() - started, 4)
    return {"text": reply.text, "seconds": seconds, "tokens": reply.completion_tokens, "error": None}
