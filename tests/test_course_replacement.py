"""Notebook 2: checks of its exercises, what is measured in a step, its figures and tables."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import modtf
from modtf.bundled import bundled
from modtf.course import replacement as course
from modtf.evaluation import measure_quality
from modtf.mapping import Assembly, Mapping, StackMapping
from modtf.tasks import E2E


def test_checks_accept_solutions() -> None:
    course.check_draw(course.draw)
    course.check_training_step(course.training_step)
    course.check_probability(course.probability)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda rng, p, depth, g: None, "gives nothing back yet"),
        (lambda rng, p, depth, g: (g,) * (depth // g) if rng.random() < p else (1,) * depth, "draw anew at each place"),
        (lambda rng, p, depth, g: course.draw(random.Random(), p, depth, g), "draw from `rng`"),
        (lambda rng, p, depth, g: course.draw(rng, p, depth, 1), "with p = 1 all is replaced"),
        (lambda rng, p, depth, g: course.draw(rng, p**2, depth, g), "three places in ten"),
    ],
)
def test_check_of_the_draw_names_the_fault(draw: Callable[..., Any], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        course.check_draw(draw)


def step_with(*parts: str) -> Callable[..., Any]:
    """A training step that does these things in this order."""

    def step(modular: Any, assembly: Any, batch: Any, optimizer: Any) -> Any:
        loss = None
        for part in parts:
            if part == "forward":
                loss = modular(assembly, **batch).loss
            elif part == "forward the original":
                loss = modular(**batch).loss
            elif part == "forward another":
                loss = modular(Assembly((2, 2), (2, 2)), **batch).loss
            elif part == "backward":
                loss.backward()
            elif part == "step":
                optimizer.step()
            elif part == "zero":
                optimizer.zero_grad()
            elif part == "number":
                return loss.item()
            elif part == "tensor":
                return loss
        return None

    return step


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((), "does nothing yet: the optimizer took no step"),
        (("forward", "backward", "number"), "^the optimizer took no step"),
        (("forward", "zero", "step"), "no gradients when the optimizer took its step"),
        (("forward", "backward", "step", "number"), r"not on the path, .* call optimizer.zero_grad\(\)"),
        (("zero", "forward the original", "backward", "step"), "does modular.* get the assembly"),
        (("zero", "forward another", "backward", "step"), "did another assembly run"),
        (("zero", "forward", "backward", "step", "step"), "more than one step"),
        (("zero", "forward", "backward", "step"), "gives nothing back: return loss.item"),
        (("zero", "forward", "backward", "step", "tensor"), "return loss.item.., a number"),
        (("zero", "forward", "backward", "step", "forward", "number"), "before the step; you return"),
    ],
)
def test_check_of_the_training_step_names_the_fault(parts: tuple[str, ...], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        course.check_training_step(step_with(*parts))


def test_zero_grad_may_come_last() -> None:
    def step(modular: Any, assembly: Any, batch: Any, optimizer: Any) -> float:
        loss = modular(assembly, **batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    course.check_training_step(step)


def test_check_of_the_probability_names_the_fault() -> None:
    with pytest.raises(AssertionError, match=r"so at step 50 it is 0\.75; yours is 0\.625"):
        course.check_probability(lambda step, steps, start, full_at: start + (1 - start) * step / steps)
    with pytest.raises(AssertionError, match="gives nothing back yet"):
        course.check_probability(lambda step, steps, start, full_at: None)
    with pytest.raises(AssertionError, match="differs from modtf's first at step 1"):
        course.check_probability(lambda step, steps, start, full_at: start + (1 - start) * min(1, 2 * step / steps))


@pytest.fixture(scope="module")
def measured() -> tuple[Any, course.MeasuredStep]:
    modular, batch = course._small_model()
    optimizer = torch.optim.AdamW([p for p in modular.parameters() if p.requires_grad], lr=1e-2)
    assembly = Assembly((1, 1, 2), (2, 1, 1))
    before = {name: p.detach().clone() for name, p in modular.named_parameters()}
    step = course.measure_step(course.training_step, modular, assembly, batch, optimizer, 7)
    # What was measured of the weights is what an independent look says.
    moved = {name for name, p in modular.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all(".banks.2.1." in name if "encoder" in name else ".banks.2.0." in name for name in moved)
    return modular, step


def test_a_step_is_measured(measured: tuple[Any, course.MeasuredStep]) -> None:
    modular, step = measured
    learned = {part for part, norm in step.weights.items() if norm is not None}
    assert learned == {"encoder m(2, 1)", "decoder m(2, 0)"}
    assert {part for part, distance in step.moved.items() if distance} == learned
    # In the encoder no module lies below its layers 0 and 1; in the decoder the gradient passes all the way.
    assert [norm is None for norm in step.states["encoder"]] == [True, True, False]
    assert all(norm and norm > 0 for norm in step.states["decoder"])
    parts = course.parts_of(modular)
    assert sum(p.numel() for group in parts.values() for p in group) == sum(p.numel() for p in modular.parameters())
    assert len(parts["position biases"]) == 2 and not any(p.requires_grad for p in parts["position biases"])
    assert not any(layer._forward_hooks for stack in modular.stacks for layer in stack.modules())


def test_the_states_gradients_are_those_of_autograd(measured: tuple[Any, course.MeasuredStep]) -> None:
    modular, batch = course._small_model()
    assembly = Assembly((1, 1, 2), (2, 1, 1))
    with modular.record(assembly) as (_, decoder):
        loss = modular(assembly, **batch).loss
    wanted = [gradient.norm().item() for gradient in torch.autograd.grad(loss, decoder.hidden)]
    assert measured[1].states["decoder"] == pytest.approx(wanted, rel=1e-4)


def test_who_learned(measured: tuple[Any, course.MeasuredStep]) -> None:
    table = course.who_learned(*measured).set_index("part")
    assert table.loc["modules on the path", "gradient"] != "none"
    others = table.drop("modules on the path")
    assert set(others.gradient) == {"none"} and set(others["moved by"]) == {"0"}


def test_challenge_of_the_sliders() -> None:
    def drawn(start: float, full_at: float) -> list[Assembly]:
        paths = []
        for step in range(200):
            rng = random.Random(f"training {step}")
            p = course.probability(step, 200, start, full_at)
            paths.append(Assembly(course.draw(rng, p, 12, 2), course.draw(rng, p, 12, 2)))
        return paths

    figure, words = course.schedule_map(drawn(0.3, 1.0))
    assert "solves the challenge" in words and len(figure.layout.meta["alt"].split()) >= 8
    assert "at least half are wanted" in course.schedule_map(drawn(0.5, 0.5))[1]
    assert "at least 60 % are wanted" in course.schedule_map(drawn(0.0, 1.0))[1]


def test_figures_and_tables(measured: tuple[Any, course.MeasuredStep]) -> None:
    stack = StackMapping(12, (2, 3, 4, 6))
    curve = [{"step": 0, "bleu": 9.0, "ser": 41.0}, {"step": 25, "bleu": 54.0, "ser": 26.0}]
    kept = course.bleu_kept("translator")
    damage = {"encoder": [0.3] * 6, "decoder": [0.4] * 6}
    figures = [course.damage_figure(damage, 0.29), course.step_figure(measured[1]), course.given_back(kept)]
    ablation = json.loads(bundled("ablation.json").read_text(encoding="utf-8"))
    figures += [course.two_schedules(Mapping(stack, stack), 40), course.learning_curve(curve, 200)]
    figures += [course.schedules_compared(ablation), course.schedule_map([Mapping(stack, stack).coarsest] * 4)[0]]
    for figure in figures:
        assert figure.layout.title.text
        assert len(figure.layout.meta["alt"].split()) >= 8 and figure.layout.width <= 900
    assert "a gradient comes to 1 of 3 states" in course.step_figure(measured[1]).layout.meta["alt"]
    assert set(course.budget().model) == {"translator", "pocket"}
    assert course.report_card().set_index(["model", "score"]).loc[("pocket", "BLEU"), "1x"] > 60
    rows = [{"ratio": 2.0, "layers": "6-6", "bleu": 78.0, "ser": 10.0}]
    assert course.sizes_in_between({"a": rows, "b": rows}).shape == (1, 4)
    assert "decoder" in course.two_schedules(Mapping(stack, stack), 40).layout.title.text


def test_sizes_are_compared_on_the_same_inputs() -> None:
    pocket = modtf.load("pocket")
    examples = E2E.bundled_examples("evaluation")[:6]
    full, small = course.measured_sizes(pocket, (1, 6), examples)
    assert (full["layers"], small["layers"]) == ("12-12", "2-2")
    wanted = measure_quality(pocket, pocket.choose(6), examples)
    assert (small["bleu"], small["ser"]) == pytest.approx((wanted["bleu"], wanted["ser"]), abs=0.01)
    assert full["bleu"] == pytest.approx(100)  # the references are what the original wrote
    assert course.minus(full, full) == "1x minus 1x: BLEU +0.0 (+0.0 to +0.0), SER +0.0 (+0.0 to +0.0)"
    bleu = re.search(r"6x minus 1x: BLEU (\S+) \((\S+) to (\S+)\)", course.minus(small, full))
    assert bleu is not None
    low, high = float(bleu[2]), float(bleu[3])
    assert low < float(bleu[1]) < high <= 0
    assert float(bleu[1]) == pytest.approx(small["bleu"] - full["bleu"], abs=0.06)
