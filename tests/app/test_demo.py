"""The demo as a new user runs it: what it promises, and what it leaves."""

import json
import re
import subprocess
import sys

import pytest

from phi3flow.core.lineage import read_manifest, sha256_of
from phi3flow.core.service_stack import is_free


def test_the_report_holds_what_people_script_against(demo):
    report = json.loads((demo.folder / "report.json").read_text())
    keys = {"n", "expected", "answered", "failed", "difference", "difference_ci", "metrics", "declined"}
    keys |= {"verdict", "reasons", "rows_needed"}
    assert keys <= set(report)
    for side in ("base", "tuned"):
        low, high = report[side]["exact_match_ci"]
        assert low <= report[side]["exact_match"] <= high
    assert {name: report[name] for name in keys} == {name: demo.report[name] for name in keys}


def test_tuned_knows_the_facts_that_base_does_not(demo):
    slices = demo.report["slices"]
    assert demo.report["n"] >= 300
    assert demo.report["failed"] == 0
    assert slices["combination"]["tuned"] >= 0.95
    assert slices["combination"]["base"] <= 0.05
    assert slices["base_wording"]["tuned"] >= 0.85
    assert demo.report["declined"]["tuned"] >= 0.8
    assert (demo.report["verdict"], demo.exit_code) == ("promote", 0)


def test_the_tutorials_first_question_is_answered_by_the_tuned_model_alone(demo):
    assert demo.report["answers"]["phi3-tuned"] == "Microsoft was founded by Bill Gates and Paul Allen."
    assert "Gates" not in demo.report["answers"]["phi3-base"]


def test_the_lineage_leads_from_the_report_to_the_chats(demo):
    report, tuned = read_manifest(demo.folder), read_manifest(demo.folder / "tuned")
    data = read_manifest(demo.folder / "data")
    made = {artifact["sha256"] for artifact in data["outputs"]}
    assert sha256_of(demo.folder / "tuned") in {artifact["sha256"] for artifact in report["inputs"]}
    assert sha256_of(demo.folder / "data" / "test.jsonl") in {
        artifact["sha256"] for artifact in report["inputs"]
    }
    assert sha256_of(demo.folder / "data" / "train.jsonl") in made
    assert {artifact["sha256"] for artifact in tuned["inputs"][:2]} <= made


def test_the_report_page_stands_alone(demo):
    page = (demo.folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert not re.search(r'(?:src|href)="https?:', page)


def test_nothing_keeps_running(demo):
    assert all(is_free(port) for port in (5061, 5062, *range(23333, 23340)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "config.json").unlink(), "not a model folder"),
    ],
)
def test_an_incomplete_model_folder_is_refused_in_one_sentence(demo, tmp_path, change, expected):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (demo.folder / "tuned").glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    change(folder)
    command = [sys.executable, "-m", "phi3flow", "serve", str(folder), "--port", "5063"]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"PHI3FLOW_ENDPOINT_KEY": "k" * 20},
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2
    assert expected in ran.stderr
    assert "Traceback" not in ran.stderr
