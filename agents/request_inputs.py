"""From a request's body to a flow's inputs, with Prompt flow's defaults, conversions and refusals.

Clients read these sentences, and `phi3_contract` tells errors apart by them, so they are Prompt flow's.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from agents.failures import Failed
from agents.flow_file import Flow


def body_of(raw: bytes, flow: Flow) -> Any:
    """The JSON of a request; a flow with one input takes text, too. Raises Failed."""
    if not flow.inputs:
        return {}
    try:
        return json.loads(raw)
    except ValueError:
        if len(flow.inputs) > 1:
            raise Failed(
                "Promptflow executor received non json data, but there's more than 1 input fields, "
                "please use json request data instead."
            ) from None
        return {next(iter(flow.inputs)): str(raw, "utf-8")}


def inputs_of(flow: Flow, body: Any) -> dict[str, Any]:
    """All inputs of the flow in their types; unknown fields of the body are dropped. Raises Failed.

    A body that is no object raises what Python raises for it, as in Prompt flow.
    """
    missing = [name for name, each in flow.inputs.items() if each.default is None and name not in body]
    if missing:
        raise Failed(f"Required input fields {missing} are missing in request data {body!r}")
    given = dict(body or {})
    return {
        name: _converted(name, given.get(name, each.default), each.type) for name, each in flow.inputs.items()
    }


def _converted(name: str, value: Any, kind: str) -> Any:
    try:
        return CONVERSIONS.get(kind, _as_it_is)(value)
    except json.JSONDecodeError as error:
        raise Failed(
            f"Failed to parse the flow input. The value for flow input '{name}' was interpreted as JSON "
            f"string since its type is '{kind}'. However, the value '{value}' is invalid for JSON parsing. "
            f"Error details: ({type(error).__name__}) {error}. "
            "Please make sure your inputs are properly formatted."
        ) from None
    except Exception:  # as in Prompt flow, whatever a conversion raises
        raise Failed(
            f"The input for flow is incorrect. The value for flow input '{name}' does not match the expected "
            f"type '{kind}'. Please change flow input type or adjust the input value in your input data."
        ) from None


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[value.lower()]


def _list(value: Any) -> list[Any]:
    value = json.loads(value) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _object(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _as_it_is(value: Any) -> Any:
    return value


CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "int": int,
    "double": float,
    "bool": _truth,
    "string": str,
    "list": _list,
    "object": _object,
}
