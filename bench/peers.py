"""Fine-tuning: plain TRL, litgpt and LLaMA-Factory against ours, on the same tiny model and the same chats.

    make bench-peers      ARGS="--rounds N --chats N --only NAME ..."

Each peer has an environment of its own, `.venv-peers/NAME`, which this script makes from REQUIREMENTS. A
peer that does not install, or does not train, is reported with its error. All train the demo's base model
on the demo's single-turn chats, for as many passes, in batches of 16, only on answers, and in bf16 where
the processor has it, else in fp32. Everything else is a peer's default (bench/peer_*.py). The arms
alternate, each run in a process of its own. Speed is assistant tokens a second from the first step to the
end of the last, for the tokens that ours counts; `tokens_of_a_pass` has how many each arm counts. Ends with
one JSON object: medians of the rounds, and our speed over each peer's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median

from train import BASE, CHATS, EPOCHS, FOLDER, child, load, make_inputs, ours

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".venv-peers"
INSTALLED = ".installed"
REQUIREMENTS = {
    "trl": ("trl==1.16.0",),
    "litgpt": ("litgpt==0.5.13", "requests"),  # which it imports and does not name
    "llamafactory": ("llamafactory==0.9.5",),
}
# They are built for CUDA and break a CPU torch; text needs neither.
UNUSED = {"llamafactory": ("torchvision", "torchaudio")}
OURS, ROUNDS, BATCH = "ours", 3, 16
SHOWN = 2000  # characters of an error


def environment(name):
    """The peer's own Python; installed anew when its requirements have changed."""
    folder = ENVIRONMENTS / name
    mark, wanted = folder / INSTALLED, "\n".join(REQUIREMENTS[name])
    if not mark.exists() or mark.read_text() != wanted:
        print(f"installing {wanted} into {folder}", file=sys.stderr, flush=True)
        output([sys.executable, "-m", "venv", "--clear", folder])
        same = f"torch=={version('torch')}"
        pip = folder / "bin" / "pip"
        output([pip, "install", "--quiet", "--prefer-binary", same, *REQUIREMENTS[name]])
        if name in UNUSED:
            output([pip, "uninstall", "--quiet", "--yes", *UNUSED[name]])
        mark.write_text(wanted)
    return folder / "bin" / "python"


def output(words):
    """What the command printed. Raises CalledProcessError."""
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=True).stdout


def write_task(folder, chats):
    """The file that tells an arm what to train on, and how."""
    from phi3flow.core.jsonl import write_jsonl
    from training.recipes.training_arguments import has_bf16

    for name, limit in (("train", chats), ("val", BATCH)):
        found = [chat for chat in load(f"{name}.jsonl") if len(chat.messages) == 2]
        write_jsonl(folder / f"{name}.jsonl", ({"messages": list(chat.messages)} for chat in found[:limit]))
    task = {"model": str(BASE.resolve()), "batch": BATCH, "epochs": EPOCHS, "bf16": has_bf16(), "seed": 0}
    task |= {name: str((folder / f"{name}.jsonl").resolve()) for name in ("train", "val")}
    (folder / "task.json").write_text(json.dumps(task | {"work": str((folder / "work").resolve())}))
    return folder / "task.json"


def train_ours(task):
    """Our trainer, as bench/train.py sets it up."""
    from clock import CountingClock
    from transformers.utils import logging

    from phi3flow.chats.rows import load_chats

    logging.set_verbosity_error()
    trainer, clock = ours(Path(task["work"]), load_chats(Path(task["train"]))), CountingClock()
    trainer.add_callback(clock)
    trainer.train()
    return {"seconds": clock.seconds, "steps": clock.steps, "tokens": clock.tokens}


def measured(name, chats):
    """One run of an arm: seconds and steps. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=FOLDER) as folder:
        task = write_task(Path(folder), chats)
        if name == OURS:
            return json.loads(output([sys.executable, __file__, "side", task]).splitlines()[-1])
        script = HERE / f"peer_{name}.py"
        return json.loads(output([environment(name), script, task]).splitlines()[-1])


def main(rounds, chats, only):
    """Failed arms are left out of later rounds."""
    child(["inputs"])
    chats -= chats % BATCH
    runs, errors = {name: [] for name in (OURS, *(only or REQUIREMENTS))}, {}
    for name in list(runs)[1:]:
        tried(errors, name, environment, name)
    for number in range(rounds):
        for name in list(runs) if number % 2 == 0 else list(reversed(runs)):
            if name not in errors and (found := tried(errors, name, measured, name, chats)):
                runs[name].append(found)
                print(f"round {number + 1} {name}: {found}", file=sys.stderr, flush=True)
    return report(runs, errors, rounds, chats)


def tried(errors, name, call, *arguments):
    """What `call` returns; None, and its error in `errors`, where its command failed."""
    try:
        return call(*arguments)
    except subprocess.CalledProcessError as error:
        errors[name] = (error.stderr or error.stdout).strip()[-SHOWN:]
        print(f"{name}: {errors[name]}", file=sys.stderr, flush=True)
        return None


def report(runs, errors, rounds, chats):
    tokens = EPOCHS * runs[OURS][0]["tokens"]
    speeds = {
        name: [round(tokens / row["seconds"], 1) for row in rows] for name, rows in runs.items() if rows
    }
    middle = {name: median(rows) for name, rows in speeds.items()}
    mine = middle.pop(OURS)
    return {
        "bench": "peers",
        "ours": mine,
        "baseline": max(middle.values(), default=None),
        "ratio": min((round(mine / speed, 2) for speed in middle.values()), default=None),
        "ratios": {name: round(mine / speed, 2) for name, speed in middle.items()},
        "assistant_tokens_per_s_of_rounds": speeds,
        "tokens_of_a_pass": {name: rows[0]["tokens"] for name, rows in runs.items() if rows},
        "steps": {name: rows[0]["steps"] for name, rows in runs.items() if rows},
        "versions": {name: versions(environment(name)) for name in middle},
        "errors": errors,
        "rounds": rounds,
        "chats": chats,
    }


def versions(python):
    """The packages of an environment that decide about speed."""
    listed = json.loads(output([python, "-m", "pip", "list", "--format", "json"]))
    return {
        each["name"]: each["version"]
        for each in listed
        if each["name"] in {"torch", "transformers", *REQUIREMENTS}
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["inputs"]:
        make_inputs()
    elif sys.argv[1:2] == ["side"]:
        print(json.dumps(train_ours(json.loads(Path(sys.argv[2]).read_text()))))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--rounds", type=int, default=ROUNDS)
        parser.add_argument("--chats", type=int, default=CHATS)
        parser.add_argument("--only", nargs="+", choices=REQUIREMENTS, help="these peers (default: all)")
        print(json.dumps(main(**vars(parser.parse_args()))))
