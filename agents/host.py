"""A flow folder served by Agent Framework: `python -m agents.host FOLDER PORT [ADDRESS]`, with a key.

ADDRESS is loopback by default; at another one it answers other machines, as a container must.

What `phi3flow.app.flow_server` is for Prompt flow. The key comes from PHI3FLOW_FLOW_KEY, the connections from
PHI3FLOW_CONNECTIONS. At an ADDRESS that only a front end can reach, which has checked who asks,
PHI3FLOW_KEY_CHECKED_BY=azureml stands for the key.
"""

import os
import sys
from pathlib import Path

from flask import Flask

from agents.app import create_app
from agents.connections import from_environment
from agents.failures import Failed
from agents.flow_file import read_flow
from agents.tracing import start as start_tracing
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.flow_front import guard
from phi3flow.core.service_stack import LOOPBACK
from phi3flow.core.settings import Settings

CHECKED_BY, FRONT_END = "PHI3FLOW_KEY_CHECKED_BY", "azureml"
UNMOVED = "phi3flow migrate check --flow DIR says what of a flow cannot be moved"


def served_app(folder: Path, *, anywhere: bool = False) -> Flask:
    """The app for a flow folder, behind its key; this process works in the folder from now on.

    `anywhere` answers requests of other machines, too, as a container must.
    Exits with a sentence for a key, a connection or a part of the flow that is missing.
    """
    checked_before = anywhere and os.environ.get(CHECKED_BY) == FRONT_END
    key = None if checked_before else Settings.load().flow_key
    if key == "":
        raise SystemExit("PHI3FLOW_FLOW_KEY is not set")
    os.chdir(folder)
    try:
        flow = read_flow(folder)
        start_tracing(flow.name)
        app = create_app(flow, from_environment())
    except (Failed, Phi3flowError) as error:
        raise SystemExit(f"error: {error}\nhint: {getattr(error, 'hint', '') or UNMOVED}") from None
    guard(app, key, anywhere=anywhere)
    return app


def main() -> None:
    """Serve FOLDER on PORT until it is stopped."""
    try:
        from agents.server import serve
    except ImportError:
        raise SystemExit("error: Agent Framework's environment is out of date\nhint: make agents") from None
    folder, port, *rest = sys.argv[1:]
    address = rest[0] if rest else LOOPBACK
    app = served_app(Path(folder).resolve(), anywhere=address != LOOPBACK)
    serve(app, address, int(port))


if __name__ == "__main__":
    main()
