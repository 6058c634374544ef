"""Does a model that is tuned on distilled rows beat its base on documents that neither has read?

    make bench-distill                        the small pretrained model
    make bench-distill ARGS="--model toy"     the demo's toy, which is trained first

Fifty sheets of a shop's goods are the documents. A scripted teacher on loopback asks about their facts: this
says what training on such rows does, and nothing about a teacher. Everything else is what a person types:
`distill`, which holds out whole documents, `prepare`, `train`, `compare`. Ends with one JSON object: exact
match and token F1 of both on the held-out rows, with the 95 % interval of the difference.
"""

import argparse
import json
import os
import random
import re
import tempfile
import time
from pathlib import Path

from commands import run
from scripted_teacher import passage_in, scripted_teacher

from custom_connections.promptflow_home import new_encryption_key
from training.desk.desk import RELATIONS, TEXT, Product, catalogue, lines

DOCUMENTS, ROWS = 50, 240
FILLERS = (
    "It is sold in the shop and by post.",
    "A leaflet about its care lies in the box.",
    "Spare parts are kept for as long as it is sold.",
    "People who bought it have asked for a bag to carry it in.",
    "It stands on the second shelf, beside the door.",
    "The photograph in the window shows it in use.",
)
BASES = {"toy": ("toy-base",), "small": ("base", "--pretrained")}
TOY = "steps = 900\nbatch_size = 16\nlearning_rate = 2e-3\nmax_length = 512\n"


def sheet(name, rng):
    """A document: six facts of a product between sentences that hold none."""
    goods = catalogue()
    sold = Product(name, rng.choice(goods).kind, *(getattr(rng.choice(goods), field) for field in RELATIONS))
    facts = [
        TEXT["relations"][field]["answer"].format(name=name, kind=sold.kind, value=getattr(sold, field))
        for field in RELATIONS
    ]
    told = [*facts, *FILLERS]
    rng.shuffle(told)
    return " ".join(told)


def written(folder):
    rng = random.Random("sheets")
    folder.mkdir()
    for name in (TEXT["unknown_trained"] + TEXT["unknown_held_out"])[:DOCUMENTS]:
        (folder / f"{name.lower()}.txt").write_text(sheet(name, rng))


def pattern(relation):
    """Of the sentence that tells a relation: name, kind, value."""
    told = re.escape(TEXT["relations"][relation]["answer"])
    return re.compile(told.replace(r"\{", "(?P<").replace(r"\}", ">(?:[\\d.]+ )?\\w+(?: bag)?)"))


PATTERNS = {relation: pattern(relation) for relation in RELATIONS}


def write(system, user):
    """The teacher's reply: a question about each fact of the passage that is not asked yet, four at most."""
    known = user.partition("are there already")[2]
    items = []
    for relation, told in PATTERNS.items():
        for fact in told.finditer(passage_in(user)):
            wordings = lines(TEXT["relations"][relation]["trained"])
            asked = random.Random(fact[0]).choice(wordings).format(name=fact["name"], kind=fact["kind"])
            if asked not in known:
                items.append({"question": asked, "answer": fact[0], "quote": fact[0]})
    return "\n".join(map(json.dumps, items[:4])) or '{"none": "all is asked"}'


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=BASES, default="small")
    model = parser.parse_args().model
    os.environ |= {
        "PF_ENCRYPTION_KEY": new_encryption_key(),
        "PHI3FLOW_ENDPOINT_KEY": "k",
        "PHI3FLOW_TRACK": "0",
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="distill-") as folder, scripted_teacher() as teacher:
        project = Path(folder)
        teacher.write = write
        written(project / "sheets")
        run(project, "connect", "teacher", "--endpoint", teacher.url, "--contract", "openai")
        asked = ("--from", "sheets", "--teacher", "teacher", "--rows", str(ROWS), "--out", "distilled")
        made = run(project, "distill", *asked)
        split = ("distilled/chats.jsonl", "--test", "distilled/test.jsonl", "--near-duplicates", "report")
        run(project, *BASES[model], "--out", "run/base")
        run(project, "prepare", *split, "--out", "run/data")
        (project / "toy.toml").write_text(TOY)
        recipe = {"toy": "toy.toml", "small": "small-cpu"}[model]
        start = ("--data", "run/data", "--recipe", recipe, "--model", "run/base")
        run(project, "train", *start, "--out", "run/tuned")
        report = run(project, "compare", "run", "--packs", "none", "--text-metrics", "none")
    return summary(model, made, report) | {"seconds": round(time.monotonic() - began)}


def summary(model, made, report):
    matched, shared = report["metrics"]["exact_match"], report["metrics"]["token_f1"]
    return {
        "bench": "distill",
        "model": model,
        "ours": round(matched["tuned"], 4),
        "baseline": round(matched["base"], 4),
        "ratio": None,
        "difference_ci": [round(bound, 3) for bound in matched["difference_ci"]],
        "token_f1": [round(shared["base"], 4), round(shared["tuned"], 4)],
        "rows": made["train"],
        "held_out": {"rows": report["n"], "documents": report["clusters"], "failed": report["failed"]},
    }


if __name__ == "__main__":
    print(json.dumps(main()))
