"""Rows with tools, from the file to the endpoint: a model that learned to call, calls.

So small a model learns when to call, and how; which part was asked for it guesses.
"""

import json
from dataclasses import replace

import pytest
from counting import RECIPE, SHAPE
from guided_engines import sdk_of

from deploy.scoring.load import load
from phi3flow.core.jsonl import write_jsonl
from training.finetune import finetune

PARTS = 8
WORDS = "I only know prices."
PRICE = {
    "type": "function",
    "function": {
        "name": "price",
        "parameters": {"type": "object", "properties": {"part": {"type": "integer"}}, "required": ["part"]},
    },
}


def asked(part):
    return [{"role": "user", "content": f"What is the price of part {part}?"}]


def calling(part):
    function = {"name": "price", "arguments": json.dumps({"part": part})}
    call = {"id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def rows():
    """A call for each part, and words where no tool helps."""
    yield from ({"messages": [*asked(part), calling(part)], "tools": [PRICE]} for part in range(PARTS))
    for name in ("Ada", "Ben"):
        question = {"role": "user", "content": f"Who is {name}?"}
        answer = {"role": "assistant", "content": WORDS}
        yield {"messages": [question, answer], "tools": [PRICE]}


@pytest.mark.slow
def test_a_model_that_was_trained_to_call_calls(tmp_path):
    for name in ("train", "val"):
        write_jsonl(tmp_path / f"{name}.jsonl", list(rows()))
    shape = replace(SHAPE, hidden_size=64, context=512)
    recipe = replace(RECIPE, steps=200, eval_every=100, max_length=512, scratch=shape, learning_rate=5e-3)
    made = finetune(tmp_path, recipe, tmp_path / "tuned")
    engine = load(made.folder, lambda: None, "transformers")
    try:
        with sdk_of(engine) as sdk:

            def answer(messages):
                found = sdk.chat.completions.create(
                    model="tiny", messages=messages, tools=[PRICE], max_tokens=100
                )
                return found.choices[0].message

            for part in range(PARTS):
                [call] = answer(asked(part)).tool_calls
                given = json.loads(call.function.arguments)
                assert call.function.name == "price" and given["part"] in range(PARTS)
            said = answer([{"role": "user", "content": "Who is Ada?"}])
            assert (said.content, said.tool_calls) == (WORDS, None)
    finally:
        engine.close()
