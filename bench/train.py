"""Fine-tuning: the tutorial's settings against ours, on the same tiny model and the same chats.

    make bench-train      ARGS="--rounds N --chats N"

The tutorial's settings are those of its `fine_tune.py` on today's TRL; ours are `phi3flow train --recipe
tiny-cpu`, for as many passes over the same chats. The two alternate, each in its own process. Speed counts
only assistant tokens in the loss, although the tutorial also trains on user tokens. Time is from the first
step to the end of the last, without tokenisation, validation and checkpoints. Peak memory is that of the
whole process until training ends. Held-out loss is on val.jsonl, each side in the format it was trained in.
Ends with one JSON object: medians of the rounds.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

FOLDER = Path("runs/bench-train")
BASE, DATA = FOLDER / "base", FOLDER / "data"
ROUNDS, CHATS, EPOCHS, MAX_LENGTH = 5, 900, 3, 2048
SIDES = ("theirs", "ours")


def make_inputs():
    """Make the demo's base model and chats with phi3flow's own commands."""
    from phi3flow.app.commands.demo import write_chats
    from training.data.prepare import prepare
    from training.toy.corpus import make_base

    chats, test = write_chats(FOLDER, 0)
    if not DATA.exists():
        prepare([str(chats)], DATA, test=test, near_duplicates="report")
    make_base(BASE, seed=0)


def load(name):
    from phi3flow.chats.rows import load_chats

    return load_chats(DATA / name)


def with_system(chat):
    """Add the empty system message of the tutorial."""
    return [{"role": "system", "content": ""}, *chat.messages]


def tutorial_settings(work, **more):
    """The tutorial's TrainingArguments and SFTTrainer options, as today's TRL calls them."""
    from trl import SFTConfig

    settings = {
        "bf16": True,
        "learning_rate": 5e-6,
        "lr_scheduler_type": "cosine",
        "num_train_epochs": EPOCHS,
        "warmup_steps": 0.2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": True,
        "max_length": MAX_LENGTH,
        "packing": True,
        "packing_strategy": "wrapped",
        "dataset_text_field": "text",
        "seed": 0,
        "logging_steps": 20,
        "save_steps": 500,
    }
    return SFTConfig(output_dir=str(work), report_to="none", disable_tqdm=True, **settings, **more)


def tutorial_trainer(work, model, tokenizer, chats, **more):
    from datasets import Dataset
    from trl import SFTTrainer

    tokenizer.model_max_length = MAX_LENGTH
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.padding_side = "right"
    texts = [tokenizer.apply_chat_template(with_system(chat), tokenize=False) for chat in chats]
    return SFTTrainer(
        model=model,
        args=tutorial_settings(work, **more),
        train_dataset=Dataset.from_dict({"text": texts}),
        processing_class=tokenizer,
    )


def theirs(work, chats):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        BASE, dtype=torch.bfloat16, attn_implementation="eager", use_cache=False
    )
    return tutorial_trainer(work, model, AutoTokenizer.from_pretrained(BASE), chats, use_cpu=True)


def ours(work, chats):
    from training.loop.material import encode
    from training.loop.start import Run, starting_model, starting_tokenizer
    from training.loop.trainers import make_trainer
    from training.recipes.recipe import load_recipe

    recipe = replace(load_recipe("tiny-cpu"), steps=None, epochs=EPOCHS, eval_every=10_000)
    run = Run(DATA, recipe, work, "tuned", str(BASE), 0)
    tokenizer = starting_tokenizer(run, chats)
    rows = encode(run, tokenizer, chats).rows
    held_out = encode(run, tokenizer, load("val.jsonl")).rows
    return make_trainer(run, starting_model(run, tokenizer), tokenizer, rows, held_out)


def assistant_tokens(tokenizer, rows):
    """Number of assistant tokens in the rows; a wrapped chat continues in the next row."""
    assistant, end = tokenizer.convert_tokens_to_ids(["<|assistant|>", "<|end|>"])
    count, inside = 0, False
    for row in rows:
        for position, token in enumerate(row):
            count += inside and position > 0  # the first token of a row is not predicted
            inside = token == assistant or (inside and token != end)
    return count


def held_out_loss(model, tokenizer, chats):
    """Nats per assistant token, each chat alone, in fp32."""
    import torch
    from torch.nn.functional import cross_entropy

    from phi3flow.chats.chat_template import encode_example

    model.float().eval()
    total, count = 0.0, 0
    for messages in chats:
        ids, mask = encode_example(tokenizer, messages)
        with torch.inference_mode():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1]
        bears = torch.tensor(mask[1:], dtype=torch.bool)
        losses = cross_entropy(logits[bears], torch.tensor(ids[1:])[bears], reduction="sum")
        total, count = total + losses.item(), count + int(bears.sum())
    return total / count


def one_side(side, count):
    """Train once on `count` chats and print the measurements. Timed from first to last step."""
    from clock import Clock
    from transformers import set_seed
    from transformers.utils import logging

    import training.loop.trainer  # noqa: F401 - brings in all that both sides import

    logging.set_verbosity_error()
    set_seed(0)
    imported = peak_mb()
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="train-", dir=FOLDER) as work:
        trainer = {"theirs": theirs, "ours": ours}[side](Path(work), load("train.jsonl")[:count])
        tokens = EPOCHS * assistant_tokens(trainer.processing_class, trainer.train_dataset["input_ids"])
        trainer.add_callback(clock)
        trainer.train()
    peak = peak_mb()
    chats = [with_system(chat) if side == "theirs" else chat.messages for chat in load("val.jsonl")]
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return {
        "assistant_tokens_per_s": round(tokens / clock.seconds, 1),
        "assistant_tokens": tokens,
        "steps": clock.steps,
        "seconds": round(clock.seconds, 2),
        "peak_mb": peak,
        "peak_mb_over_imports": peak - imported,
        "held_out_loss": round(held_out_loss(model, trainer.processing_class, chats), 4),
    }


def peak_mb():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform == "linux" else 1024**2))


def child(words):
    command = [sys.executable, __file__, *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(rounds, chats):
    child(["inputs"])
    runs = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            runs[side].append(json.loads(child(["side", side, str(chats)]).splitlines()[-1]))
            print(f"round {number + 1} {side}: {runs[side][-1]}", file=sys.stderr, flush=True)
    middle = {
        side: {name: median(row[name] for row in runs[side]) for name in runs[side][0]} for side in SIDES
    }
    mine, other = middle["ours"], middle["theirs"]
    return {
        "bench": "train",
        "ours": mine["assistant_tokens_per_s"],
        "baseline": other["assistant_tokens_per_s"],
        "ratio": round(mine["assistant_tokens_per_s"] / other["assistant_tokens_per_s"], 2),
        "peak_memory_ratio": round(mine["peak_mb"] / other["peak_mb"], 3),
        "held_out_loss": {side: middle[side]["held_out_loss"] for side in SIDES},
        "rounds": rounds,
        "chats": chats,
        "medians": middle,
        "tokens_per_s_of_rounds": {
            side: [row["assistant_tokens_per_s"] for row in runs[side]] for side in SIDES
        },
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["inputs"]:
        make_inputs()
    elif sys.argv[1:2] == ["side"]:
        print(json.dumps(one_side(sys.argv[2], int(sys.argv[3]))))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--rounds", type=int, default=ROUNDS)
        parser.add_argument("--chats", type=int, default=CHATS, help="fewer, where the CPU knows no bf16")
        print(json.dumps(main(**vars(parser.parse_args()))))
