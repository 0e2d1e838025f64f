"""Settings that make training fast on this machine."""

from __future__ import annotations

import pytest
import torch

from modtf.training import machine


@pytest.mark.parametrize(("bf16", "float32", "expected"), [(1.0, 5.0, True), (5.0, 1.0, False), (0.9, 1.0, False)])
def test_bfloat16_where_it_is_clearly_faster(
    bf16: float, float32: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {torch.bfloat16: bf16, torch.float32: float32}
    monkeypatch.setattr(machine, "_seconds_of_product", seconds.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.fast_bf16.__wrapped__() is expected
