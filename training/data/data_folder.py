"""The folder `prepare` writes and training and evaluation read: three splits and their manifest."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from phi3flow.chats.chat import Chat
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import MANIFEST, Artifact, read_manifest, sha256_of, write_manifest

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Counts:
    """read = bad + exact_duplicates + prompt_leaks + train + val + test, + near_duplicates where dropped."""

    read: int
    bad: int
    exact_duplicates: int
    prompt_leaks: int
    near_duplicates: int
    train: int
    val: int
    test: int


@dataclass(frozen=True)
class PreparedData:
    """A sealed data folder. `unchanged` means that it held this very result already."""

    folder: Path
    counts: Counts
    unchanged: bool = False

    @property
    def train(self) -> Path:
        return self.folder / "train.jsonl"

    @property
    def val(self) -> Path:
        return self.folder / "val.jsonl"

    @property
    def test(self) -> Path:
        return self.folder / "test.jsonl"

    @property
    def manifest(self) -> Path:
        return self.folder / MANIFEST


def manifest_in(out: Path) -> dict[str, Any] | None:
    """The manifest of an earlier run, None where nothing stands. Raises BadInput for anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    manifest = read_manifest(out) if out.is_dir() else None
    if not manifest or manifest.get("kind") != "data":
        raise BadInput(f"{out}: exists and is no data folder", hint="choose another --out")
    return manifest


def same_again(
    manifest: dict[str, Any], out: Path, inputs: Sequence[Artifact], settings: dict[str, Any]
) -> PreparedData:
    """The data `out` holds, if these inputs and settings made it and nobody touched it. Raises BadInput."""
    before = sorted((found["kind"], found["sha256"]) for found in manifest["inputs"])
    now = sorted((artifact.kind, artifact.sha256) for artifact in inputs)
    files = {found["kind"]: found["sha256"] for found in manifest["outputs"]}
    paths = {split: out / f"{split}.jsonl" for split in SPLITS}
    intact = all(path.is_file() and sha256_of(path) == files.get(split) for split, path in paths.items())
    if before == now and manifest["settings"] == settings and intact:
        return PreparedData(out, Counts(**manifest["counts"]), unchanged=True)
    what = "made from other rows or settings" if intact else "changed since it was prepared"
    raise BadInput(
        f"{out}: holds data {what}", hint=f"choose another --out, or: rm -r {shlex.quote(str(out))}"
    )


def write_data(
    out: Path,
    splits: Mapping[str, Sequence[Chat]],
    counts: Counts,
    inputs: Sequence[Artifact],
    settings: Mapping[str, Any],
) -> PreparedData:
    """Write the splits and the manifest into `out`, which is empty or absent. Raises Phi3flowError."""
    with _whole_or_nothing(out) as folder:
        outputs = []
        for split in SPLITS:
            path = folder / f"{split}.jsonl"
            write_jsonl(path, (chat.row() for chat in splits[split]))
            outputs.append(Artifact(split, (out / path.name).as_posix(), sha256_of(path)))
        details = {"counts": asdict(counts), "settings": settings}
        write_manifest(folder, "data", inputs=inputs, outputs=outputs, details=details)
    return PreparedData(out, counts)


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[Path]:
    """A folder beside `out` whose files move there, the manifest last, only if the block succeeds."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=".prepare.") as scratch:
            yield Path(scratch)
            out.mkdir(exist_ok=True)
            for name in [*(f"{split}.jsonl" for split in SPLITS), MANIFEST]:
                (Path(scratch) / name).replace(out / name)
    except OSError as error:
        raise Phi3flowError(
            f"{out}: cannot be written: {error.strerror}", hint="choose another --out, or free the disk"
        ) from error
