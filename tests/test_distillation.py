"""Distillation losses: against values computed by hand, and what must not matter to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.nn import functional

from modtf import distillation
from modtf.distillation import attention_loss, hidden_loss, labels_loss, logits_loss

BATCH, LENGTH = 3, 5
KEEP = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()

Loss = Callable[[list[torch.Tensor], list[torch.Tensor], torch.Tensor], torch.Tensor]


def logits(seed: int) -> list[torch.Tensor]:
    return [torch.randn(BATCH, LENGTH, 11, generator=torch.Generator().manual_seed(seed))]


def states(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(BATCH, LENGTH, 8, generator=generator) * scale for scale in (0.1, 1, 30)]


def maps(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(BATCH, 2, LENGTH, 7, generator=generator).softmax(-1) for _ in range(3)]


def first(
    loss: Callable[..., torch.Tensor], student: list[torch.Tensor], teacher: list[torch.Tensor], keep: torch.Tensor
) -> torch.Tensor:
    return loss(student[0], teacher[0], keep)


CASES = [
    pytest.param(partial(first, logits_loss), logits, 1, id="logits"),
    pytest.param(partial(first, partial(logits_loss, temperature=3.0)), logits, 1, id="logits, warm"),
    pytest.param(hidden_loss, states, 1, id="hidden"),
    pytest.param(attention_loss, maps, 2, id="attention"),
]
cases = pytest.mark.parametrize(("loss", "make", "axis"), CASES)


@cases
def test_zero_for_equal_inputs_and_positive_otherwise(
    loss: Loss, make: Callable[[int], list[torch.Tensor]], axis: int
) -> None:
    assert loss(make(0), make(0), KEEP).item() == pytest.approx(0, abs=1e-6)
    assert loss(make(0), make(1), KEEP).item() > 0.01
    assert loss(make(0), make(1), KEEP).shape == ()


@cases
def test_masked_positions_do_not_matter(loss: Loss, make: Callable[[int], list[torch.Tensor]], axis: int) -> None:
    expected = loss(make(0), make(1), KEEP)
    student, teacher = make(0), make(1)
    for tensors, value in ((student, 1e3), (teacher, -77.0)):
        for tensor in tensors:
            tensor.transpose(1, axis)[~KEEP] = value
    assert torch.equal(loss(student, teacher, KEEP), expected)
    row = KEEP.clone()
    row[0] = False
    assert not torch.equal(loss(student, teacher, row), expected), "kept positions do"


@cases
def test_padding_a_batch_changes_nothing(loss: Loss, make: Callable[[int], list[torch.Tensor]], axis: int) -> None:
    student, teacher = make(0), make(1)
    longer = [[torch.cat([t, torch.full_like(t, 5.0)], dim=axis) for t in tensors] for tensors in (student, teacher)]
    keep = torch.cat([KEEP, torch.zeros_like(KEEP)], dim=1)
    torch.testing.assert_close(loss(*longer, keep), loss(student, teacher, KEEP))


@cases
def test_a_batch_twice_is_the_same_loss(loss: Loss, make: Callable[[int], list[torch.Tensor]], axis: int) -> None:
    twice = [[torch.cat([t, t]) for t in make(seed)] for seed in (0, 1)]
    torch.testing.assert_close(loss(*twice, torch.cat([KEEP, KEEP])), loss(make(0), make(1), KEEP))


@cases
def test_gradients_flow_to_the_student_only(loss: Loss, make: Callable[[int], list[torch.Tensor]], axis: int) -> None:
    student, teacher = [t.requires_grad_() for t in make(0)], make(1)  # the trainer runs the teacher without gradients
    loss(student, teacher, KEEP).backward()
    for s, t in zip(student, teacher, strict=True):
        assert s.grad is not None
        per_token = s.grad.transpose(1, axis).flatten(2).abs().sum(-1)
        assert (per_token[KEEP] > 0).all()
        assert (per_token[~KEEP] == 0).all()
        assert t.grad is None


@cases
def test_a_step_down_the_gradient_lowers_it(loss: Loss, make: Callable[[int], list[torch.Tensor]], axis: int) -> None:
    student, teacher = [t.requires_grad_() for t in make(0)], make(1)
    before = loss(student, teacher, KEEP)
    before.backward()
    with torch.no_grad():
        gradients = [s.grad for s in student if s.grad is not None]
        moved = [s - 0.1 * g / g.abs().max() for s, g in zip(student, gradients, strict=True)]
        after = loss(moved, teacher, KEEP)
    assert after < before


@pytest.mark.parametrize("loss", [hidden_loss, attention_loss])
def test_lists_of_different_length_are_an_error(loss: Loss) -> None:
    make = states if loss is hidden_loss else maps
    with pytest.raises(ValueError, match=r"longer|shorter"):
        loss(make(0)[:2], make(1), KEEP)


def test_logits_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2); the second token does not count."""
    teacher = torch.tensor([[[3.0, 1.0], [9.0, 1.0]]]).log()
    student = torch.tensor([[[1.0, 1.0], [1.0, 5.0]]]).log()
    keep = torch.tensor([[True, False]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert logits_loss(student, teacher, keep).item() == pytest.approx(expected, abs=1e-6)
    # the other direction would be: 1/2 ln(2/3) + 1/2 ln(2)
    assert logits_loss(teacher, student, keep).item() == pytest.approx(
        0.5 * math.log(2 / 3) + 0.5 * math.log(2), abs=1e-6
    )


def test_labels_by_hand() -> None:
    """Probabilities 1/2 and 1/4 of the right tokens: (ln 2 + ln 4) / 2; the third token does not count."""
    student = torch.tensor([[[1.0, 1.0, 2.0], [1.0, 2.0, 1.0], [9.0, 1.0, 1.0]]]).log()
    labels = torch.tensor([[2, 0, -100]])
    assert labels_loss(student, labels).item() == pytest.approx(1.5 * math.log(2))
    assert labels_loss(student.bfloat16(), labels).dtype == torch.float32


def test_temperature_by_hand() -> None:
    """At temperature 2 odds of 9 : 1 become 3 : 1, and the loss is multiplied by 4."""
    teacher, student = torch.tensor([[[9.0, 1.0]]]).log(), torch.tensor([[[1.0, 1.0]]]).log()
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert logits_loss(student, teacher, torch.tensor([[True]]), temperature=2).item() == pytest.approx(
        expected, abs=1e-6
    )


def test_logits_are_a_mean_over_tokens() -> None:
    student, teacher = logits(0)[0], logits(1)[0]
    each = [
        logits_loss(student[i : i + 1, j : j + 1], teacher[i : i + 1, j : j + 1], torch.tensor([[True]]))
        for i, j in KEEP.nonzero().tolist()
    ]
    torch.testing.assert_close(logits_loss(student, teacher, KEEP), torch.stack(each).mean())


def test_large_logits_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    (student, keep), teacher = (logits(0)[0], KEEP), logits(1)[0]
    student.requires_grad_(True)
    whole = logits_loss(student, teacher, keep, temperature=2.0)
    gradient = torch.autograd.grad(whole, student)[0]
    monkeypatch.setattr(distillation, "_PIECE", 2 * student.shape[-1] + 1)  # two tokens a piece
    calls: list[int] = []
    real = distillation.divergence
    monkeypatch.setattr(distillation, "divergence", lambda s, t, k: calls.append(len(s)) or real(s, t, k))
    pieces = logits_loss(student, teacher, keep, temperature=2.0)
    assert max(calls) == 2 and sum(calls) == int(keep.sum())
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces, student)[0], gradient)


def test_labels_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the pieces has no token that counts; the mean is over those of all others."""
    student = logits(0)[0].requires_grad_(True)
    labels = torch.zeros(KEEP.shape, dtype=torch.long).masked_fill(~KEEP, -100)
    labels.flatten()[2:4] = -100
    whole = functional.cross_entropy(student.flatten(0, 1), labels.flatten(), ignore_index=-100)
    monkeypatch.setattr(distillation, "_PIECE", 2 * student.shape[-1] + 1)  # two tokens a piece
    pieces = labels_loss(student, labels)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (pieces, whole)))


def test_hidden_by_hand() -> None:
    """First pair: differences 1 and 2, mean square 10 → 2.5 / 10. Second: 3 and 0, mean square 4.5 → 4.5 / 4.5."""
    teacher = [torch.tensor([[[2.0, 4.0]]]), torch.tensor([[[3.0, 0.0]]])]
    student = [torch.tensor([[[3.0, 2.0]]]), torch.tensor([[[0.0, 0.0]]])]
    assert hidden_loss(student, teacher, torch.tensor([[True]])).item() == pytest.approx((0.25 + 1) / 2)


def test_hidden_does_not_depend_on_scale() -> None:
    """T5's states grow a hundredfold from first to last layer: each counts as much as the others."""
    losses = [hidden_loss([s], [t], KEEP).item() for s, t in zip(states(0), states(1), strict=True)]
    scaled = [hidden_loss([1000 * s], [1000 * t], KEEP).item() for s, t in zip(states(0), states(1), strict=True)]
    assert losses == pytest.approx(scaled)
    assert hidden_loss(states(0), states(1), KEEP).item() == pytest.approx(sum(losses) / 3)


def test_attention_by_hand() -> None:
    """Squared differences, summed over the keys: (1/2)² + (1/2)² = 1/2 for the first query, 2 for the second."""
    teacher = [torch.tensor([[[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]]])]
    student = [torch.tensor([[[[0.5, 0.5], [0.0, 1.0], [0.3, 0.7]]]])]
    assert attention_loss(student, teacher, torch.tensor([[True, True, False]])).item() == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("loss", "make"), [(partial(first, logits_loss), logits), (hidden_loss, states), (attention_loss, maps)]
)
def test_half_precision_is_computed_in_float32(loss: Loss, make: Callable[[int], list[torch.Tensor]]) -> None:
    student, teacher = ([t.bfloat16() for t in make(seed)] for seed in (0, 1))
    value = loss(student, teacher, KEEP)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss([t.float() for t in student], [t.float() for t in teacher], KEEP))


def test_a_probability_of_zero_is_finite() -> None:
    student, teacher = maps(0), maps(1)
    student[0][0, 0, 0, 3] = 0.0
    assert attention_loss(student, teacher, KEEP).isfinite()
