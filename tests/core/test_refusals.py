"""What an endpoint says when it refuses, and what stands between: public reports 8, 9, 11, 12."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler

import pytest
import requests
import trustme
from loopback import JsonAnswers, serving

from phi3flow.phi3_contract import (
    Endpoint,
    EndpointError,
    Rejected,
    Sampling,
    TooLong,
    Unauthorized,
    Unreachable,
    Untrusted,
    WrongContract,
)

KEY = "planted-secret-0815"
QUESTION = [{"role": "user", "content": "Who?"}]
NEW_NAME = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead."
)
SECONDS = 20


def openai_error(message, code=None):
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


REFUSALS = {
    "/model": (404, openai_error("The model `phi3` does not exist.", "model_not_found")),
    "/context": (400, openai_error("This model's maximum context length is 8192 tokens.")),
    "/code": (400, openai_error("the prompt has 9 tokens, the context is 8", "context_length_exceeded")),
    "/filter": (400, openai_error("The response was filtered.", "content_filter")),
    "/route": (404, {"detail": "Not Found"}),
    "/shape": (422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}),
    "/other": (400, openai_error("messages: Field required")),
    "/silent": (400, {}),
    "/key": (401, openai_error(f"Incorrect API key provided: {KEY}, see https://keys.example/?k={KEY}")),
    "/long": (400, openai_error("no\n" * 5_000 + KEY)),
}


class Refusing(JsonAnswers, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.asked()
        self.server.bodies.append(body)
        path = self.path.split("?")[0]
        if path == "/newer" and "max_tokens" in body:
            self.answer(400, openai_error(NEW_NAME, "unsupported_parameter"))
        elif path == "/neither":
            self.answer(400, openai_error(NEW_NAME))
        elif path in REFUSALS:
            self.answer(*REFUSALS[path])
        else:
            self.answer(200, {"choices": [{"message": {"content": "Ada."}}]})


@pytest.fixture
def server():
    with serving(Refusing) as httpd:
        httpd.bodies = []
        yield httpd


def endpoint(server, path, scheme="http"):
    return Endpoint(f"{scheme}://127.0.0.1:{server.server_port}{path}", KEY, "openai", timeout=SECONDS)


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("/model", Rejected, "The model `phi3` does not exist."),
        ("/context", TooLong, "maximum context length is 8192 tokens"),
        ("/code", TooLong, "the prompt has 9 tokens, the context is 8"),
        ("/filter", Rejected, "The response was filtered."),
        ("/route", WrongContract, "Not Found"),
        ("/shape", WrongContract, "field required"),
        ("/other", WrongContract, "messages: Field required"),
        ("/silent", WrongContract, "HTTP 400"),
        ("/key", Unauthorized, "Incorrect API key provided"),
    ],
)
def test_9_a_refusal_keeps_the_servers_words(server, path, error, words):
    with pytest.raises(EndpointError) as caught:
        endpoint(server, path).complete(QUESTION)
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert ("contract" in caught.value.hint) == (error is WrongContract)


@pytest.mark.parametrize("path", ["/key", "/long"])
def test_9_the_servers_words_are_one_bounded_line_without_a_secret(server, path):
    with pytest.raises(EndpointError) as caught:
        endpoint(server, path).complete(QUESTION)
    shown = str(caught.value)
    assert KEY not in shown and "keys.example" not in shown
    assert "\n" not in shown and len(shown) < 400


def test_11_an_endpoint_that_wants_max_completion_tokens_gets_it(server):
    newer = endpoint(server, "/newer")
    assert newer.complete(QUESTION, Sampling(max_tokens=7)) == "Ada."
    assert newer.complete(QUESTION, Sampling(max_tokens=8)) == "Ada."
    names = [{name for name in body if name.startswith("max_")} for body in server.bodies]
    assert names == [{"max_tokens"}, {"max_completion_tokens"}, {"max_completion_tokens"}]
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 7, 8]


def test_11_an_endpoint_that_takes_neither_name_is_asked_twice(server):
    with pytest.raises(Rejected, match="max_completion_tokens"):
        endpoint(server, "/neither").complete(QUESTION)
    assert len(server.bodies) == 2


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def tls(server, authority):
    """The same server behind a certificate that a company's own authority has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def in_new_thread(ask):
    """Sessions belong to a thread, and read the environment when they are made."""
    found = []

    def run():
        try:
            found.append(ask())
        except EndpointError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(SECONDS)
    return found[0]


def test_12_an_unknown_certificate_is_called_tls_and_the_bundle_repairs_it(
    tls, authority, tmp_path, monkeypatch
):
    secured = endpoint(tls, "/ok", "https")
    error = in_new_thread(lambda: secured.complete(QUESTION))
    assert isinstance(error, Untrusted)
    assert "TLS certificate" in str(error) and "REQUESTS_CA_BUNDLE" in error.hint
    bundle = tmp_path / "company.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    assert in_new_thread(lambda: secured.complete(QUESTION)) == "Ada."


def test_12_https_to_a_port_that_speaks_http_is_called_tls(server):
    with pytest.raises(Unreachable, match="TLS"):
        endpoint(server, "/ok", "https").complete(QUESTION)


@pytest.fixture
def proxy(monkeypatch):
    """A company's proxy: 403 for everything, as one does for 127.0.0.1."""

    class Proxy(JsonAnswers, BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.seen.append(self.path)
            self.send_error(403, "Access denied by proxy")

    with serving(Proxy) as httpd:
        httpd.seen = []
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{httpd.server_port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield httpd


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_8_loopback_never_goes_through_a_proxy(server, proxy, host):
    here = Endpoint(f"http://{host}:{server.server_port}/ok", KEY, "openai", timeout=SECONDS)
    assert here.complete(QUESTION) == "Ada."
    assert proxy.seen == []


def test_8_other_machines_do(server, proxy):
    with pytest.raises(Unauthorized):
        Endpoint("http://elsewhere.invalid/ok", KEY, "openai", timeout=SECONDS).complete(QUESTION)
    assert proxy.seen == ["http://elsewhere.invalid/ok"]
    assert requests.utils.getproxies()["http"]
