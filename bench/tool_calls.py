"""Does training on function calls teach a small model to call functions that it has not seen?

    make bench-tools

The rows are `simple_python` of the Berkeley Function Calling Leaderboard (BFCL v4, Apache 2.0): a question, a
function, and the values that its arguments may have. The package `bfcl-eval` has them, and is not committed.
A quarter of the functions is held out, with their questions. The small pretrained model learns the others in
one pass of the recipe small-cpu, and both models are asked the held-out questions: `prepare`, `train`,
`compare`, as a person types them. Ends with one JSON object: `leaderboard_match` is the leaderboard's own
rule, as a metric of the user's; `tool_call_match` takes one value of each argument for the right one.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

from commands import run

from custom_connections.promptflow_home import new_encryption_key
from phi3flow.core.jsonl import read_jsonl, write_jsonl

PACKAGE, ROWS = "bfcl-eval==2026.3.23", "BFCL_v4_simple_python.json"
PASSES = 1  # two cores without bf16 take ten minutes for one
METRIC = Path(__file__).with_name("leaderboard_match.py")
HELD_OUT = 4  # one function of so many
# The leaderboard's names of types that JSON Schema calls otherwise; `any` is no restriction.
TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}


def fetched(folder):
    """The leaderboard's rows and, for each, the acceptable arguments of its one call."""
    wanted = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, PACKAGE]
    subprocess.run([*map(str, wanted)], check=True, stdout=sys.stderr)
    data = folder / "bfcl_eval" / "data"
    answers = {each["id"]: each["ground_truth"] for each in read_jsonl(data / "possible_answer" / ROWS)}
    for row in read_jsonl(data / ROWS):
        [(name, acceptable)] = answers[row["id"]][0].items()
        yield row, name, acceptable


def schema(given):
    """A schema of the leaderboard in JSON Schema's words."""
    made = {name: value for name, value in given.items() if name not in {"type", "optional"}}
    if kind := TYPES.get(given["type"], given["type"]):
        made["type"] = kind
    if "properties" in made:
        made["properties"] = {name: schema(each) for name, each in made["properties"].items()}
    if "items" in made:
        made["items"] = schema(made["items"])
    return made


def first(value):
    """The first acceptable value, in full: an object's fields have a list each."""
    if isinstance(value, dict):
        return {name: first(values[0]) for name, values in value.items() if "" not in values}
    return [first(each) for each in value] if isinstance(value, list) else value


def function_name(name):
    """OpenAI's names have no points; the leaderboard writes them so, too."""
    return name.replace(".", "_")


def chat(row, name, acceptable):
    [[question]], [function] = row["question"], row["function"]
    told = {"name": function_name(function["name"]), "description": function["description"]}
    tool = {"type": "function", "function": told | {"parameters": schema(function["parameters"])}}
    called = {"name": function_name(name), "arguments": json.dumps(first(acceptable))}
    call = {"id": "call_1", "type": "function", "function": called}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"id": row["id"], "cluster": name, "messages": [question, answer], "tools": [tool]}


def is_held_out(name):
    return hashlib.sha256(name.encode()).digest()[0] % HELD_OUT == 0


def write_rows(project):
    """`train.jsonl`, `test.jsonl`, the recipe, and the metric with what it takes for right."""
    rows, acceptable = {"train": [], "test": []}, {}
    for row, name, arguments in fetched(project / "bfcl"):
        made = chat(row, name, arguments)
        rows["test" if is_held_out(name) else "train"].append(made)
        asked = made["messages"][0]["content"]
        acceptable[asked] = {"name": function_name(name), "arguments": arguments}
    for name, split in rows.items():
        write_jsonl(project / f"{name}.jsonl", split)
    shutil.copy(METRIC, project)
    shipped = (files("training.recipes") / "small-cpu.toml").read_text(encoding="utf-8")
    recipe = re.sub(r"(?m)^epochs = .*$", f"epochs = {PASSES}", shipped)
    (project / "recipe.toml").write_text(recipe, encoding="utf-8")
    (project / "acceptable.json").write_text(json.dumps(acceptable), encoding="utf-8")


def main():
    os.environ |= {"PF_ENCRYPTION_KEY": new_encryption_key(), "PHI3FLOW_TRACK": "0"}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tools-") as folder:
        project = Path(folder)
        write_rows(project)
        run(project, "base", "--pretrained", "--out", "run/base")
        split = ("train.jsonl", "--test", "test.jsonl", "--near-duplicates", "report")
        made = run(project, "prepare", *split, "--out", "run/data")
        start = ("--data", "run/data", "--recipe", "recipe.toml", "--model", "run/base")
        run(project, "train", *start, "--out", "run/tuned")
        metrics = ("--metric", f"{METRIC.name}:leaderboard_match", "--metric", "tool_call_match")
        report = run(project, "compare", "run", "--packs", "none", "--text-metrics", "none", *metrics)
    return summary(made, report) | {"seconds": round(time.monotonic() - began)}


def summary(made, report):
    matched, strict = report["metrics"]["leaderboard_match"], report["metrics"]["tool_call_match"]
    return {
        "bench": "tools",
        "ours": round(matched["tuned"], 4),
        "baseline": round(matched["base"], 4),
        "ratio": None,
        "unit": "held-out questions with an acceptable call, tuned against base",
        "difference_ci": [round(bound, 3) for bound in matched["difference_ci"]],
        "tool_call_match": [round(strict["base"], 4), round(strict["tuned"], 4)],
        "verdict": report["verdict"],
        "rows": made["train"],
        "held_out": {"rows": report["n"], "functions": report["clusters"], "failed": report["failed"]},
    }


if __name__ == "__main__":
    print(json.dumps(main()))
