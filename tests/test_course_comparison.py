"""Notebook 6: its checks name the fault, its numbers are those of the comparison, its figures can be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from modtf.course import comparison as course
from modtf.mapping import Assembly


def without_way_back(assembly: Assembly, teacher: bool = False) -> int:
    path = assembly.encoder + assembly.decoder
    return len(path) + 2 * sum(g > 1 for g in path) + (sum(path) if teacher else 0)


def without_teacher(assembly: Assembly, teacher: bool = False) -> int:
    return course.step_cost(assembly)


def averaged(kit: np.ndarray, student: np.ndarray, slots: np.ndarray, draws: np.ndarray) -> np.ndarray:
    return np.percentile((100 * (kit - student) / slots)[draws].mean(1), [2.5, 97.5])


def unpaired(kit: np.ndarray, student: np.ndarray, slots: np.ndarray, draws: np.ndarray) -> np.ndarray:
    ours, theirs = (
        100 * errors[rows].sum(1) / slots[rows].sum(1) for errors, rows in ((kit, draws), (student, draws[::-1]))
    )
    return np.percentile(ours - theirs, [2.5, 97.5])


def other_way_round(kit: np.ndarray, student: np.ndarray, slots: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    return course.kit_less_student(student, kit, slots, draws)


def on_a_straight_scale(kit_cost: float, kit_score: float, costs: Any, scores: Any) -> int | None:
    if scores[-1] < kit_score:
        return None
    return int(kit_cost // np.interp(kit_score, scores, costs)) + 1


def level_counts(kit_cost: float, kit_score: float, costs: Any, scores: Any) -> int | None:
    found = course.break_even(kit_cost - 1, kit_score, costs, scores)
    return None if scores[-1] < kit_score else found


CHECKS: list[tuple[Callable[[Any], None], Any, list[tuple[Any, str]]]] = [
    (
        course.check_step_cost,
        course.step_cost,
        [(without_way_back, "1 back through"), (without_teacher, "with a teacher"), (lambda a, teacher=False: None, "nothing back")],
    ),
    (
        course.check_kit_less_student,
        course.kit_less_student,
        [(averaged, "averages the rates"), (unpaired, "the same sample"), (other_way_round, "the other way round")],
    ),
    (
        course.check_break_even,
        course.break_even,
        [(on_a_straight_scale, "logarithmic"), (level_counts, "from five on"), (lambda *_: 5, "three are cheaper")],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("check", "solution", "faults"), CHECKS, ids=["step_cost", "kit_less_student", "break_even"])
def test_checks_name_the_fault(check: Callable[[Any], None], solution: Any, faults: list[tuple[Any, str]]) -> None:
    check(solution)
    for function, words in faults:
        with pytest.raises(AssertionError, match=words):
            check(function)


def test_a_budget_buys_fewer_steps_of_a_larger_model() -> None:
    small, large = Assembly((6, 6), (6, 6)), Assembly((2,) * 6, (2,) * 6)
    budget = course.budget_of([small, large] * 10)
    assert course.steps_for(budget, large) < 20 < course.steps_for(budget, small)
    assert course.steps_for(course.budget_of([small] * 7), small) == 7


@pytest.mark.parametrize("model", list(course.TELLING))
def test_figures_have_titles_and_words(model: str) -> None:
    comparison = course.measured(model)
    mine = [{"who": who, "size": "6x", "tflop": 1.0, "bleu": 30.0, "ser": 20.0} for who in ("kit", "student")]
    figures = [course.curves(comparison, "title", "some words about it", mine)]
    for size in comparison["sizes"]:
        for account in course.ACCOUNTS:
            figure, words = course.against_the_kit(model, size, account)
            assert isinstance(figure, go.Figure) and "clearly ahead" in words
            figures.append(figure)
    if model == "translator":
        figures.append(course.two_accounts(comparison))
    for figure in figures:
        assert figure.layout.title.text and figure.layout.meta["alt"] and figure.layout.width <= 900
    assert {"your kit", "your student"} <= {trace.name for trace in figures[0].data}


def test_the_challenge_can_be_met_and_is_not_met_at_first() -> None:
    assert "✓" not in course.against_the_kit("translator", "2x", "equal_total")[1]
    assert "✓" in course.against_the_kit("translator", "6x", "equal_total")[1]


def test_advice_has_evidence_for_every_wish() -> None:
    for _, budget in course.choices():
        for stays in (False, True):
            answers = [course.advice(sizes, stays, budget) for sizes in course.WISHES]
            assert all(evidence for _, evidence in answers)
            assert [answer == "a kit" for answer, _ in answers] == [False, False, stays, stays]
    assert "✓" in course.show_advice("five or more", False, budget)
    assert "✓" not in course.show_advice("five or more", True, budget)
    assert "the original must stay: a kit" in course.rule()
