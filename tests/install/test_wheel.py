"""The wheel holds what git tracks in the packages, and nothing else."""

import zipfile

import pytest

from phi3flow import __version__
from phi3flow.__main__ import PACKAGES

pytestmark = pytest.mark.install


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel, tracked):
    ours = {
        path.relative_to(tracked).as_posix()
        for package in ("phi3flow", *PACKAGES)
        for path in (tracked / package).rglob("*")
        if path.is_file()
    }
    about = f"phi3flow-{__version__}.dist-info/"
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith(about)}
    assert packed == ours
    assert {name for name in ours if name.endswith(".csv")}, "the demo's facts"
