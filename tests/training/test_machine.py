"""A GPU that is there and that torch cannot use."""

import pytest
import torch

from phi3flow.core.errors import BadInput
from training.estimate.machine import this_machine

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's GPU can be used")
TOLD = "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver"


def torch_says(monkeypatch, told):
    def fail():
        raise RuntimeError(told)

    monkeypatch.setattr(torch.cuda, "init", fail)


def test_a_driver_too_old_for_torchs_cuda_is_not_a_machine_without_a_gpu(monkeypatch):
    torch_says(monkeypatch, TOLD)
    with pytest.raises(BadInput) as caught:
        this_machine()
    assert str(caught.value) == f"torch cannot use the GPU: {TOLD.partition('. ')[0]}"
    assert "CUDA_VISIBLE_DEVICES= before the command" in caught.value.hint


def test_told_to_take_the_cpu_it_does(monkeypatch):
    torch_says(monkeypatch, TOLD)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not this_machine().gpu


def test_without_a_driver_the_cpu_trains(monkeypatch):
    torch_says(monkeypatch, "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU")
    assert not this_machine().gpu
