"""What is recorded of a model's answers, and how the `stop` check uses it."""

import pytest

from deploy.verify.checks import check_stop, check_text
from deploy.verify.probes import Answers, ProbeAnswer, load_probes
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl
from phi3flow.phi3_contract import Reply

ROW = {
    "id": "a",
    "messages": [{"role": "user", "content": "Who?"}],
    "prompt_token_ids": [1],
    "max_tokens": 128,
    "tuned_text": "yes",
    "tuned_finish_reason": "stop",
    "base_text": None,
    "base_finish_reason": None,
}


def loaded(folder, row):
    write_jsonl(folder / "probes.jsonl", [row])
    return load_probes(folder)


@pytest.mark.parametrize(
    ("recorded", "served", "result"),
    [("stop", "stop", "pass"), ("stop", "length", "fail"), ("length", "length", "not-checkable")],
)
def test_stop_judges_only_answers_that_the_model_ended(tmp_path, recorded, served, result):
    probes = loaded(tmp_path, ROW | {"tuned_finish_reason": recorded})
    assert check_stop([ProbeAnswer(probe, Reply("yes", served)) for probe in probes]).result == result


@pytest.mark.parametrize(("recorded", "said"), [({}, False), ({"dtype": "bfloat16"}, True)])
def test_another_answer_than_one_in_bf16_may_be_one_of_arithmetic(tmp_path, recorded, said):
    answers = Answers([ProbeAnswer(probe, Reply("no")) for probe in loaded(tmp_path, ROW | recorded)], {}, [])
    found = check_text(answers)
    assert found.result == "fail"
    assert ("recorded in bfloat16" in found.reason) is said


def test_an_unknown_or_missing_field_is_bad_input(tmp_path):
    without_id = {name: value for name, value in ROW.items() if name != "id"}
    for row, problem in ((ROW | {"mood": "good"}, r"jsonl:1: mood: unknown"), (without_id, r"jsonl:1: id: ")):
        with pytest.raises(BadInput, match=problem):
            loaded(tmp_path, row)
    (tmp_path / "probes.jsonl").write_text("{no json\n")
    with pytest.raises(BadInput, match=r"probes\.jsonl"):
        load_probes(tmp_path)
    (tmp_path / "probes.jsonl").write_text("")
    with pytest.raises(BadInput, match="it is empty"):
        load_probes(tmp_path)
