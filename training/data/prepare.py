"""Load, drop duplicates, seal, write: from chat files to the folder that every later step reads.

    phi3flow prepare chats.jsonl --out runs/mine/data

The written train and val files, and a test file that was carved out, are ordered by content hash: the bytes
do not depend on the order of the input, and topics that stood together are mixed before training.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from phi3flow.chats.chat import Chat
from phi3flow.chats.rows import NO_CHATS_HINT, Source, open_source, read_chats
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import BadRows
from phi3flow.core.lineage import Artifact
from training.data.data_folder import SPLITS, Counts, PreparedData, manifest_in, same_again, write_data
from training.data.near_duplicates import JACCARD, WORDS, find_near_duplicates
from training.data.seal import TEST_SHARE, VAL_SHARE, fingerprint, split_of

NearDuplicates = Literal["drop", "report"]


class _Sealed(NamedTuple):
    splits: dict[str, list[Chat]]
    exact_duplicates: int
    prompt_leaks: int
    near_duplicates: int


def prepare(
    sources: Sequence[str],
    out: Path,
    *,
    test: Path | None = None,
    near_duplicates: NearDuplicates = "drop",
    max_bad: int = 0,
) -> PreparedData:
    """Write train.jsonl, val.jsonl, test.jsonl and manifest.json into `out`.

    `test` is a given test set, kept row for row. Raises BadInput, with nothing written, when more than
    `max_bad` rows are bad, when a split would be empty, and when `out` holds anything but this very result.
    """
    if max_bad < 0:
        raise BadInput(f"--max-bad: {max_bad} is negative", hint="give 0 or more")
    previous = manifest_in(out)
    opened = [open_source(source) for source in sources]
    given = open_source(str(test), kind="test") if test else None
    inputs = [Artifact(source.kind, source.name, source.sha256) for source in (*opened, given) if source]
    settings = _settings(near_duplicates, has_test=given is not None)
    if previous:
        return same_again(previous, out, inputs, settings)

    bad = BadRows()
    chats = [chat for source in opened for chat in _read(source, bad, max_bad)]
    given_test = _read(given, bad, max_bad) if given else None
    _check_bad(bad, max_bad, any_good=bool(chats))
    sealed = _seal(chats, given_test, near_duplicates)
    _check_not_empty(sealed, has_test=given is not None)
    counts = Counts(
        read=len(chats) + len(given_test or ()) + bad.total,
        bad=bad.total,
        exact_duplicates=sealed.exact_duplicates,
        prompt_leaks=sealed.prompt_leaks,
        near_duplicates=sealed.near_duplicates,
        **{split: len(rows) for split, rows in sealed.splits.items()},
    )
    return write_data(out, sealed.splits, counts, inputs, settings)


def _settings(near_duplicates: NearDuplicates, *, has_test: bool) -> dict[str, Any]:
    """All that decides the result besides the inputs. `max_bad` does not: it only lets a run pass or not."""
    return {
        "near_duplicates": near_duplicates,
        "jaccard": JACCARD,
        "words": WORDS,
        "val_share": VAL_SHARE,
        "test_share": None if has_test else TEST_SHARE,
    }


def _read(source: Source, bad: BadRows, max_bad: int) -> list[Chat]:
    chats = list(read_chats(source, bad))
    if not chats and bad.total <= max_bad:
        skipped = f"; {bad.report()}" if bad.total else ""
        raise BadInput(f"{source.name}: no chats in it{skipped}", hint=NO_CHATS_HINT)
    return chats


def _check_bad(bad: BadRows, max_bad: int, *, any_good: bool) -> None:
    if bad.total > max_bad:
        skip = f", or skip them with --max-bad {bad.total}" if any_good else ""
        raise BadInput(f"{bad.report()}\nnothing was written", hint=bad.hint() + skip)
    if bad.total:
        say(f"skipped {bad.report()}")


def _seal(chats: list[Chat], given_test: list[Chat] | None, mode: NearDuplicates) -> _Sealed:
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

    asked = {fingerprint(chat.prompt) for chat in test}
    unasked = [chat for chat in others if fingerprint(chat.prompt) not in asked]
    near = find_near_duplicates(unasked, test)
    kept = [chat for chat, is_near in zip(unasked, near, strict=True) if mode == "report" or not is_near]
    splits = {
        "train": [chat for chat in kept if split_of(chat) != "val"],
        "val": [chat for chat in kept if split_of(chat) == "val"],
        "test": test,
    }
    return _Sealed(splits, exact_duplicates, len(others) - len(unasked), sum(near))


def _unique(chats: Iterable[Chat]) -> list[Chat]:
    """One chat of each content, by its hash; of several, one that does not depend on their order."""
    kept: dict[bytes, Chat] = {}
    for chat in chats:
        content = fingerprint(chat.messages)
        kept[content] = min(kept.get(content, chat), chat, key=lambda each: json.dumps(each.row()))
    return [kept[content] for content in sorted(kept)]


def _check_not_empty(sealed: _Sealed, *, has_test: bool) -> None:
    """Every later step may count on rows in each split."""
    if all(sealed.splits.values()):
        return
    sizes = ", ".join(f"{split} {len(sealed.splits[split])}" for split in SPLITS)
    dropped = f"{sealed.exact_duplicates} exact duplicates, {sealed.prompt_leaks} prompts of the test set"
    dropped += f" and {sealed.near_duplicates} near duplicates"
    hint = "give more rows, 50 or more: val gets about a tenth of them"
    if not has_test:
        hint = "give more rows, 50 or more: val and test each get about a tenth of them"
        hint += "; or bring a test set with --test FILE"
    if not sealed.splits["train"] and sealed.near_duplicates:
        hint = "keep near duplicates of the test set with --near-duplicates report"
    raise BadInput(f"a split is empty ({sizes}) after {dropped}; nothing was written", hint=hint)
