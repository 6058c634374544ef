"""The command line as people script it, and the documentation that was made from it."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import parse

from phi3flow.app.cli import VERBS, command_of, extra_of, main
from phi3flow.app.commands.doctor import install_command
from phi3flow.app.plain_help import describe, visible
from phi3flow.app.renamed import up_to_date
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_reference_is_what_the_code_says():
    made = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["reference"]()
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == made, "run: make reference"


def test_every_link_in_the_documents_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            outside = target.startswith("https://")
            assert outside or (page.parent / target).exists(), f"{page.name}: {target}"


def _commands():
    """Every command by the words that call it; azure and foundry have several."""
    for name in VERBS:
        command = command_of(name)
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {step}", below) for step, below in command.commands.items())


COMMANDS = dict(_commands())
LEAVES = [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_opens_its_help_with_a_sentence_and_an_example(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    sentence, example, *_ = COMMANDS[name].help.split("\n\n")
    assert " ".join(sentence.split()) in " ".join(shown.split())
    assert f"\n{example.rstrip()}\n" in shown, "an example is not wrapped: it is there to be pasted"
    titles = [line for line in shown.splitlines() if re.fullmatch(r"[A-Z][a-z ]*:", line)]
    assert titles in (["Arguments:", "Options:"], ["Options:"], ["Commands:", "Options:"])
    assert example.startswith((f"example: phi3flow {name}", 'example: eval "$(phi3flow env)"'))
    if name in VERBS:
        assert VERBS[name].sentence == " ".join(sentence.split())


@pytest.mark.parametrize("name", LEAVES)
def test_every_example_is_a_command_line_that_parses(name):
    examples = [part for part in COMMANDS[name].help.split("\n\n") if part.startswith("example: phi3flow")]
    for example in examples:
        assert isinstance(parse(shlex.split(example.removeprefix("example: phi3flow "))), dict)
    assert examples or name == "env"


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_has_a_sentence(name):
    for param in visible(COMMANDS[name], click.Context(COMMANDS[name])):
        called, sentence = describe(param)
        assert sentence.endswith(".") and len(sentence) > 12 and "None" not in sentence, called
        is_flag = isinstance(param, click.Option) and param.is_flag
        assert is_flag or param.required or "(default" in sentence, f"{called}: no default"


def test_help_names_the_defaults_that_hold_in_this_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    (tmp_path / "phi3flow.toml").write_text('runs = "elsewhere"\nendpoint_port = 5099\n')
    main(["up", "--help"])
    main(["serve", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"(default: {tmp_path}/elsewhere/demo)" in shown.replace("- ", "-")
    assert "(default: 5099)" in shown


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from phi3flow.app.cli import main\n"
        "main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'promptflow', 'streamlit', 'fastapi', 'requests', 'numpy'}\n"
        "heavy |= {'pydantic', 'rich', 'phi3flow.core.settings', 'phi3flow.app.commands'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "set()"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["prepair"], "did you mean 'prepare'"),
        (["azure", "promot"], "did you mean 'promote'"),
        (["train", "--daat", "x"], "Did you mean '--data'?\nhint: phi3flow train --help"),
        (["train"], "Missing option '--data'\nhint: phi3flow train --help"),
        (["azure", "deploy", "--engine", "tpu"], "'tpu' is not one of 'openvino', 'vllm'"),
        (["azure", "promote", "--mirror", "--traffic", "10"], "exclude each other"),
        (["azure", "deploy", "--int4"], "belong together"),
        (
            ["azure", "train", "--data", "d", "--recipe", "tiny-cpu", "--size", "foo"],
            "'foo' is no machine size",
        ),
        (["azure", "deploy", "--size", "foo"], "'foo' is no machine size"),
        (["azure", "provision", "--nodes", "0"], "--nodes: must be at least 1"),
        (["prepare", "a", "--out", "b", "--max-bad", "x"], "'x' is not a valid integer"),
        (["export", "a", "b", "--format", "openvino", "--out", "c"], "unexpected extra argument (b)"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_was_typed_wrong_is_one_sentence_with_the_nearest(words, told, capsys):
    assert main(words) == 2
    shown = capsys.readouterr()
    assert told in shown.err and shown.err.startswith("error: ")
    assert len(shown.err.splitlines()) == 2 and shown.out == ""


def test_without_a_verb_all_of_them_are_shown(capsys):
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(f"\n  {name} " in shown.err for name in VERBS)


@pytest.mark.parametrize(
    ("old", "new", "notice"),
    [
        ("base --out x", "toy-base --out x", "phi3flow base is now phi3flow toy-base"),
        ("azure promote --to 10 --plan", "azure promote --traffic 10 --plan", "--to is now"),
        ("azure promote --to=mirror", "azure promote --mirror", "azure promote --mirror"),
        (
            "azure deploy --data t.jsonl --exact-match 0.97",
            "azure deploy --int4 --check t.jsonl --at-least 0.96",
            "azure deploy --int4 --check --at-least",
        ),
        (
            "verify m --data t --exact-match=1",
            "verify m --check t --at-least 0.99",
            "verify --check --at-least",
        ),
        (
            "compare --judge-metrics fluency coherence --out x",
            "compare --judge-metric fluency --judge-metric coherence --out x",
            "--judge-metric;",
        ),
        ("-q compare --base-answers b", "-q compare-answers --base b", "compare-answers --base"),
    ],
)
def test_renamed_words_work_with_one_line_that_says_so(old, new, notice, capsys):
    assert up_to_date(old.split()) == new.split()
    told = capsys.readouterr().err
    assert notice in told and len(told.splitlines()) == 1
    assert up_to_date(new.split()) == new.split()
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing_and_verbose_says_what_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phi3flow.toml").write_text("ui_port = 8599\n")
    (tmp_path / "report.json").write_text("{}")
    for words in (
        ["verify", "nope", "--endpoint", "http://127.0.0.1:9/score", flag] for flag in ("-q", "-v")
    ):
        assert main(words) == 2
        shown = capsys.readouterr().err
        assert ("settings from" in shown) == ("-v" in words)
        assert "error: " in shown
    assert main(["-v", "init"]) == 2
    assert "settings from" in capsys.readouterr().err
    assert main(["init"]) == 2
    assert "settings from" not in capsys.readouterr().err, "one run's -v is not the next one's"


def test_a_missing_library_is_named_with_its_extra(tmp_path):
    (tmp_path / "datasets.py").write_text("raise ModuleNotFoundError('No module', name='datasets')")
    source = "import sys; from phi3flow.app.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["prepare", "HuggingFaceH4/ultrachat_200k[train_sft]", "--out", "x"]
    ran = subprocess.run(
        [sys.executable, "-c", source, *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr == f"error: datasets is not installed\nhint: make -C {ROOT} install\n"
    assert (
        install_command([extra_of("torch", ["serve", "m"])], checkout=False)
        == "pip install 'phi3flow[serve]'"
    )
    assert (extra_of("azure.ai.ml", ["azure"]), extra_of("datasets", ["prepare"])) == ("azure", "train")
    assert extra_of("phi3flow.typo", ["train"]) == ""


def test_completion_offers_verbs_and_options(tmp_path):
    def offered(*words):
        asked = {"_PHI3FLOW_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words)}
        environment = {**os.environ, **asked, "COMP_CWORD": str(len(words) - 1)}
        command = [Path(sys.executable).with_name("phi3flow")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.stdout.split()

    assert offered("phi3flow", "comp") == ["compare", "compare-answers"]
    assert "--recipe" in offered("phi3flow", "train", "--re")
    assert offered("phi3flow", "azure", "ro") == ["rollback"]


def test_a_result_is_replaced_only_by_force(tmp_path, capsys):
    rows = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "a"}]}
        for i in range(40)
    ]
    write_jsonl(tmp_path / "test.jsonl", rows)
    write_jsonl(tmp_path / "answers.jsonl", [{"line": i + 1, "answer": "a"} for i in range(40)])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("{}")
    files = {"data": "test.jsonl", "base": "answers.jsonl", "tuned": "answers.jsonl", "out": "out"}
    words = [word for name, path in files.items() for word in (f"--{name}", str(tmp_path / path))]
    assert main(["compare-answers", *words, "--text-metrics", "none"]) == 2
    assert "add --force" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.json").read_text() == "{}"
    assert main(["compare-answers", *words, "--text-metrics", "none", "--force"]) in {3, 4}
    assert f"replacing {tmp_path / 'out' / 'report.json'}" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "report.json").read_text())["n"] == 40


def test_a_per_cent_sign_is_one_and_brackets_stay(capsys):
    assert "%%" not in (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for words in (["azure"], ["azure", "deploy"], ["prepare"]):
        main([*words, "--help"])
    shown = capsys.readouterr().out
    assert "0 % of the traffic" in shown
    assert "[train_sft[:1%]]" in shown
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


def _documented():
    """Every `phi3flow ...` in a code block of the documents, without what the shell does with it."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if page.name == "reference.md":
            continue  # made from the examples that are parsed above
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S):
            for line in re.findall(r"^(?:\.venv/bin/)?phi3flow (.*)", block, flags=re.M):
                yield page.name, re.split(r" [&|>;] ?", re.sub(r"\s#.*", "", line))[0]


@pytest.mark.parametrize(("page", "line"), list(_documented()))
def test_every_documented_command_line_parses_as_it_is_spelled_today(page, line):
    words = shlex.split(line)
    assert up_to_date(words) == words, f"{page}: an old spelling"
    assert isinstance(parse(words), dict), page
