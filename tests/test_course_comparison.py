"""Notebook 6: its checks name the fault, its numbers are those of the comparison, its figures can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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


def averaged(student: np.ndarray, kit: np.ndarray, slots: np.ndarray, draws: np.ndarray) -> np.ndarray:
    return np.percentile((100 * (student - kit) / slots)[draws].mean(1), [2.5, 97.5])


def unpaired(student: np.ndarray, kit: np.ndarray, slots: np.ndarray, draws: np.ndarray) -> np.ndarray:
    theirs, ours = (
        100 * errors[rows].sum(1) / slots[rows].sum(1) for errors, rows in ((student, draws), (kit, draws[::-1]))
    )
    return np.percentile(theirs - ours, [2.5, 97.5])


def other_way_round(student: np.ndarray, kit: np.ndarray, slots: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    return course.student_minus_kit(kit, student, slots, draws)


def as_a_share(student: np.ndarray, kit: np.ndarray, slots: np.ndarray, draws: np.ndarray) -> np.ndarray:
    return np.array(course.student_minus_kit(student, kit, slots, draws)) / 100


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
        course.check_student_minus_kit,
        course.student_minus_kit,
        [(averaged, "averages the rates"), (unpaired, "the same sample"), (other_way_round, "the other way round"), (as_a_share, "a share")],
    ),
    (
        course.check_break_even,
        course.break_even,
        [(on_a_straight_scale, "logarithmic"), (level_counts, "from five on"), (lambda *_: 5, "three are cheaper")],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("check", "solution", "faults"), CHECKS, ids=["step_cost", "student_minus_kit", "break_even"])
def test_checks_name_the_fault(check: Callable[[Any], None], solution: Any, faults: list[tuple[Any, str]]) -> None:
    check(solution)
    for function, words in faults:
        with pytest.raises(AssertionError, match=words):
            check(function)


def test_the_example_of_the_exercise_is_right() -> None:
    example = Assembly((1, 1, 2, 2), (1, 1, 1, 3))
    assert (course.step_cost(example), course.step_cost(example, teacher=True)) == (16, 28)


def test_a_difference_is_student_minus_kit() -> None:
    comparison = course.measured("translator")
    row = course.row_of(comparison, "SFT", "6x", course.budgets(comparison)[-2])
    made, (low, high) = course.minus_kit(row, "equal_each")
    kit = course.row_of(comparison, "kit", "6x", row["cost"])
    assert made == pytest.approx(row["mean"]["bleu"] - kit["mean"]["bleu"], abs=0.01)
    assert 0 < low < made < high


def test_verdicts_follow_the_sign() -> None:
    assert [course.verdict(*ends) for ends in ((-2, -1), (1, 2), (-1, 1))] == [
        "the student makes fewer",
        "the kit makes fewer",
        "no difference is shown",
    ]


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
            assert (
                isinstance(figure, go.Figure)
                and "clearly ahead" in words
                and "clearly ahead" in figure.layout.meta["alt"]
            )
            figures.append(figure)
    if model == "translator":
        figures.append(course.two_accounts(comparison))
    for figure in figures:
        assert figure.layout.title.text and figure.layout.meta["alt"] and figure.layout.width <= 900
    assert {"your kit", "your student"} <= {trace.name for trace in figures[0].data}


@pytest.mark.parametrize("model", list(course.TELLING))
def test_curves_show_the_best_student_of_each_cost_and_a_band_to_the_worst(model: str) -> None:
    comparison = course.measured(model)
    metric = course.metric_of(comparison)
    figure = course.curves(comparison, "title", "some words about it")
    bests = [trace for trace in figure.data if str(trace.name).startswith("best student")]
    worsts = [trace for trace in figure.data if trace.line.width == 0]
    assert len(bests) == len(worsts) == len(comparison["sizes"])
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == [bests[0].name, "LayerDrop", "kit"]
    for size, best, worst in zip(comparison["sizes"], bests, worsts, strict=True):
        students = {
            (row["method"], course.tera(comparison, row["total"])): row["test"][metric.key]
            for row in comparison["rows"]
            if row["size"] == size and row["seed"] == 0 and row["method"] not in ("kit", "LayerDrop", "untrained")
        }
        assert tuple(best.x) == tuple(worst.x) == tuple(sorted({cost for _, cost in students}))
        cost = best.x[-1]  # one seed
        of_cost = sorted((score for (_, at), score in students.items() if at == cost), reverse=not metric.errors)
        assert [best.customdata[-1], worst.y[-1]] == pytest.approx([of_cost[0], max(of_cost[-1], 0.02)])
        assert students[best.text[-1], cost] == pytest.approx(of_cost[0])


def test_what_the_notebook_says_about_the_best_student_holds() -> None:
    comparison = course.measured("translator")
    short, middle, long = (course.tera(comparison, cost) for cost in course.budgets(comparison))
    lead = {}
    for size in comparison["sizes"]:
        scores = course.scores_of(comparison, size)
        ends = course.best_and_worst(scores, course.metric_of(comparison))
        lead |= {(size, cost): ends[cost][0][0] - scores["kit"][cost] for cost in (short, middle, long)}
        trained = "SFT, all weights" in scores and long in scores["SFT, all weights"]
        assert (ends[long][0][1] == "SFT, all weights") == trained
        if size in ("6x", "fast"):
            assert lead[size, short] < -6 and scores["LayerDrop"][short] > scores["kit"][short]
    assert all(abs(lead[size, middle]) < 1.5 for size in comparison["sizes"])
    assert all(0.5 < lead[size, long] < 5.5 for size in comparison["sizes"])


@pytest.mark.parametrize("account", list(course.ACCOUNTS))
@pytest.mark.parametrize("size", ["2x", "3x", "6x", "fast"])
@pytest.mark.parametrize("model", list(course.TELLING))
def test_students_can_be_told_apart_and_what_is_cut_has_an_arrow(model: str, size: str, account: str) -> None:
    figure, _ = course.against_the_kit(model, size, account)
    axes = {
        f"x{number or ''}": figure.layout[f"xaxis{number or ''}"].range
        for number in (0, 2, 3, 4)[: len(figure._grid_ref[0])]
    }
    assert "student better" in figure.layout.annotations[-1].text
    bars = [trace for trace in figure.data if trace.error_x.array]
    arrows = {(trace.xaxis, trace.y[0], trace.marker.symbol) for trace in figure.data if not trace.error_x.array}
    assert len(bars) + len(arrows) == len(figure.data)
    for trace in bars:
        left, right = axes[trace.xaxis]
        (x,), low, high = trace.x, trace.x[0] - trace.error_x.arrayminus[0], trace.x[0] + trace.error_x.array[0]
        assert left < 0 < right and (left < x < right or trace.name == "LayerDrop")
        for symbol, beyond in (("triangle-left", low < left), ("triangle-right", high > right)):
            assert ((trace.xaxis, trace.y[0], symbol) in arrows) == beyond
    for axis, (left, right) in axes.items():
        shortest = min(
            trace.error_x.array[0] + trace.error_x.arrayminus[0]
            for trace in bars
            if trace.xaxis == axis and trace.name != "LayerDrop"
        )
        assert shortest > 0.07 * (right - left), "all are points"


def test_the_challenge_is_met_where_its_answer_says() -> None:
    places = [
        (model, size, account)
        for model in course.TELLING
        for size in ("2x", "3x", "6x", "fast")
        for account in course.ACCOUNTS
        if "✓" in course.against_the_kit(model, size, account)[1]
    ]
    assert places == [
        ("translator", "6x", "equal_total"),
        ("translator", "fast", "equal_total"),
        ("pocket", "2x", "equal_total"),
    ]


def test_who_is_ahead_has_numbers_and_names() -> None:
    assert course.who_is_ahead(course.measured("pocket"), "equal_each").endswith(
        "of 17 pairs of method and size 5 clearly better than the kit (KD at 3x; sequence-level KD at 2x, 3x, 6x, fast), "
        "1 clearly worse than the kit (Theseus at 2x)"
    )
    assert "0 clearly worse than the kit" in course.who_is_ahead(course.measured("translator"), "equal_total")


def test_the_picture_of_the_rule_names_its_checkbox() -> None:
    stored = (Path(__file__).parents[1] / "notebooks" / "6_one_kit_or_students.ipynb").read_text(encoding="utf-8")
    assert "the original must stay as it is = yes" in stored
    assert "\u200b" not in stored and "\\u200b" not in stored


def test_the_range_of_the_break_even_is_what_the_notebook_says() -> None:
    ranges = [course.range_of_break_even(budget) for _, budget in course.choices()]
    assert ranges == [(2, 5, False), (3, 5, True), (5, 9, True)]
    written = (Path(__file__).parents[1] / "notebooks" / "6_one_kit_or_students.py").read_text(encoding="utf-8")
    assert written.count("from 2 to 9") + written.count("From 2 to 9") == 2 == written.count("from 5 to 9")
    assert "4 were too few and 9 enough" in written


def test_advice_has_evidence_for_every_wish() -> None:
    for _, budget in course.choices():
        level = course.range_of_break_even(budget) == (3, 5, True)  # there five are enough in all cases
        for stays in (False, True):
            answers = [course.advice(sizes, stays, budget) for sizes in course.WISHES]
            assert all(evidence for _, evidence in answers)
            assert [answer == "a kit" for answer, _ in answers] == [False, False, stays and level, stays, stays]
    assert "✓" in course.show_advice("ten or more", False, budget)
    assert "✓" in course.show_advice("five to nine", True, budget)
    assert "✓" not in course.show_advice("ten or more", True, budget)
    assert "or more in its worst" in course.show_advice("ten or more", True, course.choices()[0][1])


def test_the_rule_prints_each_line_once() -> None:
    lines = course.rule().splitlines()
    assert len(lines) == len(set(lines)) and "ten or more sizes, the original must stay: a kit" in lines
    assert sum("is cheaper than students" in line for line in lines) == 1
