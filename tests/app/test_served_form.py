"""What `compare RUN` and `up` serve for a model folder on a machine without a GPU; the exports are real."""

import pytest
import torch
from tiny import lively_model, new_tokenizer, saved

from phi3flow.app.served_form import served_form, served_forms

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU serves the model itself")


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    """Larger than the models that no export is made of, as sure as a real one: 8 bits keep its tokens, and a
    temperature changes them."""
    model = lively_model(tokenizer, hidden_size=1024, layers=5)
    with torch.no_grad():
        for weights in model.model.layers.parameters():
            weights.mul_(0.05)
        model.lm_head.weight.mul_(0.4)
    return model


def test_a_small_model_is_served_as_it_is(tokenizer, tmp_path):
    folder = saved(lively_model(tokenizer), tokenizer, tmp_path / "tuned")
    assert served_form(folder) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


@pytest.mark.slow
def test_a_larger_one_is_exported_once_and_again_when_it_changes(model, tokenizer, tmp_path, capsys):
    folder = saved(model, tokenizer, tmp_path / "tuned")
    export = tmp_path / "tuned-int8"
    assert served_form(folder) == export
    assert "to 8 bits, once" in capsys.readouterr().err
    made = (export / "openvino_model.bin").stat().st_mtime_ns
    assert served_form(folder) == served_form(export) == export
    assert (export / "openvino_model.bin").stat().st_mtime_ns == made
    (folder / "note.txt").write_text("another model")
    assert served_form(folder) == export
    assert (export / "openvino_model.bin").stat().st_mtime_ns > made
    assert {path.name for path in tmp_path.iterdir()} == {"tuned", "tuned-int8"}


@pytest.mark.slow
def test_a_folder_of_that_name_is_left_alone_and_both_sides_are_served_alike(
    model, tokenizer, tmp_path, capsys
):
    base, tuned = (saved(model, tokenizer, tmp_path / name) for name in ("base", "tuned"))
    (tmp_path / "base-int8").mkdir()
    (tmp_path / "base-int8" / "mine.txt").write_text("kept")
    assert served_forms(tmp_path) == {"base": base, "tuned": tuned}
    assert "base-int8 is not an export of it" in capsys.readouterr().err
    assert (tmp_path / "base-int8" / "mine.txt").read_text() == "kept"
