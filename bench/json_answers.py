"""What does a JSON schema cost? Tokens a second with and without one, in turn, on the same engine.

    make bench-json       ARGS="MODEL --rounds N"

Sampled answers of 64 tokens at most, one at a time and sixteen at once. Ends with one JSON object: medians
and, for each, with over without.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from statistics import median

from deploy.scoring.engine import GenerationRequest
from deploy.scoring.grammars import json_grammar
from deploy.scoring.load import load
from phi3flow.chats.chat_template import encode_prompt

SCHEMA = {
    "type": "object",
    "properties": {
        "products": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 40}, "price": {"type": "integer"}},
                "required": ["name", "price"],
                "additionalProperties": False,
            },
            "minItems": 20,
        }
    },
    "required": ["products"],
    "additionalProperties": False,
}
TOKENS, CLIENTS = 64, (1, 16)
QUESTION = [{"role": "user", "content": "List everything that you sell, with its price."}]


async def speed(engine, prompt, clients, grammar):
    """Tokens a second of `clients` requests at once."""
    began = time.perf_counter()
    asked = [GenerationRequest(prompt, TOKENS, 1.0, 1.0, seed, grammar=grammar) for seed in range(clients)]
    generations = [engine.submit(request) for request in asked]
    await asyncio.gather(*(generation.text() for generation in generations))
    return sum(generation.completion_tokens for generation in generations) / (time.perf_counter() - began)


async def main(model, rounds):
    engine = load(model, lambda: None)
    try:
        prompt, grammar = tuple(encode_prompt(engine.tokenizer, QUESTION)), json_grammar(SCHEMA)
        engine.require_grammar(grammar)
        found = {}
        for clients in CLIENTS:
            await speed(engine, prompt, clients, grammar)  # loads what is loaded late
            pairs = [
                [await speed(engine, prompt, clients, which) for which in (grammar, None)]
                for _ in range(rounds)
            ]
            held, plain = (median(column) for column in zip(*pairs, strict=True))
            found[clients] = {
                "ours": round(held, 1),
                "baseline": round(plain, 1),
                "ratio": round(held / plain, 2),
            }
    finally:
        engine.close()
    return {"bench": "json-answers", "engine": type(engine).__name__, "tokens_per_s": found, "rounds": rounds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    print(json.dumps(asyncio.run(main(**vars(parser.parse_args())))))
