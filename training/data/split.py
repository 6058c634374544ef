"""Divide chats into train, val and test, without a test prompt in the other two.

A chat's split depends on the hash of its prompt and on nothing else. So reordering, growing or duplicating a
file moves no earlier chat, and two chats with the same prompt are always in the same split. The price: the
shares hold on average, not exactly.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from phi3flow.chats.chat import Chat, Message
from phi3flow.chats.near_duplicates import find_near_duplicates, normalised

TEST_SHARE = 0.1
VAL_SHARE = 0.1

Split = Literal["train", "val", "test"]
NearDuplicates = Literal["drop", "report"]


@dataclass(frozen=True)
class Dropped:
    """How many chats are in no split. Near duplicates count also where they are only reported."""

    exact_duplicates: int
    prompt_leaks: int
    near_duplicates: int


def fingerprint(messages: Sequence[Message]) -> bytes:
    """SHA-256 of the normalised messages. JSON keeps text from posing as the border of a turn."""
    turns = [[message["role"], normalised(message["content"]), *_marks(message)] for message in messages]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).digest()


def _marks(message: Message) -> list[Any]:
    """What tells two messages with the same text apart."""
    return [message[name] for name in ("weight", "tool_calls") if name in message]


def split_of(chat: Chat) -> Split:
    """The chat's split. With a given test set "test" means "train", so that val stays the same."""
    position = int.from_bytes(fingerprint(chat.prompt)[:8]) / 2**64
    if position < TEST_SHARE:
        return "test"
    return "val" if position < TEST_SHARE + VAL_SHARE else "train"


def divide(
    chats: list[Chat], given_test: list[Chat] | None, mode: NearDuplicates
) -> tuple[dict[str, list[Chat]], Dropped]:
    """Drop exact duplicates and whatever repeats the test set, then split; each split is sorted by hash."""
    unique = _unique(chats)
    if given_test is None:
        test = [chat for chat in unique if split_of(chat) == "test"]
        others = [chat for chat in unique if split_of(chat) != "test"]
        exact_duplicates = len(chats) - len(unique)
    else:
        test = given_test
        tested = {fingerprint(chat.messages) for chat in test}
        others = [chat for chat in unique if fingerprint(chat.messages) not in tested]
        exact_duplicates = len(chats) - len(others)

    test_prompts = {fingerprint(chat.prompt) for chat in test}
    unseen = [chat for chat in others if fingerprint(chat.prompt) not in test_prompts]
    near = find_near_duplicates(unseen, test)
    kept = [chat for chat, is_near in zip(unseen, near, strict=True) if mode == "report" or not is_near]
    splits = {
        "train": [chat for chat in kept if split_of(chat) != "val"],
        "val": [chat for chat in kept if split_of(chat) == "val"],
        "test": test,
    }
    return splits, Dropped(exact_duplicates, len(others) - len(unseen), sum(near))


def _unique(chats: Iterable[Chat]) -> list[Chat]:
    """One chat for each content, sorted by hash. Which of several does not depend on their order."""
    kept: dict[bytes, Chat] = {}
    for chat in chats:
        content = fingerprint(chat.messages)
        kept[content] = min(kept.get(content, chat), chat, key=lambda each: json.dumps(each.row()))
    return [kept[content] for content in sorted(kept)]
