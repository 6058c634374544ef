import json

import pytest
from recorded_comparison import compare_answers

from evaluation.compare import read_recorded
from evaluation.scored_rows import Answer
from phi3flow.app.cli import main
from phi3flow.core.errors import BadInput

UNKNOWN = "Sorry, I do not know that."


@pytest.fixture
def files(tmp_path):
    """Forty chats; base is wrong throughout, tuned is right."""
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"Capital of {i}?"},
                {"role": "assistant", "content": f"City {i}."},
            ],
            "prompt_id": f"p{i}",
        }
        for i in range(1, 41)
    ]
    write(tmp_path / "test.jsonl", chats)
    (tmp_path / "gate.toml").write_text("[gate]\nrequired = []\n", encoding="utf-8")
    write(tmp_path / "base.jsonl", [{"line": i, "answer": "Rome."} for i in range(1, 41)])
    write(
        tmp_path / "tuned.jsonl", [{"prompt_id": f"p{i}", "answer": f"City {i}."} for i in range(40, 0, -1)]
    )
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(files):
    return read_recorded(files / "test.jsonl", files / "base.jsonl", files / "tuned.jsonl").rows


def compare(files, *more):
    paths = ("--data", "test.jsonl", "--base", "base.jsonl", "--tuned", "tuned.jsonl")
    words = [str(files / word) if word.endswith(".jsonl") else word for word in paths]
    return main(["compare-answers", *words, "--out", str(files / "out"), "--text-metrics", "none", *more])


def test_recorded_answers_are_judged_without_an_endpoint(files, capsys):
    assert compare(files, "--json", "--gate", str(files / "gate.toml")) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n"], report["failed"], report["verdict"]) == (40, 0, "promote")
    assert (report["base"]["exact_match"], report["tuned"]["exact_match"]) == (0.0, 1.0)
    assert report["seconds"]["base"] == {"p50": None, "p95": None}
    assert {"test data", "base answers", "tuned answers"} == set(report["lineage"])
    manifest = json.loads((files / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert {item["kind"] for item in manifest["inputs"]} == set(report["lineage"])
    assert (files / "out" / "report.html").exists()


def test_rows_are_found_by_line_and_by_prompt_id(files):
    write(files / "base.jsonl", [{"id": "p2", "answer": "by id", "seconds": 1}, {"line": 1, "answer": ""}])
    rows = read(files)
    assert rows[0].base == Answer("", None)
    assert rows[1].base == Answer("by id", 1.0)
    assert rows[39].tuned.text == "City 40."


def test_what_is_missing_has_failed(files, capsys):
    write(
        files / "base.jsonl", [{"line": 1, "answer": "x"}, {"line": 2, "answer": None, "error": "timed out"}]
    )
    rows = read(files)
    assert [row.base is None for row in rows] == [False] + [True] * 39
    said = capsys.readouterr().err
    assert "base: 38 of 40 lines failed: no answer is recorded" in said
    assert "base: 1 of 40 lines failed: timed out" in said
    assert compare(files) == 3  # more lines failed than the gate allows


def test_every_wrong_row_is_named(files):
    wrong = [
        {"answer": "x"},
        {"line": 0, "answer": "x"},
        {"line": True, "answer": "x"},
        {"line": 41, "answer": "x"},
        {"prompt_id": "nobody", "answer": "x"},
        {"line": 3, "answer": 7},
        {"line": 3},
        {"line": 3, "answer": "x", "seconds": -1},
        {"line": 3, "answer": "\ud800"},
        {"line": 3, "answer": "first"},
        {"prompt_id": "p3", "answer": "second"},
    ]
    write(files / "tuned.jsonl", wrong)
    with (files / "tuned.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('[]\n\n{"line": 4, "answer": "x"')
    with pytest.raises(BadInput) as caught:
        read(files)
    lines = str(caught.value).splitlines()
    assert lines[0] == "12 bad rows"
    fields = [line.removeprefix(f"{files / 'tuned.jsonl'}:").split(": ")[:2] for line in lines[1:]]
    assert fields == [
        ["1", "line"],
        ["2", "line"],
        ["3", "line"],
        ["4", "line"],
        ["5", "prompt_id"],
        ["6", "answer"],
        ["7", "answer"],
        ["8", "seconds"],
        ["9", "answer"],
        ["11", "line"],
        ["12", "row"],
        ["14", "json"],
    ]


def test_a_prompt_id_of_several_chats_names_none_of_them(files):
    chats = [json.loads(line) for line in (files / "test.jsonl").read_text().splitlines()]
    write(files / "test.jsonl", [chat | {"prompt_id": "same"} for chat in chats])
    write(files / "tuned.jsonl", [{"prompt_id": "same", "answer": "x"}])
    with pytest.raises(BadInput, match="several chats have the prompt_id 'same'"):
        read(files)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compare"], "--base and --tuned: missing"),
        (["compare", "--base", "a"], "--tuned: missing"),
        (["compare-answers", "--base", "a"], "Missing option '--tuned'"),
        (
            ["compare-answers", "--base", "a", "--tuned", "b", "--runner", "direct"],
            "No such option '--runner'",
        ),
        (["compare", "--base-answers", "a"], "Missing option '--tuned'"),
        (["compare", "--base", "a", "--tuned-answers", "b"], "test.jsonl: no such file"),
    ],
)
def test_two_connections_or_two_files(tmp_path, capsys, words, told):
    assert main([*words, "--data", str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_old_options_of_compare_still_work_with_a_notice(files, capsys):
    paths = ("--data", "test.jsonl", "--base-answers", "base.jsonl", "--tuned-answers", "tuned.jsonl")
    words = [str(files / word) if word.endswith(".jsonl") else word for word in paths]
    words += ["--gate", str(files / "gate.toml")]
    assert main(["compare", *words, "--out", str(files / "out"), "--text-metrics", "none"]) == 0
    notice = "phi3flow compare --base-answers --tuned-answers is now phi3flow compare-answers --base --tuned"
    assert capsys.readouterr().err.count(notice) == 1


def test_files_that_are_not_there_are_bad_input(files, capsys):
    (files / "base.jsonl").unlink()
    assert compare(files) == 2
    assert "base.jsonl: cannot be read" in capsys.readouterr().err
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("base_right", "tuned_right", "verdict"),
    [(0, 40, "promote"), (40, 0, "hold"), (20, 22, "not_enough_data")],
)
def test_recorded_answers_lead_to_each_verdict(tmp_path, base_right, tuned_right, verdict):
    report = compare_answers(tmp_path / "out", base_right=base_right, tuned_right=tuned_right)
    assert report.verdict == verdict, report.reasons
    assert json.loads((tmp_path / "out" / "report.json").read_text())["verdict"] == verdict
