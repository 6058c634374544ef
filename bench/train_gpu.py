"""Fine-tuning on a CUDA GPU: Phi-3-mini with random weights in our trainer, one setting at a time.

    make bench-train-gpu      ARGS="--arms lora-flash ..."

Each arm runs in its own process: warm-up steps, then timed steps between two synchronisations. Token counts
exclude padding; bench/flops.py defines MFU. Prints one row per line, then one JSON object: our fastest full
fine-tuning against the tutorial's settings; writes the table into bench/LOG.md. Without a GPU: one sentence
and exit code 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from flops import Work, executed_flops, peak_flops
from train import assistant_tokens, tutorial_trainer
from transformers import TrainerCallback

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "tests" / "data" / "phi3_tokenizer"
LOG = ROOT / "bench" / "LOG.md"
SHAPE = ROOT / "tests" / "data" / "configs" / "phi3-mini-4k.json"
CHATS, WARM_UP, TIMED = 1500, 10, 30
TUTORIAL = "tutorial"


class Arm(NamedTuple):
    """The settings of one row. `kept` activations are not recomputed."""

    lora: bool
    attention: str = "varlen"
    packing: bool = True
    compile: bool = False
    liger: bool = False
    kept: bool = False
    batch: int = 4


def arms_of(kind, *, lora):
    """Batches of 3 and 6 rows are for GPUs of 80 GB."""
    small, large = (6, 8) if lora else (3, 4)
    return {
        f"{kind}-padded": Arm(lora, "sdpa", packing=False),
        f"{kind}-sdpa": Arm(lora, "sdpa"),
        f"{kind}-flash": Arm(lora, "flash_attention_2"),
        f"{kind}-varlen": Arm(lora),
        f"{kind}-varlen-kept": Arm(lora, kept=True),
        f"{kind}-varlen-liger-kept-{large}": Arm(lora, liger=True, kept=True, batch=large),
        f"{kind}-varlen-compile": Arm(lora, compile=True),
        f"{kind}-varlen-compile-kept-{small}": Arm(lora, compile=True, kept=True, batch=small),
        f"{kind}-varlen-compile-kept-{large}": Arm(lora, compile=True, kept=True, batch=large),
    }


ARMS = arms_of("full", lora=False) | arms_of("lora", lora=True)
# As NVIDIA publishes it: Llama-3-8B on one H100, LoRA r16/alpha32, batches of two full rows of 4 096 tokens.
TARGET = {"arm": "NeMo AutoModel, LoRA (published)", "mfu": 0.406}


class Counted:
    """A collator that counts the tokens of each batch."""

    def __init__(self, collator):
        self.collator = collator
        self.seen = []

    def __call__(self, examples):
        batch = self.collator(examples)
        self.seen.append(Work.of(batch))
        return batch


def random_chats(count, seed=0):
    """Chats of realistic length: questions of 30 to 100 tokens, answers of 70 to 500."""
    import random

    from phi3flow.chats.chat import Chat

    rng = random.Random(seed)
    words = json.loads((TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"]
    words = [word[1:] for word in words if word.startswith("\u2581") and word[1:].isalpha()]

    def text(low, high):
        return " ".join(rng.choices(words, k=rng.randint(low, high)))

    return [
        Chat(({"role": "user", "content": text(25, 90)}, {"role": "assistant", "content": text(65, 480)}))
        for _ in range(count)
    ]


def published_config():
    from transformers import Phi3Config

    return Phi3Config(**json.loads(SHAPE.read_text()))


def new_model(config, attention, dtype, device):
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)


def run_of(name, work, steps):
    """The arm's run; its recipe is a shipped one with the arm's settings."""
    from training.loop.start import Run
    from training.recipes.recipe import load_recipe

    arm = ARMS[name]
    recipe = replace(
        load_recipe("phi3-mini-4k-lora" if arm.lora else "phi3.5-mini-full"),
        attention=arm.attention,
        packing=arm.packing,
        compile=arm.compile,
        liger=arm.liger,
        gradient_checkpointing=not arm.kept,
        batch_size=arm.batch,
        gradient_accumulation=1,
        steps=steps,
        epochs=None,
        eval_every=10_000,
    )
    return Run(work, recipe, work, name, None, 0)


class Prepared(NamedTuple):
    """A trainer, the call that trains it, and the memory that the estimate tells, in 10^9 bytes."""

    trainer: object
    train: Callable
    told_gb: float | None


def prepared(name, work, config, chats, *, steps, device):
    import torch

    from training.estimate.footprint import largest_batch, memory_need, model_size
    from training.estimate.machine import this_machine
    from training.loop.material import encode
    from training.loop.run import advance
    from training.loop.trainers import make_trainer
    from training.models.loading import load_tokenizer

    tokenizer = load_tokenizer(str(TOKENIZER))
    if name == TUTORIAL:
        model = new_model(config, "eager", torch.bfloat16, device)
        trainer = tutorial_trainer(work, model, tokenizer, chats, max_steps=steps, use_cpu=device == "cpu")
        return Prepared(trainer, trainer.train, None)
    run = run_of(name, work, steps)
    recipe = run.recipe
    rows, held_out = (encode(run, tokenizer, each).rows for each in (chats, chats[:4]))
    dtype = torch.bfloat16 if recipe.weights == "bf16" else torch.float32
    loaded = recipe.attention if recipe.attention == "flash_attention_2" else "sdpa"
    model = new_model(config, loaded, dtype, device)
    need = memory_need(recipe, model_size(model, recipe.lora), largest_batch(recipe, rows), this_machine())
    trainer = make_trainer(run, model, tokenizer, rows, held_out)
    return Prepared(trainer, partial(advance, run, trainer), round(need.total / 1e9, 1))


class Clock(TrainerCallback):
    """Times the steps after the first `warm_up`, and the first one, between two synchronisations."""

    def __init__(self, warm_up, timed, gpu):
        self.warm_up, self.timed, self.gpu = warm_up, timed, gpu
        self.began = self.started = self.seconds = self.first_step = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.first_step = self.now() - self.began
        if state.global_step == self.warm_up:
            self.started = self.now()
        elif state.global_step == self.warm_up + self.timed:
            self.seconds = self.now() - self.started
            control.should_training_stop = True  # one step early, so that nothing is saved

    def now(self):
        if self.gpu:
            self.gpu.synchronize()
        return time.perf_counter()


def measure(name, config, chats, *, warm_up=WARM_UP, timed=TIMED, device="cuda"):
    """Train the arm's few steps in its own process. On a CPU this tries a small shape."""
    import torch

    gpu = torch.cuda if device == "cuda" else None
    clock = Clock(warm_up, timed, gpu)
    with tempfile.TemporaryDirectory(prefix="train-gpu-") as work:
        try:
            arm = prepared(name, Path(work), config, chats, steps=warm_up + timed + 1, device=device)
            arm.trainer.data_collator = counted = Counted(arm.trainer.data_collator)
            arm.trainer.add_callback(clock)
            arm.train()
        except torch.cuda.OutOfMemoryError:
            return {"arm": name, "failed": "out of memory"}
    batches = counted.seen[warm_up : warm_up + timed]
    name_of_device = gpu.get_device_name() if gpu else device
    return {
        "arm": name,
        "device": name_of_device,
        "peak_gb": round(gpu.max_memory_allocated() / 1e9, 1) if gpu else None,
        "told_gb": arm.told_gb,
        "first_step_s": round(clock.first_step, 1),
    } | figures(
        name,
        arm.trainer,
        Work(*map(sum, zip(*batches, strict=True))),
        clock.seconds,
        peak_flops(name_of_device),
    )


def assistant_share(name, trainer, work):
    """Share of assistant tokens; with the tutorial's loss on every token it is computed from the data."""
    if name != TUTORIAL:
        return work.answers / work.tokens
    rows = trainer.train_dataset["input_ids"]
    return assistant_tokens(trainer.processing_class, rows) / sum(map(len, rows))


def figures(name, trainer, work, seconds, peak):
    adapters = getattr(trainer.model, "peft_config", {}).get("default")
    flops = executed_flops(trainer.model.config, work, lora_rank=adapters.r if adapters else None)
    return {
        "seconds": round(seconds, 2),
        "tokens_per_s": round(work.tokens / seconds),
        "assistant_tokens_per_s": round(assistant_share(name, trainer, work) * work.tokens / seconds),
        "tflops": float(f"{flops / seconds / 1e12:.3g}"),
        "mfu": round(flops / seconds / peak, 3) if peak else None,
    }


def arms():
    """The arms that can run here: FlashAttention and Liger are optional packages."""
    from transformers.utils import is_flash_attn_2_available

    from training.recipes.training_arguments import has_liger

    here = {"flash": is_flash_attn_2_available(), "liger": has_liger()}
    return [
        TUTORIAL,
        *(name for name in ARMS if all(there or word not in name for word, there in here.items())),
    ]


def main(names):
    rows = []
    for name in names or arms():
        command = [sys.executable, __file__, "arm", name]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        lines = finished.stdout.splitlines()
        failed = {"arm": name, "failed": f"exit code {finished.returncode}"}
        rows.append(failed if finished.returncode else json.loads(lines[-1]))
        print(json.dumps(rows[-1]), flush=True)
    speeds = {row["arm"]: row.get("assistant_tokens_per_s") for row in rows}
    ours = max((speeds[name] or 0 for name in speeds if name.startswith("full")), default=0)
    baseline = speeds.get(TUTORIAL)
    ratio = round(ours / baseline, 2) if baseline else None
    return {"bench": "train-gpu", "ours": ours, "baseline": baseline, "ratio": ratio, "rows": rows}


def log(result):
    """Put the table into bench/LOG.md, under its head."""
    text = LOG.read_text(encoding="utf-8")
    head, newest = text.split("\n## ", 1)
    LOG.write_text(f"{head}\n{table(result['rows'])}\n## {newest}", encoding="utf-8")


def table(rows):
    """A section of bench/LOG.md: device, versions, a line for each arm and for the published target."""
    device = next((row["device"] for row in rows if "device" in row), "no device")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft"))
    theirs = next((row.get("assistant_tokens_per_s") for row in rows if row["arm"] == TUTORIAL), None)
    lines = [
        f"## {date.today()}: training on a GPU\n",
        f"`make bench-train-gpu`, Phi-3-mini's layer sizes, random weights. {device}; {versions}. Peak is",
        "torch's `max_memory_allocated`, told what `phi3flow train` tells; x compares assistant tokens.\n",
        "| arm | tokens/s | x | MFU | first step, s | peak GB | told GB |",
        "|---|---|---|---|---|---|---|",
        *(line(row, theirs) for row in [*rows, TARGET]),
    ]
    return "\n".join(lines) + "\n"


def line(row, theirs):
    if "failed" in row:
        return f"| {row['arm']} | {row['failed']} | | | | | |"
    speed = row.get("assistant_tokens_per_s")
    times = round(speed / theirs, 2) if speed and theirs else None
    cells = (row["arm"], row.get("tokens_per_s"), times, row.get("mfu"), row.get("first_step_s"),
             row.get("peak_gb"), row.get("told_gb"))  # fmt: skip
    return (
        "| "
        + " | ".join(
            "" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells
        )
        + " |"
    )


def require_gpu():
    import torch

    if not torch.cuda.is_available():
        sys.exit("bench-train-gpu needs a CUDA GPU, and torch sees none.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["arm"]:
        print(json.dumps(measure(sys.argv[2], published_config(), random_chats(CHATS))))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--arms", nargs="+", choices=[TUTORIAL, *ARMS], metavar="ARM")
        options = parser.parse_args()
        require_gpu()
        result = main(options.arms)
        log(result)
        print(json.dumps(result))
