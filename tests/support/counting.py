"""Chats that a tiny model learns in seconds: what comes after a number; and the recipe for it."""

from training.recipes.recipe import Recipe, Scratch

SHAPE = Scratch(vocab_size=400, hidden_size=32, intermediate_size=64, layers=1, heads=2, context=128)
RECIPE = Recipe(steps=12, batch_size=8, learning_rate=1e-2, scratch=SHAPE, max_length=64, eval_every=6)


def chat(i: int) -> dict[str, list[dict[str, str]]]:
    question = {"role": "user", "content": f"What comes after {i}?"}
    return {"messages": [question, {"role": "assistant", "content": f"After {i} comes {i + 1}."}]}
