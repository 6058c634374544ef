"""From chat files to the folder that every later step reads: check, drop duplicates, split, write.

    phi3flow prepare chats.jsonl --out runs/mine/data

train.jsonl and val.jsonl, and test.jsonl unless it was given, are sorted by content hash: the bytes do not
depend on the order of the input, and neighbouring topics are mixed before training. origins.jsonl says where
each of their lines came from.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi3flow.chats.alike.near_duplicates import JACCARD, WORDS
from phi3flow.chats.chat import Chat
from phi3flow.chats.fields import Columns
from phi3flow.chats.files.sources import ORIGINS, Source
from phi3flow.chats.intake import Intake
from phi3flow.chats.rows import NO_CHATS_HINT, open_chats, read_chats
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError, translating
from phi3flow.core.files import scratch_folder
from phi3flow.core.jsonl import CORRECT, write_jsonl
from phi3flow.core.lineage import Artifact, read_manifest, sha256_of, write_manifest
from training.data.split import TEST_SHARE, VAL_SHARE, NearDuplicates, divide


@dataclass(frozen=True)
class Counts:
    """read = bad + exact_duplicates + prompt_leaks + train + val + test (+ near_duplicates if dropped).

    `moved` rows are in the split of their cluster, and not in that of their own hash.
    """

    read: int
    bad: int
    exact_duplicates: int
    prompt_leaks: int
    near_duplicates: int
    train: int
    val: int
    test: int
    moved: int = 0


@dataclass(frozen=True)
class PreparedData:
    """The written folder, and what reading told (`Intake.told`). `unchanged`: it held this very result."""

    folder: Path
    counts: Counts
    intake: Mapping[str, Any]
    unchanged: bool = False

    @property
    def files(self) -> dict[str, Path]:
        return files_of(self.folder)


def files_of(folder: Path) -> dict[str, Path]:
    """The file of each split."""
    return {split: folder / f"{split}.jsonl" for split in ("train", "val", "test")}


def prepare(
    sources: Sequence[str],
    out: Path,
    *,
    test: Path | None = None,
    near_duplicates: NearDuplicates = "drop",
    max_bad: int = 0,
    columns: Columns | None = None,
    strict: bool = False,
) -> PreparedData:
    """Write train.jsonl, val.jsonl, test.jsonl and manifest.json into `out`.

    `test` is a test set of your own, kept row by row. `columns` names the columns of another shape, and with
    `strict` a row that needs a repair is bad. Raises BadInput, and writes nothing, when more than `max_bad`
    rows are bad, when a split would be empty, and when `out` holds anything but this very result.
    """
    if max_bad < 0:
        raise BadInput(f"--max-bad: {max_bad} is negative", hint="give 0 or more")
    previous = _manifest_in(out)
    opened = [each for source in sources for each in open_chats(source, columns=columns)]
    given = open_chats(str(test), "test", columns) if test else []
    inputs = [Artifact(source.kind, source.name, source.sha256) for source in (*opened, *given)]
    settings = _settings(near_duplicates, columns, has_test=bool(given))
    if previous:
        return _same_again(previous, out, inputs, settings)

    intake = Intake(strict=strict)
    chats = _read(opened, intake, max_bad, columns)
    given_test = _read(given, intake, max_bad, columns) if given else None
    _check_bad(intake, max_bad, any_good=bool(chats))
    splits, dropped = divide(chats, given_test, near_duplicates)
    sizes = {split: len(rows) for split, rows in splits.items()}
    bad = intake.bad.total
    read = len(chats) + len(given_test or ()) + bad
    counts = Counts(read=read, bad=bad, **asdict(dropped), **sizes)
    _check_not_empty(counts, has_test=bool(given))
    details = {"counts": asdict(counts), "settings": settings, "intake": intake.told()}
    _write(out, splits, inputs, details)
    return PreparedData(out, counts, intake.told())


def _settings(near_duplicates: NearDuplicates, columns: Columns | None, *, has_test: bool) -> dict[str, Any]:
    """What decides the result besides the inputs. `max_bad` and `strict` only stop a run or not."""
    named = {"columns": dict(columns)} if columns else {}
    return named | {
        "near_duplicates": near_duplicates,
        "jaccard": JACCARD,
        "words": WORDS,
        "val_share": VAL_SHARE,
        "test_share": None if has_test else TEST_SHARE,
    }


def _manifest_in(out: Path) -> dict[str, Any] | None:
    """The manifest of an earlier run; None if `out` is absent or empty. Raises BadInput otherwise."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    manifest = read_manifest(out) if out.is_dir() else None
    if not manifest or manifest.get("kind") != "data":
        raise BadInput(f"{out}: exists and is no data folder", hint="choose another --out")
    return manifest


def _same_again(
    manifest: dict[str, Any], out: Path, inputs: Sequence[Artifact], settings: dict[str, Any]
) -> PreparedData:
    """The data in `out`, if these inputs and settings made it and no file changed. Raises BadInput."""
    before = sorted((found["kind"], found["sha256"]) for found in manifest["inputs"])
    now = sorted((artifact.kind, artifact.sha256) for artifact in inputs)
    files = {found["kind"]: found["sha256"] for found in manifest["outputs"]}
    intact = all(
        path.is_file() and sha256_of(path) == files.get(split) for split, path in files_of(out).items()
    )
    if before == now and manifest["settings"] == settings and intact:
        return PreparedData(out, Counts(**manifest["counts"]), manifest.get("intake", {}), unchanged=True)
    what = "made from other rows or settings" if intact else "changed since it was prepared"
    raise BadInput(
        f"{out}: holds data {what}", hint=f"choose another --out, or: rm -r {shlex.quote(str(out))}"
    )


def _read(sources: Sequence[Source], intake: Intake, max_bad: int, columns: Columns | None) -> list[Chat]:
    """The chats of all sources. Raises BadInput for a source without any."""
    chats: list[Chat] = []
    for source in sources:
        before = len(chats)
        chats += read_chats(source, intake, columns)
        bad = intake.bad
        if len(chats) == before and bad.total <= max_bad:
            skipped = f"; {bad.report()}" if bad.total else ""
            raise BadInput(f"{source.name}: no chats in it{skipped}", hint=NO_CHATS_HINT)
    return chats


def _check_bad(intake: Intake, max_bad: int, *, any_good: bool) -> None:
    bad = intake.bad
    if bad.total > max_bad:
        skip = f"skip them with --max-bad {bad.total}" if any_good else ""
        if skip and bad.hint() == CORRECT:
            raise BadInput(f"{bad.report()}\nnothing was written", hint=f"{CORRECT}, or {skip}")
        raise BadInput(f"{bad.report()}\nnothing was written" + (skip and f"; {skip}"), hint=bad.hint())
    if bad.total:
        say(f"skipped {bad.report()}")


def _check_not_empty(counts: Counts, *, has_test: bool) -> None:
    """Every later step relies on rows in each split. Raises BadInput."""
    if counts.train and counts.val and counts.test:
        return
    sizes = f"train {counts.train}, val {counts.val}, test {counts.test}"
    dropped = f"{counts.exact_duplicates} exact duplicates, {counts.prompt_leaks} prompts of the test set"
    dropped += f" and {counts.near_duplicates} near duplicates"
    hint = "give more rows, 50 or more: val gets about a tenth of them"
    if not has_test:
        hint = "give more rows, 50 or more: val and test each get about a tenth of them"
        hint += "; or bring a test set with --test FILE"
    if not counts.train and counts.near_duplicates:
        hint = "keep near duplicates of the test set with --near-duplicates report"
    raise BadInput(f"a split is empty ({sizes}) after {dropped}; nothing was written", hint=hint)


def _write(
    out: Path,
    splits: Mapping[str, Sequence[Chat]],
    inputs: Sequence[Artifact],
    details: Mapping[str, Any],
) -> None:
    """Write all files beside `out`, then rename their folder: it appears whole. Raises Phi3flowError."""

    def unwritable(error: Any) -> Exception:
        return Phi3flowError(
            f"{out}: cannot be written: {error.strerror}", hint="choose another --out, or free the disk"
        )

    beside = out.with_name(f".{out.name}.prepare")
    with translating({OSError: unwritable}), scratch_folder(beside) as scratch:
        work = scratch / out.name
        work.mkdir()
        files = files_of(work)
        for split, path in files.items():
            write_jsonl(path, (chat.row() for chat in splits[split]))
        write_jsonl(work / ORIGINS, _origins(splits))
        outputs = [
            Artifact(split, (out / path.name).as_posix(), sha256_of(path)) for split, path in files.items()
        ]
        write_manifest(work, "data", inputs=inputs, outputs=outputs, details=details)
        work.replace(out.resolve())


def _origins(splits: Mapping[str, Sequence[Chat]]) -> Iterator[dict[str, Any]]:
    """Where the owner finds the row of each written line."""
    for split, chats in splits.items():
        for line, chat in enumerate(chats, 1):
            yield {"split": split, "line": line, "from": chat.origin}
