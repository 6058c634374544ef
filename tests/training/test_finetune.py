"""The training path on a model small enough to train in a second."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from counting import RECIPE, chat
from peft import get_peft_model
from transformers import TrainerCallback

from phi3flow.chats.rows import load_chats
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import write_json
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.lineage import read_manifest, sha256_of
from training.checkpoints import latest_checkpoint, valid_checkpoints
from training.finetune import ROOT, finetune, training_code
from training.loop.finish import ADAPTER, merged_into_start
from training.loop.material import encode
from training.loop.run import advance
from training.loop.start import Run, starting_model, starting_tokenizer
from training.loop.trainers import make_trainer
from training.models.loading import load_model, load_tokenizer
from training.recipes.recipe import Lora
from training.recipes.training_arguments import peft_config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "train.jsonl", [chat(i) for i in range(60)])
    write_jsonl(folder / "val.jsonl", [chat(i) for i in range(60, 70)])
    return folder


@pytest.fixture(scope="module")
def base(data, tmp_path_factory):
    return finetune(data, RECIPE, tmp_path_factory.mktemp("models") / "base")


def test_the_folder_loads_and_knows_how_to_stop(base):
    model, tokenizer = load_model(str(base.folder)), load_tokenizer(str(base.folder))
    stops = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|end|>"])
    assert sorted(model.generation_config.eos_token_id) == sorted(model.config.eos_token_id) == sorted(stops)
    assert type(model).__name__ == "Phi3ForCausalLM"
    assert (base.folder / "loss.png").stat().st_size > 1000


def test_metrics_have_both_losses_and_the_loss_falls(base):
    rows = read_jsonl(base.folder / "metrics.jsonl")
    validation = [row["eval_loss"] for row in rows if "eval_loss" in row]
    assert len(validation) == 2
    assert validation[-1] < validation[0]
    assert any("loss" in row for row in rows)


def test_probes_have_what_verify_needs(base):
    rows = read_jsonl(base.folder / "probes.jsonl")
    assert {"single-turn", "multi-turn", "system", "injection", "validation-0"} <= {row["id"] for row in rows}
    house = {"id", "messages", "prompt_token_ids", "tuned_text", "base_text"}
    assert set(rows[0]) == house | {"max_tokens", "tuned_finish_reason", "base_finish_reason", "dtype"}
    assert all(row["base_text"] is row["base_finish_reason"] is None for row in rows)
    assert base.result.changed_probes is None
    tokenizer = load_tokenizer(str(base.folder))
    for row in rows:
        tokens = len(tokenizer.encode(row["tuned_text"], add_special_tokens=False))
        # Bytes that are no text do not survive decoding, so an answer that was cut may seem shorter.
        assert tokens < row["max_tokens"] if row["tuned_finish_reason"] == "stop" else tokens > 0


def test_the_manifest_leads_from_the_model_to_its_data(base, data):
    manifest = read_manifest(base.folder)
    assert manifest["system_prompt"] == base.result.system_prompt == ""
    assert manifest["inputs"][0]["sha256"] == sha256_of(data / "train.jsonl")
    assert manifest["outputs"][0]["sha256"] == sha256_of(base.folder)


def test_training_is_repeatable_and_the_second_call_does_nothing(base, data, tmp_path):
    recipe = replace(RECIPE, scratch=None)
    first = finetune(data, recipe, tmp_path / "a", model=str(base.folder), seed=3)
    other = finetune(data, recipe, tmp_path / "b", model=str(base.folder), seed=3)
    weights = "model.safetensors"
    assert sha256_of(first.folder / weights) == sha256_of(other.folder / weights)
    written = (first.folder / weights).stat().st_mtime_ns
    assert finetune(data, recipe, tmp_path / "a", model=str(base.folder), seed=3) == first
    assert (first.folder / weights).stat().st_mtime_ns == written
    rows = read_jsonl(first.folder / "probes.jsonl")
    assert first.result.changed_probes == sum(row["tuned_text"] != row["base_text"] for row in rows) / len(
        rows
    )


def test_a_model_that_other_code_trained_is_kept_with_a_notice(base, data, tmp_path, capsys):
    out = shutil.copytree(base.folder, tmp_path / "base")
    assert read_manifest(out)["code"] == training_code()
    write_json(out / "manifest.json", read_manifest(out) | {"code": "0" * 64})
    before = sha256_of(out)
    assert finetune(data, RECIPE, out).result == base.result
    assert "was trained by another version of phi3flow or torch" in capsys.readouterr().err
    assert sha256_of(out) == before


def test_one_changed_line_of_the_training_code_changes_its_hash(tmp_path):
    for package in ("training", "phi3flow"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))

    def of_the_copy():
        words = [sys.executable, "-c", "from training.finetune import training_code; print(training_code())"]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    assert of_the_copy() == training_code()
    with (tmp_path / "training" / "loop" / "trainer.py").open("a") as stream:
        stream.write("ROUND = 32\n")
    assert of_the_copy() != training_code()


def test_a_folder_made_from_other_data_is_never_overwritten(base, data):
    before = sha256_of(base.folder)
    with pytest.raises(BadInput, match="made from other data"):
        finetune(data, replace(RECIPE, steps=13), base.folder)
    assert sha256_of(base.folder) == before


def test_a_chat_longer_than_max_length_is_an_error_with_its_line(data, tmp_path):
    too_long = r"train\.jsonl:1: messages: \d+ tokens, more than max_length 8"
    with pytest.raises(BadInput, match=too_long) as caught:
        finetune(data, replace(RECIPE, max_length=8), tmp_path / "out")
    assert "--recipe my.toml" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"learning_rate": 1e-20, "weight_decay": 0.0},
            "changed no weight: at learning_rate 1e-20 every update",
        ),
        (
            {"learning_rate": 1e-9, "lora": Lora(rank=2), "weights": "bf16"},
            "bf16 cannot hold so small a change",
        ),
        ({"learning_rate": 1e-7}, r"every probe is answered as before; the weights moved by \d.\de-0\d of"),
    ],
    ids=["fp32", "bf16", "probes"],
)
def test_a_run_that_changes_nothing_fails_with_the_reason(base, data, tmp_path, change, reason):
    recipe = replace(RECIPE, scratch=None, **change)
    with pytest.raises(Phi3flowError, match=reason):
        finetune(data, recipe, tmp_path / "out", model=str(base.folder))
    assert not (tmp_path / "out").exists()


def test_a_model_folder_without_tokenizer_is_named(base, data, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text(json.dumps({"model_type": "phi3"}))
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        load_tokenizer(str(bare))
    with pytest.raises(BadInput, match="nothing to start from, or two things"):
        finetune(data, replace(RECIPE, scratch=None), tmp_path / "out")


def test_adapters_are_merged_into_a_model_that_differs_from_its_base(base, data, tmp_path):
    recipe = replace(RECIPE, scratch=None, lora=Lora(rank=4), learning_rate=3e-2)
    tuned = finetune(data, recipe, tmp_path / "tuned", model=str(base.folder))
    before, after = (
        dict(load_model(str(folder)).named_parameters()) for folder in (base.folder, tuned.folder)
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {name for name in before if "proj" in name}
    moved = torch.cat([(after[name] - before[name]).detach().flatten() for name in before])
    norm = torch.cat([tensor.detach().flatten() for tensor in before.values()]).norm()
    assert tuned.result.weight_change == pytest.approx((moved.norm() / norm).item(), rel=1e-4)
    assert tuned.result.changed_tensors == pytest.approx(len(changed) / len(before))
    assert read_manifest(tuned.folder)["result"]["weight_change"] == tuned.result.weight_change


def test_adapters_of_a_4_bit_model_are_merged_into_its_full_weights(base, data, tmp_path):
    """4-bit kernels need a GPU; here the weights are coarse in another way: zeros."""
    run = Run(data, replace(RECIPE, scratch=None, lora=Lora(rank=2)), tmp_path, "tuned", str(base.folder), 0)
    model = load_model(run.start)
    adapted = get_peft_model(model, peft_config(run.recipe.lora))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            parameter.fill_(
                0.1 if "lora_B" in name else parameter.mean()
            ) if "lora" in name else parameter.zero_()
    adapted.save_pretrained(run.work / ADAPTER)
    merged, start = merged_into_start(run, adapted).state_dict(), load_model(run.start).state_dict()
    name = "model.layers.0.mlp.down_proj"
    layer = adapted.get_submodule(f"base_model.model.{name}")
    expected = start[f"{name}.weight"] + layer.get_delta_weight("default")
    assert merged[f"{name}.weight"].allclose(expected)
    assert not merged[f"{name}.weight"].equal(start[f"{name}.weight"])
    assert merged["model.norm.weight"].equal(start["model.norm.weight"])


def test_packed_training_runs_and_leaves_the_same_kind_of_folder(base, data, tmp_path):
    recipe = replace(
        RECIPE, scratch=None, packing=True, batch_size=1, gradient_accumulation=2, epochs=2, steps=None
    )
    tuned = finetune(data, recipe, tmp_path / "tuned", model=str(base.folder))
    assert tuned.result.test_loss is None
    assert tuned.result.steps > 2
    assert load_model(str(tuned.folder)).config.model_type == "phi3"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_chat_has_the_same_logits_as_alone(base, attention):
    import torch

    from phi3flow.chats.chat import Chat
    from training.data.encode import encode_chats, packed
    from training.loop.trainer import LineCollator

    tokenizer = load_tokenizer(str(base.folder))
    chats = [Chat(tuple(chat(i)["messages"])) for i in (3, 44, 5)]
    rows = encode_chats(tokenizer, chats, 64, "refuse").rows
    together = packed(rows, 128)
    assert len(together) == 1
    batch = LineCollator(tokenizer.pad_token_id, padding_free=True)([together[0]])
    model = load_model(str(base.folder), attention=attention).eval()
    with torch.inference_mode():
        inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
        logits = model(**inputs, use_cache=False).logits[0]
        leaking = model(batch["input_ids"], use_cache=False).logits[0]
        start = 0
        for length in together[0]["seq_lengths"]:
            alone = model(batch["input_ids"][:, start : start + length], use_cache=False).logits[0]
            assert (logits[start : start + length] - alone).abs().max() < 1e-4
            if start:
                assert (leaking[start : start + length] - alone).abs().max() > 1e-2
            start += length
    assert start == len(batch["input_ids"][0])


@pytest.mark.parametrize("packing", [False, True])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(base, data, tmp_path, packing):
    recipe = replace(
        RECIPE, scratch=None, learning_rate=1e30, warmup=0.0, scheduler="constant", packing=packing
    )
    with pytest.raises(Phi3flowError, match=r"not finite at step \d+, train\.jsonl lines \d+, \d+"):
        finetune(data, recipe, tmp_path / "out", model=str(base.folder))
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_keeps_earlier_checkpoints(data, tmp_path):
    """A good recipe whose weights are broken between two checkpoints."""
    run = Run(data, replace(RECIPE, eval_every=2), tmp_path / "work", "tuned", None, 0)
    run.work.mkdir()
    chats = {name: load_chats(data / name) for name in ("train.jsonl", "val.jsonl")}
    tokenizer = starting_tokenizer(run, chats["train.jsonl"])
    rows = [encode(run, tokenizer, each).rows for each in chats.values()]
    trainer = make_trainer(run, starting_model(run, tokenizer), tokenizer, *rows)

    class Breaks(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            if state.global_step == 6:
                next(model.parameters()).data.view(-1)[-1] = float("inf")

    trainer.add_callback(Breaks())
    with pytest.raises(Phi3flowError, match=r"not finite (at|after) step 6") as caught:
        trainer.train()
    assert "earlier checkpoints are kept" in caught.value.hint
    assert [path.name for path in valid_checkpoints(run.checkpoints)] == ["checkpoint-4", "checkpoint-2"]


def test_full_gpu_memory_names_the_fields_that_help_and_what_then_is_needed(data, tmp_path):
    class Full(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    run = Run(data, RECIPE, tmp_path / "work", "tuned", None, 0)
    run.work.mkdir()
    chats = load_chats(data / "train.jsonl")
    tokenizer = starting_tokenizer(run, chats)
    rows = encode(run, tokenizer, chats).rows
    trainer = make_trainer(run, starting_model(run, tokenizer), tokenizer, rows, rows)
    trainer.add_callback(Full())
    with pytest.raises(Phi3flowError, match="memory ran out after step 1: CUDA out of memory") as caught:
        advance(run, trainer)
    assert re.fullmatch(
        r"in the recipe gradient_checkpointing = true \(about .* GB\), "
        r"or batch_size = 4 and gradient_accumulation = 2 \(about .* GB\); now it is about .* GB",
        caught.value.hint,
    )


def make_checkpoint(folder, step, best):
    made = folder / f"checkpoint-{step}"
    state = {"best_model_checkpoint": f"elsewhere/checkpoint-{best}" if best else None}
    write_json(made / "trainer_state.json", state)
    write_jsonl(made / "weights", [{"step": step}])
    write_json(made / "sealed.json", {"weights": sha256_of(made / "weights")})


def test_an_incomplete_checkpoint_never_replaces_a_complete_one(tmp_path):
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step, best=None)
    (tmp_path / "checkpoint-30" / "weights").write_text("{}")
    (tmp_path / "checkpoint-20" / "sealed.json").write_text('{"wei')
    assert latest_checkpoint(tmp_path).name == "checkpoint-10"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]


def test_a_checkpoint_whose_best_is_incomplete_is_not_used(tmp_path):
    make_checkpoint(tmp_path, 10, best=10)
    make_checkpoint(tmp_path, 20, best=20)
    make_checkpoint(tmp_path, 30, best=20)
    (tmp_path / "checkpoint-20" / "weights").write_text("{}")
    assert latest_checkpoint(tmp_path).name == "checkpoint-10"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]


def test_a_run_stopped_before_its_first_checkpoint_does_not_block_another(data, tmp_path):
    abandoned = tmp_path / ".out.partial"
    write_json(abandoned / ".run.json", {"recipe": "another"})
    assert finetune(data, RECIPE, tmp_path / "out").folder == tmp_path / "out"
    assert not abandoned.exists()


def test_everything_that_is_missing_is_named_at_once(data, base, tmp_path):
    with pytest.raises(BadInput) as caught:
        finetune(tmp_path, replace(RECIPE, scratch=None), tmp_path / "out", model=f"{base.folder}e")
    assert all(name in str(caught.value) for name in ("train.jsonl", "val.jsonl", "basee: no such"))
    assert f"did you mean '{base.folder}'?" in caught.value.hint


@pytest.mark.parametrize("name", ["runs/base", "runs/mine/base", "./base"])
def test_a_missing_folder_is_not_looked_up_on_the_hub(data, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"no such model folder$") as caught:
        finetune(data, replace(RECIPE, scratch=None), tmp_path / "out", model=name)
    assert caught.value.hint == f"phi3flow base --pretrained --out {name}"
