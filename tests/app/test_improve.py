"""`phi3flow improve` and `promote`: what a training would take, and which model the chat app serves."""

import json
import shutil
from pathlib import Path

import pytest
from both_hosts import new_home
from scripted_endpoint import KEY, scripted_endpoint
from tiny import lively_model, new_tokenizer, saved

from custom_connections.store import store_connection
from evaluation.compare import Options
from evaluation.verdict.gate import load_gate
from phi3flow.app.cli import main
from phi3flow.app.improvement import latest_improvement, next_improvement
from phi3flow.app.promotion import promote_improvement
from phi3flow.app.run_folder import compare_run
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import Artifact, write_manifest
from phi3flow.core.served_model import served_run
from phi3flow.core.sides import SIDES
from phi3flow.phi3_contract import Endpoint, Sampling
from ui.store.conversations import Conversations
from ui.store.improvements import latest_shown
from ui.store.records import COMPLETE, Model
from ui.store.votes import append_vote


def chat(question, answer):
    turns = (("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tokenizer = new_tokenizer()
    return saved(lively_model(tokenizer), tokenizer, tmp_path_factory.mktemp("models") / "tuned")


@pytest.fixture
def run(tmp_path, monkeypatch, model):
    """A run folder with a model, data and votes."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "tuned").symlink_to(model)
    for name in ("train", "val", "test"):
        write_jsonl(folder / "data" / f"{name}.jsonl", [chat(f"What is {name}?", name)])
    for number in range(3):
        question = f"Who founded company {number}? Write to ada{number}@contoso.com"
        append_vote(
            folder / "preferences.jsonl", f"r{number}", question, {"tuned": "Ada", "base": "?"}, "tuned"
        )
    return folder


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*"))


def told(capsys):
    return json.loads(capsys.readouterr().out)


def test_the_plan_says_what_it_takes_and_writes_nothing(run, capsys):
    before = names_in(run)
    append_vote(run / "preferences.jsonl", "tie", "Which?", {"tuned": "a", "base": "b"}, "tie")
    assert main(["improve", "mine", "--kind", "preferences", "--recipe", "dpo-tiny", "--json"]) == 0
    plan = told(capsys)
    assert (plan["said"]["votes"], plan["rows"], plan["from"]) == (4, 3, {"votes": 3})
    assert list(plan["left_out"].values()) == [1] and plan["personal_data"] == {"e-mail addresses": 3}
    assert (plan["training"]["steps"], plan["training"]["missing"]) == (6, 7), "ten rows are the fewest"
    assert plan["model"] == "mine/tuned" and "contoso" in json.dumps(plan["shown"])
    assert [line.split()[1] for line in plan["commands"]] == ["feedback", "train", "compare"]
    assert plan["commands"][1] == (
        "phi3flow train --method dpo --data mine/improve/1/preferences.jsonl --recipe dpo-tiny "
        "--model mine/tuned --out mine/improve/1/tuned"
    )
    assert names_in(run) == before
    assert (
        main(
            [
                "improve",
                "mine",
                "--kind",
                "preferences",
                "--recipe",
                "dpo-tiny",
                "--replace-personal",
                "--json",
            ]
        )
        == 0
    )
    assert "contoso" not in json.dumps(told(capsys)["shown"])


def test_a_plan_for_thumbs_learns_by_kto(run, capsys):
    page = Conversations(run / "chat.sqlite", "ada")
    page.prepare()
    for number, thumb in enumerate((1, 0, 1)):
        turn = page.add(
            page.create(f"Which {number}?", "", Sampling()).id, f"Which {number}?", Model("tuned")
        )
        page.save(turn.id, answer=f"Number {number}.", status=COMPLETE, thumb=thumb)
    assert main(["improve", "mine", "--kind", "thumbs", "--json"]) == 0
    plan = told(capsys)
    assert (plan["rows"], [row["label"] for row in plan["shown"]]) == (3, [True, False, True])
    assert plan["commands"][0].endswith("--kind thumbs --out mine/improve/1/thumbs.jsonl")
    assert "train --method kto --data mine/improve/1/thumbs.jsonl" in plan["commands"][1]


def test_a_plan_for_chats_keeps_the_runs_own_data_and_test_set(run, capsys):
    append_vote(run / "preferences.jsonl", "tie", "Which?", {"tuned": "a", "base": "b"}, "tie")
    assert main(["improve", "mine", "--kind", "chats"]) == 0
    said = capsys.readouterr().out
    assert "nothing to learn from; chat, vote and correct answers: phi3flow up mine --arena" in said
    write_manifest(
        run / "data", "data", inputs=[], outputs=[], details={"settings": {"near_duplicates": "report"}}
    )
    assert main(["improve", "mine", "--kind", "chats", "--json"]) == 0
    prepare = told(capsys)["commands"][1]
    assert prepare.startswith(
        "phi3flow prepare mine/data/train.jsonl mine/data/val.jsonl mine/improve/1/chats.jsonl "
        "--test mine/data/test.jsonl --near-duplicates report"
    )


@pytest.mark.parametrize(
    ("lost", "options", "said"),
    [
        ("data/test.jsonl", [], "hint: phi3flow prepare CHATS.jsonl --out mine/data"),
        ("preferences.jsonl", [], "hint: chat, vote and correct answers"),
        ("tuned", [], "hint: phi3flow base"),
        ("none", ["--kind", "preferences", "--recipe", "nowhere.toml"], "no recipe 'nowhere.toml'"),
        ("none", ["--resume"], "no improvement to continue"),
        ("none", ["--resume", "--start"], "give one of them"),
    ],
)
def test_what_is_missing_is_named_with_its_repair(run, capsys, lost, options, said):
    if lost == "tuned":
        said = "hint: phi3flow train --data mine/data"
    (run / lost).unlink(missing_ok=True)
    assert main(["improve", "mine", *options]) == 2
    assert said in capsys.readouterr().err
    assert not (run / "improve").exists()


@pytest.fixture
def compared(run):
    """A function that writes a finished comparison of improvement N with the model in `present`."""

    def compare(number, verdict, present="tuned"):
        folder = run / "improve" / str(number)
        (folder / "tuned").mkdir(parents=True)
        (folder / "tuned" / "config.json").write_text(json.dumps({"made": number}))
        (folder / "improvement.json").write_text(
            json.dumps(
                {"kind": "chats", "recipe": "tiny-cpu", "model": "../../tuned", "replace_personal": False}
            )
        )
        (folder / "report.json").write_text(
            json.dumps({"verdict": verdict, "reasons": ["Because."], "failed": 0})
        )
        models = [Artifact.of("model", path) for path in (run / present, folder / "tuned")]
        report = Artifact.of("report", folder / "report.json")
        write_manifest(folder, "report", inputs=models, outputs=[report])
        return folder

    return compare


def test_a_promoted_model_is_served_and_undo_serves_the_former_one(run, compared, capsys):
    assert served_run(run) == run
    compared(1, "promote")
    assert main(["promote", "mine", "--json"]) == 0
    assert told(capsys)["serves"] == "mine/improve/1/tuned" and served_run(run) == run / "improve" / "1"
    assert main(["promote", "mine"]) == 2
    assert "is served already" in capsys.readouterr().err
    compared(2, "promote", "improve/1/tuned")
    assert main(["promote", "mine"]) == 0 and served_run(run).name == "2"
    assert main(["promote", "mine", "--undo"]) == 0 and served_run(run).name == "1"
    assert main(["promote", "mine", "--undo"]) == 0 and served_run(run) == run
    assert main(["promote", "mine", "--undo"]) == 2
    assert "nothing was promoted" in capsys.readouterr().err


@pytest.mark.parametrize("verdict", ["hold", "not_enough_data"])
def test_another_verdict_is_not_served_unless_a_person_says_why(run, compared, capsys, verdict):
    compared(1, verdict)
    for words in ([], ["--because", "  "]):
        assert main(["promote", "mine", *words]) == 2
        said = capsys.readouterr().err
        assert f"the verdict is {verdict.replace('_', ' ')}, not promote\nBecause." in said
        assert 'hint: phi3flow promote mine --because "' in said
    assert served_run(run) == run
    assert main(["promote", "mine", "--because", "The lost questions are of a product that is gone."]) == 0
    (kept,) = json.loads((run / "promoted.json").read_text())
    assert (kept["verdict"], kept["because"][:8]) == (verdict, "The lost")


def test_a_comparison_of_other_models_does_not_promote(run, compared, capsys):
    folder = compared(1, "promote", "data")
    assert main(["promote", "mine"]) == 2
    assert "was with another model than mine/tuned, which is served now" in capsys.readouterr().err
    (folder / "tuned" / "config.json").write_text("{}")
    assert main(["promote", "mine", "--because", "I know"]) == 2
    assert "is about another model" in capsys.readouterr().err
    compared(2, "hold")
    (run / "improve" / "2" / "report.json").write_text('{"verdict": "promote"}')
    assert main(["promote", "mine", "--because", "I know"]) == 2
    assert "has changed since the comparison" in capsys.readouterr().err
    assert main(["promote", "mine", "--improvement", "3"]) == 2
    assert "hint: phi3flow improve mine --resume" in capsys.readouterr().err
    assert served_run(run) == run


@pytest.mark.parametrize(
    "content",
    ["{", '[{"improvement": "../../other"}]', '[{"improvement": "1", "promoted": "", "verdict": ""}]'],
)
def test_a_broken_list_of_promotions_is_named(run, capsys, content):
    (run / "promoted.json").write_text(content)
    assert main(["up", "mine"]) == 2
    said = capsys.readouterr().err
    assert "mine/promoted.json" in said and "hint: rm mine/promoted.json" in said


def test_up_says_how_to_go_back_where_the_promoted_model_is_gone(run, capsys):
    (run / "promoted.json").write_text('[{"improvement": 4, "promoted": "2026-11-28", "verdict": "promote"}]')
    assert main(["up", "mine"]) == 2
    assert "hint: phi3flow promote mine --undo" in capsys.readouterr().err


def test_a_comparison_of_exports_is_about_the_models_they_were_made_of(run, tmp_path, compared):
    """On a CPU a real model is asked in 8 bits: what is compared, and promoted, is the model itself."""
    folder = compared(1, "promote")
    shutil.copytree(run / "tuned", folder / "base")
    write_jsonl(
        folder / "data" / "test.jsonl", [chat(f"What is {number}?", str(number)) for number in range(3)]
    )
    served = {name: shutil.copytree(folder / name, folder / f"{name}-int8") for name in ("base", "tuned")}
    for path in served.values():
        (path / "weights.bin").write_text("in 8 bits")
    options = Options(load_gate(), workers=1)
    with new_home(tmp_path / "home").entered(), scripted_endpoint() as endpoint:
        for side in SIDES:
            store_connection(side.connection, Endpoint(endpoint.url(), KEY, "openai"))
        compare_run(folder, options, runner="direct", served=served)
    verdict = json.loads((folder / "report.json").read_text())["verdict"].replace("_", " ")
    with pytest.raises(BadInput, match=f"the verdict is {verdict}"):
        promote_improvement(run, 1, "")
    assert promote_improvement(run, 1, "to try it").because == "to try it"


def test_an_improvement_goes_on_from_another_folder(run, monkeypatch):
    begun = next_improvement(Path("mine"), "preferences", None)
    begun.begin()
    training = next(step for step in begun.steps() if step.name == "training")
    (begun.folder / "tuned").mkdir()
    assert not training.makes.exists(), "base/ and data/ come after the model, and a comparison needs them"
    monkeypatch.chdir(run)
    again = latest_improvement(Path())
    assert again.model.resolve() == (run / "tuned").resolve()
    shown = latest_shown(run)
    assert [step.is_done for step in shown.steps] == [False] * 3
    (run / "improve" / "1" / "data").mkdir()
    assert [step.is_done for step in latest_shown(run).steps] == [False, True, False]
