"""`tools` and `tool_choice`: which functions the model may call, and which it must."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from deploy.scoring.http.body import Body
from deploy.scoring.http.json_schemas import MAX_NODES, enforceable, has_more_than
from deploy.scoring.http.turns import FunctionName

MAX_TOOLS = 128  # OpenAI's limit


class Function(Body):
    """`strict` false is held to the schema as well; without `parameters` there are none."""

    name: FunctionName
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: bool = False

    @field_validator("parameters")
    @classmethod
    def _enforceable(cls, schema: dict[str, Any]) -> dict[str, Any]:
        if schema.get("type", "object") != "object":
            raise PydanticCustomError("schema", "is no schema of an object")
        return enforceable(schema)


class Tool(Body):
    type: Literal["function"]
    function: Function

    def told(self) -> dict[str, Any]:
        """As a training row has it."""
        return self.model_dump(exclude={"function": {"strict"}}, exclude_unset=True)


class NamedFunction(Body):
    name: FunctionName


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class ToolChoice(Body):
    """The three words are objects of one field here."""

    type: Literal["none", "auto", "required", "function"]
    function: NamedFunction | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.function is not None) is not (self.type == "function"):
            raise PydanticCustomError("choice", "is one of none, auto, required, or a function by its name")
        return self


def _few(tools: Any) -> Any:
    """Before they are looked at one by one."""
    if isinstance(tools, list) and len(tools) > MAX_TOOLS:
        raise PydanticCustomError("too_long", "at most {most} tools, and there are more", {"most": MAX_TOOLS})
    if has_more_than(MAX_NODES, tools):
        what = "their schemas have more than {most} values together"
        raise PydanticCustomError("too_long", what, {"most": MAX_NODES})
    return tools


def _as_object(choice: Any) -> Any:
    return {"type": choice} if isinstance(choice, str) else choice


Tools = Annotated[
    list[Tool],
    Field(max_length=MAX_TOOLS),
    BeforeValidator(_few, json_schema_input_type=Annotated[list[Tool], Field(max_length=MAX_TOOLS)]),
]
Choice = Annotated[
    ToolChoice,
    BeforeValidator(_as_object, json_schema_input_type=Literal["none", "auto", "required"] | NamedTool),
]
