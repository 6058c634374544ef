"""A flow's connections from the environment, where `phi3flow up` puts them; never on disk.

PHI3FLOW_CONNECTIONS is JSON: {"phi3-tuned": {"configs": {"endpoint": URL, ...}, "secrets": {"key": KEY}}}. A
connection that is no custom one names its "type" as well.
"""

import json
import os
from collections.abc import Mapping

from agents.promptflow_names import CONNECTIONS, Connection
from phi3flow.core.errors import BadInput

VARIABLE = "PHI3FLOW_CONNECTIONS"


def from_environment() -> dict[str, Connection]:
    """The connections by name; empty without the variable. Raises BadInput, which shows no value."""
    try:
        said = json.loads(os.environ.get(VARIABLE) or "{}")
        return {name: _connection(each) for name, each in said.items()}
    except (ValueError, AttributeError, TypeError, KeyError):
        raise BadInput(
            f"{VARIABLE} is not JSON of connections",
            hint='write it as {"NAME": {"configs": {"endpoint": URL}, "secrets": {"key": KEY}}}',
        ) from None


def _connection(said: Mapping[str, Mapping[str, str]]) -> Connection:
    kind = CONNECTIONS[str(said.get("type") or "CustomConnection")]
    return kind(said.get("configs") or {}, said.get("secrets") or {})
