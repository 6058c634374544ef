"""Sequences that stay in files: what a hundred thousand lines say is in memory only while it is looked at."""

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, overload

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

T = TypeVar("T")


class Lazy(Sequence[T], Generic[T]):
    """A sequence whose items are made anew each time they are asked for."""

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "list[T]": ...
    def __getitem__(self, index: int | slice) -> "T | list[T]":
        positions = range(self._length)[index]
        return self._make(positions) if isinstance(positions, int) else [self._make(i) for i in positions]


def chats_in(path: Path) -> "Lazy[Chat]":
    """The chats of a test file, all of it checked now. Raises what `load_chats` raises."""
    from phi3flow.chats.row_shapes import parse_row
    from phi3flow.chats.rows import iterate_chats

    for _ in iterate_chats(path):
        pass
    stream = path.open("rb")
    offsets, position = array("Q"), 0
    for line in stream:
        if line.strip():
            offsets.append(position)
        position += len(line)

    def chat(i: int) -> "Chat":
        stream.seek(offsets[i])
        return parse_row(stream.readline().removesuffix(b"\n"))

    return Lazy(len(offsets), chat)
