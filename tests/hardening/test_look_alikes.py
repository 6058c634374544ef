"""Issue: the endpoint took `n: true` for 1, `store: 0` for false, and the last of two equal keys."""

import pytest
import requests
from instant_engine import instant_endpoint
from tiny import CHAT, KEY, SECONDS, new_tokenizer, user

HEADERS = {"Authorization": f"Bearer {KEY}"}
MESSAGES = '"messages": [{"role": "user", "content": "Who?"}]'


@pytest.fixture(scope="module")
def url():
    with instant_endpoint(new_tokenizer()) as found:
        yield found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", True),
        ("best_of", True),
        ("store", 0),
        ("echo", 0),
        ("logprobs", 0),
        ("top_logprobs", False),
        ("frequency_penalty", False),
        ("parallel_tool_calls", 1),
    ],
)
def test_true_is_not_one_and_zero_is_not_false(url, name, value):
    body = {"messages": user("Who?"), name: value}
    refused = requests.post(url + CHAT, json=body, headers=HEADERS, timeout=SECONDS)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize(
    ("name", "value"), [("n", 1), ("n", 1.0), ("frequency_penalty", 0.0), ("store", False)]
)
def test_what_changes_nothing_is_still_accepted(url, name, value):
    body = {"messages": user("Who?"), name: value}
    assert requests.post(url + CHAT, json=body, headers=HEADERS, timeout=SECONDS).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        (CHAT, f'{{"temperature": 2, "temperature": 0, {MESSAGES}}}', "temperature"),
        (CHAT, '{"messages": [{"role": "system", "role": "user", "content": "Who?"}]}', "role"),
        ("/score", '{"input_data": ["one"], "input_data": ["two"]}', "input_data"),
        ("/v1/completions", '{"prompt": "one", "prompt": "two"}', "prompt"),
    ],
)
def test_a_key_that_stands_twice_is_named(url, path, body, key):
    refused = requests.post(url + path, data=body, headers=HEADERS, timeout=SECONDS)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, key)
    assert f"{key}: key given twice in one object" in refused.json()["error"]["message"]
