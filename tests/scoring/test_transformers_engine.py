"""The transformers engine against `model.generate`, on a tiny Phi-3 with random weights."""

import asyncio
import threading
from contextlib import ExitStack

import pytest
import torch
from tiny import CONTEXT, SECONDS, answers, generated, lively_model, new_tokenizer, prompts_of, texts

from deploy.scoring.engine import (
    Cancelled,
    ContextOverflow,
    EngineClosed,
    EngineFailed,
    GenerationRequest,
    Overloaded,
)
from deploy.scoring.engines.answer import AnswerText
from deploy.scoring.engines.transformers_engine import SCORED_AT_ONCE, TransformersEngine
from training.models.scratch import BYTES

QUESTIONS = [
    "Who?",
    "The quick brown fox jumps over one lazy dog",
    "founded",
    "three four five three four",
    "dog fox",
    "q",
]


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return lively_model(tokenizer)


@pytest.fixture
def prompts(tokenizer):
    return prompts_of(tokenizer, QUESTIONS)


@pytest.fixture
def serving(model, tokenizer):
    """Engines of one test, closed after it."""
    with ExitStack() as stack:

        def start(model=model, **limits):
            engine = TransformersEngine(model, tokenizer, **limits)
            stack.callback(engine.close)
            return engine

        yield start


@pytest.mark.parametrize("window", [None, 6])
def test_greedy_equals_generate_alone_and_in_a_batch_of_unequal_rows(tokenizer, prompts, serving, window):
    model = lively_model(tokenizer)
    model.config.sliding_window = window
    lengths = [5, 40, 17, 30, 1, 24]
    expected = [generated(model, tokenizer, p, n) for p, n in zip(prompts, lengths, strict=True)]
    requests = [GenerationRequest(p, n) for p, n in zip(prompts, lengths, strict=True)]
    engine = serving(model)
    assert len(set(expected)) == len(expected)
    assert texts(engine, requests) == expected
    assert [texts(engine, [request])[0] for request in requests] == expected


def test_an_answer_ends_at_every_stop_token_of_the_model(model, tokenizer, prompts, serving):
    ids = torch.tensor([prompts[0]])
    sampled = model.generate(ids, do_sample=False, max_new_tokens=8, pad_token_id=3)[
        0, len(prompts[0]) :
    ].tolist()
    stopping = lively_model(tokenizer)
    stopping.generation_config.eos_token_id = [3, sampled[5]]
    first = sampled.index(sampled[5])
    [(_, stopped)] = answers(serving(stopping), [GenerationRequest(prompts[0], 100)])
    assert (stopped.finish_reason, stopped.completion_tokens) == ("stop", first + 1)
    [(_, full)] = answers(serving(), [GenerationRequest(prompts[0], 8)])
    assert (full.finish_reason, full.completion_tokens) == ("length", 8)


def test_a_stop_string_cuts_the_answer_and_is_never_streamed(serving, prompts):
    engine = serving()
    [whole] = texts(engine, [GenerationRequest(prompts[1], 40)])
    middle = whole[len(whole) // 2 :][:6]  # across several tokens
    request = GenerationRequest(prompts[1], 40, stop=("never said", middle))

    async def stream():
        generation = engine.submit(request)
        return [piece async for piece in generation.pieces()], generation

    pieces, generation = asyncio.run(stream())
    assert "".join(pieces) == whole[: whole.index(middle)]
    assert len(pieces) > 1
    assert generation.finish_reason == "stop"


def test_a_seed_gives_the_same_answer_in_any_company(serving, prompts):
    engine = serving()
    seeded = GenerationRequest(prompts[0], 20, temperature=1.0, seed=7)
    [alone] = texts(engine, [seeded])
    others = [GenerationRequest(prompt, 30, temperature=1.3, seed=i) for i, prompt in enumerate(prompts[1:])]
    assert texts(engine, [*others, seeded])[-1] == alone
    assert texts(engine, [GenerationRequest(prompts[0], 20, temperature=1.0, seed=8)]) != [alone]


def test_a_tiny_nucleus_or_temperature_is_greedy(serving, prompts):
    greedy, nucleus, cold = texts(
        serving(),
        [
            GenerationRequest(prompts[0], 20),
            GenerationRequest(prompts[0], 20, temperature=2.0, top_p=0.0, seed=1),
            GenerationRequest(prompts[0], 20, temperature=1e-300, seed=1),
        ],
    )
    assert greedy == nucleus == cold


def test_a_short_answer_does_not_wait_for_a_long_one_and_cancelling_frees_the_slot(serving, prompts):
    engine = serving(max_batch=2)

    async def ask():
        long = engine.submit(GenerationRequest(prompts[0], CONTEXT))
        short = engine.submit(GenerationRequest(prompts[1], 5))
        waiting = engine.submit(GenerationRequest(prompts[2], 5))
        async with asyncio.timeout(SECONDS):
            await short.text()
            assert not long.over
            long.cancel()
            await waiting.text()
        with pytest.raises(Cancelled):
            await long.text()

    asyncio.run(ask())


def test_a_request_joins_a_running_answer_and_changes_it_in_nothing(model, tokenizer, serving, prompts):
    engine = serving()

    async def ask():
        long = engine.submit(GenerationRequest(prompts[0], 400))
        pieces = long.pieces()
        text = await anext(pieces)
        short = engine.submit(GenerationRequest(prompts[1], 20))
        async with asyncio.timeout(SECONDS):
            joined = await short.text()
            assert not long.over
            return text + "".join([piece async for piece in pieces]), joined

    assert asyncio.run(ask()) == (
        generated(model, tokenizer, prompts[0], 400),
        generated(model, tokenizer, prompts[1], 20),
    )


def test_a_full_queue_is_overload_until_a_request_is_cancelled(serving, prompts):
    engine = serving(max_batch=1, max_waiting=1)

    async def ask():
        running = engine.submit(GenerationRequest(prompts[0], CONTEXT))
        await anext(running.pieces())
        waiting = engine.submit(GenerationRequest(prompts[1], CONTEXT))
        with pytest.raises(Overloaded):
            engine.submit(GenerationRequest(prompts[2], 5))
        waiting.cancel()
        third = engine.submit(GenerationRequest(prompts[2], 5))
        running.cancel()
        async with asyncio.timeout(SECONDS):
            await third.text()

    asyncio.run(ask())


def test_the_context_bounds_prompt_and_answer(prompts):
    assert GenerationRequest(prompts[0], 1000).fitted(len(prompts[0]) + 7).max_tokens == 7
    with pytest.raises(ContextOverflow, match=f"{len(prompts[0])} tokens.* {len(prompts[0])}$"):
        GenerationRequest(prompts[0], 1).fitted(len(prompts[0]))


def test_a_prompts_likelihood_is_the_models_own_token_by_token(model, tokenizer, serving):
    prompt = prompts_of(tokenizer, ["one two three 東京 " * 150])[0]
    assert len(prompt) > 2 * SCORED_AT_ONCE
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt])).logits[0, :-1].double().log_softmax(dim=-1)
    expected = logprobs.gather(1, torch.tensor(prompt[1:])[:, None])
    fewest = (logprobs > expected + 1e-3).sum(dim=-1) + 1  # within what fp32 can tell
    most = (logprobs > expected - 1e-3).sum(dim=-1)
    requests = [GenerationRequest(prompt, 1, score_prompt=True), GenerationRequest(prompt, 1)]
    [(_, scored), (_, plain)] = answers(serving(), requests)
    scores = scored.prompt_scores
    assert [score.token for score in scores] == list(prompt[1:])
    assert "".join(score.text for score in scores).startswith("one two three")
    assert [score.logprob for score in scores] == pytest.approx(expected[:, 0].tolist(), abs=1e-3)
    ranks = torch.tensor([score.rank for score in scores])
    assert ((fewest <= ranks) & (ranks <= most)).all()
    assert plain.prompt_scores == ()


def test_closing_fails_running_and_waiting_requests(serving, prompts):
    engine = serving(max_batch=1)

    async def ask():
        generations = [engine.submit(GenerationRequest(prompt, CONTEXT)) for prompt in prompts[:2]]
        await anext(generations[0].pieces())
        await asyncio.to_thread(engine.close)
        for generation in generations:
            with pytest.raises(EngineClosed):
                await generation.text()
        with pytest.raises(EngineClosed):
            engine.submit(GenerationRequest(prompts[0], 1))

    asyncio.run(ask())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_of_the_model_reaches_every_reader_and_the_owner(serving, prompts):
    failed = threading.Event()
    engine = serving(on_failure=failed.set)

    async def ask():
        outside_the_vocabulary = engine.submit(GenerationRequest((10**6,), 5))
        async with asyncio.timeout(SECONDS):
            with pytest.raises(EngineFailed):
                await outside_the_vocabulary.text()
        with pytest.raises(EngineFailed):
            engine.submit(GenerationRequest(prompts[0], 5))

    asyncio.run(ask())
    assert failed.is_set()


@pytest.mark.parametrize("text", ["  two  spaces\n and dogs ", "Größe 北極 🦊🐻 end", "🦊"])
def test_pieces_are_whole_characters_and_add_up(tokenizer, text):
    growing = AnswerText(lambda ids: tokenizer.decode(ids, skip_special_tokens=True))
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert any(token in BYTES for token in tokenizer.convert_ids_to_tokens(ids))
    pieces = [growing.add(token) for token in ids] + [growing.rest()]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    late = AnswerText(lambda ids: tokenizer.decode(ids, skip_special_tokens=True))
    pieces = [late.add(token) if i % 3 == 2 else late.keep(token) or "" for i, token in enumerate(ids)]
    assert "".join([*pieces, late.rest()]) == text


def test_an_answer_cut_within_a_character_ends_before_it(tokenizer):
    growing = AnswerText(lambda ids: tokenizer.decode(ids, skip_special_tokens=True))
    ids = tokenizer.encode("dog 🦊", add_special_tokens=False)
    assert "".join(growing.add(token) for token in ids[:-1]) + growing.rest() == "dog "
