"""Which prompts ask the same question: copies of a question say no more about a model than the question once.

Prompts are the same if their words are, after `folding`; the system message does not matter, unless asked
for. They are nearly the same if the Jaccard index of their word 5-grams is at least 0.9 (`near_duplicates`),
without the grams of a template: those in more than half of the questions. Of prompts with fewer than five
words the index of their character 3-grams counts, from 0.8 on, where numbers and words of up to three letters
are equal.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from phi3flow.chats.alike.folding import folded_words
from phi3flow.chats.alike.near_duplicates import JACCARD, WORDS, GramIndex, jaccard, word_grams
from phi3flow.chats.chat import Message

SHORTEST = 9  # grams: of fewer, no two different sets of similar size have a Jaccard index of 0.9
MOST = 20_000  # different questions among which nearly equal ones are looked for; their words stay in memory
MOST_SPLIT = 100_000  # the same when a file is split
TEMPLATE = 0.5
SHORT_JACCARD = 0.8
CHARACTERS = 3
_SAMPLE = 1000


class Questions:
    """Numbers prompts as they come, from 0, equal ones alike; `groups` joins those that are nearly equal.

    Nearly equal ones are looked for among the first `most` different prompts.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: dict[int, int] = {}
        self._words: list[str] = []
        self.numbers: list[int] = []

    def add(self, prompt: Sequence[Message]) -> None:
        self.add_text(question_text(prompt))

    def add_text(self, text: str) -> None:
        number = self._known.setdefault(hash(text), len(self._known))
        if number == len(self._words) < self._most:
            self._words.append(text)
        self.numbers.append(number)

    def groups(self) -> NDArray[np.int64]:
        """The number of each prompt's question, from 0."""
        pairs = [(number, number) for number in range(len(self._known))]
        pairs += [*_nearly_equal(self._words), *_nearly_equal_short(self._words)]
        if not pairs:
            return np.zeros(0, dtype=np.int64)
        one, other = np.array(pairs).T
        return joined(one, other)[np.array(self.numbers)]


def question_text(prompt: Iterable[Message], *, with_system: bool = False) -> str:
    """The folded words of a prompt; equal for prompts that ask the same."""
    turns = (turn["content"] for turn in prompt if with_system or turn["role"] != "system")
    return " ".join(word for text in turns for word in folded_words(text))


def _nearly_equal(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of numbers of longer texts. Holds the grams of few texts in memory at a time."""
    common = _template(texts)
    index = GramIndex()

    @lru_cache(maxsize=4096)
    def grams(number: int) -> frozenset[str]:
        return word_grams(texts[number].split()) - common

    for number in range(len(texts)):
        own = grams(number)
        if len(own) < SHORTEST:
            continue
        for other in index.like(own):
            if jaccard(own, grams(other)) >= JACCARD:
                yield number, other
        index.add(number, own)


def _nearly_equal_short(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of numbers of texts of fewer than five words."""
    comparable = defaultdict(list)
    for number, text in enumerate(texts):
        if 0 < len(words := text.split()) < WORDS:
            comparable[_fixed(words)].append(number)
    for numbers in (group for group in comparable.values() if len(group) > 1):
        index, grams = GramIndex(), {number: _character_grams(texts[number]) for number in numbers}
        for number, own in grams.items():
            for other in index.like(own):
                if jaccard(own, grams[other]) >= SHORT_JACCARD:
                    yield number, other
            index.add(number, own)


def _character_grams(text: str) -> frozenset[str]:
    padded = f" {text} "
    return frozenset(padded[i : i + CHARACTERS] for i in range(len(padded) - CHARACTERS + 1))


def _fixed(words: Sequence[str]) -> tuple[str, ...]:
    """The words of which a letter more or less makes others."""
    return tuple(word for word in words if len(word) <= CHARACTERS or not word.isalpha())


def question_groups(prompts: Iterable[Sequence[Message]]) -> NDArray[np.int64]:
    """The number of each prompt's question, from 0; prompts of the same question have the same number."""
    questions = Questions()
    for prompt in prompts:
        questions.add(prompt)
    return questions.groups()


def text_groups(texts: Iterable[str], *, near: bool) -> NDArray[np.int64]:
    """The same for what `question_text` gave; nearly equal ones are joined only with `near`."""
    questions = Questions(most=MOST_SPLIT if near else 0)
    for text in texts:
        questions.add_text(text)
    return questions.groups()


def joined(one: ArrayLike, other: ArrayLike) -> NDArray[np.int64]:
    """For each number from 0 the group that it is in, where `one[i]` and `other[i]` are in the same group."""
    rows, columns = np.asarray(one), np.asarray(other)
    size = int(max(rows.max(), columns.max())) + 1
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    found: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return found


def _template(texts: Sequence[str]) -> frozenset[str]:
    sample = texts[:: len(texts) // _SAMPLE + 1]
    counts = Counter(gram for text in sample for gram in word_grams(text.split()))
    return frozenset(gram for gram, times in counts.items() if times > max(3, TEMPLATE * len(sample)))
