"""Notebook 5's room: the checks of its exercises know solutions from faults, and its figures say what they show."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modtf.bundled import bundled
from modtf.course import quality as course
from modtf.tasks.e2e import check, parse_mr
from modtf.tasks.e2e.scores import slot_error_rate

MR = parse_mr("name[The Mill], eatType[pub], food[Japanese], priceRange[moderate], familyFriendly[yes]")
TEXT = "The Mill is a pub that serves Japanese food. It is kid friendly and has a moderate price range."


def of_each_text(reports: Any) -> float:
    return sum(course.slot_error_rate([report]) for report in reports) / len(reports)


def without_repeats(reports: Any) -> float:
    errors = sum(len(r.missed) + len(r.wrong) + len(r.added) for r in reports)
    return 100 * errors / sum(len(r.said) + len(r.missed) + len(r.wrong) for r in reports)


def not_paired(candidate: Any, baseline: Any, slots: Any, inputs: int, rng: Any) -> Any:
    one, other = (rng.integers(len(slots), size=(2000, inputs)) for _ in range(2))
    return 100 * (candidate[one].sum(1) / slots[one].sum(1) - baseline[other].sum(1) / slots[other].sum(1))


def not_drawn(candidate: Any, baseline: Any, slots: Any, inputs: int, rng: Any) -> Any:
    return np.full(2000, 100 * (candidate.sum() - baseline.sum()) / slots.sum())


def mean_of_rates(candidate: Any, baseline: Any, slots: Any, inputs: int, rng: Any) -> Any:
    drawn = rng.integers(len(slots), size=(2000, inputs))
    return 100 * ((candidate - baseline)[drawn] / slots[drawn]).mean(1)


def always_all(candidate: Any, baseline: Any, slots: Any, inputs: int, rng: Any) -> Any:
    return course.bootstrap(candidate, baseline, slots, len(slots), rng)


def timed(run: Any, repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begun))
    return times


def with_the_warm_up(run: Any, repeats: int) -> float:
    return statistics.median(timed(run, repeats + 1))


def mean_ms(run: Any, repeats: int) -> float:
    return sum(timed(run, repeats + 1)[1:]) / repeats


FAULTS: list[tuple[Callable[[Any], None], Any, str]] = [
    (course.check_ser, lambda reports: None, "nothing back yet"),
    (course.check_ser, of_each_text, "add up first"),
    (course.check_ser, without_repeats, "four errors"),
    (course.check_ser, lambda reports: course.slot_error_rate(reports) / 100, "50 percent, not 0.5"),
    (course.check_bootstrap, lambda *_: None, "nothing back yet"),
    (course.check_bootstrap, not_paired, "take the same inputs for both"),
    (course.check_bootstrap, not_drawn, "with replacement"),
    (course.check_bootstrap, mean_of_rates, "first, then divide"),
    (course.check_bootstrap, always_all, "is `inputs` used"),
    (course.check_bootstrap, lambda *given: course.bootstrap(*given) / 100, "percent"),
    (course.check_bootstrap, lambda *given: course.bootstrap(*given)[:10], "2,000 differences"),
    (course.check_median_ms, lambda run, repeats: None, "nothing back yet"),
    (course.check_median_ms, lambda run, repeats: sorted(timed(run, repeats))[repeats // 2], "one warms up"),
    (course.check_median_ms, lambda run, repeats: course.median_ms(run, repeats) / 1000, "seconds"),
    (course.check_median_ms, with_the_warm_up, "is the warm-up among them"),
    (course.check_median_ms, mean_ms, "is it the mean"),
]


@pytest.mark.parametrize(
    ("check_", "solution"),
    [
        (course.check_ser, course.slot_error_rate),
        (course.check_bootstrap, course.bootstrap),
        (course.check_median_ms, course.median_ms),
    ],
)
def test_solutions_pass(check_: Callable[[Any], None], solution: Any) -> None:
    check_(solution)


def test_a_bootstrap_in_a_loop_passes_too() -> None:
    def looped(candidate: Any, baseline: Any, slots: Any, inputs: int, rng: Any) -> list[float]:
        found = []
        for _ in range(2000):
            drawn = rng.integers(len(slots), size=inputs)
            found.append(100 * (candidate[drawn].sum() - baseline[drawn].sum()) / slots[drawn].sum())
        return found

    course.check_bootstrap(looped)


@pytest.mark.parametrize(("check_", "fault", "said"), FAULTS)
def test_a_fault_is_named(check_: Callable[[Any], None], fault: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_(fault)


def test_the_rate_is_that_of_the_library() -> None:
    texts = [TEXT, course.without_last_sentence(TEXT), course.turned_around(TEXT)]
    assert course.slot_error_rate([check(MR, text) for text in texts]) == slot_error_rate([MR] * 3, texts) > 0


def test_texts_are_spoiled_as_said() -> None:
    assert "It is not kid friendly" in course.turned_around(TEXT)
    assert course.turned_around(course.turned_around(TEXT)) == TEXT
    assert course.without_last_sentence(TEXT) == "The Mill is a pub that serves Japanese food."
    assert course.without_last_sentence("One sentence.") == "One sentence."


def test_the_judge_says_which_challenge_is_met() -> None:
    of_text = course.judge(MR, TEXT)
    assert "BLEU 100.0" in of_text(TEXT) and "✓ two slot errors" not in of_text(TEXT)
    liar = TEXT.replace("Japanese", "French").replace("pub", "restaurant")
    assert "slot errors 2" in of_text(liar)
    own = "Families are welcome at The Mill, a moderately priced Japanese pub."
    assert "✓ no slot error, and a BLEU below 20" in of_text(own)
    assert "<b>&lt;" not in of_text("<b>")


def test_a_neighbour_leaves_when_told() -> None:
    with course.neighbour():
        pass


def test_the_ring_is_around_those_that_keep_their_bleu_and_the_inset_has_all_of_the_cluster() -> None:
    rows = [
        row for row in json.loads(bundled("pocket/table.json").read_text(encoding="utf-8"))["rows"] if row["trained"]
    ]
    published = json.loads(bundled("published.json").read_text(encoding="utf-8"))
    figure = course.bleu_and_slot_errors(rows, published)
    (ring,) = (shape for shape in figure.layout.shapes if shape.type == "circle")
    inside = {
        row["system"] for row in published["rows"] if ring.x0 < row["ser"] < ring.x1 and ring.y0 < row["bleu"] < ring.y1
    }
    assert inside == {"pocket, never told food", "pocket, never told familyFriendly"}
    inset = [trace for trace in figure.data if trace.xaxis == "x2"]
    assert sum(len(trace.x) for trace in inset) == len({row["layers"] for row in rows}) + 2
    (left, right), (low, high) = figure.layout.xaxis2.range, figure.layout.yaxis2.range
    assert all(left < x < right and low < y < high for trace in inset for x, y in zip(trace.x, trace.y, strict=True))


def test_figures_have_titles_and_words() -> None:
    rows = [
        row for row in json.loads(bundled("pocket/table.json").read_text(encoding="utf-8"))["rows"] if row["trained"]
    ]
    published = json.loads(bundled("published.json").read_text(encoding="utf-8"))
    times = {"A": [1.0, 2.0], "B": [1.0, 2.0]}
    figures = [
        course.bleu_and_slot_errors(rows, published),
        *(course.columns_figure(rows, "times fewer layers", up) for up in course.COLUMNS),
        course.intervals_figure({"2x": (-1.0, 0.0, 1.0), "6x": (0.1, 0.5, 1.0)}, 300),
        course.first_and_later_runs(np.ones((8, 13))),
        course.blocks_and_turns({"A": 1.0, "B": 2.0}, times),
        course.sizes_and_engines({row["layers"]: row for row in rows}, ("12-12", "6-6", "2-2")),
    ]
    for figure in figures:
        assert 0 < len(figure.layout.title.text) < 65, figure.layout.title.text
        assert len(figure.layout.meta["alt"].split()) >= 8
