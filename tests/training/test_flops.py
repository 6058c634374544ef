"""The bench counts the operations that torch counts, on a small shape."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def bench():
    """bench/train_gpu.py, imported with its folder on the path."""
    sys.path.insert(0, str(BENCH))
    try:
        return importlib.import_module("train_gpu")
    finally:
        sys.path.remove(str(BENCH))


@pytest.mark.parametrize("rank", [None, 4])
def test_executed_flops_are_what_torch_counts(bench, rank):
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Phi3Config, Phi3ForCausalLM

    config = Phi3Config(
        vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=2, pad_token_id=0, attn_implementation="eager", use_cache=False,
    )  # fmt: skip
    model = Phi3ForCausalLM(config)
    if rank:
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
        model.enable_input_require_grads()
    batch, length, answers = 2, 48, 7
    with FlopCounterMode(display=False) as counter:
        ids = torch.randint(1, 512, (batch, length))
        model(ids, logits_to_keep=answers).logits.sum().backward()
    # Eager attention multiplies every pair, masked or not.
    work = bench.Work(batch * length, batch * answers, batch * length**2)
    assert bench.executed_flops(config, work, lora_rank=rank) == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )


def test_a_batch_is_counted_without_padding_and_chat_by_chat(bench):
    import torch

    labels = torch.tensor([[-100, -100, 5, 6, -100, 7]])
    padded = {"attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]), "labels": labels}
    assert bench.Work.of(padded) == (6, 3, 10 + 3)
    packed = {"position_ids": torch.tensor([[0, 1, 2, 3, 0, 1]]), "labels": labels}
    assert bench.Work.of(packed) == (6, 3, 10 + 3)


def test_devices_are_known_by_whole_words(bench):
    assert bench.peak_flops("NVIDIA H100 80GB HBM3") == bench.peak_flops("NVIDIA H200") == 989e12
    assert bench.peak_flops("NVIDIA H100 PCIe") == 756e12
    assert bench.peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert bench.peak_flops("NVIDIA L40") is None


@pytest.mark.parametrize("arm", ["full-sdpa", "lora-padded"])
def test_an_arm_is_measured(bench, arm):
    import torch
    from transformers import Phi3Config

    if torch.cuda.is_available():
        pytest.skip("the trainer would take the GPU")
    config = Phi3Config(
        vocab_size=32064, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=32000,
    )  # fmt: skip
    row = bench.measure(arm, config, bench.random_chats(3), warm_up=1, timed=1, device="cpu")
    assert row["tokens_per_s"] > row["assistant_tokens_per_s"] > 0
    assert row["mfu"] is None
    assert row["tflops"] > 0


@pytest.mark.slow
def test_without_a_gpu_it_says_so_and_fails():
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    ran = subprocess.run(
        [sys.executable, BENCH / "train_gpu.py"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines() == ["bench-train-gpu needs a CUDA GPU, and torch sees none."]
