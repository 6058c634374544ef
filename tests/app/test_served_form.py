"""What `phi3flow up` serves for a model folder; the export is a real one."""

from tiny import lively_model, new_tokenizer, saved

from phi3flow.app.served_form import served_form


def test_a_small_model_is_served_as_it_is(tmp_path):
    tokenizer = new_tokenizer()
    folder = saved(lively_model(tokenizer), tokenizer, tmp_path / "tuned")
    assert served_form(folder) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


def test_a_larger_one_is_exported_once_and_again_when_it_changes(tmp_path, capsys):
    tokenizer = new_tokenizer()
    folder = saved(lively_model(tokenizer, hidden_size=1024, layers=5), tokenizer, tmp_path / "tuned")
    export = tmp_path / "tuned-openvino"
    assert served_form(folder) == export
    assert "exporting" in capsys.readouterr().err
    made = (export / "openvino_model.bin").stat().st_mtime_ns
    assert served_form(folder) == served_form(export) == export
    assert (export / "openvino_model.bin").stat().st_mtime_ns == made
    (folder / "note.txt").write_text("another model")
    assert served_form(folder) == export
    assert (export / "openvino_model.bin").stat().st_mtime_ns > made


def test_a_folder_of_that_name_is_left_alone(tmp_path, capsys):
    tokenizer = new_tokenizer()
    folder = saved(lively_model(tokenizer, hidden_size=1024, layers=5), tokenizer, tmp_path / "tuned")
    (tmp_path / "tuned-openvino").mkdir()
    (tmp_path / "tuned-openvino" / "mine.txt").write_text("kept")
    assert served_form(folder) == folder
    assert "is not an export of it" in capsys.readouterr().err
    assert (tmp_path / "tuned-openvino" / "mine.txt").read_text() == "kept"
