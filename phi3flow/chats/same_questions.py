"""Which prompts ask the same question: copies of a question say no more about a model than the question once.

Prompts are the same if their words are: case, punctuation, white space, invisible characters and Unicode's
compatibility forms do not matter, nor does the system message. They are nearly the same if the Jaccard index
of their word 5-grams is at least 0.9 (`near_duplicates`), without the grams of a template: those in more than
half of the questions.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from phi3flow.chats.chat import Message
from phi3flow.chats.near_duplicates import JACCARD, GramIndex, jaccard, word_grams, words_of

SHORTEST = 9  # grams: of fewer, no two different sets of similar size have a Jaccard index of 0.9
MOST = 20_000  # different questions among which nearly equal ones are looked for; their words stay in memory
TEMPLATE = 0.5
_SAMPLE = 1000


class Questions:
    """Numbers prompts as they come, from 0, equal ones alike; `groups` joins those that are nearly equal."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._words: list[str] = []
        self.numbers: list[int] = []

    def add(self, prompt: Sequence[Message]) -> None:
        words = [word for turn in prompt if turn["role"] != "system" for word in _words(turn["content"])]
        text = " ".join(words)
        number = self._known.setdefault(hash(text), len(self._known))
        if number == len(self._words) < MOST:
            self._words.append(text)
        self.numbers.append(number)

    def groups(self) -> NDArray[np.int64]:
        """The number of each prompt's question, from 0."""
        grams = [word_grams(text.split()) for text in self._words]
        common = _template(grams)
        index, pairs = GramIndex(), [(number, number) for number in range(len(self._known))]
        for number, own in enumerate(one - common for one in grams):
            if len(own) < SHORTEST:
                continue
            for other in index.like(own):
                if jaccard(own, grams[other] - common) >= JACCARD:
                    pairs.append((number, other))
            index.add(number, own)
        if not pairs:
            return np.zeros(0, dtype=np.int64)
        one, other = np.array(pairs).T
        return joined(one, other)[np.array(self.numbers)]


def question_groups(prompts: Iterable[Sequence[Message]]) -> NDArray[np.int64]:
    """The number of each prompt's question, from 0; prompts of the same question have the same number."""
    questions = Questions()
    for prompt in prompts:
        questions.add(prompt)
    return questions.groups()


def joined(one: ArrayLike, other: ArrayLike) -> NDArray[np.int64]:
    """For each number from 0 the group that it is in, where `one[i]` and `other[i]` are in the same group."""
    rows, columns = np.asarray(one), np.asarray(other)
    size = int(max(rows.max(), columns.max())) + 1
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    found: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return found


def _words(text: str) -> list[str]:
    """Its words, without punctuation and invisible characters."""
    folded = unicodedata.normalize("NFKC", text)
    seen = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    words = words_of(seen)
    return [word for word in words if word[0].isalnum()] or words


def _template(grams: Sequence[frozenset[str]]) -> frozenset[str]:
    sample = grams[:: len(grams) // _SAMPLE + 1]
    counts = Counter(gram for own in sample for gram in own)
    return frozenset(gram for gram, times in counts.items() if times > max(3, TEMPLATE * len(sample)))
