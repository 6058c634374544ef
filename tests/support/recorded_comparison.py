"""A real comparison of recorded answers, for tests that need a report with a known verdict."""

from pathlib import Path

from gates import WITHOUT_PACKS

from evaluation.compare import Options, compare_recorded
from evaluation.report.comparison import Report
from phi3flow.core.jsonl import write_jsonl

ROWS = 40


def compare_answers(out: Path, *, base_right: int, tuned_right: int) -> Report:
    """Compare two models that answer so many of `ROWS` questions correctly; the report goes to `out`.

    (0, 40) is promoted, (40, 0) is held, and (20, 22) is not enough data.
    """
    questions = [f"What is the capital of country {i}?" for i in range(ROWS)]
    chats = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": f"It is City {i}."}]
        for i, text in enumerate(questions)
    ]
    out.mkdir(parents=True, exist_ok=True)
    data = out / "test.jsonl"
    write_jsonl(data, ({"messages": chat} for chat in chats))
    files = []
    for side, right in (("base", base_right), ("tuned", tuned_right)):
        files.append(out / f"{side}-answers.jsonl")
        answers = (f"It is City {i}." if i < right else f"{side} does not say." for i in range(ROWS))
        write_jsonl(files[-1], ({"line": i, "answer": text} for i, text in enumerate(answers, 1)))
    return compare_recorded(data, *files, out, Options(WITHOUT_PACKS, workers=1))
