"""`phi3flow distill` as people call it: a stored connection, the plan, the run, and what it says."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys

import pytest
from command_line import parse
from scripted_teacher import scripted_teacher
from three_documents import write_documents

from custom_connections.promptflow_home import new_encryption_key
from phi3flow.app.cli import main

COMMANDS = """
import json, sys
from custom_connections.promptflow_home import enter_home
from phi3flow.core.settings import Settings

enter_home(Settings.load())
from custom_connections.store import store_connection
from phi3flow.app.cli import main
from phi3flow.phi3_contract import Endpoint

url, *commands = map(json.loads, sys.argv[1:])
store_connection("gpt", Endpoint(url, "planted-key", contract="openai"))
for words in commands:
    print(json.dumps(main(["distill", *words])))
"""


def test_the_plan_comes_first_and_the_run_says_what_it_wrote_and_what_to_do_next(tmp_path):
    write_documents(tmp_path / "papers")
    common = ["--from", "papers", "--teacher", "gpt", "--rows", "20", "--price", "1,2"]
    commands = [
        common,
        [*common, "--out", "rows"],
        [*common, "--out", "rows", "--json"],
        ["--from", "x", "--teacher", "gpt"],
    ]
    with scripted_teacher() as server:
        ran = subprocess.run(
            [sys.executable, "-c", COMMANDS, json.dumps(server.url), *map(json.dumps, commands)],
            cwd=tmp_path,
            env=os.environ | {"PF_ENCRYPTION_KEY": new_encryption_key()},
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        )
        assert max(server.asked.values()) == 1
    plan, _, rest = ran.stdout.partition("\n0\n")
    assert re.search(
        r"if every answer passes: about [\d,]+ tokens sent, [\d,]+ received, cost 0\.\d{4}", plan
    )
    assert "goes to 127.0.0.1 (connection gpt)" in plan and "nothing was asked: --out DIR starts" in plan
    assert "if every answer passes" in ran.stderr and "planted-key" not in ran.stdout + ran.stderr
    told, _, rest = rest.partition("\n0\n")
    assert re.search(r"all replies so far: [\d,]+ tokens sent", told) and "held out by passage" in told
    assert parse(shlex.split(re.search(r"next: phi3flow (.+)", told)[1]))["test"] == "rows/test.jsonl"
    again, code, missing = rest.strip().splitlines()
    assert json.loads(again)["rows"] == 20 and (code, missing) == ("0", "2")
    assert json.loads(again)["usage"]["cost"] > 0 and "x: no such file" in ran.stderr
    kept = {path.name for path in (tmp_path / "rows").iterdir()}
    assert kept >= {"chats.jsonl", "test.jsonl", "left-out.jsonl", "asked.jsonl", "manifest.json", "run.json"}
    assert all(stat.S_IMODE((tmp_path / "rows" / name).stat().st_mode) == 0o600 for name in kept)
    assert not any("planted-key" in (tmp_path / "rows" / name).read_text() for name in kept)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--price", "cheap"], "--price: 'cheap' is not two numbers"),
        (["--price", "1,-2"], "--price: '1,-2' is not two numbers"),
        (["--rows", "0"], "--rows: must be 1 or more"),
    ],
)
def test_a_number_that_is_none_is_bad_input(capsys, words, told):
    assert main(["distill", "--from", "x", "--teacher", "gpt", *words]) == 2
    assert told in capsys.readouterr().err
