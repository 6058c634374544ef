"""Rows and files of public bug reports about other tools, numbered as in the collection of them.

Each was dropped in silence, misread or refused with a command that repaired nothing. Inputs are invented.
"""

import csv
import gzip
import io
import json
from pathlib import Path

import pytest

from phi3flow.app.cli import main
from phi3flow.chats.rows import load_split
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import read_jsonl
from phi3flow.core.lineage import read_manifest
from phi3flow.core.settings import Settings
from training.data.encode import encode_chats
from training.models.loading import load_tokenizer
from training.recipes.recipe import load_recipe

COUNT = 60


def pairs():
    return [(f"What is the price of part {i}?", f"Part {i} costs {i + 3} euro.") for i in range(COUNT)]


def turns(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


GOOD = lines({"messages": turns(*pair)} for pair in pairs())


def prepared(folder, content, *options, name="chats.jsonl"):
    """Every chat of the three splits, by the number in it, and the manifest."""
    source, out = folder / name, folder / "data"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["prepare", str(source), "--out", str(out), *options]) == 0
    found = [
        row["messages"] for split in ("train", "val", "test") for row in read_jsonl(out / f"{split}.jsonl")
    ]
    return sorted(found, key=str), read_manifest(out)


def expected(chats):
    return sorted(chats, key=str)


def test_alpacas_system_and_history_are_kept_report_1(tmp_path):
    rows = [
        {"instruction": q, "input": "", "output": a, "system": "Euro only.", "history": [["Hello", "Yes?"]]}
        for q, a in pairs()
    ]
    found, _ = prepared(tmp_path, lines(rows))
    system = {"role": "system", "content": "Euro only."}
    assert found == expected([system, *turns("Hello", "Yes?"), *turns(q, a)] for q, a in pairs())


def test_a_context_is_in_the_prompt_report_2(tmp_path):
    rows = [{"question": q, "context": f"List: {a}", "answer": a} for q, a in pairs()]
    found, _ = prepared(tmp_path, lines(rows))
    assert found == expected(turns(f"{q}\n\nList: {a}", a) for q, a in pairs())


def test_an_answer_of_weight_0_is_written_as_context_report_3(tmp_path):
    def chat(q, a, wrong):
        return [*turns(q, "WRONG.")[:1], wrong, *turns("Try again.", a)]

    wrong = {"role": "assistant", "content": "WRONG.", "weight": 0}
    found, _ = prepared(tmp_path, lines({"messages": chat(q, a, wrong)} for q, a in pairs()))
    assert found == expected(chat(q, a, wrong) for q, a in pairs())


def test_template_marks_at_the_end_are_removed_and_told_report_4(tmp_path, capsys):
    found, manifest = prepared(tmp_path, lines({"messages": turns(q, a + "<|end|>")} for q, a in pairs()))
    assert found == expected(turns(*pair) for pair in pairs())
    kind = "template marks at the end of answers removed"
    assert manifest["intake"]["repairs"] == {kind: COUNT}
    assert f"repaired: {kind}: {COUNT} rows" in capsys.readouterr().out
    out = str(tmp_path / "strict")
    assert main(["prepare", str(tmp_path / "chats.jsonl"), "--out", out, "--strict"]) == 2
    assert (
        "messages[1].content: ends with a mark that the chat template adds itself" in capsys.readouterr().err
    )


def test_a_dotenv_of_powershell_is_read_report_16(tmp_path):
    (tmp_path / ".env").write_bytes("PHI3FLOW_ENDPOINT_KEY=test-key-1\r\n".encode("utf-16"))
    assert Settings.load(tmp_path).endpoint_key == "test-key-1"


def as_csv(rows):
    text = io.StringIO()
    csv.writer(text).writerows([("question", "answer"), *rows])
    return text.getvalue().encode()


def as_parquet(rows):
    import pyarrow
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(
        pyarrow.table({"question": [q for q, _ in rows], "answer": [a for _, a in rows]}), sink
    )
    return sink.getvalue()


FILES = {
    "UTF-16, report 17": ("a.jsonl", GOOD.replace("\n", "\r\n").encode("utf-16")),
    "gzip, report 18": ("a.jsonl.gz", gzip.compress(GOOD.encode())),
    "CSV, report 18": ("a.csv", as_csv(pairs())),
    "Parquet, report 18": ("a.parquet", as_parquet(pairs())),
    "an array, report 18": ("a.json", json.dumps([json.loads(line) for line in GOOD.splitlines()]).encode()),
    "a pretty array, report 18": (
        "a.json",
        json.dumps([json.loads(line) for line in GOOD.splitlines()], indent=2).encode(),
    ),
    "lists of messages": ("a.jsonl", lines(turns(*pair) for pair in pairs()).encode()),
    "an array of such lists": ("a.json", json.dumps([turns(*pair) for pair in pairs()]).encode()),
    "rows with a column of that name": (
        "a.json",
        json.dumps([{"role": "HR", "question": q, "answer": a} for q, a in pairs()]).encode(),
    ),
    "a byte-order mark, report 21": ("a.jsonl", GOOD.encode("utf-8-sig")),
    "a mark and CRLF": ("a.jsonl", GOOD.replace("\n", "\r\n").encode("utf-8-sig")),
    "CR alone": ("a.jsonl", GOOD.replace("\n", "\r").encode()),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_as_other_tools_write_it_is_read(name, tmp_path):
    file, content = FILES[name]
    found, _ = prepared(tmp_path, content, name=file)
    assert found == expected(turns(*pair) for pair in pairs())


SHAPES = {
    "conversations with role and content, report 19": lambda q, a: {"conversations": turns(q, a)},
    "ShareGPT, report 19": lambda q, a: {
        "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]
    },
    "prompt and completion, report 20": lambda q, a: {"prompt": q, "completion": a},
    "input and output, report 20": lambda q, a: {"input": q, "output": a},
    "Dolly, report 20": lambda q, a: {"instruction": q, "context": "", "response": a, "category": "open_qa"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_row_as_other_tools_write_it_is_read(name, tmp_path):
    found, _ = prepared(tmp_path, lines(SHAPES[name](q, a) for q, a in pairs()))
    assert found == expected(turns(*pair) for pair in pairs())


def test_a_recipe_and_the_settings_may_begin_with_a_byte_order_mark_report_21(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_bytes("# mine\nsteps = 5\nbatch_size = 4\nlearning_rate = 2e-3\n".encode("utf-8-sig"))
    assert load_recipe(str(recipe)).steps == 5
    (tmp_path / "phi3flow.toml").write_bytes(b"\xef\xbb\xbfui_port = 9000\n")
    assert Settings.load(tmp_path).ui_port == 9000


def test_dollys_category_is_named_as_unused(tmp_path, capsys):
    prepared(tmp_path, lines(SHAPES["Dolly, report 20"](q, a) for q, a in pairs()))
    assert f"fields not used: category ({COUNT} rows)" in capsys.readouterr().out


def test_a_chat_that_is_too_long_is_named_by_its_own_line_or_left_out_report_22(tmp_path):
    long = {"messages": turns("Summarise: " + "lorem ipsum " * 2000, "A long text.")}
    prepared(tmp_path, GOOD + lines([long]))
    tokenizer = load_tokenizer(str(Path(__file__).parents[1] / "data" / "phi3_tokenizer"))
    paths = [tmp_path / "data" / f"{split}.jsonl" for split in ("train", "val", "test")]
    chats = [chat for path in paths for chat in load_split(path)]
    said = rf"chats\.jsonl:{COUNT + 1}: messages: \d+ tokens, more than max_length 2048"
    with pytest.raises(BadInput, match=said):
        encode_chats(tokenizer, chats, 2048, "refuse")
    for rule in ("drop", "window", "truncate"):
        rows, lengths = encode_chats(tokenizer, chats, 2048, rule)
        assert (len(rows), lengths.long_chats, lengths.dropped_chats) == (COUNT, 1, 1)
