"""How other programs of this person ask the flows that `phi3flow up` serves: with a header from a file.

The file is in the project's Prompt flow home, for its owner alone, and goes when `phi3flow up` ends.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from phi3flow.core.files import write_text
from phi3flow.core.service_stack import LOOPBACK
from phi3flow.core.settings import Settings
from phi3flow.core.sides import Side

HEADER = "Authorization: Bearer "


def header_file(port: int, settings: Settings) -> Path:
    return settings.promptflow_home / f"flow-{port}.header"


@contextmanager
def callers_know(key: str, sides: Sequence[Side], settings: Settings) -> Iterator[None]:
    """Write the header of each side's flow; remove it at the end."""
    files = [header_file(getattr(settings, side.flow_port), settings) for side in sides]
    try:
        for file in files:
            write_text(file, f"{HEADER}{key}\n")
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def known_key(settings: Settings) -> str:
    """The key of the flow on `flow_port`: PHI3FLOW_FLOW_KEY, or what `phi3flow up` wrote; else empty."""
    try:
        written = header_file(settings.flow_port, settings).read_text(encoding="utf-8")
    except OSError:
        written = ""
    return settings.flow_key or written.removeprefix(HEADER).strip()


def curl_line(port: int, settings: Settings) -> str:
    """A command that asks the flow; the key does not appear in it."""
    header = shlex.quote(f"@{header_file(port, settings).resolve()}")
    asked = """-H 'Content-Type: application/json' -d '{"question": "Who founded Microsoft?"}'"""
    return f"curl -H {header} {asked} http://{LOOPBACK}:{port}/score"
