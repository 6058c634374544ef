"""`prepare` and `train` on what the hub serves, through `datasets` and `transformers` themselves."""

import io
import json

import pytest
from hub_server import Hub, Repository
from warm_command import WarmCommand

from phi3flow.core.jsonl import read_jsonl, write_jsonl
from phi3flow.core.lineage import read_manifest

MODEL, DATA = "microsoft/Phi-3.5-mini-instruct", "HuggingFaceH4/ultrachat_200k"
SPLIT = f"{DATA}[train_sft[:1%]]"
GATED, WIDE = "microsoft/Phi-gated-instruct", "microsoft/Phi-3-mini-4k-instruct"
PARQUET = "train_sft-00000-of-00001-a3ecf92756993583.parquet"
WIDE_BYTES = 11_000_000  # more than the ten million that the client writes at a time
RECIPE = """
model = "{model}"
revision = "{revision}"
steps = 2
batch_size = 4
learning_rate = 1e-2
eval_every = 2
max_length = 128
"""
# As the published data set names its splits.
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train_sft
    path: data/train_sft-*
  - split: test_sft
    path: data/test_sft-*
---
"""


def chat(i):
    question, answer = f"What comes after {i}?", f"After {i} comes {i + 1}."
    messages = [{"content": question, "role": "user"}, {"content": answer, "role": "assistant"}]
    return {"prompt": question, "prompt_id": f"id-{i}", "messages": messages}


def model_files(folder, intermediate_size=64):
    """A tiny Phi-3 with all that the published one has in its repository."""
    from training.models.scratch import new_model, train_tokenizer
    from training.recipes.recipe import Scratch

    texts = [message["content"] for i in range(60) for message in chat(i)["messages"]]
    tokenizer = train_tokenizer(texts, 400, 256)
    shape = Scratch(
        vocab_size=400, hidden_size=64, intermediate_size=intermediate_size, layers=1, heads=2, context=256
    )
    new_model(shape, tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def parquet(rows):
    import pyarrow
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    small, wide = (tmp_path_factory.mktemp(name) for name in ("small", "wide"))
    rows = {
        "README.md": CARD.encode(),
        f"data/{PARQUET}": parquet([chat(i) for i in range(8000)]),
        "data/test_sft-00000-of-00001-f7dfac4afe5b93f4.parquet": parquet([chat(i) for i in range(99)]),
    }
    files = model_files(small)
    with Hub(
        Repository("models", MODEL, files),
        Repository("models", GATED, files, token="hf_of_somebody_else"),
        Repository("models", WIDE, model_files(wide, intermediate_size=16_000)),
        Repository("datasets", DATA, rows),
        Repository("datasets", GATED, rows, token="hf_of_somebody_else"),
    ) as hub:
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The user's folder, with chats to train on."""
    folder = tmp_path_factory.mktemp("home")
    write_jsonl(folder / "data" / "train.jsonl", [chat(i) for i in range(20)])
    write_jsonl(folder / "data" / "val.jsonl", [chat(i) for i in range(20, 24)])
    return folder


def environment(home, hub, **more):
    return {
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "",
        "OMP_NUM_THREADS": "1",
    } | more


@pytest.fixture(scope="module")
def command(home, hub):
    with WarmCommand(home, environment(home, hub)) as command:
        yield command


def train(home, model, revision):
    """The command that fine-tunes it; the recipe pins the revision."""
    recipe = home / f"{model.rpartition('/')[2]}-{revision[:7]}.toml"
    recipe.write_text(RECIPE.format(model=model, revision=revision))
    return ["train", "--data", "data", "--recipe", recipe.name, "--out", f"out/{recipe.stem}"]


def commit(hub, model):
    return hub.repositories["models", model].commit


@pytest.fixture(scope="module")
def used(home, hub, command):
    """The data set and the model, prepared and trained once, over a network that fails once."""
    hub.cuts[PARQUET] = [1000]
    prepared = command.run("prepare", SPLIT, "--out", "from-hub")
    trained = command.run(*train(home, MODEL, commit(hub, MODEL)), "--json")
    return prepared, trained


def test_prepare_reads_one_per_cent_of_ultrachat(home, hub, used):
    prepared, _ = used
    assert prepared.code == 0, prepared.said
    assert not hub.cuts[PARQUET]
    counts = read_manifest(home / "from-hub")["counts"]
    assert (counts["read"], counts["bad"]) == (80, 0)
    row = read_jsonl(home / "from-hub" / "train.jsonl")[0]
    assert row["messages"] == chat(int(row["prompt_id"].removeprefix("id-")))["messages"]


def test_train_starts_from_the_pinned_revision(home, hub, used):
    _, trained = used
    assert trained.code == 0, trained.said
    told = json.loads(trained.out)
    assert 0 < told["result"]["weight_change"] < 1
    manifest = read_manifest(home / told["folder"])
    assert manifest["recipe"]["revision"] == manifest["revision"] == commit(hub, MODEL)
    # HEAD is answered with the address of the large file, which is then fetched from there.
    assert ("HEAD", f"/{MODEL}/resolve/{commit(hub, MODEL)}/model.safetensors", None) in hub.asked
    assert not [path for _, path, _ in hub.asked if f"{MODEL}/resolve/main/model" in path]


def test_what_was_downloaded_once_serves_without_a_network(home, hub, used):
    closed = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    with WarmCommand(home, environment(home, hub, **closed)) as offline:
        prepared = offline.run("prepare", SPLIT, "--out", "from-cache")
        assert prepared.code == 0, prepared.said
        again = offline.run(*train(home, MODEL, commit(hub, MODEL))[:-1], "out/again")
        assert again.code == 0, again.said
        absent = offline.run(*train(home, WIDE, commit(hub, WIDE)))
        assert (absent.code, "not in the cache" in absent.said) == (1, True), absent.said
    assert (home / "from-cache" / "train.jsonl").read_bytes() == (
        home / "from-hub" / "train.jsonl"
    ).read_bytes()


@pytest.mark.parametrize(
    ("model", "revision", "said"),
    [
        ("microsoft/Phi-3.5-mini-instuct", "main", "did you mean 'microsoft/Phi-3.5-mini-instruct'?"),
        (MODEL, "0" * 40, f"no revision '{'0' * 40}'"),
        (GATED, "main", "the model is gated"),
    ],
    ids=["unknown", "revision", "gated"],
)
def test_a_model_that_cannot_be_loaded_is_one_sentence_and_nothing_is_written(
    home, command, model, revision, said
):
    words = train(home, model, revision)
    refused(command.run(*words), said)
    token = home / "hf" / "token"  # where `hf auth login` keeps it
    token.parent.mkdir(exist_ok=True)
    token.write_text("hf_mine")
    refused(command.run(*words), said)
    token.unlink()
    assert not list(home.glob("**/.*.partial"))


def refused(ended, said):
    assert ended.code in (1, 2)
    error, hint = ended.said.strip().splitlines()[-2:]
    assert said in ended.said
    assert (error[:7], hint[:6], ended.out) == ("error: ", "hint: ", "")
    assert "Traceback" not in ended.said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("HuggingFaceH4/ultrachat_2k[train_sft]", "no such public data set"),
        (f"{DATA}[train]", "train"),
        (f"{GATED}[train_sft]", "the data set is gated"),
    ],
    ids=["unknown", "split", "gated"],
)
def test_a_data_set_that_cannot_be_loaded_is_one_sentence_and_nothing_is_written(home, command, source, said):
    refused(command.run("prepare", source, "--out", "never"), said)
    assert not (home / "never").exists()


def test_a_cut_download_continues_where_it_stopped(home, hub, command):
    hub.cuts["model.safetensors"] = [WIDE_BYTES]
    ended = command.run(*train(home, WIDE, commit(hub, WIDE)))
    assert ended.code == 0, ended.said
    ranges = [asked for _, path, asked in hub.asked if path.startswith("/objects/") and asked]
    assert ranges
    assert all(int(asked.removeprefix("bytes=").removesuffix("-")) >= 10_000_000 for asked in ranges)


@pytest.mark.slow
def test_a_failed_download_is_one_sentence_and_the_same_command_continues(home, hub, tmp_path):
    """The client tries five times, a second apart."""
    write_jsonl(tmp_path / "data" / "train.jsonl", [chat(i) for i in range(20)])
    write_jsonl(tmp_path / "data" / "val.jsonl", [chat(i) for i in range(20, 24)])
    with WarmCommand(tmp_path, environment(tmp_path, hub)) as command:
        hub.cuts["model.safetensors"] = [WIDE_BYTES, *[0] * 20]
        words = train(tmp_path, WIDE, commit(hub, WIDE))
        refused(command.run(*words), "the hub cannot be reached")
        assert not list(tmp_path.glob("out/.*"))
        hub.cuts[PARQUET] = [1000, *[0] * 20]
        refused(command.run("prepare", SPLIT, "--out", "never"), "the hub cannot be reached")
        assert not (tmp_path / "never").exists()
        hub.cuts.clear()
        hub.asked.clear()
        ended = command.run(*words)
        assert ended.code == 0, ended.said
    # The client deletes what it has of a file when it gives up, and keeps the files that are whole.
    fetched = {path.rpartition("/")[2] for method, path, _ in hub.asked if method == "GET"}
    assert "model.safetensors" in fetched
    assert not {"config.json", "tokenizer.json"} & fetched
