"""A model folder's small files may be anything: each is refused by file and field, and nothing hangs."""

import json
import os
import resource
import subprocess
import sys

import pytest
from tiny import lively_model, new_tokenizer, saved

from deploy.scoring.load import load
from phi3flow.core.errors import BadInput
from phi3flow.core.lineage import read_manifest
from training.models.loading import load_tokenizer

FAULTS = [
    ("config.json", [], "not a JSON object"),
    ("config.json", {"max_position_embeddings": -5}, "max_position_embeddings"),
    ("config.json", {"max_position_embeddings": 10**12}, "max_position_embeddings"),
    ("config.json", {"num_hidden_layers": 10**6}, "num_hidden_layers"),
    ("config.json", {"num_attention_heads": 0}, "num_attention_heads"),
    ("config.json", {"hidden_size": "192"}, "hidden_size"),
    ("config.json", {"vocab_size": True}, "vocab_size"),
    ("generation_config.json", [], "not a JSON object"),
    ("generation_config.json", {"eos_token_id": [[1]]}, "eos_token_id"),
]


@pytest.fixture
def folder(tmp_path):
    tokenizer = new_tokenizer()
    return saved(lively_model(tokenizer), tokenizer, tmp_path / "model")


@pytest.mark.parametrize(("name", "change", "words"), FAULTS)
def test_a_value_that_no_model_has_is_named_with_its_file(folder, name, change, words):
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | change if change else change))
    with pytest.raises(BadInput, match=f"{file}: {words}"):
        load(folder, lambda: None)


def test_json_without_an_end_is_named_with_its_file(folder):
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(BadInput, match=r"config\.json: not JSON"):
        load(folder, lambda: None)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
def test_a_file_of_eight_gigabytes_is_not_read(folder, name):
    os.truncate(folder / name, 8 << 30)  # takes no room
    with pytest.raises(BadInput, match=f"{folder / name}: larger than"):
        load(folder, lambda: None)


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/rag.jinja"])
@pytest.mark.parametrize("broken", [os.mkfifo, lambda file: os.truncate(file, 50 << 20)])
def test_a_chat_template_that_is_none_is_not_read(folder, name, broken):
    """Read as it stands, a pipe is waited for without end, and 50 MB are parsed at each start."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    if broken is not os.mkfifo:
        file.touch()
    broken(file)
    with pytest.raises(BadInput, match=f"{file}: (not a file|larger than 1 MB)"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/rag.jinja"])
def test_a_chat_template_that_links_out_is_not_read(folder, name):
    (folder.parent / "secret").write_text("text of another file")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder.parent / "secret")
    with pytest.raises(BadInput, match=f"{folder / name}: a link that leads out"):
        load_tokenizer(str(folder))


def test_of_several_chat_templates_the_default_one_is_used(folder):
    """Their dict as text was taken for the template: each prompt held it, and nothing told."""
    alone = load_tokenizer(str(folder)).chat_template
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ messages[0].content }}")
    assert load_tokenizer(str(folder)).chat_template == alone
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(BadInput, match="none of the tokenizer's chat templates is"):
        load_tokenizer(str(folder))


def test_a_pipe_in_place_of_a_manifest_is_not_waited_for(folder):
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(BadInput, match=r"manifest\.json: not a file"):
        read_manifest(folder)


def test_files_that_belong_together_are_all_written_or_none(tmp_path):
    """As on a full disk, a limit of bytes ends the second one."""
    texts = {str(tmp_path / "first"): "short", str(tmp_path / "second"): "x" * 100_000}
    code = (
        "import json, pathlib, sys; from phi3flow.core.files import write_texts; "
        "write_texts({pathlib.Path(name): text for name, text in json.loads(sys.stdin.read()).items()})"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert ran.returncode != 0 and "File too large" in ran.stderr
    assert list(tmp_path.iterdir()) == []
