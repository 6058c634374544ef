"""Find chats that nearly repeat a chat of the test set: MinHash finds candidates, exact Jaccard decides.

The 5-grams are of words (each Chinese or Japanese character and each punctuation mark is a word), as in Lee
et al. 2022, "Deduplicating Training Data Makes Language Models Better". Character 5-grams would call two
sentences equal that differ in one word: on SCAN they would reject a quarter of a training set without any
repetition. A short question about another name is another question, and stays.

Grams in more than a tenth of the test chats are the task's wording (a system message, an instruction, a
template). They do not count: two chats are not alike because both use the template.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from phi3flow.chats.chat import Chat

if TYPE_CHECKING:
    from datasketch import MinHash

JACCARD = 0.9
WORDS = 5

# 16 bands of 8 hashes find a pair with Jaccard 0.9 with probability 1 - (1 - .9^8)^16 = .9999.
# MinHashLSH(threshold=0.9) would choose 5 bands of 25, which find it with probability .31.
_BANDS, _ROWS = 16, 8
_SAMPLE = 1000
_HAN_KANA = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_HAN_KANA}]|[^\W{_HAN_KANA}]+|[^\w\s]")


def normalised(text: str) -> str:
    """Text without differences in letter case, white space and Unicode form (NFC)."""
    return unicodedata.normalize("NFC", " ".join(text.casefold().split()))


class GramIndex:
    """Finds sets of grams whose Jaccard index is probably at least 0.9; the caller computes it."""

    def __init__(self) -> None:
        from datasketch import MinHash, MinHashLSH

        self._empty = MinHash(num_perm=_BANDS * _ROWS)
        self._index = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))

    def add(self, position: int, own: frozenset[str]) -> None:
        self._index.insert(position, self._sketch(own))

    def like(self, own: frozenset[str]) -> list[int]:
        """Positions of the sets that were added and are probably alike."""
        found: list[int] = self._index.query(self._sketch(own))
        return found

    def _sketch(self, own: frozenset[str]) -> "MinHash":
        sketch = self._empty.copy()
        sketch.update_batch([gram.encode() for gram in own])
        return sketch


def find_near_duplicates(chats: Sequence[Chat], test: Sequence[Chat]) -> list[bool]:
    """For each chat, whether its Jaccard index with some test chat is at least 0.9."""
    index = GramIndex()
    common = task_wording(test)

    @lru_cache(maxsize=4096)
    def grams_of_test(position: int) -> frozenset[str]:
        return grams(test[position]) - common

    def repeats_a_test_chat(chat: Chat) -> bool:
        own = grams(chat) - common
        return bool(own) and any(
            jaccard(own, grams_of_test(candidate)) >= JACCARD for candidate in index.like(own)
        )

    for position in range(len(test)):
        if own := grams_of_test(position):
            index.add(position, own)
    return [repeats_a_test_chat(chat) for chat in chats]


def grams(chat: Chat) -> frozenset[str]:
    """The chat's word 5-grams; a chat of fewer than five words is one gram."""
    return word_grams([word for message in chat.messages for word in words_of(message["content"])])


def words_of(text: str) -> list[str]:
    """Words and punctuation marks of the normalised text."""
    return _WORD.findall(normalised(text))


def word_grams(words: Sequence[str]) -> frozenset[str]:
    """Five words each, in order; fewer words are one gram."""
    return frozenset(" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1)))


def task_wording(test: Sequence[Chat]) -> frozenset[str]:
    """Grams in more than a tenth of the test chats, and in more than 3; counted on at most 1000 chats."""
    sample = test[:: len(test) // _SAMPLE + 1]
    counts = Counter(gram for chat in sample for gram in grams(chat))
    return frozenset(gram for gram, rows in counts.items() if rows > max(3, len(sample) / 10))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """|one and other| / |one or other|, for two sets that are not both empty."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
