"""Notebook 4: where the time of a text goes, which shape is the fastest, the best path, and the checks of its exercises."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from modtf.decoding import decode
from modtf.evaluation import in_turns
from modtf.mapping import Assembly, LayerPath, StackMapping, start_indices
from modtf.modular import ModularModel
from modtf.strategies import assemblies, choose, even_assembly
from modtf.views.figures import described, frontier

Shape = tuple[int, int]
#: For each last granularity and number of layers: the cost of the cheapest way, and that way.
Ends = dict[tuple[int, int], tuple[float, LayerPath]]
#: What a layer adds: of the granularity before it (0: none), of its own, and of where it begins.
Cost = Callable[[int, int, int], float]

_SIZE, _SPEED, _HERE = "#3b8fd0", "#e07b1a", "#cc4e94"
_PARTS = ("encoder", "self-attention", "cross-attention", "feed-forward", "head", "everything else")


# -- where the time goes -----------------------------------------------------------------------------------------------


def milliseconds_by_part(model: Any, inputs: Mapping[str, torch.Tensor], tokens: int) -> dict[str, float]:
    """Of one text of so many tokens that a T5 writes by ``generate``: hooks time the parts of the model."""
    spent: dict[str, float] = defaultdict(float)
    begun: dict[str, float] = {}
    kinds = enumerate(("self-attention", "cross-attention", "feed-forward"))
    parts = {"encoder": [model.encoder], "head": [model.lm_head]}
    parts |= {name: [block.layer[i] for block in model.decoder.block] for i, name in kinds}

    def start(name: str) -> Callable[..., None]:
        return lambda *_: begun.update({name: time.perf_counter()})

    def stop(name: str) -> Callable[..., None]:
        return lambda *_: spent.update({name: spent[name] + time.perf_counter() - begun[name]})

    hooks = []
    for name, modules in parts.items():
        for module in modules:
            hooks += [module.register_forward_pre_hook(start(name)), module.register_forward_hook(stop(name))]
    with torch.inference_mode():
        started = time.perf_counter()
        model.generate(**inputs, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens)
        total = time.perf_counter() - started
    for hook in hooks:
        hook.remove()
    return {name: 1000 * spent[name] for name in _PARTS[:-1]} | {
        _PARTS[-1]: 1000 * (total - sum(spent[name] for name in _PARTS[:-1]))
    }


def parts_figure(parts: dict[str, dict[str, float]], tokens: int) -> go.Figure:
    """Stacked bars of :func:`milliseconds_by_part`, one for each shape."""
    figure = go.Figure()
    for name in _PARTS:
        figure.add_bar(orientation="h", y=list(parts), x=[of_shape[name] for of_shape in parts.values()], name=name)
    total = {shape: sum(of_shape.values()) for shape, of_shape in parts.items()}
    figure.update_xaxes(title="milliseconds", title_standoff=8)
    figure.update_yaxes(title="layers", type="category", autorange="reversed")
    return described(
        figure,
        f"Stacked bars, the milliseconds of one text of {tokens} tokens by part of the model: "
        + ", ".join(f"{shape} layers take {value:.0f}" for shape, value in total.items())
        + ". The encoder is a thin slice; the decoder's parts and everything else fill the bars.",
        template="plotly_white", barmode="stack", height=370, title=f"Where the time of {tokens} tokens goes",
        legend={"orientation": "h", "y": -0.28, "traceorder": "normal"}, margin={"l": 60, "r": 20, "t": 50, "b": 90},
    )  # fmt: skip


def rest_and_layers(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a bundled table: what each layer costs, and the rest, which every assembly has.

    Fitted by least squares of the relative errors, so that small assemblies count as much as large ones.
    """
    by_shape = {row["layers"]: row for row in rows if row["trained"]}
    shapes = np.array([[1, *map(int, shape.split("-"))] for shape in by_shape], dtype=float)
    largest, smallest = max(shapes.tolist()), min(shapes.tolist())
    found = []
    for what, of_row in {
        "million parameters": lambda row: row["parameters"] / 1e6,
        "ms, loop": lambda row: row["latency_ms"]["median"],
        "ms, generate": lambda row: row["generate"]["latency_ms"]["median"],
    }.items():
        values = np.array([of_row(row) for row in by_shape.values()])
        costs = np.linalg.lstsq(shapes / values[:, None], np.ones(len(values)), rcond=None)[0]
        full, small = costs @ largest, costs @ smallest
        found.append(
            {
                "": what, "rest": round(costs[0], 2), "encoder layer": round(costs[1], 2), "decoder layer": round(costs[2], 2),
                "1x": round(full, 1), "6x": round(small, 1), "times less": round(full / small, 1),
                "rest at 6x, %": round(100 * costs[0] / small), "fit off by, %": round(100 * abs(shapes @ costs / values - 1).max(), 1),
            }
        )  # fmt: skip
    return found


def time_map(mapping: Any, times: dict[Shape, float]) -> go.Figure:
    """Milliseconds over both depths, and the ways on which size first and speed first go down."""
    encoders, decoders = (sorted({shape[stack] for shape in times}) for stack in (0, 1))
    figure = go.Figure(
        go.Contour(
            x=encoders, y=decoders, z=[[times[e, d] for e in encoders] for d in decoders], colorscale=[[0, "#ffffff"], [1, "#8f8f8f"]],
            colorbar={"title": "ms"}, hovertemplate="%{x}-%{y} layers: %{z:.1f} ms<extra></extra>",
            contours={"coloring": "fill", "showlabels": True, "labelfont": {"color": "#222222", "size": 12}},
        )
    )  # fmt: skip
    for strategy, dash, color in (("size_first", "solid", _SIZE), ("speed_first", "dash", _SPEED)):
        way = assemblies(mapping, strategy)
        figure.add_scatter(
            x=[len(one.encoder) for one in way], y=[len(one.decoder) for one in way], name=strategy.replace("_", " "),
            mode="lines+markers", line={"color": color, "width": 3, "dash": dash},
            text=[f"{one.ratio:.2f}x" for one in way],
        )  # fmt: skip
    figure.update_xaxes(title="encoder layers", dtick=2).update_yaxes(title="decoder layers", dtick=2)
    return described(
        figure,
        f"A map of the time of one text over encoder layers (across) and decoder layers (up): {times[12, 12]:.0f} ms at "
        f"12-12, {times[12, 2]:.0f} at 12-2, {times[2, 12]:.0f} at 2-12 and {times[2, 2]:.0f} at 2-2. Size first goes down the "
        "diagonal, speed first straight down, where it is steepest, and only then to the left.",
        template="plotly_white", height=470, title="Milliseconds for one text, and two ways down",
        legend={"orientation": "h", "y": -0.16}, margin={"l": 60, "r": 20, "t": 50, "b": 70},
    )  # fmt: skip


# -- which stack is the dearer one -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerCosts:
    """Milliseconds of one layer of each stack on this machine, for sources and texts of any length."""

    sources: tuple[int, ...]
    #: at each of these lengths of a source: of an encoder layer
    encoder: tuple[float, ...]
    #: of a decoder layer, once for a text (keys and values of the source), and for each token
    once: tuple[float, ...]
    token: tuple[float, ...]
    #: of all that is no layer, once and for each token
    rest: tuple[float, float]

    @classmethod
    def measured(
        cls, modular: ModularModel, sources: Sequence[int] = (16, 64, 128, 256, 512), tokens: int = 17, repeats: int = 7
    ) -> LayerCosts:
        """From assemblies that differ in one stack: an encoder layer takes (12-2 minus 2-2) / 10 milliseconds."""

        def run(encoder: int, decoder: int, source: int, length: int) -> Callable[[], Any]:
            model = modular.assembled(even_assembly(modular.mapping, encoder, decoder))
            ids = torch.full((1, source), 5)
            return lambda: decode(model, ids, torch.ones_like(ids), max_new_tokens=length, exactly=True)

        (few, many), (low, high) = ((stack.lengths[0], stack.lengths[-1]) for stack in modular.mapping.stacks)
        shapes = {"small": (few, low), "encoder": (many, low), "decoder": (few, high)}
        cases = [(shape, source, length) for shape in shapes for source in sources for length in (1, tokens)]
        runs = {case: run(*shapes[case[0]], *case[1:]) for case in cases}
        ms = {case: min(times) for case, times in in_turns(runs, repeats).items()}

        encoder, once, token = [], [], []
        for source in sources:
            of_encoder = (ms["encoder", source, 1] - ms["small", source, 1]) / (many - few)
            first, all_ = ((ms["decoder", source, n] - ms["small", source, n]) / (high - low) for n in (1, tokens))
            encoder.append(max(of_encoder, 0.001))
            token.append(max((all_ - first) / (tokens - 1), 0.001))
            once.append(max(first - token[-1], 0.0))
        steps = (ms["small", sources[0], tokens] - ms["small", sources[0], 1]) / (tokens - 1) - low * token[0]
        begin = ms["small", sources[0], 1] - few * encoder[0] - low * (once[0] + token[0])
        # Times are noisy; what a decoder layer takes grows by a line with the source.
        once, token = (
            np.polyval(np.polyfit(sources, values, 1), sources).clip(0.001).tolist() for values in (once, token)
        )
        return cls(tuple(sources), tuple(encoder), tuple(once), tuple(token), (max(begin, 0.0), max(steps, 0.0)))

    def encoder_ms(self, source: float) -> float:
        """Of one encoder layer for a source of so many tokens."""
        return float(np.interp(source, self.sources, self.encoder))

    def decoder_ms(self, source: float, tokens: float) -> float:
        """Of one decoder layer for a text of so many tokens."""
        once, token = (np.interp(source, self.sources, values) for values in (self.once, self.token))
        return float(once + tokens * token)

    def text_ms(self, shape: Shape, source: float, tokens: float) -> float:
        """Of a whole text."""
        layers = shape[0] * self.encoder_ms(source) + shape[1] * self.decoder_ms(source, tokens)
        return self.rest[0] + tokens * self.rest[1] + layers


def who_is_faster(costs: LayerCosts, cases: dict[str, Shape]) -> go.Figure:
    """A map over the lengths of source and text: by how much 10-2 is faster than 6-6; ``cases`` are marked."""
    sources, tokens = np.linspace(costs.sources[0], costs.sources[-1], 48).round(), range(1, 41)
    ratio = np.array([[costs.text_ms((6, 6), s, n) / costs.text_ms((10, 2), s, n) for s in sources] for n in tokens])
    figure = go.Figure(
        go.Heatmap(
            x=sources, y=list(tokens), z=np.log2(ratio).round(3), zmin=-1, zmax=1, colorscale="RdBu",
            colorbar={
                "title": "10-2 is", "tickvals": [-1, -0.585, 0, 0.585, 1],
                "ticktext": ["2x slower", "1.5x slower", "as fast", "1.5x faster", "2x faster"],
            },
            hovertemplate="source %{x:.0f}, %{y} tokens<extra></extra>",
        )
    )  # fmt: skip
    level = {"start": 0, "end": 0, "size": 1, "coloring": "none"}
    figure.add_contour(
        x=sources, y=list(tokens), z=np.log2(ratio).round(3), contours=level, showscale=False, hoverinfo="skip", showlegend=False,
        line={"color": "#222222", "width": 2},
    )  # fmt: skip
    figure.add_scatter(
        x=[source for source, _ in cases.values()], y=[length for _, length in cases.values()], text=[f"  {name}  " for name in cases],
        mode="markers+text", textposition=["middle right" if s < 250 else "middle left" for s, _ in cases.values()],
        marker={"symbol": "star", "size": 12, "color": [_on_map(costs, *case) for case in cases.values()]}, textfont={"size": 13, "color": [_on_map(costs, *case) for case in cases.values()]}, showlegend=False,
    )  # fmt: skip
    figure.update_xaxes(title="tokens of the source").update_yaxes(title="tokens of the text")
    said = ", ".join(
        f"for {name} ({s} tokens read, {n} written) 10-2 takes {costs.text_ms((10, 2), s, n):.0f} ms and 6-6 {costs.text_ms((6, 6), s, n):.0f}"
        for name, (s, n) in cases.items()
    )
    return described(
        figure,
        f"A map over the length of the source (across) and of the text (up), coloured by whether 10-2 or 6-6 is faster: {said}. "
        "A black line that rises to the right parts the two: above it 10-2 is faster, below it 6-6.",
        template="plotly_white", height=420, title="Twelve layers: is 10-2 faster than 6-6?",
    )  # fmt: skip


def _on_map(costs: LayerCosts, source: int, tokens: int) -> str:
    """A colour that is legible where the map is dark, and where it is light."""
    faster = costs.text_ms((6, 6), source, tokens) / costs.text_ms((10, 2), source, tokens)
    return "#222222" if 0.6 < faster < 1.4 else "#ffffff"


def shapes_in_a_race(
    costs: LayerCosts, mapping: Any, fastest: Callable[[int, float, float], Shape]
) -> Callable[..., tuple[go.Figure, str]]:
    """For sliders: the predicted time of each shape, the fastest by ``fastest``, and whether a challenge is met."""

    def draw(source: int, tokens: int, ratio: float) -> tuple[go.Figure, str]:
        encoder, decoder = costs.encoder_ms(source), costs.decoder_ms(source, tokens)
        named: dict[Shape, list[str]] = defaultdict(list)
        for name in ("size_first", "speed_first"):
            chosen = choose(mapping, ratio, name)
            named[len(chosen.encoder), len(chosen.decoder)].append(name.replace("_", " "))
        layers = sum(next(iter(named)))
        best = tuple(fastest(layers, encoder, decoder))
        named[best[0], best[1]].append("fastest")
        shapes = [s for s in product(*(stack.lengths for stack in mapping.stacks)) if sum(s) == layers]
        times = [costs.text_ms(shape, source, tokens) for shape in shapes]
        labels = ["{}-{}".format(*shape) for shape in shapes]
        figure = go.Figure(
            go.Bar(
                x=labels, y=times, marker_color=[_HERE if shape == best else "#9cc7e6" for shape in shapes],
                text=["<br>".join(named.get(shape, [])) for shape in shapes], textposition="outside", cliponaxis=False,
            )
        )  # fmt: skip
        figure.update_xaxes(title="layers", type="category")
        figure.update_yaxes(title="ms, predicted", range=[0, 1.3 * max(times)])
        figure = described(
            figure,
            f"Bars of the predicted time of each shape of {layers} layers, for a source of {source} tokens and a text of {tokens}.",
            template="plotly_white", height=330, title=f"{layers} layers: read {source} tokens, write {tokens}",
        )  # fmt: skip
        size, speed = (
            costs.text_ms((len(one.encoder), len(one.decoder)), source, tokens)
            for one in (choose(mapping, ratio, name) for name in ("size_first", "speed_first"))
        )
        return figure, _challenge(encoder, decoder, size, speed, tokens)

    return draw


def _challenge(encoder: float, decoder: float, size: float, speed: float, tokens: int) -> str:
    met = {
        "speed first loses to size first": speed > 1.02 * size,
        "it loses although 4 tokens or more are written": speed > 1.02 * size and tokens >= 4,
        "a layer costs the same in both stacks (within 5 %)": abs(encoder / decoder - 1) < 0.05,
    }
    lines = "".join(f"<li>{'✓' if done else '○'} {what}</li>" for what, done in met.items())
    return (
        f"<p>one encoder layer {encoder:.2f} ms · one decoder layer {decoder:.2f} ms · size first {size:.1f} ms · speed first {speed:.1f} ms</p>"
        f"<p><b>Find lengths for which</b></p><ul style='list-style:none;padding-left:1em'>{lines}</ul>"
    )


def fastest(layers: int, encoder_ms: float, decoder_ms: float) -> Shape:
    """Exercise 4.1: the fastest shape of so many layers, where each stack may have 2 to 12."""
    possible = [(layers - decoder, decoder) for decoder in range(2, 13) if 2 <= layers - decoder <= 12]
    return min(possible, key=lambda shape: shape[0] * encoder_ms + shape[1] * decoder_ms)


def check_fastest(fastest: Callable[[int, float, float], Any]) -> None:
    """Exercise 4.1."""
    given = fastest(12, 1.0, 9.0)
    assert given is not None, "fastest(12, 1.0, 9.0) gives nothing back yet"
    assert len(given) == 2 and sum(given) == 12, (
        f"fastest(12, …) is {given}; it should be (encoder layers, decoder layers), 12 together"
    )
    assert tuple(given) != (2, 10), (
        "a decoder layer costs nine times as much here, but yours keeps ten of them: is it (encoder, decoder)?"
    )
    assert min(given) >= 2, f"each stack needs at least 2 layers; yours is {given}"
    assert tuple(given) == (10, 2), f"decoder layers are dear here, so have as few as possible, 10-2; yours is {given}"
    given = tuple(fastest(18, 1.0, 9.0))
    assert given == (12, 6), f"the encoder cannot have more than 12 layers, so 18 are 12-6; yours is {given}"
    given = tuple(fastest(12, 50.0, 5.0))
    assert given == (2, 10), (
        f"a long source and a short answer: now encoder layers are the dear ones, and 2-10 is the fastest; yours is {given}"
    )


def points_at_equal_speed(rows: Sequence[dict[str, Any]]) -> float:
    """BLEU kept by size first minus that by speed first at the same speed: the mean along both lines of a bundled table."""
    speeds = np.linspace(1, max(row["speed_up"] for row in rows), 101)  # both lines end at the smallest assembly

    def kept(strategy: str) -> np.ndarray:
        line = sorted((row["speed_up"], row["bleu_kept"]) for row in rows if row["strategy"] == strategy)
        return np.interp(speeds, [speed for speed, _ in line], [bleu for _, bleu in line])

    return float((kept("size_first") - kept("speed_first")).mean())


# -- the best path -----------------------------------------------------------------------------------------------------


def extend(best: list[Ends], end: int, granularities: Sequence[int], cost: Cost) -> Ends:
    """Exercise 4.2: the cheapest ways to cover the first ``end`` layers, from those to all earlier ends."""
    found: Ends = {}
    for g in (1, *granularities):
        start = end - g
        if start < 0 or start % g:
            continue
        for (before, length), (so_far, path) in best[start].items():
            way = so_far + cost(before, g, start), (*path, g)
            found[g, length + 1] = min(way, found.get((g, length + 1), way))
    return found


def check_extend(extend: Callable[..., Any]) -> None:
    """Exercise 4.2: against all paths of small stacks, with random costs."""
    beginning: list[Ends] = [{(0, 0): (0.0, ())}]
    given = extend(beginning, 1, (2, 3), lambda before, g, start: 0.5)
    assert given is not None, "extend(best, 1, …) gives nothing back yet"
    assert given == {(1, 1): (0.5, (1,))}, (
        "only one original fits into the first layer: with a cost of 0.5 that is {(1, 1): (0.5, (1,))}, "
        f"not {given}. (The keys are the last granularity and the number of layers.)"
    )
    rng = Random(0)
    for depth, granularities in ((4, (2,)), (6, (2, 3)), (12, (2, 3, 4, 6))):
        stack = StackMapping(depth, granularities)
        costs = {key: rng.uniform(-1, 1) for key in product((0, 1, *granularities), (1, *granularities), range(depth))}
        best = [dict(beginning[0])]
        for end in range(1, depth + 1):
            best.append(extend(best, end, granularities, _looked_up(costs)))
        for (_, length), (_, path) in best[-1].items():
            _check_path(stack, path, length)
        cheapest: dict[int, float] = {}
        for path in stack.paths():
            total = sum(costs[key] for key in zip((0, *path), path, start_indices(path), strict=False))
            cheapest[len(path)] = min(total, cheapest.get(len(path), total))
        for length, wanted in cheapest.items():
            found = min((cost for (_, n), (cost, _) in best[-1].items() if n == length), default=None)
            assert found is not None, f"{depth} layers can be covered by {length}, but yours finds no way"
            assert found > wanted - 1e-9, (
                f"yours says that {depth} layers can be covered by {length} at a cost of {found:.3f}, but the cheapest way costs "
                f"{wanted:.3f}: is a cost left out?"
            )
            assert found < wanted + 1e-9, (
                f"the cheapest {length} of {depth} layers cost {wanted:.3f}, yours {found:.3f}: is a dearer way kept, or a cheap "
                "one that ends with another granularity?"
            )


def _looked_up(costs: dict[tuple[int, int, int], float]) -> Cost:
    return lambda before, g, start: costs[before, g, start]


def _check_path(stack: StackMapping, path: LayerPath, length: int) -> None:
    assert len(path) == length, f"the way {path} has {len(path)} layers, but its key says {length}"
    assert sum(path) == stack.depth, f"the way {path} covers {sum(path)} layers, not {stack.depth}"
    for g, start in zip(path, start_indices(path), strict=True):
        assert start % g == 0, (
            f"your way {path} has granularity {g} begin at layer {start}; it may begin at multiples of {g} only"
        )


def within_limit(modular: ModularModel, within: Assembly, limit: float) -> go.Figure:
    """The losses of a kit's assemblies against their milliseconds, with the best within a limit and the original."""
    profile, original = modular.profile, modular.mapping.original
    figure = frontier(profile, modular.mapping, "max_latency_ms", here=within, limit=limit)
    figure.add_annotation(
        x=profile.latency_ms(original), y=profile.losses[original], text="the original", ax=-30, ay=-45, font={"size": 13}, arrowhead=2
    )  # fmt: skip
    below = sum(loss < profile.losses[original] for loss in profile.losses.values())
    return described(
        figure,
        f"Losses of assemblies, measured and predicted, against milliseconds. A step line joins the best measured ones. Within {limit:g} ms "
        f"the best is {within.shape}. The original, at the right, takes most time, and {below} of {len(profile.losses)} have a lower loss.",
        template="plotly_white", height=380, title=f"The best within {limit:g} ms: {within.shape}",
        margin={"l": 60, "r": 20, "t": 50, "b": 110},
    )  # fmt: skip


# -- drafts ------------------------------------------------------------------------------------------------------------


def verify(guesses: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Exercise 4.3: the tokens that count, of what a small decoder guessed and a large one would have written."""
    right = 0
    while right < len(guesses) and guesses[right] == wanted[right]:
        right += 1
    return list(wanted[: right + 1])


def check_verify(verify: Callable[[list[int], list[int]], Any]) -> None:
    """Exercise 4.3."""
    given = verify([5, 6, 7], [5, 6, 9, 8])
    assert given is not None, "verify([5, 6, 7], [5, 6, 9, 8]) gives nothing back yet"
    given = list(given)
    assert given != [5, 6], (
        "[5, 6] are right, but one token more is known: the large decoder has read 5 and 6, and would go on with 9. "
        "Its own token counts, too (a draft that is wrong at once would never get anywhere)"
    )
    assert 7 not in given, f"the third guess, 7, is wrong: the large decoder wants 9 there; yours is {given}"
    assert given == [5, 6, 9], f"verify([5, 6, 7], [5, 6, 9, 8]) should be [5, 6, 9], not {given}"
    given = list(verify([4, 6, 7], [5, 6, 7, 8]))
    assert given == [5], (
        f"the first guess is wrong, so only 5 counts, not {given}: what the large decoder says after a wrong guess goes on "
        "with a text that nobody writes"
    )
    given = list(verify([5, 6], [5, 6, 7]))
    assert given == [5, 6, 7], (
        f"all guesses are right: they count, and so does what the large decoder says after the last one. [5, 6, 7], not {given}"
    )
    given = list(verify([], [5]))
    assert given == [5], f"without guesses the large decoder writes one token as always, [5], not {given}"


def passes_figure(words: Sequence[str], passes: Sequence[tuple[Sequence[str], int]], layers: int) -> go.Figure:
    """One row for each pass of the large decoder: its guesses, those refused among them, and its own token.

    ``words`` are the tokens of the whole text, ``passes`` for each pass the guesses and how many were right.
    """
    figure = go.Figure()
    looks = {
        "guessed, and right": ("#8bbde2", "#222222"),
        "the large decoder's own": ("#f0b27a", "#222222"),
        "guessed, and refused": ("#ffffff", "#8a8a8a"),
    }
    cells: dict[str, list[tuple[int, int, str]]] = {name: [] for name in looks}
    at = 0
    for row, (guesses, right) in enumerate(passes, start=1):
        for place, guess in enumerate(guesses[: len(words) - at]):  # behind the end there is nothing to refuse
            name = "guessed, and right" if place < right else "guessed, and refused"
            if place != right:
                cells[name].append((row, place, guess))
        if at + right < len(words):
            cells["the large decoder's own"].append((row, right, words[at + right]))
        at += right + 1

    def shown(word: str) -> str:
        return "(end)" if word == "</s>" else word.strip()

    for name, (color, text) in looks.items():
        figure.add_bar(
            orientation="h", y=[row for row, _, _ in cells[name]], base=[place for _, place, _ in cells[name]],
            x=[0.96] * len(cells[name]), text=[shown(word) for _, _, word in cells[name]], name=name, textangle=0,
            textposition="inside", insidetextanchor="middle", constraintext="none", textfont={"color": text, "size": 12},
            marker={"color": color, "line": {"color": "#999999", "width": 1}}, hoverinfo="skip",
        )  # fmt: skip
    figure.update_yaxes(title="pass", autorange="reversed", dtick=1, showgrid=False)
    figure.update_xaxes(visible=False)
    counts = {name: len(of_name) for name, of_name in cells.items()}
    return described(
        figure,
        f"A text of {len(words)} tokens in {len(passes)} rows, one for each pass of the {layers} layers: "
        + ", ".join(f"{count} tokens {name}" for name, count in counts.items()) + ".",
        template="plotly_white", barmode="overlay", bargap=0.15, height=130 + 36 * len(passes),
        title=f"{len(words)} tokens in {len(passes)} passes of {layers} layers",
        legend={"orientation": "h", "y": -0.02, "yanchor": "top"}, margin={"l": 60, "r": 20, "t": 50, "b": 60},
    )  # fmt: skip
