"""Plotly figures from plain records, and the frame that shows them on a page.

Why a frame of our own: an HTML widget does not run scripts, FigureWidget is unreliable in Colab and needs an extension
in Voila, and an Output widget flickers at each move of the slider. A frame whose document is given as ``srcdoc`` runs
its scripts wherever an HTML widget can be shown (Voila, JupyterLab and Colab), with core ipywidgets only and without a
network. It loads plotly.js once, compressed to 1.5 MB from 4.7, which stays below Jupyter's limit on the data rate.
From then on, it redraws in place whenever the figure beside it changes.
"""

from __future__ import annotations

import base64
import gzip
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from modtf.evaluation import STUDENTS
from modtf.mapping import Assembly, LayerPath, Mapping, start_indices
from modtf.quality import Profile, forecast
from modtf.strategies import QUALITY_FIRST
from modtf.tasks.task import Metric

#: Colours after Okabe and Ito: distinct on white and on black, with any colour vision. Symbols and dashes differ, too.
_LOOKS: dict[str, dict[str, Any]] = {
    "size_first": {"name": "size first", "color": "#3b8fd0", "symbol": "circle", "dash": "solid", "size": 7},
    "speed_first": {"name": "speed first", "color": "#e07b1a", "symbol": "diamond", "dash": "dash", "size": 7},
    "quality_first": {"name": "quality first", "color": "#2a9d74", "symbol": "square", "dash": "dot", "size": 7},
}
_MINE: dict[str, Any] = {"name": "measured here", "color": "#8a8a8a", "symbol": "star", "dash": "solid", "size": 13}
_STUDENT: dict[str, Any] = {"color": "#8a6d3b", "dash": "solid", "size": 9}
_STUDENT_SYMBOLS = ("circle-open", "square", "square-open", "triangle-up", "triangle-up-open")
_HERE = "#cc4e94"
_COLORWAY = ("#3b8fd0", "#e07b1a", "#cc4e94", "#2a9d74", "#8a8a8a", "#b8860b")
_AGAINST = {"speed_up": "speed-up, measured (×)", "ratio": "compression ratio (×)"}
_GRID = "rgba(128,128,128,0.25)"


def quality_curve(
    rows: Sequence[dict[str, Any]],
    metrics: Sequence[Metric],
    here: dict[str, Any] | None = None,
    exact: bool = True,
    against: str = "speed_up",
    mine: Sequence[dict[str, Any]] = (),
    students: Sequence[dict[str, Any]] = (),
    titles: Sequence[str] | None = None,
) -> go.Figure:
    """The first two metrics of the trained rows against ``speed_up`` or ``ratio``, one line per strategy.

    ``here`` is the row to highlight; its mark is hollow where it is only the nearest one (``exact`` false). ``mine``
    are rows to show as separate points, ``students`` those of :func:`modtf.evaluation.measured_students`. ``titles``
    replace those of the metrics.
    """
    metrics = metrics[:2]
    titles = [metric.title for metric in metrics] if titles is None else titles
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.1)
    # What the number under the pointer is, such as "% slot errors" or "BLEU kept".
    units = [
        f"% {metric.name}" if metric.errors else title.partition(" (")[0]
        for metric, title in zip(metrics, titles, strict=True)
    ]

    def add(points: Sequence[dict[str, Any]], name: str, labels: list[str], **looks: Any) -> None:
        for column, (metric, unit) in enumerate(zip(metrics, units, strict=True), start=1):
            figure.add_scatter(
                x=[row[against] for row in points],
                y=[row[metric.field] for row in points],
                text=labels,
                row=1,
                col=column,
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                hovertemplate="%{text}<br>%{y:.1f} " + unit + "<br>%{x:.2f}×<extra></extra>",
                **looks,
            )

    trained = sorted((row for row in rows if row["trained"]), key=lambda row: row["ratio"])
    lines = [(look, [row for row in trained if row["strategy"] == strategy]) for strategy, look in _LOOKS.items()]
    looks = [
        ({"name": kind, "symbol": symbol, **_STUDENT}, [row for row in students if row["kind"] == kind])
        for kind, symbol in zip(STUDENTS.values(), _STUDENT_SYMBOLS, strict=True)
    ]
    for look, line in [*lines, (_MINE, mine), *looks]:
        if line:
            add(
                line,
                look["name"],
                [f"{row['ratio']:.2f}× · {row['layers']} layers · {look['name']}" for row in line],
                mode="lines+markers" if look in _LOOKS.values() else "markers",
                line={"color": look["color"], "dash": look["dash"], "width": 2},
                marker={"symbol": look["symbol"], "size": look["size"], "color": look["color"]},
            )
    if here is not None:
        outline = {"width": 3, "color": _HERE}
        add(
            [here],
            "you are here" if exact else "nearest measured",
            [f"{here['ratio']:.2f}× · {here['layers']} layers"],
            mode="markers",
            marker={"symbol": "circle" if exact else "circle-open", "size": 15, "color": _HERE, "line": outline},
        )
    _on_page(figure).update_annotations(font_size=13)
    axis = {"title": {"text": _AGAINST[against], "standoff": 6}, "zeroline": False, "ticksuffix": "×", "nticks": 7}
    figure.update_xaxes(gridcolor=_GRID, **axis)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False)
    for column, metric in enumerate(metrics, start=1):
        values = [row[metric.field] for row in [*trained, *mine, *students]]
        if metric.errors:
            figure.update_yaxes(rangemode="tozero", row=1, col=column)
        elif values:  # keep a wide range, so that small differences look small
            figure.update_yaxes(range=[min(90, min(values) - 2), max(102, max(values) + 1)], row=1, col=column)
    return figure


def before_and_after(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], metric: Metric) -> go.Figure:
    """What a training was worth: the share of a metric that each ratio keeps, dotted before it and solid after it.

    The rows are those of :func:`modtf.views.report.measure`; there is a line for each strategy.
    """
    figure = go.Figure()
    for rows, when, dash in ((before, "before training", "dot"), (after, "after", "solid")):
        for strategy, look in _LOOKS.items():
            line = sorted((row for row in rows if row["strategy"] == strategy), key=lambda row: row["ratio"])
            if line:
                figure.add_scatter(
                    x=[row["ratio"] for row in line], y=[row[metric.field] for row in line],
                    name=f"{look['name']}, {when}", mode="lines+markers", line={"color": look["color"], "dash": dash},
                    marker={"symbol": look["symbol"], "size": look["size"]}, text=[row["layers"] for row in line],
                    hovertemplate="%{text} layers: %{y:.0f} %<extra></extra>",
                )  # fmt: skip
    figure.update_xaxes(title=_AGAINST["ratio"])
    figure.update_yaxes(title=metric.title, rangemode="tozero")
    legend = {"orientation": "h", "y": 1, "yanchor": "bottom"}
    return figure.update_layout(template="plotly_white", height=440, legend=legend)


#: What a limit of :data:`modtf.quality.COSTS` counts, and how many of it make one unit.
UNITS = {
    "max_megabytes": ("MB in float32", 1),
    "max_parameters": ("million parameters", 1e6),
    "max_latency_ms": ("ms for 32 tokens", 1),
}


def frontier(
    profile: Profile, mapping: Mapping, limited: str, here: Assembly | None = None, limit: float | None = None
) -> go.Figure:
    """The losses of assemblies, measured and predicted, against what a limit named ``limited`` counts.

    Each line joins the assemblies that no cheaper one beats: of those that were measured, and of those that the
    profile's fit predicts to be the best of their lengths. ``here`` is the assembly to highlight, hollow where it is only
    predicted, and ``limit`` a vertical line, in these :data:`UNITS`.
    """
    words, unit = UNITS[limited]
    figure = go.Figure()

    def add(points: dict[Assembly, float], name: str, **looks: Any) -> None:
        figure.add_scatter(
            x=[profile.cost(assembly, limited) / unit for assembly in points], y=list(points.values()), name=name,
            text=[f"{assembly.ratio:.2f}× · {assembly.shape} layers" for assembly in points],
            hovertemplate="%{text}<br>%{y:.3f} nats a token, " + name + "<br>%{x:.3g} " + words + "<extra></extra>",
            **looks,
        )  # fmt: skip

    def best(points: dict[Assembly, float]) -> dict[Assembly, float]:
        found: dict[Assembly, float] = {}
        for assembly in sorted(points, key=lambda a: (profile.cost(a, limited), points[a])):
            if points[assembly] < min(found.values(), default=float("inf")):
                found[assembly] = points[assembly]
        return found

    measured, look = profile.losses, _LOOKS[QUALITY_FIRST]
    add(measured, "measured", mode="markers", marker={"color": "#8a8a8a", "size": 5, "opacity": 0.45})
    steps = {"mode": "lines+markers", "line": {"color": look["color"], "shape": "hv", "width": 2}}
    marker = {"symbol": look["symbol"], "size": look["size"], "color": look["color"]}
    add(best(measured), "best measured", **steps, marker=marker)
    steps["line"] = {"color": "#b8860b", "shape": "hv", "width": 1.5, "dash": "dash"}
    add(best(forecast(mapping, profile.fit)), "best predicted", **steps, marker={"symbol": "x-thin-open", "size": 7})
    if here is not None:
        known = here in measured
        add(
            {here: profile.loss(here)}, "you are here" if known else "you are here, predicted", mode="markers",
            marker={"symbol": "circle" if known else "circle-open", "size": 15, "color": _HERE, "line": {"width": 3, "color": _HERE}},
        )  # fmt: skip
    if limit is not None:
        figure.add_vline(x=limit, line={"color": _HERE, "width": 1, "dash": "dot"})
    figure.update_xaxes(title={"text": words, "standoff": 6}, gridcolor=_GRID, zeroline=False)
    figure.update_yaxes(title="loss, nats a token", gridcolor=_GRID, zeroline=False)
    return _on_page(figure, left=56)


def _on_page(figure: go.Figure, left: int = 44) -> go.Figure:
    """For the explorer's frame. The page sets the colour of text, so that it is legible on light and dark pages."""
    return figure.update_layout(
        template="none",
        height=270,
        margin={"l": left, "r": 12, "t": 34, "b": 74},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "y": -0.28, "x": 0.5, "xanchor": "center"},
        hovermode="closest",
        dragmode=False,
    )


#: What `benchmarks/versus.py` compares, in the order of its legend; the kit is drawn last, above all others.
_METHODS: dict[str, dict[str, Any]] = {
    "KD": {"color": "#3b8fd0", "symbol": "square", "dash": "solid"},
    "sequence-level KD": {"color": "#2a9d74", "symbol": "diamond", "dash": "dash"},
    "SFT": {"color": "#e07b1a", "symbol": "triangle-up", "dash": "solid"},
    "SFT, alternating layers": {"color": "#b8860b", "symbol": "triangle-down", "dash": "dash"},
    "SFT, all weights": {"color": "#e07b1a", "symbol": "triangle-up-open", "dash": "dot"},
    "Theseus": {"color": "#8a8a8a", "symbol": "x", "dash": "dot"},
    "LayerDrop": {"color": "#6a5acd", "symbol": "cross", "dash": "dash"},
    "kit": {"color": _HERE, "symbol": "circle", "dash": "solid"},
}
_ACCOUNTS = {"total": "together as much as the kit", "cost": "each as much as the kit"}


def versus_figure(comparison: dict[str, Any], metric: Metric, accounts: Sequence[str] = ("total", "cost")) -> go.Figure:
    """A kit and separately made students: a score on the test set against the cost of training.

    ``comparison`` is what `benchmarks/versus.py` wrote. A column for each size; a row for each of ``accounts``: against
    the cost of the students of all sizes together ("total"), or of one ("cost"). Costs are in floating-point
    operations. A point is the mean of its seeds, its bar their range; most have one seed, and so no bar. The dotted
    line is the original; what has less than half of its score lies below the axis. Errors are on a logarithmic axis.
    """
    rows, sizes, tera = comparison["rows"], list(comparison["sizes"]), comparison["unit_operations"] / 1e12
    of_original = (row for row in rows if (row["method"], row["size"]) == ("untrained", "1x"))
    original = next((row["test"][metric.key] for row in of_original), None)
    titles = [f"{size} ({_shape(comparison['sizes'][size])})" for size in sizes]
    least, unit = (0.02, " (%)") if metric.errors else (0, "")  # no errors at all have no place on a logarithmic axis
    figure = make_subplots(
        rows=len(accounts), cols=len(sizes), shared_xaxes="all", shared_yaxes=True, column_titles=titles,
        horizontal_spacing=0.02, vertical_spacing=0.06,
    )  # fmt: skip
    for number, account in enumerate(accounts, start=1):
        for column, size in enumerate(sizes, start=1):
            for method, look in _METHODS.items():
                scores = defaultdict(list)
                for row in rows:
                    if (row["method"], row["size"]) == (method, size):
                        scores[row[account] * tera].append(max(row["test"][metric.key], least))
                of_costs = [scores[cost] for cost in sorted(scores)]
                means = [sum(of_cost) / len(of_cost) for of_cost in of_costs]
                figure.add_scatter(
                    x=sorted(scores), y=means, name=method, legendgroup=method, row=number, col=column,
                    showlegend=number == column == 1, mode="lines+markers",
                    line={"color": look["color"], "dash": look["dash"], "width": 3 if method == "kit" else 1.5},
                    marker={"symbol": look["symbol"], "size": 9 if method == "kit" else 7},
                    error_y={
                        "type": "data", "symmetric": False, "thickness": 1, "width": 3,
                        "array": [max(v) - mean for v, mean in zip(of_costs, means, strict=True)],
                        "arrayminus": [mean - min(v) for v, mean in zip(of_costs, means, strict=True)],
                    },
                    hovertemplate=f"{method}, {size}<br>%{{y:.1f}} {metric.name}{unit}<br>%{{x:.0f}} TFLOP<extra></extra>",
                )  # fmt: skip
            if original is not None:
                figure.add_hline(
                    y=original, line={"color": "#8a8a8a", "dash": "dot", "width": 1}, row=number, col=column
                )
        figure.update_yaxes(title=f"{metric.name}{unit}: {_ACCOUNTS[account]}", row=number, col=1)
    costs = sorted({row[account] * tera for row in rows for account in accounts if row[account]})
    figure.update_xaxes(type="log", tickvals=costs, ticktext=[f"{cost:,.0f}" for cost in costs], gridcolor=_GRID)
    figure.update_xaxes(title="cost (TFLOP)", row=len(accounts))
    figure.update_yaxes(gridcolor=_GRID, zeroline=False)
    if metric.errors:  # over three orders of magnitude
        figure.update_yaxes(type="log", tickvals=[0.2, 0.5, 1, 2, 5, 10, 20, 50, 100])
    elif original is not None:
        figure.update_yaxes(range=[0.5 * original, 1.04 * original])
    legend = {"orientation": "h", "y": -0.12, "yanchor": "top", "x": 0.5, "xanchor": "center"}
    return figure.update_layout(template="none", height=110 + 260 * len(accounts), hovermode="closest", legend=legend)


def _shape(assembly: dict[str, Any]) -> str:
    return Assembly.from_json(assembly).shape


#: Colours of modularized layers from granularity 2 on: the coarser, the darker. Original layers are hollow.
_BLOCKS = ("#b9d7ee", "#8bbde2", "#5fa3d5", "#3b8fd0", "#2a6ea3", "#1b4b70")


def paths_figure(paths: dict[str, LayerPath], title: str = "") -> go.Figure:
    """Paths, such as ``{"encoder": (1, 1, 2, 2, 6)}``, as rows of blocks over the original layers.

    A block is labelled m(g, j), or with the original layer's number.
    """
    figure = go.Figure()
    upright = {"textposition": "inside", "insidetextanchor": "middle", "textangle": 0, "constraintext": "none"}
    blocks = [
        (row, g, start) for row, path in paths.items() for g, start in zip(path, start_indices(path), strict=True)
    ]
    for g in sorted({g for _, g, _ in blocks}):
        starts = [start for _, granularity, start in blocks if granularity == g]
        if g == 1:
            labels, color, text_color = [str(start) for start in starts], "rgba(255,255,255,0)", None
        else:
            labels = [f"m({g}, {start // g})" for start in starts]
            color = _BLOCKS[min(g - 2, len(_BLOCKS) - 1)]
            text_color = "white" if color in _BLOCKS[3:] else "#222222"
        figure.add_bar(
            orientation="h",
            y=[row for row, granularity, _ in blocks if granularity == g],
            x=[g] * len(starts),
            base=starts,
            width=0.76,
            text=labels,
            textfont={"color": text_color},
            marker={"color": color, "line": {"color": "#888888", "width": 1.5}},
            hovertemplate="%{text}<extra></extra>",
            **upright,
        )
    depth = max(map(sum, paths.values()))
    figure.update_layout(
        template="plotly_white", title=title, barmode="overlay", height=120 + 34 * len(paths), showlegend=False
    )
    figure.update_xaxes(
        title="original layers",
        tickvals=[i + 0.5 for i in range(depth)],
        ticktext=list(range(depth)),
        range=[-0.1, depth + 0.1],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def described(figure: go.Figure, alt: str, **layout: Any) -> go.Figure:
    """The figure as the notebooks show it, with ``alt`` as its text alternative; ``layout`` overrides the defaults."""
    margin = {"l": 60, "r": 20, "t": 50, "b": 50}
    figure.update_layout(meta={"alt": alt}, colorway=_COLORWAY, font={"size": 13}, margin=margin)
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
    return figure.update_layout(**layout)


#: Class of the element that holds frame and figure. A frame looks for its own, so several can share one page.
CURVE_CLASS = "modtf-curve"


def figure_html(figure: go.Figure) -> str:
    """A figure as the text of a hidden element, which the frame beside it (:func:`frame_html`) draws."""
    return f'<div class="modtf-figure" hidden>{escape(str(figure.to_json()))}</div>'


def frame_html(title: str, height: int = 274) -> str:
    """A frame, ``height`` pixels high, that draws the figure in the same :data:`CURVE_CLASS` whenever it changes."""
    return (
        f'<iframe title="{escape(title)}" srcdoc="{escape(_frame_document())}" '
        f'style="border:0;width:100%;height:{height}px;display:block;background:transparent"></iframe>'
    )


@cache
def _frame_document() -> str:
    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6)).decode()
    return f"""<!doctype html><meta charset="utf-8">
<style>body{{margin:0;overflow:hidden;font:13px system-ui,sans-serif}}</style>
<div id="figure"></div><script>
(async () => {{
  const element = document.getElementById("figure");
  try {{
    const packed = Uint8Array.from(atob("{packed}"), (c) => c.charCodeAt(0));
    const source = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
    const box = frameElement.closest(".{CURVE_CLASS}");
    let drawn = "";
    const draw = () => {{
      const text = box.querySelector(".modtf-figure")?.textContent ?? "";
      const page = getComputedStyle(box);
      if (!text || text + page.color === drawn) return;
      drawn = text + page.color;
      document.documentElement.style.colorScheme = page.colorScheme;
      const figure = JSON.parse(text);
      figure.layout.font = {{...figure.layout.font, color: page.color}};
      Plotly.react(element, figure.data, figure.layout, {{displayModeBar: false, responsive: true}});
    }};
    new MutationObserver(draw).observe(box, {{childList: true, subtree: true, characterData: true}});
    draw();
  }} catch (error) {{
    element.textContent = "The curve could not be drawn in this browser: " + error;
  }}
}})();
</script>"""
