"""`response_format`: an answer is JSON, and follows its schema, on both engines that hold answers to one."""

from typing import Literal

import openai
import pytest
from guided_engines import GUIDED, guided_engine, sdk_of
from json_schemas import problem_of_answer, random_schemas
from pydantic import BaseModel, Field
from tiny import answers, new_tokenizer, prompts_of, user

from deploy.scoring.engine import GenerationRequest
from deploy.scoring.grammars import json_grammar
from deploy.scoring.http.json_schemas import MANY as MOST_CHARACTERS
from deploy.scoring.http.json_schemas import MAX_PARTS, MAX_VALUES, problem_of

QUESTIONS = ["Who founded it?", "The quick brown fox", "one two three"]
HELLO = user("Who founded the fox?")
FEW, MANY = 32, 500  # schemas
AT_ONCE = 32
MOST_TOKENS = 400


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer()


@pytest.fixture(scope="module", params=GUIDED)
def engine(request, tokenizer, tmp_path_factory):
    with guided_engine(request.param, tokenizer, tmp_path_factory.mktemp("models")) as made:
        yield made


@pytest.fixture(scope="module")
def sdk(engine):
    with sdk_of(engine) as made:
        yield made


def asked(engine, tokenizer, schemas):
    """One request for each schema; every second is sampled."""
    prompts = prompts_of(tokenizer, QUESTIONS)
    for at, schema in enumerate(schemas):
        grammar = json_grammar(schema)
        engine.require_grammar(grammar)
        sampling = {"temperature": 1.0, "seed": at} if at % 2 else {}
        yield GenerationRequest(prompts[at % len(prompts)], MOST_TOKENS, grammar=grammar, **sampling)


def wrong_answers(engine, tokenizer, schemas):
    """What is wrong with which answer."""
    assert [problem for schema in schemas if (problem := problem_of(schema))] == []
    requests = list(asked(engine, tokenizer, schemas))
    found = [
        answer
        for start in range(0, len(requests), AT_ONCE)
        for answer in answers(engine, requests[start : start + AT_ONCE])
    ]
    for schema, (text, generation) in zip(schemas, found, strict=True):
        problem = problem_of_answer(schema, text) if generation.finish_reason == "stop" else "cut off"
        if problem:
            yield problem, text, schema


def test_answers_follow_random_schemas(engine, tokenizer):
    assert list(wrong_answers(engine, tokenizer, random_schemas(FEW))) == []


@pytest.mark.slow
def test_answers_follow_five_hundred_random_schemas(engine, tokenizer):
    assert list(wrong_answers(engine, tokenizer, random_schemas(MANY, seed=1))) == []


class Founder(BaseModel, extra="forbid"):
    name: str = Field(max_length=12)
    kind: Literal["person", "big company"]
    year: int = Field(ge=1900, le=2030)
    partners: list[str] = Field(max_length=0)


def test_the_openai_sdk_reads_an_answer_into_a_class(sdk):
    found = sdk.chat.completions.parse(
        model="tiny", messages=HELLO, response_format=Founder, max_tokens=MOST_TOKENS
    )
    assert isinstance(found.choices[0].message.parsed, Founder)
    assert found.choices[0].finish_reason == "stop"


def test_a_stream_follows_its_schema_beside_plain_answers(sdk):
    plain = sdk.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20)
    form = {"type": "json_schema", "json_schema": {"name": "found", "schema": Founder.model_json_schema()}}
    request = {"model": "tiny", "messages": HELLO, "max_tokens": MOST_TOKENS, "stream": True}
    with sdk.chat.completions.create(**request, response_format=form) as stream:
        pieces = [next(stream)]
        again = sdk.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20)
        pieces += list(stream)
    assert again.choices[0].message.content == plain.choices[0].message.content
    Founder.model_validate_json("".join(piece.choices[0].delta.content or "" for piece in pieces))


def test_an_answer_that_reaches_max_tokens_says_so(sdk):
    found = sdk.chat.completions.create(
        model="tiny", messages=HELLO, response_format={"type": "json_object"}, max_tokens=2
    )
    assert (found.choices[0].message.content[0], found.choices[0].finish_reason) == ("{", "length")


def test_a_format_of_text_changes_nothing(sdk):
    request = {"model": "tiny", "messages": HELLO, "max_tokens": 20}
    plain, text = (
        sdk.chat.completions.create(**request, **form).choices[0].message.content
        for form in ({}, {"response_format": {"type": "text"}})
    )
    assert plain == text


def nested(depth, keyword="items"):
    schema = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", keyword: schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"not": {"type": "string"}}, "$: answers cannot be held to 'not'"),
        ({"properties": {"a": {"uniqueItems": True}}}, "$.properties.a: answers cannot be held to"),
        ({"items": {"anyOf": [{"format": "phone"}]}}, "$.items.anyOf[0]: the format 'phone' is none of"),
        ({"type": "whatever"}, "is no JSON schema: $.type: 'whatever'"),
        ({"maxLength": MOST_CHARACTERS + 1}, f"more than {MOST_CHARACTERS} characters or items"),
        (nested(40), "is deeper than"),
        (nested(5000), "is deeper than"),
        (nested(5000, "not"), "nested too deeply"),
        ({"properties": {str(at): {} for at in range(MAX_PARTS + 1)}}, f"more than {MAX_PARTS} parts"),
        ({"enum": list(range(MAX_VALUES + 1))}, f"or {MAX_VALUES} values"),
    ],
)
def test_a_schema_that_no_engine_enforces_is_refused(schema, words):
    assert words in problem_of(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(a{0,1000}){0,1000}$"},
        {"type": "string", "pattern": "^(" + "|".join(f"(x{at}y*)*" for at in range(1000)) + ")*z$"},
        {"type": "array", "items": {"type": "string", "pattern": "^(.*a){20}$"}, "minItems": 900},
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"type": "object", "required": ["a"], "properties": {"a": {"minimum": 5, "maximum": 3}}},
        {
            "type": "array",
            "items": {"$ref": "#/$defs/a"},
            "$defs": {"a": {"type": "array", "items": {"$ref": "#"}}},
        },
    ],
)
def test_a_hostile_schema_ends_and_the_engine_goes_on(sdk, schema):
    form = {"type": "json_schema", "json_schema": {"name": "found", "schema": schema}}
    request = {"model": "tiny", "messages": HELLO, "max_tokens": 30}
    try:
        sdk.chat.completions.create(**request, response_format=form)
    except openai.BadRequestError as error:
        assert error.param.startswith("response_format")
    assert sdk.chat.completions.create(**request).choices[0].message.content
