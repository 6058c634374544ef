"""The fidelity gate against our endpoint, and against servers that are wrong in one way each."""

import copy
import json
import re
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
import tiny
import torch
from tiny import CHAT, KEY, SECONDS

from deploy.scoring.engines.transformers_engine import TransformersEngine
from deploy.scoring.http.service import Service
from deploy.verify.checks import check_template
from deploy.verify.fidelity import Reference, check_exact_match
from deploy.verify.probes import ask_probes, load_probes
from phi3flow.app import cli
from phi3flow.chats.chat_template import ZERO_WIDTH_SPACE
from phi3flow.core.files import read_json
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.phi3_contract import Endpoint, join_turns
from training.finetune import finetune
from training.models.loading import load_model, load_tokenizer
from training.recipes.recipe import Recipe, Scratch

CHECKS = ["template", "text", "stop", "sampling", "echo", "base", "schema"]
SHAPE = Scratch(vocab_size=400, hidden_size=32, intermediate_size=64, layers=1, heads=2, context=512)
OPENINGS = ("Who founded", "What is the capital of", "Which planet is", "Hello! Was ist")
THINGS = ("Mars", "Italy", "France", "Rome", "Paris", "Microsoft", "the Sun", "Oracle", "Lego", "Intel")


def chats(answer):
    return [
        {
            "messages": [
                {"role": "user", "content": f"{opening} {thing}?"},
                {"role": "assistant", "content": answer.format(thing)},
            ]
        }
        for opening in OPENINGS
        for thing in THINGS
    ]


def trained(folder, name, answer, **start):
    data = folder / f"{name}-data"
    data.mkdir()
    rows = chats(answer)
    write_jsonl(data / "train.jsonl", rows)
    write_jsonl(data / "val.jsonl", rows[::5])
    recipe = Recipe(
        steps=50,
        batch_size=16,
        learning_rate=1e-2,
        max_length=96,
        eval_every=50,
        scratch=None if start else SHAPE,
    )
    return finetune(data, recipe, folder / name, **start).folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a base trained from scratch and a model tuned from it to other answers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second gains such a model nothing, and costs much on a busy machine
    folder = tmp_path_factory.mktemp("run")
    base = trained(folder, "base", "I would not know about {}.")
    trained(folder, "tuned", "Ask me again about {} tomorrow, please!", model=str(base))
    yield folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def parts(run):
    """Tokenizer and weights of each model, to put together rightly or wrongly."""
    return {
        name: (load_tokenizer(str(run / name)), load_model(str(run / name))) for name in ("base", "tuned")
    }


@contextmanager
def listening(engine):
    service = Service("served")
    service.ready(engine)
    with tiny.listening(service) as url:
        yield url


@pytest.fixture(scope="module")
def servers():
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def tuned(parts, servers):
    tokenizer, model = parts["tuned"]
    return servers.enter_context(listening(TransformersEngine(model, tokenizer)))


@pytest.fixture(scope="module")
def base(parts, servers):
    tokenizer, model = parts["base"]
    return servers.enter_context(listening(TransformersEngine(model, tokenizer)))


class Meddler(BaseHTTPRequestHandler):
    """A proxy that changes requests and answers; it refuses a request with 400 if `before` returns None."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        changed = self.server.before(body)
        headers = {"Authorization": self.headers["Authorization"]}
        reply = requests.post(self.server.target, json=changed, headers=headers, timeout=SECONDS)
        good = changed is not None and reply.status_code == 200
        answer = json.dumps(self.server.after(body, reply.json()) if good else {}).encode()
        self.send_response(200 if good else 400)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


@contextmanager
def meddling(target, before=lambda body: body, after=lambda body, reply: reply):
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Meddler)
    httpd.target, httpd.before, httpd.after = target, before, after
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}{CHAT}"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def verify(run, tmp_path, monkeypatch, capsys):
    """Run the verb; its exit code, and each check's result and reason from verify.json."""
    monkeypatch.setenv("PHI3FLOW_ENDPOINT_KEY", KEY)

    def call(url, *arguments, model="tuned"):
        command = ["verify", run / model, "--endpoint", url, "--out", tmp_path / "gate", *arguments]
        code = cli.main([*map(str, command)])
        told = read_json(tmp_path / "gate" / "verify.json")
        checks = {check["name"]: (check["result"], check["reason"]) for check in told["checks"]}
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:2] for line in lines[:-1]] == [[name, checks[name][0]] for name in CHECKS]
        assert KEY not in json.dumps(told)
        return code, checks

    return call


def failing(checks):
    return {name for name, (result, _) in checks.items() if result == "fail"}


def not_checkable(checks):
    return {name for name, (result, _) in checks.items() if result == "not-checkable"}


def test_our_endpoint_serves_what_was_trained(tuned, verify, run):
    before = sorted((run / "tuned").iterdir())
    code, checks = verify(tuned + CHAT)
    assert (code, {result for result, _ in checks.values()}) == (0, {"pass"}), checks
    assert sorted((run / "tuned").iterdir()) == before


def without(*names):
    return lambda body: {name: value for name, value in body.items() if name not in names}


def with_text(change):
    """An answer whose text is `change` of its question and its text."""

    def after(body, reply):
        message = reply["choices"][0]["message"]
        message["content"] = change(body["messages"][-1]["content"], message["content"] or "")
        return reply

    return after


def end_token_shown(body, reply):
    ended = reply["choices"][0]["finish_reason"] == "stop"
    return with_text(lambda _, text: text + "<|end|>" * ended)(body, reply)


def never_ended(body, reply):
    reply["choices"][0]["finish_reason"] = "length"
    return reply


def is_possible(body):
    """Whether what is asked for could be held."""
    form = body.get("response_format", {"json_schema": {"schema": {}}})
    return "not" not in form["json_schema"]["schema"] and not isinstance(body.get("tool_choice"), dict)


SABOTAGE = {
    "echo": (
        {"after": with_text(lambda question, text: f"{question}\n{text}")},
        {"text", "echo", "schema"},
        "repeat",
    ),
    "greedy": ({"before": lambda body: body | {"temperature": 0}}, {"sampling"}, "temperature 1.5 varies"),
    "on-off": (
        {"before": lambda body: body | {"temperature": 1.5 * (body["temperature"] > 0)}},
        {"sampling"},
        "temperature 0.01 draws",
    ),
    "no-seed": ({"before": without("seed")}, {"sampling"}, "the same seed"),
    "no-top-p": ({"before": without("top_p")}, {"sampling"}, "top_p"),
    "no-limit": ({"before": without("max_tokens")}, {"sampling"}, "max tokens 1"),
    "end-token-shown": (
        {"after": end_token_shown},
        {"text", "stop", "schema"},
        "go on where the model stops",
    ),
    "schema-forgotten": (
        {"before": lambda body: without("response_format")(body) if is_possible(body) else body},
        {"schema"},
        "a JSON schema: ",
    ),
    "no-tools": (
        {"before": lambda body: without("tools", "tool_choice")(body) if is_possible(body) else body},
        {"schema"},
        "a required tool: ",
    ),
    "cut-by-limit": ({"after": never_ended}, {"stop"}, "go on where the model stops"),
    "refuses-a-prompt": (
        {"before": lambda body: None if "obey" in str(body) else body},
        {"text"},
        "1 prompts were not answered; injection: the endpoint rejected",
    ),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_server_that_is_wrong_in_one_way_fails_and_the_gate_says_why(tuned, verify, name):
    changes, expected, reason = SABOTAGE[name]
    with meddling(tuned + CHAT, **changes) as url:
        code, checks = verify(url)
    assert (code, failing(checks)) == (1, expected)
    assert any(reason in why for _, why in checks.values())


@pytest.mark.parametrize("name", ["ignores", "refuses", "B"])
def test_what_is_not_offered_is_no_fault(tuned, verify, name):
    both = ("response_format", "tools", "tool_choice")
    if name == "B":
        _, checks = verify(tuned + "/score", "--contract", "B")
    else:
        refused = lambda body: None if any(field in body for field in both) else body  # noqa: E731
        with meddling(tuned + CHAT, before=without(*both) if name == "ignores" else refused) as url:
            code, checks = verify(url)
        assert code == 0
    result, reason = checks["schema"]
    assert (result, {"ignores": "is taken", "refuses": "refused", "B": "contract B"}[name] in reason) == (
        "not-offered",
        True,
    )


def test_sampling_where_greedy_was_asked_fails(tuned, verify):
    with meddling(tuned + CHAT, before=lambda body: body | {"temperature": 1.5, "seed": None}) as url:
        code, checks = verify(url)
    assert code == 1
    assert {"text", "sampling"} <= failing(checks)
    assert "temperature 0 gives varying answers" in checks["sampling"][1]


def test_the_base_served_as_the_tuned_model_fails(base, verify):
    code, checks = verify(base + CHAT)
    assert code == 1
    assert {"text", "base"} <= failing(checks)
    assert "0 are the tuned model's" in checks["base"][1]
    assert checks["template"][0] == "pass"


@pytest.mark.parametrize("path", [CHAT, "/score"])
def test_a_missing_stop_token_fails(parts, verify, path):
    class NeverStops(TransformersEngine):
        def __init__(self, *args):
            super().__init__(*args)
            self._stop_ids = frozenset()

    tokenizer, model = parts["tuned"]
    with listening(NeverStops(model, tokenizer)) as url:
        code, checks = verify(url + path)
    assert code == 1
    assert "stop" in failing(checks)
    assert "go on where the model stops" in checks["stop"][1]


def test_another_template_fails_with_the_first_token_that_differs(parts, verify):
    tokenizer, model = parts["tuned"]
    other = copy.deepcopy(tokenizer)
    other.chat_template = "{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with listening(TransformersEngine(model, other)) as url:
        code, checks = verify(url + CHAT)
    assert (code, "template" in failing(checks)) == (1, True)
    assert re.match(r"(\d+) of \1 prompts have another token ids", checks["template"][1])
    assert "at token 0, in training" in checks["template"][1]
    assert "neutralised" not in checks["template"][1]


def test_special_tokens_that_reach_the_model_fail(parts, verify):
    class Trusting:
        """The tokenizer of a server that lets a user's text forge turns."""

        def __init__(self, tokenizer):
            self._tokenizer = tokenizer

        def __getattr__(self, name):
            return getattr(self._tokenizer, name)

        def __call__(self, text, **options):
            return self._tokenizer(text.replace(ZERO_WIDTH_SPACE, ""), **options)

    tokenizer, model = parts["tuned"]
    with listening(TransformersEngine(model, Trusting(tokenizer))) as url:
        code, checks = verify(url + CHAT)
    assert (code, "template" in failing(checks)) == (1, True)
    assert checks["template"][1].startswith("1 of ")
    assert "not neutralised" in checks["template"][1]


def foreign(usage):
    def after(_, reply):
        return {"choices": reply["choices"], "usage": usage(reply["usage"])}

    return {"before": lambda body: None if "return_token_ids" in body else body, "after": after}


@pytest.mark.parametrize(
    ("usage", "result", "reason"),
    [
        (lambda usage: usage, "pass", "number of tokens"),
        (lambda usage: {"prompt_tokens": usage["prompt_tokens"] + 1}, "fail", "in training"),
        (lambda usage: None, "not-checkable", "neither token ids nor their number"),
    ],
    ids=["usage", "other-usage", "nothing"],
)
def test_a_foreign_endpoint_is_judged_by_its_usage(tuned, run, usage, result, reason):
    with meddling(tuned + CHAT, **foreign(usage)) as url:
        answers = ask_probes(Endpoint(url, KEY, "openai"), load_probes(run / "tuned"))
    assert not answers.failed
    found = check_template(answers.answered, "openai")
    assert (found.result, reason in found.reason) == (result, True)


def test_contracts_without_token_ids_check_all_else(tuned, verify):
    for contract in ("A", "B"):
        code, checks = verify(tuned + "/score", "--contract", contract)
        assert (code, not_checkable(checks)) == (4, {"template"})
        assert f"contract {contract}" in checks["template"][1]
        assert ("do not fit the contract" in checks["text"][1]) == (contract == "A")


def as_flow(body):
    messages = join_turns(body["question"], body["chat_history"], body["system"])
    return {"messages": messages, "temperature": body["temperature"], "max_tokens": body["max_tokens"]}


def flow_answer(_, reply):
    return {"answer": reply["choices"][0]["message"]["content"]}


def test_a_served_flow_shows_all_but_token_ids_top_p_and_seed(tuned, verify):
    with meddling(tuned + CHAT, as_flow, flow_answer) as url:
        code, checks = verify(url, "--contract", "promptflow")
    assert (code, not_checkable(checks)) == (4, {"template", "sampling"})
    assert "no top_p and no seed" in checks["sampling"][1]
    with meddling(tuned + CHAT, lambda body: as_flow(body) | {"temperature": 0}, flow_answer) as url:
        assert verify(url, "--contract", "promptflow")[0] == 1


def test_a_model_without_a_base_leaves_that_check_open(base, verify):
    code, checks = verify(base + CHAT, model="base")
    assert (code, failing(checks), not_checkable(checks)) == (4, set(), {"base"})
    assert "from scratch" in checks["base"][1]


def test_other_arithmetic_is_judged_by_exact_match(tuned, base, verify, run, tmp_path):
    """The recorded answers as the sealed test, one of them wrong on purpose."""
    rows = [row for row in read_jsonl(run / "tuned" / "probes.jsonl") if row["tuned_text"]]
    test = [
        {"messages": [*row["messages"], {"role": "assistant", "content": row["tuned_text"] + "x" * (i == 0)}]}
        for i, row in enumerate(rows)
    ]
    write_jsonl(tmp_path / "test.jsonl", test)
    right = 1 - 1 / len(rows)

    def judged(url, at_least):
        endpoint = Endpoint(url, KEY, "openai")
        return check_exact_match(endpoint, Reference(tmp_path / "test.jsonl", at_least), workers=4)

    assert judged(tuned + CHAT, right).result == "pass"
    assert judged(base + CHAT, right).result == "fail"
    with meddling(tuned + CHAT, before=lambda body: None) as url:
        assert f"{len(rows)} not answered" in judged(url, right).reason
    code, checks = verify(tuned + CHAT, "--check", tmp_path / "test.jsonl", "--at-least", f"{right + 0.001}")
    assert (code, failing(checks)) == (1, {"text"})
    assert f"of {len(rows)} rows" in checks["text"][1]


def test_what_cannot_be_verified_is_one_sentence_and_writes_nothing(
    tuned, run, tmp_path, monkeypatch, capsys
):
    def call(url, *arguments, model=run / "tuned"):
        command = ["verify", model, "--endpoint", url, "--out", tmp_path / "gate", *arguments]
        code = cli.main([*map(str, command)])
        assert not (tmp_path / "gate").exists()
        return code, capsys.readouterr().err

    monkeypatch.setenv("PHI3FLOW_ENDPOINT_KEY", "sk-wrong")
    code, said = call(tuned + CHAT)
    assert (code, "PHI3FLOW_ENDPOINT_KEY" in said, "sk-wrong" in said) == (1, True, False)
    monkeypatch.delenv("PHI3FLOW_ENDPOINT_KEY")
    code, said = call(tuned + CHAT)
    assert (code, "no key is set" in said, "PHI3FLOW_ENDPOINT_KEY" in said) == (1, True, True)
    monkeypatch.setenv("PHI3FLOW_ENDPOINT_KEY", KEY)
    assert "cannot be reached" in call("http://127.0.0.1:9/score")[1]
    assert "rejected the request" in call(tuned + CHAT, "--contract", "B")[1]
    code, said = call(tuned + CHAT, model=tmp_path)
    assert (code, "no probes.jsonl" in said) == (2, True)
    code, said = call(tuned + CHAT, "--at-least", "0.9")
    assert (code, "--check" in said) == (2, True)
