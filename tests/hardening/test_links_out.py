"""Issue: links and includes that lead out of a flow's folder, or a model's, were copied and uploaded."""

import pytest
from tiny import lively_model, new_tokenizer, saved

from deploy.export.openvino import export_openvino
from phi3flow.core.errors import BadInput
from phi3flow.core.flow_folder import resolve_flow, resolve_folder
from training.models.loading import licence_files

SECRET = "planted-secret"


@pytest.fixture
def outside(tmp_path):
    """A file that belongs to nobody's flow."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "id_rsa").write_text(SECRET)
    return tmp_path / "home" / "id_rsa"


@pytest.fixture
def flow(tmp_path, monkeypatch):
    """A flow of one's own, in a project that is the current folder."""
    project = tmp_path / "project"
    (project / "flow").mkdir(parents=True)
    (project / "shared").mkdir()
    (project / "shared" / "words.py").write_text("WORDS = ()\n")
    monkeypatch.chdir(project)
    written = project / "flow"
    (written / "flow.dag.yaml").write_text("nodes: []\n")
    return written


def includes(flow, *paths):
    lines = "".join(f"- {path}\n" for path in paths)
    (flow / "flow.dag.yaml").write_text(f"nodes: []\nadditional_includes:\n{lines}")


def refused(flow, tmp_path, name):
    with pytest.raises(BadInput, match=name):
        resolve_folder(flow, tmp_path / "copy")
    copied = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert not any(SECRET in path.read_text() for path in copied)


def test_a_link_out_of_the_flow_is_named(flow, outside, tmp_path):
    (flow / "notes.txt").symlink_to(outside)
    refused(flow, tmp_path, r"notes\.txt: a link that leads out")


def test_a_linked_folder_out_of_the_flow_is_named(flow, outside, tmp_path):
    (flow / "more").symlink_to(outside.parent)
    refused(flow, tmp_path, "more: a link that leads out")


@pytest.mark.parametrize("path", ["../../home/id_rsa", "../../home", "{outside}"])
def test_an_include_out_of_the_project_is_named(flow, outside, tmp_path, path):
    path = path.format(outside=outside)
    includes(flow, path)
    refused(flow, tmp_path, f"additional_includes: {path} leads out of ")


def test_an_include_with_a_link_out_of_the_project_is_named(flow, outside, tmp_path):
    (flow.parent / "shared" / "key").symlink_to(outside)
    includes(flow, "../shared")
    refused(flow, tmp_path, "key: a link that leads out")


def test_a_link_behind_a_link_is_found(flow, outside, tmp_path):
    (flow.parent / "shared" / "key").symlink_to(outside)
    (flow / "more").symlink_to("../shared")
    refused(flow, tmp_path, "key: a link that leads out")


def test_a_hidden_file_is_no_include(flow, tmp_path):
    (flow.parent / ".env").write_text(SECRET)
    includes(flow, "../.env")
    refused(flow, tmp_path, r"\.\./\.env is hidden")


def test_includes_of_the_same_project_and_links_within_it_are_copied(flow, tmp_path):
    (flow / "link.py").symlink_to("../shared/words.py")
    includes(flow, "../shared/words.py", "../shared")
    copy = resolve_folder(flow, tmp_path / "copy")
    assert {path.name for path in copy.iterdir()} == {"flow.dag.yaml", "link.py", "words.py", "shared"}


def test_the_packaged_flows_are_copied_from_wherever_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (resolve_flow("chat", tmp_path / "chat") / "phi3_contract.py").is_file()


def test_export_does_not_follow_a_link_out_of_the_model(outside, tmp_path):
    tokenizer = new_tokenizer()
    model = saved(lively_model(tokenizer), tokenizer, tmp_path / "model")
    (model / "tokenizer.notes").symlink_to(outside)
    with pytest.raises(BadInput, match=r"tokenizer\.notes: a link that leads out"):
        export_openvino(model, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_the_hubs_cache_is_made_of_links(tmp_path):
    """Its snapshots lead to blobs beside them; such a model is exported."""
    from deploy.export.model_files import TOKENIZER, copied

    snapshot = tmp_path / "models--x" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--x" / "blobs").mkdir()
    (tmp_path / "models--x" / "blobs" / "1").write_text("{}")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/1")
    assert copied(snapshot, TOKENIZER) == [snapshot / "tokenizer.json"]


def test_a_licence_that_is_a_link_out_of_the_model_is_not_copied(outside, tmp_path):
    """`train` carries it into the folder that is then shared."""
    model = tmp_path / "base"
    model.mkdir()
    (model / "LICENSE").symlink_to(outside)
    with pytest.raises(BadInput, match="LICENSE: a link that leads out"):
        licence_files(str(model), None)


def test_a_licence_in_the_hubs_cache_is_a_link_to_its_blobs(tmp_path):
    snapshot = tmp_path / "models--x" / "snapshots" / "1f"
    blobs = tmp_path / "models--x" / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "0a").write_text("MIT")
    (snapshot / "LICENSE").symlink_to(blobs / "0a")
    assert [file.read_text() for file in licence_files(str(snapshot), None)] == ["MIT"]
