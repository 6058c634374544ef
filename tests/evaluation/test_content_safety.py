"""Content safety by azure-ai-evaluation's own client, against a loopback server that speaks for the project.

What the service itself says cannot be tested here: the server's replies have the shape that the client reads.
"""

import json
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from evaluation.metrics.content_safety import PACK, grade_safety, parse_project
from evaluation.report.comparison import compare_rows
from evaluation.report.render import render_html, summary_table
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.verdict.gate import load_gate
from phi3flow.core.errors import BadInput

TOKEN = "planted-token-0c5d"
HARMLESS, VIOLENT, BROKEN = "It is in Paris.", "Hit him.", "It is broken."


class Project(BaseHTTPRequestHandler):
    """Managed identity on GET; on POST one severity: 6 for violence in `VIOLENT`, else 0."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self):
        assert self.headers["X-IDENTITY-HEADER"] == "secret"
        self.reply(
            200, {"access_token": TOKEN, "expires_on": str(int(time.time()) + 3600), "token_type": "B"}
        )

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        assert self.path.startswith("/api/projects/mine/")
        harm = body["testing_criteria"][0]["name"]
        answer = body["data_source"]["source"]["content"]["item"]["response"]
        self.asked.append((harm, answer))
        if answer == BROKEN:
            self.reply(400, {"error": {"code": "bad", "message": "no"}})
            return
        severity = 6 if (harm, answer) == ("violence", VIOLENT) else 0
        self.reply(200, {"results": [{"metric": harm, "score": severity, "reason": "", "properties": {}}]})

    def reply(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def certificate(path):
    """A key and a certificate of its own making for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    kind = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, kind, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's URL, in an environment in which azure-identity signs in by managed identity."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Project) for _ in range(2)]
    pem = certificate(tmp_path / "loopback.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    identity, secure = servers
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{identity.server_address[1]}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "secret")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    yield f"https://127.0.0.1:{secure.server_address[1]}/api/projects/mine"
    for server in servers:
        server.shutdown()
        server.server_close()


def rows(*tuned):
    return [
        ScoredRow(i, f"q{i}", None, asked(i), HARMLESS, Answer(HARMLESS, None), Answer(text, None))
        for i, text in enumerate(tuned, 1)
    ]


def asked(number):
    """Another question for each number: copies of one would count as one."""
    names = ("Ada", "Ben", "Cem", "Dua", "Eva", "Fay", "Gus", "Hal")
    return [{"role": "user", "content": f"{names[number % 8]} {number} {names[number // 8]}: where is it?"}]


def test_harm_that_tuning_added_is_a_regression_of_safety(project, tmp_path):
    made = rows(*[HARMLESS] * 9, *[VIOLENT] * 6, BROKEN)
    found = grade_safety(made, parse_project(project), tmp_path)
    assert (found.n, found.failed, len(found.lost), found.gained) == (15, 1, 6, 0)
    assert (found.base, found.tuned) == (1.0, 0.6)
    assert {name: (one.base, one.tuned) for name, one in found.slices.items()} == {
        "violence": (15, 9),
        "sexual": (15, 15),
        "self harm": (15, 15),
        "hate unfairness": (15, 15),
    }
    assert found.lost[0].slice == "violence"
    assert {harm for harm, _ in Project.asked} == {"violence", "sexual", "self_harm", "hate_unfairness"}
    report = compare_rows(made, load_gate(), packs={PACK: found})
    assert report.verdict == "hold"
    assert report.reasons[0].startswith("Content safety: tuned passes 60.0")
    assert VIOLENT in render_html(report, made)
    assert "content safety" in summary_table(report)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("https://x.example/api/projects/p", "https://x.example/api/projects/p"),
        ("s/g/p", {"subscription_id": "s", "resource_group_name": "g", "project_name": "p"}),
    ],
)
def test_both_kinds_of_project_can_be_named(text, parsed):
    assert parse_project(text) == parsed


@pytest.mark.parametrize("text", ["p", "s//p", "http://x.example/api/projects/p", "https://x.example/p"])
def test_what_names_no_project_is_bad_input(text):
    with pytest.raises(BadInput, match="names no project"):
        parse_project(text)
