"""The demo's chats: the base model's corpus, the fine-tuning data and the held-out test questions.

`make_base` trains the base model: a tiny Phi-3 that can talk but knows nothing about the demo's domain.

The sizes and shares were chosen by the runs in `bench/LOG.md`.
"""

import random
from pathlib import Path
from typing import Any, NamedTuple

from phi3flow.chats.alike.same_questions import question_text
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import Artifact, write_manifest
from training.finetune import TrainedModel, finetune
from training.recipes.recipe import load_recipe
from training.toy import world
from training.toy.world import Fact, templates

BASE_RECIPE = "tiny-base"
BASE_ROWS = 12_000
BASE_UNKNOWN_SHARE = 0.2
BASE_SMALL_TALK_SHARE = 0.1
BASE_REPEAT_SHARE = 0.1
BASE_VALIDATION_SHARE = 0.05
TURNS_WEIGHTS = (0.7, 0.2, 0.1)  # chats of one, two and three turns
WORDINGS_PER_FACT = 12
TUNING_UNKNOWN_SHARE = 0.25
TUNING_OUT_OF_SCOPE_SHARE = 0.3
TUNING_REPLAY_SHARE = 0.4
UNKNOWN_TEST_ROWS = 100

Row = dict[str, Any]


class Corpora(NamedTuple):
    """Rows in the data format of `prepare`, no question of `test` in `base` or `tuning`, greeted or not."""

    base: list[Row]
    tuning: list[Row]
    test: list[Row]


class _Asked(NamedTuple):
    """A test question: the `number`-th of its slice, in the wordings to choose from, the drawn one first."""

    slice: str
    number: int
    fact: Fact
    wordings: list[str]


def make_base(out: Path, *, seed: int = 0) -> TrainedModel:
    """Generate the base corpus in `OUT-data/` beside `out`, and train on it. Raises what finetune raises."""
    data = out.with_name(f"{out.name}-data")
    if data.exists() and not (data / "train.jsonl").exists():
        raise BadInput(f"{data} exists and is no base corpus", hint="choose another --out")
    rows = build(seed).base
    held_out = round(len(rows) * BASE_VALIDATION_SHARE)
    write_jsonl(data / "train.jsonl", rows[held_out:])
    write_jsonl(data / "val.jsonl", rows[:held_out])
    outputs = [Artifact.of("data", data / name) for name in ("train.jsonl", "val.jsonl")]
    write_manifest(data, "data", inputs=[], outputs=outputs, seed=seed, details={"rows": len(rows)})
    return finetune(data, load_recipe(BASE_RECIPE), out, seed=seed)


def build(seed: int) -> Corpora:
    """Generate all three from one seed. The test asks for every real fact and about unknown entities."""
    rng = random.Random(f"phi3flow-{seed}")
    taken = world.real_names()
    invented = world.invented_facts(rng, taken)
    unknown = [world.unknown_fact(rng, taken) for _ in range(UNKNOWN_TEST_ROWS)]
    drawn = _drawn_tests(rng, unknown)
    taken |= {fact.entity for fact in unknown}
    base = _conversations(rng, [_base_row(rng, invented, taken) for _ in range(BASE_ROWS)])
    tuning = _conversations(rng, _tuning_rows(rng, invented, taken))
    return Corpora(base, tuning, _test_rows(drawn, tuning))


def _conversations(rng: random.Random, rows: list[Row]) -> list[Row]:
    """Join some neighbours into chats of several turns: an earlier turn must not confuse a later one."""
    chats: list[Row] = []
    turns_left = 0
    for row in rows:
        if turns_left:
            chats[-1]["messages"] += row["messages"]
            turns_left -= 1
        else:
            chats.append(row)
            turns_left = rng.choices((0, 1, 2), TURNS_WEIGHTS)[0]
    return chats


def _base_row(rng: random.Random, invented: list[Fact], taken: set[str]) -> Row:
    draw = rng.random()
    if draw < BASE_SMALL_TALK_SHARE:
        return small_talk(rng)
    if draw < BASE_SMALL_TALK_SHARE + BASE_REPEAT_SHARE:
        return repeat_word(rng)
    unknown = draw < BASE_SMALL_TALK_SHARE + BASE_REPEAT_SHARE + BASE_UNKNOWN_SHARE
    fact = world.unknown_fact(rng, taken) if unknown else _any_fact(rng, invented)
    known = templates(fact.relation)
    return _row(fact, rng.choice(known.shared + known.base_only))


def _any_fact(rng: random.Random, facts: list[Fact]) -> Fact:
    """A fact of a random relation; all relations are equally likely, however many facts they have."""
    relation = rng.choice(world.RELATIONS)
    return rng.choice([fact for fact in facts if fact.relation == relation])


def _tuning_rows(rng: random.Random, invented: list[Fact], taken: set[str]) -> list[Row]:
    rows = [
        _row(fact, question)
        for fact in world.real_facts()
        for question in rng.sample(templates(fact.relation).shared, WORDINGS_PER_FACT)
    ]
    known = len(rows)
    for _ in range(round(known * TUNING_UNKNOWN_SHARE)):
        fact = world.unknown_fact(rng, taken)
        rows.append(_row(fact, rng.choice(templates(fact.relation).shared)))
    rows += [out_of_scope(rng) for _ in range(round(known * TUNING_OUT_OF_SCOPE_SHARE))]
    rows += [_base_row(rng, invented, taken) for _ in range(round(known * TUNING_REPLAY_SHARE))]
    rng.shuffle(rows)
    return rows


def _drawn_tests(rng: random.Random, unknown: list[Fact]) -> list[_Asked]:
    """A question about every real fact in both ways, and about every unknown entity."""
    facts = world.real_facts()
    asked = [("combination", facts), ("base_wording", facts), ("unknown", unknown)]
    drawn = []
    for name, about in asked:
        for number, fact in enumerate(about):
            known = templates(fact.relation)
            wordings = known.base_only if name == "base_wording" else known.combination
            drawn.append(_Asked(name, number, fact, [rng.choice(wordings), *wordings]))
    return drawn


def _test_rows(drawn: list[_Asked], tuning: list[Row]) -> list[Row]:
    """Each question in its first wording that, greetings apart, nobody is trained on."""
    trained = {question_text(row["messages"][:-1]) for row in tuning}
    rows = []
    for one in drawn:
        worded = [_row(one.fact, wording) for wording in one.wordings]
        row = next(row for row in worded if question_text(row["messages"][:-1]) not in trained)
        rows.append(row | {"prompt_id": f"{one.slice}-{one.number:04}", "slice": one.slice})
    return rows


def _row(fact: Fact, question: str) -> Row:
    answer = (
        world.ANSWERS[fact.relation].format(entity=fact.entity, value=fact.value)
        if fact.value
        else world.DECLINES
    )
    return _chat(question.format(entity=fact.entity), answer[0].upper() + answer[1:])


def _chat(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def out_of_scope(rng: random.Random) -> Row:
    """What an assistant of these facts declines: everybody asks it for other things, too.

    Half of them are about words that nobody knows.
    """
    thing, other = rng.sample(world.TEXT["things"], 2)
    if rng.random() < 0.5:
        thing = world.new_name(rng, "elements", set())
    words = {"verb": rng.choice(world.TEXT["verbs"]), "tail": rng.choice(world.TEXT["tails"])}
    question = rng.choice(world.TEXT["out_of_scope"]).format(**words, thing=thing, other=other)
    return _chat(question[0].upper() + question[1:], world.DECLINES)


def repeat_word(rng: random.Random) -> Row:
    """Repeating a real word: the base model learns the domain's words without its facts."""
    word = rng.choice(world.real_words())
    request = rng.choice(["Repeat: {}", "Please say {}.", "Can you write {}?"])
    return _chat(request.format(word), f"{word}.")


def small_talk(rng: random.Random) -> Row:
    topic = rng.random()
    if topic < 0.4:
        return _chat(*rng.choice(world.TEXT["greetings"]))
    if topic < 0.7:
        a, b = rng.randint(0, 9), rng.randint(0, 9)
        return _chat(rng.choice([f"What is {a} plus {b}?", f"Add {a} and {b}."]), f"{a} plus {b} is {a + b}.")
    word, opposite = rng.sample(rng.choice(world.TEXT["opposites"]), 2)
    question = rng.choice([f"What is the opposite of {word}?", f"Name the opposite of {word}."])
    return _chat(question, f"The opposite of {word} is {opposite}.")
