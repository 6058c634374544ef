"""An endpoint that takes Entra tokens: fetched when asked, kept while they live, never stored."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from loopback import JsonAnswers, serving

from custom_connections.store import configs_of
from phi3flow import phi3_contract
from phi3flow.phi3_contract import Endpoint, Unauthorized

AZ = """#!/bin/sh
echo asked >> {log}
echo "{{\\"accessToken\\": \\"token-$(wc -l < {log})\\", \\"expires_on\\": $(($(date +%s) + {seconds}))}}"
"""
HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def bearers(isolated: None) -> Iterator[tuple[str, list[str]]]:
    """An endpoint's address, and what it was given as Authorization."""
    seen: list[str] = []

    class Greeting(JsonAnswers, BaseHTTPRequestHandler):
        def do_POST(self):
            self.asked()
            seen.append(self.headers["Authorization"])
            self.answer(200, {"output": "Hello."})

    with serving(Greeting) as server:
        yield f"http://127.0.0.1:{server.server_port}/score", seen


def log_in(folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """An `az` whose tokens live for so long, and are numbered."""
    script = folder / "az"
    script.write_text(AZ.format(log=folder / "log", seconds=seconds))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    phi3_contract._entra.clear()


@pytest.mark.parametrize(("seconds", "wanted"), [(3600, 1), (200, 2)])
def test_a_token_is_fetched_when_asked_and_again_before_it_expires(
    bearers, tmp_path, monkeypatch, seconds, wanted
):
    url, seen = bearers
    log_in(tmp_path, monkeypatch, seconds)
    endpoint = Endpoint.from_connection({"endpoint": url, "auth": "entra"}, {"key": "entra"})
    assert [endpoint.complete(HELLO), endpoint.complete(HELLO)] == ["Hello.", "Hello."]
    assert seen == ["Bearer token-1", f"Bearer token-{wanted}"]
    phi3_contract._entra.clear()


def test_a_connection_says_how_its_endpoint_is_asked_and_holds_no_token():
    endpoint = Endpoint("https://any.invalid/score", "entra", auth="entra")
    assert configs_of(endpoint)["auth"] == "entra"
    assert Endpoint.from_connection(configs_of(endpoint), {"key": endpoint.key}) == endpoint
    assert "auth" not in configs_of(Endpoint("https://any.invalid/score", "k"))


def test_without_a_login_the_way_to_one_is_said(bearers, tmp_path, monkeypatch):
    log_in(tmp_path, monkeypatch, 3600)
    (tmp_path / "az").write_text("#!/bin/sh\necho Please run az login >&2\nexit 1\n")
    endpoint = Endpoint(bearers[0], "entra", auth="entra")
    with pytest.raises(Unauthorized, match="no Entra token for the endpoint") as refused:
        endpoint.complete(HELLO)
    assert refused.value.hint == "az login"
