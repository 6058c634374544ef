"""What an engine may take, and the one sentence for a GPU that cannot serve."""

from pathlib import Path

import pytest
import requests
import torch
from tiny import KEY, SECONDS, listening, lively_model, new_tokenizer

from deploy.scoring.engine import Memory
from deploy.scoring.engines.gpu import has_usable_gpu, require_bf16, require_room
from deploy.scoring.engines.memory import cache_tokens, explaining_full_memory
from deploy.scoring.engines.transformers_engine import TransformersEngine
from deploy.scoring.http.service import Service
from phi3flow.core.errors import BadInput

PHI3_TOKEN = 2 * 2 * 32 * 32 * 96  # bytes of keys and values in bf16
FOLDER = Path("runs/my run/tuned")
ON_CPU = "CUDA_VISIBLE_DEVICES= phi3flow serve 'runs/my run/tuned'"


def refusal(call, *args, **kwargs):
    with pytest.raises(BadInput) as caught:
        call(*args, **kwargs)
    return str(caught.value), caught.value.hint


def test_a_third_of_a_gpus_free_memory_holds_keys_and_values():
    assert cache_tokens(PHI3_TOKEN, 4096, 64, free=72_000_000_000) == 24_000_000_000 // PHI3_TOKEN
    assert cache_tokens(PHI3_TOKEN, 4096, 64, free=3_000_000_000) == 4096  # one whole answer at least
    assert cache_tokens(PHI3_TOKEN, 4096, 4, free=72_000_000_000) == 4 * 4096  # and no more than can be used


def test_four_gigabytes_on_a_cpu_or_what_was_asked_for():
    assert cache_tokens(2 * PHI3_TOKEN, 4096, 32) == (4 << 30) // (2 * PHI3_TOKEN)
    assert cache_tokens(PHI3_TOKEN, 4096, 64, wanted=8 * 10**9) == 8 * 10**9 // PHI3_TOKEN


def test_a_cache_too_small_for_one_answer_names_the_option_and_what_suffices():
    message, hint = refusal(cache_tokens, PHI3_TOKEN, 4096, 64, wanted=10**9, free=10**11)
    assert message == "--cache-gb 1: one answer of 4,096 tokens takes 1.6 GB of keys and values"
    assert hint == "--cache-gb 1.7"
    assert cache_tokens(PHI3_TOKEN, 4096, 64, wanted=int(1.7e9), free=10**11) >= 4096


def test_a_cache_beyond_the_free_memory_names_what_fits():
    message, hint = refusal(cache_tokens, PHI3_TOKEN, 4096, 64, wanted=60 * 10**9, free=12_340_000_000)
    assert message.startswith("--cache-gb 60: ")
    assert message.endswith("and 12.3 GB are free beside the weights")
    assert hint == "at most --cache-gb 12.3"
    message, hint = refusal(cache_tokens, PHI3_TOKEN, 4096, 64, free=10**9)
    assert message.startswith("one answer of 4,096 tokens takes 1.6 GB")
    assert "nvidia-smi" in hint


def test_running_out_of_memory_at_the_start_names_a_cache_that_leaves_room():
    def start(cache, least):
        with explaining_full_memory(cache, least):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    message, hint = refusal(start, 60 * 10**9, 16 * 10**8)
    assert "60.0 GB of keys and values" in message
    assert hint == "--cache-gb 1.6"
    assert "nvidia-smi" in refusal(start, 16 * 10**8, 16 * 10**8)[1]


def test_a_gpu_without_bf16_is_named_with_the_command_for_the_cpu():
    message, hint = refusal(require_bf16, False, "Tesla T4", (7, 5), FOLDER)
    assert message.startswith("Tesla T4 (compute capability 7.5) has no bf16")
    assert hint.endswith(ON_CPU)
    require_bf16(True, "NVIDIA H100", (9, 0), FOLDER)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_driver_too_old_for_torchs_cuda_is_an_error_and_the_cpu_serves_if_asked(monkeypatch):
    def fail():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update")

    monkeypatch.setattr(torch.cuda, "init", fail)
    message, hint = refusal(has_usable_gpu, FOLDER)
    assert message.startswith("torch cannot use the GPU: The NVIDIA driver on your system is too old (found ")
    assert hint.endswith(ON_CPU)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not has_usable_gpu(FOLDER)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_cpu_serves():
    assert not has_usable_gpu(FOLDER)


def test_weights_that_do_not_fit_say_how_much_is_free():
    message, _ = refusal(require_room, 7_600_000_000, 5_000_000_000, 8_000_000_000, FOLDER)
    assert message == f"{FOLDER}: its weights take 7.6 GB, and 5.0 GB of the GPU's 8.0 GB are free"


def test_what_an_engine_takes_is_one_line():
    memory = Memory(weights=7_642_000_000, cache=24_000_000_000, work=1_234_000_000, tokens=61_035)
    assert str(memory) == (
        "32.9 GB: 7.6 GB of weights, 24.0 GB of keys and values (at most 61,035 tokens), 1.2 GB to work in"
    )


def test_the_endpoint_says_what_its_engine_takes():
    tokenizer = new_tokenizer()
    engine = TransformersEngine(lively_model(tokenizer), tokenizer, cache_bytes=40_000_000)
    service = Service("tiny")
    service.ready(engine)
    with listening(service) as url:
        told = requests.get(
            f"{url}/metrics", headers={"Authorization": f"Bearer {KEY}"}, timeout=SECONDS
        ).text
    lines = dict(line.rsplit(" ", 1) for line in told.splitlines() if not line.startswith("#"))
    token = 2 * 4 * 2 * 2 * 16  # keys and values in fp32, 2 layers, 2 heads of 16
    assert float(lines["phi3flow_cache_tokens"]) == engine.memory.tokens == 40_000_000 // token
    assert float(lines['phi3flow_memory_bytes{use="cache"}']) == 40_000_000 // token * token
    weights = sum(part.nbytes for part in engine._model.parameters())
    assert float(lines['phi3flow_memory_bytes{use="weights"}']) == pytest.approx(weights, rel=0.01)
