"""The emulator against what Azure itself answered: recordings of its SDKs' tests, and its specifications."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure_emulator.emulator import Emulator
from emulated import client_of, emulator_in
from evidence import made
from recorded_calls import DEVIATIONS, Recording, differences, known_deviations, load
from replay import Replay

RECORDINGS = load()
KNOWN = known_deviations()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Emulator]:
    with emulator_in(tmp_path) as running:
        yield running


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_the_emulator_answers_as_azure_did(cloud: Emulator, isolated: None, recording: Recording) -> None:
    """A difference that is not in deviations.json fails, and so does one in there that is gone."""
    with client_of(cloud):
        replay = Replay(cloud, recording)
        found = {
            call.name: sorted(set(differences(call, answer, replay.names, complete=recording.complete)))
            for call, answer in replay.answers()
        }
    known = {call.name: sorted(KNOWN.get(f"{recording.name}/{call.name}", {})) for call in recording.calls}
    assert found == known


def test_there_are_enough_recorded_calls_to_speak_of_evidence() -> None:
    recorded = [one for one in RECORDINGS if one.kind == "recording"]
    assert len(recorded) >= 8
    assert sum(len(one.calls) for one in recorded) >= 60
    assert all(len(one.commit) == 40 for one in RECORDINGS)


def test_every_known_deviation_is_of_a_call_that_there_is_and_has_a_reason() -> None:
    calls = {f"{one.name}/{call.name}" for one in RECORDINGS for call in one.calls}
    listed = json.loads(DEVIATIONS.read_text())
    assert set(listed) <= calls
    assert all(entry["reason"] and entry["differences"] for entries in listed.values() for entry in entries)


def test_no_two_calls_of_a_recording_have_one_name() -> None:
    for recording in RECORDINGS:
        names = [call.name for call in recording.calls]
        assert len(names) == len(set(names)), recording.name


@pytest.mark.parametrize(("page", "text"), list(made()), ids=lambda value: getattr(value, "name", ""))
def test_the_pages_say_what_evidence_there_is(page: Path, text: str) -> None:
    assert page.read_text(encoding="utf-8") == text, "run: make evidence"
