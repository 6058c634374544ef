"""What reaches the model, with the published Phi-3 tokenizer: ids, labels and positions, written out."""

from pathlib import Path

import pytest

from phi3flow.chats.chat import Chat
from training.data.encode import encode_chats, packed
from training.loop.trainer import PADDED_TO, LineCollator
from training.models.loading import load_tokenizer

PAD, NO = 32000, -100
LONG = Chat(
    (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who founded Microsoft?"},
        {"role": "assistant", "content": "Bill Gates and Paul Allen."},
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "1975."},
    )
)
SHORT = Chat(({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Bill Gates."}))
# fmt: off
LONG_IDS = [32006, 13, 3629, 11473, 29889, 32007, 13, 32010, 13, 22110, 11091, 7783, 29973, 32007, 13, 32001,
            29933, 453, 402, 1078, 322, 3739, 16092, 29889, 32007, 13, 32010, 13, 10401, 29973, 32007, 13,
            32001, 29896, 29929, 29955, 29945, 29889, 32007]
LONG_LABELS = [*[NO] * 16, 29933, 453, 402, 1078, 322, 3739, 16092, 29889, 32007, *[NO] * 8,
               29896, 29929, 29955, 29945, 29889, 32007]
SHORT_IDS = [32010, 13, 22110, 29973, 32007, 13, 32001, 29933, 453, 402, 1078, 29889, 32007]
SHORT_LABELS = [*[NO] * 7, 29933, 453, 402, 1078, 29889, 32007]
# fmt: on


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(Path(__file__).parents[1] / "data" / "phi3_tokenizer"))


def test_padding_stands_on_the_right_and_bears_no_loss(tokenizer):
    rows = encode_chats(tokenizer, [SHORT, LONG], 64, "refuse").rows
    batch = LineCollator(tokenizer.pad_token_id, pad_to_multiple_of=PADDED_TO)([rows[0], rows[1]])
    assert batch["input_ids"].tolist() == [SHORT_IDS + [PAD] * 27, [*LONG_IDS, PAD]]
    assert batch["labels"].tolist() == [SHORT_LABELS + [NO] * 27, [*LONG_LABELS, NO]]
    assert batch["attention_mask"].sum(1).tolist() == [len(SHORT_IDS), len(LONG_IDS)]


def test_packed_chats_keep_their_labels_and_start_counting_anew(tokenizer):
    rows = packed(encode_chats(tokenizer, [SHORT, LONG], 64, "refuse").rows, 64)
    batch = LineCollator(tokenizer.pad_token_id, padding_free=True)([rows[0]])
    assert batch["input_ids"].tolist() == [LONG_IDS + SHORT_IDS]
    assert batch["labels"].tolist() == [LONG_LABELS + SHORT_LABELS]
    assert batch["position_ids"].tolist() == [[*range(len(LONG_IDS)), *range(len(SHORT_IDS))]]
    assert "attention_mask" not in batch
