"""Each rule for chats that are longer than max_length, on token ids; 2 000 chats as long as UltraChat's."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from phi3flow.chats.chat import Chat
from phi3flow.chats.chat_template import encode_example, encode_prompt
from phi3flow.core.errors import BadInput
from training.data.encode import IGNORED, encode_chats
from training.data.lengths import distribution, token_counts
from training.models.loading import load_tokenizer
from training.recipes.recipe import load_recipe, recipe_names

END = 32007
SYSTEM = {"role": "system", "content": "Answer in one sentence, please."}
RULES = ("window", "truncate", "drop", "refuse")
PHI = [name for name in recipe_names() if load_recipe(name).model]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(Path(__file__).parents[1] / "data" / "phi3_tokenizer"))


def turn(role, i, words):
    return {"role": role, "content": f"{role} {i}" + " word" * words}


def chat(*sizes, system=False, origin=""):
    """A user and an assistant in turn, each as many words long as given."""
    turns = [turn(("user", "assistant")[i % 2], i, words) for i, words in enumerate(sizes)]
    return Chat(tuple([SYSTEM] * system + turns), origin=origin)


def answers(tokenizer, row):
    """The texts that bear loss, each with the end of its turn."""
    kept = [label if label != IGNORED else END for label in row["labels"]]
    texts = tokenizer.decode(kept, skip_special_tokens=False).split("<|end|>")
    return [text.split(" word")[0].strip() for text in texts if text.strip()]


def learned(tokenizer, encoded):
    return [answer for row in encoded.rows for answer in answers(tokenizer, row)]


def ends_whole(row):
    """Whether the example ends outside an answer, or with the end of one."""
    return row["labels"][-1] in (IGNORED, END)


def test_windows_learn_each_answer_once_with_whole_turns_and_the_system_message(tokenizer):
    long = chat(*[40] * 12, system=True)
    encoded = encode_chats(tokenizer, [long, chat(5, 5)], 256, "window")
    assert learned(tokenizer, encoded) == [f"assistant {i}" for i in (1, 3, 5, 7, 9, 11, 1)]
    *windows, _ = encoded.rows
    system = encode_prompt(tokenizer, [SYSTEM], add_generation_prompt=False)
    for row in windows:
        ids = row["input_ids"]
        assert 128 < len(ids) <= 256
        assert ids[: len(system) - 1] == system[: len(system) - 1]
        assert "user" in tokenizer.decode(ids[len(system) :])[:20], "a window begins with a question"
        assert ends_whole(row) and ids[-1] == END
    for row in windows[1:]:
        turns = tokenizer.decode(row["input_ids"]).count("<|assistant|>")
        assert turns > len(answers(tokenizer, row)), "earlier turns are context"
    lengths = encoded.lengths
    assert (lengths.chats, lengths.long_chats, lengths.examples) == (2, 1, len(encoded.rows))
    assert lengths.tokens == sum(
        len(encode_example(tokenizer, each.messages).input_ids) for each in (long, chat(5, 5))
    )
    assert lengths.kept_tokens == sum(map(len, encoded.rows["input_ids"]))
    assert [row["line"] for row in encoded.rows] == [1] * len(windows) + [2]


def test_an_answer_that_fits_nowhere_is_counted_and_the_others_are_learned(tokenizer):
    encoded = encode_chats(tokenizer, [chat(5, 5, 5, 300, 5, 5), chat(5, 300)], 128, "window")
    assert learned(tokenizer, encoded) == ["assistant 1", "assistant 5"]
    assert (encoded.lengths.unlearned_answers, encoded.lengths.dropped_chats) == (1, 1)
    assert "1 chats dropped, 1 answers not learned" in encoded.lengths.sentence("window", 128)


def test_truncation_cuts_at_max_length_and_a_cut_answer_bears_no_loss(tokenizer):
    whole = encode_example(tokenizer, chat(5, 5, 5, 300).messages)
    first = whole.input_ids.index(END, whole.assistant_mask.index(1)) + 1
    encoded = encode_chats(tokenizer, [chat(5, 5, 5, 300), chat(5, 300), chat(300, 5)], 128, "truncate")
    (row,) = encoded.rows
    assert row["input_ids"] == whole.input_ids[:128]
    assert learned(tokenizer, encoded) == ["assistant 1"]
    assert [label for label in row["labels"][first:] if label != IGNORED] == []
    assert (encoded.lengths.dropped_chats, encoded.lengths.unlearned_answers) == (2, 1)
    exact = encode_chats(tokenizer, [chat(5, 5, 5, 300)], first, "truncate")
    assert learned(tokenizer, exact) == ["assistant 1"], "an answer that ends at the cut is whole"


def test_drop_leaves_long_chats_out_and_refuse_names_the_owners_line(tokenizer):
    chats = [chat(5, 5), chat(5, 300, origin="chats.csv:7")]
    encoded = encode_chats(tokenizer, chats, 128, "drop")
    assert [row["line"] for row in encoded.rows] == [1]
    assert encoded.lengths.dropped_chats == 1
    with pytest.raises(
        BadInput, match=r"chats\.csv:7: messages: \d+ tokens, more than max_length 128"
    ) as raised:
        encode_chats(tokenizer, chats, 128, "refuse")
    assert "long_chats" in raised.value.hint
    with pytest.raises(BadInput, match="no chat fits into max_length 128"):
        encode_chats(tokenizer, chats[1:], 128, "drop")


def test_marks_and_greetings_survive_windows(tokenizer):
    turns = list(chat(*[40] * 10).messages)
    turns[5] = turns[5] | {"weight": 0}
    greeting = {"role": "assistant", "content": "Welcome!", "weight": 0}
    encoded = encode_chats(tokenizer, [Chat((greeting, *turns))], 256, "window")
    assert learned(tokenizer, encoded) == [f"assistant {i}" for i in (1, 3, 7, 9)]
    assert "Welcome!" in tokenizer.decode(encoded.rows[0]["input_ids"])


@pytest.mark.parametrize("name", PHI)
def test_a_recipe_for_a_hub_model_makes_windows_unless_it_says_otherwise(name):
    recipe = load_recipe(name)
    assert recipe.long_chats_rule == "window"
    assert replace(recipe, long_chats="drop").long_chats_rule == "drop"


def test_a_recipe_from_scratch_refuses():
    assert load_recipe("tiny-base").long_chats_rule == "refuse"


def ultrachats(count, seed=0):
    """As long as UltraChat's: two to seven questions, answers of some 200 words, log-normally spread."""
    rng = random.Random(seed)
    words = ["the", "of", "to", "and", "model", "train", "value", "market", "answer", "because", "however"]

    def text(median):
        size = max(3, int(median * rng.lognormvariate(0, 0.5)))
        return " ".join(rng.choices(words, k=size)) + "."

    for i in range(count):
        scale = rng.lognormvariate(0, 0.35)
        turns = []
        for _ in range(rng.choice((2, 3, 3, 4, 4, 5, 7))):
            turns += [
                {"role": "user", "content": text(37 * scale)},
                {"role": "assistant", "content": text(240 * scale)},
            ]
        yield Chat(tuple(turns), prompt_id=str(i))


@pytest.fixture(scope="module")
def many():
    return list(ultrachats(2000))


@pytest.mark.slow
def test_the_lengths_are_ultrachats(tokenizer, many):
    told = distribution(token_counts(tokenizer, many))
    assert 1250 < told.mean < 1500
    assert told.p95 > 2600
    assert 0.1 < told.above[2048] < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("max_length", sorted({load_recipe(name).max_length for name in PHI}))
def test_2000_such_chats_go_through_every_rule_of_every_phi_recipe(tokenizer, many, max_length):
    """All Phi recipes have this tokenizer's ids and share few values of max_length: one pass for each."""
    whole = [encode_example(tokenizer, each.messages) for each in many]
    long = [each for each in whole if len(each.input_ids) > max_length]
    total = sum(1 for each in many for message in each.messages if message["role"] == "assistant")
    for rule in ("window", "truncate", "drop"):
        rows, lengths = encode_chats(tokenizer, many, max_length, rule)
        assert (lengths.chats, lengths.long_chats) == (len(many), len(long))
        assert lengths.tokens == sum(len(each.input_ids) for each in whole)
        assert lengths.examples == len(rows)
        assert lengths.kept_tokens == sum(map(len, rows["input_ids"]))
        assert all(len(row["input_ids"]) <= max_length and ends_whole(row) for row in rows)
        answered = sum(row["labels"].count(END) for row in rows)
        if rule == "window":
            lost = lengths.unlearned_answers + sum(
                len(each.messages) // 2 for line, each in enumerate(many, 1) if line not in set(rows["line"])
            )
            assert answered == total - lost
            assert lost < total / 100
        if rule == "drop":
            assert lengths.dropped_chats == len(long)
            assert len(rows) == len(many) - len(long)
        if rule == "truncate":
            assert len(rows) + lengths.dropped_chats == len(many)
    with pytest.raises(BadInput, match=f"{len(long)} bad rows"):
        encode_chats(tokenizer, many, max_length, "refuse")
