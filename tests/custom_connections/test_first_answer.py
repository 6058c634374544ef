"""`phi3flow connect` reads the URL that people copy, and asks the endpoint once: public report 13."""

from http.server import BaseHTTPRequestHandler

import pytest
from headless import KEY, phi3flow
from loopback import JsonAnswers, serving

from custom_connections.promptflow_home import new_encryption_key
from phi3flow.app.commands.connect import completed, contract_of


class Served(JsonAnswers, BaseHTTPRequestHandler):
    """Contract openai with one model, phi3; at /score another contract's refusal."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.asked()
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.answer(401, {"error": {"message": "this key is unknown"}})
        elif self.path.split("?")[0] != "/v1/chat/completions":
            self.answer(422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]})
        elif body["model"] != "phi3":
            message = f"The model `{body['model']}` does not exist."
            self.answer(404, {"error": {"message": message, "code": "model_not_found"}})
        else:
            self.answer(200, {"choices": [{"message": {"content": "Hi"}}]})


@pytest.fixture(scope="module")
def url():
    with serving(Served) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1/completions", "/v1/chat/completions"),
        ("/openai/v1/", "/openai/v1/chat/completions"),
        (
            "/openai/deployments/gpt/chat/completions?api-version=2024-06-01",
            "/openai/deployments/gpt/chat/completions?api-version=2024-06-01",
        ),
        ("/v1?api-version=preview", "/v1/chat/completions?api-version=preview"),
    ],
)
def test_13_every_way_to_write_openais_url_is_contract_openai(given, asked):
    full = completed(f"https://host{given}")
    assert (full, contract_of(full)) == (f"https://host{asked}", "openai")


@pytest.mark.parametrize("given", ["/score", "/v1beta/score", "/"])
def test_13_other_urls_stay_contract_b(given):
    full = completed(f"https://host{given}")
    assert (full, contract_of(full)) == (f"https://host{given}".rstrip("/"), "B")


def connect(folder, *words, key=KEY):
    return phi3flow(
        folder,
        *("connect", "mine", "--endpoint", *words),
        PF_ENCRYPTION_KEY=new_encryption_key(),
        PHI3FLOW_ENDPOINT_KEY=key,
    )


def test_13_an_endpoint_that_answers_is_stored(url, tmp_path):
    stored = connect(tmp_path, f"{url}/v1/")
    assert stored.stdout == f"stored mine: {url}/v1/chat/completions, contract openai\n"
    assert stored.stderr == ""


WRONG = {
    "key": ("/v1", [], "other", "refused the key: this key is unknown", "PHI3FLOW_ENDPOINT_KEY"),
    "model": ("/v1", ["--model", "gpt"], KEY, "The model `gpt` does not exist.", "--model NAME"),
    "route": ("/score", [], KEY, "field required", "--contract"),
    "contract": ("/v2", ["--contract", "openai"], KEY, "field required", "--contract"),
}


@pytest.mark.parametrize("what", WRONG)
def test_13_what_waiting_does_not_repair_is_told_at_once(url, tmp_path, what):
    path, words, key, said, hint = WRONG[what]
    refused = connect(tmp_path, url + path, *words, key=key)
    assert refused.returncode == 1
    error, told = refused.stderr.splitlines()
    assert error.startswith("error: mine is not stored: ") and said in error
    assert told.startswith("hint: ") and hint in told
    assert key not in refused.stderr


def test_13_an_endpoint_that_is_not_there_yet_is_stored_with_a_note(tmp_path):
    stored = connect(tmp_path, "http://127.0.0.1:9/v1")
    assert stored.returncode == 0
    assert stored.stderr == "note: mine gives no answer yet: the endpoint cannot be reached\n"
