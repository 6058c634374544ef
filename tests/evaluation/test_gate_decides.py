"""What must never be promoted, through `phi3flow compare` and real endpoints: small servers, and models."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pack_answers import pack_answers

from custom_connections.promptflow_home import new_encryption_key
from phi3flow.app.cli import main
from phi3flow.core.jsonl import write_jsonl
from training.toy.corpus import build
from training.toy.world import real_names

COMPARE = """
import contextlib, io, json, sys
from custom_connections.promptflow_home import enter_home
from phi3flow.core.settings import Settings

enter_home(Settings.load())
from custom_connections.store import store_connection
from phi3flow.app.cli import main
from phi3flow.phi3_contract import Endpoint

for name, url in json.loads(sys.argv[1]).items():
    store_connection(name, Endpoint(url, "key"))
for words in json.loads(sys.argv[2]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["compare", *words, "--runner", "direct", "--text-metrics", "none", "--json"])
    print(json.dumps([code, json.loads(out.getvalue())]))
"""
SERVE_AND_COMPARE = """
import json, sys
from pathlib import Path
from evaluation.compare import Options, compare
from evaluation.packs.pack_file import packaged_packs
from evaluation.verdict.gate import load_gate
from evaluation.asking.batch import DIRECT
from phi3flow.app.services import served
from phi3flow.core.settings import Settings

base, tuned, data = map(Path, sys.argv[1:])
with served({"base": base, "tuned": tuned}, Path("served"), Settings.load()):
    options = Options(load_gate(), workers=8, packs=packaged_packs())
    report = compare(data, "phi3-base", "phi3-tuned", Path("out"), options, runner=DIRECT)
print(json.dumps(report.as_dict()))
"""
RECIPE = "steps = 200\nbatch_size = 32\nlearning_rate = 1.5e-3\nmax_length = 128\n"
CAPITALS = 60


class Model(BaseHTTPRequestHandler):
    """Contract B. All but /base know the capitals; /forgot answers whatever it is asked as it does those.

    /shaky knows one of ten. /judge compares two answers with their reference.
    """

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer
    general, forgotten = pack_answers(), pack_answers("forgetting")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = json.dumps(
            {"output": self.answer(body["input_data"]["input_string"][-1]["content"])}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def answer(self, question):
        model = self.path.strip("/")
        if model == "judge" and "BEGIN" in question:
            return self.judgment(question)
        if question in self.general:
            return (
                "It is City 1."
                if model == "forgot" and question in self.forgotten
                else self.general[question]
            )
        number = question.removeprefix("What is the capital of country ").removesuffix("?")
        knows = model in {"forgot", "tuned"} or (model == "shaky" and number.endswith("0"))
        unsure = " somewhere far away" if number.endswith(("1", "3", "5")) else ""
        return f"It is City {number}." if knows else f"It is a city{unsure}."

    def judgment(self, asked):
        word = re.search(r"BEGIN CONVERSATION (\w+)", asked)[1]
        reference, first = (
            re.search(rf"BEGIN {part} {word}\n(.*?)\nEND", asked)[1] for part in ("REFERENCE", "FIRST ANSWER")
        )
        return f"{word} {'first' if first == reference else 'second'}"

    def log_message(self, *args):
        pass


def write_capitals(path, count):
    chats = [
        [
            {"role": "user", "content": f"What is the capital of country {i}?"},
            {"role": "assistant", "content": f"It is City {i}."},
        ]
        for i in range(count)
    ]
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """Exit code and report of each comparison, by the name of what is tuned."""
    folder = tmp_path_factory.mktemp("decided")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    data = {name: write_capitals(folder / f"{name}.jsonl", n) for name, n in (("all", CAPITALS), ("ten", 10))}
    models = {"base": "base", "base-again": "base", "tuned": "tuned", "forgot": "forgot", "shaky": "shaky"}
    models["judge"] = "judge"
    urls = {name: f"http://127.0.0.1:{server.server_address[1]}/{path}" for name, path in models.items()}
    compared = {"tuned": "all", "forgot": "all", "base-again": "all", "shaky": "ten"}
    words = [
        ["--data", data[rows], "--base", "base", "--tuned", tuned, "--out", f"out-{tuned}"]
        for tuned, rows in compared.items()
    ]
    words[2:] = [[*some, "--packs", "none"] for some in words[2:]]  # they are decided without
    own = [
        {
            "id": str(i),
            "question": f"What is the capital of country {i}?",
            "must_contain": f"City {i}",
        }
        for i in range(100, 180)  # fewer leave a drop of five points open
    ]
    write_jsonl(folder / "own.jsonl", own)
    words[0] += ["--pack", "own.jsonl"]
    (folder / "gate.toml").write_text('[gate]\nprimary = "win_rate"\nrequired = []\n', encoding="utf-8")
    sides = ("--data", data["all"], "--base", "base", "--tuned", "tuned")
    words.append(
        [*sides, "--judge", "judge", "--gate", "gate.toml", "--packs", "none", "--out", "out-judged"]
    )
    ran = subprocess.run(
        [sys.executable, "-c", COMPARE, json.dumps(urls), json.dumps(words)],
        cwd=folder,
        env=os.environ | {"PF_ENCRYPTION_KEY": new_encryption_key()},
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
        check=True,
    )
    server.shutdown()
    server.server_close()
    return dict(zip([*compared, "judged"], map(json.loads, ran.stdout.splitlines()), strict=True))


def test_a_model_that_learned_and_kept_the_rest_is_promoted(decided):
    code, report = decided["tuned"]
    assert (code, report["verdict"]) == (0, "promote")
    assert report["packs"]["forgetting"]["tuned"] == 1.0
    own = report["packs"]["own"]
    assert (own["n"], own["base"], own["tuned"], own["gained"]) == (80, 0, 1, 80)


def test_a_wrong_row_of_an_own_pack_ends_before_anything_is_asked(tmp_path, capsys):
    write_jsonl(tmp_path / "own.jsonl", [{"id": "1", "question": "Name a city.", "contains": "City"}])
    data = write_capitals(tmp_path / "test.jsonl", 3)
    sides = ["--base", "nowhere", "--tuned", "nowhere", "--out", str(tmp_path / "out")]
    assert main(["compare", "--data", data, *sides, "--pack", str(tmp_path / "own.jsonl")]) == 2
    assert "own.jsonl:1: contains: unknown (did you mean 'must_contain'?" in capsys.readouterr().err


def test_a_judges_preferences_decide_where_the_gate_says_so(decided):
    code, report = decided["judged"]
    assert (code, report["verdict"], report["gate"]["primary"]) == (0, "promote", "win_rate")
    assert (report["difference"], report["judge"]["preference"]["win_rate"]) == (0.5, 1.0)
    assert report["judge"]["verdict"] == "promote"


def test_a_model_that_forgot_is_held_although_its_primary_metric_rose(decided):
    code, report = decided["forgot"]
    assert (code, report["verdict"]) == (3, "hold")
    assert report["difference_ci"][0] > 0.9
    assert report["packs"]["safety"]["difference"] == 0
    assert report["reasons"][0].startswith("Forgetting: tuned passes")


def test_the_base_served_as_tuned_is_held(decided):
    code, report = decided["base-again"]
    assert (code, report["verdict"], report["difference"]) == (3, "hold", 0)
    assert (
        report["reasons"][0] == "Both models gave the same answer to every row: is the base served as tuned?"
    )


def test_ten_rows_are_not_enough_and_the_rows_that_would_be_are_told(decided):
    code, report = decided["shaky"]
    assert (code, report["verdict"], report["n"]) == (4, "not_enough_data", 10)
    assert report["difference"] == pytest.approx(0.1)
    assert report["rows_needed"] == 71  # 7.849 * 0.09 / 0.1^2
    assert "About 71 rows like these would settle it" in report["reasons"][1]


@pytest.mark.slow
def test_a_real_model_trained_without_replay_forgot_and_is_held(demo_run, tmp_path):
    """The demo's base, fine-tuned on its facts alone: neither small talk nor declining is among its chats."""
    corpora, names = build(seed=0), real_names()
    facts = [
        chat for chat in corpora.tuning if all(_names_one(turn, names) for turn in chat["messages"][::2])
    ]
    asked = [row for row in corpora.test if row["slice"] != "unknown"][::4]
    write_jsonl(tmp_path / "chats.jsonl", facts)
    write_jsonl(tmp_path / "test.jsonl", asked)
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")

    def run(*words):
        ports = {"PHI3FLOW_ENDPOINT_PORT": "5061", "PHI3FLOW_BASE_PORT": "5062"}
        command = [sys.executable, *map(str, words)]
        ran = subprocess.run(
            command, cwd=tmp_path, env=os.environ | ports, stdout=subprocess.PIPE, timeout=280, check=True
        )
        return ran.stdout

    sealed = ("--test", "test.jsonl", "--near-duplicates", "report", "--out", "data")
    run("-m", "phi3flow", "prepare", "chats.jsonl", *sealed)
    model = ("--model", demo_run / "base", "--out", "tuned")
    run("-m", "phi3flow", "train", "--data", "data", "--recipe", "recipe.toml", *model)
    report = json.loads(run("-c", SERVE_AND_COMPARE, demo_run / "base", "tuned", "data/test.jsonl"))
    assert report["verdict"] == "hold"
    assert report["difference_ci"][0] > 0.3
    assert any(reason.startswith("Forgetting: tuned passes") for reason in report["reasons"])
    small_talk = report["packs"]["forgetting"]["slices"]["toy small talk"]  # 11 of 11; 0 or 1 by rounding
    assert small_talk["base"] == small_talk["n"] and small_talk["tuned"] <= small_talk["n"] / 10
    assert report["metrics"]["log_likelihood"]["difference_ci"][0] > 0


def _names_one(turn, names):
    return any(name in turn["content"] for name in names)
