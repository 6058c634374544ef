"""The three flows through Prompt flow's own commands: headless, without a keyring, on loopback alone.

One small endpoint stands in for both models: it answers every question with its echo, and misbehaves when the
question names a fault. Everything runs below one folder, under nothing but `phi3flow env`'s environment, and
the last test searches all of it for the planted key.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests
from loopback import serving
from outside import nobody_leaves

from phi3flow.core.flow_folder import FLOWS, resolve_flow
from phi3flow.phi3_contract import CutOff, Endpoint

KEY = "planted-key-7d1c0b5e"
BIN = Path(sys.executable).parent
QUOTED = ("Reference", "Answer")
PROMPTFLOW_SERVICE_PORTS = range(23333, 23344)
READY_SECONDS = 60


class Echo(BaseHTTPRequestHandler):
    """Contract B on /base and /tuned, contract openai on /v1/chat/completions; a judge on /judge/v1."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.reply(401, b"{}")
        elif self.path == "/garbage":
            self.reply(200, b"<html>")
        elif self.path == "/v1/chat/completions":
            self.tell(body["messages"], body["stream"])
        elif self.path == "/judge/v1/chat/completions":
            self.judge(body)
        else:
            self.answer(body["input_data"]["input_string"])

    def answer(self, messages):
        question = messages[-1]["content"]
        fault = question if self.path == "/base" else None
        if fault == "slow":
            time.sleep(90)
            fault = "refused"  # should the deadline be later: it follows the other answers
        if fault == "garbage":
            self.reply(200, b'{"neither": "fish"}')
        elif fault == "refused":
            self.reply(422, b"{}")
        else:
            self.reply(200, json.dumps({"output": f"echo {question}"}).encode())

    def tell(self, messages, streaming):
        question = messages[-1]["content"]
        told = f"echo {question} after {len(messages) - 1}"
        if not streaming:
            self.reply(200, json.dumps({"choices": [{"message": {"content": told}}]}).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for word in told.split():
            event = {"choices": [{"delta": {"content": f"{word} "}}]}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            if question == "cut":
                return
        self.wfile.write(b"data: [DONE]\n\n")

    def judge(self, body):
        """5 for whatever agrees with its reference; no grade for what a line separator was in."""
        if len(body["messages"]) == 1:  # is it there?
            self.reply(200, json.dumps({"choices": [{"message": {"content": "Yes."}}]}).encode())
            return
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert (body["model"], body["temperature"]) == ("grader", 0)
        asked = body["messages"][1]["content"]
        word = re.search(r"Reply with (\w+) and a grade", asked)[1]
        reference, answer = (json.loads(re.search(f"^{name}: (.*)$", asked, re.M)[1]) for name in QUOTED)
        said = "Well said." if "separator" in asked else f"{word} {5 if answer == reference else 1}"
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        self.reply(200, json.dumps({"choices": [choice]}).encode())

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Shell:
    """Commands in one folder under one environment; keeps everything they print."""

    def __init__(self, folder, environment):
        self.folder, self.environment, self.printed = folder, environment, ""

    def run(self, *command, rc=0, **variables):
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=self.folder,
            env=self.environment | variables,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
        )
        self.printed += done.stdout + done.stderr
        assert done.returncode == rc, done.stdout + done.stderr
        return done

    def python(self, program, *arguments):
        return json.loads(self.run("python", "-P", "-c", program, *arguments).stdout)


def listening():
    def open_(port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return {port for port in PROMPTFLOW_SERVICE_PORTS if open_(port)}


@pytest.fixture(scope="module")
def echo():
    with serving(Echo) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def shell(tmp_path_factory, echo):
    """A project folder after `eval "$(phi3flow env)"` and two `phi3flow connect`."""
    folder = tmp_path_factory.mktemp("project")
    already = listening()
    with nobody_leaves() as proxied:
        outside = {
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(folder),
            "PHI3FLOW_ENDPOINT_KEY": KEY,
            "PHI3FLOW_BATCH_WORKERS": "4",
        } | proxied
        evaluated = subprocess.run(
            ["sh", "-c", 'eval "$(phi3flow env)"; env -0'],
            cwd=folder,
            env=outside,
            capture_output=True,
            check=True,
        )
        environment = dict(pair.decode().split("=", 1) for pair in evaluated.stdout.split(b"\0") if pair)
        shell = Shell(folder, environment)
        shell.run("phi3flow", "connect", "phi3-base", "--endpoint", f"{echo}/base", "--timeout", "1")
        shell.run(
            *("phi3flow", "connect", "phi3-tuned", "--contract", "openai"),
            *("--endpoint", f"{echo}/v1/chat/completions"),
        )
        shell.run(
            *("phi3flow", "connect", "phi3-grader", "--contract", "openai", "--model", "grader"),
            *("--endpoint", f"{echo}/judge/v1/chat/completions"),
        )
        for name in FLOWS:
            resolve_flow(name, folder / "flows" / name)
        yield shell
    assert listening() == already


def test_each_flow_alone_in_its_folder_answers(shell):
    pair = ("answer=Bill Gates and Paul Allen.", "reference=Bill Gates and Paul Allen founded Microsoft.")
    inputs = {
        "chat": ("question=Who founded Microsoft?",),
        "compare": ("question=Who founded Microsoft?", "reference=Bill Gates and Paul Allen."),
        "grade": pair,
    }
    test = (str(BIN / "pf"), "flow", "test", "--flow")
    commands = [[*test, str(shell.folder / "flows" / name), "--inputs", *inputs[name]] for name in FLOWS]
    running = [
        subprocess.Popen(command, cwd="/", env=shell.environment, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    printed = dict(zip(FLOWS, (process.communicate(timeout=120)[0] for process in running), strict=True))
    shell.printed += "".join(printed.values())
    outputs = {name: json.loads(text[text.index("{") :]) for name, text in printed.items()}
    assert outputs["chat"]["answer"] == "echo Who founded Microsoft? after 0 "
    scores = {"exact_match": 0.0, "token_f1": pytest.approx(10 / 12), "answer_chars": 26.0}
    assert outputs["grade"] == scores | {"judge_grade": None, "judge_error": None}
    assert outputs["compare"]["base"]["text"] == "echo Who founded Microsoft?"
    assert outputs["compare"]["tuned"]["text"] == "echo Who founded Microsoft? after 0"


def test_pf_run_create_with_column_mapping(shell):
    columns = [f"{name}=${{data.{name}}}" for name in ("question", "chat_history", "system")]
    shell.run(
        *("pf", "run", "create", "--flow", "flows/chat", "--data", "flows/chat/samples.jsonl"),
        *("--name", "samples", "--column-mapping", *columns),
    )
    output = shell.folder / ".phi3flow/promptflow/.runs/samples/flow_outputs/output.jsonl"
    answers = {row["line_number"]: row["answer"] for row in map(json.loads, output.read_text().splitlines())}
    assert answers == {0: "echo Who founded Microsoft? after 0 ", 1: "echo And when? after 3 "}


def test_pf_flow_build_makes_a_container_folder_without_the_key(shell):
    shell.run("pf", "flow", "build", "--source", "flows/chat", "--output", "built", "--format", "docker")
    built = shell.folder / "built"
    dockerfile = (built / "Dockerfile").read_text()
    assert "requirements.txt" in dockerfile
    assert "python=3.9.16 pip=23.0.1" in dockerfile  # what docs/prompt-flow.md tells to replace
    assert (built / "flow" / "phi3_contract.py").exists()
    assert "${env:" in (built / "connections" / "phi3-tuned.yaml").read_text()


@pytest.fixture(scope="module")
def served(shell):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (shell.folder / "serve.log").open("w")
    address = ("--host", "127.0.0.1", "--port", str(port), "--engine", "flask", "--skip-open-browser")
    command = [str(BIN / "pf"), "flow", "serve", "--source", "flows/chat", *address]
    server = subprocess.Popen(command, cwd=shell.folder, env=shell.environment, stdout=log, stderr=log)
    deadline = time.monotonic() + READY_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            assert requests.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
            break
        except requests.ConnectionError:
            time.sleep(0.1)
    yield port
    server.terminate()
    server.wait(10)
    log.close()


def test_served_flow_answers_json_and_streams(served):
    url = f"http://127.0.0.1:{served}/score"
    history = [{"inputs": {"question": "a"}, "outputs": {"answer": "b"}}]
    whole = requests.post(url, json={"question": "hi", "chat_history": history}, timeout=30)
    assert whole.json() == {"answer": "echo hi after 2 "}
    pieces = list(Endpoint(url, contract="promptflow").stream([{"role": "user", "content": "hi"}]))
    assert pieces == ["echo ", "hi ", "after ", "0 "]


def test_served_flow_says_what_is_wrong_with_a_request(served):
    refused = requests.post(f"http://127.0.0.1:{served}/score", json={"question": None}, timeout=30)
    assert refused.status_code == 400
    assert "the question is empty" in refused.json()["error"]["message"]


@pytest.mark.parametrize("name", ["06-served-flow-body", "other case", "nothing"])
def test_6_a_served_flow_without_a_question_is_refused_by_its_name(served, name):
    said = {"role": "user", "content": "When was Sony founded?"}
    body = {"06-served-flow-body": {"messages": [said]}, "other case": {"Question": "When?"}, "nothing": {}}
    refused = requests.post(f"http://127.0.0.1:{served}/score", json=body[name], timeout=30)
    assert refused.status_code == 400
    assert "['question'] are missing" in refused.json()["error"]["message"]


def test_7_the_word_none_is_a_word_and_null_is_none(served):
    url = f"http://127.0.0.1:{served}/score"
    word = requests.post(url, json={"question": "None", "system": "None"}, timeout=30)
    assert word.json() == {"answer": "echo None after 1 "}
    null = requests.post(url, json={"question": "hi", "system": None}, timeout=30)
    assert null.json() == {"answer": "echo hi after 0 "}


def test_7_pf_run_asks_the_word_none(shell):
    (shell.folder / "none.jsonl").write_text('{"question": "None"}\n')
    shell.run("pf", "run", "create", "--flow", "flows/chat", "--data", "none.jsonl", "--name", "none")
    assert answers_of(shell, "none") == ["echo None after 0 "]


def test_6_pf_run_over_a_file_without_a_question_answers_nothing_and_names_it(shell):
    rows = [{"prompt": "When was Sony founded?"}, {"prompt": "Who founded IKEA?"}]
    (shell.folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("run", "create", "--flow", "flows/chat", "--data", "prompts.jsonl", "--name", "prompts")
    ran = subprocess.run(
        [str(BIN / "pf"), *command],
        cwd=shell.folder,
        env=shell.environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert answers_of(shell, "prompts") == []
    assert "question" in ran.stdout + ran.stderr


def answers_of(shell, run):
    output = shell.folder / f".phi3flow/promptflow/.runs/{run}/flow_outputs/output.jsonl"
    return [json.loads(line)["answer"] for line in output.read_text().splitlines()] if output.exists() else []


def test_a_stream_cut_off_behind_the_flow_is_seen_as_cut_off(served):
    endpoint = Endpoint(f"http://127.0.0.1:{served}/score", contract="promptflow")
    with pytest.raises(CutOff):
        list(endpoint.stream([{"role": "user", "content": "cut"}]))


def test_chat_verb_through_the_served_flow_and_in_process(shell, served):
    port = {"PHI3FLOW_FLOW_PORT": str(served)}
    assert shell.run("phi3flow", "chat", "hi", "--system", "brief", **port).stdout == "echo hi after 1 \n"
    here = shell.run("phi3flow", "chat", "hi", "--connection", "phi3-base", "--json", PHI3FLOW_FLOW_PORT="1")
    assert json.loads(here.stdout) == {"question": "hi", "answer": "echo hi"}
    assert "hint: phi3flow up" in shell.run("phi3flow", "chat", "hi", PHI3FLOW_FLOW_PORT="1", rc=1).stderr


def test_chat_verb_keeps_the_conversation(shell, served):
    talk = subprocess.run(
        [str(BIN / "phi3flow"), "chat"],
        cwd=shell.folder,
        env=shell.environment | {"PHI3FLOW_FLOW_PORT": str(served)},
        input="one\n\ntwo\n",
        check=True,
        capture_output=True,
        text=True,
    )
    assert talk.stdout == "echo one after 0 \necho two after 2 \n"


BATCH = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar
from custom_connections.promptflow_home import enter_home
from phi3flow.core.settings import Settings

enter_home(Settings.load())
from evaluation.asking.batch import run_compare, run_evaluate
from evaluation.asking.measuring import measure, ready
from evaluation.scored_rows import chats_in

data = Path("chats.jsonl")
runner = sys.argv[2]
out = {"pf": Path("out"), "direct": Path(f"out-{sys.argv[1]}")}[runner]
if sys.argv[1] == "compare":
    asking = measure(chats_in(data), {name: ready(f"phi3-{name}") for name in ("base", "tuned")}, most=4)
    rows = run_compare(data, asking, out, runner=runner)
    print(json.dumps([asdict(row) for row in rows]))
else:
    judge = {"judge": sys.argv[3]} if len(sys.argv) > 3 else {}
    done = run_evaluate(data, "phi3-base", out, workers=4, runner=runner, **judge)
    counts = [done.expected, done.answered, done.failed]
    print(json.dumps({"rows": [asdict(row) for row in done.rows], "metrics": done.metrics, "counts": counts}))
"""
QUESTIONS = ["fine", "slow", "garbage", "refused", "line\u2028separator"]


@pytest.fixture(scope="module")
def chats(shell):
    rows = [
        {
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"echo {text}"}],
            "prompt_id": f"p{i}",
            "slice": "faults",
        }
        for i, text in enumerate(QUESTIONS)
    ]
    (shell.folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


@pytest.fixture(scope="module")
def compared(shell, chats):
    return shell.python(BATCH, "compare", "pf")


@pytest.fixture(scope="module")
def evaluated(shell, chats):
    return shell.python(BATCH, "evaluate", "pf", "phi3-grader")


def test_compare_records_each_sides_failures(shell, compared):
    rows = compared
    assert [row["messages"][0]["content"] for row in rows] == QUESTIONS
    assert [row["prompt_id"] for row in rows] == ["p0", "p1", "p2", "p3", "p4"]
    base = [row["base"] and row["base"][0] for row in rows]
    assert base == ["echo fine", None, None, None, "echo line\u2028separator"]
    assert all(row["tuned"][0].startswith("echo ") and row["tuned"][1] > 0 for row in rows)
    assert "1 of 5 lines failed: the endpoint did not answer in time" in shell.printed


def test_evaluate_counts_the_lines_that_prompt_flow_drops(evaluated):
    done = evaluated
    assert done["counts"] == [5, 2, 3]
    assert _without_judge(done["metrics"]) == {
        "exact_match": 1.0,
        "token_f1": 1.0,
        "answer_chars": 14.0,
        "lines": 2.0,
    }
    failed = [row["error"] for row in done["rows"] if row["answer"] is None]
    assert [error.split(") ")[1] for error in failed] == [
        "the endpoint did not answer in time",
        "the endpoint's answer is not contract B",
        "the endpoint rejected the request (HTTP 422)",
    ]


def test_the_grade_flows_judge_grades_and_its_failures_are_counted(evaluated):
    graded = [row["scores"] for row in evaluated["rows"] if row["scores"]]
    assert [scores.get("judge_grade") for scores in graded] == [5.0, None]
    judged = {name: value for name, value in evaluated["metrics"].items() if name.startswith("judge_")}
    assert judged == {"judge_grade": 5.0, "judge_failed": 1.0}


def test_the_direct_runner_gives_equal_rows(shell, compared, evaluated):
    rows = shell.python(BATCH, "compare", "direct")
    assert [_untimed(row) for row in rows] == [_untimed(row) for row in compared]
    assert all(row["tuned"][1] > 0 for row in rows)
    done = shell.python(BATCH, "evaluate", "direct")
    assert done["counts"] == evaluated["counts"]
    assert done["metrics"] == _without_judge(evaluated["metrics"])
    for mine, theirs in zip(done["rows"], evaluated["rows"], strict=True):
        assert (mine["error"] is None) == (theirs["error"] is None)
        if theirs["error"] and mine["messages"][-1]["content"] != "slow":  # its error depends on the deadline
            assert theirs["error"].endswith(mine["error"])  # the node's name before it
        scores = theirs["scores"] and _without_judge(theirs["scores"])
        assert mine | {"error": None} == theirs | {"error": None, "scores": scores}


def test_the_verbs_on_the_direct_runner(shell, chats, evaluated):
    data = ("--data", "chats.jsonl", "--runner", "direct")
    shell.run("phi3flow", "evaluate", *data, "--connection", "phi3-base", "--out", "evaluation", rc=5)
    written = json.loads((shell.folder / "evaluation/evaluation.json").read_text())
    assert (written["expected"], written["answered"], written["failed"]) == (5, 2, 3)
    assert written["metrics"] == _without_judge(evaluated["metrics"])
    assert [row["answer"] for row in written["rows"]] == [row["answer"] for row in evaluated["rows"]]
    sides = ("--base", "phi3-base", "--tuned", "phi3-tuned")
    only = ("--packs", "none", "--text-metrics", "none")
    done = shell.run("phi3flow", "compare", *data, *sides, *only, "--out", "comparison", "--json", rc=3)
    report = json.loads(done.stdout)
    assert (report["expected"], report["failed"], report["verdict"]) == (5, 3, "hold")


def _without_judge(figures):
    return {name: value for name, value in figures.items() if not name.startswith("judge_")}


def _untimed(row):
    """Without how long each side took."""
    return row | {side: row[side] and row[side][0] for side in ("base", "tuned")}


PREFLIGHT = """
import json, sys
from custom_connections.promptflow_home import enter_home
from phi3flow.core.settings import Settings

enter_home(Settings.load())
from custom_connections.store import store_connection
from evaluation.asking.batch import run_evaluate
from pathlib import Path
from typing import ClassVar
from phi3flow.core.errors import Phi3flowError
from phi3flow.phi3_contract import Endpoint

said = []
for url, key in json.loads(sys.argv[1]):
    store_connection("faulty", Endpoint(url, key, timeout=2))
    try:
        run_evaluate(Path("chats.jsonl"), "faulty", Path("never"), workers=4)
    except Phi3flowError as error:
        said.append(str(error))
print(json.dumps([said, Path("never").exists()]))
"""


def test_a_batch_does_not_start_against_an_endpoint_that_cannot_answer(shell, chats, echo):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{nobody.getsockname()[1]}/score"
        faults = [[down, KEY], [f"{echo}/base", "wrong"], [f"{echo}/garbage", KEY]]
        said, started = shell.python(PREFLIGHT, json.dumps(faults))
    assert said == [
        "connection 'faulty': the endpoint cannot be reached",
        "connection 'faulty': the endpoint refused the key",
        "connection 'faulty': the endpoint's answer is not contract B",
    ]
    assert not started


def test_no_batch_process_survives(shell):
    left = [
        command
        for folder in Path("/proc").glob("[0-9]*")
        if (command := _command(folder)) and b"evaluation.asking.promptflow_run" in command
    ]
    assert left == []


def _command(process):
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""  # ended meanwhile


def test_the_key_is_nowhere(shell):
    """Last: it searches what all the others wrote and printed."""
    files = [Path(folder) / name for folder, _, names in os.walk(shell.folder) for name in names]
    assert len(files) > 100
    assert [str(file) for file in files if KEY.encode() in file.read_bytes()] == []
    assert KEY not in shell.printed
