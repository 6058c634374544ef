"""The messages of a request: text alone, or with tools that were called and what they returned."""

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from deploy.scoring.http.body import Body

MAX_TURNS = 1000  # messages of one conversation
MAX_CALLS = 128  # of one message
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]  # OpenAI's rule
CallId = Annotated[str, Field(min_length=1, max_length=256)]


def _joined(content: Any) -> Any:
    """OpenAI's list of text parts as one text; anything else is left to the field's own check."""
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in content
    ):
        return "".join(part["text"] for part in content)
    return content


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


Content = Annotated[str, BeforeValidator(_joined, json_schema_input_type=str | list[TextPart])]


def _known_role(role: Any) -> Any:
    return "system" if role == "developer" else role


class Said(Body):
    """A message of any role."""

    NEUTRAL: ClassVar = {"type": ("text", "message"), "tool_calls": ([],), "refusal": ("",)}
    IGNORED: ClassVar = frozenset({"name", "annotations", "reasoning", "reasoning_content"})
    role: str
    content: Content

    def message(self) -> dict[str, Any]:
        """For the chat template."""
        return {"role": self.role, "content": self.content}


class Turn(Said):
    """A message. `developer` is the newer name of the system; no chat template has a place for `name`."""

    role: Annotated[
        Literal["system", "user", "assistant"],
        BeforeValidator(
            _known_role, json_schema_input_type=Literal["system", "developer", "user", "assistant"]
        ),
    ]


def _few(turns: Any) -> Any:
    """Before the turns are looked at one by one."""
    if isinstance(turns, list) and len(turns) > MAX_TURNS:
        raise PydanticCustomError("too_long", "at most {most} items, and there are more", {"most": MAX_TURNS})
    return turns


def _object(arguments: str) -> str:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PydanticCustomError("arguments", "is not the text of a JSON object")
    return arguments


class CalledFunction(Body):
    name: FunctionName
    arguments: Annotated[str, AfterValidator(_object)]

    def told(self) -> dict[str, Any]:
        """As templates want it: the arguments as an object."""
        return {"name": self.name, "arguments": json.loads(self.arguments)}


class Call(Body):
    """A call that the assistant made, as it was answered."""

    IGNORED: ClassVar = frozenset({"index"})  # of a stream's pieces, which some clients send back
    id: CallId
    type: Literal["function"]
    function: CalledFunction


class ChatTurn(Said):
    """A message of OpenAI's chat: an assistant may call tools, and a tool message has what one returned."""

    role: Annotated[
        Literal["system", "user", "assistant", "tool"],
        BeforeValidator(
            _known_role, json_schema_input_type=Literal["system", "developer", "user", "assistant", "tool"]
        ),
    ]
    content: Content = ""
    tool_calls: Annotated[list[Call], Field(max_length=MAX_CALLS, default_factory=list)]
    tool_call_id: CallId | None = None

    def message(self) -> dict[str, Any]:
        calls = [
            {"id": call.id, "type": "function", "function": call.function.told()} for call in self.tool_calls
        ]
        more: dict[str, Any] = {"tool_calls": calls} if calls else {}
        return super().message() | more | ({"tool_call_id": self.tool_call_id} if self.tool_call_id else {})


Conversation = Annotated[
    list[Turn],
    Field(min_length=1, max_length=MAX_TURNS),
    BeforeValidator(
        _few, json_schema_input_type=Annotated[list[Turn], Field(min_length=1, max_length=MAX_TURNS)]
    ),
]
ChatConversation = Annotated[
    list[ChatTurn],
    Field(min_length=1, max_length=MAX_TURNS),
    BeforeValidator(
        _few, json_schema_input_type=Annotated[list[ChatTurn], Field(min_length=1, max_length=MAX_TURNS)]
    ),
]
