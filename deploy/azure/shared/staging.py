"""What jobs, deployments and flows are sent: a temporary folder with exactly the named files."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# The packages lie side by side, in a checkout and where pip installs them. The page (ui) stays here.
_ROOT = Path(__file__).parents[3]
PACKAGES: Mapping[str, Path] = {
    name: _ROOT / name
    for name in ("phi3flow", "training", "deploy", "custom_connections", "flows", "evaluation")
}
# A job starts in its code folder.
USE_CODE = "export PYTHONPATH=$PWD"


@contextmanager
def staged(sources: Mapping[str, Path]) -> Iterator[Path]:
    """A folder with a copy of each source under its name, without caches and hidden files.

    Equal sources give an equal `sha256_of`, which names uploads and jobs: Azure keeps one copy, and a rerun
    finds its own job.
    """
    with tempfile.TemporaryDirectory(prefix="phi3flow-") as temporary:
        folder = Path(temporary)
        for name, source in sources.items():
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                shutil.copyfile(source, folder / name)
        yield folder
