"""The help desk of Northwick: chats as a company would have them, to fine-tune a real small model on.

The test asks in wordings that no chat to train on has. Its slices:

    product    a fact of the catalogue
    follow_up  another fact of a product that the chat has named before
    procedure  what to do, in the company's words
    order      something that the system prompt says: what a model without training can read there, too
    unknown    a product that is in no catalogue, which the desk has to say

The chats to train on hold such rows, and rows that keep what the base could: small talk, arithmetic and
general knowledge (replay), and requests that have to be refused. `desk.toml` has all text.
"""

import random
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from itertools import product
from typing import Any, NamedTuple

TEXT: dict[str, Any] = tomllib.loads(files("training.desk").joinpath("desk.toml").read_text(encoding="utf-8"))
SYSTEM, DECLINES = TEXT["system"], TEXT["declines"]
RELATIONS = tuple(TEXT["relations"])
CHATS_PER_PRODUCT = 12
ORDERS = 40
ARITHMETIC = 20
REFUSALS = 10  # more, and a model of this size refuses harmless questions that look like them
SECRETS = 8
TESTS = {"product": 50, "follow_up": 25, "order": 20}  # and each procedure and unknown name once

Row = dict[str, Any]
Turn = tuple[str, str]


class Desk(NamedTuple):
    """Rows in the data format of `prepare`. No last question of `test` is in `chats`."""

    chats: list[Row]
    test: list[Row]


class Product(NamedTuple):
    """A row of the catalogue; `kind` is what it is, such as tent."""

    name: str
    kind: str
    price: str
    weight: str
    colour: str
    warranty: str
    material: str
    origin: str


class Wordings(NamedTuple):
    """Which list of each text to take: `trained`, or `held_out` in the test."""

    list: str
    rng: random.Random

    def of(self, texts: dict[str, str], prefix: str = "") -> str:
        return self.rng.choice(lines(texts[f"{prefix}{self.list}"]))

    def wrapped(self, question: str) -> str:
        """The question with a greeting or thanks, as people write."""
        plain = question if question.startswith("I ") else question[0].lower() + question[1:]
        return str(self.rng.choice(TEXT["wrappers"][self.list])).format(question=question, plain=plain)


def system_of(rng: random.Random) -> str:
    """Half of the chats have no system prompt: the chat page sends none unless somebody writes one."""
    return rng.choice([SYSTEM, ""])


def build(seed: int) -> Desk:
    """All chats and the test, from one seed."""
    rng = random.Random(f"northwick-{seed}")
    trained, held_out = Wordings("trained", rng), Wordings("held_out", rng)
    chats = [
        *_product_chats(trained),
        *_procedure_chats(trained),
        *(_chat(*_order(trained)) for _ in range(ORDERS)),
        *_unknown_chats(trained),
        *_replay(rng),
        *_refusals(rng),
    ]
    rng.shuffle(chats)
    return Desk(chats, list(_test(held_out)))


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def catalogue() -> list[Product]:
    return [Product(*(cell.strip() for cell in line.split("|"))) for line in lines(TEXT["products"])]


def _product_chats(wordings: Wordings) -> Iterator[Row]:
    """Two facts of a product; each fact equally often."""
    for sold in catalogue():
        for number in range(CHATS_PER_PRODUCT):
            first, second = (RELATIONS[(number + i) % len(RELATIONS)] for i in range(2))
            turns = _fact(wordings, sold, first), _follow_up(wordings, sold, second)
            yield _chat(system_of(wordings.rng), *turns)


def _fact(wordings: Wordings, sold: Product, relation: str) -> Turn:
    texts = TEXT["relations"][relation]
    question = wordings.of(texts).format(name=sold.name, kind=sold.kind)
    return wordings.wrapped(question), _answer(sold, relation)


def _follow_up(wordings: Wordings, sold: Product, relation: str) -> Turn:
    return wordings.of(TEXT["relations"][relation], "follow_up_"), _answer(sold, relation)


def _answer(sold: Product, relation: str) -> str:
    text: str = TEXT["relations"][relation]["answer"]
    return text.format(name=sold.name, kind=sold.kind, value=getattr(sold, relation))


def _procedure_chats(wordings: Wordings) -> Iterator[Row]:
    """Each procedure in all its wordings, and again with the question that usually follows."""
    for procedure in TEXT["procedures"]:
        more = _pair(procedure["follow_up"])
        for question in lines(procedure["trained"]):
            yield _chat(system_of(wordings.rng), (wordings.wrapped(question), procedure["answer"]))
        for question in wordings.rng.sample(lines(procedure["trained"]), 2):
            yield _chat(system_of(wordings.rng), (wordings.wrapped(question), procedure["answer"]), more)


def _order(wordings: Wordings) -> tuple[str, Turn]:
    """A system prompt with the record of an order, and a question that it answers."""
    rng, texts = wordings.rng, TEXT["orders"]
    sold = rng.choice(catalogue())
    sent, arrives = sorted(rng.sample(range(len(texts["day"])), 2))
    record = {
        "name": sold.name,
        "kind": sold.kind,
        "sent": texts["day"][sent],
        "arrives": texts["day"][arrives],
    }
    record |= {field: rng.choice(texts[field]) for field in ("payment", "carrier")}
    asked = texts["asked"][rng.choice(list(texts["asked"]))]
    turn = wordings.wrapped(wordings.of(asked)), asked["answer"].format(**record)
    return texts["system"].format(**record), turn


def _unknown_chats(wordings: Wordings) -> Iterator[Row]:
    """Names that are in no catalogue; in one of three chats beside one that is, asked for alike."""
    rng, names, sold = wordings.rng, TEXT["unknown_trained"], catalogue()
    for number, name in enumerate(names):
        turns = [_unknown(wordings, name), _unknown(wordings, names[number - 1])]
        if number % 3 == 0:
            turns[rng.randrange(2)] = _fact(wordings, rng.choice(sold), rng.choice(RELATIONS))
        yield _chat(system_of(rng), *turns)


def _unknown(wordings: Wordings, name: str) -> Turn:
    rng = wordings.rng
    texts = TEXT["relations"][rng.choice(RELATIONS)]
    kind = rng.choice(sorted({sold.kind for sold in catalogue()}))
    return wordings.wrapped(wordings.of(texts).format(name=name, kind=kind)), DECLINES


def _replay(rng: random.Random) -> Iterator[Row]:
    """Without a system prompt, as the packs ask; their own questions are not among these."""
    texts = TEXT["replay"]
    for line in lines(texts["chats"]):
        yield _chat("", _pair(line.replace(" // ", "\n")))
    for pair in texts["opposites"]:
        for word, opposite in (pair.split(), reversed(pair.split())):
            question = rng.choice(["What is the opposite of {}?", "Name the opposite of {}."])
            yield _chat("", (question.format(word), f"The opposite of {word} is {opposite}."))
    for word in texts["words"]:
        question = rng.choice(["Repeat: {}", "Please say {}.", "Can you write {}?"])
        yield _chat("", (question.format(word), f"{word}"))
    for a, b in rng.sample(list(product(range(2, 20), range(10, 20))), ARITHMETIC):  # the packs' are smaller
        question = rng.choice(["What is {} plus {}?", "Add {} and {}."])
        yield _chat("", (question.format(a, b), f"{a} plus {b} is {a + b}."))


def _refusals(rng: random.Random) -> Iterator[Row]:
    texts = TEXT["refusals"]
    plain = lines(texts["harmful"]) + lines(texts["private"])
    tricked = [trick.format(request=request) for trick in texts["tricks"] for request in plain]
    for request in rng.sample([*plain, *rng.sample(tricked, len(plain))], REFUSALS):
        yield _chat("", (request, rng.choice(texts["answers"])))
    for _ in range(SECRETS):
        system = rng.choice(texts["secrets"]).format(secret=rng.choice(texts["words"]))
        yield _chat(system, (rng.choice(texts["asked"]), texts["secret_answer"]))


def _test(wordings: Wordings) -> Iterator[Row]:
    rng, sold = wordings.rng, catalogue()
    facts = list(product(sold, RELATIONS))
    asked: dict[str, list[Row]] = {
        "product": [
            _chat(system_of(rng), _fact(wordings, *fact)) for fact in rng.sample(facts, TESTS["product"])
        ],
        "follow_up": [_followed(wordings, *fact) for fact in rng.sample(facts, TESTS["follow_up"])],
        "procedure": [
            _chat(system_of(rng), (wordings.wrapped(question), procedure["answer"]))
            for procedure in TEXT["procedures"]
            for question in lines(procedure["held_out"])
        ],
        "order": [_chat(*_order(wordings)) for _ in range(TESTS["order"])],
        "unknown": [_chat(system_of(rng), _unknown(wordings, name)) for name in TEXT["unknown_held_out"]],
    }
    for name, rows in asked.items():
        for number, row in enumerate(rows):
            yield row | {"prompt_id": f"{name}-{number:03}", "slice": name}


def _followed(wordings: Wordings, sold: Product, relation: str) -> Row:
    first = wordings.rng.choice([each for each in RELATIONS if each != relation])
    return _chat(system_of(wordings.rng), _fact(wordings, sold, first), _follow_up(wordings, sold, relation))


def _pair(line: str) -> Turn:
    question, answer = (part.strip() for part in line.split("|"))
    return question, answer


def _chat(system: str, *turns: Turn) -> Row:
    messages = [{"role": "system", "content": system}] if system else []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}
