"""Test questions that the training chats ask in nearly the same words.

`near_duplicates` compares whole chats, and drops. This compares what the user says, and tells. "Hi, is
goulash vegetarian? thx" and "quick question: is goulash vegetarian?" are different chats, but a model that
has learned one of them can answer the other.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from phi3flow.chats.alike.near_duplicates import words_of
from phi3flow.chats.chat import Chat

ALIKE = 0.8  # cosine; at this one word of five differs, or more words that every question has
MOST = 1000  # test questions that are looked at
_AT_ONCE = 100


class Alike(NamedTuple):
    """Places in the test set that are asked alike, and how many were looked at."""

    alike: list[int]
    of: int


def asked_alike(train: Sequence[Chat], test: Sequence[Chat]) -> Alike:
    """The test chats that are asked alike in `train`; of more than 1 000 tests, 1 000 at equal distances.

    Questions are alike if the cosine of their words' weights is at least 0.8. A word weighs log(n / df), n
    questions, df of which have it (TF-IDF, Salton and Buckley 1988): greetings and templates weigh little.
    """
    looked_at = [i * len(test) // MOST for i in range(MOST)] if len(test) > MOST else list(range(len(test)))
    questions = [_asked_words(chat) for chat in [*train, *(test[i] for i in looked_at)]]
    vectors = weighted(questions)
    ours, theirs = vectors[: len(train)], vectors[len(train) :]
    best = [
        (theirs[start : start + _AT_ONCE] @ ours.T).max(axis=1).toarray().ravel()
        for start in range(0, len(looked_at), _AT_ONCE)
    ]
    alike = [i for i, cosine in zip(looked_at, np.concatenate(best), strict=True) if cosine >= ALIKE]
    return Alike(alike, len(looked_at))


def _asked_words(chat: Chat) -> Counter[str]:
    """What the user says before the reference answer."""
    turns = [turn["content"] for turn in chat.prompt if turn["role"] == "user"]
    return counted_words(turns)


def counted_words(texts: Iterable[str]) -> Counter[str]:
    return Counter(word for text in texts for word in words_of(text) if word[0].isalnum())


def weighted(questions: Sequence[Counter[str]]) -> csr_array:
    """A row of length 1 for each text, and a column for each word; a word weighs log(n / df)."""
    found = Counter(word for question in questions for word in question)
    column = {word: i for i, word in enumerate(found)}
    idf = np.log(len(questions) / np.array([*found.values()]))
    rows = np.repeat(np.arange(len(questions)), [len(question) for question in questions])
    columns = np.array([column[word] for question in questions for word in question], dtype=np.int64)
    values = idf[columns]
    lengths = np.sqrt(np.bincount(rows, values**2, minlength=len(questions)))
    values = values / np.maximum(lengths[rows], 1e-9)
    return csr_array((values, (rows, columns)), shape=(len(questions), len(column)))
