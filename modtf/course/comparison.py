"""Notebook 6, one kit or several students: checks of its exercises, its figures over cost, and its rule."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from html import escape
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


# -- exercise 6.1: what a step costs -----------------------------------------------------------------------------------


def step_cost(assembly: Assembly, teacher: bool = False) -> int:
    """What a training step of an assembly computes, in passes through one layer, whichever: see :func:`step_passes`."""
    return sum(step_passes(assembly, teacher))


def check_step_cost(function: Callable[..., Any]) -> None:
    six, last = Assembly((6,), (6,)), Assembly((1,) * 6, (1, 1, 1, 3))
    assert function(six) is not None, "step_cost(assembly) gives nothing back yet"
    for assembly, wanted, words in (
        (six, 5, "2 forward, 1 back through the layer behind the first module, 2 modules whose weights learn"),
        (Assembly((2, 2, 2), (2, 2, 2)), 17, "6 forward, 5 back, 6 modules"),
        (last, 11, "10 forward and 1 module; nothing lies behind it, and layers before it need no gradient"),
        (Assembly((2, 1, 1, 1, 1), (1,) * 6), 22, "11 forward, 10 back, all through the decoder, and 1 module"),
        (Assembly((1,) * 6, (1,) * 6), 12, "12 forward; where nothing learns, nothing goes back"),
    ):
        given = function(assembly)
        assert given == wanted, f"a step of {assembly} costs {wanted} ({words}), not {given}"
    given = function(six, teacher=True)
    assert given == 17, f"with a teacher a step of {six} costs 12 more, all original layers forward: 17, not {given}"


#: Passes through a layer that the product with the vocabulary is worth on pocket, forward and back.
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
            {"size": name, "passes": passes, "counted, GFLOP": round(giga, 2), "GFLOP a pass": round(giga / passes, 3)}
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


# -- exercise 6.2: kit less student ------------------------------------------------------------------------------------


def kit_less_student(kit: np.ndarray, student: np.ndarray, slots: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the kit's slot error rate less the student's, in points (paired bootstrap).

    ``kit`` and ``student`` (inputs,) are the errors of each text, ``slots`` (inputs,) the slots asked for; each row of
    ``draws`` (samples, inputs) is a sample of inputs, the same for both.
    """
    difference = 100 * (kit[draws].sum(1) - student[draws].sum(1)) / slots[draws].sum(1)
    low, high = np.percentile(difference, [2.5, 97.5])
    return float(low), float(high)


def check_kit_less_student(function: Callable[..., Any]) -> None:
    rng = np.random.default_rng(1)
    slots = rng.integers(3, 9, size=200)
    hard = rng.binomial(slots, 0.5)  # a hard input is hard for both
    kit, draws = hard + rng.binomial(1, 0.3, size=200), draws_of(200)
    assert function(kit, hard, slots, draws) is not None, "kit_less_student(...) gives nothing back yet"
    same = tuple(function(kit, kit, slots, draws))
    assert len(same) == 2, f"two numbers are wanted, low and high, not {len(same)}"
    assert np.allclose(same, 0), (
        f"a model less itself is 0 on any sample, so the interval is 0 to 0, not {same[0]:.2f} to {same[1]:.2f}: "
        "take the same sample of inputs for both"
    )
    low, high = function(kit, hard, slots, draws)
    wanted = kit_less_student(kit, hard, slots, draws)
    assert low <= high, f"the lower end comes first, not {low:.2f} to {high:.2f}"
    assert high > 0, "the kit makes more errors here, so kit less student is positive; yours is the other way round"
    assert high > 1, f"in points (percent) the upper end is {wanted[1]:.2f}, not {high:.4f}: is it a share?"
    averaged = np.percentile((100 * (kit - hard) / slots)[draws].mean(1), [2.5, 97.5])
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
    """What an interval of slot errors, kit less student, says."""
    return "the student makes fewer" if low > 0 else "the kit makes fewer" if high < 0 else "no difference is shown"


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

    Each of ``mine`` has ``who`` ("kit" or "student"), ``size``, ``tflop`` and the score under its key.
    """
    metric = metric_of(comparison)
    figure = versus_figure(comparison, metric, ("total",))
    sizes = list(comparison["sizes"])
    for who, symbol in (("kit", "star"), ("student", "star-open")):
        points = [point for point in mine if point["who"] == who]
        for column, size in enumerate(sizes, start=1):
            of_size = [point for point in points if point["size"] == size]
            if of_size:
                figure.add_scatter(
                    x=[point["tflop"] for point in of_size], y=[max(point[metric.key], 0.02) for point in of_size],
                    mode="markers", marker={"symbol": symbol, "size": 12, "color": "#222222", "line": {"width": 1.5}},
                    name=f"your {who}", legendgroup=f"your {who}", showlegend=of_size[0] is points[0], row=1, col=column,
                    hovertemplate=f"your {who}, {size}<br>%{{y:.1f}} {metric.name}<br>%{{x:.2f}} TFLOP<extra></extra>",
                )  # fmt: skip
    unit = " (%)" if metric.errors else ""
    figure.update_yaxes(title=f"{metric.name}{unit}, test set", row=1, col=1)
    figure.update_xaxes(title="TFLOP for all sizes", tickangle=-45)
    margin = {"l": 60, "r": 20, "t": 90, "b": 130}
    legend = {"orientation": "h", "y": -0.42, "yanchor": "top", "x": 0.5, "xanchor": "center"}
    return described(
        figure,
        alt,
        title={"text": title, "y": 0.96},
        height=460,
        width=880,
        margin=margin,
        legend=legend,
        template="plotly_white",
    )


def _looks(comparison: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Colour and symbol of each method, as in the figure of all curves."""
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


def _marks(
    rows: Sequence[dict[str, Any]], x: Sequence[float], y: Sequence[float], look: dict[str, Any], across: bool
) -> go.Scatter:
    bar = {
        "type": "data", "symmetric": False, "thickness": 1.6, "width": 3,
        "array": [row["high"] - row["value"] for row in rows], "arrayminus": [row["value"] - row["low"] for row in rows],
    }  # fmt: skip
    method = rows[0]["method"]
    words = [f"{method}, {row['size']}: {row['value']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})" for row in rows]
    return go.Scatter(
        x=x, y=y, mode="markers" if across else "lines+markers", name=method, legendgroup=method,
        line={"color": look["color"], "width": 1.2}, marker=look | {"size": 9}, **{"error_x" if across else "error_y": bar},
        text=words, hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


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
                trace = _marks(rows, [row["value"] for row in rows], y, looks[method], across=True)
                figure.add_trace(trace.update(showlegend=column == 1), row=1, col=column)
        clear[account] = sum(row["low"] > 0 for row in _differences(comparison, account, cost=each))
        figure.add_vline(x=0, line={"color": _TARGET, "width": 2}, row=1, col=column)
    count = len(_differences(comparison, "equal_total", cost=each))
    figure.update_yaxes(tickvals=list(range(len(sizes))), ticktext=sizes, autorange="reversed", showgrid=False)
    figure.update_xaxes(title="BLEU, student less kit", range=[-6, 13], zeroline=False)
    figure.update_annotations(font_size=13)
    return described(
        figure,
        f"Differences in BLEU between {count} students and the kit, with 95 percent intervals, by size. Against the kit that cost as much as four of them, "
        f"{clear['equal_total']} intervals lie above zero; against the kit that cost as much as one, {clear['equal_each']} of {count} do.",
        template="plotly_white", title={"text": "The same students, beside two kits (the pink line)", "y": 0.97}, height=520, width=880,
        margin={"l": 60, "r": 20, "t": 90, "b": 110}, legend={"orientation": "h", "y": -0.18, "x": 0.5, "xanchor": "center"},
    )  # fmt: skip


def against_the_kit(model: str, size: str, account: str) -> tuple[go.Figure, str]:
    """Every method less the kit, with 95 % intervals, over the kit's cost; and in words, how many are clearly ahead.

    The challenge that goes with it: a place where the kit is ahead of every student, by more than chance.
    """
    comparison = measured(model)
    metric, looks = metric_of(comparison), _looks(comparison)
    figure, better, worse = go.Figure(), [], []
    all_rows = [row for row in _differences(comparison, account, size=size, seed=0) if row["method"] != "kit"]
    for number, method in enumerate(looks):
        rows = sorted((row for row in all_rows if row["method"] == method), key=lambda row: row["cost"])
        if rows:
            shift = 1 + 0.03 * (number - len(looks) / 2)  # side by side, since bars would hide each other
            x = [tera(comparison, row[ACCOUNTS[account]]) * shift for row in rows]
            figure.add_trace(_marks(rows, x, [row["value"] for row in rows], looks[method], across=False))
    figure.add_hline(
        y=0, line={"color": _TARGET, "width": 2}, annotation_text="the kit", annotation_position="bottom right"
    )
    costs = sorted({row[ACCOUNTS[account]] for row in all_rows})
    lines = []
    for cost in costs:
        students = [row for row in all_rows if row[ACCOUNTS[account]] == cost and row["method"] not in _FOR_ALL]
        ahead, behind = ([row for row in students if _clearly(row, metric, side)] for side in (True, False))
        lines.append(
            f"{tera(comparison, cost):.0f} TFLOP: of {len(students)} kinds of student {len(ahead)} clearly ahead of the kit, {len(behind)} clearly behind"
        )
        better.append(len(ahead) == len(students))
        worse.append(len(behind) == len(students) > 0)
    found = "✓ Challenge: here the kit is clearly ahead of every student. " if any(worse) else ""
    unit = " (points of SER)" if metric.errors else ""
    figure.update_xaxes(
        type="log", tickvals=[tera(comparison, cost) for cost in costs], ticktext=[f"{tera(comparison, cost):,.0f}" for cost in costs],
        title="TFLOP of the kit",
    )  # fmt: skip
    figure.update_yaxes(title=f"{metric.name}{unit}: other less kit", zeroline=False)
    alt = (
        f"{model}, {size}, {WORDS[account]}: {metric.name} of each method less the kit's over the kit's cost, with 95 percent intervals. "
        + "; ".join(lines)
    )
    described(
        figure, alt, template="plotly_white", title=f"{model}, {size}: {WORDS[account]}", height=430, width=880,
        margin={"l": 60, "r": 20, "t": 60, "b": 120}, legend={"orientation": "h", "y": -0.25, "x": 0.5, "xanchor": "center"},
    )  # fmt: skip
    lower = " Fewer slot errors are better: below the line is ahead." if metric.errors else ""
    return figure, f"<p><b>{found}</b>{escape('; '.join(lines))}.{lower}</p>"


def _clearly(row: dict[str, Any], metric: Metric, ahead: bool) -> bool:
    """Whether the interval of a difference excludes zero, on the better side or on the other one."""
    return bool(row["low"] > 0 if ahead != metric.errors else row["high"] < 0)


def slot_errors(comparison: dict[str, Any]) -> list[dict[str, str]]:
    """Slot errors at the largest budget and equal total, and in brackets the 95 % interval of the distance from the kit's."""
    budget = budgets(comparison)[-1]
    lines = [
        {"": "kit"}
        | {size: f"{row_of(comparison, 'kit', size, budget)['mean']['ser']:.1f}" for size in comparison["sizes"]}
    ]
    for method in _looks(comparison):
        rows = _differences(comparison, "equal_total", method=method, total=budget)
        cells = {row["size"]: f"{row['mean']['ser']:.1f} ({row['low']:+.1f} to {row['high']:+.1f})" for row in rows}
        if cells:
            lines.append({"": method} | {size: cells.get(size, "") for size in comparison["sizes"]})
    return lines


# -- the rule ----------------------------------------------------------------------------------------------------------

#: How many sizes somebody wants.
WISHES = ("one", "two to four", "five or more", "I do not know yet")


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
    numbers = _numbers_of_break_even(budget)
    pays = f"translator: by size, a kit is cheaper than students as good as it from {min(numbers)} to {max(numbers)} sizes on"
    if sizes == "two to four":
        small = ", or a kit if they are the smallest ones" if min(numbers) <= 3 else ""
        return f"a student of each size{small}", [pays, *of_each]
    if not stays:
        words = "LayerDrop, and a kit beside it; let dev decide"
        return words, [
            f"{model}: LayerDrop less the kit, {line}" for model in TELLING for line in [_layer_drop(model, budget)]
        ]
    kit = measured("translator")
    counts = f"translator: original and kit {kit['megabytes']['kit']:.0f} MB in half precision, four students {kit['megabytes']['students']:.0f} MB"
    return "a kit", [pays, *_ahead("equal_total", budget), counts]


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
        rows = [
            row
            for row in _differences(comparison, account, seed=0)
            if row[ACCOUNTS[account]] == cost and row["method"] not in _FOR_ALL
        ]
        ahead, behind = (sum(_clearly(row, metric, side) for row in rows) for side in (True, False))
        lines.append(
            f"{model}, by {metric.name}, where {WORDS[account]} ({tera(comparison, cost):.0f} TFLOP): of {len(rows)} students {ahead} are "
            f"clearly ahead of the kit, {behind} clearly behind"
        )
    return lines


def _numbers_of_break_even(budget: float) -> list[int]:
    comparison = measured("translator")
    cells = [
        _break_even_of(comparison, break_even, method, size, budget)
        for method in _STUDENTS
        for size in comparison["sizes"]
    ]
    return [int(cell.split()[0]) for cell in cells if cell]


def _layer_drop(model: str, budget: float) -> str:
    comparison = measured(model)
    metric = metric_of(comparison)
    costs = {row["cost"] for row in _differences(comparison, "equal_total", method="LayerDrop")}
    cost = min(sorted(costs)[-3:], key=lambda one: abs(math.log(one / budget)))
    rows = [
        row for row in _differences(comparison, "equal_total", method="LayerDrop", cost=cost) if row["size"] != "1x"
    ]
    words = ", ".join(f"{row['size']} {row['value']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})" for row in rows)
    return f"{metric.name} at {tera(comparison, cost):.0f} TFLOP: {words}"


def show_advice(sizes: str, stays: bool, budget: float) -> str:
    """The rule's answer with its evidence; the challenge is to want many sizes and not be given a kit."""
    answer, evidence = advice(sizes, stays, budget)
    found = "<p><b>✓ Challenge: many sizes, and no kit.</b></p>" if sizes in WISHES[2:] and answer != "a kit" else ""
    return f"<p>Train <b>{escape(answer)}</b>. What was measured:</p><ul>{''.join(f'<li>{escape(line)}</li>' for line in evidence)}</ul>{found}"


def rule() -> str:
    """The rule as lines, with the evidence of the largest budget below each answer."""
    _, budget = choices()[-1]
    asked = [("one", True), ("two to four", True), ("five or more", False), ("five or more", True)]
    lines = []
    for sizes, stays in asked:
        answer, evidence = advice(sizes, stays, budget)
        also = "" if sizes in WISHES[:2] else ", the original must stay" if stays else ", the original may change"
        lines += [f"{sizes} size{'s' * (sizes != 'one')}{also}: {answer}", *(f"    {line}" for line in evidence)]
    return "\n".join(lines)
