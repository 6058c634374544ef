"""`pf flow serve` for callers with its key alone: `python -m phi3flow.app.flow_server FOLDER PORT`.

`pf flow serve` itself has no key and answers every origin. This serves Prompt flow's own app, behind a check
of each request's Host, Origin and key. The key comes from PHI3FLOW_FLOW_KEY.
"""

import os
import sys
from pathlib import Path

from phi3flow.core.flow_folder import DAG
from phi3flow.core.flow_front import guard
from phi3flow.core.service_stack import LOOPBACK
from phi3flow.core.settings import Settings


def main() -> None:
    """Serve FOLDER until it is stopped, as `pf flow serve --engine flask` does."""
    folder, port, key = Path(sys.argv[1]).resolve(), int(sys.argv[2]), Settings.load().flow_key
    if not key:
        raise SystemExit("PHI3FLOW_FLOW_KEY is not set")
    from promptflow._sdk._configuration import Configuration
    from promptflow.core._serving.app import create_app

    os.environ["PROMPTFLOW_PROJECT_PATH"] = str(folder)
    os.chdir(folder)
    app = create_app(
        engine="flask",
        flow_file_path=folder / DAG,
        connection_provider=Configuration.get_instance().get_connection_provider(),
        environment_variables={},
    )
    guard(app, key)
    app.run(LOOPBACK, port)


if __name__ == "__main__":
    main()
