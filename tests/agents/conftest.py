"""What the tests of the flows' two hosts share."""

import pytest
from both_hosts import new_home


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return new_home(tmp_path_factory.mktemp("project") / "home")
