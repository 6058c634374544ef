"""The direct runner against the ideal time, against `pf run`, and on a file of 100 000 lines.

    make bench-runner

Asks 1 000 questions, 16 at a time, of an endpoint that takes 200 ms: at best 12.5 s. Then 100 000 of one that
answers at once; that run is killed half way and continued, and its answers are compared. Each part runs in
its own process and reports its peak memory. Ends with one JSON object.
"""

import contextlib
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from evaluation.asking.batch import MAX_TOKENS, QUESTION
from evaluation.asking.direct_run import run_direct, streamed_answer
from evaluation.asking.promptflow_run import outputs_of, run_flows
from evaluation.scored_rows import chats_in
from evaluation.verdict.gate import load_gate
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.jsonl import write_jsonl
from phi3flow.phi3_contract import Endpoint, split_turns

LINES, SECONDS, WORKERS, LARGE = 1000, 0.2, 16, 100_000
IDEAL = LINES * SECONDS / WORKERS


@contextlib.contextmanager
def endpoint(seconds):
    command = [sys.executable, str(Path(__file__).with_name("slow_endpoint.py")), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Endpoint(f"http://127.0.0.1:{process.stdout.readline().strip()}/score", "none")
        finally:
            process.kill()


def write_chats(path, lines):
    write_jsonl(
        path,
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": f"What is the capital of country number {i}, and since when?",
                    },
                    {"role": "assistant", "content": f"The capital of that country is city number {i}."},
                ],
                "prompt_id": f"q-{i}",
                "slice": f"slice {i % 5}",
            }
            for i in range(lines)
        ),
    )
    return path


def direct(data, at, out):
    chats = chats_in(data)
    records = run_direct(chats, {"answers": at}, streamed_answer, out, data=data, workers=WORKERS)
    return records["answers"]


def prompt_flow(data, at, folder):
    """`pf run` of the chat flow, as `evaluation.asking.batch` prepares it."""
    (folder / "flows").mkdir(parents=True)
    resolve_flow("chat", folder / "flows" / "chat")
    turns = [split_turns(chat.prompt) for chat in chats_in(data)]
    rows = [
        {"question": turn.question, "chat_history": turn.history, "system": turn.system} for turn in turns
    ]
    write_jsonl(folder / "inputs.jsonl", rows)
    columns = {"chat": QUESTION | {"max_tokens": MAX_TOKENS}}
    run_flows(folder, {"phi3-tuned": at}, columns, lines=len(rows), workers=WORKERS)
    return outputs_of(folder, "chat")


def timed(function, *arguments):
    started = time.monotonic()
    result = function(*arguments)
    return round(time.monotonic() - started, 2), result


def child(*words):
    """Run this file in another process."""
    return subprocess.Popen([sys.executable, __file__, *map(str, words)], stdout=subprocess.PIPE, text=True)


def finished(process):
    printed = process.communicate()[0]
    assert process.returncode == 0, printed
    return json.loads(printed)


def large(folder, lines):
    """The long run: killed half way, continued, compared."""
    data = write_chats(folder / "large.jsonl", lines)
    answers = folder / "direct" / "answers.jsonl"
    with endpoint(0) as at:
        first = child("ask", data, at.url, folder / "direct")
        while not answers.exists() or answers.stat().st_size < 70 * lines:
            assert first.poll() is None
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        before = sum(1 for _ in answers.open("rb"))
        continued = finished(child("ask", data, at.url, folder / "direct"))
    numbers = [json.loads(line)["line"] for line in answers.open("rb")]
    assert sorted(numbers) == list(range(1, lines + 1))
    return {
        "lines": lines,
        "killed_at": before,
        "answers_a_second": round((lines - before) / continued["seconds"]),
        "ask_peak_mb": continued["peak_mb"],
        "compare": finished(child("compare", data, answers, folder / "report")),
    }


def ask(data, url, out):
    seconds, records = timed(direct, Path(data), Endpoint(url, "none"), Path(out))
    assert all(record.answer for record in records)
    print(json.dumps({"seconds": seconds, "peak_mb": _peak()}))


def compare(data, answers, out):
    from evaluation.compare import Options, compare_recorded

    paths = [Path(word) for word in (data, answers, answers, out)]
    seconds, report = timed(compare_recorded, *paths, Options(load_gate(), WORKERS))
    print(json.dumps({"seconds": seconds, "peak_mb": _peak(), "n": report.n}))


def _peak():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(lines, large_lines):
    with TemporaryDirectory(prefix="runner-") as name:
        folder = Path(name)
        data = write_chats(folder / "test.jsonl", lines)
        with endpoint(SECONDS) as at:
            ours, records = timed(direct, data, at, folder / "ours")
            baseline, outputs = timed(prompt_flow, data, at, folder / "pf")
        assert [record.answer for record in records] == [outputs[i]["answer"] for i in range(lines)]
        ideal = lines * SECONDS / WORKERS
        return {
            "bench": "runner",
            "ours": ours,
            "baseline": baseline,
            "ratio": round(ours / baseline, 3),
            "ideal": ideal,
            "ours_over_ideal": round(ours / ideal, 3),
            "small_peak_mb": _peak(),
            "large": large(folder, large_lines),
        }


if __name__ == "__main__":
    verb, *words = sys.argv[1:] or ["all"]
    if verb == "all":
        print(json.dumps(main(LINES, LARGE)))
    elif verb == "quick":
        print(json.dumps(main(*map(int, words))))
    else:
        {"ask": ask, "compare": compare}[verb](*words)
