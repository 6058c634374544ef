"""`train --method dpo` and `kto`: real TRL on a tiny model, from preferences to a folder to compare."""

import json
import math
import os
import shlex
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from counting import chat
from tiny import TEXTS, lively_model, saved
from warm_command import WarmCommand

from phi3flow.app.run_folder import require_run
from phi3flow.chats.chat_template import encode_example
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import read_json
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.lineage import sha256_of
from training.data.preferences import read_compared_rows
from training.finetune import finetune
from training.loop.finish import WeightChange, require_probes_changed
from training.loop.preference_material import from_preferences
from training.loop.start import Run, starting_model
from training.loop.trainers import trainer_for
from training.models.probes import Answer
from training.models.scratch import train_tokenizer
from training.recipes.recipe import Lora, Recipe, load_recipe
from training.tracking.mlflow_run import LOCAL_STORE, track
from ui.store.votes import append_vote

RECIPE = Recipe(
    method="dpo",
    steps=14,
    batch_size=8,
    learning_rate=1e-2,
    max_length=64,
    precision="fp32",
    eval_every=4,
    lora=Lora(rank=4),
)
TOML = """
method = "dpo"
steps = 14
batch_size = 8
learning_rate = 1e-2
max_length = 64
precision = "fp32"
eval_every = 4

[lora]
rank = 4
"""
CONTEXT = 256
TESTED = 500  # what comes after it is the test set's only question


def pair(i, chosen="After it comes three.", rejected="one two"):
    return {"prompt": f"What comes after {i}?", "chosen": f"{chosen} {i}", "rejected": rejected}


def thumb(i, *, good):
    row = pair(i)
    return {"prompt": row["prompt"], "completion": row["chosen" if good else "rejected"], "label": good}


@pytest.fixture(autouse=True)
def one_thread():
    """A second one gains so small a model nothing, and waits for a core on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """runs/mine with a tuned model, its test set, and files of preferences."""
    folder = tmp_path_factory.mktemp("project")
    tokenizer = train_tokenizer(TEXTS * 3, 400, CONTEXT)
    model = lively_model(tokenizer)
    model.config.max_position_embeddings = CONTEXT  # probes are shorter by it
    saved(model, tokenizer, folder / "runs" / "mine" / "tuned")
    write_jsonl(folder / "runs" / "mine" / "data" / "test.jsonl", [chat(TESTED)])
    write_jsonl(folder / "pairs.jsonl", [pair(i) for i in range(30)])
    write_jsonl(folder / "thumbs.jsonl", [thumb(i, good=i % 3 > 0) for i in range(30)])
    (folder / "mine.toml").write_text(TOML)
    return folder


@pytest.fixture(scope="module")
def command(project):
    with WarmCommand(project, {"PHI3FLOW_TRACK": "0", "OMP_NUM_THREADS": "1"}) as command:
        yield command


def words(out, *more, data="pairs.jsonl", model="runs/mine/tuned"):
    files = ["--data", data, "--recipe", "mine.toml", "--model", model, "--out", f"runs/{out}/tuned"]
    return ["train", *files, *more]


def run_of(project, rows="pairs.jsonl", recipe=RECIPE):
    start = str(project / "runs" / "mine" / "tuned")
    return Run(project / rows, recipe, project / "runs" / "other" / ".tuned.partial", "tuned", start, seed=0)


def trainer_of(project, rows="pairs.jsonl", recipe=RECIPE):
    run = run_of(project, rows, recipe)
    material = from_preferences(run)
    run = replace(
        run, recipe=replace(run.recipe, gradient_checkpointing=False, compile=False, attention="sdpa")
    )
    return trainer_for(run, starting_model(run, material.tokenizer), material), material


@pytest.fixture(scope="module")
def learned(command):
    """A model that has learned from pairs, undisturbed."""
    ended = command.run(*words("learned"))
    assert ended.code == 0, ended.said
    return ended


def test_held_out_pairs_gain_a_margin_and_the_run_folder_can_be_compared(project, learned):
    folder = project / "runs" / "learned"
    manifest = read_json(folder / "tuned" / "manifest.json")
    result, counts = manifest["result"], manifest["result"]["rows"]
    assert (counts["train"] + counts["held_out"], counts["no_preference"]) == (30, 0)
    assert counts["held_out"] >= 2
    margins = [
        row["eval_margin"] for row in read_jsonl(folder / "tuned" / "metrics.jsonl") if "eval_loss" in row
    ]
    assert result["margin"] == max(margins) > margins[0] > 0
    assert result["accuracy"] == 1
    assert result["validation_loss"] < math.log(2)
    assert [each["kind"] for each in manifest["inputs"]] == ["preferences", "test", "model"]
    assert f"{counts['train']} rows to learn from, {counts['held_out']} held out" in learned.said
    assert "held-out margin +" in learned.out
    assert "next: phi3flow compare runs/learned" in learned.out
    assert sha256_of(folder / "base") == sha256_of(project / "runs" / "mine" / "tuned")
    require_run(folder)


def test_killed_anywhere_it_ends_with_the_same_weights(project, command, learned):
    metrics = project / "runs" / "killed" / ".tuned.partial" / "metrics.jsonl"
    for step in (5, 9):
        started = command.start(*words("killed"))
        deadline = time.monotonic() + 90
        while not (metrics.exists() and read_jsonl(metrics)[-1]["step"] >= step):
            assert started.running, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(started.pid, signal.SIGKILL)
        assert started.wait().code == -signal.SIGKILL
    ended = command.run(*words("killed"))
    assert ended.code == 0, ended.said
    assert "continues after step" in ended.said
    killed, whole = (project / "runs" / name / "tuned" for name in ("killed", "learned"))
    assert sha256_of(killed / "model.safetensors") == sha256_of(whole / "model.safetensors")
    validations = [
        [
            (row["step"], row["eval_margin"])
            for row in read_jsonl(folder / "metrics.jsonl")
            if "eval_loss" in row
        ]
        for folder in (killed, whole)
    ]
    assert validations[0] == validations[1]


def test_kto_learns_from_thumbs_and_a_run_folder_means_its_tuned_model(project, command):
    ended = command.run(*words("thumbs", "--method", "kto", data="thumbs.jsonl", model="runs/mine"))
    assert ended.code == 0, ended.said
    manifest = read_json(project / "runs" / "thumbs" / "tuned" / "manifest.json")
    assert manifest["recipe"]["method"] == "kto"
    assert manifest["result"]["margin"] > 0
    assert manifest["result"]["accuracy"] is None
    require_run(project / "runs" / "thumbs")


@pytest.mark.slow
def test_mlflow_has_the_margin(project, command, learned):
    from mlflow import MlflowClient

    track(project / "runs" / "learned" / "tuned", project / "runs")
    client = MlflowClient(f"sqlite:///{project / 'runs' / LOCAL_STORE}")
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    result = read_json(project / "runs" / "learned" / "tuned" / "manifest.json")["result"]
    assert run.data.metrics["margin"] == pytest.approx(result["margin"])
    assert len(client.get_metric_history(run.info.run_id, "eval_margin")) == 4
    assert run.data.params["method"] == "dpo"


def test_inspect_says_what_a_training_would_take(project, command):
    ended = command.run(*words("seen", "--inspect", "1", "--json"))
    found = json.loads(ended.out)
    plan = found["plan"]
    assert plan["train"] + plan["held_out"] == 30
    assert (plan["method"], plan["steps"]) == ("dpo", 14)
    assert "pairs.jsonl:" in found["inspection"]
    assert not (project / "runs" / "seen").exists()


def logps(model, tokenizer, messages):
    """The log-likelihood of the last turn, by the model's own logits."""
    ids, mask = encode_example(tokenizer, messages)
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits.log_softmax(-1)[0, :-1]
    return sum(scores[at, ids[at + 1]].item() for at in range(len(ids) - 1) if mask[at + 1])


def test_the_reference_is_the_start_model_before_and_after_training(project):
    trainer, material = trainer_of(project)
    tokenizer = material.tokenizer
    start = starting_model(run_of(project), tokenizer).eval()
    rows = {f"{project / 'pairs.jsonl'}:{i + 1}": pair(i) for i in range(30)}
    batch = trainer.data_collator([material.train[i] for i in range(4)])
    messages = [
        [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[name]}]
        for name in ("chosen", "rejected")
        for row in (rows[origin] for origin in material.origins[:4])
    ]
    expected = [logps(start, tokenizer, each) for each in messages]
    line = batch.pop("line")
    assert line.tolist() == [1, 2, 3, 4]

    def reference():
        return torch.cat(trainer.compute_ref_log_probs(trainer.model, batch)).tolist()

    assert reference() == pytest.approx(expected, abs=1e-4)
    before = trainer.evaluate()
    assert (before["eval_margin"], before["eval_accuracy"]) == (0, 0)
    assert before["eval_loss"] == pytest.approx(math.log(2))
    trainer.train()
    assert reference() == pytest.approx(expected, abs=1e-4)
    assert trainer.ref_model is None


def test_the_margin_is_the_mean_over_rows_and_not_over_batches(project):
    trainer, material = trainer_of(project, recipe=replace(RECIPE, batch_size=4, steps=4))
    trainer.train()
    held_out = material.validation
    assert len(held_out) % 4, "the last batch is to be short"
    batches = [trainer.data_collator([row]) for row in held_out]
    gained = []
    for batch in batches:
        batch.pop("line")
        now = torch.cat(_policy(trainer, batch))
        then = torch.cat(trainer.compute_ref_log_probs(trainer.model, batch))
        gained.append(RECIPE.beta * ((now - then)[0] - (now - then)[1]).item())
    watched = trainer.evaluate()
    assert watched["eval_margin"] == pytest.approx(sum(gained) / len(gained), rel=1e-4)
    assert watched["eval_accuracy"] == sum(each > 0 for each in gained) / len(gained)


def _policy(trainer, batch):
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found = trainer.model(**inputs, labels=labels, fused_lm_head=True, use_cache=False).log_probs
    return found.sum(dim=1).chunk(2)


def test_each_thumb_is_measured_by_another_answer_of_its_batch(project):
    trainer, material = trainer_of(project, "thumbs.jsonl", replace(RECIPE, method="kto"))
    rows = [material.train[i] for i in range(3)]
    batch = trainer.data_collator(rows)
    for at, other in enumerate((2, 0, 1)):
        ids = batch["KL_input_ids"][at][batch["KL_attention_mask"][at].bool()].tolist()
        assert ids == rows[at]["prompt_ids"] + rows[other]["completion_ids"]
    labels = material.train["label"]
    weights = trainer.args.desirable_weight, trainer.args.undesirable_weight
    assert min(weights) == 1
    assert weights[0] * sum(labels) == pytest.approx(weights[1] * (len(labels) - sum(labels)))


def test_no_thumb_is_alone_in_a_batch(project):
    trainer, material = trainer_of(project, "thumbs.jsonl", replace(RECIPE, method="kto"))
    nine = material.train.select(range(trainer.args.train_batch_size + 1))
    assert len(list(trainer._get_train_sampler(nine))) == len(nine) + 1
    assert len(trainer._get_eval_sampler(nine)) == len(nine) + 1


def bad(rows, project, tmp_path, recipe=RECIPE):
    write_jsonl(tmp_path / "bad.jsonl", rows)
    with pytest.raises(BadInput) as caught:
        finetune(
            tmp_path / "bad.jsonl", recipe, tmp_path / "out" / "tuned", model=str(project / "runs/mine/tuned")
        )
    assert not list((tmp_path / "out").glob("*"))
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"prompt": "What?", "rejected": "one"}, "chosen: missing beside rejected"),
        ({"prompt": "What?", "chosen": None, "rejected": "one"}, "chosen: "),
        ({"prompt": "What?", "chosen": "two", "rejected": " two"}, "rejected: is the same answer as chosen"),
        (pair(TESTED), "prompt: asks a question of the test set, "),
        (pair(77, chosen="three " * 70), "chosen: "),
    ],
)
def test_a_bad_row_is_named_with_a_command_that_leaves_it_out(row, error, project, tmp_path):
    rows = [pair(i) for i in range(20)]
    rows.insert(4, row)
    told, hint = bad(rows, project, tmp_path)
    path = tmp_path / "bad.jsonl"
    assert f"1 bad row\n{path}:5: {error}" in told
    repair = hint.split("leave them out: ")[1]
    subprocess.run(repair, shell=True, check=True)  # noqa: S602 - as a person would paste it
    assert read_jsonl(tmp_path / "good-bad.jsonl") == rows[:4] + rows[5:]
    assert shlex.split(repair)[0] == "sed"


def test_the_test_question_and_the_length_are_named(project, tmp_path):
    rows = [*(pair(i) for i in range(20)), pair(TESTED)]
    assert f"{project / 'runs/mine/data/test.jsonl'}:1" in bad(rows, project, tmp_path)[0]
    told = bad([*rows[:20], pair(77, chosen="three " * 70)], project, tmp_path)[0]
    assert "tokens, more than max_length 64" in told


def test_what_is_too_little_to_learn_from_is_said(project, tmp_path):
    told, hint = bad([pair(i) for i in range(9)], project, tmp_path)
    assert "9 rows with a preference, and dpo takes 10 or more" in told
    assert "phi3flow feedback RUN --out FILE" in hint
    same = [pair(7, chosen=f"three {i}") for i in range(12)]
    assert "all rows ask the same" in bad(same, project, tmp_path)[0]
    kto = replace(RECIPE, method="kto")
    assert "only thumbs up" in bad([thumb(i, good=True) for i in range(12)], project, tmp_path, kto)[0]
    long = thumb(99, good=False) | {"completion": "three " * 70}
    rows = [*(thumb(i, good=True) for i in range(12)), long]
    told = bad(rows, project, tmp_path, replace(kto, long_chats="drop"))[0]
    assert "only thumbs up are left to learn from" in told


def test_a_training_that_changes_nothing_has_failed(project, command):
    (project / "still.toml").write_text(TOML.replace("1e-2", "1e-12").replace("14", "2"))
    ended = command.run(*words("still", "--recipe", "still.toml"))
    assert ended.code == 1
    assert "training changed no" in ended.said
    assert not (project / "runs" / "still" / "tuned").exists()


def test_files_and_folders_are_told_apart(project, tmp_path):
    start = str(project / "runs" / "mine" / "tuned")
    with pytest.raises(BadInput, match="a folder, and dpo learns from a file of preferences"):
        finetune(project / "runs" / "mine" / "data", RECIPE, tmp_path / "tuned", model=start)
    with pytest.raises(BadInput, match="a file, and sft learns from a folder"):
        finetune(project / "pairs.jsonl", replace(RECIPE, method="sft"), tmp_path / "tuned", model=start)


def test_both_answers_of_a_pair_are_in_the_estimate(project):
    from training.estimate.footprint import largest_batch

    material = from_preferences(run_of(project))
    assert len(material.estimated) == 2 * len(material.train)
    pairs, thumbs = (
        largest_batch(replace(RECIPE, method=method), material.estimated) for method in ("dpo", "kto")
    )
    assert pairs.tokens == 2 * thumbs.tokens


def test_the_arenas_own_file_is_taken_and_its_ties_are_counted(project, tmp_path):
    votes = ("tuned", "tie", "base", "both_bad", "tuned")
    path = tmp_path / "preferences.jsonl"
    for number in range(50):
        answers = {"tuned": f"three {number}", "base": "one two"}
        append_vote(path, f"round-{number}", f"Who founded {number}?", answers, votes[number % len(votes)])
    counts = from_preferences(run_of(project, path)).counts
    assert (counts["train"] + counts["held_out"], counts["no_preference"]) == (30, 20)


def test_rows_that_ask_the_same_are_on_one_side_whatever_their_order(project, tmp_path):
    rows = [pair(i, chosen=f"three {n}") for i in range(20) for n in range(3)]
    sides = []
    for order in (rows, rows[::-1]):
        write_jsonl(tmp_path / "rows.jsonl", order)
        found = read_compared_rows(tmp_path / "rows.jsonl", "dpo", [])
        train, held_out = (
            {row.prompt[0]["content"] for row in side} for side in (found.train, found.held_out)
        )
        assert not train & held_out
        sides.append(held_out)
    assert sides[0] == sides[1]


@pytest.mark.parametrize("first", [0, 100, 200, 300, 400])
def test_a_fifth_of_the_questions_is_held_out_at_least(tmp_path, first):
    write_jsonl(tmp_path / "rows.jsonl", [pair(first + i, chosen=f"three {i}") for i in range(50)])
    found = read_compared_rows(tmp_path / "rows.jsonl", "dpo", [])
    assert 10 <= len(found.held_out) <= 25
    assert len(found.train) + len(found.held_out) == 50


@pytest.mark.parametrize("method", ["dpo", "kto"])
@pytest.mark.parametrize("name", ["dpo-tiny", "dpo-lora"])
def test_the_shipped_recipes_train_adapters_alone(name, method, project):
    recipe = replace(load_recipe(name, method), steps=2, epochs=None)
    trainer, _ = trainer_of(project, recipe=recipe)
    before = {key: weights.clone() for key, weights in trainer.model.named_parameters()}
    trainer.args.save_strategy = "no"
    trainer.train()
    changed = {key for key, weights in trainer.model.named_parameters() if not weights.equal(before[key])}
    assert changed
    assert all("lora_" in key for key in changed)


def test_an_unchanged_answer_is_no_failure_where_the_margin_rose():
    same = {"one": Answer("Rome.", "stop")}
    moved = WeightChange(0.01, 1.0)
    assert require_probes_changed(same, same, moved, margin=0.1) == 0
    for margin in (None, 0.0, -0.1):
        with pytest.raises(Phi3flowError, match="changed no answer"):
            require_probes_changed(same, same, moved, margin=margin)
