"""Notebook 4's room: the checks of its exercises know solutions from faults, and its figures say what they show."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import modtf
from modtf.bundled import bundled
from modtf.course import assembly as course
from modtf.mapping import Mapping, StackMapping

MAPPING = Mapping(StackMapping(12, (2, 3, 4, 6), "encoder"), StackMapping(12, (2, 3, 4, 6), "decoder"))
COSTS = course.LayerCosts((16, 512), (0.2, 5.0), (0.1, 0.3), (0.1, 0.2), (1.0, 0.1))


def anywhere(best: Any, end: int, granularities: Any, cost: Any) -> Any:
    """Modules begin where they like."""
    found: dict[Any, Any] = {}
    for g in (1, *granularities):
        for (before, n), (so_far, path) in best[end - g].items() if end >= g else ():
            way = so_far + cost(before, g, end - g), (*path, g)
            found[g, n + 1] = min(way, found.get((g, n + 1), way))
    return found


def any_way(best: Any, end: int, granularities: Any, cost: Any) -> Any:
    """The last way found is kept, not the cheapest."""
    found: dict[Any, Any] = {}
    for g in (1, *granularities):
        if end >= g and (end - g) % g == 0:
            for (before, n), (so_far, path) in best[end - g].items():
                found[g, n + 1] = so_far + cost(before, g, end - g), (*path, g)
    return found


def for_nothing(best: Any, end: int, granularities: Any, cost: Any) -> Any:
    """Only the first layer costs something."""
    return course.extend(best, end, granularities, lambda before, g, start: 0.0 if start else cost(before, g, start))


def right_ones(guesses: list[int], wanted: list[int]) -> list[int]:
    return [guess for guess, token in zip(guesses, wanted, strict=False) if guess == token]


def no_own_token(guesses: list[int], wanted: list[int]) -> list[int]:
    return course.verify(guesses, wanted)[:-1]


def gives_up_at_the_end(guesses: list[int], wanted: list[int]) -> list[int]:
    return course.verify(guesses, wanted)[: max(1, len(guesses))]


FAULTS: list[tuple[Callable[[Any], None], Any, str]] = [
    (course.check_fastest, lambda *_: None, "nothing back yet"),
    (course.check_fastest, lambda n, e, d: course.fastest(n, d, e), "keeps ten of them"),
    (course.check_fastest, lambda n, e, d: (n - 2, 2), "cannot have more than 12"),
    (course.check_fastest, lambda n, e, d: (min(12, n - 2), max(2, n - 12)), "encoder layers are the dear ones"),
    (course.check_fastest, lambda n, e, d: (n - 1, 1), "at least 2 layers"),
    (course.check_extend, lambda *_: None, "nothing back yet"),
    (course.check_extend, anywhere, "multiples of"),
    (course.check_extend, any_way, "is a dearer way kept"),
    (course.check_extend, for_nothing, "is a cost left out"),
    (course.check_verify, lambda *_: None, "nothing back yet"),
    (course.check_verify, lambda guesses, wanted: wanted, "should be .5, 6, 9."),
    (course.check_verify, no_own_token, "Its own token counts"),
    (
        course.check_verify,
        lambda guesses, wanted: [*right_ones(guesses, wanted), wanted[len(right_ones(guesses, wanted))]],
        "goes on",
    ),
    (course.check_verify, gives_up_at_the_end, "after the last one"),
]


@pytest.mark.parametrize("name", ["fastest", "extend", "verify"])
def test_solutions_pass(name: str) -> None:
    getattr(course, f"check_{name}")(getattr(course, name))


@pytest.mark.parametrize(("check", "fault", "said"), FAULTS)
def test_a_fault_is_named(check: Callable[[Any], None], fault: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check(fault)


def test_layers_cost_what_their_lengths_say() -> None:
    assert COSTS.encoder_ms(16) == pytest.approx(0.2) and COSTS.encoder_ms(264) == pytest.approx(2.6)
    assert COSTS.decoder_ms(16, 10) == pytest.approx(0.1 + 10 * 0.1)
    assert COSTS.text_ms((10, 2), 16, 10) == pytest.approx(1 + 1 + 2 + 2.2)


def test_the_instrument_says_who_wins_and_which_challenges_are_met() -> None:
    draw = course.shapes_in_a_race(COSTS, MAPPING, course.fastest)
    figure, words = draw(60, 32, 2.0)
    assert figure.data[0].text[figure.data[0].x.index("10-2")] == "speed first<br>fastest"
    assert "✓ speed first loses" not in words
    figure, words = draw(512, 2, 2.0)
    assert figure.data[0].text[figure.data[0].x.index("2-10")] == "fastest"
    assert "✓ speed first loses to size first" in words and "○ it loses although" in words
    assert "✓ it loses although" in draw(512, 8, 2.0)[1]


def of_shape(encoder: int, decoder: int) -> dict[str, Any]:
    """A row of a table in which a rest costs 5, and layers of the two stacks 1 and 3."""
    value = 5.0 + encoder + 3 * decoder
    latency = {"latency_ms": {"median": value}}
    return {
        "layers": f"{encoder}-{decoder}",
        "trained": True,
        "parameters": value * 1e6,
        **latency,
        "generate": latency,
    }


def test_the_rest_and_each_layer_are_found() -> None:
    shapes = [(12, 12), (10, 2), (6, 6), (2, 6), (2, 2)]
    for row in course.rest_and_layers([of_shape(*shape) for shape in shapes]):
        assert (row["rest"], row["encoder layer"], row["decoder layer"]) == (5, 1, 3)
        assert (row["1x"], row["6x"], row["times less"], row["rest at 6x, %"], row["fit off by, %"]) == (
            53,
            13,
            4.1,
            38,
            0,
        )


@pytest.mark.parametrize("name", ["pocket", "translator"])
def test_a_rest_and_layers_explain_the_bundled_tables(name: str) -> None:
    rows = json.loads(bundled(f"{name}/table.json").read_text(encoding="utf-8"))["rows"]
    parameters, *times = course.rest_and_layers(rows)
    assert parameters["fit off by, %"] == 0
    assert all(
        row["fit off by, %"] < 10 and row["decoder layer"] > 2 * row["encoder layer"] > 0 < row["rest"] for row in times
    )


def test_the_original_is_named_among_the_losses() -> None:
    pocket = modtf.load("pocket")
    within = pocket.choose(strategy="quality_first", max_latency_ms=25)
    figure = course.within_limit(pocket, within, 25)
    (said,) = (note for note in figure.layout.annotations if note.text == "the original")
    assert said.y == pocket.profile.losses[pocket.mapping.original]
    assert within.shape in figure.layout.title.text and "have a lower loss" in figure.layout.meta["alt"]


def test_two_layers_are_covered_as_the_exercise_says() -> None:
    best: list[course.Ends] = [{(0, 0): (0.0, ())}, {(1, 1): (0.5, (1,))}]
    assert course.extend(best, 2, (2,), lambda *_: 0.5) == {(1, 2): (1.0, (1, 1)), (2, 1): (0.5, (2,))}


def test_lines_are_compared_at_the_same_speed() -> None:
    def line(strategy: str, *points: tuple[float, float]) -> list[dict[str, Any]]:
        return [{"strategy": strategy, "speed_up": speed, "bleu_kept": kept} for speed, kept in points]

    size = line("size_first", (1.0, 100.0), (2.0, 96.0), (3.0, 90.0))
    speed = line("speed_first", (1.0, 100.0), (2.5, 91.0), (3.0, 90.0))  # 2 points below at 2 and at 2.5
    area = 1 + 1 + 0.5  # a triangle, a rectangle and a triangle
    assert course.points_at_equal_speed([*size, *speed]) == pytest.approx(area / 2, abs=0.02)


def test_figures_have_titles_and_words() -> None:
    times = {(e, d): float(e + 4 * d) for e in (2, 12) for d in (2, 12)}
    parts = dict.fromkeys(
        ("encoder", "self-attention", "cross-attention", "feed-forward", "head", "everything else"), 1.0
    )
    passes = [([5, 6, 7], 2), ([8, 9], 1)]
    figures = [
        course.time_map(MAPPING, times),
        course.parts_figure({"12-12": parts}, 24),
        course.who_is_faster(COSTS, {"a description": (60, 32)}),
        course.shapes_in_a_race(COSTS, MAPPING, course.fastest)(60, 32, 3.0)[0],
        course.passes_figure("abcde", [([*map(str, guesses)], right) for guesses, right in passes], 12),
    ]
    for figure in figures:
        assert 0 < len(figure.layout.title.text) < 60
        assert len(figure.layout.meta["alt"].split()) >= 8
    assert "2 passes of 12 layers" in figures[-1].layout.title.text
    assert "own" in figures[-1].layout.meta["alt"]
