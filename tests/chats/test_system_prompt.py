"""The system prompt of the training data: found, recorded beside the model, told by what serves it."""

import json

import pytest

from phi3flow.chats.system_prompt import recorded_system_prompt, shared_system_prompt

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def chats(*systems):
    return [
        ({"role": "system", "content": each}, USER, ANSWER) if each else (USER, ANSWER) for each in systems
    ]


@pytest.mark.parametrize(
    ("systems", "shared"),
    [
        (["brief", "brief", "other"], "brief"),
        (["brief", "brief", "", ""], ""),
        (["", "", "brief"], ""),
        (["a", "b", "c"], ""),
        ([], ""),
    ],
)
def test_it_is_that_of_more_than_half_of_the_rows(systems, shared):
    assert shared_system_prompt(chats(*systems)) == shared


def test_it_is_recorded_in_the_manifest_beside_the_model(tmp_path):
    assert recorded_system_prompt(tmp_path) == ""
    (tmp_path / "manifest.json").write_text(json.dumps({"system_prompt": "Be brief."}))
    assert recorded_system_prompt(tmp_path) == "Be brief."
