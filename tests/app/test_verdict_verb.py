import json

import pytest

from phi3flow.app.cli import main


@pytest.fixture
def run(tmp_path, capsys):
    def run_(content, *flags):
        path = tmp_path / "judgments.jsonl"
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif content is not None:
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        code = main(["verdict", str(path), "--json", *flags])
        return code, *capsys.readouterr()

    return run_


def row(i, preference, base_chars=100, tuned_chars=100):
    return {"id": i, "preference": preference, "base_chars": base_chars, "tuned_chars": tuned_chars}


def better(wins, losses, ties=0):
    """Preferences that do not go with length."""
    preferences = [1] * wins + [0] * losses + [0.5] * ties
    return [row(i, preference, tuned_chars=97 + i % 7) for i, preference in enumerate(preferences)]


@pytest.mark.parametrize(
    ("rows", "word", "code"),
    [
        (better(150, 50), "promote", 0),
        (better(50, 150), "hold", 3),
        (better(52, 48, 100), "not_enough_data", 4),
        (better(14, 6), "not_enough_data", 4),
    ],
)
def test_exit_codes_are_those_of_compare(run, rows, word, code):
    found, out, _ = run(rows)
    result = json.loads(out)
    assert (found, result["verdict"]) == (code, word)
    assert result["n"] == len(rows)
    for name in ("win_rate", "length_controlled_win_rate"):
        low, high = result[f"{name}_ci"]
        assert 0 <= low <= result[name] <= high <= 1
    assert result["standard_error"] > 0
    assert result["reasons"]


def test_votes_of_the_chat_page_are_read(run):
    votes = ["tuned", "base", "tie", "both_bad"]
    rows = [
        {"id": f"v{i}", "prompt": [], "chosen": None, "rejected": None, "left": "base", "vote": vote}
        | {"base_chars": 10, "tuned_chars": 12 + i}
        for i, vote in enumerate(votes)
    ]
    result = json.loads(run(rows)[1])
    assert (result["n"], result["win_rate"]) == (4, 0.5)
    assert result["length_controlled_win_rate"] is None
    assert "too few" in result["length_note"]


def test_so_few_votes_are_no_word_against_the_model(run):
    result = json.loads(run([row(1, 1, tuned_chars=90)])[1])
    told = " ".join(result["reasons"])
    assert ", 1 row, ties count half" in told
    assert "at least 30 rows" in told and "would not promote" not in told
    many = json.loads(run(better(50, 50))[1])
    assert (many["verdict"], many["rows_needed"]) == ("not_enough_data", None)
    assert "would not promote" in many["reasons"][-1]


def test_a_gate_of_ones_own_decides(run, tmp_path):
    gate = tmp_path / "gate.toml"
    gate.write_text("[gate]\nmargin = 0.4\n", encoding="utf-8")
    assert run(better(150, 50), "--gate", str(gate))[0] == 3


def test_every_wrong_row_is_named_with_file_line_and_field(run, tmp_path):
    lines = [
        json.dumps(row(1, 1)),
        "",
        json.dumps(row("1", 0)),
        "{",
        "[1]",
        json.dumps(row(None, 1)),
        json.dumps(row(5, 1.5)),
        '{"id": 6, "preference": NaN, "base_chars": 1, "tuned_chars": 1}',
        json.dumps(row(7, True)),
        json.dumps({"id": 8, "vote": "tunedd"}),
        json.dumps(row(9, 0.5, base_chars=-1)),
        json.dumps(row(10, 0.5, tuned_chars=None)),
        json.dumps({"id": 11, "base_chars": 1, "tuned_chars": 1}),
        "[" * 100_000,
    ]
    code, out, err = run("\n".join(lines))
    assert (code, out) == (2, "")
    told = [line for line in err.splitlines() if "judgments.jsonl:" in line]
    path = tmp_path / "judgments.jsonl"
    found = [line.removeprefix("error: ").removeprefix(f"{path}:").split(":")[:2] for line in told]
    assert found == [
        [number, f" {field}"]
        for number, field in [
            ("3", "id"),
            ("4", "json"),
            ("5", "row"),
            ("6", "id"),
            ("7", "preference"),
            ("8", "preference"),
            ("9", "preference"),
            ("10", "vote"),
            ("11", "base_chars"),
            ("12", "tuned_chars"),
            ("13", "preference"),
            ("14", "json"),
        ]
    ]
    assert "did you mean 'tuned'?" in err
    assert "hint: " in err


@pytest.mark.parametrize("content", [None, "", "\n\n"])
def test_a_file_without_rows_is_bad_input(run, content):
    code, _, err = run(content)
    assert code == 2
    assert "judgments.jsonl" in err


def test_one_question_by_many_people_is_one_row(run):
    """Each vote has a cluster of its own, its voter; the prompt still ties them together."""
    prompt = [{"role": "user", "content": "Who founded Microsoft?"}]
    votes = [one | {"prompt": prompt, "cluster": f"person {one['id']}"} for one in better(60, 0)]
    code, out, _ = run(votes)
    assert code == 4 and "1 independent" in json.loads(out)["reasons"][0]
    others = [one | {"prompt": [{"role": "user", "content": f"Who is number {one['id']}?"}]} for one in votes]
    assert run(others)[0] == 0
