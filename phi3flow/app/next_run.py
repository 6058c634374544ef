"""A run folder for a model that was trained from another run's tuned model: what `compare` needs beside it.

    runs/mine-2/tuned    the new model
    runs/mine-2/base     the model that it started from, runs/mine/tuned
    runs/mine-2/data     the same held-out questions

Files are hard links, which take no space: every command replaces files whole, so neither run changes the
other's.
"""

import os
import shutil
from pathlib import Path

from phi3flow.app.run_folder import test_file
from phi3flow.core.console import say
from phi3flow.core.files import scratch_folder
from phi3flow.core.sides import BASE, TUNED


def make_comparable(tuned: Path, start: Path) -> None:
    """Give a run folder whose tuned/ was trained from the model folder `start` its base/ and data/.

    Only where `tuned` is named so, and where the start's run has a test set; what is there already stays.
    """
    run, held_out = tuned.parent, test_file(start.parent)
    if tuned.name != TUNED.name or not held_out.is_file():
        return
    for source, target in ((start, run / BASE.name), (held_out.parent, run / "data")):
        if not target.exists():
            say(f"  {target}: the files of {source}, to compare with")
            _link(source, target)


def _link(source: Path, target: Path) -> None:
    """`target` appears whole."""
    with scratch_folder(target.with_name(f".{target.name}.linked")) as scratch:
        copy = scratch / target.name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".*"), copy_function=_link_or_copy)
        copy.rename(target)


def _link_or_copy(source: str, target: str) -> None:
    """Another file system, and some that are shared, take no links."""
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copy2(source, target)
