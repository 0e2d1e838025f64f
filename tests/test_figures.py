"""The curve of quality against speed: its data, and how it reaches a page."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest

from modtf.evaluation import STUDENTS, Size
from modtf.mapping import Mapping, StackMapping
from modtf.quality import Fit, Profile, forecast
from modtf.strategies import STRATEGIES, choose
from modtf.tasks import E2E, TEXT
from modtf.views.figures import before_and_after, figure_html, frame_html, frontier, quality_curve, versus_figure
from modtf.views.markup import assembly_html, quality_html

METRICS = E2E.metrics
MAPPING = Mapping(StackMapping(12, (2, 3, 4, 6)), StackMapping(12, (2, 3, 4, 6)))


def table() -> list[dict[str, Any]]:
    rows = []
    for trained in (True, False):
        for strategy in STRATEGIES:
            for wanted in (1, 1.33, 2, 6):
                one = choose(MAPPING, wanted, strategy)
                rows.append(
                    {
                        "trained": trained, "strategy": strategy, "wanted_ratio": wanted, "ratio": one.ratio,
                        "assembly": one.to_json(), "layers": one.shape, "bleu": 66.0 - wanted,
                        "bleu_kept": 100.0 - wanted, "ser": 1.0 + wanted, "speed_up": wanted * 0.8,
                    }
                )  # fmt: skip
    return rows


@pytest.mark.parametrize("against", ["speed_up", "ratio"])
def test_one_line_per_strategy_and_the_current_point(against: str) -> None:
    rows = table()
    figure = quality_curve(rows, METRICS, rows[2], against=against)
    bleu = [trace for trace in figure.data if trace.xaxis in (None, "x")]
    assert [trace.name for trace in bleu] == ["size first", "speed first", "you are here"]
    assert list(bleu[0].x) == [row[against] for row in rows[:4]], "trained rows only, ordered by ratio"
    assert list(bleu[2].x) == [rows[2][against]] and list(bleu[2].y) == [rows[2]["bleu_kept"]]
    assert [list(trace.y) for trace in figure.data if trace.xaxis == "x2"][2] == [rows[2]["ser"]]


def test_lines_differ_in_symbol_and_dash() -> None:
    first, second = quality_curve(table(), METRICS).data[0], quality_curve(table(), METRICS).data[2]
    assert first.marker.symbol != second.marker.symbol and first.line.dash != second.line.dash


def test_the_nearest_point_is_hollow_and_named_so() -> None:
    rows = table()
    here = quality_curve(rows, METRICS, rows[1], exact=False).data[-1]
    assert here.marker.symbol == "circle-open"
    assert "nearest measured" in {trace.name for trace in quality_curve(rows, METRICS, rows[1], exact=False).data}


@pytest.mark.parametrize("lowest", [99.5, 40.0])
def test_the_axis_holds_all_points_and_does_not_magnify_noise(lowest: float) -> None:
    rows = table()
    rows[3]["bleu_kept"] = lowest
    low, high = quality_curve(rows, METRICS).layout.yaxis.range
    assert low <= min(90, lowest) and high >= 102


def test_the_frontier_joins_what_no_cheaper_assembly_beats() -> None:
    full, half, third = (choose(MAPPING, ratio, "size_first") for ratio in (1, 2, 3))
    worse, unknown = choose(MAPPING, 2, "speed_first"), choose(MAPPING, 6, "size_first")
    profile = Profile(
        banks="", losses={full: 0.0, half: 0.2, worse: 0.3, third: 0.4}, fit=Fit(0.5, {"decoder 2·2": -0.01}),
        held_out={}, kept={}, milliseconds={"constant": 1, "encoder": 1, "decoder": 2},
        parameters={"constant": 0, "encoder": 2_000_000, "decoder": 1_000_000}, machine="", examples=1,
    )  # fmt: skip
    measured, best, predicted, here, *_ = frontier(profile, MAPPING, "max_parameters", half, 20).data
    costs = [profile.cost(assembly, "max_parameters") / 1e6 for assembly in (third, half, full)]
    assert list(best.x) == costs and list(best.y) == [0.4, 0.2, 0.0], "without the one that is no better"
    assert len(measured.x) == 4 and (*here.x, *here.y, here.name) == (costs[1], 0.2, "you are here")
    assert list(predicted.x) == sorted(predicted.x) and list(predicted.y) == sorted(predicted.y, reverse=True)
    every = forecast(MAPPING, profile.fit)
    assert predicted.y[-1] == min(every.values()) and len(every) == len(MAPPING.encoder.lengths) ** 2
    figure = frontier(profile, MAPPING, "max_latency_ms", unknown)
    assert figure.data[-1].marker.symbol == "circle-open" and "predicted" in figure.data[-1].name
    assert list(figure.data[-1].y) == [profile.fit.predicted(unknown)] and not figure.layout.shapes
    assert figure.layout.xaxis.title.text == "ms for 32 tokens"


def test_no_rows_make_an_empty_figure() -> None:
    assert len(quality_curve([], METRICS).data) == 0


def test_the_figure_survives_html() -> None:
    figure = quality_curve(table(), METRICS)
    inside = re.fullmatch(r'<div class="modtf-figure" hidden>(.*)</div>', figure_html(figure), re.DOTALL)
    assert inside is not None and "<" not in inside[1]
    assert json.loads(unescape(inside[1])) == json.loads(figure.to_json())


def test_the_frame_needs_no_network_and_stays_below_jupyters_data_rate() -> None:
    frame = frame_html("a <title>")
    assert "a &lt;title&gt;" in frame
    assert not re.search(r"""(src|href)\s*=\s*["']?https?:""", unescape(frame))
    assert len(frame) < 2_900_000, "Jupyter drops output above 1 MB/s over 3 seconds"


def test_quality_says_whether_the_row_is_exact() -> None:
    here = table()[2]
    assert "This assembly: BLEU 64.0 (<b>98.0 %</b> of the full model's)" in quality_html(
        here, True, {"examples": 630, "machine": "<x>", "threads": 1}, METRICS[:2]
    )
    assert "is not in the table. The nearest one (2.00×, 6-6)" in quality_html(here, False, {}, METRICS[:2])
    assert "<x>" not in quality_html(here, True, {"machine": "<x>"}, METRICS[:2])


def test_points_measured_here_stand_out_and_are_within_the_axis() -> None:
    mine = [{"ratio": 1.6, "layers": "3-2", "bleu_kept": 71.0, "ser": 3.0, "speed_up": 1.9}]
    figure = quality_curve(
        table(),
        METRICS,
        mine=mine,
        titles=["BLEU against the full model's texts", "slot error rate (%), bundled inputs"],
    )
    own = [trace for trace in figure.data if trace.name == "measured here"]
    assert [list(trace.y) for trace in own] == [[71.0], [3.0]] and {trace.mode for trace in own} == {"markers"}
    assert own[0].marker.symbol not in {trace.marker.symbol for trace in figure.data if trace.name != "measured here"}
    assert figure.layout.yaxis.range[0] < 71
    assert [title.text for title in figure.layout.annotations] == [
        "BLEU against the full model's texts",
        "slot error rate (%), bundled inputs",
    ]


def test_scores_of_another_task_are_drawn_under_their_names() -> None:
    rows = [row | {"chrf": 70.0, "chrf_kept": 101.0} for row in table()]
    figure = quality_curve(rows, TEXT.metrics, rows[2])
    assert [title.text for title in figure.layout.annotations] == [metric.title for metric in TEXT.metrics[:2]]
    assert {value for trace in figure.data if trace.xaxis == "x2" for value in trace.y} == {101.0}
    assert figure.layout.yaxis2.range[0] <= 90, "higher is better here, so the axis need not begin at zero"
    words = quality_html(rows[2], True, {}, TEXT.metrics[:2])
    assert "BLEU 64.0 (" in words and "chrF2 70.0 (<b>101.0 %</b> of the full model's)" in words


def test_the_assembly_is_described_in_words() -> None:
    words = assembly_html(choose(MAPPING, 1.5, "speed_first"), Size(3_670_000, 3_410_000))
    assert "encoder 1·1·1·1·1·1·1·1·1·1·1·1 | decoder 3·3·3·3" in words and ">12-4<" in words
    assert "3,670,000 parameters (3,410,000 without embeddings), 14.7 MB" in words


def test_students_are_points_of_their_own() -> None:
    students = [
        {"kind": kind, "ratio": 2.0, "layers": "6-6", "speed_up": 1.6, "bleu_kept": 97.0, "ser": 2.0}
        for kind in STUDENTS.values()
    ]
    figure = quality_curve(table(), METRICS, students=students)
    points = {
        trace.name: trace for trace in figure.data if trace.xaxis in (None, "x") and trace.name in STUDENTS.values()
    }
    assert list(points) == list(STUDENTS.values())
    assert all(trace.mode == "markers" and list(trace.x) == [1.6] for trace in points.values())
    assert len({trace.marker.symbol for trace in points.values()}) == len(STUDENTS)


def test_the_comparison_over_its_cost() -> None:
    half = {"2x": {"encoder": [2] * 6, "decoder": [2] * 6}, "6x": {"encoder": [6] * 2, "decoder": [6] * 2}}

    def row(method: str, size: str, cost: float, total: float, seed: int, bleu: float) -> dict[str, Any]:
        return {"method": method, "size": size, "cost": cost, "total": total, "seed": seed, "test": {"bleu": bleu}}

    rows = [row("untrained", "1x", 0, 0, 0, 60.0)]
    for size in half:
        rows += [row("kit", size, 100, 100, seed, 40.0 + seed) for seed in range(3)]
        rows += [
            row("kit", size, 400, 400, 0, 50.0),
            row("KD", size, 50, 100, 0, 45.0),
            row("KD", size, 400, 800, 0, 55.0),
        ]
    figure = versus_figure({"rows": rows[::-1], "sizes": half, "unit_operations": 1e12}, METRICS[0])
    drawn = [trace for trace in figure.data if trace.name in ("kit", "KD") and trace.x]
    assert len(drawn) == 2 * 2 * 2, "two methods, two sizes, two accounts"
    kits = [trace for trace in drawn if trace.name == "kit"]
    assert {trace.y for trace in kits} == {(41.0, 50.0)} and {trace.error_y.array for trace in kits} == {(1.0, 0.0)}
    assert {trace.x for trace in drawn if trace.name == "KD"} == {(100, 800), (50, 400)}
    assert len([shape for shape in figure.layout.shapes if shape.y0 == 60]) == 4, "the original, in each"
    assert figure.layout.xaxis.type == "log" and len({trace.legendgroup for trace in drawn if trace.showlegend}) == 2
    assert figure.layout.yaxis.type is None
    with_errors = [row | {"test": {"ser": max(0, 50 - row["test"]["bleu"])}} for row in rows]
    errors = versus_figure({"rows": with_errors, "sizes": half, "unit_operations": 1e12}, METRICS[1])
    assert errors.layout.yaxis.type == "log", "one half is as far from one as one from two"
    assert min(value for trace in errors.data for value in trace.y or ()) > 0, "no errors are drawn, too"


def test_before_and_after_a_training() -> None:
    after = table()[:8]
    before = [row | {"bleu_kept": row["bleu_kept"] / 2} for row in reversed(after)]
    figure = before_and_after(before, after, METRICS[0])
    names = [
        f"{strategy}, {when}" for when in ("before training", "after") for strategy in ("size first", "speed first")
    ]
    assert [trace.name for trace in figure.data] == names
    assert [trace.line.dash for trace in figure.data] == ["dot", "dot", "solid", "solid"]
    assert list(figure.data[0].y) == [row["bleu_kept"] / 2 for row in after[:4]], "ordered by ratio"
    assert list(figure.data[3].x) == [row["ratio"] for row in after[4:]]
