"""The Python of a job or a container: this one's packages, and whatever it installs for itself.

An image would bring the packages; here they are those of the emulator's own environment. What is installed
on top, lands in a virtual environment that nobody else sees.
"""

import sys
import venv
from pathlib import Path

# A wheel of a version that is here already is installed all the same, and pulls nothing in.
PIP = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_DEPS": "1",
    "PIP_FORCE_REINSTALL": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_NO_CACHE_DIR": "1",
}


def create(folder: Path) -> Path:
    """The `bin` folder of a new virtual environment, with a `pip` of its own."""
    if not (folder / "bin" / "pip").exists():
        venv.create(folder, symlinks=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = folder / "lib" / version / "site-packages"
        packages = [path for path in sys.path if path.endswith("site-packages")]
        (site / "packages_of_the_image.pth").write_text("\n".join(packages) + "\n")
        pip = folder / "bin" / "pip"
        pip.write_text(f'#!/bin/sh\nexec "{folder / "bin" / "python"}" -m pip "$@"\n')
        pip.chmod(0o755)
    return folder / "bin"


def environment(bin_folder: Path, base: dict[str, str]) -> dict[str, str]:
    """`base` with this Python first on PATH, then the scripts of the emulator's own."""
    scripts = str(Path(sys.executable).parent)
    path = ":".join([str(bin_folder), scripts, base.get("PATH", "/usr/bin:/bin")])
    return {**base, **PIP, "PATH": path, "VIRTUAL_ENV": str(bin_folder.parent), "PYTHONUNBUFFERED": "1"}
