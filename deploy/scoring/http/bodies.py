"""The request bodies as models: which fields there are, which values they take, and which change nothing.

A null counts as absent everywhere, as in OpenAI's clients. An unknown field is refused by name, because a
parameter that is ignored in silence is a defect that is hard to find. `NEUTRAL` and `IGNORED` are the fields
that common clients send although they change no answer here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from deploy.scoring.engine import GenerationRequest
from deploy.scoring.http.json_schemas import problem_of

DEFAULT_MAX_TOKENS = 256
NO_LIMIT, MANY_TOKENS = -1, 1 << 31  # -1: as many tokens as the context leaves
MAX_INPUTS = 64  # texts of one contract A request
MAX_TURNS = 1000  # messages of one conversation
MAX_FIELDS = 200  # of one object: each unknown one costs an error
MAX_STOPS, MAX_STOP_CHARACTERS = 4, 256
SEED_BITS = 64

NEUTRAL_SAMPLING: dict[str, Sequence[Any]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "use_beam_search": (False,),
}
NEUTRAL_OPENAI: dict[str, Sequence[Any]] = NEUTRAL_SAMPLING | {
    "n": (1,),
    "best_of": (1,),
    "logit_bias": ({},),
    "store": (False,),
    "echo": (False,),
}
# They describe the request to its sender or to OpenAI's own service; no answer depends on them.
IGNORED_OPENAI = frozenset({"metadata", "safety_identifier", "prompt_cache_key", "service_tier"})


def _unlimited(tokens: Any) -> Any:
    return MANY_TOKENS if tokens == NO_LIMIT else tokens


def _stops(stop: Any) -> Any:
    """One or more strings as a list. An empty one stops nothing; lm-eval sends it for a missing end token."""
    given = [stop] if isinstance(stop, str) else stop
    return [each for each in given if each != ""] if isinstance(given, list) else given


Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
Tokens = Annotated[
    int,
    Field(ge=1),
    BeforeValidator(_unlimited, json_schema_input_type=Literal[-1] | Annotated[int, Field(ge=1)]),
]
Seed = Annotated[int, Field(ge=-(1 << SEED_BITS - 1), lt=1 << SEED_BITS - 1)]
MaybeEmpty = Annotated[str, Field(max_length=MAX_STOP_CHARACTERS)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stops = Annotated[
    list[StopString],
    Field(max_length=MAX_STOPS),
    BeforeValidator(
        _stops, json_schema_input_type=MaybeEmpty | Annotated[list[MaybeEmpty], Field(max_length=MAX_STOPS)]
    ),
]


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


class Turn(Body):
    """A message. `developer` is the newer name of the system; no chat template has a place for `name`."""

    NEUTRAL = {"type": ("text", "message"), "tool_calls": ([],), "refusal": ("",)}
    IGNORED = frozenset({"name", "annotations", "reasoning", "reasoning_content"})
    role: Annotated[
        Literal["system", "user", "assistant"],
        BeforeValidator(
            lambda role: "system" if role == "developer" else role,
            json_schema_input_type=Literal["system", "developer", "user", "assistant"],
        ),
    ]
    content: Annotated[str, BeforeValidator(_joined, json_schema_input_type=str | list[TextPart])]


def _few(turns: Any) -> Any:
    """Before the turns are looked at one by one."""
    if isinstance(turns, list) and len(turns) > MAX_TURNS:
        raise PydanticCustomError("too_long", "at most {most} items, and there are more", {"most": MAX_TURNS})
    return turns


Conversation = Annotated[
    list[Turn],
    Field(min_length=1, max_length=MAX_TURNS),
    BeforeValidator(
        _few, json_schema_input_type=Annotated[list[Turn], Field(min_length=1, max_length=MAX_TURNS)]
    ),
]


class Parameters(Body):
    """Contracts A and B. `return_full_text` is accepted, but only the answer is returned."""

    NEUTRAL = NEUTRAL_SAMPLING
    temperature: Temperature | None = None
    top_p: TopP = 1.0
    max_new_tokens: Tokens = DEFAULT_MAX_TOKENS
    do_sample: bool | None = None
    seed: Seed | None = None
    return_full_text: bool = False

    def request(self, prompt: Sequence[int]) -> GenerationRequest:
        """`do_sample` without a temperature means temperature 1; a temperature works without `do_sample`."""
        asked = self.temperature if self.temperature is not None else float(self.do_sample or False)
        temperature = 0.0 if self.do_sample is False else asked
        return GenerationRequest(tuple(prompt), self.max_new_tokens, temperature, self.top_p, self.seed)


class BodyA(Body):
    input_data: Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)]
    params: Parameters = Parameters()


class InputB(Body):
    input_string: Conversation
    parameters: Parameters = Parameters()


class BodyB(Body):
    input_data: InputB


class StreamOptions(Body):
    NEUTRAL = {"include_obfuscation": (False,), "continuous_usage_stats": (False,)}
    include_usage: bool = False


class OpenAiBody(Body):
    """What OpenAI's two routes share. `model` and `user` may be anything: one model is served."""

    NEUTRAL = NEUTRAL_OPENAI
    IGNORED = IGNORED_OPENAI
    model: str = ""
    user: str = ""
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    max_tokens: Tokens | None = None
    seed: Seed | None = None
    stop: Stops = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    def request(self, prompt: Sequence[int]) -> GenerationRequest:
        tokens = self.max_tokens or DEFAULT_MAX_TOKENS
        return GenerationRequest(
            tuple(prompt), tokens, self.temperature, self.top_p, self.seed, tuple(self.stop)
        )


class JsonSchema(Body):
    """`strict` false is held to the schema as well."""

    IGNORED = frozenset({"description"})
    name: str
    schema_: Annotated[dict[str, Any], Field(alias="schema")] = {}
    strict: bool = False

    @field_validator("schema_")
    @classmethod
    def _enforceable(cls, schema: dict[str, Any]) -> dict[str, Any]:
        if problem := problem_of(schema):
            raise PydanticCustomError("schema", "{problem}", {"problem": problem})
        return schema


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

    def schema_text(self) -> str | None:
        """The JSON schema of the answer as text; None for an answer in any form."""
        if self.type == "text":
            return None
        return json.dumps(self.json_schema.schema_ if self.json_schema else {"type": "object"})


class ChatBody(OpenAiBody):
    """OpenAI's chat completion.

    `add_generation_prompt`, `return_token_ids` and `prompt_logprobs` are vLLM's. `prompt_logprobs` 0 adds the
    log-likelihood of each token of the prompt. Without `add_generation_prompt` the prompt ends with the last
    message, which may then be the assistant's, such as a reference answer to score.
    """

    NEUTRAL = NEUTRAL_OPENAI | {
        "logprobs": (False,),
        "top_logprobs": (0,),
        "tools": ([],),
        "functions": ([],),
        "tool_choice": ("none", "auto"),  # there are no tools to choose from
        "function_call": ("none", "auto"),
        "parallel_tool_calls": (True, False),
        "modalities": (["text"],),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "chat_template_kwargs": ({}, {"enable_thinking": False}),
        "continue_final_message": (False,),
        "features": ({},),
    }
    IGNORED = IGNORED_OPENAI | {"chat_id", "id", "session_id"}  # Open WebUI's own names of a chat
    messages: Conversation
    max_completion_tokens: Tokens | None = None
    return_token_ids: bool = False
    add_generation_prompt: bool = True
    prompt_logprobs: Literal[0] | None = None
    response_format: ResponseFormat = ResponseFormat(type="text")

    def request(self, prompt: Sequence[int]) -> GenerationRequest:
        asked = super().request(prompt)
        return replace(
            asked,
            max_tokens=self.max_completion_tokens or asked.max_tokens,
            score_prompt=self.prompt_logprobs is not None,
            json_schema=self.response_format.schema_text(),
        )


class CompletionBody(OpenAiBody):
    """OpenAI's older completion. The prompt is one user turn, because a chat model is served.

    OpenAI's clients may send it as a list of one.
    """

    NEUTRAL = NEUTRAL_OPENAI | {"suffix": ("",)}
    prompt: Annotated[
        str,
        BeforeValidator(
            lambda prompt: prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt,
            json_schema_input_type=str | Annotated[list[str], Field(min_length=1, max_length=1)],
        ),
    ]
