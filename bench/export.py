"""Every export of one model: its checks, its size, and how fast its own runtime answers.

    make bench-export

Needs `make demo-real`; another model: ARGS="MODEL". Writes the table of docs/export.md. Tokens a second are
the median of ROUNDS, each all recorded prompts one after the other at temperature 0; all runtimes in one run.
Ends with one JSON object: OpenVINO's tokens a second in 8 bits against the fastest peer's, in 8 bits or 4.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from deploy.export.export import Exported, HeldOut, export
from deploy.export.exporter import Exporter, Judged
from deploy.export.formats import FORMATS
from deploy.export.held_out import held_out_rows, reference_from
from deploy.verify.probes import load_probes
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.files import write_text
from phi3flow.phi3_contract import Sampling
from training.models.loading import load_config

MODEL = Path("runs/demo-real/tuned")
PAGE = Path("docs/export.md")
BEGIN, END = "<!-- the table: make bench-export -->\n", "<!-- end of the table -->"
ROUNDS = 3
TOKENS = 64
RUNTIMES = {
    "openvino": "OpenVINO GenAI",
    "gguf": "llama.cpp",
    "onnx": "ONNX Runtime GenAI",
    "adapter": "PEFT",
}
COLUMNS = ("format", "weights", "runtime", "checks that pass", "text", "MB", "tokens/s")
HEAD = "| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|\n"


class Row(NamedTuple):
    exporter: Exporter
    weights: str
    made: Exported | None
    error: str
    megabytes: float
    speeds: list[float]

    @property
    def speed(self) -> float:
        return statistics.median(self.speeds) if self.speeds else 0.0

    def __str__(self) -> str:
        cells = [self.exporter.name, self.weights, RUNTIMES[self.exporter.name]]
        if self.made is None:
            return "| " + " | ".join([*cells, "none: " + " ".join(self.error.split()), "", "", ""]) + " |\n"
        passed = [check.name for check in self.made.checks if check.result == "pass"]
        text = next(check.reason for check in self.made.checks if check.name == "text")
        size, speed = f"{self.megabytes:.0f}", f"{self.speed:.1f}"
        return "| " + " | ".join([*cells, ", ".join(passed), text, size, speed]) + " |\n"


def measured(exporter: Exporter, model: Path, out: Path, weights: str, rows: HeldOut) -> Row:
    """Exported; the speeds come later, when everything is made."""
    print(f"{exporter.name} {weights}", file=sys.stderr, flush=True)
    try:
        made = export(
            model,
            out,
            exporter,
            weights=weights,
            held_out=None if exporter.weights[weights] is Judged.BY_ANSWERS else rows,
        )
    except Phi3flowError as error:
        return Row(exporter, weights, None, str(error).replace("|", "/"), 0.0, [])
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    return Row(exporter, weights, made, "", size, [])


def tokens_a_second(exporter: Exporter, folder: Path) -> float:
    """Over the recorded prompts that fit a chat: not the long one, whose time goes into reading."""
    probes = [probe for probe in load_probes(folder) if len(probe.prompt_token_ids) < 256]
    with exporter.serving(folder) as endpoint:
        endpoint.ask(probes[0].messages, Sampling(max_tokens=4))
        start = time.perf_counter()
        replies = [endpoint.ask(probe.messages, Sampling(max_tokens=TOKENS)) for probe in probes]
        seconds = time.perf_counter() - start
    return sum(reply.completion_tokens or 0 for reply in replies) / seconds


def write_table(rows: list[Row], model: Path) -> None:
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    config = load_config(str(model))
    told = (
        f"{model}, {config.num_hidden_layers} layers of {config.hidden_size}, {os.cpu_count()} cores, "
        f"median of {ROUNDS} rounds:\n\n"
    )
    write_text(PAGE, head + BEGIN + told + HEAD + "".join(map(str, rows)) + END + rest.partition(END)[2])


def main() -> dict[str, object]:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", type=Path, default=MODEL)
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory(prefix="export-", dir="runs") as work:
        wanted = [(each, weights) for each in FORMATS.values() for weights in each.weights]
        out = {(each.name, weights): Path(work) / f"{each.name}-{weights}" for each, weights in wanted}
        with reference_from(model, held_out_rows(model)) as reference:
            held_out = HeldOut(reference.data, reference.at_least)
            rows = [
                measured(each, model, out[each.name, weights], weights, held_out) for each, weights in wanted
            ]
        for _ in range(ROUNDS):
            for row in rows:
                if row.made:
                    row.speeds.append(tokens_a_second(row.exporter, out[row.exporter.name, row.weights]))
    write_table(rows, model)
    speeds = {f"{row.exporter.name} {row.weights}": round(row.speed, 1) for row in rows if row.made}
    ours = speeds.get("openvino int8", 0.0)
    peer = max((speeds.get(name, 0.0) for name in ("gguf q8_0", "onnx int4")), default=0.0)
    ratio = round(ours / peer, 3) if peer else None
    return {"bench": "export", "ours": ours, "baseline": peer, "ratio": ratio, "tokens_per_second": speeds}


if __name__ == "__main__":
    print(json.dumps(main()))
