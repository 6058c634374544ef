import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser

import pytest

from evaluation.report.comparison import compare_rows
from evaluation.report.examples import groups_of, word_diff
from evaluation.report.render import Training, render_html, render_markdown, summary_table, write_report
from evaluation.report.tables import LABELS, tiles
from evaluation.scored_rows import Answer, Record, ScoredRow, chats_in, scored_rows
from evaluation.verdict.gate import load_gate
from evaluation.verdict.primary import suggest_primary
from phi3flow.chats.row_shapes import read_row
from phi3flow.core.jsonl import RowError, write_jsonl

HOSTILE = "<script>alert('x')</script><img src=http://evil.example/a.png onerror=alert(1)>"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
LONG = {"chats": 1234, "long_chats": 217, "examples": 1890, "tokens": 987_654, "kept_tokens": 876_543}
LONG |= {"dropped_chats": 3, "unlearned_answers": 19}
TRAINING = partial(Training, long_chats={"train": LONG}, max_length=4096, rule="window")
VOID = {"meta", "img", "br", "rect", "line", "circle"}


class Page(HTMLParser):
    """The elements of a page, and whether every one that was opened was closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.addresses, self.open, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in {"src", "href", "action", "xlink:href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def row(line, base, tuned, reference="It is in Paris.", *, question="Where?", name="plain"):
    answers = [None if text is None else Answer(text, 0.25) for text in (base, tuned)]
    return ScoredRow(line, f"p{line}", name, [{"role": "user", "content": question}], reference, *answers)


def hostile_rows():
    unknown = "I do not know that."
    return [
        *[row(i, "It is in Rome.", "It is in Paris.") for i in range(1, 61)],
        row(61, "It is in Paris.", HOSTILE, question=HOSTILE, name=HOSTILE),
        row(62, HOSTILE, HOSTILE, reference=HOSTILE),
        row(63, unknown, unknown, reference=unknown, name="unknown"),
        row(64, "It is in Paris.", None, question=HOSTILE),
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    curve = folder / "loss.png"
    curve.write_bytes(PNG)
    rows = hostile_rows()
    lineage = {"data": {"path": HOSTILE, "sha256": "ab" * 32}, "models": ["cd" * 32]}
    write_report(compare_rows(rows, load_gate(), lineage=lineage), rows, folder, training=TRAINING(curve))
    return folder


@pytest.fixture(scope="module")
def html(written):
    return (written / "report.html").read_text(encoding="utf-8")


def test_json_has_the_agreed_keys_and_only_finite_numbers(written):
    def refuse(constant):
        raise AssertionError(constant)

    report = json.loads((written / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert set(report) >= {
        *("schema", "n", "expected", "answered", "failed", "base", "tuned", "difference", "difference_ci"),
        *("metrics", "slices", "declined", "mcnemar_p", "verdict", "reasons", "rows_needed", "seconds"),
        "lineage",
    }
    assert (report["n"], report["expected"], report["answered"], report["failed"]) == (62, 64, 63, 1)
    assert report["verdict"] == "hold"
    assert set(report["metrics"]) == {"exact_match", "token_f1", "answer_chars"}
    low, high = report["difference_ci"]
    assert low < report["difference"] < high
    assert report["slices"]["unknown"] == {
        **{"n": 0, "base": None, "tuned": None, "difference": None, "difference_ci": None},
        "declined": {"n": 1, "base": 1.0, "tuned": 1.0},
    }
    assert report["seconds"]["tuned"] == {"p50": 0.25, "p95": 0.25}


def test_page_tells_what_became_of_long_chats(html):
    caption = re.search(r'<caption id="c-long-chats">(.*?)</caption>', html)[1]
    assert "4,096 tokens" in caption and "window" in caption
    row = re.search(r'<th scope="row">train</th>(.*?)</tr>', html)[1]
    assert re.findall(r"<td>(.*?)</td>", row) == [
        *("1,234", "217", "3", "19", "1,890", "987,654", "876,543"),
    ]


def test_page_is_well_formed_and_needs_no_network(html):
    page = Page(html)
    assert page.named("script") == page.named("link") == page.named("iframe") == []
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert len(page.addresses) == 1
    style = "".join(re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL))
    assert "prefers-color-scheme: dark" in style
    assert "url(" not in style
    assert "@import" not in style
    # what an answer says is shown, but only as text
    assert "http" not in re.sub(r"&lt;.*?&gt;", "", html)


def test_hostile_text_is_shown_as_text(html):
    assert "<script" not in html
    assert not [tag for tag in Page(html).tags if "onerror" in tag[1]]
    assert html.count("&lt;script&gt;") >= 5  # question, answer, slice, failure, lineage


def test_page_can_be_read_without_seeing_it(html):
    page = Page(html)
    assert len(page.named("h1")) == 1
    assert len(page.named("svg")) == 3
    labels = " ".join(tag[1].get("aria-labelledby", "") for tag in page.tags).split()
    assert set(labels) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert all(svg["role"] == "img" for svg in page.named("svg"))
    assert all(cell.get("scope") in {"row", "col"} for cell in page.named("th"))
    assert len(page.named("caption")) == len(page.named("table")) == 4
    assert all(image["alt"] for image in page.named("img"))


def test_page_opens_with_the_verdict_and_its_reasons(html):
    text = " ".join("".join(Page(html).text).split())
    verdict, reason = text.index("Hold: keep the base model", 60), text.index("1 of 64 lines failed")
    assert verdict < reason < text.index("Exact match", reason)


@pytest.mark.parametrize("rows", [[], [row(1, None, None)], [row(1, "a", "b")], [row(1, "", "")]])
def test_a_page_can_be_made_of_almost_nothing(rows):
    report = compare_rows(rows, load_gate())
    json.dumps(report.as_dict(), allow_nan=False)
    assert report.verdict == ("hold" if report.failed else "not_enough_data")
    assert report.verdict in Page(render_html(report, rows)).named("header")[0]["class"].split()
    assert summary_table(report).endswith(f"verdict: {report.verdict}")


def test_terminal_summary_ends_with_the_verdict(written):
    rows = hostile_rows()
    lines = summary_table(compare_rows(rows, load_gate())).splitlines()
    assert lines[2].split()[:2] == ["Exact", "match"]
    assert lines[-1] == "verdict: hold"


def grouped():
    """Forty rows that tuned gets right, eight that it loses, three that neither has, twelve both have."""
    right, wrong = "It is in Paris.", "It is in Rome."
    kinds = [(wrong, right)] * 40 + [(right, wrong)] * 8 + [(wrong, "Rome.")] * 3 + [(right, right)] * 12
    return [row(i, *both, question=f"Where is {i}?") for i, both in enumerate(kinds, 1)]


def test_every_row_that_counts_is_in_one_group_and_the_groups_add_up():
    rows = [*grouped(), row(64, None, "x"), row(65, "x", "y", reference="I do not know that.")]
    report = compare_rows(rows, load_gate())
    groups = groups_of(rows, "exact_match")
    assert [(one.name, one.n) for one in groups] == [
        ("Cost", 8),
        ("Helped", 40),
        ("Both wrong", 3),
        ("Both right", 12),
    ]
    assert sum(one.n for one in groups) == report.n == 63
    assert [len(page) for page in groups[0].pages] == [5, 3]
    html = render_html(report, rows)
    text = " ".join("".join(Page(html).text).split())
    for words in (
        "Cost, 1 to 5 of 8",
        "Cost, 6 to 8 of 8",
        "Both right, 11 to 12 of 12",
        "Both wrong, 1 to 3 of 3",
    ):
        assert words in text
    assert html.count("<article") == 8 + 40 + 3 + 12


def test_the_pages_of_a_large_group_are_some_of_the_whole_file():
    rows = [row(i, "It is in Paris.", "It is in Paris.", question=f"{i}?") for i in range(1, 401)]
    (group,) = [one for one in groups_of(rows, "exact_match") if one.n]
    shown = [i for page in group.pages for i in page]
    assert (group.n, len(shown), max(shown) > 380) == (400, 40, True)
    assert "40 of 400 rows are shown here" in render_html(compare_rows(rows, load_gate()), rows)


@pytest.mark.parametrize("primary", ["exact_match", "token_f1"])
def test_tiles_show_the_primary_metric_and_add_up(primary):
    rows = grouped()
    report = compare_rows(rows, replace(load_gate(), primary=primary))
    (base, was), (tuned, now), (_, change) = tiles(report)
    assert LABELS[primary].lower() in base.lower() and LABELS[primary].lower() in tuned.lower()
    was, now = (float(value.split("\xa0")[0]) for value in (was, now))
    assert now - was == pytest.approx(float(change), abs=0.11)
    assert f"<dd>{change}</dd>" in render_html(report, rows)


def test_whole_conversations_are_shown():
    turns = [("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", "Where?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    talk = replace(row(1, "It is in Rome.", "It is in Paris."), messages=messages)
    html = render_html(compare_rows([talk], load_gate()), [talk])
    for role, text in turns:
        assert re.search(rf"<dt>{role}</dt><dd[^>]*>{re.escape(text)}</dd>", html)


def test_slices_with_too_few_rows_say_so():
    rows = [row(i, "It is in Rome.", "It is in Paris.", name="few" if i < 10 else "many") for i in range(60)]
    report = compare_rows(rows, load_gate())
    html = render_html(report, rows)
    assert html.count("too few rows</span>") == 1
    assert "few <span" in html
    assert "| few (too few rows) |" in render_markdown(report)


def long_references():
    return [
        row(i, "Send it.", f"Send the kettle number {i} back within thirty days.", f"Please send the kettle "
            f"number {i} back to us within thirty days of the purchase.", question=f"{i}?")
        for i in range(40)
    ]  # fmt: skip


def short_references():
    return [row(i, "Send it.", f"{i} kg.", f"It weighs {i} kg.", question=f"{i}?") for i in range(40)]


@pytest.mark.parametrize(
    ("rows", "primary", "fits", "why"),
    [
        (grouped, "exact_match", True, "Exact match decides"),
        (long_references, "exact_match", False, "free text"),
        (long_references, "token_f1", True, "Token f1 decides; the references are free text"),
        (long_references, "win_rate", True, "Win rate decides"),
        (grouped, "token_f1", False, "`exact_match` would fit better"),
        (short_references, "token_f1", True, "Token f1 decides; the references are short"),
        (grouped, "auto", True, "Exact match decides"),
        (long_references, "auto", True, "Token f1 decides; the references are free text"),
    ],
)
def test_the_report_says_why_its_metric_fits_the_references(rows, primary, fits, why):
    made = rows()
    report = compare_rows(made, replace(load_gate(), primary=primary))
    assert (report.primary_fit.fits, why in report.primary_fit.why) == (fits, True)
    html = render_html(report, made)
    assert ('<p class="note">' in html) is not fits
    assert ("note: " in summary_table(report)) is not fits


def test_a_row_may_declare_in_any_language_that_its_reference_declines(tmp_path):
    reference, close = "Valitettavasti en tiedä sitä.", "Valitettavasti en tiedä."
    chats = [
        {"question": f"Missä on {i}?", "answer": reference, "unanswerable": value}
        for i, value in enumerate([True, "yes", "False", None])
    ]
    write_jsonl(tmp_path / "test.jsonl", [{k: v for k, v in chat.items() if v is not None} for chat in chats])
    found = chats_in(tmp_path / "test.jsonl")
    answers = [Record(close, None, None)] * 4, [Record("Se on Turussa.", None, None)] * 4
    report = compare_rows(scored_rows(found, *answers), load_gate())
    assert (report.n, report.declined.n) == (2, 2)
    assert (report.declined.base, report.declined.tuned) == (1, 0)
    assert read_row(found[2].row()).chat.unanswerable is False
    with pytest.raises(RowError, match="unanswerable: must be true or false"):
        read_row(chats[0] | {"unanswerable": "maybe"})


def test_a_suggestion_needs_no_reference_that_answers():
    assert suggest_primary([]).primary == suggest_primary(["I do not know."]).primary == "exact_match"
    labels = ["this one is a very long label of more than eight words", "no"] * 20
    assert suggest_primary(labels).primary == "exact_match"


def test_word_diff_marks_what_differs():
    sides = word_diff("It is in Paris now", "It is in old <Rome> now")
    assert sides.before == "It is in <del>Paris </del>now"
    assert sides.after == "It is in <ins>old &lt;Rome&gt; </ins>now"
