"""The flow in the current folder for a container's WSGI server: `gunicorn agents.container.wsgi:app`.

The same two variables as for `agents.host`: PHI3FLOW_FLOW_KEY and PHI3FLOW_CONNECTIONS, both secrets.
"""

from pathlib import Path

from agents.host import served_app

app = served_app(Path.cwd(), anywhere=True)
