"""score.py under Azure ML's real inference server, and under the emulator's stand-in for it.

The real one is slow, with the packages of conda.yaml alone: `make azureml-server` installs it, and without it
those tests are skipped. Every push asks the stand-in, by the same tests where they do not strain the server.
"""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import psutil
import pytest
import requests
import torch
import yaml
from azure_emulator.endpoints.serving import SCORING_SERVER
from tiny import CONTEXT, SECONDS, generated, lively_model, new_tokenizer, saved, user

from deploy.export.openvino import export_openvino
from phi3flow.chats.chat_template import encode_prompt
from phi3flow.core.service_stack import Service, Stack
from phi3flow.phi3_contract import Endpoint, Sampling

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "azure" / "container" / "score.py"
SERVER = ROOT / ".venv-azureml" / "bin" / "azmlinfsrv"
OPTIONS = ("--entry_script", str(SCRIPT), "--port")
COMMANDS = {
    "stand-in": (sys.executable, "-P", str(SCORING_SERVER), str(SCRIPT)),
    "azmlinfsrv": (str(SERVER), *OPTIONS),
}
REAL = [pytest.mark.slow, pytest.mark.skipif(not SERVER.exists(), reason="make azureml-server")]
FILES = ROOT / "deploy" / "azure" / "container" / "deployments"
TOKENS, READY_SECONDS = 9, 3 * SECONDS  # torch loads slowly where the cores are taken
HELLO = user("Who founded the fox?")
QUESTIONS = [
    "one two three",
    "The quick brown fox",
    "Who?",
    "four five",
    "founded it",
    "lazy dog",
    "東京 🙂",
    "jumps",
]
in_azures_server = pytest.mark.parametrize("server", [pytest.param("azmlinfsrv", marks=REAL)], indirect=True)


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return lively_model(tokenizer, hidden_size=64)


@contextmanager
def azure_server(mount, work, *command):
    """`command` with a port: score.py with the deployment file's variables. URL, process and log."""
    variables = yaml.safe_load((FILES / "deployment-cpu.yaml").read_text())["environment_variables"]
    variables |= {"AZUREML_MODEL_DIR": str(mount), "AML_APP_ROOT": str(work), "OMP_NUM_THREADS": "1"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = Service("server", [*command, str(port)], port, "/", "endpoint_port", work / "log", variables)
    with contextlib.chdir(work), Stack(service, ready_seconds=READY_SECONDS) as stack:  # no file by chance
        yield f"http://127.0.0.1:{port}/score", psutil.Process(stack.pids["server"]), work / "log"


@pytest.fixture(scope="module")
def made(model, tokenizer, tmp_path_factory):
    return saved(model, tokenizer, tmp_path_factory.mktemp("made") / "tuned")


# Azure's server first, as in `in_azures_server`: pytest keeps the order of tests whose parameter has the same
# place, and the last of them ends the server.
@pytest.fixture(scope="module", params=[pytest.param("azmlinfsrv", marks=REAL), "stand-in"])
def server(request, made, tmp_path_factory):
    """The model, for Azure's server exported, which lies below its registered version."""
    work = tmp_path_factory.mktemp("azure")
    folder = work / "mount" / "1" / "tuned"
    if request.param == "azmlinfsrv":
        export_openvino(made, folder)
    else:
        shutil.copytree(made, folder)
    with azure_server(work / "mount", work, *COMMANDS[request.param]) as started:
        yield started


@pytest.fixture(scope="module")
def url(server):
    return server[0]


def post(url, **body):
    return requests.post(url, json=body, timeout=SECONDS)


def test_every_contract_gives_the_models_own_answer(url, model, tokenizer):
    prompt = encode_prompt(tokenizer, HELLO)
    expected = generated(model, tokenizer, prompt, TOKENS)
    for contract in ("A", "B", "openai"):
        endpoint = Endpoint(url, "any", contract, timeout=SECONDS)
        assert endpoint.complete(HELLO, Sampling(max_tokens=TOKENS)) == expected
    chat = post(url, messages=HELLO, max_tokens=TOKENS, return_token_ids=True)
    assert chat.json()["prompt_token_ids"] == prompt


def test_a_stream_comes_in_pieces_and_says_that_it_is_complete(url, model, tokenizer):
    body = {"messages": HELLO, "max_tokens": TOKENS, "stream": True}
    with requests.post(url, json=body, stream=True, timeout=SECONDS) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line[6:] for line in answer.iter_lines() if line]
    assert events[-1] == b"[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(pieces) == generated(model, tokenizer, encode_prompt(tokenizer, HELLO), TOKENS)


def test_errors_are_the_endpoints_own(url):
    bad = post(url, messages=HELLO, temperature=9)
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "temperature")
    bad = post(url, input_data=["Who?", " "])
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "input_data[1]")
    overflow = post(url, input_data=["one two three four five " * CONTEXT])
    assert (overflow.status_code, overflow.json()["error"]["code"]) in [
        (413, None),
        (400, "context_length_exceeded"),
    ]
    assert requests.post(url, data=b"{no", timeout=SECONDS).status_code == 400
    assert requests.post(url, data=b"x" * (2 << 20), timeout=SECONDS).status_code == 413
    assert requests.get(url, timeout=SECONDS).status_code == 405


def test_a_request_keeps_its_id_and_the_server_adds_its_header(url):
    answer = requests.post(url, json={}, headers={"x-request-id": "mine-7"}, timeout=SECONDS)
    assert answer.headers["x-request-id"] == "mine-7"
    assert answer.headers["x-ms-run-function-failed"] == "False"


def test_the_stand_in_refuses_a_script_that_the_package_would_call_in_another_way(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text("def init(): ...\ndef run(data): ...\n")
    command = [sys.executable, "-P", str(SCORING_SERVER), str(script), "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode != 0 and "needs the package's @rawhttp" in ended.stderr


@in_azures_server
def test_streams_run_side_by_side_and_a_client_that_leaves_frees_its_slot(url, model, tokenizer):
    body = {"messages": HELLO, "max_tokens": CONTEXT // 2, "stream": True}
    for _ in range(3):  # more in all than one batch and its queue would hold for the answers' whole length
        with ExitStack() as open_streams:
            readers = []
            for _ in range(24):
                stream = requests.post(url, json=body, stream=True, timeout=SECONDS)
                open_streams.enter_context(stream)
                assert stream.status_code == 200, stream.text
                readers.append(stream.iter_lines())
                assert next(readers[-1])
            for lines in readers:  # none has ended while the others were opened
                assert len(list(islice(lines, 100))) == 100
    began = time.monotonic()
    assert post(url, messages=HELLO, max_tokens=TOKENS).status_code == 200
    assert time.monotonic() - began < SECONDS / 4


@in_azures_server
def test_concurrent_requests_get_each_its_own_answer(url, model, tokenizer):
    def ask(question):
        return post(url, input_data=[question], params={"max_new_tokens": TOKENS}).json()

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, QUESTIONS * 8))
    expected = [[generated(model, tokenizer, encode_prompt(tokenizer, user(q)), TOKENS)] for q in QUESTIONS]
    assert found == expected * 8


@in_azures_server
def test_a_worker_whose_engine_died_is_replaced(server):
    url, process, _ = server
    [engine] = [p for p in process.children(recursive=True) if "openvino_worker" in " ".join(p.cmdline())]
    engine.kill()
    deadline = time.monotonic() + SECONDS
    statuses = []
    while 200 not in statuses and time.monotonic() < deadline:
        try:
            statuses.append(post(url, messages=HELLO, max_tokens=TOKENS).status_code)
        except requests.ConnectionError:
            time.sleep(0.1)
    assert statuses[-1] == 200
    assert deadline - time.monotonic() > SECONDS / 2  # no grace for a crashed engine
    assert set(statuses[:-1]) <= {500, 503}


@in_azures_server
def test_it_logs_no_text_and_ends_with_its_engine_when_it_is_told_to(server):
    _, process, log = server
    family = process.children(recursive=True)
    assert any("openvino_worker" in " ".join(one.cmdline()) for one in family)
    process.send_signal(signal.SIGTERM)
    gone, alive = psutil.wait_procs([process, *family], timeout=SECONDS / 3)
    assert not alive
    assert process in gone
    assert "founded" not in log.read_text()


@pytest.mark.slow
@REAL[1]
def test_a_model_that_was_not_exported_is_served_where_torch_is(made, model, tokenizer, tmp_path):
    """torch comes from this environment, after the server's own packages."""
    borrowing = (
        f"import sys; sys.path.append({str(Path(torch.__file__).parents[1])!r}); "
        "from azureml_inference_server_http.amlserver import run; run()"
    )
    python = str(SERVER.with_name("python"))
    with azure_server(made.parent, tmp_path, python, "-c", borrowing, *OPTIONS) as (url, process, _):
        found = post(url, input_data=["Who?"], params={"max_new_tokens": TOKENS}).json()
        assert found == [generated(model, tokenizer, encode_prompt(tokenizer, user("Who?")), TOKENS)]
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS / 3)  # its engine's thread does not hold it up
