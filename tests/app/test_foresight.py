"""What `prepare` says at once: which base and recipe come next, and what will not work later."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from hub_server import Hub, Repository
from tiny import lively_model, new_tokenizer, saved
from warm_command import WarmCommand

from phi3flow.app.cli import main
from phi3flow.app.run_folder import recipe_for
from phi3flow.core.files import write_json
from training.recipes.recipe import load_recipe

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
PHI_TOKENIZER = CONFIGS.with_name("phi3_tokenizer")
THINGS = ("printer", "laptop", "badge", "phone", "desk", "router", "screen", "scanner", "lamp", "chair")
SUBJECTS = [f"{colour} {thing}" for colour in ("red", "blue", "old") for thing in THINGS]
FRAMES = (
    "My {} broke, what now?",
    "Who repairs the {} upstairs?",
    "Where can I order another {} today?",
    "Is the {} covered by the contract?",
)


def row(question, answer="Please ask the desk on floor 3."):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def questions():
    return [frame.format(subject) for subject in SUBJECTS for frame in FRAMES]


def write(path, rows):
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return path


@pytest.fixture
def prepared(tmp_path, capsys):
    """Runs `prepare` on rows, and gives its JSON object and what a person sees of a second run."""

    def run(rows, *options):
        command = ["prepare", str(write(tmp_path / "chats.jsonl", rows)), "--out", str(tmp_path / "run/data")]
        assert main([*command, *options, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert main([*command, *options]) == 0
        return told, capsys.readouterr().out

    return run


def warned(told, words):
    return [each for each in told["warnings"] if words in each]


def test_ordinary_chats_lead_to_the_small_pretrained_base(prepared, tmp_path):
    told, shown = prepared([row(question) for question in questions()])
    base, train = shown.splitlines()[-2:]
    assert base == f"next: phi3flow base --pretrained --out {tmp_path}/run/base"
    assert f"--recipe small-cpu --model {tmp_path}/run/base --out {tmp_path}/run/tuned" in train
    assert told["lengths"] is None
    assert not warned(told, "longer than") and not warned(told, "personal data")


def test_too_few_test_questions_are_told_before_anything_is_trained(prepared, tmp_path):
    rows = [row(question) for question in questions()]
    told, shown = prepared(rows)
    (few,) = warned(told, "a promotion takes 30")
    assert f"warning: {few}" in shown and "about 300 in all" in few and "--test FILE" in few

    shutil.rmtree(tmp_path / "run")
    test = [row(f"Which {word} opens door {i}?") for i, word in enumerate(SUBJECTS)]
    enough, _ = prepared(rows, "--test", str(write(tmp_path / "test.jsonl", test)))
    assert not warned(enough, "a promotion takes")

    shutil.rmtree(tmp_path / "run")
    again = write(tmp_path / "test.jsonl", [row("Which key opens door 7?")] * 40)
    (repeated,) = warned(prepared(rows, "--test", str(again))[0], "a promotion takes")
    assert repeated.startswith("test has 1 different questions")


def test_questions_asked_alike_on_both_sides_are_counted_with_their_places(prepared, tmp_path):
    asked = questions()
    train = [row(f"hi, {question} thx" if i % 3 == 1 else question) for i, question in enumerate(asked)]
    new = [
        f"hi, does anybody sell {i} tickets for concert {name}? thx" for i, name in enumerate("ABCDEFGHIJ")
    ]
    greeted = [f"Hi, {asked[i][0].lower()}{asked[i][1:]} thx" for i in (0, 51)]
    test = write(tmp_path / "test.jsonl", [row(question) for question in [*new, *greeted]])
    told, _ = prepared(train, "--test", str(test))
    (alike,) = warned(told, "nearly the same words")
    assert alike.startswith("2 of 12 test questions")
    assert f"({test}:11, {test}:12)" in alike


def test_personal_data_are_counted_and_never_shown(prepared, tmp_path):
    rows = [row(question) for question in questions()]
    planted = {
        "e-mail addresses in 2 rows": ("ada.lovelace@contoso.co.uk", "b@fabrikam.com"),
        "phone numbers in 3 rows": ("+49 (0)30 901820", "030/90 18 20 11", "(212) 555-0147"),
        "IBANs in 1 rows": ("DE89 3704 0044 0532 0130 00",),
        "card numbers in 1 rows": ("4111 1111 1111 1111",),
        "US social security numbers in 1 rows": ("078-05-1120",),
    }
    values = [value for several in planted.values() for value in several]
    rows += [row(f"Please note number {i}: {value}.") for i, value in enumerate(values)]
    harmless = (
        *("me@example.com", "2026-11-27 10:15", "4111 1111 1111 1112", "DE88 3704 0044 0532 0130 00"),
        *("call 4444", "version 1.22.333.4444", "09-11-2026", "0000 0000 0000 0000", "EUR 12000 or 3 %"),
    )
    rows += [row(f"Is it {value} or not?") for value in harmless]
    told, shown = prepared(rows)
    (found,) = warned(told, "personal data by pattern")
    for count in planted:
        assert count in found
    assert f"{tmp_path}/chats.jsonl:" in found
    assert not [value for value in values if value in shown or value in json.dumps(told)]


def test_chats_longer_than_the_recipe_are_guessed_without_a_tokenizer_and_counted_with_one(
    prepared, tmp_path
):
    limit = load_recipe("small-cpu").max_length
    rows = [row(question) for question in questions()] + [row("Tell me all.", "word " * limit)] * 2
    rows[-1] = row("Tell me everything.", "word " * (limit + 1))
    told, _ = prepared(rows)
    (guessed,) = warned(told, "longer than")
    assert "2 of 122 chats" in guessed and "guessed" in guessed and 'long_chats = "window"' in guessed

    tokenizer = new_tokenizer()
    base = saved(lively_model(tokenizer), tokenizer, tmp_path / "run" / "base")
    counted, shown = prepared(rows)
    (longer,) = warned(counted, "longer than")
    assert counted["lengths"]["most"] > limit and "guessed" not in longer
    assert f"--recipe tiny-cpu --model {base}" in shown.splitlines()[-1]  # a toy lies there
    assert f"the {load_recipe('tiny-cpu').max_length} tokens of recipe tiny-cpu" in longer


def test_a_base_that_cannot_be_used_is_a_warning_and_a_model_that_was_named_an_error(
    prepared, tmp_path, capsys
):
    (tmp_path / "run" / "base").mkdir(parents=True)
    (tmp_path / "run" / "base" / "config.json").write_text("{}")
    told, _ = prepared([row(question) for question in questions()])
    assert warned(told, "no tokenizer.json")
    source = str(tmp_path / "chats.jsonl")
    command = ["prepare", source, "--out", str(tmp_path / "run/data"), "--model", str(tmp_path / "run/base")]
    assert main(command) == 2
    assert "no tokenizer.json" in capsys.readouterr().err


def test_a_model_of_the_hub_is_counted_for_and_downloaded_next(tmp_path):
    config = (CONFIGS / "phi3.5-mini.json").read_bytes()
    tokenizer = {path.name: path.read_bytes() for path in PHI_TOKENIZER.iterdir()}
    rows = [row(question) for question in questions()]
    source = write(tmp_path / "chats.jsonl", rows)
    with Hub(Repository("models", "someone/phi", tokenizer | {"config.json": config})) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": ""}
        with WarmCommand(tmp_path, environment) as command:
            ran = command.start("prepare", str(source), "--out", "run/data", "--model", "someone/phi").wait()
    assert ran.code == 0, ran.said
    assert "tokens per chat: mean" in ran.out
    download, train = ran.out.splitlines()[-2:]
    assert download == "next: hf download someone/phi --local-dir run/base"
    assert "--recipe phi3.5-mini-lora --model run/base --out run/tuned" in train


@pytest.mark.parametrize("name", ["phi3-mini-4k", "phi3.5-mini", "phi4-mini"])
def test_a_phi_gets_its_own_recipe(tmp_path, name):
    shutil.copyfile(CONFIGS / f"{name}.json", tmp_path / "config.json")
    assert recipe_for(tmp_path) == f"{name}-lora"


@pytest.mark.parametrize(("width", "recipe"), [(192, "tiny-cpu"), (576, "small-cpu"), (960, "small-cpu")])
def test_a_smaller_base_gets_the_recipe_of_its_size(tmp_path, width, recipe):
    write_json(tmp_path / "config.json", {"hidden_size": width})
    assert recipe_for(tmp_path) == recipe
    assert files("training.recipes").joinpath(f"{recipe}.toml").is_file()
