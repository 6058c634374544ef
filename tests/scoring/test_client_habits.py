"""What common clients send to an OpenAI-compatible endpoint: public reports 23 to 29.

Fields that change nothing are ignored, whatever would change an answer is refused by its name.
"""

from itertools import islice

import openai
import pytest
import requests
from tiny import CHAT, CONTEXT, KEY, SECONDS, listening, lively_model, new_tokenizer, user

from deploy.scoring.engines.transformers_engine import TransformersEngine
from deploy.scoring.http.bodies import DEFAULT_MAX_TOKENS
from deploy.scoring.http.service import Service
from phi3flow.phi3_contract import Endpoint

HEADERS = {"Authorization": f"Bearer {KEY}"}
PAGE = "http://localhost:3000"
QUESTION = user("Who founded the fox?")
TURNS = [*QUESTION, {"role": "assistant", "content": "one two"}]
COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def url():
    tokenizer = new_tokenizer()
    service = Service("tuned", system_prompt="Be brief.")
    service.ready(TransformersEngine(lively_model(tokenizer), tokenizer))
    with listening(service, origins=[PAGE]) as url:
        yield url


@pytest.fixture(scope="module")
def sdk(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)


def post(url, body, path=CHAT):
    return requests.post(url + path, json={"max_tokens": 12} | body, headers=HEADERS, timeout=SECONDS)


def ids(url, messages, **fields):
    """The prompt's token ids and the answer."""
    reply = post(url, {"messages": messages, "return_token_ids": True} | fields)
    assert reply.status_code == 200, reply.text
    return reply.json()["prompt_token_ids"], reply.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "extra",
    [
        {"type": "text"},
        {"name": "alice"},
        {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None},
        {"tool_calls": []},
        {"reasoning_content": "hm"},
    ],
    ids=["23 type", "24 name", "model_dump", "no tool calls", "reasoning"],
)
def test_23_24_fields_of_a_message_that_change_nothing_are_ignored(url, extra):
    asked = [*TURNS[:1], TURNS[1] | extra, QUESTION[0] | extra]
    assert ids(url, asked) == ids(url, [*TURNS, *QUESTION])


def test_25_several_and_later_system_messages_are_one(url):
    brief, english = ({"role": "system", "content": text} for text in ("one two", "three four"))
    joined = {"role": "system", "content": "one two\n\nthree four"}
    assert ids(url, [brief, english, *QUESTION]) == ids(url, [joined, *QUESTION])
    assert ids(url, [*TURNS, brief, *QUESTION]) == ids(url, [brief, *TURNS, *QUESTION])
    score = {"input_data": {"input_string": [*TURNS, brief, *QUESTION]}}
    asked = {"input_data": {"input_string": [brief, *TURNS, *QUESTION]}}
    assert post(url, score | {"max_tokens": None}, "/score").json() == (
        requests.post(url + "/score", json=asked, headers=HEADERS, timeout=SECONDS).json()
    )


def test_25_a_wrong_message_is_named_by_its_place_among_all(url):
    system = {"role": "system", "content": "one"}
    refused = post(url, {"messages": [system, system, *user(" ")]}).json()["error"]
    assert refused["param"] == "messages[2].content"
    assert post(url, {"messages": [system]}).json()["error"]["param"] == "messages[0].role"


def test_26_the_developer_is_the_system(url):
    as_developer = [{"role": "developer", "content": "one two"}, *QUESTION]
    as_system = [{"role": "system", "content": "one two"}, *QUESTION]
    assert ids(url, as_developer) == ids(url, as_system) != ids(url, QUESTION)


NEUTRAL = [
    {"tool_choice": "none"},
    {"tool_choice": "auto", "tools": []},
    {"parallel_tool_calls": False},
    {"logprobs": False, "top_logprobs": 0},
    {"service_tier": "auto"},
    {"modalities": ["text"]},
    {"metadata": {"k": "v"}},
    {"repetition_penalty": 1.0},
    {"top_k": -1},
    {"top_k": 0},
    {"min_p": 0},
    {"stop": ["\n\n", ""]},
    {"stop": ""},
    {"user": "u1", "safety_identifier": "u1", "prompt_cache_key": "u1", "store": False},
    {"verbosity": "medium", "reasoning_effort": "none"},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"skip_special_tokens": True, "ignore_eos": False},
    {"continue_final_message": False},
    {"chat_id": "1", "id": "x", "session_id": "s", "features": {}},
    {"stream_options": {"include_usage": True}},
]


@pytest.mark.parametrize("fields", NEUTRAL, ids="+".join)
def test_27_neutral_fields_change_no_answer(url, fields):
    assert ids(url, QUESTION, **fields) == ids(url, QUESTION)


def test_27_stream_options_that_change_nothing_are_ignored(url):
    options = {"include_usage": True, "include_obfuscation": False, "continuous_usage_stats": False}
    reply = post(url, {"messages": QUESTION, "stream": True, "stream_options": options})
    assert reply.status_code == 200 and reply.text.endswith("data: [DONE]\n\n")


def test_27_minus_one_token_is_no_limit(url):
    body = {"messages": QUESTION, "max_tokens": -1, "stream": True}
    with requests.post(url + CHAT, json=body, headers=HEADERS, timeout=SECONDS, stream=True) as reply:
        pieces = (line for line in reply.iter_lines() if b'"content":"' in line)
        assert len(list(islice(pieces, DEFAULT_MAX_TOKENS + 10))) == DEFAULT_MAX_TOKENS + 10


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "required"},
        {"top_logprobs": 2},
        {"modalities": ["text", "audio"]},
        {"repetition_penalty": 1.1},
        {"top_k": 40},
        {"min_p": 0.1},
        {"store": True},
        {"reasoning_effort": "high"},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"max_completion_tokens": 0},
    ],
    ids="+".join,
)
def test_27_what_would_change_an_answer_is_refused_by_its_name(url, fields):
    reply = post(url, {"messages": QUESTION} | fields)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, *fields)


def test_11_max_completion_tokens_limits_the_answer(url):
    reply = post(url, {"messages": QUESTION, "max_tokens": None, "max_completion_tokens": 3}).json()
    assert reply["usage"]["completion_tokens"] == 3


def test_28_a_completion_answers_its_prompt_as_one_user_turn(url, sdk):
    expected = ids(url, QUESTION)[1]
    prompt = QUESTION[0]["content"]
    whole = sdk.completions.create(model="tuned", prompt=prompt, max_tokens=12)
    assert (whole.object, whole.choices[0].text) == ("text_completion", expected)
    stream = sdk.completions.create(
        model="tuned", prompt=[prompt], max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == expected
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize("body", [{}, {"prompt": " "}, {"prompt": ["a", "b"]}, {"prompt": [1, 2]}])
def test_28_a_completion_without_one_prompt_is_refused(url, body):
    reply = post(url, body, COMPLETIONS)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt")


def test_28_a_model_is_described_by_its_name(url, sdk):
    described = sdk.models.retrieve("tuned")
    assert described == sdk.models.list().data[0]
    assert described.max_model_len == CONTEXT
    assert Endpoint(f"{url}{CHAT}", KEY, "openai").system_prompt() == described.system_prompt == "Be brief."
    with pytest.raises(openai.NotFoundError, match="the one that is served is 'tuned'"):
        sdk.models.retrieve("gpt-5")


def test_28_a_wrong_route_is_told_the_right_ones(url):
    reply = post(url, {"messages": QUESTION}, "/chat/completions")
    assert reply.status_code == 404 and "/v1/chat/completions" in reply.json()["error"]["message"]


def preflight(url, origin):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked |= {"Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang"}
    return requests.options(url + CHAT, headers=asked, timeout=SECONDS)


def test_29_a_named_page_may_ask_and_no_other(url):
    allowed = preflight(url, PAGE)
    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == PAGE
    assert "authorization" in allowed.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Origin" not in preflight(url, "http://elsewhere").headers
    for key in (KEY, "wrong"):
        reply = requests.post(
            url + CHAT,
            json={"messages": QUESTION, "max_tokens": 1},
            headers={"Authorization": f"Bearer {key}", "Origin": PAGE},
            timeout=SECONDS,
        )
        assert reply.headers["Access-Control-Allow-Origin"] == PAGE
        assert reply.status_code == (200 if key == KEY else 401)


def test_10_a_ready_endpoint_tells_its_context_to_everybody(url):
    ready = requests.get(url + "/health/ready", timeout=SECONDS).json()
    assert ready == {"status": "ready", "context": CONTEXT}
