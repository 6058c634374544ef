"""The command line as people script it, and the documentation that was made from it."""

import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from phi3flow.app.cli import VERBS, main
from phi3flow.core.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_reference_is_what_the_code_says():
    made = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["reference"]()
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == made, "run: make reference"


def test_every_link_in_the_documents_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_opens_its_help_with_a_sentence_and_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    module = import_module(f"phi3flow.app.commands.{name}")
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"{module.SENTENCE}\n\nexample: {module.EXAMPLE}" in shown
    assert module.EXAMPLE.startswith(("phi3flow " + name, "eval"))


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from phi3flow.app.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'promptflow', 'streamlit', 'fastapi', 'requests', 'numpy'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "set()"


def test_an_unknown_verb_names_the_nearest(capsys):
    assert main(["prepair"]) == 2
    assert "did you mean 'prepare'" in capsys.readouterr().err


def test_without_a_verb_all_of_them_are_shown(capsys):
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(f"\n    {name} " in shown.err for name in VERBS)


def test_a_per_cent_sign_is_one(capsys):
    assert "%%" not in (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for words in (["azure"], ["azure", "deploy"], ["prepare"]):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
    shown = capsys.readouterr().out
    assert "0 % of the traffic" in shown
    assert "%%" not in shown


@pytest.mark.parametrize(
    "words",
    [
        ["chat", ""],
        ["export", "nope", "--format", "openvino", "--out", "x"],
        ["connect", "mine", "--endpoint", "localhost/score"],
        ["connect", "mine", "--endpoint", "http://127.0.0.1:9/score", "--contract", "C"],
        ["verify", "nope", "--endpoint", "localhost/score"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_bad_input(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHI3FLOW_ENDPOINT_KEY", "k")
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert shown.count("error: ") == 1 and "hint: " in shown
    assert list(tmp_path.iterdir()) == []


def test_user_errors_show_no_traceback(tmp_path, capsys):
    assert main(["train", "--data", str(tmp_path), "--recipe", "none", "--out", str(tmp_path / "x")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "hint: " in shown
    assert "Traceback" not in shown


def test_init_writes_a_file_that_loads_and_is_never_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert Settings.load(tmp_path) == Settings.load(tmp_path.parent)
    assert main(["init"]) == 2


def test_later_sources_of_a_setting_win(tmp_path, monkeypatch):
    (tmp_path / "phi3flow.toml").write_text("ui_port = 1\nflow_port = 1\nbase_port = 1\n")
    (tmp_path / ".env").write_text("PHI3FLOW_FLOW_PORT=2\nPHI3FLOW_BASE_PORT=2\n")
    monkeypatch.setenv("PHI3FLOW_BASE_PORT", "3")
    loaded = Settings.load(tmp_path)
    assert (loaded.ui_port, loaded.flow_port, loaded.base_port) == (1, 2, 3)


def test_secrets_are_refused_in_the_file_and_never_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phi3flow.toml").write_text('endpoint_key = "sk-planted"\nui_prt = 3\n')
    assert main(["init"]) == 2
    shown = capsys.readouterr().err
    assert "endpoint_key: a secret" in shown
    assert "did you mean 'ui_port'" in shown
    assert "sk-planted" not in shown + repr(Settings(endpoint_key="sk-planted"))
