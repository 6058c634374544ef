"""A downloaded folder's git settings name programs: git would run them to see whether files have changed."""

import subprocess

import pytest

from phi3flow.core.lineage import commit


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A commit, and a program for whatever git may run; each leaves the file `ran`."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    (tmp_path / "chats.txt").write_text("one\n")
    (tmp_path / ".gitattributes").write_text("* filter=a=b\n")
    git("add", "-A")
    git("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "x")
    program = tmp_path / ".git" / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/.git/ran\ncat\n")
    program.chmod(0o755)
    (tmp_path / ".git" / "hooks").mkdir(exist_ok=True)
    (tmp_path / ".git" / "hooks" / "post-index-change").symlink_to(program)
    for setting in ("core.fsmonitor", "filter.a=b.clean", "filter.a=b.process"):
        git("config", setting, str(program))
    git("config", "filter.a=b.required", "true")
    return tmp_path


def git(*words):
    subprocess.run(["git", *words], check=True)


def test_none_is_run_and_changes_are_seen(repository):
    (repository / "chats.txt").write_text("two\n")
    changed = commit()
    (repository / "chats.txt").write_text("one\n")
    assert changed == f"{commit()}+"
    assert not (repository / ".git" / "ran").exists()


def test_git_itself_runs_them(repository):
    """Else the test above shows nothing."""
    (repository / "chats.txt").write_text("two\n")
    subprocess.run(["git", "describe", "--always", "--dirty"], check=False, capture_output=True)
    assert (repository / ".git" / "ran").exists()


def test_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert commit() is None
