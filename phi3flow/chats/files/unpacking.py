"""Files inside gzip, bzip2, xz, or a zip of one file, told by their first bytes."""

import bz2
import gzip
import lzma
import shlex
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple
from xml.etree.ElementTree import ParseError

from phi3flow.core.errors import BadInput, first_line, translating
from phi3flow.core.jsonl import short

ZIP = b"PK\x03\x04"
MOST_PACKINGS = 3  # one in another
MOST_BYTES = 1 << 30  # of what has to be held whole; JSON Lines and CSV are read row by row
TOO_LONG = "more than 1 GiB in one piece: write it as JSON Lines"
# What reading raises where a file is broken; pyarrow's errors and Unicode's are ValueError.
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ParseError, ValueError, KeyError)


class Packing(NamedTuple):
    """`command` prints the content of a file."""

    name: str
    open: Callable[[IO[bytes]], Any]
    command: str


class _SeveralFiles(Exception):
    """A zip of none or several; the message names some."""


def _only_member(raw: IO[bytes]) -> IO[bytes]:
    archive = zipfile.ZipFile(raw)
    names = [
        name
        for name in archive.namelist()
        if not name.endswith("/") and not name.startswith("__MACOSX/") and not Path(name).name.startswith(".")
    ]
    if len(names) != 1:
        raise _SeveralFiles(", ".join(map(short, names[:5])) or "nothing")
    return archive.open(names[0])


_PACKINGS = {
    b"\x1f\x8b": Packing("gzip", lambda raw: gzip.GzipFile(fileobj=raw, mode="rb"), "gzip -dc"),
    b"BZh": Packing("bzip2", bz2.BZ2File, "bzip2 -dc"),
    b"\xfd7zXZ\0": Packing("xz", lzma.LZMAFile, "xz -dc"),
    ZIP: Packing("zip", _only_member, "unzip -p"),
}


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[IO[bytes], list[Packing]]]:
    """The file's content behind every packing, and those packings, the outer one first.

    A workbook stays packed: its zip is its format. Raises BadInput for an archive that holds no single file.
    """
    packings: list[Packing] = []
    with ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(path.open("rb"))
        while packing := _packing_of(stream):
            if len(packings) == MOST_PACKINGS:
                raise BadInput(
                    f"{path}: is packed more than {MOST_PACKINGS} times",
                    hint="unpack it, and name what is in it",
                )
            with _refusing(path):
                stream = stack.enter_context(packing.open(stream))
            packings.append(packing)
        yield stream, packings


def peek(stream: IO[bytes], size: int) -> bytes:
    """The first bytes; none where the packed data is broken."""
    try:
        start = stream.read(size)
        stream.seek(0)
    except BROKEN:
        return b""
    return start


def whole(stream: Any) -> Any:
    """All that is left of a stream, of bytes or of text. Raises ValueError beyond MOST_BYTES."""
    content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(TOO_LONG)
    return content


def _packing_of(stream: IO[bytes]) -> Packing | None:
    start = peek(stream, 8)
    packing = next((found for magic, found in _PACKINGS.items() if start.startswith(magic)), None)
    return None if packing and packing.name == "zip" and _is_workbook(stream) else packing


def _is_workbook(stream: IO[bytes]) -> bool:
    try:
        return "xl/workbook.xml" in zipfile.ZipFile(stream).namelist()
    except zipfile.BadZipFile:
        return False
    finally:
        stream.seek(0)


def _refusing(path: Path) -> Any:
    """Turn what an archive refuses into BadInput."""
    file = shlex.quote(str(path))

    def several(error: Exception) -> Exception:
        what = f"is a zip of several files ({error}); unzip it and name the folder"
        return BadInput(f"{path}: {what}", hint=f"unzip {file} -d unzipped")

    def closed(error: Exception) -> Exception:
        return BadInput(f"{path}: cannot be unzipped: {first_line(error)}", hint=f"unzip -t {file}")

    kinds = (zipfile.BadZipFile, RuntimeError, NotImplementedError)
    return translating({_SeveralFiles: several, **dict.fromkeys(kinds, closed)})
