import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from phi3flow.chats.chat import Chat
from phi3flow.chats.row_shapes import read_row
from phi3flow.chats.rows import load_chats, open_chats
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import MAX_LINE, RowError, parse_object

USER = {"role": "user", "content": "Hi?"}
ASSISTANT = {"role": "assistant", "content": "Hello."}
SYSTEM = {"role": "system", "content": "Be brief."}
GOOD = json.dumps({"messages": [USER, ASSISTANT]}).encode() + b"\n"


OTHER_ANSWERS = "or 'output', 'response', 'completion', 'reply'; --columns names any other"
OTHER_QUESTIONS = "or 'instruction', 'prompt', 'query'; --columns names any other"


def parse_row(line):
    return read_row(parse_object(line)).chat


def messages(*turns):
    return json.dumps({"messages": turns}).encode()


def answered(content):
    return messages(USER, {"role": "assistant", "content": content})


@pytest.mark.parametrize(
    ("row", "chat"),
    [
        (
            {"messages": [SYSTEM, USER, ASSISTANT], "prompt_id": "7", "slice": "greeting"},
            Chat((SYSTEM, USER, ASSISTANT), "7", "greeting"),
        ),
        (
            {"prompt": "Hi?", "messages": [USER, ASSISTANT, USER, ASSISTANT], "prompt_id": None},
            Chat((USER, ASSISTANT, USER, ASSISTANT)),
        ),
        ({"question": "Hi?", "answer": "Hello.", "slice": "s"}, Chat((USER, ASSISTANT), slice="s")),
        ({"instruction": "Hi?", "input": "", "output": "Hello."}, Chat((USER, ASSISTANT))),
        (
            {"instruction": "Add.", "input": "1 and 2", "output": "Hello."},
            Chat(({"role": "user", "content": "Add.\n\n1 and 2"}, ASSISTANT)),
        ),
    ],
)
def test_each_shape_becomes_a_chat_that_survives_writing(row, chat):
    assert parse_row(json.dumps(row).encode()) == chat
    assert parse_row(json.dumps(chat.row()).encode()) == chat


def test_content_is_composed_but_not_rewritten():
    chat = parse_row(answered("cafe\u0301 x² ½"))
    assert chat.reference == "caf\u00e9 x² ½"
    assert chat.prompt == (USER,)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"messages": [}', "json: Expecting value at column 15"),
        (b"[" * 100_000, "json: nested too deeply"),
        (b"1" * 5000, "json: a number with too many digits"),
        (b"[]", "row: must be an object, not a list"),
        (b'{"mesages": []}', "row: has neither 'messages' nor 'question' and 'answer' (keys: mesages)"),
        (b'{"\\u001b": 1}', "row: has neither 'messages' nor 'question' and 'answer' (keys: '\\x1b')"),
        (b'{"question": "Hi?"}', f"answer: missing ({OTHER_ANSWERS})"),
        (b'{"output": "Hi."}', f"question: missing ({OTHER_QUESTIONS})"),
        (
            b'{"question": "", "instruction": ""}',
            "instruction: given together with 'question'; keep one of them",
        ),
        (b'{"question": "a", "input": 3, "answer": "c"}', "input: must be text, not a number"),
        (b'{"messages": {}}', "messages: must be a list, not an object"),
        (b'{"messages": []}', "messages: has no assistant turn, so there is no answer to learn"),
        (b'{"messages": ["Hi?"]}', "messages[0]: must be an object, not text"),
        (b'{"messages": [], "messages": []}', "messages: key given twice in one object"),
        (messages(USER), "messages: has no assistant turn, so there is no answer to learn"),
        (messages(ASSISTANT), "messages: has no user turn, so there is no question"),
        (messages(ASSISTANT, USER), "messages: has no answer that counts toward the loss (weight, train)"),
        (messages({"role": "chef"}), "messages[0].role: is chef; known: system, user, assistant, tool"),
        (messages({}), "messages[0].role: is null; known: system, user, assistant, tool"),
        (messages({"role": []}), "messages[0].role: is a list; known: system, user, assistant, tool"),
        (answered(None), "messages[1].content: must be text, not null"),
        (answered(" \u200b\n"), "messages[1].content: is empty"),
        (answered("a\0"), "messages[1].content: contains a NUL character"),
        (answered("\ud83d"), "messages[1].content: holds half a surrogate pair"),
        (b'{"question": "a", "answer": "b", "prompt_id": 7.5}', "prompt_id: must be text, not a number"),
        (b'{"question": "a\0", "answer": "b"}', "line: holds a NUL byte"),
        (b'{"question": "\xe4"}', "encoding: not UTF-8 at byte 15"),
    ],
)
def test_a_bad_row_names_the_field_and_what_is_wrong(line, error):
    with pytest.raises(RowError) as raised:
        parse_row(line)
    assert str(raised.value) == error


def test_a_file_may_have_blank_lines_and_no_last_line_feed(tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_bytes(GOOD + b"\n  \n" + GOOD.rstrip())
    assert load_chats(file) == [Chat((USER, ASSISTANT))] * 2


def test_every_bad_line_is_named_up_to_twenty_and_all_are_counted(tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_bytes(GOOD + b"\n" + b"{}\n" * 30)
    with pytest.raises(BadInput) as raised:
        load_chats(file)
    lines = str(raised.value).splitlines()
    assert lines[0] == "30 bad rows"
    assert [line.split(": ")[0] for line in lines[1:]] == [f"{file}:{n}" for n in range(3, 23)]


def test_a_huge_line_is_refused_without_being_held_in_memory(tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_bytes(GOOD + b'{"x": "' + b"x" * 20 * MAX_LINE + b'"}\n' + b"{}\n")
    tracemalloc.start()
    with pytest.raises(BadInput) as raised:
        load_chats(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(raised.value).splitlines()[1] == f"{file}:2: line: longer than {MAX_LINE} characters"
    assert f"{file}:3: row" in str(raised.value)  # the line after it keeps its number
    assert peak < 8 * MAX_LINE


def test_a_line_of_exactly_the_limit_is_read(tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_bytes(GOOD.rstrip().ljust(MAX_LINE) + b"\n" + GOOD.rstrip().ljust(MAX_LINE + 1) + b"\n")
    with pytest.raises(BadInput, match=":2: line: longer"):
        load_chats(file)


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("missing.jsonl", "no such file", "ORG/NAME|HuggingFaceH4"),
        (".", "a folder without files of rows", "give a file"),
        ("HuggingFaceH4/ultrachat_200k", "no split", r"train_sft\[:1%\]"),
    ],
)
def test_a_source_without_chats_is_explained(tmp_path, monkeypatch, source, message, hint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message) as raised:
        open_chats(source)
    assert re.search(hint, raised.value.hint)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("test.jsonl", "no such file", "phi3flow prepare"),
        ("org/test", "no such file", "phi3flow prepare"),
        ("empty.jsonl", "no chats in it", "docs/data.md"),
    ],
)
def test_a_missing_file_is_never_looked_up_on_the_hub(tmp_path, monkeypatch, name, message, hint):
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    with pytest.raises(BadInput, match=message) as raised:
        load_chats(Path(name))
    assert re.search(hint, raised.value.hint)
    assert "hub" not in raised.value.hint


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for a missing and for a gated data set, and hangs up on the rest."""

    def do_GET(self):
        if "/gone/" in self.path:
            self._refuse(404, "RepoNotFound")
        elif "/gated/" in self.path:
            self._refuse(403, "GatedRepo")

    def do_HEAD(self):
        self.do_GET()

    def _refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args): ...


ASK_THE_HUB = """
import sys
from phi3flow.chats.intake import Intake
from phi3flow.chats.rows import open_chats, read_chats
from phi3flow.core.errors import Phi3flowError
intake = Intake()
for name in sys.argv[1:]:
    try:
        chats = [chat for source in open_chats(name) for chat in read_chats(source, intake)]
        print("chats:", [chat.reference for chat in chats])
    except Phi3flowError as error:
        print(f"{type(error).__name__}: {error}")
print(intake.bad.report())
"""


def ask_the_hub(port, folder, *sources):
    environment = {
        **os.environ,
        "HF_HOME": str(folder / "home"),
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", ASK_THE_HUB, *sources]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_hub_rows_pass_the_same_checks_and_hub_errors_are_one_sentence(tmp_path):
    # `datasets` takes a folder ORG/NAME below the working folder before it asks the hub.
    local = tmp_path / "org" / "set" / "data"
    local.mkdir(parents=True)
    (local / "train_sft-00000-of-00001.jsonl").write_bytes(GOOD * 2 + messages(USER) + b"\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        sources = [
            "org/set[train_sft[:100%]]",
            "org/set[nope]",
            "gone/set[train]",
            "gated/set[train]",
            "off/line[train]",
        ]
        said = ask_the_hub(hub.server_port, tmp_path, *sources)
        hub.shutdown()
    assert said == [
        "chats: ['Hello.', 'Hello.']",
        "BadInput: org/set[nope]: Unknown split \"nope\". Should be one of ['train_sft'].",
        "BadInput: gone/set: no such public data set on the hub",
        "BadInput: gated/set: the data set is gated",
        "Phi3flowError: off/line[train]: the hub cannot be reached",
        "1 bad row",
        "org/set[train_sft[:100%]]:3: messages: has no assistant turn, so there is no answer to learn",
    ]


CONFIGURATIONS = """---
configs:
- config_name: main
  data_files: main/*.jsonl
- config_name: other
  data_files: other/*.jsonl
---
"""


def test_a_configuration_of_a_hub_data_set_is_named(tmp_path):
    for name in ("main", "other"):
        folder = tmp_path / "org" / "two" / name
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text(json.dumps({"question": "Hi?", "answer": name}) + "\n")
    (tmp_path / "org" / "two" / "README.md").write_text(CONFIGURATIONS)
    said = ask_the_hub(9, tmp_path, "org/two:other[train]", "org/two[train]")
    assert said[:2] == [
        "chats: ['other']",
        "BadInput: org/two: has several configurations: main, other",
    ]


def test_a_refused_connection_is_the_network_not_the_data_set(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        said = ask_the_hub(unused.getsockname()[1], tmp_path, "off/line[train]")
    assert said[0] == "Phi3flowError: off/line[train]: the hub cannot be reached"
