"""What every request body shares: fields that change nothing, and unknown ones, which are refused by name.

A null counts as absent everywhere, as in OpenAI's clients. An unknown field is refused by name, because a
parameter that is ignored in silence is a defect that is hard to find. `NEUTRAL` and `IGNORED` are the fields
that common clients send although they change no answer here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

MAX_FIELDS = 200  # of one object: each unknown one costs an error


class Body(BaseModel):
    """`NEUTRAL` fields are dropped where they have one of these values; `IGNORED` ones with any value."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    NEUTRAL: ClassVar[Mapping[str, Sequence[Any]]] = {}
    IGNORED: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _without_absent(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        if len(body) > MAX_FIELDS:
            raise ValueError(f"more than {MAX_FIELDS} fields")
        return {name: value for name, value in body.items() if not cls._changes_nothing(name, value)}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe what is dropped, too: a document that forbids it would be wrong."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        fields, required = schema["properties"], schema.get("required", ())
        fields |= {name: _or_null(field) for name, field in fields.items() if name not in required}
        neutral = {name: {"enum": [*values, None]} for name, values in cls.NEUTRAL.items()}
        schema["properties"] = neutral | {name: {} for name in sorted(cls.IGNORED)} | fields
        schema["additionalProperties"] = {"type": "null"}
        return schema

    @classmethod
    def _changes_nothing(cls, name: str, value: Any) -> bool:
        neutral = cls.NEUTRAL.get(name, ())
        return value is None or name in cls.IGNORED or any(_is_same(value, each) for each in neutral)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    null = {"type": "null"}
    return schema if null in schema.get("anyOf", ()) else {"anyOf": [schema, null]}


def _is_same(value: Any, neutral: Any) -> bool:
    """Python takes true for 1 and 0 for false; a client that sends one for the other means something else."""
    return isinstance(value, bool) is isinstance(neutral, bool) and bool(value == neutral)
