"""Documents as text, and files of questions: what `phi3flow distill --from` takes.

To accept another kind of document, add its ending to READERS.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from phi3flow.chats.chat import Message
from phi3flow.chats.chat_template import check_prompt
from phi3flow.chats.fields import Fields
from phi3flow.chats.files.sources import ENDINGS, PACKED, Found, files_of, open_sources
from phi3flow.chats.question_rows import question_of, read_turns, system_of
from phi3flow.core.errors import BadInput, first_line
from phi3flow.core.jsonl import BadRows, RowError, require_utf8
from phi3flow.core.lineage import MANIFEST
from phi3flow.core.text_files import open_text

FEWEST_CHARACTERS = 80  # of a document that can answer a question
MOST_BYTES = 64 << 20
SHAPE = '{"question": "When is it due?"}'
_NO_TEXT = ("script", "style", "noscript", "template", "nav", "svg", "head")
_BLOCKS = (
    *("address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "footer"),
    *("form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre", "section"),
    *("table", "tr", "ul"),
)

_KEPT = str.maketrans("\n ", "\ue000\ue001")  # of preformatted text, for a moment
_PUT_BACK = str.maketrans("\ue000\ue001", "\n ")


class Document(NamedTuple):
    """`name` is the path as it was given."""

    name: str
    text: str


class Given(NamedTuple):
    """A question that somebody gave, as a prompt, and where it stands, as `FILE:LINE`."""

    prompt: tuple[Message, ...]
    origin: str


@dataclass
class Material:
    """What the sources hold.

    `files` are all that were read, `left_out` those of folders that were not, and `unused` the fields of
    questions that were not used, with their rows.
    """

    documents: list[Document] = field(default_factory=list)
    questions: list[Given] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)


def read_material(sources: Sequence[str]) -> Material:
    """Read files, folders and patterns. Raises BadInput that names every bad document and row."""
    material, bad = Material(), BadRows()
    for source in sources:
        found = _files_in(Path(source)) if Path(source).is_dir() else files_of(source)
        material.left_out += found.left_out
        for path in found.files:
            if path not in material.files:
                material.files.append(path)
                _read(path, material, bad)
    if bad.total:
        raise BadInput(f"{bad.report()}\nnothing was asked", hint=bad.hint())
    if not material.documents and not material.questions:
        raise BadInput(f"no document and no question in {', '.join(sources)}", hint=f"a row is {SHAPE}")
    return material


def _files_in(folder: Path) -> Found:
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    shown = [path for path in inside if not any(p.startswith(".") for p in path.relative_to(folder).parts)]
    known = (*READERS, *ENDINGS, *PACKED)
    files = [path for path in shown if path.suffix.lower() in known and path.name != MANIFEST]
    if not files:
        raise BadInput(f"{folder}: no documents in it ({' '.join(READERS)})", hint="give files or a folder")
    return Found(files, [str(path) for path in shown if path not in files])


def _read(path: Path, material: Material, bad: BadRows) -> None:
    if path.suffix.lower() in (*ENDINGS, *PACKED):
        material.questions += _questions(path, bad, material.unused)
        return
    try:
        material.documents.append(Document(str(path), document_text(path)))
    except RowError as error:
        bad.add_at(str(path), error, str(path))


def document_text(path: Path) -> str:
    """The text of a document, in paragraphs. Raises RowError that says why it has none."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise RowError("file", f"of a kind that is not read (known: {' '.join(READERS)})")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RowError("file", f"larger than {MOST_BYTES >> 20} MB: split it")
        text = _tidy(reader(path))
    except OSError as error:
        raise RowError("file", f"cannot be read: {error.strerror}") from None
    if len(text) < FEWEST_CHARACTERS or not re.search(r"\w", text):
        what = f"too short: {len(text)} characters, of {FEWEST_CHARACTERS}" if text else "empty"
        raise RowError("text", f"{what}; leave it out")
    return text


def _tidy(text: str) -> str:
    """Without blanks at line ends, and with one blank line at most between paragraphs."""
    text = text.replace("\xad", "").replace("\f", "\n\n")
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[^\S\n]+\n", "\n", text)).strip()


def _plain(path: Path) -> str:
    with path.open("rb") as stream:
        try:
            text = open_text(stream).read()
        except UnicodeDecodeError as error:
            raise RowError("encoding", f"not {error.encoding}: {error.reason}; save it as UTF-8") from None
    require_utf8(text)
    if "\0" in text:
        raise RowError("text", "holds NUL bytes: not a text file")
    return text


def _html(path: Path) -> str:
    """What a reader sees: without scripts, styles and navigation; blocks become paragraphs."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(path.read_bytes(), "html.parser")
    for tag in soup.find_all(_NO_TEXT):
        tag.decompose()
    for tag in soup.find_all("pre"):
        tag.string = tag.get_text().translate(_KEPT)
    for text in soup.find_all(string=re.compile(r"\s")):
        text.replace_with(re.sub(r"\s+", " ", text))
    for tag in soup.find_all(_BLOCKS):
        tag.insert_before("\n" if tag.name in ("br", "tr", "li") else "\n\n")
        tag.insert_after("\n" if tag.name in ("br", "tr", "li") else "\n\n")
    return re.sub(r"\n +", "\n", soup.get_text()).translate(_PUT_BACK)


def _pdf(path: Path) -> str:
    """The text of all pages. A scan has none: it needs OCR first."""
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells of every odd object
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise RowError("pdf", "needs a password", "qpdf --decrypt --password=PASSWORD {file} {fixed}")
        pages = [page.extract_text() for page in reader.pages]
    except (RowError, OSError):
        raise
    except Exception as error:  # any: a broken file raises whatever the parser meets
        raise RowError("pdf", f"cannot be read: {first_line(error)}") from None
    if not any(page.strip() for page in pages):
        raise RowError("pdf", f"no text on its {len(pages)} pages: a scan", "ocrmypdf {file} {fixed}")
    return "\n\n".join(pages)


READERS: Mapping[str, Callable[[Path], str]] = {
    **dict.fromkeys((".txt", ".md", ".markdown"), _plain),
    **dict.fromkeys((".html", ".htm"), _html),
    ".pdf": _pdf,
}


def _questions(path: Path, bad: BadRows, unused: Counter[str]) -> Iterator[Given]:
    for source in open_sources(str(path), "questions", frozenset({"question", "messages"})):
        for record in source.records():
            try:
                if isinstance(record.row, RowError):
                    raise record.row
                fields = Fields(record.row, {})
                prompt = _prompt(fields)
            except RowError as error:
                bad.add(source.name, record.place, record.error(error))
                continue
            unused.update(fields.unused)
            yield Given(prompt, f"{source.name}:{record.place}")


def _prompt(fields: Fields) -> tuple[Message, ...]:
    """Everything before the answer, if there is one. Raises RowError."""
    if fields.present("messages"):
        messages = read_turns("messages", fields.take("messages"), [])
        while messages and messages[-1]["role"] == "assistant":
            messages.pop()
    else:
        messages = [*system_of(fields), *question_of(fields, [])]
    if not messages or messages[-1]["role"] != "user":
        raise RowError("question", "missing (or 'messages' with a user's question)")
    check_prompt(messages, "messages")
    return tuple(messages)
