"""The chat flow's node: Prompt flow's inputs in, a streamed answer out."""

import sys
from collections.abc import Iterator

from chat_answer import stream_answer
from phi3_contract import Endpoint, Sampling, join_turns
from promptflow.connections import CustomConnection
from promptflow.core import tool


@tool
def ask(
    *,
    connection: CustomConnection,
    question: str,
    chat_history: list,
    system: str,
    temperature: float,
    max_tokens: int,
) -> Iterator[str]:
    """An empty question is an error. The word None is a word: somebody may ask it."""
    endpoint = Endpoint.from_connection(connection.configs, connection.secrets)
    nulls = null_inputs()
    question, system = (
        "" if name in nulls else text for name, text in (("question", question), ("system", system))
    )
    messages = join_turns(question, chat_history, system)
    return stream_answer(endpoint, messages, Sampling(temperature or 0.0, max_tokens or Sampling.max_tokens))


def null_inputs() -> set[str]:
    """Inputs that a request to the served flow sends as null, which Prompt flow hands on as the word None.

    Only the request itself tells the two apart. Prompt flow's server keeps it in Flask's `g`.
    """
    flask = sys.modules.get("flask")
    request = flask.g.get("data") if flask and flask.has_app_context() else None
    return {name for name, value in request.items() if value is None} if isinstance(request, dict) else set()
