"""Text as people's editors write it: UTF-8 with or without a byte-order mark, UTF-16, any line end."""

import codecs
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO

# UTF-32's mark starts with UTF-16's, so it comes first.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
_SAMPLE = 4096


def encoding_of(start: bytes) -> str:
    """The encoding of a text that begins with these bytes, by its mark or, without one, by its NUL bytes."""
    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    if marked:
        return marked
    even, odd = start[0:_SAMPLE:2].count(0), start[1:_SAMPLE:2].count(0)
    if max(even, odd) > len(start[:_SAMPLE]) // 5:  # ASCII in UTF-16: every other byte is 0
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


def open_text(stream: IO[bytes], newline: str | None = None) -> TextIOWrapper:
    """Read bytes as text from the start. With newline=None every line ends in LF, whatever the file has.

    A byte that is not UTF-8 becomes a lone surrogate, so that the line that holds it can be named.
    """
    buffered = stream if isinstance(stream, BufferedReader) else BufferedReader(stream)  # type: ignore[type-var]
    encoding = encoding_of(buffered.peek(_SAMPLE)[:_SAMPLE])
    return TextIOWrapper(buffered, encoding, errors="surrogateescape", newline=newline)


def start_of_text(start: bytes) -> tuple[str, str]:
    """The text that begins with these bytes, without leading blanks, and its encoding."""
    encoding = encoding_of(start)
    return codecs.getincrementaldecoder(encoding)("replace").decode(start).lstrip(), encoding


def read_text(path: Path) -> str:
    """A whole file as text. Raises OSError, and UnicodeDecodeError for a file in another encoding."""
    data = path.read_bytes()
    return data.decode(encoding_of(data[:_SAMPLE])).replace("\r\n", "\n").replace("\r", "\n")


def bad_byte(text: str) -> int | None:
    """Position, from 1, of the first byte of a line from `open_text` that was not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            text.encode("utf-8", "surrogateescape").decode()
        except UnicodeError as error:
            return int(getattr(error, "start", 0)) + 1
    return None


def one_byte_encoding(text: str) -> str:
    """What iconv calls the likely encoding of a line that is not UTF-8: that of Windows, if it can be."""
    try:
        text.encode("utf-8", "surrogateescape").decode("cp1252")
    except UnicodeError:
        return "ISO-8859-1"
    return "WINDOWS-1252"
