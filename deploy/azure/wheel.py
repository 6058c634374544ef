"""The installed phi3flow as a wheel: what a cloud job runs is what runs here, whether edited or installed.

Equal sources give equal bytes, so Azure keeps one copy and a rerun finds it.
"""

import base64
import hashlib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

PACKAGES = ("phi3flow", "training", "deploy", "custom_connections", "flows", "evaluation", "ui")
EPOCH = (1980, 1, 1, 0, 0, 0)
WHEEL = "Wheel-Version: 1.0\nGenerator: phi3flow\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
LEFT_OUT = {"__pycache__", ".promptflow"}


def build_wheel(folder: Path) -> Path:
    """Write `phi3flow-VERSION-py3-none-any.whl` into `folder` (PEP 427); returns its path."""
    found = distribution("phi3flow")
    name = f"phi3flow-{found.version}"
    entry_points = found.read_text("entry_points.txt") or ""
    members = {
        **_sources(),
        f"{name}.dist-info/METADATA": (
            found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
        ).encode(),
        f"{name}.dist-info/WHEEL": WHEEL.encode(),
        f"{name}.dist-info/entry_points.txt": entry_points.encode(),
    }
    record = f"{name}.dist-info/RECORD"
    lines = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in members.items()]
    members[record] = ("\n".join([*lines, f"{record},,"]) + "\n").encode()
    wheel = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in members.items():
            archive.writestr(zipfile.ZipInfo(path, EPOCH), content, zipfile.ZIP_DEFLATED)
    return wheel


def _sources() -> dict[str, bytes]:
    """All packages lie beside this one, in a checkout as well as where pip installs them."""
    root = Path(__file__).parents[2]
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for package in PACKAGES
        for path in sorted((root / package).rglob("*"))
        if path.is_file() and not LEFT_OUT.intersection(path.parts)
    }


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
