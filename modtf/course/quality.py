"""Notebook 5: slots, scores and their noise, times and theirs, and the checks of its exercises."""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from modtf.decoding import LOOP, decode
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.tasks.e2e import check, write_mr
from modtf.tasks.e2e.mrs import MR
from modtf.tasks.e2e.scores import bleu
from modtf.tasks.e2e.slots import SlotReport
from modtf.views.figures import described

_BLUE, _ORANGE, _HERE, _GREY = "#3b8fd0", "#e07b1a", "#cc4e94", "#888888"


# -- slots and BLEU ----------------------------------------------------------------------------------------------------


def chips(mr: MR, text: str) -> str:
    """What a text does with the slots, as the explorer shows it."""
    report = check(mr, text)
    said = [f"↻ {slot} repeated" if slot in report.repeated else f"✓ {slot}" for slot in report.said]
    faults = {"○": "missed", "≠": "wrong", "+": "added"}
    return " · ".join(
        said + [f"{sign} {slot} {fault}" for sign, fault in faults.items() for slot in getattr(report, fault)]
    )


def judge(mr: MR, reference: str) -> Callable[[str], str]:
    """For a text field: BLEU and slot errors of what is typed, and which challenges it meets."""

    def of_text(text: str) -> str:
        errors, score = check(mr, text).errors, bleu([text], [[reference]])
        met = {
            "two slot errors, and a BLEU over 80": errors >= 2 and score > 80,
            "no slot error, and a BLEU below 20": errors == 0 and score < 20,
        }
        lines = "".join(f"<li>{'✓' if done else '○'} {what}</li>" for what, done in met.items())
        return (
            f"<p>{escape(write_mr(mr))}</p><p><b>BLEU {score:.1f}</b>, <b>slot errors {errors}</b></p><p>{escape(chips(mr, text))}</p>"
            f"<p><b>Write a text with</b></p><ul style='list-style:none;padding-left:1em'>{lines}</ul>"
        )

    return of_text


def turned_around(text: str) -> str:
    """Whether families are welcome, said the other way round."""
    pattern = r"(not )?(a )?((?:kids?|child|children|family|families)[- ]*friendly)"
    return re.sub(pattern, lambda found: ("" if found[1] else "not ") + (found[2] or "") + found[3], text)


def without_last_sentence(text: str) -> str:
    sentences = re.split(r"(?<=[.!?])\s+", text)
    return " ".join(sentences[:-1] or sentences)


#: Where labels of the figure below stand, so that none hides another.
_PLACES = {
    "customer rating": "bottom center", "priceRange": "bottom center", "near": "bottom center", "food": "middle left",
    "area": "middle left", "familyFriendly": "middle right", "eatType": "middle right",
    "last sentence dropped": "top center", "family friendliness turned around": "bottom right",
}  # fmt: skip
#: The same for its inset.
_INSET_PLACES = {
    "1x": "top center", "6x": "bottom center", "2x": "top center", "Slug": "top center", "TGen": "bottom center",
}  # fmt: skip
#: The inset: its range of slot errors and BLEU, and its place as parts of the figure.
_ZOOM, _ZOOM_AT = ((0, 4), (65.6, 66.6)), ((0.06, 0.42), (0.08, 0.5))


def bleu_and_slot_errors(assemblies: Sequence[dict[str, Any]], published: dict[str, Any]) -> go.Figure:
    """Both scores of assemblies, published systems, and models that cannot say everything; the best of them enlarged."""
    rows = {row["system"]: row for row in published["rows"]}
    names = {"12-12": "1x", "6-6": "2x", "2-2": "6x"}
    groups = {
        "assemblies of pocket": (
            {names.get(row["layers"], row["layers"]): row for row in assemblies}, "circle", _BLUE
        ),
        "published systems": ({name: rows[name] for name in ("TGen", "Slug")}, "diamond", "#2a9d74"),
        "pocket, never told one slot": ({row["hidden"]: row for row in published["rows"] if "hidden" in row}, "x", _HERE),
        "Slug's texts, spoiled": (
            {name.partition(", ")[2]: row for name, row in rows.items() if name.startswith("Slug, ")}, "triangle-down", _ORANGE
        ),
    }  # fmt: skip
    figure = go.Figure()
    for group, (points, symbol, color) in groups.items():
        for inset in (False, True):
            shown = {name: row for name, row in points.items() if not inset or row["ser"] < _ZOOM[0][1]}
            places = _INSET_PLACES if inset else _PLACES
            pad = "" if inset else " " * 4  # the spaces keep a name off its mark, and off the ring
            figure.add_scatter(
                x=[row["ser"] for row in shown.values()], y=[row["bleu"] for row in shown.values()], name=group,
                mode="markers+text", marker={"symbol": symbol, "size": 10, "color": color}, hovertext=list(shown),
                text=[f"{pad}{name}{pad}" if name in places else "" for name in shown], textfont={"size": 13},
                textposition=[places.get(name, "bottom center") for name in shown],
                **({"xaxis": "x2", "yaxis": "y2", "showlegend": False} if inset else {}),
            )  # fmt: skip
    (left, right), (low, high) = _ZOOM
    figure.add_shape(type="rect", x0=left, x1=right, y0=low, y1=high, line={"color": _GREY, "width": 1})
    figure.add_annotation(
        x=2, y=low, ax=2.6, ay=59.4, axref="x", ayref="y", text="", arrowhead=2, arrowcolor=_GREY
    )  # fmt: skip
    liars = [rows[f"pocket, never told {slot}"] for slot in ("food", "familyFriendly")]
    figure.add_shape(
        type="circle", x0=liars[0]["ser"] - 0.7, x1=liars[1]["ser"] + 0.7, y0=65.2, y1=66.9, line={"color": "#b02a37", "width": 2.5}
    )  # fmt: skip
    figure.add_annotation(
        x=liars[0]["ser"] + 0.35, y=66.9, ax=0, ay=-24, text="<b>BLEU kept, facts lost</b>", font={"color": "#b02a37", "size": 14}, arrowcolor="#b02a37"
    )  # fmt: skip
    grid = {"anchor": "y2", "domain": _ZOOM_AT[0], "range": _ZOOM[0], "dtick": 1, "mirror": True, "linecolor": _GREY}
    figure.update_layout(
        xaxis2=grid, yaxis2=grid | {"anchor": "x2", "domain": _ZOOM_AT[1], "range": _ZOOM[1], "dtick": 0.5}
    )
    figure.update_xaxes(title="slot error rate (%), better to the left", range=[0, 26], selector={"anchor": None})
    figure.update_yaxes(title="BLEU, better upwards", range=[49, 69.5], selector={"anchor": None})
    kept = " and ".join(f"BLEU {row['bleu']:.1f} at {row['ser']:.0f} % slot errors" for row in liars)
    return described(
        figure,
        "BLEU over slot error rate. All assemblies of pocket from 1x to 6x and both published systems lie in a narrow band of "
        f"BLEU, at less than 4 % slot errors; an inset shows them enlarged. A ring marks two models in the same band of BLEU: {kept}, "
        "which never say the food or the family friendliness.",
        template="plotly_white", title="BLEU can hide omissions (630 inputs, people's texts)", height=520,
        legend={"orientation": "h", "y": -0.16}, margin={"l": 60, "r": 20, "t": 50, "b": 90},
    )  # fmt: skip


#: What :func:`columns_figure` can draw; a row is one of a bundled table.
COLUMNS: dict[str, Callable[[dict[str, Any], dict[str, Any]], float]] = {
    "times fewer layers": lambda row, first: row["ratio"],
    "times fewer parameters": lambda row, first: first["parameters"] / row["parameters"],
    "times as fast, one text": lambda row, first: row["speed_up"],
    "times as fast, one text, generate": lambda row, first: row["generate"]["speed_up"],
    "BLEU against people's texts": lambda row, first: row["bleu"],
    "BLEU against the original's texts": lambda row, first: row["bundled"]["bleu"],
    "slot errors, %": lambda row, first: row["ser"],
}


def columns_figure(rows: Sequence[dict[str, Any]], across: str, up: str) -> go.Figure:
    """One column of a table over another, a line for each strategy."""
    figure = go.Figure()
    first = rows[0]
    looks = {
        "size_first": (_BLUE, "circle", "solid"),
        "speed_first": (_ORANGE, "diamond", "dash"),
        "quality_first": ("#2a9d74", "square", "dot"),
    }
    for strategy, (color, symbol, dash) in looks.items():
        line = [row for row in rows if row["strategy"] == strategy]
        figure.add_scatter(
            x=[COLUMNS[across](row, first) for row in line], y=[COLUMNS[up](row, first) for row in line],
            text=[row["layers"] for row in line], name=strategy.replace("_", " "), mode="lines+markers",
            line={"color": color, "dash": dash}, marker={"symbol": symbol, "size": 8},
        )  # fmt: skip
    if across.startswith("times") and up.startswith("times"):
        figure.add_scatter(x=[1, 6.2], y=[1, 6.2], mode="lines", line={"color": "#bbbbbb", "width": 1}, name="the same")
    figure.update_xaxes(title=across).update_yaxes(title=up)
    ends = {name: COLUMNS[up](row, first) for name, row in (("1x", first), ("6x", rows[-1]))}
    return described(
        figure,
        f"{up[0].upper()}{up[1:]}, over {across}, a line for each of three strategies: from {ends['1x']:.3g} at 1x to {ends['6x']:.3g} at 6x.",
        template="plotly_white", title=f"{up[0].upper()}{up[1:]}, over {across}", height=400,
        legend={"orientation": "h", "y": -0.2}, margin={"l": 60, "r": 20, "t": 50, "b": 80},
    )  # fmt: skip


def slot_error_rate(reports: Sequence[SlotReport]) -> float:
    """Exercise 5.1: all errors of all texts, in percent of all slots of all inputs."""
    errors = sum(len(r.missed) + len(r.wrong) + len(r.repeated) + len(r.added) for r in reports)
    return 100 * errors / sum(len(r.said) + len(r.missed) + len(r.wrong) for r in reports)


def check_ser(ser: Callable[[list[SlotReport]], Any]) -> None:
    """Exercise 5.1."""
    right = SlotReport(said=("name", "food", "area"), missed=(), wrong=(), repeated=(), added=())
    mixed = SlotReport(
        said=("name", "food"), missed=("area",), wrong=("near",), repeated=("food",), added=("priceRange",)
    )
    missing = SlotReport(said=("name",), missed=("food",), wrong=(), repeated=(), added=())
    assert ser([right]) is not None, "ser([...]) gives nothing back yet"
    assert ser([right]) == 0, f"a text that says everything once has an SER of 0, not {ser([right])}"
    assert ser([missing]) != 0.5, "one of two slots is missed: that is 50 percent, not 0.5"
    assert ser([missing]) == 50, f"one of two slots is missed: 50 %, not {ser([missing])}"
    assert ser([mixed]) == 100, (
        f"four errors (missed, wrong, repeated, added) for an input of four slots are 100 %, not {ser([mixed]):g}"
    )
    assert ser([right, missing]) == 20, (
        f"one error in five slots is 20 %, not {ser([right, missing]):g}; add up first, then divide"
    )


# -- noise -------------------------------------------------------------------------------------------------------------


def bootstrap(
    candidate: np.ndarray, baseline: np.ndarray, slots: np.ndarray, inputs: int, rng: np.random.Generator
) -> np.ndarray:
    """Exercise 5.2: 2,000 times the difference of two slot error rates, in points, on inputs drawn anew for both at once."""
    drawn = rng.integers(len(slots), size=(2000, inputs))
    return 100 * (candidate[drawn] - baseline[drawn]).sum(1) / slots[drawn].sum(1)


def check_bootstrap(bootstrap: Callable[..., Any]) -> None:
    """Exercise 5.2."""

    def run(candidate: list[int], baseline: list[int], slots: list[int], inputs: int, seed: int = 0) -> np.ndarray:
        given = bootstrap(np.array(candidate), np.array(baseline), np.array(slots), inputs, np.random.default_rng(seed))
        assert given is not None, "bootstrap(candidate, baseline, slots, inputs, rng) gives nothing back yet"
        return np.asarray(given, dtype=float)

    given = run([1, 1, 1, 1], [0, 0, 0, 0], [4, 4, 4, 4], 4)
    assert given.shape == (2000,), f"2,000 differences are wanted, one for each draw; yours has the shape {given.shape}"
    assert not np.allclose(given, 0.25), "one error more in four slots is 25 points, and yours gives 0.25: percent?"
    assert np.allclose(given, 25), (
        f"one error more in each input of four slots: 25 points in every draw, not {given[0]:g}"
    )
    given = run([0, 5, 1, 9], [0, 5, 1, 9], [9, 9, 9, 9], 4)
    assert np.allclose(given, 0), (
        f"these two models make the same errors at each input, so every difference is 0, but yours reach {abs(given).max():.1f}: "
        "draw once, and take the same inputs for both"
    )
    given = run([1, 0], [0, 0], [1, 9], 2)
    assert len(np.unique(given.round(6))) > 1, (
        "every draw gives the same: draw with replacement, so that inputs come twice or not at all"
    )
    assert not np.isclose(given, 50).any(), (
        "of an input of one slot with an error and one of nine without, 1 in 10 slots is wrong: 10 %, and yours says 50: add up "
        "errors and slots first, then divide"
    )
    assert set(given.round(6)) == {0.0, 10.0, 100.0}, (
        f"0, 10 and 100 points are possible here; yours has {sorted(set(given.round(2)))[:5]}"
    )
    spread = [run([1, 0, 0, 1, 0, 0, 0, 1], [0] * 8, [2] * 8, inputs).std() for inputs in (8, 800)]
    assert spread[1] < spread[0] / 3, (
        f"draws of 800 inputs should scatter far less than draws of 8 ({spread[1]:.1f} and {spread[0]:.1f}): is `inputs` used?"
    )
    assert (run([1, 0], [0, 0], [1, 9], 2, 3) == run([1, 0], [0, 0], [1, 9], 2, 3)).all(), (
        "two runs with the same seed differ: draw from `rng`"
    )


def intervals_figure(intervals: dict[str, tuple[float, float, float]], inputs: int) -> go.Figure:
    """For each name the lower end, the middle and the upper end of an interval, over zero."""
    low, middle, high = (np.array(values) for values in zip(*intervals.values(), strict=True))
    bars = {"type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low, "thickness": 3}
    figure = go.Figure(go.Scatter(x=middle, y=list(intervals), mode="markers", marker={"size": 11}, error_x=bars))
    figure.add_vline(x=0, line={"color": _GREY, "dash": "dot"})
    figure.update_xaxes(title="points of SER", range=[-8, 6]).update_yaxes(autorange="reversed", type="category")
    return described(
        figure,
        f"Differences in SER from the original with 95 % intervals, for {inputs} inputs: "
        + ", ".join(f"{name} from {below:+.1f} to {above:+.1f}" for name, (below, _, above) in intervals.items()) + ".",
        template="plotly_white", title=f"SER minus the original's: 95 % intervals, {inputs} inputs", height=310,
    )  # fmt: skip


# -- times -------------------------------------------------------------------------------------------------------------


def first_and_later_runs(relative: np.ndarray) -> go.Figure:
    """Times of repeated runs, (assemblies, runs), each over the median of its assembly's later ones."""
    later = relative[:, 1:].ravel()
    figure = go.Figure()
    for number, values in enumerate(relative.T, start=1):
        figure.add_scatter(
            x=[number] * len(values), y=values, mode="markers", showlegend=False,
            marker={"color": _HERE if number == 1 else _BLUE, "size": 8},
        )  # fmt: skip
    for name, value, side in (("median", np.median(later), "bottom"), ("p95", np.percentile(later, 95), "top")):
        line = {"color": _GREY, "dash": "dot"}
        figure.add_hline(y=value, line=line, annotation_text=name, annotation_position=f"{side} left")
    figure.update_xaxes(title="run", dtick=1).update_yaxes(title="time / median of later runs", rangemode="tozero")
    return described(
        figure,
        f"The times of {relative.shape[1]} runs of {len(relative)} assemblies, each over the median of its later runs. The middle first run took "
        f"{np.median(relative[:, 0]):.2f} times that median; of the later ones, one in twenty took more than {np.percentile(later, 95):.2f} times.",
        template="plotly_white", title="The same sentence, 13 times, by eight assemblies", height=350,
    )  # fmt: skip


def median_ms(run: Callable[[], Any], repeats: int) -> float:
    """Exercise 5.3: the median time of a run in milliseconds, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def check_median_ms(median_ms: Callable[[Callable[[], Any], int], Any]) -> None:
    """Exercise 5.3: a slow start, and two runs that met a neighbour, so that the warm-up would move the median."""
    naps = iter([0.1, 0.004, 0.2, 0.004, 0.2, 0.004, *[0.004] * 50])
    calls = []

    def run() -> None:
        calls.append(1)
        time.sleep(next(naps))

    given = median_ms(run, 5)
    assert given is not None, "median_ms(run, 5) gives nothing back yet"
    assert len(calls) == 6, (
        f"with 5 repeats, run() should be called 6 times (one warms up); yours called it {len(calls)} times"
    )
    assert given > 1, f"a run of about 4 ms gave {given:.4g}; is that seconds?"
    assert given < 30, (
        f"three of the five runs took about 4 ms each, but yours says {given:.0f}; is the warm-up among them, or is it the mean?"
    )


@contextmanager
def neighbour() -> Iterator[None]:
    """Keeps this Python busy for some milliseconds, again and again."""
    leave = threading.Event()

    def work() -> None:
        while not leave.wait(0.004):
            sum(range(200_000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def writing(modular: ModularModel, assembly: Assembly, texts: list[str], engine: str = LOOP) -> Callable[[], Any]:
    """A run that writes exactly 32 tokens for each text."""
    ids, mask = modular.encode(texts).values()
    return partial(decode, modular.assembled(assembly), ids, mask, max_new_tokens=32, exactly=True, engine=engine)


def blocks_and_turns(medians: dict[str, float], turns: dict[str, list[float]]) -> go.Figure:
    """Times of A and B: the medians of all of one, then of all of the other; and each run of both in turns."""
    count = len(turns["A"])
    figure = go.Figure()
    for color, name, offset in ((_BLUE, "A", 0), (_ORANGE, "B", count)):
        figure.add_scatter(
            x=[offset, offset + count - 1], y=[medians[name]] * 2, mode="lines+text", line={"color": color, "width": 5},
            text=[f"{name}, median"], textposition="top right", textfont={"size": 13}, showlegend=False,
        )  # fmt: skip
        figure.add_scatter(
            x=[2 * count + 8 + 2 * i + (name == "B") for i in range(count)], y=turns[name], mode="markers",
            marker={"color": color, "size": 8}, name=name,
        )  # fmt: skip
    for arrival in (count - 0.5, 3 * count + 7.5):
        figure.add_vline(
            x=arrival,
            line={"color": _GREY, "dash": "dot"},
            annotation_text="a neighbour arrives",
            annotation_font_size=13,
        )
    figure.update_xaxes(tickvals=[count, 3 * count + 8], ticktext=["one after the other", "in turns"], showgrid=False)
    figure.update_yaxes(title="ms", rangemode="tozero")
    apart = medians["B"] / medians["A"]
    together = statistics.median(b / a for a, b in zip(turns["A"], turns["B"], strict=True))
    return described(
        figure,
        "Times of the same model under two names. One after the other, B meets the neighbour and A does not: B takes "
        f"{apart:.2f} times as long. In turns both meet it, and B takes {together:.2f} times as long as A.",
        template="plotly_white", title="One model, two names: A and B", height=350,
    )  # fmt: skip


def sizes_and_engines(rows: dict[str, dict[str, Any]], shapes: Sequence[str]) -> go.Figure:
    """Milliseconds of one text by shape and engine, from a bundled table, on a logarithmic axis."""
    engines: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "generate": lambda row: row["generate"], "loop": lambda row: row,
        "CTranslate2, float32": lambda row: row["ctranslate2"]["float32"],
        "CTranslate2, int8": lambda row: row["ctranslate2"]["int8"],
    }  # fmt: skip
    figure = go.Figure()
    for shape, color in zip(shapes, (_GREY, _BLUE, _ORANGE, _HERE), strict=False):
        times = [of(rows[shape])["latency_ms"]["median"] for of in engines.values()]
        figure.add_bar(
            x=list(engines), y=times, name=f"{shape} layers", marker_color=color, textposition="outside", cliponaxis=False,
            text=[f"{value:.0f}" if value > 10 else f"{value:.1f}" for value in times],
        )  # fmt: skip
    figure.update_yaxes(title="ms for 32 tokens", type="log", tickvals=[2, 5, 10, 20, 50, 100, 200], range=[0.2, 2.4])
    ends = [
        engines[name](rows[shape])["latency_ms"]["median"]
        for name, shape in (("generate", shapes[0]), ("CTranslate2, int8", shapes[-1]))
    ]
    return described(
        figure,
        f"Bars of milliseconds for one text of 32 tokens on a logarithmic axis, four engines by {len(shapes)} sizes: from {ends[0]:.0f} ms "
        f"({shapes[0]} by generate) to {ends[1]:.1f} ms ({shapes[-1]} by CTranslate2 in int8).",
        template="plotly_white", title="Size × engine: milliseconds for one text", height=400,
        legend={"orientation": "h", "y": -0.14}, margin={"l": 60, "r": 20, "t": 50, "b": 70},
    )  # fmt: skip
