"""Which split a chat belongs to: a pure function of its prompt, so nothing else can ever move it.

Reordering, growing or duplicating a file leaves every earlier row where it was, and two chats that ask the
same question always stand on the same side. The price: shares are kept on average, not to the row.
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Literal

from phi3flow.chats.chat import Chat, Message

TEST_SHARE = 0.1
VAL_SHARE = 0.1

Split = Literal["train", "val", "test"]


def normalised(text: str) -> str:
    """Text as two people would call it the same: letter case, spacing and encoding do not count."""
    return unicodedata.normalize("NFC", " ".join(text.casefold().split()))


def fingerprint(messages: Sequence[Message]) -> bytes:
    """sha256 of the normalised messages; framed as JSON, so text cannot pose as a turn's border."""
    turns = [[message["role"], normalised(message["content"])] for message in messages]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).digest()


def split_of(chat: Chat) -> Split:
    """The chat's split. With a given test set the caller reads "test" as "train", and val stays the same."""
    position = int.from_bytes(fingerprint(chat.prompt)[:8]) / 2**64
    if position < TEST_SHARE:
        return "test"
    return "val" if position < TEST_SHARE + VAL_SHARE else "train"
