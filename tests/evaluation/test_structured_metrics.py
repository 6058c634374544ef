"""json_valid, schema_valid and tool_call_match: what they count, through the same commands as others."""

import json
import socket
from http.server import BaseHTTPRequestHandler

import pytest
from loopback import JsonAnswers, serving

from evaluation.asking.answer_file import open_answers
from evaluation.asking.direct_run import run_direct
from evaluation.metrics.structured_functions import json_valid, schema_valid, tool_call_match
from evaluation.scored_rows import chats_in, scored_rows
from flows.compare.compare_answer import timed_answer
from phi3flow.app.cli import main
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from phi3flow.phi3_contract import Endpoint

SCHEMA = {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}, "required": ["day"]}
TOOLS = [{"type": "function", "function": {"name": "price", "parameters": {"type": "object"}}}]
WORDS = "It costs 12 euro."


def calls(*arguments, name="price"):
    return json.dumps([{"name": name, "arguments": each} for each in arguments])


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        *[(text, True) for text in ("{}", " [1]\n", "1")],
        *[(text, False) for text in ("NaN", "```json\n{}\n```", "", "{} {}", '{"a": 1', "[" * 100_000)],
    ],
)
def test_json_is_all_of_the_answer(text, valid):
    assert json_valid("", text, "") is valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"day": "2026-11-28"}', True),
        ('{"day": "today"}', False),
        ("{}", False),
        ("today", False),
        ("", False),
    ],
)
def test_a_schema_is_followed_with_its_formats(text, valid):
    assert schema_valid("", text, "", SCHEMA) is valid


def test_a_schema_of_a_data_file_fetches_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        elsewhere = {"$ref": f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"}
        with pytest.raises(Exception, match="Unresolvable"):
            schema_valid("", "{}", "", elsewhere)
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    ("answer", "reference", "match"),
    [
        (calls({"a": 1, "b": [1, 2]}), '[{"arguments": {"b": [1, 2], "a": 1}, "name": "price"}]', True),
        (calls({"a": 1}, {"a": 2}), calls({"a": 2}, {"a": 1}), True),
        (calls({"a": 1}, {"a": 1}), calls({"a": 1}), False),
        (calls({"a": 1.0}), calls({"a": 1}), True),
        (calls({"a": True}), calls({"a": 1}), False),
        (calls({"a": "1"}), calls({"a": 1}), False),
        (calls({"a": 1}, name="stock"), calls({"a": 1}), False),
        (calls({"a": 1, "b": 2}), calls({"a": 1}), False),
        (json.dumps([{"function": {"name": "price", "arguments": '{"a": 1}'}}]), calls({"a": 1}), True),
        (WORDS, calls({"a": 1}), False),
        (WORDS, "Other words.", True),
        (calls({"a": 1}), WORDS, False),
        ("[]", WORDS, True),
        ('[{"name": "price", "arguments": "{\\"a\\": 1"}]', WORDS, False),  # cut off by max_tokens
        ('[{"name": "Ada"}]', WORDS, True),
        ("", calls({"a": 1}), False),
        ('[{"name": "price", "arguments": {"a": ', calls({"a": 1}), False),
    ],
)
def test_calls_match_by_name_and_arguments(answer, reference, match):
    assert tool_call_match("", answer, reference) is match


def called(part):
    function = {"name": "price", "arguments": json.dumps({"part": part})}
    return [{"id": "c1", "type": "function", "function": function}]


@pytest.fixture
def files(tmp_path):
    """Forty chats that end with a call; tuned calls right, base answers in words."""
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"What is the price of part {at}?"},
                {"role": "assistant", "content": None, "tool_calls": called(at)},
            ],
            "tools": TOOLS,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "array"}},
            },
        }
        for at in range(1, 41)
    ]
    write_jsonl(tmp_path / "test.jsonl", chats)
    write_jsonl(tmp_path / "base.jsonl", [{"line": at, "answer": WORDS} for at in range(1, 41)])
    write_jsonl(tmp_path / "tuned.jsonl", [{"line": at, "tool_calls": called(at)} for at in range(1, 41)])
    (tmp_path / "gate.toml").write_text(
        '[gate]\nprimary = "tool_call_match"\nrequired = []\nmin_rows = 30\n[limits]\nmin_declined = 0\n'
    )
    return tmp_path


def compare(files, *more):
    words = ["compare-answers", "--text-metrics", "none", "--out", str(files / "out")]
    for name, file in (("data", "test"), ("base", "base"), ("tuned", "tuned")):
        words += [f"--{name}", str(files / f"{file}.jsonl")]
    return main([*words, *more])


def test_tool_calls_are_compared_and_decide(files):
    metrics = [
        word for name in ("tool_call_match", "json_valid", "schema_valid") for word in ("--metric", name)
    ]
    assert compare(files, *metrics, "--gate", str(files / "gate.toml")) == 0
    report = json.loads((files / "out" / "report.json").read_text())
    assert (report["difference"], report["gate"]["primary"]) == (1.0, "tool_call_match")
    for name in ("tool_call_match", "json_valid", "schema_valid"):
        found = report["metrics"][name]
        assert (found["base"], found["tuned"], found["kind"]) == (0, 1, "binary")
        low, high = found["difference_ci"]
        assert 0.8 < low < high <= 1.0, "Newcombe's interval, as for exact match"
    assert "own metrics" not in report["lineage"]
    assert "(own metric)" not in (files / "out" / "report.md").read_text()
    assert main(["verdict", str(files / "out"), "--gate", str(files / "gate.toml")]) == 0


def test_a_schema_for_all_rows_comes_from_a_file(files, capsys):
    rows = [json.loads(line) for line in (files / "test.jsonl").read_text().splitlines()]
    write_jsonl(files / "test.jsonl", [{name: row[name] for name in ("messages", "tools")} for row in rows])
    assert compare(files, "--metric", "schema_valid") == 2
    assert "test.jsonl:1: response_format: missing" in capsys.readouterr().err
    (files / "schema.json").write_text('{"type": "string"}')
    assert compare(files, "--metric", "schema_valid", "--schema", str(files / "schema.json")) in (3, 4)
    report = json.loads((files / "out" / "report.json").read_text())
    assert report["metrics"]["schema_valid"]["tuned"] == 0
    assert report["lineage"]["schema"] == {"type": "string"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("{", "is not JSON"),
        ('{"type": "what"}', "is no JSON schema: $.type"),
        ("[]", "is no JSON schema"),
    ],
)
def test_a_bad_schema_is_named(files, capsys, content, words):
    if content is not None:
        (files / "schema.json").write_text(content)
    assert compare(files, "--metric", "schema_valid", "--schema", str(files / "schema.json")) == 2
    assert words in capsys.readouterr().err
    assert not (files / "out" / "report.json").exists()


def test_a_schema_without_its_metric_and_an_unknown_metric_are_refused(files, capsys):
    (files / "schema.json").write_text("{}")
    assert compare(files, "--schema", str(files / "schema.json")) == 2
    assert "--metric schema_valid" in capsys.readouterr().err
    assert compare(files, "--metric", "tool_calls_match") == 2
    assert "did you mean 'tool_call_match'" in capsys.readouterr().err


class Calls(JsonAnswers, BaseHTTPRequestHandler):
    """It calls the first tool that it is told of, with the number in the question."""

    def do_POST(self):
        body = self.asked()
        if "messages" not in body:
            self.answer(200, {"output": WORDS})
            return
        self.server.bodies.append(body)
        part = int(body["messages"][0]["content"].split()[-1].strip("?"))
        message = {"role": "assistant", "content": None, "tool_calls": called(part)}
        message = message if body.get("tools") else {"role": "assistant", "content": WORDS}
        self.answer(200, {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": None})


def test_chats_with_tools_are_asked_with_them(tmp_path):
    result = {"role": "tool", "tool_call_id": "c1", "content": "12"}
    asked = {"role": "user", "content": "What is the price of part 7?"}
    call = {"role": "assistant", "content": None, "tool_calls": called(7)}
    rows = [
        {"messages": [asked, call], "tools": TOOLS},
        {"messages": [asked, call, result, {"role": "assistant", "content": WORDS}], "tools": TOOLS},
        {"messages": [asked, {"role": "assistant", "content": WORDS}]},
    ]
    data = tmp_path / "test.jsonl"
    write_jsonl(data, rows)
    chats = chats_in(data, tools=True)
    with serving(Calls) as server:
        server.bodies = []
        url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
        at = {name: Endpoint(url, contract=name) for name in ("openai", "B")}
        found = run_direct(chats, at, timed_answer, tmp_path / "direct", data=data, workers=1)
    assert [one.answer for one in found["openai"]] == [calls({"part": 7}), calls({"part": 7}), WORDS]
    assert found["B"][0].error == "contract B carries no tools"
    sent = next(body["messages"] for body in server.bodies if len(body["messages"]) == 3)
    assert sent[1]["tool_calls"] == called(7) and sent[2]["tool_call_id"] == "c1"
    row = scored_rows(chats, found["openai"], found["openai"])[1]
    assert (row.messages[1]["content"], row.uses_tools) == (calls({"part": 7}), True)
    assert open_answers(tmp_path / "direct" / "openai.jsonl", chats).unchecked == 0
    with pytest.raises(BadInput, match=r"test\.jsonl:1: messages: uses tools, which the flows cannot ask"):
        chats_in(data)
