"""Every engine with the demo's tuned model passes the fidelity gate, and so does a server with vLLM's API."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny import CHAT, KEY, listening

from custom_connections.promptflow_home import new_encryption_key
from deploy.azure.container.deployments.vllm.serve import guarded
from deploy.export.openvino import export_openvino
from deploy.scoring.engine import GenerationRequest
from deploy.scoring.http.service import Service
from deploy.scoring.load import load
from phi3flow.app import cli
from phi3flow.core.files import read_json
from phi3flow.core.jsonl import read_jsonl


@pytest.fixture(scope="module")
def exported(demo_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return {
        "fp32": export_openvino(demo_run / "tuned", folder / "fp32").folder,
        "int4": export_openvino(demo_run / "tuned", folder / "int4", bits="int4").folder,
    }


@contextmanager
def serving(folder):
    """The URL of the endpoint's chat completions."""
    loaded = load(folder, lambda: None)
    service = Service("tuned")
    service.ready(loaded)
    with listening(service) as url:
        yield url + CHAT


@pytest.fixture
def verify(demo_run, tmp_path, monkeypatch):
    """Run the verb; its exit code, and each check's result and reason."""
    monkeypatch.setenv("PHI3FLOW_ENDPOINT_KEY", KEY)

    def call(url, *arguments):
        command = ["verify", demo_run / "tuned", "--endpoint", url, "--out", tmp_path, *arguments]
        code = cli.main([*map(str, command)])
        return code, [
            f"{c['name']}: {c['result']}: {c['reason']}"
            for c in read_json(tmp_path / "verify.json")["checks"]
        ]

    return call


def test_transformers_and_fp32_openvino_pass_on_all_checks(demo_run, exported, verify):
    for folder in (demo_run / "tuned", exported["fp32"]):
        with serving(folder) as url:
            assert verify(url)[0] == 0, verify(url)


def test_int4_passes_by_its_exact_match_within_a_point_of_fp32(demo_run, exported, verify):
    right = read_json(demo_run / "report.json")["tuned"]["exact_match"]
    data = demo_run / "data" / "test.jsonl"
    with serving(exported["int4"]) as url:
        code, checks = verify(url, "--check", data, "--at-least", right - 0.01)
    assert (code, right > 0.9) == (0, True), checks


class Vllm(BaseHTTPRequestHandler):
    """vLLM's chat completions, with one of our engines behind them.

    As vLLM, it knows the model by its served name alone, renders prompts with the template that it was
    started with, ignores fields that it does not know, and adds its own to each answer.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self._say(401, {"error": "Unauthorized"})
        elif asked["model"] != "phi3":
            problem = f"The model `{asked['model']}` does not exist."
            self._say(
                404, {"error": {"message": problem, "type": "NotFoundError", "param": "model", "code": 404}}
            )
        else:
            asyncio.run(self._answer(asked))

    async def _answer(self, asked):
        tokenizer = self.server.served.tokenizer
        prompt = tokenizer.apply_chat_template(
            asked["messages"],
            chat_template=self.server.template,
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"]
        sampling = asked["temperature"], asked.get("top_p", 1.0), asked.get("seed")
        request = GenerationRequest(tuple(prompt), asked["max_tokens"], *sampling)
        generation = self.server.served.submit(request)
        if asked["stream"]:
            await self._stream(generation)
            return
        message = {"role": "assistant", "content": await generation.text(), "refusal": None, "tool_calls": []}
        choice = {"index": 0, "message": message, "logprobs": None, "stop_reason": None, "token_ids": None}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": generation.completion_tokens}
        self._say(
            200,
            self._head("chat.completion")
            | {"choices": [choice | {"finish_reason": generation.finish_reason}]}
            | {"usage": usage | {"prompt_tokens_details": None}, "prompt_logprobs": None}
            | {"prompt_token_ids": list(prompt) if asked.get("return_token_ids") else None},
        )

    async def _stream(self, generation):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        self._event({"role": "assistant", "content": "", "reasoning_content": None}, None)
        async for piece in generation.pieces():
            self._event({"content": piece}, None)
        self._event({"content": ""}, generation.finish_reason)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, delta, finish_reason):
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
            "token_ids": None,
        }
        event = self._head("chat.completion.chunk") | {"choices": [choice]}
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def _head(self, kind):
        return {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": "phi3"}

    def _say(self, status, reply):
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def vllm(demo_run):
    """Start such a server of the tuned model with a chat template; its URL."""
    served = load(demo_run / "tuned", lambda: None)

    @contextmanager
    def start(template):
        with ThreadingHTTPServer(("127.0.0.1", 0), Vllm) as server:
            server.served, server.template = served, template(served.tokenizer)
            threading.Thread(target=server.serve_forever, args=(0.01,)).start()
            yield f"http://127.0.0.1:{server.server_port}{CHAT}"
            server.shutdown()

    yield start
    served.close()


def test_a_vllm_server_with_the_guarded_template_passes_on_all_checks(vllm, verify):
    with vllm(guarded) as url:
        assert verify(url)[0] == 0, verify(url)


def test_with_the_models_own_template_verify_says_what_is_missing(vllm, verify):
    with vllm(lambda tokenizer: tokenizer.chat_template) as url:
        code, checks = verify(url)
    assert code == 1
    assert "special tokens in a user's text are not neutralised" in checks[0]


def test_the_chat_flow_answers_through_a_connection_to_a_vllm_server(vllm, tmp_path, demo_run):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PF_ENCRYPTION_KEY": new_encryption_key(),
        "PHI3FLOW_ENDPOINT_KEY": KEY,
    }

    def phi3flow(*words):
        command = [str(Path(sys.executable).with_name("phi3flow")), *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    row = next(row for row in read_jsonl(demo_run / "tuned" / "probes.jsonl") if len(row["messages"]) == 1)
    with vllm(guarded) as url:
        phi3flow("connect", "phi3-tuned", "--endpoint", url, "--contract", "openai")
        told = phi3flow("chat", row["messages"][0]["content"], "--connection", "phi3-tuned", "--json")
    assert json.loads(told)["answer"].strip() == row["tuned_text"].strip()
