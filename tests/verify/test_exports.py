"""Every format that leaves the house, through its own runtime: llama.cpp, ONNX Runtime GenAI, PEFT."""

import json

import pytest
import torch
from tiny import lively_model, new_tokenizer, saved

from deploy.export.adapter import Adapter
from deploy.export.export import HeldOut, export
from deploy.export.gguf.exporter import Gguf
from deploy.export.gguf.ollama import modelfile
from deploy.export.onnx import Onnx
from deploy.export.recorded import LONG, LONG_TOKENS, PROBES
from deploy.export.turns import turns_of
from phi3flow.app import cli
from phi3flow.chats.chat_template import encode_prompt
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import read_json, write_json
from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.lineage import sha256_of
from training.models.loading import load_model, load_tokenizer
from training.models.scratch import train_tokenizer

CHECKS = ["template", "text", "stop", "sampling", "echo", "base", "schema"]
NOT_OFFERED = {"schema": "not-offered"}  # by onnx and llama.cpp
ROWS = 12


@pytest.fixture(scope="module")
def few_rows(demo_run, tmp_path_factory):
    rows = list(read_jsonl(demo_run / "data" / "test.jsonl"))[:ROWS]
    file = tmp_path_factory.mktemp("rows") / "test.jsonl"
    write_jsonl(file, rows)
    return file


def results(folder):
    return {check["name"]: check["result"] for check in read_json(folder / "manifest.json")["checks"]}


def command(*words):
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def q4(demo_run, few_rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("gguf") / "q4"
    words = ("--format", "gguf", "--weights", "q4_k_m", "--check", few_rows, "--at-least", "0.9")
    assert command("export", demo_run / "tuned", *words, "--out", out) == 0
    return out


def test_a_gguf_file_in_4_bits_passes_all_checks_through_llama_cpp(demo_run, q4):
    manifest = read_json(q4 / "manifest.json")
    assert results(q4) == dict.fromkeys(CHECKS, "pass") | NOT_OFFERED
    assert (manifest["format"], manifest["mode"]) == ("gguf", "q4_k_m")
    assert manifest["inputs"][0]["sha256"] == sha256_of(demo_run / "tuned")
    assert manifest["outputs"][0]["sha256"] == sha256_of(q4)
    stored = (demo_run / "tuned" / "model.safetensors").stat().st_size
    assert (q4 / "model-q4_k_m.gguf").stat().st_size < stored / 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exporter", "weights"),
    [(Gguf(), "f16"), (Gguf(), "q8_0"), (Onnx(), "int4")],
    ids=["gguf-f16", "gguf-q8_0", "onnx-int4"],
)
def test_the_other_weights_pass_all_checks_as_well(exporter, weights, demo_run, few_rows, tmp_path):
    made = export(
        demo_run / "tuned", tmp_path / "out", exporter, weights=weights, held_out=HeldOut(few_rows, 0.9)
    )
    assert {check.name: check.result for check in made.checks} == dict.fromkeys(CHECKS, "pass") | NOT_OFFERED


def test_verify_asks_such_a_folder_through_the_same_runtime(q4, few_rows, tmp_path):
    words = ("--check", few_rows, "--at-least", "0.9", "--out", tmp_path)
    assert command("verify", q4, *words) == 0
    assert [check["name"] for check in read_json(tmp_path / "verify.json")["checks"]] == CHECKS


@pytest.mark.slow
def test_verify_finds_a_gguf_file_with_other_weights(q4, few_rows, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in q4.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    weights = bytearray((other / "model-q4_k_m.gguf").read_bytes())
    weights[-200_000:] = bytes(200_000)
    (other / "model-q4_k_m.gguf").write_bytes(weights)
    words = ("--check", few_rows, "--at-least", "0.9", "--out", tmp_path)
    assert command("verify", other, *words) == 1


def test_llama_cpp_says_why_it_does_not_load_a_file(q4, tmp_path, capsys):
    for name in ("config.json", PROBES):
        (tmp_path / name).write_bytes((q4 / name).read_bytes())
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    assert command("verify", tmp_path) == 1
    assert "llama.cpp does not load it" in capsys.readouterr().err


def test_the_long_prompt_is_as_long_as_the_context_allows(q4, demo_run):
    [row] = [row for row in read_jsonl(q4 / PROBES) if row["id"] == LONG]
    context = read_json(demo_run / "tuned" / "config.json")["max_position_embeddings"]
    assert context - 200 < len(row["prompt_token_ids"]) < min(LONG_TOKENS, context)


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer()


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A model with random weights, whose heads are as wide as llama.cpp and ONNX Runtime need."""
    model = lively_model(tokenizer, hidden_size=64)
    return saved(model, tokenizer, tmp_path_factory.mktemp("models") / "tuned")


@pytest.fixture(scope="module")
def onnx(demo_run, tmp_path_factory):
    return export(demo_run / "tuned", tmp_path_factory.mktemp("onnx") / "fp32", Onnx())


def test_onnx_in_fp32_gives_every_recorded_answer(onnx):
    assert {check.name: check.result for check in onnx.checks} == dict.fromkeys(CHECKS, "pass") | NOT_OFFERED
    text = next(check.reason for check in onnx.checks if check.name == "text")
    assert "13 of 13 greedy answers are the recorded ones" in text


def test_onnx_folders_carry_what_foundry_local_reads(onnx, demo_run):
    described = read_json(onnx.folder / "inference_model.json")
    tokenizer = load_tokenizer(str(demo_run / "tuned"))
    asked = described["PromptTemplate"]["prompt"].replace("{Content}", "Who?")
    ids = tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert ids == encode_prompt(tokenizer, [{"role": "user", "content": "Who?"}])
    assert (onnx.folder / "genai_config.json").is_file()


@pytest.fixture(scope="module")
def adapted(demo_run, tmp_path_factory):
    """The demo's base with adapters of random numbers, merged and kept as training keeps them."""
    from peft import LoraConfig, get_peft_model

    out = tmp_path_factory.mktemp("adapted") / "tuned"
    torch.manual_seed(0)
    adapted = get_peft_model(
        load_model(str(demo_run / "base")),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.05)
    adapted.save_pretrained(out / "adapter")
    adapted.merge_and_unload().save_pretrained(out)
    load_tokenizer(str(demo_run / "base")).save_pretrained(out)
    return out


def test_adapters_leave_alone_and_answer_as_the_merged_model(adapted, tmp_path):
    exported = export(adapted, tmp_path / "adapter", Adapter())
    found = {check.name: check.result for check in exported.checks}
    assert (found["text"], found["template"]) == ("pass", "pass")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        file.name for file in exported.folder.iterdir()
    }


def test_adapters_of_another_model_never_appear(adapted, tmp_path):
    kept = adapted / "adapter" / "adapter_config.json"
    described = read_json(kept)
    write_json(kept, described | {"lora_alpha": 64})
    try:
        with pytest.raises(Phi3flowError, match="differently"):
            export(adapted, tmp_path / "adapter", Adapter())
    finally:
        write_json(kept, described)
    assert list(tmp_path.iterdir()) == []


def test_without_adapters_one_sentence_says_so(folder, tmp_path):
    with pytest.raises(BadInput, match="no adapters were trained"):
        export(folder, tmp_path / "out", Adapter())


def test_unknown_weights_name_the_known_ones(folder, tmp_path):
    with pytest.raises(BadInput, match="no weights 'q4_k_s'") as refused:
        export(folder, tmp_path / "out", Gguf(), weights="q4_k_s")
    assert "did you mean 'q4_k_m'?" in refused.value.hint


def test_quantised_weights_need_held_out_rows(folder, tmp_path):
    for exporter, weights in ((Gguf(), "q8_0"), (Onnx(), "int4")):
        with pytest.raises(BadInput, match="held-out rows"):
            export(folder, tmp_path / "out", exporter, weights=weights)


def test_rows_have_nothing_to_judge_where_every_answer_must_be_the_same(folder, few_rows, tmp_path):
    with pytest.raises(BadInput, match="every recorded answer"):
        export(folder, tmp_path / "out", Onnx(), held_out=HeldOut(few_rows, None))


def test_an_architecture_that_the_converter_does_not_know_is_named(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = read_json(folder / "config.json")
    write_json(other / "config.json", config | {"architectures": ["GraniteForCausalLM"]})
    with pytest.raises(BadInput, match="does not know GraniteForCausalLM; it knows Phi3ForCausalLM"):
        export(other, tmp_path / "out", Gguf())


def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["byte_fallback"] = False
    (other / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(BadInput, match=r"llama\.cpp has no tokenizer"):
        export(other, tmp_path / "out", Gguf())
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_folder_that_is_no_model_is_refused(tmp_path, capsys):
    words = ("--format", "gguf", "--out", tmp_path / "out")
    assert command("export", tmp_path, *words) == 2
    assert "not a model folder" in capsys.readouterr().err


CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_modelfile_has_the_template_the_stops_and_the_system_prompt():
    tokenizer = train_tokenizer(["Be kind to every user"] * 3, 400, 512)
    tokenizer.chat_template = CHATML
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    turns = turns_of(tokenizer)
    assert turns.system == "Be kind"
    text = modelfile("m.gguf", tokenizer, turns, context=512, system="", swallowing=())
    assert 'SYSTEM """Be kind"""' in text
    assert '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n' in text
    assert text.split("\n", 1)[0] == "FROM ./m.gguf"
    assert 'PARAMETER stop "<|im_end|>"' in text
    own = modelfile("m.gguf", tokenizer, turns, context=512, system="Answer in verse.", swallowing=())
    assert 'SYSTEM """Answer in verse."""' in own


def test_a_template_that_looks_back_has_no_modelfile(tokenizer):
    looking_back = new_tokenizer()
    looking_back.chat_template = "{{ messages | length }}" + str(looking_back.chat_template)
    with pytest.raises(Phi3flowError, match="more than write a text"):
        turns_of(looking_back)
