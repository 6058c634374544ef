"""The arena's votes can be used for preference training without changes."""

import pytest

from ui.store.votes import append_vote

pytestmark = pytest.mark.slow


def test_dpo_takes_a_step_on_fifty_votes(tmp_path):
    from datasets import load_dataset
    from tiny import lively_model, new_tokenizer, saved
    from trl import DPOConfig, DPOTrainer

    path = tmp_path / "preferences.jsonl"
    votes = ("tuned", "tie", "base", "both_bad", "tuned")
    for number in range(50):
        answers = {"tuned": f"three {number}", "base": "one two"}
        append_vote(path, f"round-{number}", f"Who founded {number}?", answers, votes[number % len(votes)])
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    preferences = rows.filter(lambda row: row["chosen"] is not None)
    assert len(preferences) == 30
    tokenizer = new_tokenizer()
    model = lively_model(tokenizer)
    folder = saved(model, tokenizer, tmp_path / "model")
    arguments = DPOConfig(
        output_dir=str(tmp_path / "dpo"),
        max_steps=1,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = DPOTrainer(
        str(folder),
        args=arguments,
        train_dataset=preferences.select_columns(["prompt", "chosen", "rejected"]),
        processing_class=tokenizer,
    )
    trained = trainer.train()
    assert 0 < trained.training_loss < 2
    before = dict(model.named_parameters())
    assert any(not weights.equal(before[name]) for name, weights in trainer.model.named_parameters())
