"""Does preference training raise the margin on other questions, and keep what the model can do?

    make bench-dpo
    make bench-dpo ARGS="runs/demo-real --recipe dpo-lora"

Needs the run folder: `make demo` or `make demo-real`. For each seed it takes 50 chats of the training split
and 50 of the validation split that ask other questions. The better answer is the reference, the worse one the
reference of another chat that is most like it. `phi3flow train --method dpo` learns from the first 50. The
margin is log p(better) - log p(worse) in nats, on the other 50, before and after; exact match is that of the
held-out test set. Ends with one JSON object, and with exit code 1 if a seed's margin does not rise or its
exact match falls by more than a point.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from commands import run as run_command

from deploy.scoring.engine import GenerationRequest
from deploy.scoring.load import load
from evaluation.answer_metrics import score_answer
from phi3flow.chats.alike.same_questions import question_text, text_groups
from phi3flow.chats.chat_template import encode_example, encode_prompt
from phi3flow.chats.rows import load_chats
from phi3flow.core.jsonl import write_jsonl
from training.models.loading import load_model, load_tokenizer

PAIRS, SEEDS, POINT, MAX_TOKENS = 50, 3, 0.01, 64


def pairs_of(chats, others):
    """Chats with their references as better answers, and the most similar other reference as worse ones."""
    words = {chat.reference: frozenset(chat.reference.lower().split()) for chat in others}

    def worse(reference):
        own = frozenset(reference.lower().split())
        unlike = (text for text in words if text.split() != reference.split())
        return max(unlike, key=lambda text: (len(own & words[text]) / len(own | words[text]), text))

    return [
        {
            "prompt": list(chat.prompt),
            "chosen": [{"role": "assistant", "content": chat.reference}],
            "rejected": [{"role": "assistant", "content": worse(chat.reference)}],
        }
        for chat in chats
    ]


def drawn(run, seed):
    """50 pairs to learn from, and 50 that ask other questions."""
    splits = {name: load_chats(run / "data" / f"{name}.jsonl") for name in ("train", "val")}
    order = random.Random(seed)
    train = order.sample(splits["train"], PAIRS)
    val = order.sample(splits["val"], len(splits["val"]))
    groups = text_groups((question_text(chat.prompt) for chat in [*train, *val]), near=True)
    learned = set(groups[:PAIRS])
    other = [chat for chat, group in zip(val, groups[PAIRS:], strict=True) if group not in learned][:PAIRS]
    assert len(other) == PAIRS, f"only {len(other)} other questions"
    return pairs_of(train, splits["train"]), pairs_of(other, splits["train"])


def margins(folder, pairs):
    """log p(better) - log p(worse) of each pair, in nats."""
    model, tokenizer = load_model(str(folder)).eval(), load_tokenizer(str(folder))

    def log_likelihood(messages):
        ids, mask = encode_example(tokenizer, messages)
        counted = torch.tensor(mask[1:], dtype=torch.bool)
        with torch.inference_mode():
            scores = model(torch.tensor([ids])).logits[0, :-1][counted].log_softmax(-1)
        return scores.gather(1, torch.tensor(ids[1:])[counted][:, None]).sum().item()

    return [
        log_likelihood(pair["prompt"] + pair["chosen"]) - log_likelihood(pair["prompt"] + pair["rejected"])
        for pair in pairs
    ]


def exact_match(folder, chats):
    """Greedy answers of the engine that serves the model."""
    tokenizer, engine = load_tokenizer(str(folder)), load(folder, lambda: None, "transformers")

    async def ask(chat):
        prompt = tuple(encode_prompt(tokenizer, chat.prompt))
        return await engine.submit(GenerationRequest(prompt, MAX_TOKENS)).text()

    async def ask_all():
        answers = []
        for start in range(0, len(chats), 64):
            answers += await asyncio.gather(*map(ask, chats[start : start + 64]))
        return answers

    try:
        answers = asyncio.run(ask_all())
    finally:
        engine.close()
    scores = [score_answer(a, c.reference)["exact_match"] for a, c in zip(answers, chats, strict=True)]
    return sum(scores) / len(scores)


def trained(run, recipe, pairs, folder, seed):
    """The folder of the model, and the seconds it took."""
    write_jsonl(folder / "preferences.jsonl", pairs)
    started, out = time.monotonic(), folder / "tuned"
    words = ["train", "--method", "dpo", "--data", folder / "preferences.jsonl", "--recipe", recipe]
    words += ["--model", run / "tuned", "--out", out, "--seed", seed]
    run_command(Path.cwd(), *words)
    return out, round(time.monotonic() - started, 1)


def mean(values):
    return sum(values) / len(values)


def measured(run, recipe, test, work, seed):
    pairs, held_out = drawn(run, seed)
    folder = work / f"seed-{seed}"
    folder.mkdir()
    before = margins(run / "tuned", held_out)
    model, seconds = trained(run, recipe, pairs, folder, seed)
    after = margins(model, held_out)
    return {
        "seed": seed,
        "margin_before": round(mean(before), 3),
        "margin_after": round(mean(after), 3),
        "prefers_better_before": mean([margin > 0 for margin in before]),
        "prefers_better_after": mean([margin > 0 for margin in after]),
        "exact_match": round(exact_match(model, test), 4),
        "seconds": seconds,
    }


def main(run, recipe, rows):
    test = load_chats(run / "data" / "test.jsonl")
    test = [test[i * len(test) // rows] for i in range(rows)] if rows < len(test) else test
    start = exact_match(run / "tuned", test)
    seeds = []
    with tempfile.TemporaryDirectory(prefix="dpo-") as work:
        for seed in range(SEEDS):
            seeds.append(measured(run, recipe, test, Path(work), seed))
            print(json.dumps(seeds[-1]), file=sys.stderr, flush=True)
    worst = min(each["exact_match"] for each in seeds)
    rises = [round(each["margin_after"] - each["margin_before"], 3) for each in seeds]
    return {
        "bench": "dpo",
        "ours": worst,
        "baseline": round(start, 4),
        "ratio": round(worst / start, 4),
        "margin_rises": rises,
        "passed": min(rises) > 0 and worst >= start - POINT,
        "run": str(run),
        "recipe": recipe,
        "test_rows": len(test),
        "seeds": seeds,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/demo"))
    parser.add_argument("--recipe", default="dpo-tiny")
    parser.add_argument("--rows", type=int, default=300, help="rows of the test set to ask")
    given = parser.parse_args()
    found = main(given.run, given.recipe, given.rows)
    print(json.dumps(found))
    sys.exit(not found["passed"])
