"""What the model sees of a long conversation, in tokens estimated without its tokenizer."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from ui.store.history import ESTIMATE_SHARE, context_of, estimated_tokens, prompt_of, room_for_prompt
from ui.store.records import COMPLETE, FAILED, Turn

TEXTS = {
    "English": "The quick brown fox jumps over the lazy dog and returns to the forest before the evening. ",
    "German": "Der schnelle braune Fuchs springt über den faulen Hund und kehrt in den Wald zurück. ",
    "Chinese": "敏捷的棕色狐狸跳过了懒狗。然后回到森林里休息。",
    "Japanese": "素早い茶色の狐がのろまな犬を飛び越え、森に帰って休みます。",
    "code": "def room(context: int) -> int:\n    return max(0, context - 256)\n\nfor i in range(10):\n",
    "digits": "31415926535 8979323846 2643383279 ",
    "emoji": "😀🎉🚀",
}


def turn(question, answer, status=COMPLETE):
    return Turn("id", "chat", question, "tuned", "", "", answer, status, "", None, None, None, "", "")


@pytest.mark.parametrize("language", TEXTS)
def test_the_estimate_is_near_what_the_tokenizer_of_phi3_counts(language):
    tokenizer = Tokenizer.from_file(
        str(Path(__file__).parents[1] / "data" / "phi3_tokenizer" / "tokenizer.json")
    )
    text = TEXTS[language] * 3
    counted = len(tokenizer.encode(text, add_special_tokens=False).ids)
    assert 0.8 < estimated_tokens(text) / counted < 1.4


def test_the_newest_turns_that_fit_are_kept_whole():
    earlier = [turn(f"question {number}", "word " * 100) for number in range(10)]
    room = 3 * estimated_tokens("word " * 110)
    prompt = prompt_of("now", [*earlier, turn("lost", "", FAILED)], "be brief", room)
    assert prompt.dropped == 8
    assert sum(estimated_tokens(message["content"]) for message in prompt.messages) <= room
    assert [message["role"] for message in prompt.messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert prompt.messages[1]["content"] == "question 8"
    assert prompt_of("now " * 1000, earlier, "", room).messages == [
        {"role": "user", "content": "now " * 1000}
    ]


def test_the_room_comes_from_the_model(tmp_path):
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 1024}')
    assert room_for_prompt(context_of(tmp_path), 256) == int(768 * 0.85)
    assert room_for_prompt(context_of(tmp_path), 2048) == 0
    assert room_for_prompt(context_of(tmp_path / "missing"), 0) == int(4096 * ESTIMATE_SHARE)


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("name", ["type", "rope_type"])
def test_10_a_longrope_model_is_served_in_its_original_context(tmp_path, key, name):
    config = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
    (tmp_path / "config.json").write_text(json.dumps(config | {key: {name: "longrope"}}))
    assert context_of(tmp_path) == 4096
    (tmp_path / "config.json").write_text(json.dumps(config | {key: {name: "linear"}}))
    assert context_of(tmp_path) == 131072
