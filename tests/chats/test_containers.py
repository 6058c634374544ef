"""Every container times every shape, each cell tried; the table in docs/data.md is made from this."""

import csv
import gzip
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from phi3flow.chats.intake import Intake
from phi3flow.chats.row_shapes import parse_columns
from phi3flow.chats.rows import open_chats, read_chats
from phi3flow.core.errors import BadInput

DOC = Path(__file__).parents[2] / "docs" / "data.md"
START, END = "<!-- containers x shapes: make reference -->", "<!-- end of the table -->"
QUESTION, ANSWER = "Wie hoch ist der Preis?\nFür Teil 7, bitte; \"netto\", 'rund'", "12 € netto…"
TURNS = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
SHARED = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]
SYSTEM = "Be brief."
WITH_SYSTEM = [{"role": "system", "content": SYSTEM}, *TURNS]
ASKED = [{"role": "user", "content": f"{QUESTION}\n\nPart 7"}, TURNS[1]]


def in_columns(row):
    """A row's values as the cells of a table: lists as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}


# Each shape by name: a row, and the messages it means.
SHAPES = {
    "OpenAI, Azure": ({"messages": WITH_SYSTEM}, WITH_SYSTEM),
    "UltraChat": ({"prompt": QUESTION, "prompt_id": "a", "messages": TURNS}, TURNS),
    "ShareGPT": ({"conversations": SHARED}, TURNS),
    "ShareGPT, role and content": ({"conversations": TURNS}, TURNS),
    "Alpaca": (
        {"system": SYSTEM, "instruction": QUESTION, "input": "Part 7", "output": ANSWER},
        [WITH_SYSTEM[0], *ASKED],
    ),
    "Alpaca with history": (
        {"instruction": QUESTION, "input": "", "output": ANSWER, "history": [["Hi", "Hello."]]},
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, *TURNS],
    ),
    "prompt, completion": ({"prompt": QUESTION, "completion": ANSWER}, TURNS),
    "prompt, completion: messages": ({"prompt": TURNS[:1], "completion": TURNS[1:]}, TURNS),
    "prompt, response": ({"prompt": QUESTION, "response": ANSWER}, TURNS),
    "input, output": ({"input": QUESTION, "output": ANSWER}, TURNS),
    "instruction, response": ({"instruction": QUESTION, "response": ANSWER}, TURNS),
    "question, answer": ({"Question": QUESTION, "ANSWER": ANSWER}, TURNS),
    "Dolly": ({"instruction": QUESTION, "context": "Part 7", "response": ANSWER}, ASKED),
    "Gemini": (
        {
            "systemInstruction": {"role": "system", "parts": [{"text": SYSTEM}]},
            "contents": [
                {"role": role, "parts": [{"text": text}]}
                for role, text in (("user", QUESTION), ("model", ANSWER))
            ],
        },
        WITH_SYSTEM,
    ),
    "OpenOrca": ({"system_prompt": SYSTEM, "question": QUESTION, "response": ANSWER}, WITH_SYSTEM),
}


def json_lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(rows, delimiter=",", end="\r\n"):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(map(in_columns, rows))
    return text.getvalue()


def xlsx(rows):
    from openpyxl import Workbook

    book, data = Workbook(), io.BytesIO()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(in_columns(row).values()))
    book.save(data)
    return data.getvalue()


def arrow(rows, write):
    import pyarrow

    sink = io.BytesIO()
    write(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def parquet(rows):
    from pyarrow import parquet

    return arrow(rows, parquet.write_table)


def arrow_file(rows):
    import pyarrow

    def write(table, sink):
        with pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    return arrow(rows, write)


def arrow_stream(rows):
    import pyarrow

    def write(table, sink):
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)

    return arrow(rows, write)


def zipped(rows):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("__MACOSX/._chats.jsonl", b"\0")
        archive.writestr("chats.jsonl", json_lines(rows))
    return data.getvalue()


CONTAINERS = {
    "JSON Lines": lambda rows: json_lines(rows).encode(),
    "JSON Lines, byte-order mark": lambda rows: json_lines(rows).encode("utf-8-sig"),
    "JSON Lines, CRLF": lambda rows: json_lines(rows).replace("\n", "\r\n").encode(),
    "JSON Lines, CR": lambda rows: json_lines(rows).replace("\n", "\r").encode(),
    "JSON Lines, UTF-16": lambda rows: json_lines(rows).replace("\n", "\r\n").encode("utf-16"),
    "JSON Lines, UTF-16 without a mark": lambda rows: json_lines(rows).encode("utf-16-be"),
    "JSON Lines, gzip": lambda rows: gzip.compress(json_lines(rows).encode()),
    "JSON Lines, zip": zipped,
    "JSON array": lambda rows: json.dumps(rows).encode(),
    "JSON array over lines": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False).encode(),
    "JSON objects over lines": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows).encode(),
    "JSON, rows below `data`": lambda rows: json.dumps({"version": "1", "data": rows}).encode(),
    "CSV": lambda rows: table(rows).encode(),
    "CSV, semicolon": lambda rows: table(rows, ";", "\n").encode("utf-8-sig"),
    "TSV": lambda rows: table(rows, "\t").encode(),
    "CSV, UTF-16": lambda rows: table(rows, ";").encode("utf-16"),
    "CSV, gzip": lambda rows: gzip.compress(table(rows).encode()),
    "XLSX": xlsx,
    "Parquet": parquet,
    "Arrow": arrow_file,
    "Arrow stream": arrow_stream,
}


def chats_of(path, columns=None):
    """The chats of a source. Raises BadInput for any bad row."""
    intake = Intake()
    chats = [
        chat
        for source in open_chats(str(path), columns=columns)
        for chat in read_chats(source, intake, columns)
    ]
    intake.bad.require_none()
    return chats


def is_read(path, content, messages):
    """Whether a file with two rows of this shape gives these messages twice."""
    path.write_bytes(content)
    try:
        chats = chats_of(path)
    except BadInput:
        return False
    return [list(chat.messages) for chat in chats] == [messages, messages]


def cells(folder):
    """What the table says: for each container, whether each shape is read."""
    path = folder / "chats"  # no ending: the content tells
    return {
        name: [is_read(path, write([row, row]), messages) for row, messages in SHAPES.values()]
        for name, write in CONTAINERS.items()
    }


def as_markdown(read):
    """Containers as rows, shapes as columns."""
    lines = ["| | " + " | ".join(SHAPES) + " |", "|---|" + "---|" * len(SHAPES)]
    lines += [
        f"| {name} | " + " | ".join("yes" if cell else "no" for cell in row) + " |"
        for name, row in read.items()
    ]
    return "\n".join(lines)


def test_every_container_holds_every_shape_and_the_document_says_so(tmp_path):
    read = cells(tmp_path)
    assert all(map(all, read.values())), as_markdown(read)
    written = DOC.read_text(encoding="utf-8").split(START)[1].split(END)[0].strip()
    assert written == as_markdown(read), f"run: {sys.executable} {__file__}"


@pytest.mark.parametrize("name", SHAPES)
def test_a_chat_survives_being_written(name, tmp_path):
    row, messages = SHAPES[name]
    (tmp_path / "a").write_text(json_lines([row]), encoding="utf-8")
    (chat,) = chats_of(tmp_path / "a")
    (tmp_path / "b").write_text(json_lines([chat.row()]), encoding="utf-8")
    assert chats_of(tmp_path / "b") == [chat]
    assert list(chat.messages) == messages


QA = [{"question": f"What is {i}?", "answer": f"{i}."} for i in range(3)]


def answers(path, columns=None):
    return [chat.reference for chat in chats_of(path, columns)]


def test_any_other_column_is_named(tmp_path):
    rows = [{"Frage, kurz": "Hi?", "Antwort": "Hallo.", "Rolle": SYSTEM}]
    (tmp_path / "a.csv").write_text(table(rows, ";"), encoding="utf-8")
    columns = parse_columns("answer=Antwort,system=Rolle")
    columns["question"] = "Frage, kurz"
    (chat,) = chats_of(tmp_path / "a.csv", columns)
    assert [turn["content"] for turn in chat.messages] == [SYSTEM, "Hi?", "Hallo."]
    assert chat.origin == f"{tmp_path / 'a.csv'}:2"
    with pytest.raises(BadInput, match="Reply: missing, and --columns names it for answer"):
        chats_of(tmp_path / "a.csv", {"question": "Frage, kurz", "answer": "Reply"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("qestion=Frage", "qestion: unknown .did you mean 'question'"),
        ("question", "names no column"),
        ("question=a,question=b", "stands twice"),
    ],
)
def test_wrong_columns_are_refused(given, said):
    with pytest.raises(BadInput, match=said):
        parse_columns(given)


def test_folders_and_patterns_are_read_file_by_file_and_others_are_told(tmp_path):
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    (folder / "b.csv").write_text(table(QA[:1]))
    (folder / "more" / "a.json").write_text(json.dumps(QA[1:]))
    (folder / "README.md").write_text("# Chats")
    (folder / ".hidden.jsonl").write_text("{}")
    assert answers(folder) == ["0.", "1.", "2."]
    assert answers(f"{folder}/*.csv") == ["0."]
    assert answers(f"{folder}/**/*.json") == ["1.", "2."]
    assert open_chats(str(folder))[0].left_out == [str(folder / "README.md")]


def test_a_workbook_gives_its_first_sheet_and_those_like_it(tmp_path):
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["question", "answer"])
    book.active.append(["How much?", 12])
    book.create_sheet("May").append(["question", "answer"])
    book["May"].append(["And now?", 12.5])
    book.create_sheet("Notes").append(["to do"])
    book.save(tmp_path / "a.xlsx")
    (source,) = open_chats(str(tmp_path / "a.xlsx"))
    chats = list(read_chats(source, intake := Intake()))
    assert [(chat.reference, chat.origin) for chat in chats] == [
        ("12", f"{tmp_path}/a.xlsx:Sheet!2"),
        ("12.5", f"{tmp_path}/a.xlsx:May!2"),
    ]
    assert intake.left_out == ["sheet Notes"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("question,answer\n'Hi, you?','Hello.'\n", ""),
        ('sep=;\nquestion;answer\n"Hi, you?";Hello.\n', ""),
        ("Question|Answer|\nHi, you?|Hello.|\n", ""),
        ("Frage;Antwort\nHi, you?;Hello.\n", "question=Frage,answer=Antwort"),
        ('text,category\n"Hi, you?",Hello.\n', "question=text,answer=category"),
    ],
)
def test_dialects_are_told_by_the_header_and_the_rows(text, columns, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    (chat,) = chats_of(tmp_path / "a.csv", parse_columns(columns))
    assert [turn["content"] for turn in chat.messages] == ["Hi, you?", "Hello."]


BAD_FILES = {
    "a cell is missing": (
        b"question,answer\nHi?\n",
        "a:2: answer: missing: the row has 1 cells, the header 2",
    ),
    "a separator is not quoted": (
        b"question,answer\nHi, you?,Hello.\n",
        "a:2: row: has 3 cells, the header 2: quote text that holds the separator",
    ),
    "a quote has no end": (b'question,answer\n"Hi?,Hello.\n', "a:2: row: cannot be read as CSV (comma): "),
    "an empty cell": (b'question,answer\na,b\n\n"Hi\n?",\n', "a:4: answer: is empty"),
    "a column twice": (b"question,answer,answer\na,b,c\n", "a:1: answer: column given twice in the header"),
    "an array is cut": (
        b'[{"question": "a", "answer": "b"},\n',
        "a:2: [1].json: the array has no end: the file is cut",
    ),
    "an item is wrong": (
        b'[{"question": "a", "answer": "b"},\n 7]',
        "a:2: [1].row: must be an object, not a number",
    ),
    "a field of an item": (b'[{"question": "a"}]', "a:1: [0].answer: missing"),
    "a gzip is cut": (
        gzip.compress(json_lines(QA).encode())[:-9],
        "a:1: file: is cut short or broken from here on",
    ),
    "UTF-16 is cut": (json_lines(QA).encode("utf-16")[:-1], "a:2: file: is cut short or broken from here on"),
    "Parquet is cut": (b"PAR1" + b"\0" * 50, "a:1: file: is cut short or broken from here on"),
    "plain text": (b"Dear all,\nplease note\n", "a:1: looks like plain text, neither JSON nor a table with"),
    "a PDF": (b"%PDF-1.7 ...", "a: is a PDF, not a file of rows"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a: is an old Excel or Word file"),
    "no zip": (b"PK\x03\x04 ...", "a: cannot be unzipped: File is not a zip file"),
    "unknown columns": (
        b"Frage,Antwort\na,b\n",
        "a:2: row: has neither 'messages' nor 'question' and 'answer'",
    ),
    "a table of sentences without names": (
        b"1,Is there cheese?,Yes.\n2,Is there ham?,No.\n",
        "a:1: header: holds sentences, not names: put a line with names before it",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_read_says_where_and_why(name, tmp_path, monkeypatch):
    content, said = BAD_FILES[name]
    monkeypatch.chdir(tmp_path)
    Path("a").write_bytes(content)
    with pytest.raises(BadInput) as raised:
        chats_of("a")
    assert said in str(raised.value)
    assert raised.value.hint


LATIN = json_lines([{"question": "Käse?", "answer": "Ja… täglich."}] * 2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("my chats.jsonl", LATIN.encode("cp1252")),
        ("other.jsonl", LATIN.replace("…", "\x81").encode("latin-1")),
        ("cheese.csv", table([{"question": "Käse?", "answer": "Ja."}]).encode("cp1252")),
        (
            "cheese.json",
            json.dumps([{"question": "Käse?", "answer": "Ja."}], ensure_ascii=False).encode("cp1252"),
        ),
        ("packed.jsonl.gz", gzip.compress(LATIN.encode("cp1252"))),
        ("headless.csv", b"Is there K\xc3\xa4se?,Yes.\nDo you like cheese?,No.\n"),
        ("headless.tsv.gz", gzip.compress("Is there Käse?\tYes.\nDo you like cheese?\tNo.\n".encode())),
        ("nul.jsonl", LATIN.replace("täglich", "t\0").encode()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # a packed file differs by the second
)
def test_the_hint_is_a_command_that_repairs_the_file(name, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(BadInput) as raised:
        chats_of(name)
    subprocess.run(raised.value.hint, shell=True, check=True)  # noqa: S602 - the hint is a shell command
    fixed = "fixed-" + name.removesuffix(".gz")
    assert chats_of(fixed)[0].messages[0]["content"].endswith("Käse?")


def test_a_zip_of_several_files_is_unzipped_by_the_hint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a b.zip", "w") as archive:
        archive.writestr("1.jsonl", json_lines(QA[:1]))
        archive.writestr("2.jsonl", json_lines(QA[1:]))
    with pytest.raises(BadInput, match=r"a zip of several files \('1.jsonl', '2.jsonl'\)") as raised:
        chats_of("a b.zip")
    subprocess.run(raised.value.hint, shell=True, check=True)  # noqa: S602 - the hint is a shell command
    assert answers("unzipped") == ["0.", "1.", "2."]


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        made = as_markdown(cells(Path(folder)))
    text = DOC.read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    DOC.write_text(f"{before}{START}\n{made}\n{END}{after}", encoding="utf-8")
