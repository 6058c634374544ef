"""What was compared is what the report says: test file, answers and training data belong together."""

import json
import shutil
from dataclasses import replace

import pytest
from gates import WITHOUT_PACKS
from recorded_comparison import compare_answers

from evaluation.asking.answer_file import open_answers, prompt_sha256, write_answers
from evaluation.compare import Options, compare_recorded
from evaluation.report.comparison import compare_rows
from evaluation.scored_rows import Answer, Record, ScoredRow, chats_in
from phi3flow.app.cli import main
from phi3flow.app.run_folder import require_same_data
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.lineage import Artifact, write_manifest
from training.data.prepare import prepare


def chats(n, start=0):
    return [
        {
            "messages": [
                {"role": "user", "content": f"Where is the tower number {i}?"},
                {"role": "assistant", "content": f"In town {i}."},
            ]
        }
        for i in range(start, start + n)
    ]


def answered(folder, name, rows, **more):
    """A file of right answers to `rows`, with what `more` makes of each prompt."""
    made = []
    for i, row in enumerate(rows, 1):
        prompt, answer = row["messages"][:-1], row["messages"][-1]["content"]
        made.append({"line": i, "answer": answer} | {key: make(prompt) for key, make in more.items()})
    write_jsonl(folder / name, made)
    return folder / name


def asked(prompt):
    return prompt[-1]["content"]


@pytest.mark.parametrize("tie", [{"prompt_sha256": prompt_sha256}, {"question": asked}])
def test_answers_to_another_file_are_refused(tmp_path, tie):
    write_jsonl(tmp_path / "test.jsonl", chats(40))
    mine = answered(tmp_path, "mine.jsonl", chats(40), **tie)
    assert open_answers(mine, chats_in(tmp_path / "test.jsonl")).unchecked == 0
    other = answered(tmp_path, "other.jsonl", chats(40, start=1), **tie)
    with pytest.raises(BadInput, match=r"other\.jsonl:1: .*belong to another file"):
        open_answers(other, chats_in(tmp_path / "test.jsonl"))


def test_answers_to_the_same_questions_in_another_order_are_refused(tmp_path):
    write_jsonl(tmp_path / "test.jsonl", chats(40))
    path = answered(tmp_path, "a.jsonl", chats(40)[::-1], prompt_sha256=prompt_sha256)
    with pytest.raises(BadInput, match="40 bad rows"):
        open_answers(path, chats_in(tmp_path / "test.jsonl"))


def test_the_report_names_answers_that_nothing_ties_to_the_file(tmp_path):
    write_jsonl(tmp_path / "test.jsonl", chats(40))
    loose = answered(tmp_path, "loose.jsonl", chats(40))
    tied = answered(tmp_path, "tied.jsonl", chats(40), prompt_sha256=prompt_sha256)
    report = compare_recorded(
        tmp_path / "test.jsonl", loose, tied, tmp_path / "out", Options(WITHOUT_PACKS, workers=1)
    )
    (note,) = report.notes
    assert note.startswith("40 recorded answers of base without the hash")
    assert "on trust" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_written_answers_are_tied(tmp_path):
    write_jsonl(tmp_path / "test.jsonl", chats(3))
    found = chats_in(tmp_path / "test.jsonl")
    records = [Record("In town 0.", 0.5, None), Record(None, None, "timed out"), Record("", None, None, 3)]
    write_answers(tmp_path / "a.jsonl", found, records)
    assert list(open_answers(tmp_path / "a.jsonl", found)) == records
    write_jsonl(tmp_path / "other.jsonl", chats(3, start=9))
    with pytest.raises(BadInput, match="3 bad rows"):
        open_answers(tmp_path / "a.jsonl", chats_in(tmp_path / "other.jsonl"))


@pytest.fixture
def prepared(tmp_path):
    write_jsonl(tmp_path / "chats.jsonl", chats(900))
    return prepare([str(tmp_path / "chats.jsonl")], tmp_path / "data").folder


def decided(folder, data):
    rows = read_jsonl(data)
    write_jsonl(folder / "base.jsonl", [{"line": i, "answer": "No."} for i in range(1, len(rows) + 1)])
    tuned = answered(folder, "tuned.jsonl", rows, prompt_sha256=prompt_sha256)
    options = Options(WITHOUT_PACKS, workers=1)
    return compare_recorded(data, folder / "base.jsonl", tuned, folder / "out", options)


def test_another_test_file_than_the_one_that_prepare_wrote_is_refused_by_name(tmp_path, prepared):
    test = prepared / "test.jsonl"
    assert decided(tmp_path, test).verdict == "promote"
    easy = read_jsonl(test)[:40]
    write_jsonl(test, easy)
    with pytest.raises(BadInput, match=r"data/test\.jsonl: not the file that prepare wrote"):
        decided(tmp_path, test)
    write_jsonl(tmp_path / "own.jsonl", easy)
    assert decided(tmp_path, tmp_path / "own.jsonl").verdict == "promote"


def test_a_run_with_another_test_file_is_refused_before_a_model_is_served(tmp_path, prepared, capsys):
    run = tmp_path / "mine"
    run.mkdir()
    shutil.move(prepared, run / "data")
    for name in ("base", "tuned"):
        (run / name).mkdir()
        for file in ("config.json", "tokenizer.json"):
            (run / name / file).write_text("{}")
    write_jsonl(run / "data" / "test.jsonl", chats(40, start=5000))
    assert main(["compare", str(run), "--out", str(tmp_path / "again")]) == 2
    assert f"{run / 'data' / 'test.jsonl'}: not the file that prepare wrote" in capsys.readouterr().err


def test_test_rows_that_were_trained_on_are_counted_and_hold(tmp_path, prepared):
    """By hand, after `prepare`: its manifest is made to fit, so that only the count can tell."""
    train, test = prepared / "train.jsonl", prepared / "test.jsonl"
    leaked = [json.loads(json.dumps(row)) for row in read_jsonl(test)[:7]]
    for row in leaked:
        row["messages"][0]["content"] = "Hello! " + row["messages"][0]["content"].upper()
    write_jsonl(train, [*read_jsonl(train), *leaked])
    report = decided(tmp_path, test)
    assert (report.verdict, report.in_training) == ("hold", 7)
    assert report.reasons[0].startswith("7 of ")
    assert "ask what a row of the training file asks" in report.reasons[0]
    assert report.reasons[-1].startswith("Next: prepare the chats again")


def test_a_tuned_model_of_other_data_is_refused(tmp_path, prepared):
    run = tmp_path / "mine"
    (run / "tuned").mkdir(parents=True)
    shutil.move(prepared, run / "data")
    made = [Artifact.of("data", run / "data" / f"{split}.jsonl") for split in ("train", "val")]
    write_manifest(run / "tuned", "model", inputs=made, outputs=[])
    require_same_data(run)
    write_manifest(run / "tuned", "model", inputs=[replace(made[0], sha256="0" * 64)], outputs=[])
    with pytest.raises(BadInput, match=r"tuned was trained on .*train\.jsonl as it was then"):
        require_same_data(run)


@pytest.mark.parametrize("spaced", ["{} ", " {}", "{}\n\n", "{}\u200b", "{}\u00a0"])
def test_a_base_that_differs_by_white_space_is_the_base(spaced):
    said = [f"It is  in town {i}." for i in range(60)]
    rows = [
        ScoredRow(
            i + 1,
            None,
            None,
            [{"role": "user", "content": f"Where is {i}?"}],
            f"It is in town {i}.",
            Answer(text, None),
            Answer(spaced.format(text.replace("  ", "\t")), None),
        )
        for i, text in enumerate(said)
    ]
    report = compare_rows(rows, replace(WITHOUT_PACKS, margin=-0.5))
    assert report.verdict == "hold"
    assert "same answer to every row" in report.reasons[0]


def gate_file(folder, text):
    path = folder / "gate.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_another_gate_decides_over_the_same_answers(tmp_path, capsys):
    run = tmp_path / "run"
    report = compare_answers(run, base_right=0, tuned_right=40)
    assert report.verdict == "promote"
    strict = gate_file(tmp_path, "[gate]\nrequired = []\nmin_rows = 100\n")
    assert main(["verdict", str(run), "--gate", strict, "--json"]) == 4
    again = json.loads(capsys.readouterr().out)
    assert again["metrics"] == json.loads((run / "report.json").read_text())["metrics"]
    assert "at least 100" in again["reasons"][0]
    assert main(["verdict", str(run)]) == 4  # the packaged gate wants the packs
    loose = gate_file(tmp_path, '[gate]\nrequired = []\nprimary = "token_f1"\n')
    assert main(["verdict", str(run), "--gate", loose, "--out", str(tmp_path / "again")]) == 0
    written = json.loads((tmp_path / "again" / "report.json").read_text())
    assert (written["verdict"], written["gate"]["primary"]) == ("promote", "token_f1")
    assert (tmp_path / "again" / "report.html").is_file()
    assert json.loads((run / "report.json").read_text())["gate"]["primary"] == "exact_match"
    assert main(["verdict", str(run), "--out", str(tmp_path / "again")]) == 2  # stands already


def test_a_moved_run_is_decided_again_and_a_changed_one_is_not(tmp_path, capsys):
    compare_answers(tmp_path / "run", base_right=0, tuned_right=40)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    gate = gate_file(tmp_path, "[gate]\nrequired = []\n")
    assert main(["verdict", str(tmp_path / "moved"), "--gate", gate]) == 0
    with (tmp_path / "moved" / "tuned-answers.jsonl").open("a") as stream:
        stream.write("\n")
    assert main(["verdict", str(tmp_path / "moved"), "--gate", gate]) == 2
    assert "gone or changed since it was compared" in capsys.readouterr().err
    assert main(["verdict", str(tmp_path)]) == 2
    assert "no comparison in it" in capsys.readouterr().err


def test_test_rows_that_were_trained_on_hold_in_a_split_of_ones_own(tmp_path):
    (tmp_path / "data").mkdir()
    test = tmp_path / "data" / "test.jsonl"
    write_jsonl(test, chats(60))
    assert decided(tmp_path, test).verdict == "promote"
    write_jsonl(test.with_name("train.jsonl"), chats(100, start=50))
    report = decided(tmp_path, test)
    assert (report.verdict, report.in_training) == ("hold", 10)
    for other in ("Notes on the training.\n", '{"chosen": "a", "rejected": "b"}\n'):
        test.with_name("train.jsonl").write_text(other)
        assert decided(tmp_path, test).verdict == "promote", "nobody trains on what is no chat"


def test_a_report_that_was_written_by_hand_is_not_decided_again(tmp_path, capsys):
    """Its packs and what is said of the training data stand nowhere else."""
    compare_answers(tmp_path / "run", base_right=0, tuned_right=40)
    written = tmp_path / "run" / "report.json"
    report = json.loads(written.read_text())
    written.write_text(json.dumps(report | {"in_training": 0, "notes": []}))
    assert main(["verdict", str(tmp_path / "run")]) == 2
    assert "report.json: gone or changed since it was compared" in capsys.readouterr().err


def test_a_comparison_is_not_replaced_by_its_own_verdict(tmp_path, capsys):
    run = tmp_path / "run"
    compare_answers(run, base_right=0, tuned_right=40)
    before = (run / "report.json").read_bytes(), (run / "manifest.json").read_bytes()
    assert main(["verdict", str(run), "--out", str(run), "--force"]) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert before == ((run / "report.json").read_bytes(), (run / "manifest.json").read_bytes())
