"""The request bodies as models: which fields there are, which values they take, and which change nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from deploy.scoring.engine import GenerationRequest
from deploy.scoring.grammars import json_grammar, tool_grammar
from deploy.scoring.http.body import Body
from deploy.scoring.http.response_format import ResponseFormat
from deploy.scoring.http.tools import Choice, ToolChoice, Tools
from deploy.scoring.http.turns import ChatConversation, Conversation
from phi3flow.chats.call_form import CallForm

DEFAULT_MAX_TOKENS = 256
NO_LIMIT, MANY_TOKENS = -1, 1 << 31  # -1: as many tokens as the context leaves
MAX_INPUTS = 64  # texts of one contract A request
MAX_STOPS, MAX_STOP_CHARACTERS = 4, 256
MAX_CALLS = 16  # of one answer
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


class Parameters(Body):
    """Contracts A and B. `return_full_text` is accepted, but only the answer is returned."""

    NEUTRAL: ClassVar = NEUTRAL_SAMPLING
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
    NEUTRAL: ClassVar = {"include_obfuscation": (False,), "continuous_usage_stats": (False,)}
    include_usage: bool = False


class OpenAiBody(Body):
    """What OpenAI's two routes share. `model` and `user` may be anything: one model is served."""

    NEUTRAL: ClassVar = NEUTRAL_OPENAI
    IGNORED: ClassVar = IGNORED_OPENAI
    model: str = ""
    user: str = ""
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    max_tokens: Tokens | None = None
    seed: Seed | None = None
    stop: Stops = Field(default_factory=list)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    def request(self, prompt: Sequence[int]) -> GenerationRequest:
        tokens = self.max_tokens or DEFAULT_MAX_TOKENS
        return GenerationRequest(
            tuple(prompt), tokens, self.temperature, self.top_p, self.seed, tuple(self.stop)
        )


class ChatBody(OpenAiBody):
    """OpenAI's chat completion.

    `add_generation_prompt`, `return_token_ids` and `prompt_logprobs` are vLLM's. `prompt_logprobs` 0 adds the
    log-likelihood of each token of the prompt. Without `add_generation_prompt` the prompt ends with the last
    message, which may then be the assistant's, such as a reference answer to score.
    """

    NEUTRAL: ClassVar = NEUTRAL_OPENAI | {
        "logprobs": (False,),
        "top_logprobs": (0,),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "chat_template_kwargs": ({}, {"enable_thinking": False}),
        "continue_final_message": (False,),
        "features": ({},),
    }
    IGNORED: ClassVar = IGNORED_OPENAI | {"chat_id", "id", "session_id"}  # Open WebUI's own names of a chat
    messages: ChatConversation
    max_completion_tokens: Tokens | None = None
    return_token_ids: bool = False
    add_generation_prompt: bool = True
    prompt_logprobs: Literal[0] | None = None
    response_format: ResponseFormat = ResponseFormat(type="text")
    tools: Tools = Field(default_factory=list)
    tool_choice: Choice = Field(default_factory=lambda: ToolChoice(type="auto"))
    parallel_tool_calls: bool = True

    @property
    def told_tools(self) -> list[dict[str, Any]]:
        """What the model is told of: nothing with the choice `none`, so that it answers in words."""
        return [] if self.tool_choice.type == "none" else [tool.told() for tool in self.tools]

    @property
    def held_by(self) -> str:
        """The field that holds the answer to a form."""
        return "tools" if self.told_tools else "response_format"

    def request(self, prompt: Sequence[int]) -> GenerationRequest:
        asked = super().request(prompt)
        return replace(
            asked,
            max_tokens=self.max_completion_tokens or asked.max_tokens,
            score_prompt=self.prompt_logprobs is not None,
        )

    def grammar(self, form: CallForm | None, tokens: Mapping[str, int]) -> str | None:
        """What the answer is held to; None for an answer in any form.

        `form` is how the model's template writes calls, None without tools; `tokens` are the template's own.
        """
        schema = self.response_format.schema_of_answer()
        if form is None:
            return json_grammar(schema) if schema is not None else None
        chosen = self.tool_choice.function
        tools = [tool for tool in self.tools if chosen is None or tool.function.name == chosen.name]
        return tool_grammar(
            form,
            {tool.function.name: tool.function.parameters for tool in tools},
            tokens,
            most=MAX_CALLS if self.parallel_tool_calls and chosen is None else 1,
            words=self.tool_choice.type == "auto",
            schema=schema,
        )


class CompletionBody(OpenAiBody):
    """OpenAI's older completion. The prompt is one user turn, because a chat model is served.

    OpenAI's clients may send it as a list of one.
    """

    NEUTRAL: ClassVar = NEUTRAL_OPENAI | {"suffix": ("",)}
    prompt: Annotated[
        str,
        BeforeValidator(
            lambda prompt: prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt,
            json_schema_input_type=str | Annotated[list[str], Field(min_length=1, max_length=1)],
        ),
    ]
