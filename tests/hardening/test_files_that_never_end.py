"""Files of chats that take hours or all memory to read: each is refused or read in seconds."""

import gzip
import io
import json
import signal
import zipfile

import pytest

from evaluation.judge.prompt import addresses_judge, quoted
from phi3flow.chats.alike.folding import folded_words
from phi3flow.chats.files.tables import MAX_CELL, MAX_SHEET_ROWS
from phi3flow.chats.files.unpacking import MOST_BYTES, whole
from phi3flow.chats.intake import Intake
from phi3flow.chats.repairs import repaired
from phi3flow.chats.rows import open_chats, read_chats
from phi3flow.core.errors import BadInput

SECONDS = 20  # of a core; each takes a few at most, and without its limit minutes to days
ROW = b'{"question": "Hi?", "answer": "Hello."}\n'


@pytest.fixture(autouse=True)
def soon():
    def late(*_):
        raise TimeoutError(f"not done after {SECONDS} s of a core")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def report_of(tmp_path, content):
    path, intake = tmp_path / "chats", Intake()
    path.write_bytes(content)
    for source in open_chats(str(path)):
        list(read_chats(source, intake))
    return intake.bad.report()


def answered(text):
    messages, done = repaired([{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": text}])
    return messages[-1]["content"], len(done)


def test_white_space_and_marks_inside_an_answer():
    for inside in (" " * 1_000_000, "\n<|end|>" * 100_000):
        assert answered(f"a{inside}b") == (f"a{inside}b", 0)
    assert answered("a" + " \n<|end|> </s>" * 100_000 + "\n") == ("a", 1)
    assert answered("a \n") == ("a \n", 0)


def test_a_question_of_courtesies():
    assert folded_words("thanks " * 300_000 + "Where is Rome?") == ["where", "is", "rome"]
    assert folded_words("Where is Rome?" + " thanks" * 300_000) == ["where", "is", "rome"]


@pytest.mark.parametrize("unit", ["\n", "\n!", "\n#", "verdict:::", "\nverdict :"])
def test_an_answer_before_a_judge(unit):
    answer = f"x{unit * 300_000}x"
    assert not addresses_judge(answer, [], "") and len(quoted(answer)) >= len(answer)


@pytest.mark.parametrize("unit", [",'", ',"'])
def test_a_table_of_quotes(tmp_path, unit):
    assert report_of(tmp_path, b"a b " + unit.encode() * 32_000)


def test_a_header_of_many_columns(tmp_path):
    header = b",".join(b"c%d" % i for i in range(100_000))
    assert "the row has 1 cells" in report_of(tmp_path, b"question,answer," + header + b"\nHi?\n")
    assert "column given twice" in report_of(tmp_path, b"question,answer," + header + b",c5\nHi?\n")


def test_a_packing_in_a_packing_in_a_packing(tmp_path):
    content = ROW
    for _ in range(3):
        content = gzip.compress(content)
    assert report_of(tmp_path, content) == "0 bad rows"
    with pytest.raises(BadInput, match="packed more than 3 times"):
        report_of(tmp_path, gzip.compress(content))


def test_a_line_of_a_table_without_an_end(tmp_path):
    lines = gzip.compress(b"question,answer\n") + gzip.compress(b"a" * (1 << 20)) * 64
    assert f"a line of more than {MAX_CELL} characters" in report_of(tmp_path, lines)


def test_what_has_to_be_held_whole_is_bounded():
    class Endless:
        def read(self, size):
            return bytes(size)

    with pytest.raises(ValueError, match="more than 1 GiB"):
        whole(Endless())


def workbook(*rows, size=None):
    """`size` is what the archive says that its sheet unpacks to."""
    from openpyxl import Workbook

    book, written = Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(written)
    source, made = zipfile.ZipFile(written), io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in source.namelist():
            content = source.read(name).replace(b'r="2"', b'r="2000000000"')
            archive.writestr(name, content)
            archive.getinfo(name).file_size = size or archive.getinfo(name).file_size
    return made.getvalue()


def test_a_workbook_with_a_row_of_a_huge_number(tmp_path):
    told = report_of(tmp_path, workbook(["question", "answer"], ["Hi?", "Hello."]))
    assert f"a sheet of more than {MAX_SHEET_ROWS} rows" in told


def test_a_workbook_that_unpacks_to_too_much(tmp_path):
    told = report_of(tmp_path, workbook(["question", "answer"], size=MOST_BYTES))
    assert "more than 1 GiB in one piece" in told


def test_deep_json_in_a_cell_is_text(tmp_path):
    cell = json.dumps("[" + "-" * 100_000 + "1]")
    assert "messages: must be a list, not text" in report_of(tmp_path, b"messages\n" + cell.encode() + b"\n")
