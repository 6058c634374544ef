"""Rows through a file and a reader of rows, as a command reads them."""

import json

from phi3flow.chats.intake import Intake
from phi3flow.chats.rows import open_chats

USER = {"role": "user", "content": "Hi?"}
SYSTEM = {"role": "system", "content": "Be brief."}
GOOD, BAD = {"role": "assistant", "content": "Hello."}, {"role": "assistant", "content": "What."}


def read_lines(path, reader, rows):
    """What `reader` makes of the rows, and the intake."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    intake = Intake()
    found = [each for source in open_chats(str(path)) for each in reader(source, intake)]
    return found, intake
