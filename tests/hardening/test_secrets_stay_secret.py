"""6: chats are for their owner alone, no password stands in a URL, children hold the keys they need."""

import json
import os
import shlex
import sys

import pytest
from headless import KEY, phi3flow

from custom_connections.promptflow_home import new_encryption_key
from phi3flow.core.child_process import KEYS, run_child
from phi3flow.core.files import for_owner_alone, write_text
from phi3flow.core.jsonl import write_jsonl
from phi3flow.phi3_contract import Endpoint, Rejected
from ui.store.conversations import Conversations
from ui.store.votes import append_vote

SECRET = "sk-planted-7c1e"
WITH_SECRETS = [
    f"https://me:{SECRET}@127.0.0.1:9/v1",
    f"https://{SECRET}@127.0.0.1:9/v1",
    f"https://127.0.0.1:9/v1?api-key={SECRET}",
    f"https://127.0.0.1:9/v1?version=2&code={SECRET}",
    f"https://127.0.0.1:9/v1?sig={SECRET}&version=2",
    f"https://127.0.0.1:9/v1?api%5Fkey={SECRET}",
    f"https://127.0.0.1:9/v1?auth={SECRET}",
]


@pytest.fixture
def ordinary_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes_below(folder):
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777
        for path in (folder, *folder.rglob("*"))
    }


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_6_a_url_with_a_password_is_refused_and_the_command_in_the_hint_stores_it_without(tmp_path, url):
    keys = {"PHI3FLOW_ENDPOINT_KEY": KEY, "PF_ENCRYPTION_KEY": new_encryption_key()}
    refused = phi3flow(tmp_path, "connect", "mine", "--endpoint", url, **keys)
    assert refused.returncode == 2 and "holds a password or a key" in refused.stderr
    assert SECRET not in refused.stdout + refused.stderr
    command = shlex.split(refused.stderr.partition("phi3flow ")[2])
    assert command[:2] == ["connect", "mine"]
    stored = phi3flow(tmp_path, *command, **keys)
    assert stored.returncode == 0, stored.stderr
    assert SECRET not in stored.stdout + stored.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(SECRET.encode() in path.read_bytes() for path in files)


def test_6_no_endpoint_of_any_kind_has_one():
    with pytest.raises(Rejected) as refused:
        Endpoint.from_connection({"endpoint": WITH_SECRETS[0]}, {"key": KEY})
    assert SECRET not in str(refused.value) + refused.value.hint
    for url in ("https://h/v1?api-version=2024-10-21", "https://h/keys?tokens=3", "https://h/a@b"):
        assert Endpoint(url).url == url


def test_6_prepared_chats_are_for_their_owner_alone(tmp_path, ordinary_umask):
    rows = [{"question": f"What is {n} and {n}?", "answer": str(2 * n)} for n in range(40)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = phi3flow(tmp_path, "prepare", "chats.jsonl", "--out", "run/data")
    assert done.returncode == 0, done.stderr
    modes = modes_below(tmp_path / "run")
    assert {"data/train.jsonl", "data/val.jsonl", "data/test.jsonl"} < modes.keys()
    assert {mode for path, mode in modes.items() if (tmp_path / "run" / path).is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if (tmp_path / "run" / path).is_file()} == {0o600}


def test_6_a_comparisons_questions_and_answers_are_too(tmp_path, ordinary_umask):
    write_jsonl(tmp_path / "test.jsonl", ({"question": f"What is {n}?", "answer": "One."} for n in range(3)))
    write_jsonl(tmp_path / "answers.jsonl", ({"line": n, "answer": "Two."} for n in range(1, 4)))
    files = {"--data": "test", "--base": "answers", "--tuned": "answers"}
    words = [word for option, name in files.items() for word in (option, f"{name}.jsonl")]
    done = phi3flow(tmp_path, "compare-answers", *words, "--text-metrics", "none", "--out", "out")
    assert (tmp_path / "out" / "report.html").is_file(), done.stderr
    assert {mode & 0o077 for mode in modes_below(tmp_path / "out").values()} == {0}


def test_6_conversations_and_votes_become_so_even_where_they_were_open(tmp_path, ordinary_umask):
    database, votes = tmp_path / "chat.sqlite", tmp_path / "preferences.jsonl"
    votes.touch()
    database.touch()
    assert modes_below(tmp_path)["chat.sqlite"] == 0o644
    Conversations(database).prepare()
    append_vote(votes, "1", "Who?", {"base": "a", "tuned": "b"}, "tuned")
    modes = modes_below(tmp_path)
    assert {mode for path, mode in modes.items() if path != "."} == {0o600}


def test_6_other_files_follow_the_umask_of_the_person(tmp_path, ordinary_umask):
    write_text(tmp_path / "report.md", "shared")
    with for_owner_alone():
        write_text(tmp_path / "votes", "mine")
    write_text(tmp_path / "report.html", "shared")
    modes = modes_below(tmp_path)
    assert [modes[name] for name in ("report.md", "votes", "report.html")] == [0o644, 0o600, 0o644]


def test_6_a_child_gets_none_of_our_keys(tmp_path, monkeypatch):
    for name in KEYS:
        monkeypatch.setenv(name, SECRET)
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    assert run_child([sys.executable, "-c", code], tmp_path / "log") == 0
    assert SECRET not in (tmp_path / "log").read_text()
