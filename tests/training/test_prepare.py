import json
import random

import pytest

from phi3flow.app.cli import main
from phi3flow.chats.alike.near_duplicates import JACCARD, find_near_duplicates, grams, jaccard, task_wording
from phi3flow.chats.chat import Chat
from phi3flow.chats.rows import load_chats
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import read_manifest, sha256_of
from training.data.prepare import prepare
from training.data.split import split_of


def chat(question, answer, **labels):
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Chat(turns, **labels)


def write(path, chats):
    path.write_text("".join(json.dumps(each.row()) + "\n" for each in chats), encoding="utf-8")
    return path


def many(n, start=0):
    return [chat(f"What is {i} plus {i}?", f"It is {2 * i}.") for i in range(start, start + n)]


def splits(data):
    """The split of each question; for a question in two splits, the later one."""
    rows = {split: load_chats(file) for split, file in data.files.items()}
    return {each.prompt[0]["content"]: split for split, chats in rows.items() for each in chats}


def contents(data):
    return [file.read_bytes() for file in data.files.values()]


def test_no_change_of_the_file_moves_a_row_to_another_split(tmp_path):
    rows = many(200)
    first = prepare([str(write(tmp_path / "a.jsonl", rows))], tmp_path / "a")
    before = splits(first)
    assert set(before.values()) == {"train", "val", "test"}
    for seed in range(5):
        rng = random.Random(seed)
        grown = rng.sample(rows, len(rows)) + rng.choices(rows, k=30) + many(rng.randrange(50), start=1000)
        rng.shuffle(grown)
        after = splits(prepare([str(write(tmp_path / f"{seed}.jsonl", grown))], tmp_path / str(seed)))
        assert before.items() <= after.items()
        assert split_of(rows[seed]) == before[rows[seed].prompt[0]["content"]]


def test_the_order_of_rows_and_files_does_not_change_a_byte(tmp_path):
    again = [chat("what is 3  plus 3?", "it is 6.", prompt_id=label) for label in "ba"]
    rows = [*many(60), *again]
    whole = write(tmp_path / "whole.jsonl", rows)
    halves = [write(tmp_path / "1.jsonl", rows[31:][::-1]), write(tmp_path / "2.jsonl", rows[:31])]
    one = prepare([str(whole)], tmp_path / "one")
    two = prepare([str(half) for half in halves], tmp_path / "two")
    assert contents(one) == contents(two)
    assert one.counts == two.counts
    assert one.counts.exact_duplicates == 2


def test_one_question_is_in_one_split_however_it_is_typed_or_answered():
    spellings = ["Who wrote the Café play?", "who wrote  the cafe\u0301 play?\n"]
    for i in range(50):
        assert len({split_of(chat(f"{i} {text}", answer)) for text in spellings for answer in "ab"}) == 1


def test_a_given_test_set_is_kept_and_none_of_it_is_trained_on(tmp_path):
    test_rows = [chat("Who is Ada?", "A mathematician."), *many(5)[::-1], many(1)[0]]
    leaks = [chat("who is  ADA?", "Another answer."), chat("Who is Ada?", "A Mathematician.")]
    rows = [*many(100), *leaks, *many(10, start=50)]
    data = prepare(
        [str(write(tmp_path / "chats.jsonl", rows))],
        tmp_path / "data",
        test=write(tmp_path / "test.jsonl", test_rows),
    )
    assert load_chats(data.files["test"]) == test_rows
    counts = data.counts
    assert (counts.exact_duplicates, counts.prompt_leaks) == (10 + 5 + 1, 1)
    assert (
        counts.read
        == 112 + 7
        == counts.exact_duplicates + counts.prompt_leaks + counts.train + counts.val + 7
    )
    assert all(split_of(each) == "val" for each in load_chats(data.files["val"]))


@pytest.fixture
def near_rows(tmp_path):
    """A test row, a row that repeats it with a slightly different question, and 40 others."""
    stories = [" ".join(f"word{i * 100 + k}" for k in range(100)) for i in range(41)]
    rows = [chat(f"Story {i}, please!", story) for i, story in enumerate(stories)]
    test = [chat("Tell story 7.", stories[7])]
    return str(write(tmp_path / "chats.jsonl", rows)), write(tmp_path / "test.jsonl", test)


@pytest.mark.parametrize(("mode", "kept"), [("drop", 40), ("report", 41)])
def test_near_duplicates_of_the_test_set_are_dropped_or_only_counted(tmp_path, near_rows, mode, kept):
    source, test = near_rows
    counts = prepare([source], tmp_path / "data", test=test, near_duplicates=mode).counts
    assert (counts.near_duplicates, counts.train + counts.val) == (1, kept)


def test_minhash_finds_every_pair_that_comparing_all_pairs_finds():
    rng = random.Random(0)
    test = [
        chat("q", " ".join(f"w{rng.randrange(10**6)}" for _ in range(rng.randrange(30, 120))))
        for _ in range(60)
    ]
    rows = []
    for each in test * 5:
        words = each.reference.split()
        words[rng.randrange(len(words))] = "other"
        rows.append(chat("q", " ".join(words)))
    common = task_wording(test)
    pairs = [[jaccard(grams(row) - common, grams(other) - common) for other in test] for row in rows]
    expected = [max(row) >= JACCARD for row in pairs]
    assert find_near_duplicates(rows, test) == expected
    assert 25 < sum(expected) < 125  # about the threshold, on both sides of it


def test_a_shared_instruction_does_not_make_rows_alike_but_shared_content_does():
    instruction = " ".join(f"rule{i}" for i in range(1000))
    system = {"role": "system", "content": instruction}
    reviews = [" ".join(f"r{i}x{k}" for k in range(30)) for i in range(20)]
    rows = [Chat((system, *chat(f"{instruction} {review}", "positive").messages)) for review in reviews]
    assert find_near_duplicates(rows[10:], rows[:10]) == [False] * 10
    assert find_near_duplicates(rows[:10], rows[:10]) == [True] * 10


def test_text_without_spaces_has_words_too():
    story = "昔々あるところにおじいさんとおばあさんが住んでいました。おじいさんは山へ柴刈りに行きました。"
    test = [chat("話して", story)]
    assert find_near_duplicates([chat("話して", story + "桃")], test) == [True]
    assert find_near_duplicates(
        [chat("話して", story[:20] + "川へ洗濯に行き桃を拾って帰りました。")], test
    ) == [False]


def test_the_same_run_again_changes_nothing_and_another_result_is_refused(tmp_path, capsys):
    source = write(tmp_path / "chats.jsonl", many(80))
    command = ["prepare", str(source), "--out", str(tmp_path / "data")]
    assert main([*command, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    files = {"train.jsonl", "val.jsonl", "test.jsonl", "origins.jsonl", "manifest.json"}
    assert set(written) == files

    assert main([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == first | {"unchanged": True}
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()} == written

    assert main([*command, "--near-duplicates", "report"]) == 2
    assert "other rows or settings" in capsys.readouterr().err
    (tmp_path / "data" / "val.jsonl").write_text("")
    assert main(command) == 2
    assert "changed since it was prepared" in capsys.readouterr().err
    assert main(["prepare", str(source), "--out", str(tmp_path)]) == 2
    assert "is no data folder" in capsys.readouterr().err


def test_the_manifest_has_hashes_counts_and_settings(tmp_path):
    source = write(tmp_path / "chats.jsonl", many(80))
    data = prepare([str(source)], tmp_path / "data")
    manifest = read_manifest(data.folder)
    assert [found["sha256"] for found in manifest["inputs"]] == [sha256_of(source)]
    assert {found["path"]: found["sha256"] for found in manifest["outputs"]} == {
        file.as_posix(): sha256_of(file) for file in data.files.values()
    }
    assert (
        manifest["counts"]["read"]
        == 80
        == sum(manifest["counts"][split] for split in ("train", "val", "test"))
    )
    assert manifest["settings"]["near_duplicates"] == "drop"


def test_bad_rows_stop_the_run_unless_they_are_allowed(tmp_path, capsys):
    source = write(tmp_path / "chats.jsonl", many(80))
    with source.open("a") as stream:
        stream.write("{}\nnot json\n")
    out = tmp_path / "new" / "data"
    assert main(["prepare", str(source), "--out", str(out), "--max-bad", "1"]) == 2
    said = capsys.readouterr().err
    assert f"{source}:81: row: " in said
    assert f"{source}:82: json: " in said
    assert "--max-bad 2" in said.splitlines()[-1]
    assert not out.parent.exists()

    assert main(["prepare", str(source), "--out", str(out), "--max-bad", "2"]) == 0
    printed = capsys.readouterr()
    assert f"{source}:82: json: " in printed.err
    base, tuned = out.parent / "base", out.parent / "tuned"
    train = f"phi3flow train --data {out} --recipe small-cpu --model {base} --out {tuned}\n"
    assert f"next: phi3flow base --pretrained --out {base}\nthen: {train}" in printed.out
    assert read_manifest(out)["counts"]["bad"] == 2


def test_the_hint_offers_no_skipping_if_no_row_is_good(tmp_path, capsys):
    source = tmp_path / "chats.jsonl"
    source.write_text("{}\nnot json\n")
    assert main(["prepare", str(source), "--out", str(tmp_path / "data")]) == 2
    assert "--max-bad" not in capsys.readouterr().err


def test_a_file_too_small_for_three_splits_is_refused(tmp_path):
    few = [each for each in many(40) if split_of(each) != "test"]
    with pytest.raises(BadInput, match="test 0") as raised:
        prepare([str(write(tmp_path / "few.jsonl", few))], tmp_path / "data")
    assert "50 or more" in raised.value.hint and "--test FILE" in raised.value.hint
    everything = write(tmp_path / "all.jsonl", many(40))
    with pytest.raises(BadInput, match=r"train 0, val 0, test 40.*40 exact duplicates"):
        prepare([str(everything)], tmp_path / "data", test=everything)
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    source = write(tmp_path / "chats.jsonl", many(80))
    with pytest.raises(Exception, match="cannot be written: ") as raised:
        prepare([str(source)], tmp_path / "file" / "data")
    assert "--out" in raised.value.hint
