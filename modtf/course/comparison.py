"""Notebook 6, one kit or several students: checks of its exercises, its figures over cost, and its rule."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from html import escape
from statistics import fmean
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch.utils.flop_counter import FlopCounterMode

from modtf.bootstrap import draws_of
from modtf.bundled import bundled
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.tasks import E2E, TRANSLATION
from modtf.tasks.e2e import parse_mr
from modtf.tasks.e2e.slots import check as check_slots
from modtf.tasks.task import Metric
from modtf.training.cost import step_passes
from modtf.views.figures import described, versus_figure

#: The two fair comparisons, as `benchmarks/versus.py` names them, and what the cost of a row is in each.
ACCOUNTS = {"equal_total": "total", "equal_each": "cost"}
WORDS = {"equal_total": "the students share the kit's cost", "equal_each": "each costs as much as the kit"}
#: Of each bundled model, the score that tells its sizes apart.
TELLING = {"translator": "bleu", "pocket": "ser"}
_FOR_ALL = ("kit", "LayerDrop")
_STUDENTS = ("SFT", "sequence-level KD", "SFT, all weights")
_TARGET = "#cc4e94"
_BEST, _BAND = "#2a9d74", "rgba(42,157,116,0.22)"
#: In percent: where no errors at all are drawn on a logarithmic axis.
_LEAST = 0.02


def measured(model: str) -> dict[str, Any]:
    """What `benchmarks/versus.py` measured on a bundled model."""
    return dict(json.loads(bundled(f"{model}/versus.json").read_text(encoding="utf-8")))


def metric_of(comparison: dict[str, Any]) -> Metric:
    """BLEU, or slot errors where the task has slots."""
    key = _telling(comparison)
    return next(metric for metric in (E2E if key == "ser" else TRANSLATION).metrics if metric.key == key)


def _telling(comparison: dict[str, Any]) -> str:
    return "ser" if "ser" in comparison["rows"][0]["mean"] else "bleu"


def budgets(comparison: dict[str, Any]) -> list[float]:
    """Costs of the kits, ascending; one unit is ``unit_operations`` operations."""
    return sorted({row["cost"] for row in comparison["rows"] if row["method"] == "kit"})


def row_of(comparison: dict[str, Any], method: str, size: str, cost: float) -> dict[str, Any]:
    """The row of a method's first seed."""
    return next(
        row for row in comparison["rows"]
        if (row["method"], row["size"], row["cost"], row["seed"]) == (method, size, cost, 0)
    )  # fmt: skip


def tera(comparison: dict[str, Any], cost: float) -> float:
    """A cost in TFLOP, 10¹² floating-point operations."""
    return float(cost * comparison["unit_operations"] / 1e12)


def minus_kit(row: dict[str, Any], account: str, key: str = "bleu") -> tuple[float, tuple[float, float]]:
    """A student's score minus that of the kit it stands beside in this account, and its 95 % interval."""
    low, high = row[account][f"{key}_interval"]
    return row[account][key], (low, high)


# -- exercise 6.1: what a step costs -----------------------------------------------------------------------------------


def step_cost(assembly: Assembly, teacher: bool = False) -> int:
    """What a training step of an assembly computes, in layer passes: see :func:`step_passes`."""
    return sum(step_passes(assembly, teacher))


def check_step_cost(function: Callable[..., Any]) -> None:
    six, last = Assembly((6,), (6,)), Assembly((1,) * 6, (1, 1, 1, 3))
    assert function(six) is not None, "step_cost(assembly) gives nothing back yet"
    for assembly, wanted, words in (
        (six, 5, "2 forward, 1 back through the layer after the first module, 2 modules whose weights learn"),
        (Assembly((2, 2, 2), (2, 2, 2)), 17, "6 forward, 5 back, 6 modules"),
        (last, 11, "10 forward and 1 module; nothing runs after it, and layers before it need no gradient"),
        (Assembly((2, 1, 1, 1, 1), (1,) * 6), 22, "11 forward, 10 back, all through the decoder, and 1 module"),
        (Assembly((1,) * 6, (1,) * 6), 12, "12 forward; where nothing learns, nothing goes back"),
    ):
        given = function(assembly)
        assert given == wanted, f"a step of {assembly} costs {wanted} ({words}), not {given}"
    given = function(six, teacher=True)
    assert given == 17, f"with a teacher a step of {six} costs 12 more, all original layers forward: 17, not {given}"


#: Layer passes that the product with the vocabulary is worth on pocket, forward and back.
VOCABULARY = 2


def steps_for(budget: float, assembly: Assembly, cost: Callable[..., int] = step_cost) -> int:
    """How many steps of an assembly a budget of layer passes pays for."""
    return max(1, round(budget / (cost(assembly) + VOCABULARY)))


def budget_of(assemblies: Sequence[Assembly], cost: Callable[..., int] = step_cost) -> int:
    """What a training that draws these assemblies computes, in layer passes."""
    return sum(cost(assembly) + VOCABULARY for assembly in assemblies)


def formula_and_count(
    modular: ModularModel, batch: dict[str, torch.Tensor], shapes: dict[str, Assembly], cost: Callable[..., int]
) -> list[dict[str, Any]]:
    """A formula's cost of a training step (with the vocabulary) beside the operations that torch counts."""
    rows: list[dict[str, Any]] = []
    for name, assembly in shapes.items():
        with FlopCounterMode(display=False) as counter:
            modular(assembly, **batch).loss.backward()
        passes, giga = cost(assembly) + VOCABULARY, counter.get_total_flops() / 1e9
        rows.append(
            {
                "size": name,
                "layer passes": passes,
                "counted, GFLOP": round(giga, 2),
                "GFLOP a layer pass": round(giga / passes, 3),
            }
        )
        modular.zero_grad()
    return rows


def steps_bought(
    comparison: dict[str, Any], cost: float, methods: Sequence[str] = ("SFT", "KD")
) -> list[dict[str, Any]]:
    """How many steps one budget bought for students of each size."""
    return [
        {"size": size} | {f"steps of {method}": row_of(comparison, method, size, cost)["steps"] for method in methods}
        for size in comparison["sizes"]
    ]


# -- exercise 6.2: student minus kit ------------------------------------------------------------------------------------


def student_minus_kit(
    student: np.ndarray, kit: np.ndarray, slots: np.ndarray, draws: np.ndarray
) -> tuple[float, float]:
    """The 95 % interval of student minus kit in slot error rate, in points (paired bootstrap).

    ``student`` and ``kit`` (inputs,) are the errors of each text, ``slots`` (inputs,) the slots asked for; each row of
    ``draws`` (samples, inputs) is a sample of inputs, the same for both.
    """
    difference = 100 * (student[draws].sum(1) - kit[draws].sum(1)) / slots[draws].sum(1)
    low, high = np.percentile(difference, [2.5, 97.5])
    return float(low), float(high)


def check_student_minus_kit(function: Callable[..., Any]) -> None:
    rng = np.random.default_rng(1)
    slots = rng.integers(3, 9, size=200)
    student = rng.binomial(slots, 0.5)
    kit, draws = student + rng.binomial(1, 0.3, size=200), draws_of(200)  # a hard input is hard for both
    assert function(student, kit, slots, draws) is not None, "student_minus_kit(...) gives nothing back yet"
    same = tuple(function(kit, kit, slots, draws))
    assert len(same) == 2, f"two numbers are wanted, low and high, not {len(same)}"
    assert np.allclose(same, 0), (
        f"a model minus itself is 0 on any sample, so the interval is 0 to 0, not {same[0]:.2f} to {same[1]:.2f}: "
        "take the same sample of inputs for both"
    )
    low, high = function(student, kit, slots, draws)
    wanted = student_minus_kit(student, kit, slots, draws)
    assert low <= high, f"the lower end comes first, not {low:.2f} to {high:.2f}"
    assert low < 0, (
        "the student makes fewer errors here, so student minus kit is negative; yours is the other way round"
    )
    assert low < -1, f"in points (percent) the lower end is {wanted[0]:.2f}, not {low:.4f}: is it a share?"
    averaged = np.percentile((100 * (student - kit) / slots)[draws].mean(1), [2.5, 97.5])
    assert not np.allclose((low, high), averaged), (
        "yours averages the rates of single texts; sum the errors of a sample and divide by the sum of its slots"
    )
    assert np.allclose((low, high), wanted, atol=0.02), (
        f"the middle 95 % (percentiles 2.5 and 97.5) go from {wanted[0]:.2f} to {wanted[1]:.2f}, yours from {low:.2f} to {high:.2f}"
    )


def slot_counts(sources: Sequence[str], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of each text its slot errors, and how many slots were asked for."""
    mrs = [parse_mr(source) for source in sources]
    errors = [check_slots(mr, text).errors for mr, text in zip(mrs, texts, strict=True)]
    return np.array(errors), np.array([len(mr) for mr in mrs])


def verdict(low: float, high: float) -> str:
    """What an interval of slot errors, student minus kit, says."""
    return "the student makes fewer" if high < 0 else "the kit makes fewer" if low > 0 else "no difference is shown"


# -- exercise 6.3: from how many sizes on ------------------------------------------------------------------------------


def break_even(kit_cost: float, kit_score: float, costs: Sequence[float], scores: Sequence[float]) -> int | None:
    """From how many sizes on one kit is cheaper than students that are as good.

    ``scores`` are a student's at these ``costs``, both ascending; between them the score is a straight line over the
    logarithm of the cost. A student that is better at its lowest cost already counts with that cost. None if it is
    nowhere as good.
    """
    if scores[-1] < kit_score:
        return None
    as_good = math.exp(np.interp(kit_score, scores, np.log(costs)))
    return math.floor(kit_cost / as_good + 1e-9) + 1


def check_break_even(function: Callable[..., Any]) -> None:
    costs, scores = [25, 100, 400], [20.0, 30.0, 40.0]
    assert function(1600, 40.0, costs, scores) is not None, "break_even(...) gives nothing back yet"
    for kit_cost, score, wanted, words in (
        (1600, 40.0, 5, "such a student costs 400: four cost as much as the kit, and from five on the kit is cheaper"),
        (1500, 40.0, 4, "such a student costs 400: three are cheaper than the kit, and four are not"),
        (1600, 35.0, 9, "half-way between 100 and 400 on a logarithmic scale lies 200: eight cost as much as the kit"),
        (100, 10.0, 5, "the cheapest student, 25, is better than that already: four cost as much as the kit"),
    ):
        given = function(kit_cost, score, costs, scores)
        assert given == wanted, (
            f"for a kit of cost {kit_cost} with a score of {score:g} it is {wanted} ({words}), not {given}"
        )
    given = function(1600, 41.0, costs, scores)
    assert given is None, f"no student reaches 41 here, so there is no answer: None, not {given}"


def break_evens(comparison: dict[str, Any], function: Callable[..., int | None]) -> list[dict[str, str]]:
    """The break-even by kit, students and size; in brackets, with the kit's score moved by the scatter between seeds."""
    return [
        {"kit of": f"{tera(comparison, budget):.0f} TFLOP", "students": method}
        | {size: _break_even_of(comparison, function, method, size, budget) for size in comparison["sizes"]}
        for budget in budgets(comparison)
        for method in _STUDENTS
    ]


def _break_even_of(
    comparison: dict[str, Any], function: Callable[..., int | None], method: str, size: str, budget: float
) -> str:
    """The number with its range; nothing where no student had a quarter of the kit's cost."""
    found = sorted(
        (row["cost"], row["mean"]["bleu"]) for row in comparison["rows"]
        if (row["method"], row["size"], row["seed"]) == (method, size, 0) and row["cost"] <= budget
    )  # fmt: skip
    costs, scores = [cost for cost, _ in found], [score for _, score in found]
    if costs[-1] < budget / 4:
        return ""
    score, scatter = (
        row_of(comparison, "kit", size, budget)["mean"]["bleu"],
        comparison["scatter_of_seeds"][size]["bleu"][0],
    )
    most = math.ceil(budget / costs[-1])  # a student that is not as good for this cost needs more
    numbers = [function(budget, score + shift, costs, scores) or most for shift in (0, scatter, -scatter)]
    number = f"{numbers[0]}" if scores[0] < score else f"{numbers[0]} or more"
    return number if numbers[1] == numbers[2] else f"{number} ({min(numbers)} to {max(numbers)})"


# -- figures -----------------------------------------------------------------------------------------------------------


def curves(comparison: dict[str, Any], title: str, alt: str, mine: Sequence[dict[str, Any]] = ()) -> go.Figure:
    """Scores over the cost of having all sizes, a panel for each size, and your own points among them.

    Drawn are means over seeds: the kit, LayerDrop, and the students as a band from the worst to the best of each cost;
    the hover of the best one has its method. Each of ``mine`` has ``who`` ("kit" or "student"), ``size``, ``tflop`` and
    the score under its key.
    """
    metric, looks, sizes = metric_of(comparison), _looks(comparison), list(comparison["sizes"])
    titles = [f"{size} ({Assembly.from_json(comparison['sizes'][size]).shape})" for size in sizes]
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.13
    )
    for number, size in enumerate(sizes):
        place = {"row": number // 2 + 1, "col": number % 2 + 1}
        scores = scores_of(comparison, size)
        for trace in _band(scores, metric, size, number == 0):
            figure.add_trace(trace, **place)
        for method in reversed(_FOR_ALL):  # the kit above all
            figure.add_trace(_line(scores[method], method, metric, size, looks[method], number == 0), **place)
        figure.add_hline(
            y=_score_of_original(comparison), line={"color": "#8a8a8a", "dash": "dot", "width": 1}, **place
        )
    for who, symbol in (("kit", "star"), ("student", "star-open")):
        points = [point for point in mine if point["who"] == who]
        for number, size in enumerate(sizes):
            of_size = [point for point in points if point["size"] == size]
            if of_size:
                figure.add_scatter(
                    x=[point["tflop"] for point in of_size], y=[max(point[metric.key], _LEAST) for point in of_size],
                    mode="markers", marker={"symbol": symbol, "size": 12, "color": "#222222", "line": {"width": 1.5}},
                    name=f"your {who}", legendgroup=f"your {who}", showlegend=of_size[0] is points[0],
                    hovertemplate=f"your {who}, {size}<br>%{{y:.1f}} {metric.name}<br>%{{x:.2f}} TFLOP<extra></extra>",
                    row=number // 2 + 1, col=number % 2 + 1,
                )  # fmt: skip
    costs = sorted({cost for size in sizes for of_method in scores_of(comparison, size).values() for cost in of_method})
    figure.update_xaxes(type="log", tickvals=costs, ticktext=[f"{cost:,.0f}" for cost in costs], matches="x")
    figure.update_xaxes(title="TFLOP for all sizes", row=2)
    figure.update_yaxes(title=f"{metric.name}{' (%)' * metric.errors}, test set", zeroline=False, col=1)
    if metric.errors:  # over three orders of magnitude
        ticks = {f"≤ {_LEAST}": _LEAST} | {f"{tick:g}": tick for tick in (0.1, 0.5, 2, 10, 50)}
        figure.update_yaxes(type="log", tickvals=list(ticks.values()), ticktext=list(ticks))
    figure.update_annotations(font_size=14)
    return described(
        figure, alt, template="plotly_white", title={"text": title, "y": 0.97}, height=560, width=880, hovermode="closest",
        margin={"l": 80, "r": 20, "t": 90, "b": 110}, legend={"orientation": "h", "y": -0.14, "yanchor": "top", "x": 0.5, "xanchor": "center"},
    )  # fmt: skip


def _score_of_original(comparison: dict[str, Any]) -> float:
    original = row_of(comparison, "untrained", "1x", 0)
    return float(original["test"][_telling(comparison)])


def scores_of(comparison: dict[str, Any], size: str) -> dict[str, dict[float, float]]:
    """Of each method its mean score over seeds, by the cost of having all sizes, in TFLOP."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in comparison["rows"]:
        if row["size"] == size and row["method"] != "untrained":
            found[row["method"]][tera(comparison, row["total"])].append(row["test"][_telling(comparison)])
    return {
        method: {cost: fmean(of_cost) for cost, of_cost in sorted(of_method.items())}
        for method, of_method in found.items()
    }


def best_and_worst(
    scores: dict[str, dict[float, float]], metric: Metric
) -> dict[float, tuple[tuple[float, str], tuple[float, str]]]:
    """At each cost the best and the worst student: score and method."""
    students = {method: of for method, of in scores.items() if method not in _FOR_ALL}
    ends = {}
    for cost in sorted({cost for of in students.values() for cost in of}):
        ranked = sorted((of[cost], method) for method, of in students.items() if cost in of)
        ends[cost] = (ranked[0], ranked[-1]) if metric.errors else (ranked[-1], ranked[0])
    return ends


def _band(scores: dict[str, dict[float, float]], metric: Metric, size: str, legend: bool) -> list[go.Scatter]:
    """The students of a size, from the worst (an edge without a line) to the best one of each cost."""
    ends = best_and_worst(scores, metric)
    costs = list(ends)
    (best, methods), (worst, _) = (zip(*(ends[cost][end] for cost in costs), strict=True) for end in (0, 1))
    return [
        go.Scatter(
            x=costs, y=[max(score, _LEAST) for score in worst], mode="lines", line={"width": 0}, showlegend=False,
            hoverinfo="skip", legendgroup="students",
        ),
        go.Scatter(
            x=costs, y=[max(score, _LEAST) for score in best], mode="lines+markers", name="best student (band: down to the worst)",
            legendgroup="students", fill="tonexty", fillcolor=_BAND, showlegend=legend, line={"color": _BEST, "width": 2},
            marker={"symbol": "diamond", "size": 8}, text=methods, customdata=best,
            hovertemplate=f"best student, {size}: %{{text}}<br>%{{customdata:.1f}} {metric.name}<br>%{{x:.0f}} TFLOP<extra></extra>",
        ),
    ]  # fmt: skip


def _line(
    of_method: dict[float, float], method: str, metric: Metric, size: str, look: dict[str, Any], legend: bool
) -> go.Scatter:
    kit = method == "kit"
    return go.Scatter(
        x=list(of_method), y=[max(score, _LEAST) for score in of_method.values()], mode="lines+markers", name=method,
        legendgroup=method, showlegend=legend, marker={"symbol": look["symbol"], "size": 9},
        line={"color": look["color"], "width": 3 if kit else 2, "dash": "solid" if kit else "dash"},
        hovertemplate=f"{method}, {size}<br>%{{y:.1f}} {metric.name}<br>%{{x:.0f}} TFLOP<extra></extra>",
    )  # fmt: skip


def _looks(comparison: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Colour and symbol of each method, as in :func:`versus_figure`."""
    drawn = versus_figure(comparison, metric_of(comparison), ("total",)).data
    return {trace.name: {"color": trace.line.color, "symbol": trace.marker.symbol} for trace in drawn}


def _differences(comparison: dict[str, Any], account: str, **wanted: Any) -> list[dict[str, Any]]:
    """Rows with their distance from the kit in one account: ``value``, ``low``, ``high``."""
    key = _telling(comparison)
    found = []
    for row in comparison["rows"]:
        given = row.get(account)
        if given is None or any(row[name] != value for name, value in wanted.items()):
            continue
        if account == "equal_each" and row["method"] in _FOR_ALL:  # it trains once: both accounts are one
            continue
        low, high = given[f"{key}_interval"]
        found.append(row | {"value": given[key], "low": low, "high": high})
    return found


def _marks(rows: Sequence[dict[str, Any]], y: Sequence[float], look: dict[str, Any]) -> go.Scatter:
    """Differences of one method with their intervals, each at its height."""
    bar = {
        "type": "data", "symmetric": False, "thickness": 1.6, "width": 3,
        "array": [row["high"] - row["value"] for row in rows], "arrayminus": [row["value"] - row["low"] for row in rows],
    }  # fmt: skip
    method = rows[0]["method"]
    words = [f"{method}, {row['size']}: {row['value']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})" for row in rows]
    return go.Scatter(
        x=[row["value"] for row in rows], y=y, mode="markers", name=method, legendgroup=method, error_x=bar,
        line={"color": look["color"]}, marker=look | {"size": 9}, text=words, hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _direction(metric: Metric) -> str:
    """What an axis of differences says, with the side on which the student is better."""
    points = " in points" if metric.errors else ""
    return f"{metric.name}{points}, student minus kit " + (
        "(← student better)" if metric.errors else "(→ student better)"
    )


def two_accounts(comparison: dict[str, Any]) -> go.Figure:
    """The same students against two kits: one that cost as much as all of them, one that cost as much as each."""
    *_, each, total = budgets(comparison)
    looks, sizes = _looks(comparison), list(comparison["sizes"])
    titles = [
        f"{WORDS[account]} ({tera(comparison, cost):.0f} TFLOP)"
        for account, cost in (("equal_total", total), ("equal_each", each))
    ]
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.04)
    methods = [name for name in looks if name not in _FOR_ALL]
    clear: dict[str, int] = {}
    for column, account in enumerate(ACCOUNTS, start=1):
        for number, method in enumerate(methods):
            rows = _differences(comparison, account, method=method, cost=each)
            if rows:
                y = [sizes.index(row["size"]) + 0.11 * (number - (len(methods) - 1) / 2) for row in rows]
                figure.add_trace(_marks(rows, y, looks[method]).update(showlegend=column == 1), row=1, col=column)
        clear[account] = sum(row["low"] > 0 for row in _differences(comparison, account, cost=each))
        figure.add_vline(x=0, line={"color": _TARGET, "width": 2}, row=1, col=column)
    count = len(_differences(comparison, "equal_total", cost=each))
    figure.update_yaxes(tickvals=list(range(len(sizes))), ticktext=sizes, autorange="reversed", showgrid=False)
    figure.update_xaxes(title=_direction(metric_of(comparison)), range=[-6, 13], zeroline=False)
    figure.update_annotations(font_size=13)
    return described(
        figure,
        f"Differences in BLEU between {count} students and the kit, with 95 percent intervals, by size. Against the kit that cost as much as four of them, "
        f"{clear['equal_total']} intervals lie above zero; against the kit that cost as much as one, {clear['equal_each']} of {count} do.",
        template="plotly_white", title={"text": "The same students, beside two kits (the pink line)", "y": 0.97}, height=520, width=880,
        margin={"l": 60, "r": 20, "t": 90, "b": 110}, legend={"orientation": "h", "y": -0.18, "x": 0.5, "xanchor": "center"},
    )  # fmt: skip


def against_the_kit(model: str, size: str, account: str) -> tuple[go.Figure, str]:
    """Every method minus the kit, with 95 % intervals, a panel for each cost of the kit.

    The challenge that goes with it: a place where the kit is ahead of every student, by more than chance.
    """
    comparison = measured(model)
    metric, looks, cost_of = metric_of(comparison), _looks(comparison), ACCOUNTS[account]
    all_rows = [row for row in _differences(comparison, account, size=size, seed=0) if row["method"] != "kit"]
    costs = sorted({row[cost_of] for row in all_rows if row["method"] not in _FOR_ALL})
    methods = [name for name in looks if any(row["method"] == name for row in all_rows)]
    figure = make_subplots(
        rows=1, cols=len(costs), shared_yaxes=True, horizontal_spacing=0.025, subplot_titles=[" "] * len(costs)
    )
    lines, met = [], False
    for column, cost in enumerate(costs, start=1):
        rows = [row for row in all_rows if row[cost_of] == cost]
        students = [row for row in rows if row["method"] not in _FOR_ALL]
        left, right = _window(rows, students)
        for row in rows:
            place, look = methods.index(row["method"]), looks[row["method"]]
            figure.add_trace(_marks([row], [place], look), row=1, col=column)
            for arrow in _arrows(row, place, look, left, right):
                figure.add_trace(arrow, row=1, col=column)
        figure.update_xaxes(range=[left, right], row=1, col=column)
        figure.add_vline(x=0, line={"color": _TARGET, "width": 2}, row=1, col=column)
        ahead, behind = (sum(_clearly(row, metric, side) for row in students) for side in (True, False))
        met = met or behind == len(students) > 0
        of = f"of {len(students)} student{'s' * (len(students) != 1)}"
        budget = f"{tera(comparison, cost):.0f} TFLOP"
        title = figure.layout.annotations[column - 1]
        title.text = f"{budget}<br>{ahead} ahead, {behind} behind, of {len(students)}"
        lines.append(f"{budget}: {of} {ahead} clearly ahead of the kit, {behind} clearly behind")
    figure.update_xaxes(nticks=5, zeroline=False)
    figure.update_yaxes(range=[len(methods) - 0.4, -0.6], tickvals=list(range(len(methods))), ticktext=methods)
    figure.update_annotations(font_size=13)
    note = f"{_direction(metric)}<br><span style='font-size:12px'>A scale for each panel, made for its students; ◂ ▸: goes on beyond it</span>"
    figure.add_annotation(
        text=note, xref="paper", yref="paper", x=0.5, y=-0.13, yanchor="top", showarrow=False, font_size=14
    )
    described(
        figure,
        f"{model}, {size}, {WORDS[account]}: {metric.name} of each method minus the kit's, with 95 percent intervals, by the kit's cost. {'; '.join(lines)}",
        template="plotly_white", title={"text": f"{model}, {size}, beside the kit (the pink line): {WORDS[account]}", "y": 0.97}, height=400, width=880,
        margin={"l": 165, "r": 20, "t": 90, "b": 95}, showlegend=False,
    )  # fmt: skip
    found = "<b>✓ Challenge: here the kit is clearly ahead of every student.</b> " if met else ""
    return (
        figure,
        f"<p>{found}Counted are students (so not LayerDrop) that are clearly ahead or behind: their interval does not hold zero.</p>",
    )


def _arrows(row: dict[str, Any], y: float, look: dict[str, Any], left: float, right: float) -> list[go.Scatter]:
    """At each edge that an interval goes beyond; with the value, if that is out there, too."""
    sides = (
        (left, "triangle-left", "top right", row["low"] < left, row["value"] < left),
        (right, "triangle-right", "top left", row["high"] > right, row["value"] > right),
    )
    return [
        go.Scatter(
            x=[edge], y=[y], mode="markers+text", marker={"symbol": symbol, "size": 10, "color": look["color"]},
            text=f"{row['value']:+.1f}" if value_too else "", textposition=inside, cliponaxis=False, hoverinfo="skip",
        )
        for edge, symbol, inside, beyond, value_too in sides if beyond
    ]  # fmt: skip


def _window(rows: Sequence[dict[str, Any]], students: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """A range in which students can be told apart: it has each one's marker, and cuts the longest intervals."""
    reach = max(
        1.3 * max(abs(row["value"]) for row in students),
        2.5 * min(max(-row["low"], row["high"]) for row in students),
    )
    left = max(-reach, min(0, *(row["low"] for row in rows)))
    right = min(reach, max(0, *(row["high"] for row in rows)))
    rim = 0.06 * (right - left)
    return left - rim, right + rim


def _clearly(row: dict[str, Any], metric: Metric, ahead: bool) -> bool:
    """Whether the interval of a difference excludes zero, on the better side or on the other one."""
    return bool(row["low"] > 0 if ahead != metric.errors else row["high"] < 0)


def who_is_ahead(comparison: dict[str, Any], account: str) -> str:
    """Beside the largest kit of an account, which students are clearly ahead of it and which behind, by name."""
    metric, rows = metric_of(comparison), _students(comparison, account)
    cost = max(row[ACCOUNTS[account]] for row in rows)
    rows = [row for row in rows if row[ACCOUNTS[account]] == cost]
    told = []
    for words, side in (("better", True), ("worse", False)):
        found = [row for row in rows if _clearly(row, metric, side)]
        names = [
            f"{method} at {', '.join(row['size'] for row in found if row['method'] == method)}"
            for method in dict.fromkeys(row["method"] for row in found)
        ]
        told.append(f"{len(found)} clearly {words} than the kit" + f" ({'; '.join(names)})" * bool(names))
    return f"{WORDS[account]} ({tera(comparison, cost):.0f} TFLOP): of {len(rows)} pairs of method and size {', '.join(told)}"


def _students(comparison: dict[str, Any], account: str) -> list[dict[str, Any]]:
    """Each student's first training, with its distance from the kit."""
    return [row for row in _differences(comparison, account, seed=0) if row["method"] not in _FOR_ALL]


def slot_errors(comparison: dict[str, Any]) -> list[dict[str, str]]:
    """The kit's slot errors in percent at the largest budget; below them, for equal total, the others' minus the kit's."""
    budget = budgets(comparison)[-1]
    lines = [
        {"": "kit"}
        | {size: f"{row_of(comparison, 'kit', size, budget)['mean']['ser']:.1f}" for size in comparison["sizes"]}
    ]
    for method in _looks(comparison):
        rows = _differences(comparison, "equal_total", method=method, total=budget)
        differences = {row["size"]: minus_kit(row, "equal_total", "ser") for row in rows}
        cells = {
            size: f"{value:+.1f} ({low:+.1f} to {high:+.1f})" for size, (value, (low, high)) in differences.items()
        }
        if cells:
            lines.append({"": method} | {size: cells.get(size, "") for size in comparison["sizes"]})
    return lines


# -- the rule ----------------------------------------------------------------------------------------------------------

#: How many sizes somebody wants.
WISHES = ("one", "two to four", "five to nine", "ten or more", "I do not know yet")
_EITHER = "a kit or a student of each size: which one is cheaper depends on the students"


def choices() -> list[tuple[str, float]]:
    """The budgets of translator's kits, in words, and their costs."""
    comparison = measured("translator")
    return [
        (
            f"{row_of(comparison, 'kit', '2x', cost)['minutes']:.0f} minutes of one thread ({tera(comparison, cost):.0f} TFLOP)",
            cost,
        )
        for cost in budgets(comparison)
    ]


def advice(sizes: str, stays: bool, budget: float) -> tuple[str, list[str]]:
    """What to train for so many sizes, if the original must stay as it is, and for a kit's budget; and what was measured."""
    of_each = _ahead("equal_each", budget)
    if sizes == "one":
        return "a student of that one size", of_each
    least, most, known = range_of_break_even(budget)
    pays = (
        f"translator ({tera(measured('translator'), budget):.0f} TFLOP): a kit is cheaper than students as good as it from {least} sizes on "
        f"in its best case, from {most}{'' if known else ' or more'} in its worst"
    )
    if sizes == "two to four":
        small = ", or a kit if they are the smallest ones" if least <= 3 else ""
        return f"a student of each size{small}", [pays, *of_each]
    if not stays:
        words = "LayerDrop, and a kit beside it; let dev decide"
        return words, [
            f"{model}: LayerDrop minus kit, {line}" for model in TELLING for line in [_layer_drop(model, budget)]
        ]
    kit = measured("translator")
    counts = f"translator: original and kit {kit['megabytes']['kit']:.0f} MB in half precision, four students {kit['megabytes']['students']:.0f} MB"
    answer = _EITHER if sizes == "five to nine" and (most > 5 or not known) else "a kit"
    return answer, [pays, *_ahead("equal_total", budget), counts]


def _index(budget: float) -> int:
    return budgets(measured("translator")).index(budget)


def _ahead(account: str, budget: float) -> list[str]:
    """For each model, how many kinds of students are clearly ahead of a kit of about this budget, and clearly behind."""
    lines = []
    for model in TELLING:
        comparison = measured(model)
        metric = metric_of(comparison)
        costs = budgets(comparison)[-3:]
        cost = costs[min(_index(budget), 1 if account == "equal_each" else 2)]
        rows = [row for row in _students(comparison, account) if row[ACCOUNTS[account]] == cost]
        ahead, behind = (sum(_clearly(row, metric, side) for row in rows) for side in (True, False))
        lines.append(
            f"{model}, by {metric.name}, where {WORDS[account]} ({tera(comparison, cost):.0f} TFLOP): of {len(rows)} pairs of method and size {ahead} are "
            f"clearly ahead of the kit, {behind} clearly behind"
        )
    return lines


def range_of_break_even(budget: float) -> tuple[int, int, bool]:
    """The least and the most of translator's break-evens for a kit of this budget, and whether the most is known.

    It is not where a student is better than the kit at the lowest cost that was tried ("5 or more").
    """
    comparison = measured("translator")
    cells = [
        _break_even_of(comparison, break_even, method, size, budget)
        for method in _STUDENTS
        for size in comparison["sizes"]
    ]
    numbers = [int(cell.split()[0]) for cell in cells if cell]
    return min(numbers), max(numbers), not any("or more" in cell for cell in cells)


def _layer_drop(model: str, budget: float) -> str:
    comparison = measured(model)
    metric = metric_of(comparison)
    costs = {row["cost"] for row in _differences(comparison, "equal_total", method="LayerDrop")}
    cost = min(sorted(costs)[-3:], key=lambda one: abs(math.log(one / budget)))
    rows = [
        row for row in _differences(comparison, "equal_total", method="LayerDrop", cost=cost) if row["size"] != "1x"
    ]
    words = ", ".join(f"{row['size']} {row['value']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})" for row in rows)
    better = "fewer are better" if metric.errors else "more is better"
    return f"{metric.name} ({better}) at {tera(comparison, cost):.0f} TFLOP: {words}"


def show_advice(sizes: str, stays: bool, budget: float) -> str:
    """The rule's answer with its evidence; the challenge: ask for many sizes so that the advice is not simply a kit."""
    answer, evidence = advice(sizes, stays, budget)
    met = sizes in WISHES[2:] and answer != "a kit"
    found = "<p><b>✓ Challenge: many sizes, and not simply a kit.</b></p>" if met else ""
    return f"<p>Train <b>{escape(answer)}</b>. What was measured:</p><ul>{''.join(f'<li>{escape(line)}</li>' for line in evidence)}</ul>{found}"


def rule() -> str:
    """The rule as lines; below each answer, the evidence of the largest budget that was not there before."""
    _, budget = choices()[-1]
    asked = [
        ("one", True),
        ("two to four", True),
        ("five to nine", True),
        ("ten or more", True),
        ("five or more", False),
    ]
    lines: list[str] = []
    for sizes, stays in asked:
        answer, evidence = advice(sizes, stays, budget)
        also = "" if sizes in WISHES[:2] else ", the original must stay" if stays else ", the original may change"
        lines.append(f"{sizes} size{'s' * (sizes != 'one')}{also}: {answer}")
        lines += [f"    {line}" for line in evidence if f"    {line}" not in lines]
    return "\n".join(lines)
