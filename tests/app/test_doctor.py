"""Doctor's verdicts on facts given to it, and the verb on this machine."""

import json
import os
import socket
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from phi3flow.app.commands.doctor import (
    Device,
    check_chromium,
    check_device,
    check_foundry,
    check_keyring,
    check_packages,
    check_ports,
    check_prompt_flows_end,
    check_python,
    check_room,
    check_siblings,
)
from phi3flow.core.settings import Settings

REQUIREMENTS = [
    "promptflow<1.19,>=1.18.5",
    'Azure_AI_ml==1.32.0; extra == "azure"',
    'transformers<5.6,>=5.5.4; extra == "train"',
    'ruff<1,>=0.15; extra == "dev"',
]
INSTALLED = {"promptflow": "1.18.5", "azure-ai-ml": "1.32.0", "transformers": "5.5.4"}
SIBLINGS = dict.fromkeys(
    ("promptflow", "promptflow-core", "promptflow-devkit", "promptflow-tracing"), "1.18.5"
)
CPU = Device("2.13.0+cpu", "the CPU", gpu=False, bf16=False, driver=False)


@pytest.mark.parametrize(
    ("check", "status", "words"),
    [
        (check_python((3, 12)), "ok", "3.12"),
        (check_python((3, 13)), "fail", "3.13 is not 3.11 or 3.12"),
        (check_python((3, 10)), "fail", "3.10"),
        (check_packages(REQUIREMENTS, INSTALLED), "ok", "tested range"),
        (
            check_packages(REQUIREMENTS, INSTALLED | {"azure-ai-ml": "1.33.0"}),
            "fail",
            "promptflow-azure imports",
        ),
        (check_packages(REQUIREMENTS, INSTALLED | {"transformers": "5.6.0"}), "fail", "5.6.0 is not <5.6"),
        (
            check_packages(REQUIREMENTS, {"promptflow": "1.18.5"}),
            "warn",
            "azure (azure-ai-ml); train (transformers)",
        ),
        (check_packages(REQUIREMENTS, {}), "fail", "promptflow is missing"),
        (check_siblings(SIBLINGS), "ok", "1.18.5"),
        (check_siblings(SIBLINGS | {"promptflow-core": "1.17.0"}), "fail", "promptflow-core 1.17.0"),
        (check_siblings({}), "fail", "missing"),
        (check_device(CPU)[0], "ok", "2.13.0+cpu on the CPU"),
        (check_device(CPU)[1], "ok", "fp32"),
        (check_device(CPU._replace(driver=True))[0], "warn", "does not use it"),
        (check_device(CPU._replace(gpu=True, name="V100"))[1], "warn", "V100 has no bf16"),
        (check_device(CPU._replace(gpu=True, bf16=True))[1], "ok", "bf16"),
        (check_keyring(True, False), "ok", "PF_ENCRYPTION_KEY"),
        (check_keyring(False, True), "ok", "keyring"),
        (check_keyring(False, False), "warn", "cannot be stored"),
        (check_room("disk", 5.0, 5.0), "ok", "5.0 GB free"),
        (check_room("memory", 3.94, 4.0), "warn", "3.9 GB free, less than 4"),
        (check_chromium("/usr/bin/chromium"), "ok", "/usr/bin/chromium"),
        (check_chromium(None), "warn", "missing"),
    ],
)
def test_verdicts(check, status, words):
    assert check.status == status
    assert words in check.sentence
    assert bool(check.fix) == (status != "ok")


def test_without_a_makefile_the_repair_is_pip_with_the_extras_that_are_missing():
    def fix(installed):
        return check_packages(REQUIREMENTS, installed, checkout=False).fix

    assert fix({"promptflow": "1.18.5"}) == "pip install 'phi3flow[azure,train]'"
    assert fix(INSTALLED | {"transformers": "5.6.0"}) == "pip install 'phi3flow[train]'"
    assert fix({}) == "pip install phi3flow"
    assert (
        check_siblings(SIBLINGS | {"promptflow-core": "1.17.0"}, checkout=False).fix == "pip install phi3flow"
    )


def test_in_a_checkout_the_repair_is_make_install_from_any_folder(tmp_path, monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    assert check_packages(REQUIREMENTS, {}, checkout=True).fix == "make install"
    monkeypatch.chdir(tmp_path)
    assert check_packages(REQUIREMENTS, {}, checkout=True).fix == f"make -C {root} install"


def test_a_taken_port_is_named_with_its_process_and_the_way_out():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check = next(c for c in check_ports(Settings(ui_port=port)) if c.name == f"port {port}")
    assert check.status == "warn"
    assert f"(pid {os.getpid()})" in check.sentence and "the Streamlit chat" in check.sentence
    assert "PHI3FLOW_UI_PORT" in check.fix


def test_the_verb_finds_this_environment_sound_and_reports_every_check(tmp_path):
    (tmp_path / "phi3flow.toml").write_text('runs = "elsewhere"\n')
    below = tmp_path / "below"
    below.mkdir()
    done = subprocess.run(
        [Path(sys.executable).with_name("phi3flow"), "doctor", "--json"],
        cwd=below,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["checks"]
    assert {
        "name": "settings",
        "status": "ok",
        "sentence": f"from {tmp_path / 'phi3flow.toml'}",
        "fix": "",
    } in found
    checks = {check["name"]: check["status"] for check in found}
    assert {
        "python",
        "packages",
        "promptflow",
        "foundry",
        "torch",
        "bf16",
        "keyring",
        "disk",
        "memory",
        "chromium",
    } < set(checks)
    assert checks["python"] == checks["packages"] == checks["promptflow"] == "ok"


@pytest.mark.parametrize(
    ("day", "status", "words"),
    [
        (date(2026, 11, 27), "ok", "read-only from 2027-04-20, in 144 days"),
        (date(2027, 3, 1), "warn", "in 50 days"),
        (date(2027, 4, 20), "warn", "read-only since 2027-04-20: flows run here alone"),
    ],
)
def test_the_end_of_prompt_flow_is_said_with_its_date(day, status, words):
    found = check_prompt_flows_end(day)
    assert (found.status, words in found.sentence) == (status, True)
    assert "development ended on 2026-04-20" in found.sentence


def test_what_else_microsoft_replaced_is_said_with_its_date():
    found = check_foundry()
    assert found.status == "ok"
    assert "Foundry (classic)" in found.sentence and "ended on 2025-08-30" in found.sentence
