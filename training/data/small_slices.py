"""Slices of a test set that are too small to tell anything, said when the data is made."""

from collections import Counter
from collections.abc import Iterator, Sequence

from phi3flow.chats.alike.same_questions import question_groups
from phi3flow.chats.chat import Chat

ENOUGH = 30  # different questions; a test holds it against the packaged gate's `min_rows`


def small_slices(test: Sequence[Chat]) -> Iterator[str]:
    """A sentence that names them, if there are any."""
    groups = question_groups(chat.prompt for chat in test).tolist()
    pairs = {(chat.slice, group) for chat, group in zip(test, groups, strict=True) if chat.slice}
    small = {name: n for name, n in Counter(name for name, _ in pairs).items() if n < ENOUGH}
    if small:
        named = ", ".join(f"{name} ({n})" for name, n in sorted(small.items()))
        yield f"slices with fewer than {ENOUGH} different questions, too few to tell: {named}"
