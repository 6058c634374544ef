"""The request bodies in the OpenAPI document: FastAPI does not see them, they are read with a limit."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

REFERENCE = "#/components/schemas/{model}"


def body_schema(*models: type[BaseModel]) -> dict[str, Any]:
    """A route's `openapi_extra`: its body is one of `models`."""
    references = [{"$ref": REFERENCE.format(model=model.__name__)} for model in models]
    schema = references[0] if len(references) == 1 else {"oneOf": references}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def publish_schemas(app: FastAPI, *models: type[BaseModel]) -> None:
    """Add the schemas that `body_schema` refers to."""
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    app.openapi().setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
