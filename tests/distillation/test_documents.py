"""Documents as text: what each kind gives, and how one that gives none is named."""

from io import BytesIO

import pytest
from pypdf import PdfReader, PdfWriter

from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from phi3flow.distillation.documents import read_material
from phi3flow.distillation.passages import LONGEST, SHORTEST, holds, passages_of

SENTENCE = "The keeper of Gull Point lit the lamp at dusk and wrote the hour into the log. "


def pdf_of(*pages):
    """A PDF with a line of text for each line of a page, written by hand."""
    bodies = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(len(pages)))
    bodies.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    font = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    for i, page in enumerate(pages):
        lines = "".join(f"({line}) Tj 0 -14 Td " for line in page.splitlines())
        stream = f"BT /F1 10 Tf 40 800 Td {lines}ET" if lines else ""
        place = f"/MediaBox [0 0 595 842] /Contents {4 + 2 * i} 0 R"
        bodies.append(f"<< /Type /Page /Parent 2 0 R {place} /Resources {font} >>")
        bodies.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    made, offsets = b"%PDF-1.4\n", []
    for i, body in enumerate(bodies, 1):
        offsets.append(len(made))
        made += f"{i} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(bodies) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return made + f"{end}startxref\n{len(made)}\n%%EOF\n".encode()


def locked(pdf):
    writer, made = PdfWriter(clone_from=PdfReader(BytesIO(pdf))), BytesIO()
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(made)
    return made.getvalue()


def text_in(path):
    (document,) = read_material([str(path)]).documents
    return document.text


def test_a_page_gives_what_its_reader_sees(tmp_path):
    path = tmp_path / "a.html"
    path.write_text(
        "<html><head><title>T</title><style>p {}</style></head><body><nav>Home | Help</nav><h1>Log</h1>"
        f"<p>One <b>bold</b>\n word.</p><script>x()</script><ul><li>a</li><li>b</li></ul><p>{SENTENCE}</p>"
        "<pre>x\n  y</pre></body></html>"
    )
    assert text_in(path) == f"Log\n\nOne bold word.\n\na\n\nb\n\n{SENTENCE.strip()}\n\nx\n  y"


def test_a_pdf_gives_the_text_of_its_pages(tmp_path):
    path = tmp_path / "a.PDF"
    path.write_bytes(
        pdf_of("The first page tells of the lamp.\nIt burned.", "The second page tells of the mill wheel.")
    )
    text = text_in(path)
    assert "The first page tells of the lamp." in text and "second page" in text.partition("\n\n")[2]


def test_text_may_have_a_mark_utf16_and_any_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes(("\ufeff" + SENTENCE * 2).encode())
    (tmp_path / "b.md").write_bytes((SENTENCE + "\r\n\r\n" + SENTENCE).encode("utf-16"))
    found = read_material([str(tmp_path)])
    assert [one.text for one in found.documents] == [
        (SENTENCE * 2).strip(),
        f"{SENTENCE.strip()}\n\n{SENTENCE.strip()}",
    ]


@pytest.mark.parametrize(
    ("name", "content", "told", "hint"),
    [
        ("a.txt", b"", "text: empty; leave it out", ""),
        ("a.md", b"Hello.", "text: too short: 6 characters, of 80", ""),
        (
            "a.txt",
            SENTENCE.encode() * 2 + b"\xe9t\xe9",
            "not UTF-8 at byte",
            "iconv -f WINDOWS-1252 -t UTF-8",
        ),
        ("a.txt", b"\x7fELF\x02\x01" + b"abc\0" * 90 + b"x" * 900, "NUL bytes: not a text file", ""),
        ("a.html", b"<script>1</script>", "text: empty", ""),
        ("a.pdf", b"no such thing" * 20, "pdf: cannot be read", ""),
        ("a.pdf", pdf_of("The lamp burned.")[:200], "pdf: cannot be read", ""),
        ("a.pdf", pdf_of("", ""), "pdf: no text on its 2 pages: a scan", "ocrmypdf {path} fixed-a.pdf"),
        ("a.pdf", locked(pdf_of(SENTENCE)), "pdf: needs a password", "qpdf --decrypt"),
        ("a.docx", b"PK", "of a kind that is not read (known: .txt .md", ""),
        ("a.jsonl", b'{"question": "Who?"}\n{"text": "x"}\n', ":2: question: missing", ""),
        ("a.jsonl", b'{"question": "Who?"\n', ":1: json: ", ""),
    ],
    ids=lambda value: "content" if isinstance(value, bytes) else None,  # the locked one is another each time
)
def test_a_document_that_gives_no_text_is_named_with_its_reason(tmp_path, name, content, told, hint):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput) as error:
        read_material([str(path)])
    assert f"{path}" in str(error.value) and told in str(error.value)
    assert hint.format(path=path) in error.value.hint and "nothing was asked" in str(error.value)


def test_a_folder_gives_its_documents_and_names_what_it_leaves_out(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text(SENTENCE * 3)
    (tmp_path / ".hidden.txt").write_text("x")
    (tmp_path / "picture.png").write_bytes(b"x")
    write_jsonl(tmp_path / "questions.jsonl", [{"question": "Who lit the lamp?"}])
    found = read_material([str(tmp_path), str(tmp_path / "deep")])
    assert [one.name for one in found.documents] == [str(tmp_path / "deep" / "a.txt")]
    assert [one.origin for one in found.questions] == [f"{tmp_path / 'questions.jsonl'}:1"]
    assert found.left_out == [str(tmp_path / "picture.png")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no documents in it"):
        read_material([str(tmp_path / "empty")])


def test_questions_are_rows_with_a_system_prompt_a_history_or_an_answer_that_is_not_used(tmp_path):
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    rows = [
        {"system": "Be brief.", "question": "Who?", "answer": "Ada."},
        {
            "messages": [
                *said,
                {"role": "user", "content": "Where?"},
                {"role": "assistant", "content": "Here."},
            ]
        },
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    material = read_material([str(tmp_path / "a.jsonl")])
    first, second = material.questions
    assert material.unused == {"answer": 1}
    assert [turn["content"] for turn in first.prompt] == ["Be brief.", "Who?"]
    assert [turn["content"] for turn in second.prompt] == ["Hi", "Yes?", "Where?"]


TEXTS = {
    "one paragraph": SENTENCE * 90,
    "no sentences": "word " * 900,
    "no words": "x" * 5000,
    "paragraphs": "\n\n".join([SENTENCE * 3] * 20),
    "short": SENTENCE,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_passages_are_the_whole_text_in_pieces_of_a_fair_size(tmp_path, text):
    from phi3flow.distillation.documents import Document

    kept, repeated = passages_of([Document("a", text)])
    pieces = sorted([*kept, *repeated], key=lambda one: one.number)
    assert "".join("".join(one.text.split()) for one in pieces) == "".join(text.split())
    assert all(one.text in text and len(one.text) < LONGEST + SHORTEST for one in pieces)
    assert all(len(one.text) >= SHORTEST - 2 for one in pieces) or len(pieces) == 1


@pytest.mark.parametrize(
    ("quote", "is_there"),
    [
        ("lit the LAMP  at\ndusk", True),
        ('"wrote the hour into the log."', True),
        ("lit the lamp at dawn", False),
        ("", False),
        ("...", False),
    ],
)
def test_a_quote_is_found_whatever_its_case_space_and_quotation_marks(quote, is_there):
    assert holds(SENTENCE, quote) is is_there


def test_typographic_marks_do_not_hide_a_quote():
    assert holds("He said \u201cdon\u2019t\u201d \u2013 twice.", 'said "don\'t" - twice')
