"""What a served flow tells of itself at /swagger.json, as `pf flow serve` words it."""

import json
from typing import Any

from agents.flow_file import Flow, Input, Output

TYPES = {
    "int": "integer",
    "double": "number",
    "bool": "boolean",
    "string": "string",
    "list": "array",
    "object": "object",
    "image": "object",
}
ANYTHING: dict[str, Any] = {"type": "object", "additionalProperties": {}}
SAMPLES = "samples.json"


def swagger_of(flow: Flow) -> dict[str, Any]:
    """The OpenAPI document of a flow: its inputs and outputs with their types and defaults."""
    request: dict[str, Any] = {"type": "object"}
    if flow.inputs:
        properties = {name: _of_input(each) for name, each in flow.inputs.items()}
        request |= {"properties": properties, "required": list(flow.inputs)}
    answer: dict[str, Any] = {"type": "object"}
    if flow.outputs:
        shown = {name: each for name, each in flow.outputs.items() if not each.evaluation_only}
        answer["properties"] = {name: _field(each) for name, each in shown.items()}
    return {
        "openapi": "3.0.0",
        "info": _info(flow),
        "components": {"securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}}},
        "security": [{"bearerAuth": []}],
        "paths": {"/score": {"post": _score(flow, request, answer)}, "/feedback": _feedback()},
    }


def _info(flow: Flow) -> dict[str, str]:
    info = {"title": f"Promptflow[{flow.name}] API", "version": "1.0.0", "x-flow-name": flow.name}
    for name, asked in flow.inputs.items():
        if asked.is_chat_input:
            info |= {"x-chat-input": name, "x-flow-type": "chat"}
        if asked.is_chat_history:
            info["x-chat-history"] = name
    for name, given in flow.outputs.items():
        if given.is_chat_output:
            info["x-chat-output"] = name
    return info


def _score(flow: Flow, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": f"run promptflow: {flow.name} with an given input",
        "requestBody": {
            "description": "promptflow input data",
            "required": bool(flow.inputs),
            "content": {"application/json": {"schema": request, "example": _example(flow)}},
        },
        "responses": _responses(answer),
    }


def _feedback() -> dict[str, Any]:
    body = {"application/json": {"schema": ANYTHING}}
    described = {"description": "promptflow feedback data", "required": True, "content": body}
    flatten = {
        "name": "flatten",
        "in": "query",
        "description": "flatten the feedback data into traced data",
        "required": False,
        "schema": {"type": "boolean"},
    }
    post = {"summary": "collect promptflow feedback", "requestBody": described}
    return {"post": post | {"responses": _responses(ANYTHING)}, "parameters": [flatten]}


def _responses(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "200": {"description": "successful operation", "content": {"application/json": {"schema": answer}}},
        "400": {"description": "Invalid input"},
        "default": {"description": "unexpected error"},
    }


def _of_input(asked: Input) -> dict[str, Any]:
    return _field(asked) | ({"default": asked.default} if asked.default else {})


def _field(said: Input | Output) -> dict[str, Any]:
    field: dict[str, Any] = {"type": TYPES[said.type]}
    if said.description:
        field["description"] = said.description
    if said.type == "object":
        field["additionalProperties"] = {}
    if said.type == "list":
        field["items"] = ANYTHING
    return field


def _example(flow: Flow) -> Any:
    file = flow.folder / SAMPLES
    samples = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    return samples[0] if isinstance(samples, list) and samples else {}
