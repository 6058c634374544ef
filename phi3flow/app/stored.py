"""A chat over connections that a person has stored: with an endpoint, a flow of their own, or both."""

from pathlib import Path
from typing import NamedTuple

from custom_connections.promptflow_home import enter_home
from custom_connections.store import load_endpoint
from phi3flow.chats.system_prompt import recorded_system_prompt
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED


class StoredChat(NamedTuple):
    """`folder` keeps the conversations; `connection` stands in for the flow's own, if there is one.

    `system` is the default system prompt, `context` that of the model in tokens where the endpoint tells it.
    """

    folder: Path
    name: str
    connection: str | None
    flow: Path | None
    system: str
    context: int | None


def stored_chat(
    run: Path | None, connection: str | None, flow: Path | None, settings: Settings
) -> StoredChat:
    """Enter the person's Prompt flow home, and ask the endpoint what it tells of its model.

    Raises Phi3flowError for a connection that is not stored.
    """
    enter_home(settings)
    name = connection or (flow.resolve().name if flow else TUNED.connection)
    endpoint = load_endpoint(connection) if connection else None
    folder = run or settings.runs / name
    system = recorded_system_prompt(folder / TUNED.name) or (endpoint.system_prompt() if endpoint else "")
    return StoredChat(folder, name, connection, flow, system, endpoint.context() if endpoint else None)
