"""`--metric FILE.py:FUNCTION`: the user's own metric beside ours, as the one that decides, and failing."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from textwrap import dedent
from typing import ClassVar

import pytest
from loopback import JsonAnswers, serving

from custom_connections.promptflow_home import new_encryption_key
from evaluation.metrics.own import CALL_SECONDS
from phi3flow.app.cli import main
from phi3flow.core.jsonl import read_jsonl, write_jsonl

UNKNOWN = "Sorry, I do not know that."
METRICS = """
    import os
    import own_words

    def polite(question: str, answer: str, reference: str) -> bool:
        return own_words.PLEASE in answer

    def closeness(question, answer, reference):
        return len(set(answer) & set(reference)) / max(len(set(answer + reference)), 1)

    def words(question, answer, reference):
        return len(answer.split())

    def without_keys(question, answer, reference):
        return not any("secret" in value for value in os.environ.values())

    def asks_back(question, answer, reference):
        return question.startswith("Question") and reference.startswith("Answer")

    def two(question, answer):
        return 1

    NUMBER = 3
"""


@pytest.fixture
def files(tmp_path):
    """Sixty chats in two slices, one of them without an answer; tuned says please, base does not."""
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"Question {i}?"},
                {"role": "assistant", "content": UNKNOWN if i == 60 else f"Answer {i}."},
            ],
            "slice": "odd" if i % 2 else "even",
        }
        for i in range(1, 61)
    ]
    write_jsonl(tmp_path / "test.jsonl", chats)
    for side, text in (("base", "Answer {i}."), ("tuned", "Answer {i}, please.")):
        rows = [{"line": i, "answer": text.format(i=i)} for i in range(1, 60)]
        rows.append({"line": 60, "answer": UNKNOWN})
        write_jsonl(tmp_path / f"{side}.jsonl", rows)
    (tmp_path / "own_words.py").write_text('PLEASE = "please"\n')
    (tmp_path / "mine.py").write_text(dedent(METRICS))
    return tmp_path


def gate(files, **values):
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    path = files / "gate.toml"
    limits = "[limits]\nmin_declined = 0\nmax_failed_share = 0.9\n"
    path.write_text(f"[gate]\nrequired = []\n{lines}{limits}", encoding="utf-8")
    return ["--gate", str(path)]


def compare(files, *metrics, more=()):
    words = ["compare-answers", "--text-metrics", "none", "--out", str(files / "out")]
    for name in ("data", "base", "tuned"):
        words += [f"--{name}", str(files / f"{'test' if name == 'data' else name}.jsonl")]
    for metric in metrics:
        words += ["--metric", str(files / metric)]
    return main([*words, *more])


def report_in(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_own_metrics_stand_beside_ours_with_their_statistics(files):
    names = ("polite", "closeness", "words", "asks_back")
    assert (
        compare(files, *(f"mine.py:{name}" for name in names), more=gate(files, primary="exact_match")) == 3
    )
    report = report_in(files / "out")
    found = report["metrics"]
    assert [found[name]["kind"] for name in names] == ["binary", "share", "number", "binary"]
    assert (found["polite"]["base"], found["polite"]["tuned"], found["polite"]["n"]) == (0, 1, 59)
    low, high = found["polite"]["difference_ci"]
    assert 0.85 < low < high == 1.0  # Newcombe's interval, as for exact match
    assert found["exact_match"]["difference_ci"] == pytest.approx([-high, -low])
    assert found["polite"]["p"] < found["polite"]["p_holm"] < 1e-10
    assert found["asks_back"]["tuned"] == 1.0
    assert (found["words"]["base"], found["words"]["tuned"]) == (2.0, 3.0)
    for page in ("report.html", "report.md"):
        text = (files / "out" / page).read_text(encoding="utf-8")
        assert "Polite (own metric)" in text and "Words (own metric)" in text
    assert "| Words (own metric) | 2.000 | 3.000 | +1.000 |" in (files / "out/report.md").read_text()
    assert report["lineage"]["own metrics"]["polite"]["file"].endswith("mine.py")
    manifest = json.loads((files / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert [item["path"] for item in manifest["inputs"] if item["kind"] == "own metric"]


def test_an_own_metric_decides_and_decides_again_over_the_same_answers(files, capsys):
    promote = gate(files, primary="polite", margin=0.1)
    assert compare(files, "mine.py:polite", more=promote) == 0
    report = report_in(files / "out")
    assert (report["difference"], report["gate"]["primary"]) == (1.0, "polite")
    assert report["slices"]["odd"]["difference"] == 1.0 and report["primary_fit"]["fits"]
    assert "in polite: +100.0 points" in report["reasons"][0]
    page = (files / "out" / "report.html").read_text(encoding="utf-8")
    assert 'Helped <span class="count">59 rows' in page
    capsys.readouterr()
    assert main(["verdict", str(files / "out"), *gate(files, primary="exact_match"), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["difference"] == -1.0
    assert (
        main(["verdict", str(files / "out"), *gate(files, primary="polite"), "--out", str(files / "b")]) == 0
    )
    assert report_in(files / "b")["metrics"] == report["metrics"]
    capsys.readouterr()
    assert main(["verdict", str(files / "out"), *gate(files, primary="polit")]) == 2
    assert "gate.primary: unknown 'polit' (did you mean 'polite'?" in capsys.readouterr().err


def test_failed_lines_count_against_tuned_in_an_own_metric_too(files):
    rows = [row for row in read_jsonl(files / "tuned.jsonl") if row["line"] > 20]
    write_jsonl(files / "tuned.jsonl", rows)
    assert compare(files, "mine.py:polite", more=gate(files, primary="polite")) == 5
    report = report_in(files / "out")
    assert (report["n"], report["failed"]) == (39, 20)
    assert report["with_failures_ci"][0] < report["difference_ci"][0]


def test_no_key_reaches_a_metric(files, monkeypatch):
    for name in ("PHI3FLOW_ENDPOINT_KEY", "OPENAI_API_KEY", "AZURE_CLIENT_SECRET", "DATABASE_URL"):
        monkeypatch.setenv(name, "a secret")
    compare(files, "mine.py:without_keys", more=gate(files))
    assert report_in(files / "out")["metrics"]["without_keys"]["tuned"] == 1.0


FAILING = {
    "raises": ("return 1 / answer.count('e')", "raised ZeroDivisionError: division by zero (line 2)"),
    "nan": ("return float('nan')", "returned nan"),
    "infinite": ("return float('inf')", "returned inf"),
    "nothing": ("print(answer)", "returned None"),
    "text": ("return 'good'", "returned 'good'"),
    "exits": ("raise SystemExit(0)", "raised SystemExit: 0 (line 2)"),
    "dies": ("import os; os._exit(7)", "ended the process (exit code 7)"),
    "hangs": ("while True: pass", f"gave no value within {CALL_SECONDS:.0f} s"),
}


@pytest.mark.parametrize("fault", FAILING)
def test_a_failing_metric_names_its_row(files, capsys, fault):
    body, told = FAILING[fault]
    function = f"def bad(question, answer, reference):\n    {body}\n"
    if fault != "raises":
        condition = "if question != 'Question 7?' or 'please' not in answer: return True\n    "
        function = function.replace("    ", f"    {condition}", 1)
    (files / "bad.py").write_text(function)
    rows = [row | ({"answer": "X"} if row["line"] == 7 else {}) for row in read_jsonl(files / "tuned.jsonl")]
    if fault == "raises":
        write_jsonl(files / "tuned.jsonl", rows)
    assert compare(files, "mine.py:polite", "bad.py:bad", more=gate(files)) == 2
    said = capsys.readouterr().err
    told = told.replace("(line 2)", "(line 3)") if fault != "raises" else told
    assert f"{files}/test.jsonl:7: the answer of tuned: {files}/bad.py:bad {told}" in said
    assert "hint: a metric must return a number or a bool" in said
    assert not [path.name for path in (files / "out").iterdir() if path.is_file()]


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        (["mine.py"], "names no function in a file of Python"),
        (["mine.py:"], "names no function in a file of Python"),
        (["mine.txt:polite"], "names no function in a file of Python"),
        (["gone.py:polite"], "no such file"),
        (["mine.py:pollite"], "has no function pollite; it has: polite, closeness, words,"),
        (["mine.py:NUMBER"], "has no function NUMBER"),
        (["mine.py:two"], "two cannot take question, answer, reference: too many positional arguments"),
        (["wrong.py:polite"], "wrong.py: cannot be imported: line 2: "),
        (["raising.py:polite"], "raising.py: cannot be imported: ModuleNotFoundError: No module named"),
        (["mine.py:exact_match"], "a metric of phi3flow has this name"),
        (["mine.py:polite", "other.py:polite"], "mine.py:polite has this name"),
    ],
)
def test_what_cannot_be_called_is_refused(files, capsys, metrics, told):
    (files / "wrong.py").write_text("x = 1\nif x = 2:\n")
    (files / "raising.py").write_text("import no_such_module_at_all\n")
    (files / "other.py").write_text("def polite(question, answer, reference): return 1\n")
    assert compare(files, *metrics, more=gate(files)) == 2
    said = capsys.readouterr().err
    assert told in said and "\nhint: " in said
    assert not (files / "out" / "report.json").exists()


def test_what_decides_must_be_a_share(files, capsys):
    assert compare(files, "mine.py:words", more=gate(files, primary="words")) == 2
    said = capsys.readouterr().err
    assert f"{files}/test.jsonl:1: the answer of base: words is 2, but the metric that decides" in said
    assert compare(files, "mine.py:words", more=gate(files)) in {3, 4}
    assert main(["verdict", str(files / "out"), *gate(files, primary="words")]) == 2
    assert "let words return a number from 0 to 1" in capsys.readouterr().err


def test_a_gate_for_an_own_metric_needs_the_metric(files, capsys):
    assert compare(files, more=gate(files, primary="polite")) == 2
    assert "gate.primary: unknown 'polite'" in capsys.readouterr().err


class Echo(JsonAnswers, BaseHTTPRequestHandler):
    """Contract B: says the question's number; counts what it was asked."""

    asked_for: ClassVar[list[str]] = []

    def do_POST(self):
        question = self.asked()["input_data"]["input_string"][-1]["content"]
        self.asked_for.append(question)
        please = ", please" if self.path == "/tuned" else ""
        known = question.replace("Question", "Answer").rstrip("?") + please + "."
        self.answer(200, {"output": UNKNOWN if question == "Question 60?" else known})


COMMANDS = """
import json, sys
from custom_connections.promptflow_home import enter_home
from phi3flow.core.settings import Settings

enter_home(Settings.load())
from custom_connections.store import store_connection
from phi3flow.app.cli import main
from phi3flow.phi3_contract import Endpoint

url, *commands = map(json.loads, sys.argv[1:])
for name in ("base", "tuned"):
    store_connection(name, Endpoint(f"{url}/{name}", "key"))
print(json.dumps([main(words) for words in commands]))
"""


def test_evaluate_and_compare_try_a_metric_before_they_ask_and_score_with_it_after(files):
    (files / "bad.py").write_text("def bad(question, answer, reference):\n    return 1 / len(answer)\n")
    common = ["--data", "test.jsonl", "--runner", "direct"]
    sides = ["--base", "base", "--tuned", "tuned", "--packs", "none", "--text-metrics", "none"]
    bad, good = (["--metric", metric] for metric in ("bad.py:bad", "mine.py:polite"))
    failing = [
        ["evaluate", *common, "--connection", "tuned", "--out", "no", *bad],
        ["compare", *common, *sides, "--out", "no", *bad],
    ]
    working = [
        ["evaluate", *common, "--connection", "tuned", "--out", "alone", *good],
        ["compare", *common, *sides, "--out", "both", *good, *gate(files, primary="polite")],
    ]
    with serving(Echo) as server:
        url = json.dumps(f"http://127.0.0.1:{server.server_port}")

        def run(commands):
            return subprocess.run(
                [sys.executable, "-c", COMMANDS, url, *map(json.dumps, commands)],
                cwd=files,
                env=os.environ | {"PF_ENCRYPTION_KEY": new_encryption_key()},
                capture_output=True,
                text=True,
                timeout=240,
                check=True,
            )

        refused = run(failing)
        assert refused.stdout.splitlines()[-1] == "[2, 2]" and Echo.asked_for == []
        assert "test.jsonl:1: an empty answer: bad.py:bad raised ZeroDivisionError" in refused.stderr
        done = run(working)
    assert done.stdout.splitlines()[-1] == "[0, 0]", done.stderr
    alone = json.loads((files / "alone" / "evaluation.json").read_text(encoding="utf-8"))
    assert alone["metrics"]["polite"] == 1.0 and alone["own metrics"]["polite"]["file"] == "mine.py"
    scores = [row["scores"].get("polite") for row in alone["rows"]]
    assert scores == [1.0] * 59 + [None]  # the last reference declines
    assert report_in(files / "both")["metrics"]["polite"]["difference"] == 1.0
