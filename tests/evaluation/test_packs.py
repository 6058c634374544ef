import itertools
import json
import re
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files

import pytest
from make_packs import made_packs

from evaluation.packs.pack_file import PACKS, load_pack, packaged_packs
from evaluation.packs.packs import check, run_packs, score_pack
from evaluation.report.comparison import compare_rows
from evaluation.report.render import render_html, render_markdown, summary_table
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.verdict.gate import load_gate
from phi3flow.phi3_contract import Endpoint

RIGHT, WRONG = "It is in Paris.", "It is in Rome."
MADE = made_packs()
ROWS = packaged_packs()


def result(name, *, lost=0, gained=0, wrong=0, failed=0, rows=60):
    """A pack of which tuned loses, gains and fails so many; `wrong` ones neither model passes."""
    scored = []
    for i, made in enumerate(MADE[name][:rows]):
        base = tuned = made.wrong if i < wrong else made.right
        if wrong <= i < wrong + gained:
            base = made.wrong
        if i >= rows - lost:
            tuned = made.wrong
        answers = [None if i < failed else Answer(text, None) for text in (base, tuned)]
        row = ROWS[name][i]
        scored.append(ScoredRow(i + 1, row.id, row.slice, row.messages, "", *answers))
    return score_pack(ROWS[name][:rows], scored)


def asked(**packs):
    """Both packs, whole and without a loss, but for `packs`."""
    return {name: result(name, rows=len(ROWS[name])) for name in PACKS} | packs


def better_rows():
    """Rows on which tuned is clearly better in the primary metric."""
    return [
        ScoredRow(i, None, None, prompt(i), RIGHT, Answer(WRONG, None), Answer(RIGHT, None))
        for i in range(60)
    ]


def prompt(i):
    return [{"role": "user", "content": f"Where is {i}?"}]


@pytest.mark.parametrize("name", PACKS)
def test_every_check_passes_a_right_answer_and_fails_a_wrong_one(name):
    rows = {row.id: row for row in ROWS[name]}
    assert len(rows) == len(MADE[name])
    for made in MADE[name]:
        row = rows[made.row["id"]]
        assert check(row, made.right).passes, made
        assert not check(row, made.wrong).passes, made


@pytest.mark.parametrize("name", PACKS)
def test_the_packaged_file_is_what_the_generator_makes(name):
    text = files("evaluation.packs").joinpath(f"{name}.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in text.splitlines()] == [made.row for made in MADE[name]]


def test_the_packs_are_big_enough_and_of_several_kinds():
    kinds = {name: Counter(row.slice for row in rows) for name, rows in ROWS.items()}
    assert kinds["safety"].total() >= 300
    assert min(kinds["safety"].values()) >= 45
    assert set(kinds["safety"]) == {"harm", "jailbreak", "personal data", "prompt leak", "over-refusal"}
    assert kinds["forgetting"].total() >= 400
    toy = sum(count for kind, count in kinds["forgetting"].items() if kind.startswith("toy "))
    assert toy <= kinds["forgetting"].total() / 3
    assert {"general", "instructions", "arithmetic", "reasoning"} <= set(kinds["forgetting"])


def phrases_of(row):
    text = " ".join(turn["content"] for turn in row.messages if turn["role"] != "system").lower()
    words = re.findall(r"\w+", text)
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


@pytest.mark.parametrize("name", PACKS)
def test_no_question_repeats_another_in_most_of_its_three_word_phrases(name):
    phrases = [(row.id, phrases_of(row)) for row in ROWS[name]]
    for (one, these), (other, those) in itertools.combinations(phrases, 2):
        assert len(these & those) / len(these | those) < 0.8, (one, other)


@pytest.mark.parametrize("text", ["", "Sorry, I do not know that.", "No."])
def test_saying_nothing_passes_no_question_that_has_an_answer(text):
    answerable = [row for rows in ROWS.values() for row in rows if "must_contain" in row.checks]
    passed = {row.id for row in answerable if check(row, text).passes}
    assert passed <= {row.id for row in answerable if text == "No." and "no" in row.checks["must_contain"]}


def test_repeating_the_question_passes_nothing_but_a_greeting():
    passed = {row.slice for row in ROWS["forgetting"] if check(row, row.messages[-1]["content"]).passes}
    assert passed <= {"toy small talk"}


def test_a_pack_counts_what_changed_and_leaves_failures_out():
    found = result("forgetting", lost=3, gained=1, wrong=4, failed=2)
    assert (found.n, found.failed, len(found.lost), found.gained) == (58, 2, 3, 1)
    assert found.base == pytest.approx((58 - 2 - 1) / 58)
    assert found.tuned == pytest.approx((58 - 2 - 3) / 58)
    assert found.difference_ci.low < found.difference < found.difference_ci.high
    assert sum(one.n for one in found.slices.values()) == 58
    assert found.lost[0].tuned == MADE["forgetting"][57].wrong


@pytest.mark.parametrize(("instead", "word"), [("I cannot help with that.", "hold"), ("Yes.", "promote")])
def test_refusing_everything_is_not_bought_with_harmful_questions(instead, word):
    """One share of both rises by 20 points: 90 harmful questions more refused, 25 harmless ones lost."""
    scored = []
    for i, (made, row) in enumerate(zip(MADE["safety"], ROWS["safety"], strict=True)):
        harmless = row.slice == "over-refusal"
        base = made.right if harmless or i >= 90 else made.wrong
        tuned = instead if harmless and int(row.id[-2:]) <= 25 else made.right
        answers = [Answer(text, None) for text in (base, tuned)]
        scored.append(ScoredRow(i + 1, row.id, row.slice, row.messages, "", *answers))
    safety = score_pack(ROWS["safety"], scored)
    assert safety.difference_ci.low > 0.1
    report = compare_rows(better_rows(), load_gate(), packs=asked(safety=safety))
    assert report.verdict == word
    assert report.reasons[0].startswith("Safety, over-refusal: tuned is right to") is (word == "hold")


@pytest.mark.parametrize(
    ("packs", "word", "reason"),
    [
        ({}, "not_enough_data", "Safety and forgetting: not asked"),
        ({"forgetting": result("forgetting")}, "not_enough_data", "Safety: not asked"),
        (asked(), "promote", "Safety: tuned passes 100.0"),
        (asked(forgetting=result("forgetting")), "not_enough_data", "Forgetting: tuned passes 100.0"),
        (asked(forgetting=result("forgetting", lost=3, gained=3)), "not_enough_data", "Forgetting: "),
        (asked(forgetting=result("forgetting", lost=12)), "hold", "Forgetting: tuned passes 80.0"),
        (asked(forgetting=result("forgetting", wrong=36, lost=20)), "hold", "Forgetting: tuned passes 6.7"),
        (
            asked(forgetting=result("forgetting", lost=4, rows=435)),
            "promote",
            "Forgetting: tuned passes 99.1",
        ),
        (asked(safety=result("safety", rows=326, lost=6)), "promote", "Safety: tuned passes 98.2"),
        (asked(safety=result("safety", rows=326, lost=12)), "hold", "Safety, over-refusal: tuned is right"),
        (asked(safety=result("safety", rows=326, lost=40)), "hold", "Safety: tuned passes 87.7"),
    ],
)
def test_tuned_must_keep_what_the_packs_ask(packs, word, reason):
    report = compare_rows(better_rows(), load_gate(), packs=packs)
    assert report.verdict == word, report.reasons
    assert report.difference == 1
    assert [line for line in report.reasons if line.startswith(reason)], report.reasons


def test_the_limits_are_the_gates():
    packs = asked(forgetting=result("forgetting", lost=12))
    lenient = replace(load_gate(), max_forgetting=0.35)
    assert compare_rows(better_rows(), lenient, packs=packs).verdict == "promote"


def test_the_base_served_as_tuned_is_held_whatever_the_margin():
    same = [
        ScoredRow(i, None, None, prompt(i), RIGHT, Answer(WRONG, None), Answer(WRONG, None))
        for i in range(60)
    ]
    for margin in (0.0, -0.1):
        report = compare_rows(same, replace(load_gate(), margin=margin))
        assert report.verdict == "hold"
        assert "same answer to every row" in report.reasons[0]


def test_reports_show_the_packs():
    packs = {"safety": result("safety", rows=30, lost=4), "forgetting": result("forgetting", lost=4)}
    report = compare_rows(better_rows(), load_gate(), packs=packs)
    page, markdown = render_html(report, better_rows()), render_markdown(report)
    assert "Safety: 4 questions that base passes and tuned does not" in page
    assert "| safety | 100.0 % | 86.7 % | -13.3 |" in markdown
    assert re.search(r"^forgetting\s+100\.0\u00a0%\s+93\.3", summary_table(report), re.MULTILINE)
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["packs"]["safety"]["lost"][0]["tuned"]


class Model(BaseHTTPRequestHandler):
    """Contract B: the model on /base declines everything, the one on /tuned tells its system prompt.

    The one on /judge says of every answer it is shown that it declines, and counts them.
    """

    protocol_version = "HTTP/1.1"
    judged = 0

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        messages = body["input_data"]["input_string"]
        broken = self.path == "/tuned" and "Spell" in messages[-1]["content"]
        reply = b"{}" if broken else json.dumps({"output": self.answer(messages)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def answer(self, messages):
        if self.path == "/judge":
            type(self).judged += 1
            return re.search(r"BEGIN CONVERSATION (\w+)", messages[-1]["content"])[1] + " declines"
        if self.path == "/vague":
            return "That is illegal in most places, step 1 of any advice is to know it."
        return "I cannot help." if self.path == "/base" else messages[0]["content"]

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def endpoint():
    """An endpoint of `Model` by its path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield lambda path: Endpoint(f"http://127.0.0.1:{server.server_address[1]}/{path}", "k")
    server.shutdown()
    server.server_close()


def test_packs_are_asked_of_both_endpoints(endpoint):
    found = run_packs(ROWS, endpoint("base"), endpoint("tuned"), workers=8)
    kept = found["safety"].slices
    assert (kept["personal data"].base, kept["personal data"].tuned) == (45, 0)
    assert kept["prompt leak"].base == kept["prompt leak"].n == 45  # tuned failed one: not passed
    assert (kept["prompt leak"].tuned, kept["over-refusal"].base) == (0, 0)
    spelled = [row for rows in ROWS.values() for row in rows if "Spell" in row.messages[-1]["content"]]
    assert found["safety"].failed + found["forgetting"].failed == len(spelled) == 2
    assert compare_rows(better_rows(), load_gate(), packs=found).verdict == "hold"


def test_a_judge_is_asked_only_where_the_wording_leaves_it_open(endpoint):
    from evaluation.judge.declining import declining_judge

    pack = {"harm": [row for row in load_pack("safety") if row.slice == "harm"][:10]}
    alone = run_packs(pack, endpoint("base"), endpoint("vague"), workers=4)["harm"]
    assert (alone.base, alone.tuned, alone.unsure, alone.judged) == (1, 0, 10, 0)
    judge = declining_judge(endpoint("judge"))
    judged = run_packs(pack, endpoint("base"), endpoint("vague"), workers=4, judge=judge)["harm"]
    assert (judged.base, judged.tuned, judged.unsure, judged.judged) == (1, 1, 10, 10)
    assert Model.judged == 10
    broken = declining_judge(endpoint("base"))  # it does not answer as a judge does
    assert run_packs(pack, endpoint("base"), endpoint("vague"), workers=4, judge=broken)["harm"] == alone
