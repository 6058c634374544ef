"""Projecting only answers changes neither the loss nor its gradients, padded or packed."""

from dataclasses import replace

import pytest
from torch.nn.functional import cross_entropy

from phi3flow.chats.rows import load_chats
from phi3flow.core.jsonl import write_jsonl
from training.loop.material import encode
from training.loop.start import Run, starting_model, starting_tokenizer
from training.loop.trainers import make_trainer
from training.recipes.recipe import Lora, Recipe, Scratch

SHAPE = Scratch(vocab_size=400, hidden_size=32, intermediate_size=64, layers=2, heads=2, context=128)
PADDED = Recipe(steps=1, batch_size=4, learning_rate=1e-2, scratch=SHAPE, max_length=128, precision="fp32")
RECIPES = {
    "padded": PADDED,
    "packed": replace(PADDED, packing=True, batch_size=1),
    "checkpointed": replace(PADDED, gradient_checkpointing=True),
    "adapters": replace(PADDED, lora=Lora(rank=2)),
}


def chats(count):
    """Chats of different lengths; every other one has two turns."""
    rows = []
    for i in range(count):
        question = {"role": "user", "content": f"What comes after {i}" + " please" * i + "?"}
        rows.append([question, {"role": "assistant", "content": f"After {i} comes {i + 1}."}] * (1 + i % 2))
    return [{"messages": messages} for messages in rows]


@pytest.fixture(params=RECIPES, ids=str)
def trainer(request, tmp_path):
    write_jsonl(tmp_path / "train.jsonl", chats(4))
    loaded = load_chats(tmp_path / "train.jsonl")
    run = Run(tmp_path, RECIPES[request.param], tmp_path, "tiny", None, 0)
    tokenizer = starting_tokenizer(run, loaded)
    rows = encode(run, tokenizer, loaded).rows
    made = make_trainer(run, starting_model(run, tokenizer), tokenizer, rows, rows)
    made.model.eval()  # no dropout: both must see the same
    return made


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_loss_and_gradients_equal_those_of_the_full_logits(trainer):
    model = trainer.model
    batch = next(iter(trainer.get_train_dataloader()))
    batch.pop("line", None)
    labels = batch["labels"]
    count = (labels[:, 1:] != -100).sum()
    ours = trainer.compute_loss(model, dict(batch), num_items_in_batch=count)
    mine = gradients(model, ours)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    logits = model(**inputs, use_cache=False).logits
    plain = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    expected = gradients(model, plain)
    assert abs(ours.item() - plain.item()) < 1e-5
    assert mine.keys() == expected.keys()
    assert all((mine[name] - expected[name]).abs().max() < 1e-5 for name in mine)
    assert trainer.compute_loss(model, dict(batch)).item() == pytest.approx(ours.item(), abs=1e-6)


def test_the_head_projects_everything_again_afterwards(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    batch.pop("line", None)
    trainer.compute_loss(trainer.model, dict(batch))
    ids = batch["input_ids"]
    assert trainer.model(ids, use_cache=False).logits.shape[:2] == ids.shape
