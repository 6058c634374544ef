"""A settings file that another user left in a folder above, such as /tmp, is not obeyed."""

import os

import pytest

from phi3flow.core.errors import BadInput
from phi3flow.core.settings import CONFIG_FILE, DOTENV, Settings

SOMEBODY, OWNER = 41_001, 41_002


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize(
    ("name", "text"), [(DOTENV, "PHI3FLOW_BATCH_WORKERS=7\n"), (CONFIG_FILE, "batch_workers = 7\n")]
)
def test_a_settings_file_of_another_user_is_refused(tmp_path, name, text):
    mine = tmp_path / "work" / "mine"
    mine.mkdir(parents=True)
    left = tmp_path / name
    left.write_text(text)
    assert Settings.load(mine).batch_workers == 7
    os.chown(left, SOMEBODY, -1)
    with pytest.raises(BadInput, match=f"{left}: belongs to another user"):
        Settings.load(mine)
    os.chown(mine, OWNER, -1)  # a mounted folder: its owner's settings are meant
    os.chown(left, OWNER, -1)
    assert Settings.load(mine).batch_workers == 7
