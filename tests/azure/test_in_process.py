"""The endpoint asked from threads without a socket, as score.py asks it under Azure's server."""

import json
import threading
import time

import pytest
from tiny import CHAT, CONTEXT, KEY, SECONDS, generated, lively_model, new_tokenizer, prompts_of, user

from deploy.azure.container.in_process import CutOff, InProcess
from deploy.scoring.engines.transformers_engine import TransformersEngine
from deploy.scoring.http.app import create_app
from deploy.scoring.http.service import Service

HEADERS = {"authorization": f"Bearer {KEY}", "x-request-id": "mine"}
HELLO = user("Who founded the fox?")


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return lively_model(tokenizer)


@pytest.fixture
def service(model, tokenizer):
    service = Service("tiny")
    service.ready(TransformersEngine(model, tokenizer))
    yield service
    service.close()


def chat(asked, **fields):
    return asked.ask("POST", CHAT, HEADERS, json.dumps({"messages": HELLO} | fields).encode())


def test_whole_answers_streams_and_refusals_are_the_endpoints(service, model, tokenizer):
    asked = InProcess(create_app(service, KEY, SECONDS))
    [prompt] = prompts_of(tokenizer, [HELLO[0]["content"]])
    expected = generated(model, tokenizer, prompt, 9)
    whole = chat(asked, max_tokens=9)
    assert (whole.status, whole.headers["x-request-id"]) == (200, "mine")
    assert json.loads(b"".join(whole.pieces))["choices"][0]["message"]["content"] == expected
    events = list(chat(asked, max_tokens=9, stream=True).pieces)
    assert len(events) > 3
    assert events[-1] == b"data: [DONE]\n\n"
    refused = chat(asked, temperature=9)
    assert refused.status == 400
    assert json.loads(b"".join(refused.pieces))["error"]["param"] == "temperature"


def test_closing_a_stream_frees_its_slot(service):
    asked = InProcess(create_app(service, KEY, SECONDS))
    stream = chat(asked, max_tokens=CONTEXT, stream=True).pieces
    assert next(stream)
    assert next(stream)
    assert service.engine().running == 1
    stream.close()
    deadline = time.monotonic() + SECONDS
    while service.engine().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert service.engine().running == 0


def test_a_stream_past_its_deadline_is_cut_and_never_looks_complete(service):
    chat(InProcess(create_app(service, KEY, SECONDS)), max_tokens=1)  # starts what renders the template
    asked = InProcess(create_app(service, KEY, request_timeout=0.3))
    with pytest.raises(CutOff):
        list(chat(asked, max_tokens=CONTEXT, stream=True).pieces)


def test_what_the_application_raises_reaches_the_thread_that_asked():
    async def broken(scope, receive, send):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        InProcess(broken).ask("GET", "/", {}, b"")


def test_many_threads_get_each_its_own_answer(service, model, tokenizer):
    asked = InProcess(create_app(service, KEY, SECONDS))
    questions = ["one two three", "The quick brown fox", "Who?", "four five"]
    found = {}

    def ask(question):
        body = json.dumps({"input_data": [question], "params": {"max_new_tokens": 9}}).encode()
        found[question] = json.loads(b"".join(asked.ask("POST", "/score", HEADERS, body).pieces))

    threads = [threading.Thread(target=ask, args=[question]) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    prompts = prompts_of(tokenizer, questions)
    assert found == {q: [generated(model, tokenizer, p, 9)] for q, p in zip(questions, prompts, strict=True)}
