"""What a recorded answer tells about its end, in new and in old recordings."""

import pytest

from deploy.verify.probes import Given, Probe, load_probes
from deploy.verify.recorded import check_stop, surely_ended
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from phi3flow.phi3_contract import Reply
from training.models.tokenizer import train_tokenizer

OLD = {"messages": [{"role": "user", "content": "Who?"}], "prompt_token_ids": [1], "base_text": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    train_tokenizer(["yes no maybe one two three"] * 3, 400, 128).save_pretrained(folder)
    return folder


def loaded(folder, *rows):
    write_jsonl(folder / "probes.jsonl", [OLD | row for row in rows])
    return load_probes(folder)


def test_old_recordings_load_and_their_short_answers_are_taken_as_ended(folder):
    probes = loaded(folder, {"id": "short", "tuned_text": "yes"}, {"id": "cut", "tuned_text": "yes no " * 30})
    assert [probe.max_tokens for probe in probes] == [32, 32]
    assert surely_ended(folder, probes) == {"short"}


def test_new_recordings_say_how_they_ended_however_long_they_are(folder, tmp_path):
    rows = [
        {"id": "short", "tuned_text": "yes", "max_tokens": 128, "tuned_finish_reason": "length"},
        {"id": "long", "tuned_text": "yes no " * 30, "max_tokens": 128, "tuned_finish_reason": "stop"},
    ]
    probes = loaded(folder, *rows)
    assert surely_ended(tmp_path, probes) == {"long"}  # nothing needs the tokenizer
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        surely_ended(tmp_path, loaded(folder, {"id": "old", "tuned_text": "yes"}))


@pytest.mark.parametrize(
    ("recorded", "served", "result"),
    [("stop", "stop", "pass"), ("stop", "length", "fail"), ("length", "length", "not-checkable")],
)
def test_only_answers_that_ended_by_themselves_are_judged(folder, recorded, served, result):
    probes = loaded(folder, {"id": "a", "tuned_text": "yes", "tuned_finish_reason": recorded})
    given = [Given(probe, Reply("yes", served)) for probe in probes]
    assert check_stop(given, surely_ended(folder, probes)).result == result


def test_a_field_nobody_knows_is_bad_input(folder):
    write_jsonl(folder / "probes.jsonl", [OLD | {"id": "a", "tuned_text": "yes", "mood": "good"}])
    with pytest.raises(BadInput, match="mood"):
        load_probes(folder)
    assert Probe(**OLD, id="a", tuned_text="yes").base_finish_reason is None
