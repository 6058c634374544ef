"""Every engine with the demo's tuned model passes the fidelity gate."""

import asyncio
import json
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny import CHAT, KEY, listening

from deploy.export.openvino import export_openvino
from deploy.scoring.engine import GenerationRequest
from deploy.scoring.http.service import Service
from deploy.scoring.load import EngineChoice, load
from phi3flow.app import cli
from phi3flow.core.files import read_json


@pytest.fixture(scope="module")
def exported(demo_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return {
        "fp32": export_openvino(demo_run / "tuned", folder / "fp32", int4=False).folder,
        "int4": export_openvino(demo_run / "tuned", folder / "int4", int4=True).folder,
    }


@contextmanager
def serving(folder, choice):
    """The endpoint's URL, and what it serves."""
    loaded = load(folder, choice, lambda: None)
    service = Service("tuned")
    service.ready(loaded)
    with listening(service) as url:
        yield url + CHAT, loaded


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


def test_transformers_and_fp32_openvino_pass_on_all_six(demo_run, exported, verify):
    for folder in (demo_run / "tuned", exported["fp32"]):
        with serving(folder, EngineChoice()) as (url, _):
            assert verify(url)[0] == 0, verify(url)


def test_int4_passes_by_its_exact_match_within_a_point_of_fp32(demo_run, exported, verify):
    right = read_json(demo_run / "report.json")["tuned"]["exact_match"]
    data = demo_run / "data" / "test.jsonl"
    with serving(exported["int4"], EngineChoice()) as (url, _):
        code, checks = verify(url, "--data", data, "--exact-match", right)
    assert (code, right > 0.9) == (0, True), checks


class Upstream(BaseHTTPRequestHandler):
    """vLLM's completions, token ids in and a stream out, by another engine with the same model."""

    def do_GET(self):
        self._say(json.dumps({"data": [{"id": "tuned", "max_model_len": self.server.engine.context}]}))

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = GenerationRequest(
            tuple(asked["prompt"]),
            asked["max_tokens"],
            asked["temperature"],
            asked["top_p"],
            asked.get("seed"),
        )
        asyncio.run(self._stream(request))

    async def _stream(self, request):
        generation = self.server.engine.submit(request)
        events = [self._event(piece, None, generation) async for piece in generation.pieces()]
        self._say(
            "".join([*events, self._event("", generation.finish_reason, generation), "data: [DONE]\n\n"])
        )

    def _event(self, text, reason, generation):
        choice = {"index": 0, "text": text, "finish_reason": reason}
        event = {"choices": [choice], "usage": {"completion_tokens": generation.completion_tokens}}
        return f"data: {json.dumps(event)}\n\n"

    def _say(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def test_vllm_passes_on_all_six_with_what_its_upstream_answers(demo_run, verify):
    with ExitStack() as stack:
        _, behind = stack.enter_context(serving(demo_run / "tuned", EngineChoice("transformers")))
        upstream = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Upstream))
        upstream.engine = behind.engine
        threading.Thread(target=upstream.serve_forever, args=(0.01,)).start()
        stack.callback(upstream.shutdown)
        choice = EngineChoice("vllm", f"http://127.0.0.1:{upstream.server_port}/v1")
        url, _ = stack.enter_context(serving(demo_run / "tuned", choice))
        assert verify(url)[0] == 0, verify(url)
