"""Traces of a served flow: OpenTelemetry, in the semantic conventions for generative AI. Off by default.

On with OpenTelemetry's own variable OTEL_EXPORTER_OTLP_ENDPOINT, the address of a collector. Questions and
answers are in them only with OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true.

    workflow.run                 a request: the framework's span
      executor.process ask       a node: the framework's span
        chat                     the endpoint behind it: model, settings, and the text if asked for

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from agent_framework.observability import (
    OBSERVABILITY_SETTINGS,
    disable_instrumentation,
    enable_instrumentation,
)
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from agents.failures import NodeFailed
from agents.promptflow_names import Connection
from phi3flow.core.errors import Phi3flowError

COLLECTOR = "OTEL_EXPORTER_OTLP_ENDPOINT"
TEXT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
SERVICE = "OTEL_SERVICE_NAME"
SETTINGS = {"temperature": "gen_ai.request.temperature", "max_tokens": "gen_ai.request.max_tokens"}


def start(name: str) -> None:
    """Send traces of the flow `name` to the collector that the environment names; without one, make none.

    Raises Phi3flowError in an environment without OpenTelemetry's SDK.
    """
    if not os.environ.get(COLLECTOR):
        disable_instrumentation()
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        no_sdk = f"{COLLECTOR} is set, and this environment has no OpenTelemetry SDK"
        raise Phi3flowError(no_sdk, hint="make agents") from None
    os.environ.setdefault(SERVICE, name)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    enable_instrumentation(enable_sensitive_data=_with_text())


class Asked:
    """The span of one question to an endpoint, while the answer comes."""

    def __init__(self, span: Span) -> None:
        self._span, self._text = span, _with_text() and span.is_recording()
        self._pieces: list[str] = []

    def question(self, arguments: Mapping[str, Any]) -> None:
        if self._text:
            self._span.set_attribute("gen_ai.input.messages", json.dumps(_messages(arguments)))

    def piece(self, text: Any) -> None:
        """A part of the answer, or all of it."""
        if self._text:
            self._pieces.append(str(text))

    def failed(self, error: BaseException) -> None:
        """The error's class; its message as well, where text may be kept: it may quote the answer."""
        cause = error.error if isinstance(error, NodeFailed) else error
        self._span.set_attribute("error.type", type(cause).__name__)
        self._span.set_status(Status(StatusCode.ERROR, str(error) if self._text else None))

    def end(self) -> None:
        if self._pieces:
            said = _message("assistant", "".join(self._pieces))
            self._span.set_attribute("gen_ai.output.messages", json.dumps([said]))


@contextmanager
def asking(connection: Connection | None, arguments: Mapping[str, Any]) -> Iterator[Asked]:
    """A span around a node that asks the endpoint of `connection`; nothing where nothing is traced."""
    if connection is None or not OBSERVABILITY_SETTINGS.ENABLED:
        yield Asked(trace.INVALID_SPAN)
        return
    with trace.get_tracer("phi3flow").start_as_current_span(
        _name(connection),
        kind=SpanKind.CLIENT,
        attributes=_attributes(connection, arguments),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        asked = Asked(span)
        asked.question(arguments)
        try:
            yield asked
        except Exception as error:
            asked.failed(error)
            raise
        finally:
            asked.end()


def _name(connection: Connection) -> str:
    return f"chat {connection.configs.get('model', '')}".rstrip()


def _attributes(connection: Connection, arguments: Mapping[str, Any]) -> dict[str, Any]:
    # Foundry's custom connections keep everything among the secrets.
    at = urlsplit(connection.configs.get("endpoint") or connection.secrets.get("endpoint") or "")
    found = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "phi3flow",
        "gen_ai.request.model": connection.configs.get("model"),
        "server.address": at.hostname,
        "server.port": at.port,
        **{name: arguments.get(argument) for argument, name in SETTINGS.items()},
    }
    return {name: value for name, value in found.items() if value is not None}


def _messages(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A chat flow's system prompt, history and question; for other nodes all that they were given."""
    if "question" not in arguments:
        return [_message("user", json.dumps(arguments, default=str))]
    system = arguments.get("system")
    turns = [turn for turn in arguments.get("chat_history") or [] if isinstance(turn, dict)]
    earlier = [
        _message(role, str((turn.get(part) or {}).get(field)))
        for turn in turns
        for role, part, field in (("user", "inputs", "question"), ("assistant", "outputs", "answer"))
    ]
    return [
        *([_message("system", str(system))] if system else []),
        *earlier,
        _message("user", str(arguments["question"])),
    ]


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _with_text() -> bool:
    return os.environ.get(TEXT, "").lower() == "true"
