"""What trainings compute, beside what torch counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_plan import EXAMPLES, arguments, kit
from torch.utils.flop_counter import FlopCounterMode

import modtf
from modtf.architectures import set_attention
from modtf.tasks import TEXT
from modtf.tasks.batches import TaskBatches
from modtf.training.cost import step_operations, step_passes, training_operations

HALF = (2, 2, 2)


@pytest.mark.parametrize(
    ("encoder", "decoder", "passes", "with_teacher"),
    [
        (HALF, HALF, (8, 9), (14, 15)),  # forward, back through all but the first, weights of all
        ((6,), (6,), (2, 3), (8, 9)),
        ((1,) * 6, (1, 1, 1, 3), (6, 5), (12, 11)),  # nothing runs after the only module
        ((1, 1, 2, 1, 1), (1,) * 6, (8, 12), (14, 18)),  # its gradient comes through the whole decoder
        ((1,) * 6, (1,) * 6, (6, 6), (12, 12)),  # nothing learns
    ],
)
def test_passes_of_a_step(encoder: Any, decoder: Any, passes: Any, with_teacher: Any) -> None:
    assembly = modtf.Assembly(encoder, decoder)
    assert step_passes(assembly) == passes
    assert step_passes(assembly, teacher=True) == with_teacher


@pytest.mark.parametrize("teacher", [False, True])
def test_operations_are_those_that_torch_counts(
    family: str, teacher: bool, make_modular: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """But for what attention computes besides its weights, a share that is about the same for all sizes."""
    modular = kit(make_modular, tokenizer, family)
    set_attention(modular.model, "eager")  # as matrix products, which the counter knows
    options: dict[str, Any] = {} if teacher else {"labels_weight": 1.0, "logits_weight": 0.0, "hidden_weight": 0.0}
    args, batch = arguments(tmp_path, **options), torch.ones(8, 12, dtype=torch.long)
    mixed = modtf.Assembly((1, 1, 2, 1, 1), (1,) * 6), modtf.Assembly((1,) * 6, (1, 1, 2, 2))
    shares = []
    for drawn in ([modular.choose(2)], [modular.choose(3)], *([one] for one in mixed), list(mixed)):
        with FlopCounterMode(display=False) as counter:
            if teacher:
                modular(modular.mapping.original, input_ids=batch, labels=batch)
            for assembly in drawn:
                modular(assembly, input_ids=batch, labels=batch).loss.backward()
        shares.append(step_operations(modular, args, drawn, [(48, 48), (48, 48)]) / counter.get_total_flops())
    assert min(shares) > 0.75 and max(shares) <= 1.02
    assert max(shares) < 1.06 * min(shares)


def test_operations_are_two_for_each_weight_and_token(make_modular: Any, tokenizer: Any, tmp_path: Path) -> None:
    modular = kit(make_modular, tokenizer)
    encoder, decoder = (sum(p.numel() for p in stack.originals[0].parameters()) for stack in modular.stacks)
    head = modular.model.get_input_embeddings().weight.numel()
    taught, alone = arguments(tmp_path), arguments(tmp_path, labels_weight=1.0, logits_weight=0.0, hidden_weight=0.0)
    one = modtf.Assembly(HALF, HALF)  # 8 and 9 passes, with a teacher 14 and 15
    sources, texts = 10, 7
    assert step_operations(modular, alone, [one], [(6, 4), (4, 3)]) == 2 * (
        sources * encoder * 8 + texts * (decoder * 9 + head * 2)
    )
    assert step_operations(modular, taught, [one, one], [(10, 7)]) == 2 * (
        sources * encoder * (14 + 8) + texts * (decoder * (15 + 9) + head * (3 + 2))
    ), "one teacher for both"


def test_a_training_is_the_sum_of_its_steps(
    make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modular = kit(make_modular, tokenizer)
    args = arguments(tmp_path, max_steps=40, gradient_accumulation_steps=2, assemblies_per_step=2)
    batches = TaskBatches(TEXT, EXAMPLES, modular.tokenizer, 80, 4)
    schedule = args.schedule(modular.mapping, 40)
    each = [
        step_operations(modular, args, schedule.draw_several(n, 2), batches.shapes[2 * n : 2 * n + 2])
        for n in range(40)
    ]
    assert training_operations(modular, args, batches) == pytest.approx(sum(each))
    monkeypatch.setattr("modtf.training.cost.LOOKED_AT", 10)
    assert training_operations(modular, args, batches) == pytest.approx(4 * sum(each[::4]))
