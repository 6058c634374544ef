"""The openvino engine against `model.generate`, on a tiny exported Phi-3 with random weights."""

import asyncio
import copy
import json
import threading
from contextlib import ExitStack

import psutil
import pytest
import torch
from tiny import CONTEXT, SECONDS, generated, lively_model, new_tokenizer, prompts_of, saved, texts

from deploy.export.openvino import export_openvino
from deploy.export.quantise import Example, quantise
from deploy.scoring.engine import (
    Cancelled,
    EngineClosed,
    EngineFailed,
    GenerationRequest,
    Overloaded,
)
from deploy.scoring.engines.openvino_engine import OpenVinoEngine
from deploy.scoring.engines.openvino_logits import Logits
from phi3flow.app import cli
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import read_json
from phi3flow.core.lineage import sha256_of

QUESTIONS = ["Who?", "The quick brown fox jumps over one lazy dog", "founded", "three four five three four"]


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return lively_model(tokenizer, hidden_size=64)


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    return saved(model, tokenizer, tmp_path_factory.mktemp("models") / "tuned")


@pytest.fixture(scope="module")
def exported(folder):
    return export_openvino(folder, folder.with_name("exported"))


@pytest.fixture
def serving(exported, tokenizer):
    """Engines of one test, closed after it."""
    with ExitStack() as stack:

        def start(**limits):
            engine = OpenVinoEngine(exported.folder, tokenizer, threads=1, **limits)
            stack.callback(engine.close)
            return engine

        yield start


@pytest.fixture
def prompts(tokenizer):
    return prompts_of(tokenizer, QUESTIONS)


def test_greedy_equals_generate_alone_and_together(model, tokenizer, prompts, serving):
    lengths = [5, 40, 17, 30]
    expected = [generated(model, tokenizer, p, n) for p, n in zip(prompts, lengths, strict=True)]
    requests = [GenerationRequest(p, n) for p, n in zip(prompts, lengths, strict=True)]
    engine = serving()
    assert len(set(expected)) == len(expected)
    assert texts(engine, requests) == expected
    assert [texts(engine, [request])[0] for request in requests] == expected


def test_a_late_arrival_joins_and_a_cancelled_answer_frees_its_slot(serving, prompts):
    engine = serving(max_running=2)

    async def ask():
        endless = engine.submit(GenerationRequest(prompts[0], CONTEXT))
        await anext(endless.pieces())
        late = engine.submit(GenerationRequest(prompts[1], 5))
        async with asyncio.timeout(SECONDS):
            assert await late.text()
            assert not endless.over
            second = engine.submit(GenerationRequest(prompts[2], CONTEXT))
            third = engine.submit(GenerationRequest(prompts[3], 5))
            await anext(second.pieces())
            assert (engine.running, engine.waiting) == (2, 1)
            endless.cancel()
            assert await third.text()
        with pytest.raises(Cancelled):
            await endless.text()

    asyncio.run(ask())


def test_a_full_queue_is_overload_and_closing_fails_every_request(serving, prompts):
    engine = serving(max_running=1, max_waiting=1)

    async def ask():
        running = engine.submit(GenerationRequest(prompts[0], CONTEXT))
        await anext(running.pieces())
        waiting = engine.submit(GenerationRequest(prompts[1], CONTEXT))
        with pytest.raises(Overloaded):
            engine.submit(GenerationRequest(prompts[2], 5))
        await asyncio.to_thread(engine.close)
        for generation in (running, waiting):
            with pytest.raises(EngineClosed):
                await generation.text()

    asyncio.run(ask())


def test_a_stop_string_cuts_the_answer_and_is_never_streamed(serving, prompts):
    engine = serving()
    [whole] = texts(engine, [GenerationRequest(prompts[1], 40)])
    middle = whole[len(whole) // 2 :][:6]  # across several tokens

    async def stream():
        generation = engine.submit(GenerationRequest(prompts[1], CONTEXT, stop=(middle,)))
        return [piece async for piece in generation.pieces()], generation

    pieces, generation = asyncio.run(stream())
    assert "".join(pieces) == whole[: whole.index(middle)]
    assert (len(pieces) > 1, generation.finish_reason) == (True, "stop")


def test_sampling_is_seeded_in_any_company_and_never_the_same_without_a_seed(serving, prompts):
    engine = serving()
    hot = [GenerationRequest(prompts[0], 20, temperature=1.5, seed=seed) for seed in (-7, -7, 8, None, None)]
    alone, *rest = [texts(engine, [request])[0] for request in hot]
    together = texts(engine, [hot[3], *[GenerationRequest(p, 30, 1.3, seed=1) for p in prompts], hot[0]])
    assert rest[0] == alone == together[-1]
    assert len({alone, *rest[1:]}) == 4


def test_prompt_scores_equal_the_models_own(serving, model, prompts):
    """Beside other answers, and of a prompt longer than what is read at once."""
    engine, prompt = serving(), tuple(prompts[1] * 40)[: CONTEXT - 2]
    asked = [GenerationRequest(prompt, 1, score_prompt=True), GenerationRequest(prompts[0], 20)]

    async def ask():
        generations = [engine.submit(request) for request in asked]
        answers = [await generation.text() for generation in generations]
        return generations[0].prompt_scores, answers[1]

    scores, answer = asyncio.run(ask())
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)
    expected = logprobs.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    assert [score.token for score in scores] == list(prompt[1:])
    assert [score.logprob for score in scores] == pytest.approx(expected.tolist(), abs=1e-3)
    assert [score.rank == 1 for score in scores] == (expected == logprobs.max(-1).values).tolist()
    assert answer == texts(engine, [asked[1]])[0]


def test_a_tiny_nucleus_or_temperature_is_greedy(serving, prompts):
    cold = [(0.0, 1.0), (2.0, 0.0), (1e-300, 1.0)]
    requests = [GenerationRequest(prompts[0], 20, t, top_p, seed=1) for t, top_p in cold]
    assert len(set(texts(serving(), requests))) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_reaches_every_reader_and_the_owner(serving, prompts):
    failures = []
    engine = serving(on_failure=lambda: failures.append(1))

    async def ask():
        outside_its_range = engine.submit(GenerationRequest(prompts[0], 5, temperature=1.0, top_p=2.0))
        async with asyncio.timeout(SECONDS):
            with pytest.raises(EngineFailed):
                await outside_its_range.text()

    asyncio.run(ask())
    assert failures == [1]


def test_a_worker_that_dies_without_requests_fails_the_engine(serving, prompts):
    failed = threading.Event()
    engine = serving(on_failure=failed.set)
    [worker] = [
        child
        for child in psutil.Process().children()
        if "deploy.scoring.engines.openvino_worker" in child.cmdline()
    ]
    worker.kill()
    assert failed.wait(SECONDS)
    with pytest.raises(EngineFailed):
        texts(engine, [GenerationRequest(prompts[0], 5)])


def test_a_file_in_the_current_folder_shadows_nothing_that_the_worker_imports(
    serving, prompts, tmp_path, monkeypatch
):
    for name in ("openvino_genai", "signal", "deploy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    assert texts(serving(), [GenerationRequest(prompts[0], 1)])


def test_the_export_carries_its_lineage_and_names_what_it_is(folder, exported):
    manifest = read_json(exported.folder / "manifest.json")
    assert [entry["sha256"] for entry in manifest["inputs"]] == [sha256_of(folder)]
    assert [entry["sha256"] for entry in manifest["outputs"]] == [sha256_of(exported.folder)]
    assert (manifest["mode"], manifest["probes"]) == ("fp32", exported.probes)
    assert (exported.folder / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    with pytest.raises(BadInput):
        export_openvino(folder, exported.folder)


def test_int4_says_what_it_is_and_leaves_nothing_else(model, tokenizer, tmp_path, capsys):
    """Of a model that is sure of itself: with weak layers it repeats what it read."""
    sure = copy.deepcopy(model)
    with torch.no_grad():
        for weights in sure.model.layers.parameters():
            weights.mul_(0.05)
    folder, out = saved(sure, tokenizer, tmp_path / "tuned"), tmp_path / "int4"
    code = cli.main(["export", str(folder), "--format", "openvino", "--int4", "--out", str(out), "--json"])
    printed = json.loads(capsys.readouterr().out)
    manifest = read_json(out / "manifest.json")
    assert (code, manifest["mode"], manifest["group_size"]) == (0, "int4", 64)
    assert printed["weights"]["agreement"] == manifest["agreement"] >= 0.95
    assert {path.name for path in tmp_path.iterdir()} == {"tuned", "int4"}
    size = (folder / "model.safetensors").stat().st_size
    assert (out / "openvino_model.bin").stat().st_size < size / 3


def test_where_no_group_divides_the_width_it_is_int8(exported, tmp_path, prompts):
    for suffix in ("xml", "bin"):
        source = exported.folder / f"openvino_model.{suffix}"
        (tmp_path / source.name).write_bytes(source.read_bytes())
    answer = Logits(tmp_path / "openvino_model.xml", {}).choices(prompts[1])[-1:]
    made = quantise(tmp_path, [64, 40], [Example(prompts[1], answer)], "int4")
    assert (made.mode, made.group_size) == ("int8", None)


def test_a_converted_model_that_answers_differently_never_appears(model, tokenizer, tmp_path):
    """`generate` obeys the folder's repetition penalty, and our engines know no such thing."""
    penalised = copy.deepcopy(model)
    penalised.generation_config.repetition_penalty = 1.5
    other = saved(penalised, tokenizer, tmp_path / "tuned")
    with pytest.raises(Phi3flowError, match="differently"):
        export_openvino(other, tmp_path / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]
