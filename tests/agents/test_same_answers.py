"""Both hosts answer the same: statuses, bodies, events, and where a stream breaks.

`pf flow serve` answers first; what it says is the expectation, so no answer of it is written down here.
"""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from both_hosts import Request, both_hosts, needs_agents, without_times
from scripted_endpoint import KEY, REFUSED, scripted_endpoint

from custom_connections.store import store_connection
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.phi3_contract import Endpoint

pytestmark = needs_agents
SECONDS = 8  # of an endpoint that asks to try again, and never answers
STREAM = (("Accept", "text/event-stream"),)
EITHER = (("Accept", "text/event-stream, application/json"),)
TEXTS = (
    "Who founded Microsoft?",
    "None",
    "null",
    "  spaces  around  ",
    "two\nlines\r\nand\ttabs",
    "Wer gründete Größe? Ça va, naïve?",
    "日本語で答えてください",
    "שלום עולם, مرحبا",
    "👩‍👩‍👧‍👦 🇩🇪 e\u0301 \u00e9",
    "\u2028\u2029\u0000\u001b[31m",
    "\U0001f600" * 50,
    '<b>&amp;</b> "quoted" \\ back',
    "data: [DONE]",
    "${inputs.question} {{system}} %s {0}",
    "long" * 4000,
    "many " * 150,
)


def turn(asked, answered):
    return {"inputs": {"question": asked}, "outputs": {"answer": answered}}


def bodies():
    """What people send, by what it tries: names of cases, and the JSON of a request."""
    for text in TEXTS:
        yield "text", {"question": text}
        yield "system", {"question": "hi", "system": text}
        yield "history", {"question": text, "chat_history": [turn(text, text), turn("b", "c")]}
    for count in (1, 2, 5, 40):
        yield "history", {"question": "and?", "chat_history": [turn(f"q{n}", f"a{n}") for n in range(count)]}
    for fault in (*REFUSED, "cut", "cut at once", "garbled", "garbage"):
        yield "endpoint", {"question": fault}
    for name, value in BAD_VALUES:
        yield "bad value", {"question": "hi", name: value}
    yield "extra", {"question": "hi", "temperature": 0.5, "max_tokens": 5, "top_p": 1, "nobody": {"knows": 1}}


BAD_VALUES = [
    *(("question", value) for value in (None, "", "  ", 1, 1.5, True, [], {}, ["hi"], {"a": 1})),
    *(("chat_history", value) for value in (None, "", "[]", "{", "[1]", {}, 0, [1], [None], [{}], [[]])),
    *(("chat_history", [turn(None, None)]), ("chat_history", [{"inputs": {}, "outputs": {}}])),
    *(("system", value) for value in (None, 0, [], {"a": 1})),
    *(("temperature", value) for value in (None, "warm", "0.5", [], -1, 1e400)),
    *(("max_tokens", value) for value in (None, "many", "5", 5.7, [], 0, -1)),
]
RAW = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'["question"]',
    b'"question"',
    b"17",
    b"true",
    b"\xff\xfe",
    b"question=hi",
    b"{}",
]
ROUTES = [
    *(("GET", path) for path in ("/", "/health", "/version", "/swagger.json", "/score", "/nothing", "/a/b")),
    *(("POST", path) for path in ("/", "/health", "/feedback", "/nothing", "/score/")),
    *((method, "/score") for method in ("PUT", "DELETE", "PATCH", "OPTIONS")),
    *((method, "/nothing") for method in ("PUT", "DELETE", "PATCH")),
    ("GET", "/feedback"),
    ("POST", "/feedback?flatten=true"),
]
ACCEPTS = (
    "*/*",
    "text/plain",
    "application/json",
    "text/event-stream;q=0.5",
    "application/*",
    "text/*",
    "",
    "x",
)


def requests_of_a_chat():
    """At least 200 different requests, with the name of what each tries."""
    for name, body in bodies():
        raw = json.dumps(body).encode()
        yield name, Request(raw)
        if name in {"text", "history", "endpoint", "bad value"}:
            yield f"{name}, streamed", Request(raw, headers=STREAM)
    for raw in RAW:
        yield "raw body", Request(raw)
    yield "Unicode as it is", Request(json.dumps({"question": "Größe 日本"}, ensure_ascii=False).encode())
    yield "UTF-16", Request(json.dumps({"question": "hi"}).encode("utf-16"))
    for method, path in ROUTES:
        yield "route", Request(b"{}" if method == "POST" else b"", method, path)
    for accept in ACCEPTS:
        yield "accept", Request(b'{"question": "hi"}', headers=(("Accept", accept),))
    yield "accept", Request(b'{"question": "hi"}', headers=EITHER)


@pytest.fixture(scope="module")
def endpoint(home):
    with scripted_endpoint() as server, home.entered():
        store_connection("phi3-tuned", Endpoint(server.url(), KEY, "openai", timeout=SECONDS))
        store_connection("phi3-base", Endpoint(server.url("/score"), KEY, "B", timeout=SECONDS))
        store_connection("wrong-key", Endpoint(server.url(), "another", "openai", timeout=SECONDS))
        store_connection("contract-a", Endpoint(server.url("/score"), KEY, "A", timeout=SECONDS))
        store_connection("nobody", Endpoint("http://127.0.0.1:1/score", KEY, "B", timeout=SECONDS))
        yield server


@pytest.fixture(scope="module")
def served(home, endpoint):
    """A function that serves a flow of ours behind both hosts."""

    def serve(name, connection=None):
        folder = home.folder.parent / (connection or "") / name
        return both_hosts(resolve_flow(name, folder, connection=connection), home)

    return serve


def differences(hosts, named):
    """What the two answer differently, and how often each status came."""
    requests = list(named)
    with ThreadPoolExecutor(8) as pool:
        told = {
            name: list(pool.map(lambda each, host=host: without_times(host.get(each[1])), requests))
            for name, host in hosts.items()
        }
    pairs = zip(requests, told["promptflow"], told["agents"], strict=True)
    different = [(name, request, theirs, ours) for (name, request), theirs, ours in pairs if theirs != ours]
    return different, Counter(got.status for got in told["agents"]), told["agents"]


def test_a_chat_gets_the_same_answers(served):
    asked = list(requests_of_a_chat())
    assert len({request for _, request in asked}) >= 200
    with served("chat") as hosts:
        different, statuses, told = differences(hosts, asked)
    assert different == []
    assert {200, 400, 404, 405, 406, 500} <= set(statuses), "every kind of answer is among them"
    assert sum(not got.ended for got in told) >= 2, "a stream that is cut off breaks here, too"


@pytest.mark.parametrize(
    ("flow", "bodies"),
    [
        (
            "compare",
            [
                {"question": "hi", "reference": "user: hi"},
                {
                    "question": "Größe 日本",
                    "reference": "x",
                    "chat_history": [turn("a", "b")],
                    "system": "be brief",
                },
                {"question": "too long", "reference": "x"},
                {"question": "hi"},
            ],
        ),
        (
            "grade",
            [
                {"answer": "Bill Gates", "reference": "Bill Gates and Paul Allen."},
                {"answer": "", "reference": ""},
                {"answer": None, "reference": 1, "question": "who?"},
                {"answer": "x"},
            ],
        ),
        ("tutorial", [{"input_data": "hi"}, {}, {"input_data": ""}]),
    ],
)
def test_so_do_the_other_flows(served, flow, bodies):
    headers = ((), STREAM, EITHER)
    asked = [
        ("body", Request(json.dumps(body).encode(), headers=accept)) for body in bodies for accept in headers
    ]
    asked += [("route", Request(b"", "GET", "/swagger.json")), ("text", Request(b"just text"))]
    with served(flow) as hosts:
        different, statuses, _ = differences(hosts, asked)
    assert different == []
    assert 200 in statuses


@pytest.mark.parametrize("connection", ["wrong-key", "contract-a", "nobody"])
def test_so_do_other_endpoints(served, connection):
    history = {"chat_history": [turn("a", "b")]}
    bodies = [{"question": "hi"}, {"question": "hi"} | history, {"question": "fail 422"}]
    asked = [
        ("body", Request(json.dumps(body).encode(), headers=how)) for body in bodies for how in ((), STREAM)
    ]
    with served("chat", connection) as hosts:
        different, _, _ = differences(hosts, asked)
    assert different == []
