"""`train --inspect` shows what counts toward the loss."""

from pathlib import Path

from phi3flow.app.cli import main
from phi3flow.core.jsonl import write_jsonl

TOKENIZER = Path(__file__).parents[1] / "data" / "phi3_tokenizer"
RECIPE = "steps = 1\nbatch_size = 1\nlearning_rate = 1.0\nmax_length = 64\npacking = true\n"


def test_each_token_is_shown_with_its_id_and_whether_it_counts(tmp_path, capsys):
    chat = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Bill Gates."}]
    write_jsonl(tmp_path / "train.jsonl", [{"messages": chat}] * 3)
    (tmp_path / "mine.toml").write_text(RECIPE)
    arguments = ["--data", str(tmp_path), "--recipe", str(tmp_path / "mine.toml"), "--model", str(TOKENIZER)]
    assert main(["train", *arguments, "--out", str(tmp_path / "out"), "--inspect", "1"]) == 0
    shown = capsys.readouterr().out
    assert "train.jsonl:1: 13 tokens, 6 count toward the loss" in shown
    rows = [line.split() for line in shown.splitlines() if line[:1].isdigit()]
    assert [row[1] for row in rows if row[2] == "yes"] == ["29933", "453", "402", "1078", "29889", "32007"]
    assert "1, " in next(line for line in shown.splitlines() if line.startswith("packed rows"))
    assert not (tmp_path / "out").exists()
