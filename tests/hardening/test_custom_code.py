"""Issue: transformers asked whether to run a model's own code, and "y" in the terminal ran it."""

import ast
import io
import json
import sys
from pathlib import Path

import pytest
from tiny import lively_model, new_tokenizer, saved

from deploy.scoring.load import load
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json, write_json
from training.models.loading import load_config, load_model, load_tokenizer

ROOT = Path(__file__).parents[2]
PRODUCT = ("phi3flow", "training", "deploy", "evaluation", "custom_connections", "flows", "ui")
SERVE_WITH_VLLM = ROOT / "docs" / "endpoint.md"
CODE = """
from pathlib import Path
from transformers import PretrainedConfig, Phi3ForCausalLM, PreTrainedTokenizerFast
Path({marker!r}).touch()
class TheirConfig(PretrainedConfig):
    model_type = "theirs"
class TheirModel(Phi3ForCausalLM):
    config_class = TheirConfig
class TheirTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    tokenizer = new_tokenizer()
    return saved(lively_model(tokenizer), tokenizer, tmp_path_factory.mktemp("models") / "ours")


@pytest.fixture
def marker(tmp_path):
    """The file that a model's code makes when it runs."""
    return tmp_path / "their code has run"


@pytest.fixture
def theirs(ours, marker, tmp_path, monkeypatch):
    """Give a file of the model folder an `auto_map`, while somebody says yes to every question."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    folder = tmp_path / "theirs"
    folder.mkdir()
    for file in ours.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "theirs.py").write_text(CODE.format(marker=str(marker)))

    def change(name, fields):
        write_json(folder / name, read_json(folder / name) | fields)
        return folder

    return change


CONFIG = {
    "model_type": "theirs",
    "auto_map": {"AutoConfig": "theirs.TheirConfig", "AutoModelForCausalLM": "theirs.TheirModel"},
}
TOKENIZER = {
    "tokenizer_class": "TheirTokenizer",
    "auto_map": {"AutoTokenizer": [None, "theirs.TheirTokenizer"]},
}


@pytest.fixture
def all_theirs(theirs):
    """A folder whose configuration, model and tokenizer all need their own code."""
    theirs("tokenizer_config.json", TOKENIZER)
    return theirs("config.json", CONFIG)


@pytest.mark.parametrize("loading", [load_config, load_model, load_tokenizer])
def test_a_models_own_code_is_not_run_whoever_says_yes(all_theirs, marker, loading):
    with pytest.raises(BadInput, match="code that the model brings along"):
        loading(str(all_theirs))
    assert not marker.exists()


def test_serving_does_not_run_it_either(all_theirs, marker):
    with pytest.raises(BadInput, match="code that the model brings along"):
        load(all_theirs, lambda: None, "transformers")
    assert not marker.exists()


def test_a_tokenizer_that_transformers_knows_is_loaded_without_their_code(theirs, marker):
    load_tokenizer(str(theirs("tokenizer_config.json", TOKENIZER)))
    assert not marker.exists()


def test_every_load_in_the_code_and_in_the_commands_to_paste_says_no():
    """`Auto` classes, OpenVINO's and PEFT's run a model's code when they are allowed to."""
    found = []
    for file in (path for name in PRODUCT for path in (ROOT / name).rglob("*.py")):
        for text in (file.read_text(encoding="utf-8"), *_texts(file)):
            found += [(file.name, call) for call in _loads(text)]
    found += [(SERVE_WITH_VLLM.name, call) for call in _loads(_command_in(SERVE_WITH_VLLM))]
    assert len(found) > 9
    assert [each for each in found if "trust_remote_code=False" not in each[1]] == []


def _loads(code):
    """Every `Auto...from_pretrained(...)` and `from_config(...)` in a text; none if it is no Python."""
    try:
        calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError):
        return
    for call in calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("from_pretrained", "from_config"):
            owner = ast.unparse(call.func.value)
            if owner.startswith(("Auto", "OV", "Adapted")):
                yield ast.unparse(call)


def _texts(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "from_pretrained" in node.value:
            yield node.value


def _command_in(page):
    line = next(line for line in page.read_text(encoding="utf-8").splitlines() if "from_pretrained" in line)
    return json.loads(line[len("python -c ") : line.rindex(" > ")])
