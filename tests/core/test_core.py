"""The mechanisms that every room uses once: children, polling, progress, translating, validation."""

import os
import sys
import time

import psutil
import pytest
from waiting import until

from phi3flow.core.child_process import last_line, module_command, run_child
from phi3flow.core.errors import BadInput, Phi3flowError, translating
from phi3flow.core.polling import poll
from phi3flow.core.settings import Settings
from phi3flow.core.validation import validated

GRANDCHILD = (
    "import json, subprocess, sys, time\n"
    "request = json.load(sys.stdin)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print(request['key'], child.pid, flush=True)\n"
    "time.sleep(60 if request['hang'] else 0)\n"
    "sys.exit(3)\n"
)


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_child_reads_its_request_and_takes_its_children_with_it(tmp_path):
    log = tmp_path / "log"
    code = run_child([sys.executable, "-c", GRANDCHILD], log, request={"key": "k", "hang": False})
    key, pid = log.read_text(encoding="utf-8").split()
    assert (code, key) == (3, "k")
    until(lambda: not lives(int(pid)))
    assert last_line(log) == f"k {pid}"


def test_a_child_that_takes_too_long_is_killed_whole(tmp_path):
    log = tmp_path / "log"
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        run_child([sys.executable, "-c", GRANDCHILD], log, request={"key": "k", "hang": True}, seconds=2)
    assert time.monotonic() - started < 30
    until(lambda: not lives(int(log.read_text(encoding="utf-8").split()[1])))


def test_a_module_in_the_current_folder_shadows_nothing(tmp_path, monkeypatch):
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "__init__.py").write_text("raise SystemExit('the wrong evaluation')\n")
    monkeypatch.chdir(tmp_path)
    assert run_child(module_command("evaluation.metrics.grader_child"), tmp_path / "log") == 1
    assert "IndexError" in last_line(tmp_path / "log")  # it was found, and misses its arguments


def test_polling_ends_with_what_was_found_or_with_the_time():
    found = iter([None, None, "there"])
    assert poll(lambda: next(found), first=0.001) == "there"
    with pytest.raises(TimeoutError):
        poll(lambda: None, seconds=0.01, first=0.001)


def test_the_first_type_that_matches_translates_and_a_bug_keeps_its_traceback():
    table = {KeyError: lambda error: BadInput(f"no {error}"), LookupError: lambda error: error}
    with pytest.raises(BadInput, match="no 'x'") as caught, translating(table):
        {}["x"]
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(IndexError), translating(table):
        raise IndexError
    with pytest.raises(ZeroDivisionError), translating(table):
        raise ZeroDivisionError
    with pytest.raises(Phi3flowError, match="ours"), translating({Exception: lambda error: KeyError("x")}):
        raise Phi3flowError("ours")


def test_all_problems_of_a_file_are_told_at_once():
    with pytest.raises(BadInput) as caught:
        validated(Settings, {"ui_prt": 1, "flow_port": "many"}, "phi3flow.toml")
    first, second = sorted(str(caught.value).splitlines())
    assert first.startswith("phi3flow.toml: flow_port: must be a valid integer")
    assert second.startswith("phi3flow.toml: ui_prt: unknown (did you mean 'ui_port'?")
