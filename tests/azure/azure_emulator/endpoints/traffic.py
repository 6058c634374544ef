"""Whose turn it is, and how many requests each deployment has in hand."""

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping


class Traffic:
    """In memory: a restart begins anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[str, Counter[str]] = defaultdict(Counter)
        self._in_hand: Counter[str] = Counter()

    def next_turn(self, key: str, shares: Mapping[str, int]) -> str:
        """Smooth weighted round robin: as often as its share, in the same order in every run."""
        with self._lock:
            turns = self._turns[key]
            for gone in set(turns) - set(shares):
                del turns[gone]
            turns.update(shares)
            chosen = max(shares, key=lambda name: turns[name])
            turns[chosen] -= sum(shares.values())
        return chosen

    def enter(self, deployment: str, limit: int) -> bool:
        """Take one more request, unless there are `limit` already."""
        with self._lock:
            if self._in_hand[deployment] >= limit:
                return False
            self._in_hand[deployment] += 1
        return True

    def leave(self, deployment: str) -> None:
        with self._lock:
            self._in_hand[deployment] -= 1
