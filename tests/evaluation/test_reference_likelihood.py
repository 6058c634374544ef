"""Log-likelihoods of references, from small real endpoints that speak vLLM's `prompt_logprobs`."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evaluation.metrics.likelihood import reference_likelihoods, score_reference
from evaluation.report.comparison import compare_rows
from evaluation.report.render import render_html, summary_table
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.verdict.gate import load_gate
from phi3flow.phi3_contract import Endpoint, EndpointError, Garbled, Unsupported

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}]
REFERENCE = "It is in Paris."
MARKS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")


def words_of(messages, *, generating):
    """Phi-3's template, split at spaces; the text after the last `<|end|>` bears no meaning for an answer."""
    words = []
    for message in messages:
        words += [f"<|{message['role']}|>", *message["content"].split(), "<|end|>"]
    return [*words, "<|assistant|>" if generating else "<|endoftext|>"]


def token_of(word):
    return MARKS.index(word) if word in MARKS else 10 + sum(map(ord, word))


class Model(BaseHTTPRequestHandler):
    """Its path says what it does: `/NATS/v1...` gives every word but marks -NATS, an `<|end|>` -0.5."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = self.path.split("/")[1]
        scored = "prompt_logprobs" in body
        asked = body["messages"][-2 if scored else -1]["content"]
        if (kind == "cannot" and scored) or asked == "fail":
            return self.reply(400, {"error": {"message": "prompt_logprobs: not with this engine"}})
        words = words_of(body["messages"], generating=body.get("add_generation_prompt", True))
        if kind == "other":
            words = [piece for word in words for piece in ([word] if word in MARKS else word)]
        if kind == "merges" and scored:
            words[1] += "x"
        reply = {
            "choices": [{"message": {"role": "assistant", "content": "It"}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": len(words), "completion_tokens": 1},
        }
        if body.get("return_token_ids"):
            reply["prompt_token_ids"] = [token_of(word) for word in words]
        if scored and kind != "ignores":
            assert (body["prompt_logprobs"], body["max_tokens"]) == (0, 1)
            nats = float(kind) if kind.replace(".", "").isdigit() else 1.0
            entries = [
                {str(token_of(word)): {"logprob": self.logprob(word, nats), "rank": 1, "decoded_token": word}}
                for word in words
            ]
            reply["prompt_logprobs"] = [None, *entries[1:]]
        return self.reply(200, reply)

    def logprob(self, word, nats):
        return -100.0 if word in MARKS and word != "<|end|>" else -0.5 if word in MARKS else -nats

    def reply(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def at():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()

    def endpoint(kind):
        url = f"http://127.0.0.1:{server.server_address[1]}/{kind}/v1/chat/completions"
        return Endpoint(url, "key", "openai")

    yield endpoint
    server.shutdown()
    server.server_close()


def rows(n, *, failing=()):
    return [
        ScoredRow(
            i + 1,
            None,
            None,
            [{"role": "user", "content": "fail" if i in failing else f"Where is {i}?"}],
            REFERENCE if i % 2 else f"{REFERENCE} For sure.",
            Answer("It is in Rome.", None),
            Answer("It is in Oslo.", None),
        )
        for i in range(n)
    ]


def test_only_the_references_tokens_and_its_end_count(at):
    tokens = score_reference(at("3"), PROMPT, REFERENCE)
    assert [token.text for token in tokens] == ["It", "is", "in", "Paris.", "<|end|>"]
    assert [token.logprob for token in tokens] == [-3.0] * 4 + [-0.5]


@pytest.mark.parametrize(
    ("kind", "error", "why"),
    [
        ("cannot", Unsupported, "returns no log-likelihoods: the endpoint rejected the request (HTTP 400)"),
        ("ignores", Unsupported, "returns no log-likelihoods"),
        ("merges", Garbled, "the prompt is tokenized differently"),
    ],
)
def test_what_cannot_be_told_is_an_error_that_says_so(at, kind, error, why):
    with pytest.raises(error) as caught:
        score_reference(at(kind), PROMPT, REFERENCE)
    assert why in str(caught.value)


def test_other_contracts_carry_none(at):
    with pytest.raises(EndpointError, match="contract B carries no log-likelihoods"):
        score_reference(Endpoint(at("3").url, "key"), PROMPT, REFERENCE)


def test_the_metric_stands_in_the_report_with_its_interval(at, capsys):
    made = rows(40, failing=(3, 7))
    measured = reference_likelihoods(made, at("3"), at("1"), workers=4)
    assert measured.unavailable == {}
    assert "2 of 40 references failed" in capsys.readouterr().err
    report = compare_rows(made, load_gate(), measured=[measured])
    metric = report.metrics["log_likelihood"]
    words = [6 if i % 2 == 0 else 4 for i in range(40) if i not in (3, 7)]
    assert metric.n == 38
    assert metric.base == pytest.approx(sum((-3 * n - 0.5) / (n + 1) for n in words) / 38)
    assert metric.tuned == pytest.approx(sum((-1 * n - 0.5) / (n + 1) for n in words) / 38)
    assert metric.difference_ci.low < metric.difference < metric.difference_ci.high
    assert metric.difference > 1.5
    assert "Log-likelihood of the reference (nats per token)" in summary_table(report)
    assert report.metrics["exact_match"].n == 40


def test_long_files_are_sampled_evenly(at):
    column = reference_likelihoods(rows(600), at("3"), at("3"), workers=8).columns["log_likelihood"]
    measured = [i for i in range(600) if column.measured[i]]
    assert measured == list(range(0, 600, 3))


@pytest.mark.parametrize(
    ("base", "tuned", "why"),
    [
        ("cannot", "3", "base: the endpoint returns no log-likelihoods"),
        ("3", "ignores", "tuned: the endpoint returns no log-likelihoods"),
        ("3", "other", "the two models tokenize the reference differently"),
    ],
)
def test_what_an_endpoint_does_not_tell_is_said_and_fails_nothing(at, base, tuned, why):
    made = rows(5)
    measured = reference_likelihoods(made, at(base), at(tuned), workers=2)
    assert measured.columns == {}
    said = measured.unavailable["log_likelihood"]
    assert said.startswith(why)
    report = compare_rows(made, load_gate(), measured=[measured])
    assert f"not available: {why}" in render_html(report, made)
    assert f"not available: {why}" in summary_table(report)
    assert "log_likelihood" not in report.metrics
    assert report.as_dict()["unavailable"]["log_likelihood"] == said
    assert report.metrics["token_f1"].n == 5


def test_tokens_of_answers_are_a_metric_where_both_models_tell_them():
    told = [Answer("a b", None, 2), Answer("a b c", None, 3)]
    made = [ScoredRow(i, None, None, PROMPT, "x", *told) for i in range(1, 5)]
    report = compare_rows(made, load_gate())
    assert (report.metrics["answer_tokens"].base, report.metrics["answer_tokens"].tuned) == (2.0, 3.0)
    silent = compare_rows(rows(4), load_gate())
    assert "answer_tokens" not in silent.metrics
    assert "answer_tokens" in silent.unavailable
