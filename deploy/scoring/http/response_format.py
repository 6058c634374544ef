"""`response_format`: text, any JSON object, or JSON of a schema."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from deploy.scoring.http.body import Body
from deploy.scoring.http.json_schemas import enforceable


class JsonSchema(Body):
    """`strict` false is held to the schema as well."""

    IGNORED: ClassVar = frozenset({"description"})
    name: str
    schema_: Annotated[
        dict[str, Any], Field(alias="schema", default_factory=dict), AfterValidator(enforceable)
    ]
    strict: bool = False


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.json_schema is not None) is not (self.type == "json_schema"):
            raise PydanticCustomError(
                "format", "json_schema goes with the type json_schema, and only with it"
            )
        return self

    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema of the answer; None for an answer in any form."""
        if self.type == "text":
            return None
        return self.json_schema.schema_ if self.json_schema else {"type": "object"}
