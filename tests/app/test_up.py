"""What `phi3flow up` refuses before it starts anything."""

from pathlib import Path

import pytest

from phi3flow.app.cli import main
from ui.login import NEEDED, login_problem


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "run" / "tuned").mkdir(parents=True)
    (tmp_path / "run" / "tuned" / "config.json").write_text("{}")
    return "run"


def test_the_arena_needs_both_models(run, capsys):
    assert main(["up", run, "--arena"]) == 2
    error = capsys.readouterr().err
    assert (
        "run/base is not a model folder" in error
        and "hint: phi3flow base --pretrained --out run/base" in error
    )


def test_a_run_that_was_not_trained_is_told_how_and_the_demo_how_to_run(run, capsys):
    assert main(["up", "other"]) == 2
    assert "--recipe small-cpu --model other/base --out other/tuned" in capsys.readouterr().err
    assert main(["up"]) == 2
    assert capsys.readouterr().err.endswith("hint: phi3flow demo\n")


def test_other_machines_need_a_login_and_the_error_says_how(run, capsys):
    assert main(["up", run, "--host", "0.0.0.0"]) == 2  # noqa: S104 - it is refused
    error = capsys.readouterr().err
    assert "needs a login" in error and "cookie_secret" in error and "docs/chat.md" in error
    assert main(["up", run, "--host", "192.0.2.1"]) == 2
    assert "127.0.0.1 or 0.0.0.0" in capsys.readouterr().err
    assert not (Path(run) / "up").exists()


def test_a_login_is_complete_or_named_as_what_is_missing(run):
    secrets = Path(".streamlit/secrets.toml")
    secrets.parent.mkdir()
    lines = [f'{name} = "x"' for name in NEEDED]
    secrets.write_text("\n".join(["[auth]", *lines[1:]]))
    assert login_problem() == ".streamlit/secrets.toml lacks [auth] redirect_uri"
    secrets.write_text("\n".join(["[auth]", *lines]))
    assert login_problem() in {"", "Authlib is not installed"}
    secrets.write_text("not toml [")
    assert "cookie_secret" in login_problem()
