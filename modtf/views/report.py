"""What a training has made, as one page that needs nothing else: quality by size, losses, samples, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

import plotly.graph_objects as go

from modtf.decoding import decode
from modtf.evaluation import in_turns, score_texts_of, size_of_assembly, write_texts
from modtf.modular import ModularModel
from modtf.saving import write_whole
from modtf.strategies import STRATEGIES
from modtf.tasks import TEXT, Example, task_named
from modtf.tasks.examples import spread
from modtf.tasks.task import Metric
from modtf.training.watch import FILE as QUALITY
from modtf.training.watch import read_quality
from modtf.views.figures import quality_curve

FILE = "report.html"
#: The same rows, for programs.
ROWS = "report.json"
#: Ratios that a report shows, as far as the kit reaches, and inputs of which it shows the texts.
_RATIOS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_SAMPLES = 4
#: Tokens that each size writes for a time, and how often: with free lengths, one that stops early would look fast.
_TOKENS, _REPEATS = 32, 3
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } th, td { padding: .3em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, .texts td { text-align: left; vertical-align: top; } h2 { margin-top: 2em; }
.source { background: #f3f3f3; padding: .5em .8em; } code { background: #f3f3f3; }
"""


def measure(
    modular: ModularModel, examples: Sequence[Example], progress: Callable[[int], Any] = lambda done: None
) -> list[dict[str, Any]]:
    """A row for each size that the two strategies reach at some ratios: its scores, size, speed-up and a few texts."""
    task = task_named(modular.task)
    wanted = {
        (strategy, modular.choose(ratio, strategy)): ratio
        for strategy in STRATEGIES
        for ratio in (*_RATIOS, modular.mapping.maximum_ratio)
        if ratio <= modular.mapping.maximum_ratio
    }
    assemblies = list(dict.fromkeys(assembly for _, assembly in wanted))
    sources = [example.source for example in examples]
    samples = spread(range(len(examples)), _SAMPLES)
    ids, mask = modular.encode([sources[samples[0]]]).values()
    runs: dict[Any, Callable[[], Any]] = {
        assembly: partial(decode, modular.assembled(assembly), ids, mask, max_new_tokens=_TOKENS, exactly=True)
        for assembly in assemblies
    }
    times = {assembly: median(of_one) for assembly, of_one in in_turns(runs, _REPEATS).items()}
    measured: dict[Any, dict[str, Any]] = {}
    for number, assembly in enumerate(assemblies, start=1):
        texts = write_texts(modular, assembly, sources)
        measured[assembly] = {
            **score_texts_of(modular, examples, texts),
            "parameters": size_of_assembly(modular, assembly).parameters,
            "latency_ms": times[assembly],
            "speed_up": times[modular.mapping.original] / times[assembly],
            "texts": [texts[sample] for sample in samples],
        }
        progress(number)
    full = measured[modular.mapping.original]
    rows = []
    for strategy, assembly in wanted:
        row = {"strategy": strategy, "layers": assembly.shape, "assembly": str(assembly), "ratio": assembly.ratio}
        kept = {
            metric.field: 100 * measured[assembly][metric.key] / full[metric.key] if full[metric.key] else 0.0
            for metric in task.metrics
            if not metric.errors
        }
        rows.append({**row, "trained": True, **measured[assembly], **kept})
    return rows


def write_report(
    folder: str | Path, modular: ModularModel, examples: Sequence[Example], rows: Sequence[dict[str, Any]]
) -> Path:
    """Write ``report.html`` into a training's folder, from ``rows`` of :func:`measure` on ``examples``; they are beside it."""
    path = Path(folder) / FILE
    write_whole(path.with_name(ROWS), json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n")
    write_whole(path, _page(path.parent, modular, examples, rows))
    return path


def _page(folder: Path, modular: ModularModel, examples: Sequence[Example], rows: Sequence[dict[str, Any]]) -> str:
    task = task_named(modular.task)
    training = _read(folder / "training.json") or {}
    figures = [quality_curve(rows, task.metrics, against="ratio")]
    if course := course_figure(folder, task.metrics):
        figures.append(course)
    shown = [
        figure.update_layout(template="plotly_white").to_html(full_html=False, include_plotlyjs=number == 0)
        for number, figure in enumerate(figures)
    ]
    stacks = ", ".join(
        f"{stack.name} {stack.depth} layers, {_listed(stack.granularities)}" for stack in modular.mapping.stacks
    )
    parts = [
        f"<h1>{escape(folder.resolve().name)}: a kit of modularized layers</h1>",
        f"<p>{escape(type(modular.model).__name__)}; {stacks} as granularities. Ratios up to {modular.mapping.maximum_ratio:.1f}x.</p>",
        f"<h2>Quality by size</h2><p>On {len(examples)} inputs that the training did not see.</p>",
        shown[0],
        _table(rows, task.metrics),
        "<p>Times are those of one text of 32 tokens, on the machine that trained; all sizes took turns.</p>",
    ]
    if len(shown) > 1:
        parts += ["<h2>The training</h2>", shown[1]]
    if training:
        cells = "".join(
            f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>" for key, value in training.items()
        )
        parts += ["<h2>What it cost</h2>", f"<table>{cells}</table>"]
    parts += ["<h2>Texts</h2>", *_samples(examples, rows)]
    parts += [
        "<h2>Use it</h2><pre><code>import modtf\n\n"
        f"modular = modtf.load({escape(repr(str(folder)))})\nmodular.generate(text, ratio=2)\n"
        'modular.assemble(ratio=2).save_pretrained("small")  # loads with plain transformers</code></pre>'
    ]
    body = "\n".join(parts)
    title = escape(folder.resolve().name)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _table(rows: Sequence[dict[str, Any]], metrics: Sequence[Any]) -> str:
    names = ["layers", "ratio", *(metric.name for metric in metrics), "parameters", "ms", "speed-up"]
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"]
    for row in {row["layers"]: row for row in sorted(rows, key=lambda row: row["ratio"])}.values():
        cells = [row["layers"], f"{row['ratio']:.2f}x", *(f"{row[metric.key]:.1f}" for metric in metrics)]
        cells += [f"{row['parameters']:,}", f"{row['latency_ms']:.0f}", f"{row['speed_up']:.2f}x"]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _samples(examples: Sequence[Example], rows: Sequence[dict[str, Any]]) -> list[str]:
    chosen = spread(examples, _SAMPLES)
    of_sizes = [row for row in sorted(rows, key=lambda row: row["ratio"]) if row["strategy"] == "size_first"]
    parts = []
    for number, example in enumerate(chosen):
        lines = [
            f"<tr><td>{row['ratio']:.1f}x ({row['layers']})</td><td>{escape(row['texts'][number])}</td></tr>"
            for row in of_sizes
        ]
        reference = f"<tr><td>reference</td><td>{escape(example.references[0])}</td></tr>"
        parts.append(
            f'<p class="source">{escape(example.source)}</p><table class="texts">{reference}{"".join(lines)}</table>'
        )
    return parts


def course_figure(folder: Path, metrics: Sequence[Metric] = TEXT.metrics) -> go.Figure | None:
    """The loss of a training, from its folder, and the quality that was seen meanwhile, over steps; None without a loss."""
    states = sorted(
        folder.glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name.rpartition("-")[2])
    )
    history = (_read(states[-1]) or {}).get("log_history", []) if states else []
    logged = [entry for entry in history if "loss" in entry]
    if not logged:
        return None
    figure = go.Figure()
    figure.add_scatter(x=[entry["step"] for entry in logged], y=[float(entry["loss"]) for entry in logged], name="loss")
    seen = read_quality(folder / QUALITY) if (folder / QUALITY).is_file() else []
    names = {metric.key: metric.name for metric in metrics}
    metric_name = names.get(seen[0]["metric"], seen[0]["metric"]) if seen else ""
    for shape in sorted({key for row in seen for key in row} - {"step", "metric", "full"}):
        points = [(row["step"], row[shape]) for row in seen if shape in row]
        figure.add_scatter(
            x=[step for step, _ in points],
            y=[score for _, score in points],
            name=f"{shape}: {metric_name}",
            yaxis="y2",
        )
    figure.update_layout(
        template="plotly_white",
        xaxis={"title": "step", "rangemode": "tozero"},
        yaxis={"title": "loss", "rangemode": "tozero"},
        yaxis2={
            "title": metric_name, "overlaying": "y", "side": "right", "rangemode": "tozero", "tickmode": "auto",
            "showgrid": False,
        },
        legend={"orientation": "h", "y": 1, "yanchor": "bottom"},
        height=380,
    )  # fmt: skip
    return figure


def _listed(granularities: Sequence[int]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, granularities[:-1])), str(granularities[-1])]))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
