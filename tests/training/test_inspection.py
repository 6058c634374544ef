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


def test_a_call_counts_toward_the_loss_and_what_the_tool_returned_does_not(tmp_path, capsys):
    call = {"type": "function", "function": {"name": "price", "arguments": '{"part": 7}'}}
    chat = [
        {"role": "user", "content": "What is part 7?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "twelve"},
        {"role": "assistant", "content": "It costs 12."},
    ]
    tools = [{"type": "function", "function": {"name": "price", "parameters": {"type": "object"}}}]
    write_jsonl(tmp_path / "train.jsonl", [{"messages": chat, "tools": tools}])
    (tmp_path / "mine.toml").write_text(RECIPE.replace("64", "512"))
    arguments = ["--data", str(tmp_path), "--recipe", str(tmp_path / "mine.toml"), "--model", str(TOKENIZER)]
    assert main(["train", *arguments, "--out", str(tmp_path / "out"), "--inspect", "1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()]
    words = {
        counts: "".join(row[-1].strip("'") for row in rows if (row[2] == "yes") is counts)
        for counts in (True, False)
    }
    assert "price" in words[True] and "costs" in words[True] and "twelve" not in words[True]
    assert "twelve" in words[False] and "tools" in words[False]
