"""Tables with a header: CSV in its dialects, XLSX, Parquet and Arrow."""

import csv
import datetime
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO, Any, TextIO
from zipfile import ZipFile

from phi3flow.chats.fields import plain
from phi3flow.chats.files.record import Record, Records
from phi3flow.chats.files.unpacking import MOST_BYTES, TOO_LONG
from phi3flow.core.jsonl import RowError, require_utf8, short

DELIMITERS = ",;\t|"
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SINGLE_QUOTED = re.compile(r"(?:^|[,;\t|])'[^'\n]*'(?:[,;\t|]|$)", re.MULTILINE)
MAX_CELL = 1 << 24  # characters, also of a line
SNIFFED = 1 << 12  # characters: csv.Sniffer's time grows with the square
MAX_SHEET_ROWS = 1 << 20  # Excel's own
csv.field_size_limit(MAX_CELL)


class Dialect:
    """How a text separates its cells. `skip` lines stand before the header, as Excel's `sep=;`.

    `named`: the header has a name that tells it is one.
    """

    def __init__(self, delimiter: str, quote: str, skip: int = 0, *, named: bool = True) -> None:
        self.delimiter, self.quote, self.skip, self.named = delimiter, quote, skip, named
        self.name = "TSV" if delimiter == "\t" else f"CSV ({_NAMES.get(delimiter, ascii(delimiter))})"

    def rows(self, lines: Iterator[str]) -> Any:
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True)


def dialect_of(sample: str, known: frozenset[str]) -> Dialect | None:
    """The dialect of a text, by its header: `known` are column names. None if it is no table.

    A header with a known name settles it; otherwise csv.Sniffer does, whose guess must fit the header.
    """
    lines = sample.splitlines(keepends=True)
    if lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5:
        return Dialect(lines[0].strip()[4], '"', 1)
    quotes = "\"'" if _SINGLE_QUOTED.search(sample) else '"'
    named = [
        Dialect(delimiter, quote)
        for quote in quotes
        for delimiter in DELIMITERS
        if not known.isdisjoint(_names(_header(lines, delimiter, quote)))
    ]
    if named:
        return next((dialect for dialect in named if _fits(dialect, lines)), named[0])
    try:
        found = csv.Sniffer().sniff(sample[:SNIFFED], DELIMITERS)
    except csv.Error:
        return None
    quote = found.quotechar or '"'
    if len(_header(lines, found.delimiter, quote)) < 2:
        return None
    return Dialect(found.delimiter, quote, named=False)


def _header(lines: Sequence[str], delimiter: str, quote: str) -> list[str]:
    try:
        return next(csv.reader(iter(lines), delimiter=delimiter, quotechar=quote, strict=True), [])
    except csv.Error:
        return []


def _names(header: Sequence[str]) -> list[str]:
    return [*header, *map(plain, header)]


def _fits(dialect: Dialect, lines: Sequence[str]) -> bool:
    """Whether all rows have the header's cells; the sample may cut the last one."""
    try:
        whole = lines if lines[-1].endswith(("\n", "\r")) else lines[:-1]
        sizes = [len(cells) for cells in dialect.rows(iter(whole)) if cells]
    except csv.Error:
        return False
    return len(set(sizes)) == 1


def read_csv(stream: TextIO, dialect: Dialect) -> Records:
    """Rows of a text table; `place` is the line where the row starts. Blank lines are skipped."""
    for _ in range(dialect.skip):
        stream.readline()
    rows = dialect.rows(_lines(stream))
    header: list[str] | None = None
    line = dialect.skip + 1
    try:
        for cells in rows:
            if any(cells) and header is None:
                header = cells
                _require_header(header, dialect)
            elif any(cells) and header is not None:
                yield Record(line, _csv_row(header, cells))
            line = dialect.skip + rows.line_num + 1
    except RowError as error:
        yield Record(line, error)
    except csv.Error as error:
        yield Record(line, RowError("row", f"cannot be read as {dialect.name}: {error}"))


def _lines(stream: TextIO) -> Iterator[str]:
    """Raises csv.Error for a line that is longer than any cell may be: a packed one may be endless."""
    for line in iter(partial(stream.readline, MAX_CELL + 1), ""):
        if len(line) > MAX_CELL:
            raise csv.Error(f"a line of more than {MAX_CELL} characters")
        yield line


def _csv_row(header: list[str], cells: list[str]) -> dict[str, Any] | RowError:
    if len(cells) > len(header) and any(cells[len(header) :]):
        what = f"has {len(cells)} cells, the header {len(header)}: quote text that holds the separator"
        return RowError("row", what)
    if len(cells) < len(header):
        what = f"missing: the row has {len(cells)} cells, the header {len(header)}"
        return RowError(short(header[len(cells)]), what)
    try:
        for name, cell in zip(header, cells, strict=False):
            require_utf8(cell, name)
    except RowError as error:
        return error
    return {name: cell for name, cell in zip(header, cells, strict=False) if name.strip() or cell}


def _require_header(header: Sequence[str], dialect: Dialect) -> None:
    """Raise RowError for a row in its place, or a column that stands twice."""
    if not dialect.named and any(map(_is_sentence, header)):
        repair = f"{{ echo 'question{dialect.delimiter}answer'; cat; }} < {{file}} > {{fixed}}"
        what = (
            "holds sentences, not names: put a line with names before it, "
            "or choose: --columns question=COLUMN,answer=COLUMN"
        )
        raise RowError("header", what, repair if len(header) == 2 else "")
    seen: set[str] = set()
    for name in header:
        if name.strip() and name in seen:
            raise RowError(short(name), "column given twice in the header")
        seen.add(name)


def _is_sentence(cell: str) -> bool:
    words = cell.split()
    return len(words) > 2 and words[-1].endswith(("?", ".", "!"))


def read_xlsx(stream: IO[bytes], left_out: list[str]) -> Records:
    """The first sheet with cells, and others with the same header; `place` is `SHEET!ROW` as in Excel.

    The names of other sheets with cells are added to `left_out`. Raises ValueError for a workbook that is too
    large when it is unpacked.
    """
    from openpyxl import load_workbook

    if sum(member.file_size for member in ZipFile(stream).infolist()) > MOST_BYTES:
        raise ValueError(TOO_LONG)

    columns: list[str] | None = None
    for sheet in load_workbook(stream, read_only=True, data_only=True).worksheets:
        sheet.reset_dimensions()  # some programs write a wrong size
        rows = _rows_with_cells(sheet)
        _, header = next(rows, (0, None))
        if header is None:
            continue
        columns = columns or [str(cell) for cell in header]
        if header != columns:
            left_out.append(f"sheet {sheet.title}")
            continue
        yield from (Record(f"{sheet.title}!{number}", _sheet_row(columns, cells)) for number, cells in rows)


def _rows_with_cells(sheet: Any) -> Iterator[tuple[int, list[str | RowError]]]:
    """Raises ValueError behind Excel's last row: openpyxl counts up to whatever number a file gives a row."""
    for number, cells in enumerate(sheet.iter_rows(), 1):
        if number > MAX_SHEET_ROWS:
            raise ValueError(f"a sheet of more than {MAX_SHEET_ROWS} rows")
        texts = [_cell_text(cell) for cell in cells]
        while texts and texts[-1] == "":
            texts.pop()
        if texts:
            yield number, texts


def _sheet_row(header: list[str], cells: list[str | RowError]) -> dict[str, Any] | RowError:
    for name, cell in zip(header, cells, strict=False):
        if isinstance(cell, RowError):
            return RowError(name, cell.what)
    texts = [str(cell) for cell in cells] + [""] * len(header)
    if any(texts[len(header) :]):
        return RowError("row", f"has more cells than the header, which has {len(header)}")
    return {name: text for name, text in zip(header, texts, strict=False) if name.strip() or text}


def _cell_text(cell: Any) -> str | RowError:
    """What the cell shows; RowError for an error such as #N/A."""
    value = cell.value
    if value is None:
        return ""
    if getattr(cell, "data_type", "") == "e":
        return RowError("cell", f"holds the error {value}")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ").removesuffix(" 00:00:00")
    return str(value)


def read_parquet(stream: IO[bytes]) -> Records:
    from pyarrow import parquet

    return _batches(parquet.ParquetFile(stream).iter_batches())


def read_arrow_file(stream: IO[bytes]) -> Records:
    from pyarrow import ipc

    opened = ipc.open_file(stream)
    return _batches(opened.get_batch(i) for i in range(opened.num_record_batches))


def read_arrow_stream(stream: IO[bytes]) -> Records:
    from pyarrow import ipc

    return _batches(iter(ipc.open_stream(stream)))


def _batches(batches: Iterator[Any]) -> Records:
    """Rows of record batches, numbered from 1."""
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield Record(f"row {number}", row)
