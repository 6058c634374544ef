"""Traces of a flow on Agent Framework: off by default, and without text unless it is asked for."""

import json
import subprocess
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from both_hosts import ENVIRONMENT, ROOT, Host, Request, needs_agents
from chromium import free_ports
from loopback import JsonAnswers, serving
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from scripted_endpoint import KEY, scripted_endpoint
from waiting import until

from custom_connections.store import store_connection
from phi3flow.app.services import served_flow, with_flow_key
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.service_stack import Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED
from phi3flow.phi3_contract import Endpoint

pytestmark = needs_agents
TEXT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
IS_OFF = """
import os, sys
from pathlib import Path
from agents.host import served_app
from agent_framework.observability import OBSERVABILITY_SETTINGS
app = served_app(Path(sys.argv[1]))
print(OBSERVABILITY_SETTINGS.ENABLED, "opentelemetry.sdk" in sys.modules)
"""


class Collector(JsonAnswers, BaseHTTPRequestHandler):
    """Keeps the bodies that a server's exporter sends it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((self.path, body))
        self.send("application/x-protobuf", b"")


@pytest.fixture
def collector(monkeypatch):
    with serving(Collector) as server:
        server.bodies = []
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield server


@pytest.fixture(scope="module")
def flow(home):
    """The chat flow's folder, with its connection in the store of `home`."""
    with scripted_endpoint() as server, home.entered():
        store_connection("phi3-tuned", Endpoint(server.url(), KEY, "openai", model="phi3", timeout=20))
        yield resolve_flow("chat", home.folder.parent / "chat")


@contextmanager
def chat(home, flow):
    (port,) = free_ports(1)
    chosen = Settings(
        flow_port=port, flow_host="agents", promptflow_home=home.folder, agents_environment=ENVIRONMENT
    )
    settings = with_flow_key(chosen)
    with home.entered(), Stack(served_flow(flow, TUNED, settings, home.folder.parent / "traced.log")):
        yield Host(port, settings.flow_key)


def spans(collector):
    """The spans that arrived, by name."""
    found = {}
    for _, body in list(collector.bodies):
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                found |= {span.name: (service["service.name"], span) for span in scope.spans}
    return found


def attributes(span):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_request_is_a_trace_without_a_word_of_it(home, flow, collector):
    stream = (("Accept", "text/event-stream"),)
    with chat(home, flow) as host:
        host.get(Request(b'{"question": "a very private question", "temperature": 0.5}', headers=stream))
        until(lambda: {"workflow.run", "executor.process ask", "chat phi3"} <= set(spans(collector)))
        host.get(Request(b'{"question": "too long"}'))
        until(lambda: spans(collector)["chat phi3"][1].status.code == 2)
    arrived = b"".join(body for _, body in collector.bodies)
    assert {path for path, _ in collector.bodies} == {"/v1/traces"}
    assert all(secret not in arrived for secret in (b"private", b"too long", b"context", KEY.encode()))
    service, asked = spans(collector)["chat phi3"]
    told = attributes(asked)
    assert service == "chat" and told["error.type"] == "TooLong" and asked.status.message == ""
    assert (told["gen_ai.operation.name"], told["gen_ai.request.model"]) == ("chat", "phi3")


def test_one_trace_holds_request_node_and_question(home, flow, collector):
    with chat(home, flow) as host:
        host.get(Request(b'{"question": "hi", "temperature": 0.5}'))
        until(lambda: {"workflow.run", "executor.process ask", "chat phi3"} <= set(spans(collector)))
    by_name = {name: span for name, (_, span) in spans(collector).items()}
    root, node, asked = (by_name[name] for name in ("workflow.run", "executor.process ask", "chat phi3"))
    assert not root.parent_span_id and asked.parent_span_id == node.span_id
    assert {root.trace_id} == {node.trace_id, asked.trace_id}
    assert attributes(asked)["gen_ai.request.temperature"] == 0.5


def test_the_text_is_in_it_where_asked_for(home, flow, collector, monkeypatch):
    monkeypatch.setenv(TEXT, "true")
    turns = [{"inputs": {"question": "before"}, "outputs": {"answer": "that"}}]
    body = {"question": "Größe?", "system": "be brief", "chat_history": turns}
    with chat(home, flow) as host:
        host.get(Request(json.dumps(body).encode()))
        until(lambda: "chat phi3" in spans(collector))
    told = attributes(spans(collector)["chat phi3"][1])
    asked = [
        (message["role"], message["parts"][0]["content"])
        for message in json.loads(told["gen_ai.input.messages"])
    ]
    assert asked == [("system", "be brief"), ("user", "before"), ("assistant", "that"), ("user", "Größe?")]
    (answer,) = json.loads(told["gen_ai.output.messages"])
    said = "system: be brief user: before assistant: that user: Größe? "
    assert answer == {"role": "assistant", "parts": [{"type": "text", "content": said}]}


def test_it_is_off_by_default(flow):
    connections = json.dumps({"phi3-tuned": {"configs": {"endpoint": "http://127.0.0.1:1"}}})
    ran = subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-P", "-c", IS_OFF, flow],
        env={"PYTHONPATH": str(ROOT), "PHI3FLOW_FLOW_KEY": "k", "PHI3FLOW_CONNECTIONS": connections},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["False", "False"]
