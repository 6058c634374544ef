"""Is the test file the one that `prepare` wrote, and does none of it stand in the training file beside it?"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from phi3flow.chats.alike.same_questions import question_text
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import read_manifest, sha256_of

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

TRAIN = "train.jsonl"


def require_as_prepared(data: Path) -> None:
    """Raise BadInput where `prepare` wrote another file under this name; any other file passes."""
    written = _prepared(data.parent).get(data.name)
    if written and written != sha256_of(data):
        raise BadInput(
            f"{data}: not the file that prepare wrote there: it has changed since",
            hint=f"put it back; or prepare again into a new folder, with --test {data}",
        )


def rows_in_training(chats: "Iterable[Chat]", data: Path) -> int:
    """How many chats of the test file `data` ask what a chat in the training file beside it asks.

    Whoever divided them: a split of one's own has no manifest.
    """
    train = data.with_name(TRAIN)
    if not train.is_file():
        return 0
    trained = {hash(_asked(chat)) for chat in _readable(train)}
    return sum(hash(_asked(chat)) in trained for chat in chats)


def _readable(train: Path) -> "Iterator[Chat]":
    """Rows that cannot be read were not trained on, either."""
    from phi3flow.chats.intake import Intake
    from phi3flow.chats.rows import open_chats, read_chats

    intake = Intake()
    with suppress(BadInput):  # no file of chats at all
        for source in open_chats(str(train)):
            yield from read_chats(source, intake)


def _asked(chat: "Chat") -> str:
    return question_text(chat.prompt, with_system=True)


def _prepared(folder: Path) -> dict[str, str]:
    """The sha256 of each file that `prepare` wrote into the folder."""
    manifest = read_manifest(folder) or {}
    if manifest.get("kind") != "data":
        return {}
    return {Path(found["path"]).name: found["sha256"] for found in manifest.get("outputs", [])}
