"""The cost of quantisation: exact match of the demo's model on its test file, each mode against fp32.

    make bench-quantised

Needs `make demo`. Asks every model through the engine that serves it. Ends with one JSON object: exact match
of the model that `phi3flow export --int4` makes, against fp32.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from deploy.export.openvino import export_openvino
from deploy.export.quantise import GROUP_SIZES, compress
from deploy.scoring.engine import GenerationRequest
from deploy.scoring.engines.openvino_engine import OpenVinoEngine
from deploy.scoring.load import OPENVINO_FILE
from evaluation.answer_metrics import score_answer
from phi3flow.chats.chat_template import encode_prompt
from phi3flow.chats.rows import load_chats
from training.models.loading import load_tokenizer

DEMO = Path("runs/demo")
MAX_TOKENS = 64


def exact_match(folder, tokenizer, chats, *, exact) -> float:
    engine = OpenVinoEngine(folder, tokenizer, exact=exact, threads=1, max_waiting=len(chats))

    async def ask(chat):
        prompt = tuple(encode_prompt(tokenizer, chat.prompt))
        return await engine.submit(GenerationRequest(prompt, MAX_TOKENS)).text()

    async def ask_all():
        return await asyncio.gather(*map(ask, chats))

    try:
        answers = asyncio.run(ask_all())
    finally:
        engine.close()
    scores = [score_answer(a, c.reference)["exact_match"] for a, c in zip(answers, chats, strict=True)]
    return round(sum(scores) / len(scores), 4)


def variant(fp32: Path, out: Path, mode: str, group_size: int | None) -> Path:
    shutil.copytree(fp32, out)
    for suffix in (".xml", ".bin"):
        (out / OPENVINO_FILE).with_suffix(suffix).unlink()
    compress(fp32 / OPENVINO_FILE, out / OPENVINO_FILE, mode, group_size)
    return out


def main() -> dict:
    tokenizer, chats = load_tokenizer(str(DEMO / "tuned")), load_chats(DEMO / "data" / "test.jsonl")
    with tempfile.TemporaryDirectory(prefix="quantised-", dir="runs") as work:
        folder = Path(work)
        fp32 = export_openvino(DEMO / "tuned", folder / "fp32")
        made = export_openvino(DEMO / "tuned", folder / "made", bits="int4")
        found = {"fp32": exact_match(fp32.folder, tokenizer, chats, exact=True)}
        ours = exact_match(made.folder, tokenizer, chats, exact=False)
        for mode, group_size in [
            ("int8", None),
            *(("int4", size) for size in GROUP_SIZES if 192 % size == 0),
        ]:
            name = f"{mode} group {group_size}" if group_size else mode
            out = variant(fp32.folder, folder / name.replace(" ", "-"), mode, group_size)
            found[name] = exact_match(out, tokenizer, chats, exact=False)
            print(f"{name:14} {found[name]}", file=sys.stderr, flush=True)
    return {
        "bench": "quantised",
        "ours": ours,
        "baseline": found["fp32"],
        "ratio": round(ours / found["fp32"], 4),
        "n": len(chats),
        "made": asdict(made.weights),
        "exact_match": found,
    }


if __name__ == "__main__":
    print(json.dumps(main()))
