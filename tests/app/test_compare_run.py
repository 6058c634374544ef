"""`phi3flow compare RUN`: what a run folder must hold, and what it excludes. The demo runs the rest."""

import pytest

from phi3flow.app.cli import main
from phi3flow.app.run_folder import require_lineage, training_of
from phi3flow.core.lineage import Artifact, write_manifest


@pytest.fixture
def run(tmp_path):
    for name in ("base", "tuned"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "config.json").write_text("{}")
    (tmp_path / "mine" / "data").mkdir()
    (tmp_path / "mine" / "data" / "test.jsonl").write_text("")
    return tmp_path / "mine"


@pytest.mark.parametrize(
    ("lost", "hint"),
    [
        ("data/test.jsonl", "phi3flow prepare CHATS.jsonl"),
        ("base/config.json", "phi3flow base --pretrained --out"),
        ("tuned/config.json", "phi3flow train --data"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(run, capsys, lost, hint):
    (run / lost).unlink()
    assert main(["compare", str(run)]) == 2
    said = capsys.readouterr().err
    assert str(run / lost.split("/")[0]) in said and hint in said
    assert not (run / "report.json").exists()


def test_a_tuned_model_of_another_base_is_not_compared_with_this_one(run, capsys):
    start = Artifact.of("model", run / "base")
    write_manifest(run / "tuned", "model", inputs=[start], outputs=[])
    require_lineage(run)
    (run / "base" / "config.json").write_text('{"another": true}')
    (run / "base" / ".cache").write_text("a download's times")
    assert main(["compare", str(run)]) == 2
    assert "was trained from" in capsys.readouterr().err
    (run / "base" / "config.json").write_text("{}")
    require_lineage(run)


@pytest.mark.parametrize("more", [["--base", "phi3-base"], ["--data", "test.jsonl"], ["--judge", "judge"]])
def test_a_run_is_compared_with_its_own_models_alone(run, capsys, more):
    assert main(["compare", str(run), *more]) == 2
    assert "nothing but its own" in capsys.readouterr().err


def test_a_report_that_stands_is_not_overwritten(run, capsys):
    (run / "report.json").write_text("{}")
    assert main(["compare", str(run)]) == 2
    assert "report.json exists" in capsys.readouterr().err
    assert (run / "report.json").read_text() == "{}"


def test_without_a_run_the_files_must_be_named(capsys):
    assert main(["compare", "--base", "a", "--tuned", "b"]) == 2
    assert "--data and --out: missing" in capsys.readouterr().err


def test_the_report_takes_the_counts_of_long_chats_from_the_training(run):
    assert training_of(run / "tuned") is None  # nothing tells how it was trained
    counts = {"train": {"chats": 9, "long_chats": 2}}
    details = {"recipe": {"long_chats": None, "max_length": 1024}, "result": {"long_chats": counts}}
    write_manifest(run / "tuned", "model", inputs=[], outputs=[], details=details)
    (run / "tuned" / "loss.png").write_bytes(b"")
    found = training_of(run / "tuned")
    assert (found.long_chats, found.max_length, found.rule) == (counts, 1024, "window")
