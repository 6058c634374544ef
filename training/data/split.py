"""Divide chats into train, val and test, without a test prompt in the other two.

A chat's split depends on the hash of its prompt, so reordering or duplicating a file moves no chat. Chats
that ask the same question, or nearly (`phi3flow.chats.alike.same_questions`), are a cluster and go together:
to the split of the one with the smallest hash. Only a new chat that joins a cluster can move an earlier one.
The price: the shares hold on average, not exactly.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from phi3flow.chats.alike.near_duplicates import find_near_duplicates, normalised
from phi3flow.chats.alike.same_questions import question_text, text_groups
from phi3flow.chats.chat import Chat, Message, calls_text

TEST_SHARE = 0.1
VAL_SHARE = 0.1

Split = Literal["train", "val", "test"]
NearDuplicates = Literal["drop", "report"]


@dataclass(frozen=True)
class Dropped:
    """How many chats are in no split. Near duplicates count also where they are only reported.

    `moved` chats are in a split, but not in that of their own hash: they follow their cluster.
    """

    exact_duplicates: int
    prompt_leaks: int
    near_duplicates: int
    moved: int


def fingerprint(messages: Sequence[Message]) -> bytes:
    """SHA-256 of the normalised messages. JSON keeps text from posing as the border of a turn."""
    turns = [[message["role"], normalised(message["content"]), *_marks(message)] for message in messages]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).digest()


def _marks(message: Message) -> list[Any]:
    """What tells two messages with the same text apart."""
    calls = [calls_text(message["tool_calls"])] if "tool_calls" in message else []
    return [*([message["weight"]] if "weight" in message else []), *calls]


def _whole(chat: Chat) -> bytes:
    """What two chats that are the same share: their messages and their tools."""
    tools = json.dumps(chat.tools, sort_keys=True).encode() if chat.tools else b""
    return fingerprint(chat.messages) + tools


def position_of(prompt: Sequence[Message]) -> float:
    """A number from 0 up to 1 that only the prompt decides."""
    return int.from_bytes(fingerprint(prompt)[:8]) / 2**64


def split_of(chat: Chat) -> Split:
    """The split of the chat's own hash. With a given test set "test" means "train": val stays the same."""
    position = position_of(chat.prompt)
    if position < TEST_SHARE:
        return "test"
    return "val" if position < TEST_SHARE + VAL_SHARE else "train"


def divide(
    chats: list[Chat], given_test: list[Chat] | None, mode: NearDuplicates
) -> tuple[dict[str, list[Chat]], Dropped]:
    """Drop exact duplicates and whatever repeats the test set, then split; each split is sorted by hash."""
    unique = _unique(chats)
    tested = {_whole(chat) for chat in given_test or ()}
    others = [chat for chat in unique if _whole(chat) not in tested]
    groups = _groups([*others, *(given_test or ())], near=mode == "drop")
    of_test = set(groups[len(others) :])
    unseen = [chat for chat, group in zip(others, groups, strict=False) if group not in of_test]
    sides = _sides(unseen, [group for group in groups[: len(others)] if group not in of_test], mode)
    if given_test is not None:
        sides = ["train" if side == "test" else side for side in sides]
    placed: dict[str, list[Chat]] = {"train": [], "val": [], "test": list(given_test or ())}
    for chat, side in zip(unseen, sides, strict=True):
        placed[side].append(chat)
    near = 0
    for split in ("train", "val"):
        found = find_near_duplicates(placed[split], placed["test"])
        near += sum(found)
        if mode == "drop":
            placed[split] = [chat for chat, is_near in zip(placed[split], found, strict=True) if not is_near]
    own = [split_of(chat) if given_test is None or split_of(chat) == "val" else "train" for chat in unseen]
    moved = sum(side != before for side, before in zip(sides, own, strict=True))
    return placed, Dropped(len(chats) - len(others), len(others) - len(unseen), near, moved)


def _groups(chats: Sequence[Chat], *, near: bool) -> list[int]:
    """The number of each chat's cluster."""
    texts = (question_text(chat.prompt, with_system=True) for chat in chats)
    return list(map(int, text_groups(texts, near=near)))


def _sides(chats: Sequence[Chat], groups: Sequence[int], mode: NearDuplicates) -> list[Split]:
    """The split of each chat's cluster.

    In "report" mode, for rows that are similar on purpose, clusters are kept together only at the border of
    the test set.
    """
    members = defaultdict(list)
    for chat, group in zip(chats, groups, strict=True):
        members[group].append(chat)
    of_group = {group: split_of(min(all_, key=_prompt_hash)) for group, all_ in members.items()}
    sides: list[Split] = []
    for chat, group in zip(chats, groups, strict=True):
        own, side = split_of(chat), of_group[group]
        sides.append(side if mode == "drop" or "test" in (own, side) else own)
    return sides


def _prompt_hash(chat: Chat) -> bytes:
    return fingerprint(chat.prompt)


def _unique(chats: Iterable[Chat]) -> list[Chat]:
    """One chat for each content, sorted by hash. Which of several does not depend on their order."""
    kept: dict[bytes, Chat] = {}
    for chat in chats:
        content = _whole(chat)
        kept[content] = min(kept.get(content, chat), chat, key=lambda each: json.dumps(each.row()))
    return [kept[content] for content in sorted(kept)]
