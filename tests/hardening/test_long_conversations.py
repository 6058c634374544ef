"""Issue: thousands of turns, or 64 long texts, stopped the endpoint's event loop for everybody."""

import threading

import pytest
import requests
from instant_engine import ANSWER, instant_endpoint
from tiny import CHAT, CONTEXT, KEY, SECONDS, new_tokenizer, user

from deploy.scoring.http.bodies import MAX_INPUTS
from deploy.scoring.http.body import MAX_FIELDS
from deploy.scoring.http.dialects import MAX_BODY_BYTES
from deploy.scoring.http.turns import MAX_TURNS

HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def url():
    with instant_endpoint(new_tokenizer()) as found:
        yield found


def post(url, path, body):
    return requests.post(url + path, json=body, headers=HEADERS, timeout=SECONDS)


def turns(count):
    return [{"role": "user", "content": "a"}] * count


@pytest.mark.parametrize("count", [MAX_TURNS + 1, 28_000])
def test_a_conversation_has_a_thousand_turns_at_most(url, count):
    for path, body, field in (
        (CHAT, {"messages": turns(count)}, "messages"),
        ("/score", {"input_data": {"input_string": turns(count)}}, "input_data.input_string"),
    ):
        answered = post(url, path, body)
        assert (answered.status_code, answered.json()["error"]["param"]) == (400, field)
        assert f"at most {MAX_TURNS} items" in answered.json()["error"]["message"]


def test_a_thousand_turns_are_answered(url):
    assert post(url, CHAT, {"messages": turns(MAX_TURNS)}).status_code == 200


def test_an_object_with_thousands_of_unknown_fields_costs_one_error(url):
    fields = {f"f{i}": 1 for i in range(MAX_FIELDS + 1)}
    answered = post(url, CHAT, {"messages": user("Who?")} | fields)
    assert answered.status_code == 400
    assert f"more than {MAX_FIELDS} fields" in answered.json()["error"]["message"]
    inner = post(url, CHAT, {"messages": [user("Who?")[0] | fields]})
    assert (inner.status_code, inner.json()["error"]["param"]) == (400, "messages[0]")


def test_a_prompt_with_more_characters_than_the_context_could_hold_is_not_rendered(url):
    shorter = new_tokenizer()
    longest = max(map(len, shorter.get_vocab()))
    fewest = CONTEXT + 1
    assert fewest * longest < MAX_BODY_BYTES
    error = post(url, CHAT, {"messages": user("x" * (fewest * longest))}).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"] == f"the prompt has at least {fewest} tokens, the model's context is {CONTEXT}"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", {"input_data": ["fox dog " * 1_900] * MAX_INPUTS}),
        (CHAT, {"messages": user("fox dog " * 15_000)}),
    ],
    ids=["64 texts", "one long text"],
)
def test_others_are_answered_while_a_long_request_is_rendered(url, path, body):
    answered = []
    hostile = [threading.Thread(target=lambda: answered.append(post(url, path, body))) for _ in range(4)]
    for thread in hostile:
        thread.start()
    alive = innocent = 0
    with requests.Session() as session:
        while any(thread.is_alive() for thread in hostile):
            alive += session.get(f"{url}/health/live", timeout=SECONDS).status_code == 200
            asked = session.post(
                url + CHAT, json={"messages": user("Who?")}, headers=HEADERS, timeout=SECONDS
            )
            innocent += asked.json()["choices"][0]["message"]["content"] == ANSWER
    assert [each.status_code for each in answered] == [200] * 4
    assert alive > 1 and innocent > 1  # how often depends on the machine
