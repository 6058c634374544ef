"""The vLLM engine against a small server that speaks vLLM's completions: token ids in, a stream out."""

import asyncio
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy.scoring.engine import (
    Cancelled,
    ContextOverflow,
    EngineClosed,
    EngineFailed,
    GenerationRequest,
    Overloaded,
    TokenScore,
)
from deploy.scoring.engines.vllm_engine import VllmEngine
from phi3flow.core.errors import Phi3flowError
from training.models.tokenizer import train_tokenizer

KEY = "upstream-key-51c0ffee"
SECONDS = 10
STATUS, BREAK, ENDLESS = 1_000, 2_000, 3_000  # as a prompt's first token: what the upstream is to do


class Upstream(BaseHTTPRequestHandler):
    """Says each token of the prompt as a word, `max_tokens` of them."""

    def do_GET(self):
        allowed = self.headers["Authorization"] == f"Bearer {KEY}"
        body = json.dumps({"data": [{"id": "tuned", "max_model_len": 100}]}).encode()
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        first = asked["prompt"][0]
        if STATUS <= first < BREAK:
            self.send_response(first - STATUS)
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        if not asked.get("stream"):
            self.wfile.write(json.dumps(self._whole(asked)).encode())
            return
        words = [f" {token}" for token in asked["prompt"]][: asked["max_tokens"]]
        try:
            for count, word in enumerate(words if first != ENDLESS else iter(lambda: " more", None), 1):
                self._event(word, None, count)
            if first != BREAK:
                full = len(words) == asked["max_tokens"]
                self._event("", "length" if full else "stop", len(words))
                self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.left.set()

    def _whole(self, asked):
        """vLLM tells nothing of a prompt's first token."""
        scores = [
            {str(token): {"logprob": -float(token), "rank": token, "decoded_token": f" {token}"}}
            for token in asked["prompt"][1:]
        ]
        choice = {"index": 0, "text": " end", "finish_reason": "length", "prompt_logprobs": [None, *scores]}
        return {"choices": [choice], "usage": {"completion_tokens": 1}}

    def _event(self, text, reason, tokens):
        choice = {"index": 0, "text": text, "finish_reason": reason}
        event = {"choices": [choice], "usage": {"completion_tokens": tokens}}
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def upstream():
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        server.asked, server.left = [], threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server
        server.shutdown()


@contextmanager
def connected(server, tmp_path, **kwargs):
    tokenizer = train_tokenizer(["one two three"] * 3, 300, 100)
    engine = VllmEngine(f"http://127.0.0.1:{server.server_port}/v1", KEY, tmp_path, tokenizer, **kwargs)
    yield engine
    engine.close()


def ask(engine, request):
    async def answer():
        generation = engine.submit(request)
        async with asyncio.timeout(SECONDS):
            return await generation.text(), generation

    return asyncio.run(answer())


def test_token_ids_and_parameters_arrive_and_the_stream_comes_back(upstream, tmp_path):
    with connected(upstream, tmp_path) as engine:
        text, generation = ask(engine, GenerationRequest((7, 8, 9), 50, 0.5, 0.9, 3, ("x",)))
    [asked] = upstream.asked
    assert (text, generation.finish_reason, generation.completion_tokens) == (" 7 8 9", "stop", 3)
    assert (asked["prompt"], asked["model"], asked["stream"]) == ([7, 8, 9], "tuned", True)
    assert (asked["temperature"], asked["top_p"], asked["seed"], asked["stop"]) == (0.5, 0.9, 3, ["x"])
    assert asked["stop_token_ids"] == [3, 6]  # end of text and end of turn


def test_the_likelihood_of_a_prompt_is_the_upstreams(upstream, tmp_path):
    with connected(upstream, tmp_path) as engine:
        text, generation = ask(engine, GenerationRequest((7, 8, 9), 1, score_prompt=True))
    [asked] = upstream.asked
    assert (asked["prompt_logprobs"], asked["max_tokens"]) == (0, 1)
    assert (text, generation.finish_reason, generation.completion_tokens) == (" end", "length", 1)
    assert generation.prompt_scores == [TokenScore(8, " 8", -8.0, 8), TokenScore(9, " 9", -9.0, 9)]


def test_the_limits_are_kept(upstream, tmp_path):
    with connected(upstream, tmp_path, max_running=1) as engine:
        assert engine.context == 100
        text, generation = ask(engine, GenerationRequest((7, 8, 9), 2))
        assert (text, generation.finish_reason) == (" 7 8", "length")
        with pytest.raises(ContextOverflow):
            ask(engine, GenerationRequest((1,) * 100, 1))

        async def two():
            engine.submit(GenerationRequest((7,), 2))
            with pytest.raises(Overloaded):
                engine.submit(GenerationRequest((7,), 2))

        asyncio.run(two())


@pytest.mark.parametrize(
    ("first", "error"),
    [(STATUS + 429, Overloaded), (STATUS + 500, EngineFailed), (BREAK, EngineFailed)],
)
def test_what_the_upstream_refuses_or_breaks_off_is_never_an_answer(upstream, tmp_path, first, error):
    with connected(upstream, tmp_path) as engine:
        with pytest.raises(error):
            ask(engine, GenerationRequest((first,), 5))
        assert ask(engine, GenerationRequest((7,), 5))[0] == " 7"  # the others are served


def test_cancelling_frees_the_upstreams_slot_and_closing_tells_everybody(upstream, tmp_path):
    with connected(upstream, tmp_path) as engine:

        async def leave():
            generation = engine.submit(GenerationRequest((ENDLESS,), 5))
            await anext(generation.pieces())
            generation.cancel()
            with pytest.raises(Cancelled):
                await generation.text()
            assert await asyncio.to_thread(upstream.left.wait, SECONDS)
            assert engine.running == 0
            other = engine.submit(GenerationRequest((ENDLESS,), 5))
            await anext(other.pieces())
            engine.close()
            with pytest.raises(EngineClosed):
                await other.text()

        asyncio.run(leave())


def test_an_upstream_that_is_gone_is_a_dead_engine(upstream, tmp_path):
    failures = []
    with connected(upstream, tmp_path, on_failure=lambda: failures.append(1)) as engine:
        upstream.shutdown()
        upstream.server_close()
        with pytest.raises(EngineFailed):
            ask(engine, GenerationRequest((7,), 5))
        assert failures == [1]
        with (
            pytest.raises(Phi3flowError, match="no vLLM server answers"),
            connected(upstream, tmp_path),
        ):
            pass
