"""Notebook 1, layer mapping: its figures, the builder of paths, and the checks of its exercises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from html import escape
from typing import Any

import ipywidgets as widgets
import pandas as pd  # type: ignore[import-untyped]
import plotly.graph_objects as go

from modtf.errors import ModtfError
from modtf.evaluation import size_of_assembly
from modtf.mapping import STACKS, LayerPath, StackMapping, parse_path, start_indices, write_path
from modtf.modular import ModularModel
from modtf.views.figures import described, paths_figure

GRANULARITIES = (2, 3, 4, 6)
TWELVE = StackMapping(12, GRANULARITIES)


# -- modules -----------------------------------------------------------------------------------------------------------


def all_banks(stack: StackMapping) -> go.Figure:
    """The figure to remember: the originals of a stack, and below them each bank."""
    rows = {"originals": stack.original} | {f"bank {g}": (g,) * (stack.depth // g) for g in stack.granularities}
    return described(
        paths_figure(rows, "Everything that one stack can be made of"),
        "Five rows of blocks over 12 original layers. The first row has the 12 originals. Below it, bank 2 has six blocks of two "
        "layers each, bank 3 four blocks of three, bank 4 three blocks of four, bank 6 two blocks of six.",
    )


def one_module(g: int, j: int) -> go.Figure:
    """m(g, j) among the originals of a stack of 12; the last module of the bank where j is too large."""
    j = min(j, 12 // g - 1)
    first, last = g * j, g * j + g - 1
    return described(
        paths_figure(
            {"stack": (1,) * first + (g,) + (1,) * (11 - last)},
            f"m({g}, {j}) stands for the original layers {first} to {last}",
        ),
        f"A row of original layers 0 to 11, in which the block m({g}, {j}) takes the place of layers {first} to {last}.",
    )


def one_path(path: LayerPath) -> go.Figure:
    """A path as a row of blocks."""
    text = write_path(path)
    return described(
        paths_figure({"path": path}, f"{text}: {len(path)} layers in place of {sum(path)}"),
        f"The path {text} as a row of {len(path)} blocks over {sum(path)} original layers.",
    )


def check_covers(covers: Callable[[int, int], Any]) -> None:
    """Exercise 1.1: ``covers(g, j)`` is the range of original layers that m(g, j) stands for."""
    given = covers(3, 1)
    assert given is not None, "covers(3, 1) gives nothing back yet; `return` a range in place of None"
    assert list(given) == [3, 4, 5], (
        f"covers(3, 1) gives {list(given)}; look at the figure: which columns does m(3, 1) span?"
    )
    assert list(covers(6, 0)) == [0, 1, 2, 3, 4, 5], (
        f"covers(6, 0) gives {list(covers(6, 0))}; it should be the first six layers"
    )
    for g in GRANULARITIES:
        joined = [layer for j in range(12 // g) for layer in covers(g, j)]
        assert joined == list(range(12)), (
            f"the bank of granularity {g} should cover every layer once, but yours covers {joined}"
        )


# -- the layers of a path ----------------------------------------------------------------------------------------------


def layers(originals: Sequence[Any], banks: Mapping[int, Sequence[Any]], path: LayerPath) -> list[Any]:
    """The layers of a path, as :class:`modtf.layers.ModularStack` chooses them."""
    return [
        originals[start] if g == 1 else banks[g][start // g] for g, start in zip(path, start_indices(path), strict=True)
    ]


def check_layers(layers: Callable[[Sequence[Any], Mapping[int, Sequence[Any]], LayerPath], Any]) -> None:
    """Exercise 1.2: ``layers(originals, banks, path)`` is the list of a path's layers."""
    originals = [f"original {i}" for i in range(12)]
    banks = {g: [f"m({g}, {j})" for j in range(12 // g)] for g in GRANULARITIES}
    for path in [(1,) * 12, (2,) * 6, (1, 1, 2, 2, 6), (3, 1, 1, 1, 6), *TWELVE.paths()]:
        text = write_path(path)
        try:
            given = layers(list(originals), {g: list(bank) for g, bank in banks.items()}, path)
        except (IndexError, KeyError) as error:
            raise AssertionError(
                f"the path {text} asks for something that is not there ({type(error).__name__}: {error}). "
                "A bank of granularity g has 12 / g modules; banks has no 1, since those are the originals"
            ) from error
        assert given is not None, (
            "layers(originals, banks, path) gives nothing back yet; `return` a list in place of None"
        )
        given = list(given)
        assert len(given) == len(path), f"the path {text} has {len(path)} layers; your list has {len(given)}"
        for place, (g, start) in enumerate(zip(path, start_indices(path), strict=True)):
            wanted = originals[start] if g == 1 else banks[g][start // g]
            assert given[place] == wanted, (
                f"in the path {text}, the layer at place {place} has granularity {g} and begins at original layer {start}, "
                f"so it is {wanted}; yours is {given[place]}"
            )


@contextmanager
def through(
    modular: ModularModel, layers: Callable[[Sequence[Any], Mapping[int, Sequence[Any]], LayerPath], Any]
) -> Iterator[dict[str, list[str]]]:
    """Within this context both stacks of a model take their layers from ``layers``.

    Yields the names of the layers that ran, for each stack in order; they grow with each forward pass.
    """
    ran: dict[str, list[str]] = {name: [] for name in STACKS}
    with ExitStack() as undo:
        for name, stack in zip(STACKS, modular.stacks, strict=True):
            banks: dict[int, Any] = {int(g): bank for g, bank in stack.banks.items()}
            named = [(f"original {i}", layer) for i, layer in enumerate(stack.originals)]
            named += [(f"m({g}, {j})", layer) for g, bank in banks.items() for j, layer in enumerate(bank)]
            for label, layer in named:
                undo.enter_context(layer.register_forward_hook(partial(_remember, label, ran[name])))
            # The stack's own method is covered by one of this object alone.
            originals: Any = stack.originals
            object.__setattr__(stack, "layers", partial(layers, originals, banks))
            undo.callback(stack.__dict__.pop, "layers")
        yield ran


def _remember(label: str, names: list[str], *_: Any) -> None:
    names.append(label)


# -- the builder -------------------------------------------------------------------------------------------------------

#: Background and text of a chip, by granularity; originals are hollow, as in the figures.
_CHIPS = {2: ("#b9d7ee", "#222"), 3: ("#8bbde2", "#222"), 4: ("#5fa3d5", "#222"), 6: ("#2a6ea3", "#fff")}
_WRONG = "#cc4e94"


def path_html(stack: StackMapping, text: str, other: int) -> str:
    """What a text says as a path of a stack: its chips, its numbers, and whether it is possible.

    ``other`` are the layers of the other stack, all of them originals: the ratio is that of both.
    """
    try:
        path = parse_path(text) if text.strip() else ()
        problem = None
    except ModtfError as error:
        return _chips(stack, ()) + _verdict(False, str(error))
    covered = sum(path)
    numbers = (
        f"<p style='margin: 4px 0'><b>{write_path(path) or '(empty)'}</b> &nbsp; covers {covered} of {stack.depth} original layers "
        f"&nbsp;·&nbsp; {len(path)} layer{'s' * (len(path) != 1)}"
    )
    try:
        if path:
            stack.check(path)
    except ModtfError as error:
        problem = str(error)
    begun = problem is None or (covered < stack.depth and _fits(stack, path))
    if path and problem is None:
        whole = stack.depth + other
        numbers += (
            f" &nbsp;·&nbsp; ratio, beside {other} originals in the other stack: "
            f"{whole} / {other + len(path)} = <b>{whole / (other + len(path)):.2f}x</b>"
        )
        verdict = _verdict(True, "This is a path.")
    elif begun:
        names = [
            "an original" if g == 1 else f"m({g}, {covered // g})"
            for g in (1, *stack.granularities)
            if _fits(stack, (*path, g))
        ]
        verdict = _verdict(None, f"Not at the end yet. At layer {covered} may begin: {', '.join(names)}.")
    else:
        verdict = _verdict(False, problem or "")
    return _chips(stack, path) + numbers + "</p>" + verdict


def _fits(stack: StackMapping, path: LayerPath) -> bool:
    """Whether each layer of a path that may be unfinished begins where it may, and ends inside the stack."""
    places = zip(path, start_indices(path), strict=True)
    return sum(path) <= stack.depth and all(g in (1, *stack.granularities) and start % g == 0 for g, start in places)


def _chips(stack: StackMapping, path: LayerPath) -> str:
    chips = []
    for place, (g, start) in enumerate(zip(path, start_indices(path), strict=True)):
        fine = _fits(stack, path[: place + 1])
        background, color = _CHIPS.get(g, ("transparent", "inherit"))
        border = "1px solid #888" if fine else f"2px dashed {_WRONG}"
        name = f"{g}?" if not fine else str(start) if g == 1 else f"m({g}, {start // g})"
        span = max(0, min(g, stack.depth - start)) or 1
        style = f"grid-column: span {span}; background: {background}; color: {color}; border: {border}"
        chips.append(f"<span style='{style}; border-radius: 3px; padding: 6px 0; text-align: center'>{name}</span>")
    for layer in range(sum(path), stack.depth):
        style = "border: 1px dotted #bbb; color: #999; border-radius: 3px; padding: 6px 0; text-align: center"
        chips.append(f"<span style='{style}'>{layer}</span>")
    return (
        f"<div style='display: grid; grid-template-columns: repeat({stack.depth}, 1fr); gap: 3px; max-width: 760px; font-size: 13px'>"
        f"{''.join(chips)}</div>"
    )


def _verdict(good: bool | None, words: str) -> str:
    sign, color = {True: ("✓", "#2a9d74"), False: ("✗", _WRONG), None: ("…", "#888")}[good]
    return f"<p style='margin: 4px 0; padding-left: 8px; border-left: 4px solid {color}'>{sign} {escape(words)}</p>"


def check_four_kinds(path: LayerPath) -> None:
    """The challenge of the builder: a path of four layers, no two of the same granularity."""
    assert len(path) == 4, f"four layers are wanted; yours has {len(path)}"
    twice = [g for g, times in Counter(path).items() if times > 1]
    assert not twice, f"four different granularities are wanted; yours has {twice[0]} more than once"


class PathBuilder:
    """Build a path of a stack by clicking or typing; what it is, and whether it is possible, is written at once.

    ``challenge`` takes a path and raises an AssertionError that says what it lacks. Display the ``widget``.
    """

    def __init__(self, stack: StackMapping, other: int, challenge: Callable[[LayerPath], None], text: str = "") -> None:
        self._stack, self._other, self._challenge = stack, other, challenge
        self.text = widgets.Text(text, description=stack.name, placeholder="1 1 2 2 6", continuous_update=True)
        self.text.style.description_width = "initial"
        self._shown, self._judged = widgets.HTML(), widgets.HTML()
        buttons = [self._button(f"m({g}, ·)", str(g)) for g in stack.granularities]
        back, empty = widgets.Button(description="take back"), widgets.Button(description="empty")
        back.on_click(lambda _: self._write(self._parts()[:-1]))
        empty.on_click(lambda _: self._write([]))
        row = [self._button("original", "1"), *buttons, back, empty]
        for button in row:
            button.layout.width = "auto"
        wrapped = widgets.Layout(flex_flow="row wrap")
        self.widget = widgets.VBox([widgets.HBox(row, layout=wrapped), self.text, self._shown, self._judged])
        self.text.observe(lambda _: self._redraw(), "value")
        self._redraw()

    def _button(self, words: str, part: str) -> widgets.Button:
        button = widgets.Button(description=words)
        button.on_click(lambda _: self._write([*self._parts(), part]))
        return button

    def _parts(self) -> list[str]:
        try:
            return [str(g) for g in parse_path(self.text.value)] if self.text.value.strip() else []
        except ModtfError:
            return []

    def _write(self, parts: Iterable[str]) -> None:
        self.text.value = " ".join(parts)

    def _redraw(self) -> None:
        self._shown.value = path_html(self._stack, self.text.value, self._other)
        try:
            path = self._stack.check(parse_path(self.text.value))
            self._challenge(path)
        except ModtfError:
            self._judged.value = "<p>The challenge is open: first build a path.</p>"
        except AssertionError as error:
            self._judged.value = f"<p>The challenge is open: {escape(str(error))}.</p>"
        else:
            self._judged.value = "<p><b>✓ That solves the challenge.</b></p>"


# -- how many, and how small -------------------------------------------------------------------------------------------


def count_by_length(paths: Iterable[LayerPath]) -> go.Figure:
    """How many paths there are of each length."""
    counts = dict(sorted(Counter(map(len, paths)).items()))
    figure = go.Figure(
        go.Bar(x=list(counts), y=list(counts.values()), text=list(counts.values()), textposition="outside")
    )
    figure.update_layout(
        template="plotly_white", title="Paths of one stack, by how many layers they have", height=320, width=800
    )
    figure.update_yaxes(title="paths", range=[0, 1.16 * max(counts.values())])
    figure.update_xaxes(title="layers of the path", dtick=1)
    return described(
        figure,
        f"A bar for each length from {min(counts)} to {max(counts)} layers, with the number of paths that have it: "
        + ", ".join(f"{length} layers {count}" for length, count in counts.items())
        + ".",
    )


def check_count_paths(count_paths: Callable[[int, tuple[int, ...]], Any]) -> None:
    """Exercise 1.3: ``count_paths(depth, granularities)`` is the number of paths."""
    given = count_paths(2, (2,))
    assert given is not None, "count_paths(2, (2,)) gives nothing back yet"
    assert given == 2, f"two layers and granularity 2 have two paths, 1·1 and 2; yours are {given}"
    given = count_paths(4, (2,))
    assert given == 4, (
        f"four layers and granularity 2: 1·1·1·1, 1·1·2, 2·1·1, 2·2. Yours are {given}; do modules begin at any layer?"
    )
    for granularities in [(2, 3, 4, 6), (2, 3, 6), (12,), ()]:
        if count_paths(12, granularities) == StackMapping(12, granularities).count:
            continue
        # The smallest depth at which it fails is the easiest one to think about.
        for depth, wanted in enumerate(ways_to_cover(12, granularities)[1:], start=1):
            given = count_paths(depth, granularities)
            assert given == wanted, (
                f"with granularities {granularities}, {depth} layers have {wanted} paths; yours are {given}"
            )


def ways_to_cover(depth: int, granularities: Sequence[int]) -> list[int]:
    """How many ways there are to cover the first 0, 1 ... ``depth`` layers."""
    ways = [1]
    for end in range(1, depth + 1):
        # The last layer begins at end - g, a multiple of g.
        ways.append(sum(ways[end - g] for g in (1, *granularities) if end % g == 0))
    return ways


def table_of_sizes(models: Mapping[str, ModularModel], ratios: Iterable[float]) -> pd.DataFrame:
    """Layers, parameters and bytes of each model at each ratio."""
    rows = []
    for name, model in models.items():
        whole = size_of_assembly(model, model.mapping.original)
        for ratio in ratios:
            assembly = model.choose(ratio)
            size = size_of_assembly(model, assembly)
            rows.append(
                {
                    "model": name,
                    "ratio (layers)": f"{ratio}x",
                    "layers": assembly.shape,
                    "parameters (M)": round(size.parameters / 1e6, 2),
                    "times fewer": round(whole.parameters / size.parameters, 2),
                    "float32 (MB)": round(size.megabytes, 1),
                }
            )
    return pd.DataFrame(rows)


def three_ratios(table: Mapping[str, Any]) -> go.Figure:
    """How many times fewer layers and parameters, and how many times less time, in a bundled table of measurements."""
    rows = [row for row in table["rows"] if row["trained"] and row["strategy"] == "size_first"]
    ratios, whole = [row["ratio"] for row in rows], rows[0]["parameters"]
    figure = go.Figure()
    for name, values, dash, symbol in (
        ("layers", ratios, "solid", "circle"),
        ("parameters and bytes", [whole / row["parameters"] for row in rows], "dot", "square"),
        ("time (measured)", [row["speed_up"] for row in rows], "dash", "diamond"),
    ):
        marker = {"symbol": symbol, "size": 8}
        figure.add_scatter(x=ratios, y=values, name=name, mode="lines+markers", line={"dash": dash}, marker=marker)
    figure.update_layout(
        template="plotly_white", title="Three ratios of each assembly (pocket, size first)", height=380, width=800
    )
    figure.update_xaxes(title="ratio of layers").update_yaxes(title="times less", rangemode="tozero")
    return described(
        figure,
        "Three lines over the ratio of layers from 1 to 6. At 6 times fewer layers, parameters are "
        f"{whole / rows[-1]['parameters']:.1f} times fewer, and one text was written {rows[-1]['speed_up']:.1f} times as fast.",
    )
