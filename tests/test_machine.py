"""Settings that make training fast, in a process of their own, since malloc's hold for the whole process."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from modtf.training import machine

LARGE = """
import resource, torch
from modtf.training.machine import use_cpu_well
{settings}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.zeros(20_000_000).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="malloc of glibc")
def test_freed_memory_of_large_tensors_stays() -> None:
    def faults(settings: str) -> int:
        command = [sys.executable, "-c", LARGE.format(settings=settings)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)

    assert faults("use_cpu_well(1)") * 10 < faults("torch.set_num_threads(1)")


@pytest.mark.parametrize(("bf16", "float32", "expected"), [(1.0, 5.0, True), (5.0, 1.0, False), (0.9, 1.0, False)])
def test_bfloat16_where_it_is_clearly_faster(
    bf16: float, float32: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {torch.bfloat16: bf16, torch.float32: float32}
    monkeypatch.setattr(machine, "_seconds_of_product", seconds.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.fast_bf16.__wrapped__() is expected
