"""Fine-tuning on a CUDA GPU: Phi-3-mini with random weights in our trainer, one setting at a time.

    make bench-train-gpu      ARGS="--arms lora-flash ..."

Each arm runs in its own process: warm-up steps, then timed steps between two synchronisations. Token counts
exclude padding; bench/flops.py defines MFU. Prints one row per line, then one JSON object: our fastest full
fine-tuning against the tutorial's settings. Without a GPU: one sentence and exit code 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from flops import Work, executed_flops, peak_flops
from train import assistant_tokens, tutorial_trainer

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "tests" / "data" / "phi3_tokenizer"
SHAPE = ROOT / "tests" / "data" / "configs" / "phi3-mini-4k.json"
CHATS, WARM_UP, TIMED = 1500, 10, 30
TUTORIAL = "tutorial"


class Arm(NamedTuple):
    """The settings of one row."""

    lora: bool
    attention: str
    packing: bool
    checkpointing: bool
    batch: int


ARMS = {
    "full-padded": Arm(lora=False, attention="sdpa", packing=False, checkpointing=True, batch=4),
    "full-sdpa": Arm(lora=False, attention="sdpa", packing=True, checkpointing=True, batch=4),
    "full-flash": Arm(lora=False, attention="flash_attention_2", packing=True, checkpointing=True, batch=4),
    "full-flash-kept": Arm(False, "flash_attention_2", packing=True, checkpointing=False, batch=2),
    "lora-padded": Arm(lora=True, attention="sdpa", packing=False, checkpointing=True, batch=4),
    "lora-sdpa": Arm(lora=True, attention="sdpa", packing=True, checkpointing=True, batch=4),
    "lora-flash": Arm(lora=True, attention="flash_attention_2", packing=True, checkpointing=True, batch=4),
    "lora-flash-kept": Arm(True, "flash_attention_2", packing=True, checkpointing=False, batch=4),
    "lora-flash-kept-8": Arm(True, "flash_attention_2", packing=True, checkpointing=False, batch=8),
}


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


def trainer_of(name, work, config, chats, *, steps, device):
    import torch

    from training.loop.run import encode, make_trainer
    from training.loop.start import Run
    from training.models.loading import load_tokenizer
    from training.recipes.recipe import load_recipe

    tokenizer = load_tokenizer(str(TOKENIZER))
    if name == TUTORIAL:
        model = new_model(config, "eager", torch.bfloat16, device)
        return tutorial_trainer(work, model, tokenizer, chats, max_steps=steps, use_cpu=device == "cpu")
    arm = ARMS[name]
    recipe = replace(
        load_recipe("phi3-mini-4k-lora" if arm.lora else "phi3.5-mini-full"),
        attention=arm.attention,
        packing=arm.packing,
        gradient_checkpointing=arm.checkpointing,
        batch_size=arm.batch,
        gradient_accumulation=1,
        steps=steps,
        epochs=None,
        eval_every=10_000,
    )
    dtype = torch.bfloat16 if recipe.weights == "bf16" else torch.float32
    run = Run(work, recipe, work, name, None, 0)
    rows, held_out = (encode(run, tokenizer, each).rows for each in (chats, chats[:4]))
    return make_trainer(run, new_model(config, arm.attention, dtype, device), tokenizer, rows, held_out)


def measure(name, config, chats, *, warm_up=WARM_UP, timed=TIMED, device="cuda"):
    """Train the arm's few steps in its own process. On a CPU this tries a small shape."""
    import torch
    from transformers import TrainerCallback

    gpu = torch.cuda if device == "cuda" else None

    class Clock(TrainerCallback):
        started = seconds = 0.0

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == warm_up:
                if gpu:
                    gpu.synchronize()
                    gpu.reset_peak_memory_stats()
                self.started = time.perf_counter()
            elif state.global_step == warm_up + timed:
                if gpu:
                    gpu.synchronize()
                self.seconds = time.perf_counter() - self.started
                control.should_training_stop = True  # one step early, so that nothing is saved

    with tempfile.TemporaryDirectory(prefix="train-gpu-") as work:
        trainer = trainer_of(name, Path(work), config, chats, steps=warm_up + timed + 1, device=device)
        trainer.data_collator = counted = Counted(trainer.data_collator)
        clock = Clock()
        trainer.add_callback(clock)
        try:
            trainer.train()
        except torch.cuda.OutOfMemoryError:
            return {"arm": name, "failed": "out of memory"}
    batches = counted.seen[warm_up : warm_up + timed]
    peak_gb = round(gpu.max_memory_allocated() / 1e9, 1) if gpu else None
    name_of_device = gpu.get_device_name() if gpu else device
    return {"arm": name, "device": name_of_device, "peak_gb": peak_gb} | figures(
        name, trainer, Work(*map(sum, zip(*batches, strict=True))), clock.seconds, peak_flops(name_of_device)
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
    """The arms that can run here: FlashAttention is an optional package."""
    from transformers.utils import is_flash_attn_2_available

    flash = is_flash_attn_2_available()
    return [TUTORIAL, *(name for name, arm in ARMS.items() if flash or arm.attention == "sdpa")]


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
        print(json.dumps(main(options.arms)))
