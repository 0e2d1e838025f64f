"""Notebook 2, module replacement: its figures, what is measured in a training step, and the checks of its exercises."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from transformers import T5Config, T5ForConditionalGeneration

from modtf.bootstrap import differences, drawn_scores
from modtf.bundled import BUNDLED_MODELS, bundled
from modtf.evaluation import write_texts
from modtf.mapping import STACKS, Assembly, LayerPath, StackMapping, start_indices, write_path
from modtf.mapping import Mapping as ModelMapping
from modtf.modular import ModularModel, modularize
from modtf.replacing import ReplacingSchedule
from modtf.tasks import E2E, Example
from modtf.views.figures import described

_BLUE, _ORANGE, _PINK, _GREEN, _GREY = "#3b8fd0", "#e07b1a", "#cc4e94", "#2a9d74", "#555555"
_TWELVE = ModelMapping(StackMapping(12, (2,)), StackMapping(12, (2,)))

#: ``draw(rng, p, depth, g)``, ``probability(step, steps, start, full_at)`` and ``training_step(modular, assembly, batch, optimizer)``
Draw = Callable[[random.Random, float, int, int], Any]
Probability = Callable[[int, int, float, float], Any]
TrainingStep = Callable[[ModularModel, Assembly, Mapping[str, torch.Tensor], torch.optim.Optimizer], Any]


# -- budget and report card --------------------------------------------------------------------------------------------


def budget() -> pd.DataFrame:
    """What the bundled models cost, part by part."""
    rows = []
    for model in BUNDLED_MODELS:
        for part, run in json.loads(bundled(f"{model}/training.json").read_text(encoding="utf-8")).items():
            cores = run["processes"] * run["threads"]
            rows.append(
                {"model": model, "part": part, "steps": run["steps"], "texts a step": run["batch_size"]}
                | {
                    "minutes": round(run["seconds"] / 60),
                    "on": f"{cores} {run['device'].upper()} core{'s' * (cores > 1)}",
                }
            )
    return pd.DataFrame(rows)


def report_card(ratios: Sequence[float] = (1, 2, 3, 6)) -> pd.DataFrame:
    """What these trainings gave: scores of each size against people's texts, as the bundled tables hold them."""
    rows = []
    for model, scores in (("translator", {"bleu": "BLEU"}), ("pocket", {"bleu": "BLEU", "ser": "slot errors, %"})):
        of_model = _size_first(model)
        for score, name in scores.items():
            of_sizes = {f"{ratio}x": round(of_model[True, ratio][score], 1) for ratio in ratios}
            rows.append({"model": model, "score": name, **of_sizes})
    return pd.DataFrame(rows)


def _size_first(model: str) -> dict[tuple[bool, float], dict[str, Any]]:
    rows = json.loads(bundled(f"{model}/table.json").read_text(encoding="utf-8"))["rows"]
    return {(row["trained"], row["wanted_ratio"]): row for row in rows if row["strategy"] == "size_first"}


# -- untrained modules -------------------------------------------------------------------------------------------------


def one_pair(stack: str, j: int) -> Assembly:
    """The original of 12 + 12 layers with m(2, j) in one of its stacks."""
    path = (1,) * (2 * j) + (2,) + (1,) * (10 - 2 * j)
    return Assembly(path, (1,) * 12) if stack == "encoder" else Assembly((1,) * 12, path)


def damage_figure(damage: Mapping[str, Sequence[float]], whole: float) -> go.Figure:
    """The loss with one pair of layers replaced, for each pair of both stacks; ``whole`` is the original's."""
    figure = go.Figure()
    for stack, losses in damage.items():
        pattern = "/" if stack == "decoder" else ""
        figure.add_bar(name=stack, x=[f"m(2, {j})" for j in range(6)], y=losses, marker_pattern_shape=pattern)
    figure.add_hline(
        whole, line_dash="dot", annotation={"text": "original", "x": 1.01, "xanchor": "left", "yanchor": "middle"}
    )
    figure.update_layout(template="plotly_white", title="One untrained module at a time", height=330, width=800)
    figure.update_yaxes(title="cross-entropy")
    worst = {stack: max(losses) for stack, losses in damage.items()}
    return described(
        figure,
        f"Bars of the loss with one pair of layers replaced, for six pairs in each stack. The original's loss is {whole:.2f}; the "
        f"worst pair of the encoder gives {worst['encoder']:.2f}, that of the decoder {worst['decoder']:.2f}.",
    )


# -- the draw ----------------------------------------------------------------------------------------------------------


def draw(rng: random.Random, p: float, depth: int, g: int) -> LayerPath:
    """A path of modules of granularity g and originals; at each place a module with probability p."""
    path: LayerPath = ()
    for _ in range(depth // g):
        path += (g,) if rng.random() < p else (1,) * g
    return path


def check_draw(draw: Draw) -> None:
    """Exercise 2.1: ``draw(rng, p, depth, g)`` is the path that a step runs."""
    all_, none = draw(random.Random(0), 1.0, 12, 2), draw(random.Random(0), 0.0, 12, 3)
    assert all_ is not None, "draw(rng, 1.0, 12, 2) gives nothing back yet"
    assert tuple(all_) == (2,) * 6, f"with p = 1 all is replaced: 2·2·2·2·2·2, not {all_}"
    assert tuple(none) == (1,) * 12, f"with p = 0 nothing is: twelve originals, not {none}"
    drawn = [tuple(draw(random.Random(seed), 0.3, 12, 3)) for seed in range(2000)]
    wrong = [sum(path) for path in drawn if sum(path) != 12]
    assert not wrong, f"a path must cover 12 layers; one of yours covers {wrong[0]}"
    stray = [path for path in drawn if any(start % g for g, start in zip(path, start_indices(path), strict=True))]
    assert not stray, (
        f"a module of granularity 3 begins at a multiple of 3; in your {write_path(stray[0])} one does not"
        if stray
        else ""
    )
    share = sum(path.count(3) for path in drawn) / (4 * len(drawn))
    assert abs(share - 0.3) < 0.03, f"with p = 0.3 three places in ten should get a module; yours get {10 * share:.1f}"
    assert any({1, 3} <= set(path) for path in drawn), (
        "your paths are all modules or all originals: draw anew at each place"
    )
    again = draw(random.Random(7), 0.5, 12, 2) == draw(random.Random(7), 0.5, 12, 2)
    assert again, "two draws with the same seed differ: draw from `rng`"


# -- the training step -------------------------------------------------------------------------------------------------


def training_step(
    modular: ModularModel, assembly: Assembly, batch: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> float:
    """One step: forward through the drawn assembly, backward, and the optimizer. Gives the loss, as a number."""
    optimizer.zero_grad()
    loss = modular(assembly, **batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(modular.parameters(), 1.0)
    optimizer.step()
    return loss.item()


class _Spy(torch.optim.SGD):
    """An optimizer that remembers the gradients that it was given at each step."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        super().__init__(parameters, lr=0.01)
        self.seen: list[dict[int, torch.Tensor]] = []

    def step(self, closure: Any = None) -> Any:
        found = [parameter for group in self.param_groups for parameter in group["params"]]
        self.seen.append({id(p): p.grad.clone() for p in found if p.grad is not None and p.grad.any()})
        return super().step(closure)


def _small_model() -> tuple[ModularModel, dict[str, torch.Tensor]]:
    """A T5 of 4 + 4 layers with random weights, with fresh modules of granularity 2, and a batch for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = T5Config(
            vocab_size=40,
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=4,
            num_heads=2,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
        modular = modularize(T5ForConditionalGeneration(config), (2,))
        batch = {"input_ids": torch.randint(2, 40, (3, 6)), "labels": torch.randint(2, 40, (3, 5))}
    return modular, batch


def check_training_step(training_step: TrainingStep) -> None:
    """Exercise 2.2: ``training_step(modular, assembly, batch, optimizer)`` does one step on the drawn path."""
    modular, batch = _small_model()
    names = {id(parameter): part for part, parameters in parts_of(modular).items() for parameter in parameters}
    optimizer = _Spy([parameter for parameter in modular.parameters() if parameter.requires_grad])
    first, second = Assembly((2, 1, 1), (1, 1, 2)), Assembly((1, 1, 2), (2, 1, 1))
    for step, assembly in enumerate((first, second)):
        with torch.no_grad():
            wanted = modular(assembly, **batch).loss.item()
        try:
            given = training_step(modular, assembly, batch, optimizer)
        except RuntimeError as error:
            assert "does not require grad" not in str(error), (
                "no module ran, so there was nothing to learn: does modular(assembly, **batch) get the assembly?"
            )
            raise
        assert len(optimizer.seen) == step + 1, (
            ("training_step does nothing yet: " if given is None else "")
            + "the optimizer took no step; call optimizer.step()"
            if len(optimizer.seen) <= step
            else "the optimizer took more than one step: one batch, one step"
        )
        seen = optimizer.seen[step]
        assert seen, (
            "there were no gradients when the optimizer took its step: call loss.backward() before it, zero_grad() not in between"
        )
        learned = {names[parameter] for parameter in seen}
        on_path = {
            f"{stack} m({g}, {start // g})"
            for stack, path in zip(STACKS, assembly.paths, strict=True)
            for g, start in zip(path, start_indices(path), strict=True)
            if g > 1
        }
        left_over = sorted(learned - on_path)
        assert step == 0 or not left_over, (
            f"in the second step {left_over[0]} is not on the path, but its gradient of the first step is still there: "
            "call optimizer.zero_grad() in each step"
            if left_over
            else ""
        )
        assert learned == on_path, (
            f"the path has the modules {', '.join(sorted(on_path))}, but {', '.join(sorted(learned))} got gradients: "
            "did another assembly run?"
        )
        assert given is not None, "the step was taken, but training_step gives nothing back: return loss.item()"
        assert not isinstance(given, torch.Tensor) or not given.requires_grad, (
            "the loss that you return still holds its whole computation in memory: return loss.item(), a number"
        )
        assert abs(float(given) - wanted) < 1e-4, (
            f"the loss of that batch was {wanted:.4f} before the step; you return {float(given):.4f}"
        )


# -- one step, measured ------------------------------------------------------------------------------------------------


def parts_of(modular: ModularModel) -> dict[str, list[torch.nn.Parameter]]:
    """All weights of a modular model, by the part that they belong to; what is shared is there once."""
    parts: dict[str, list[torch.nn.Parameter]] = {"position biases": []}
    known: set[int] = set()
    for name, parameter in modular.model.named_parameters():
        if modular.architecture.is_shared(name):
            parts["position biases"].append(parameter)
            known.add(id(parameter))

    def add(part: str, module: torch.nn.Module) -> None:
        new = [parameter for parameter in module.parameters() if id(parameter) not in known]
        parts[part] = new
        known.update(map(id, new))

    for name, stack in zip(STACKS, modular.stacks, strict=True):
        for i, layer in enumerate(stack.originals):
            add(f"{name} original {i}", layer)
        banks: dict[str, Any] = dict(stack.banks.items())
        for g, bank in banks.items():
            for j, layer in enumerate(bank):
                add(f"{name} m({g}, {j})", layer)
    add("embeddings and head", modular.model.get_input_embeddings())
    add("final norms", modular.model)
    return parts


@dataclass
class MeasuredStep:
    """What was measured in one training step; a norm is None where no gradient arrived at all."""

    step: int
    assembly: Assembly
    loss: float
    #: norms of the gradients that the optimizer was given, by part
    weights: dict[str, float | None]
    #: how far its step moved the weights of each part
    moved: dict[str, float]
    #: norms of the loss's gradient with respect to the states after each layer of the path, by stack
    states: dict[str, list[float | None]] = field(default_factory=dict)


def measure_step(
    training_step: TrainingStep,
    modular: ModularModel,
    assembly: Assembly,
    batch: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> MeasuredStep:
    """Take a training step and look on: hooks read each gradient as it passes, nothing is computed twice."""
    parts = parts_of(modular)
    before = {part: [parameter.detach().clone() for parameter in parameters] for part, parameters in parts.items()}
    weights: dict[str, float | None] = {}

    def read(*_: Any) -> None:
        for part, parameters in parts.items():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            weights[part] = _norm(gradients) if gradients else None

    handle = optimizer.register_step_pre_hook(read)
    try:
        with _watched(modular, assembly) as states:
            loss = float(training_step(modular, assembly, batch, optimizer))
    finally:
        handle.remove()
    moved = {
        part: _norm([now.detach() - then for now, then in zip(parameters, before[part], strict=True)])
        for part, parameters in parts.items()
    }
    return MeasuredStep(step, assembly, loss, weights, moved, states)


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors))


@contextmanager
def _watched(modular: ModularModel, assembly: Assembly) -> Iterator[dict[str, list[float | None]]]:
    """The gradients of the states after the layers of an assembly, as the backward pass computes them."""
    states: dict[str, list[float | None]] = {
        name: [None] * len(path) for name, path in zip(STACKS, assembly.paths, strict=True)
    }
    handles = []

    def watch(name: str, place: int) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            state = output[0] if isinstance(output, tuple) else output
            if state.requires_grad:
                state.register_hook(lambda gradient: states[name].__setitem__(place, float(gradient.norm())))

        return hook

    for name, stack, path in zip(STACKS, modular.stacks, assembly.paths, strict=True):
        for place, layer in enumerate(stack.layers(path)):
            handles.append(layer.register_forward_hook(watch(name, place)))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def who_learned(modular: ModularModel, measured: MeasuredStep) -> pd.DataFrame:
    """The weights of a model in groups: how many, what gradient arrived in a step, and how far they moved."""
    on_path = {
        f"{stack} m({g}, {start // g})"
        for stack, path in zip(STACKS, measured.assembly.paths, strict=True)
        for g, start in zip(path, start_indices(path), strict=True)
        if g > 1
    }
    groups: dict[str, list[str]] = {
        name: [] for name in ("modules on the path", "modules off the path", "original layers", "position biases", "final norms", "embeddings and head")
    }  # fmt: skip
    parts = parts_of(modular)
    for part in parts:
        group = part if part in groups else "original layers" if " original " in part else "modules on the path"
        groups["modules off the path" if " m(" in part and part not in on_path else group].append(part)
    rows = []
    for group, members in groups.items():
        gradients = [norm for part in members if (norm := measured.weights[part]) is not None]
        moved = math.hypot(*(measured.moved[part] for part in members))
        rows.append(
            {
                "part": group,
                "weights": f"{sum(parameter.numel() for part in members for parameter in parts[part]):,}",
                "gradient": f"{math.hypot(*gradients):.2g}" if gradients else "none",
                "moved by": f"{moved:.2g}" if moved else "0",
            }
        )
    return pd.DataFrame(rows)


#: Left edges, from top to bottom, of the lanes of a stack in :func:`step_figure`, and their heights.
_LANES = {"originals": (0.0, 1.0), "modules": (1.25, 1.0), "states": (2.5, 0.62)}
_BELOW = 4.2  # from the encoder's lanes to the decoder's


def step_figure(measured: MeasuredStep) -> go.Figure:
    """One training step: the path that ran, the loss, and where gradients arrived, with their norms."""
    figure = go.Figure(go.Scatter(x=[None], y=[None], showlegend=False))
    largest = max((norm for norm in measured.weights.values() if norm), default=1.0)
    passing = [norm for norms in measured.states.values() for norm in norms if norm]
    words: list[str] = []
    ticks: dict[float, str] = {}
    for number, (name, path) in enumerate(zip(STACKS, measured.assembly.paths, strict=True)):
        top = number * _BELOW
        depth = sum(path)
        lanes = {"originals": "originals", "modules": "modules", "states": "gradient of<br>states × 1000"}
        ticks |= {top + y + height / 2: lanes[lane] for lane, (y, height) in _LANES.items()}
        ticks[top] = f"<b>{name}</b>"
        ran = {(g, start) for g, start in zip(path, start_indices(path), strict=True)}
        line: list[tuple[float, float]] = []
        for g in sorted({1, *(g for one in measured.assembly.paths for g in one if g > 1)}):
            lane, height = _LANES["originals" if g == 1 else "modules"]
            for start in range(0, depth, g):
                part = f"{name} original {start}" if g == 1 else f"{name} m({g}, {start // g})"
                norm, here = measured.weights[part], (g, start) in ran
                label = (str(start) if g == 1 else f"m({g}, {start // g})") + (f"<br>{_short(norm)}" if here else "")
                fill = _tint(_ORANGE, norm / largest) if norm else "white"
                _block(figure, start, top + lane, g, height, label, fill, here)
        for g, start in zip(path, start_indices(path), strict=True):
            lane, height = _LANES["originals" if g == 1 else "modules"]
            line += [(start, top + lane + height / 2), (start + g, top + lane + height / 2)]
        line = [(-0.3, line[0][1]), *line, (depth + 0.3, line[-1][1])]
        figure.add_scatter(
            x=[x for x, _ in line], y=[y for _, y in line], mode="lines", line={"color": _BLUE, "width": 3}, hoverinfo="skip", showlegend=False
        )  # fmt: skip
        lane, height = _LANES["states"]
        for g, start, norm in zip(path, start_indices(path), measured.states[name], strict=True):
            strength = (
                0.0
                if not norm
                else 0.15 + 0.85 * (math.log(norm / min(passing)) / (math.log(max(passing) / min(passing)) or 1))
            )
            _block(figure, start, top + lane, g, height, _thousandths(norm), _tint(_PINK, strength), norm is not None)
        _block(
            figure,
            -2.0,
            top,
            1.7,
            2.25,
            f"embed-<br>dings<br>{_short(measured.weights['embeddings and head'])}",
            "#f2f2f2",
            True,
        )
        bias = f"position bias<br>{_short(measured.weights['position biases'])}"
        _block(figure, -2.0, top + 2.5, 1.7, 0.62, bias, "#f2f2f2", True)
        after = "norm" if name == "encoder" else "norm,<br>head"
        _block(
            figure,
            depth + 0.3,
            top,
            1.4,
            2.25,
            f"{after}<br>{_short(measured.weights['final norms'])}",
            "#f2f2f2",
            True,
        )
        reached = sum(norm is not None for norm in measured.states[name])
        words.append(f"{name} {write_path(path)}, where a gradient comes to {reached} of {len(path)} states")
    _block(figure, 12.3, _BELOW + 2.5, 1.4, 0.62, f"loss {measured.loss:.2f}", _tint(_PINK, 1), True)
    figure.add_scatter(
        x=[13, 13, 6], y=[2.3, 3.62, 3.62], mode="lines", line={"color": _BLUE, "width": 3}, hoverinfo="skip", showlegend=False
    )  # fmt: skip
    figure.add_annotation(
        x=6, y=_BELOW - 0.03, ax=6, ay=3.6, xref="x", yref="y", axref="x", ayref="y", showarrow=True, arrowhead=2, arrowwidth=3,
        arrowcolor=_BLUE, text="",
    )  # fmt: skip
    for x, words_there in (
        (9.6, "what the encoder made, for each layer of the decoder"),
        (1.8, "–  no gradient arrives here"),
    ):
        figure.add_annotation(x=x, y=3.4, showarrow=False, font={"size": 12}, text=words_there)
    modules = sum(g > 1 for path in measured.assembly.paths for g in path)
    title = f"Step {measured.step}: {modules} modules ran among {measured.assembly.layers - modules} originals"
    figure.update_layout(template="plotly_white", title=title, height=560, width=900)
    figure.update_xaxes(visible=False, range=[-2.1, 13.8], fixedrange=True)
    figure.update_yaxes(
        range=[_BELOW + 3.25, -0.1],
        showgrid=False,
        zeroline=False,
        tickvals=list(ticks),
        ticktext=list(ticks.values()),
        fixedrange=True,
    )
    return described(
        figure,
        f"Both stacks as lanes of blocks, with the blocks that ran in step {measured.step} joined by a line: {words[0]}; {words[1]}. Each "
        f"of the {modules} modules on the path shows the norm of its gradient, no other block has one. The loss is {measured.loss:.2f}.",
        margin={"l": 100, "r": 10, "t": 50, "b": 10},
    )


def _short(norm: float | None) -> str:
    return "–" if norm is None else f"{norm:.2f}" if norm >= 0.01 else f"{norm:.1g}"


def _thousandths(norm: float | None) -> str:
    return "–" if norm is None else f"{1000 * norm:.2g}"


def _tint(color: str, strength: float) -> str:
    """A colour mixed with white: 0 is white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    share = 0.75 * min(1.0, max(0.0, strength))
    return "#" + "".join(f"{round(255 + share * (part - 255)):02x}" for part in parts)


def _block(
    figure: go.Figure, x: float, y: float, width: float, height: float, label: str, fill: str, solid: bool
) -> None:
    inset = 0.06
    figure.add_shape(
        type="rect", x0=x + inset, x1=x + width - inset, y0=y, y1=y + height, fillcolor=fill if solid else "white", layer="above",
        line={"color": "#555555" if solid else "#c8c8c8", "width": 1.5 if solid else 1, "dash": "solid" if solid else "dot"},
    )  # fmt: skip
    color = "#111111" if solid else "#a0a0a0"
    figure.add_annotation(
        x=x + width / 2, y=y + height / 2, text=label, showarrow=False, font={"size": 11.5, "color": color}
    )


# -- the schedule ------------------------------------------------------------------------------------------------------


def probability(step: int, steps: int, start: float, full_at: float) -> float:
    """p rises in a straight line from ``start``, and is 1 after the share ``full_at`` of all steps."""
    return start + (1 - start) * min(1.0, step / (full_at * steps))


def check_probability(probability: Probability) -> None:
    """Exercise 2.3: ``probability(step, steps, start, full_at)`` is p at a step."""
    assert probability(0, 200, 0.5, 0.5) is not None, "probability(0, 200, 0.5, 0.5) gives nothing back yet"
    for step, wanted in [(0, 0.5), (50, 0.75), (100, 1.0), (199, 1.0)]:
        given = probability(step, 200, 0.5, 0.5)
        assert abs(given - wanted) < 1e-9, (
            f"p begins at 0.5 and is 1 from step 100 on, so at step {step} it is {wanted}; yours is {given}"
        )
    same = ReplacingSchedule(_TWELVE, 80, probability=0.2, full_at=0.9)
    wrong = [
        step for step in range(80) if abs(probability(step, 80, 0.2, 0.9) - same.replacing_probability(step)) > 1e-9
    ]
    assert not wrong, (
        f"with start 0.2 and full_at 0.9 yours differs from modtf's first at step {wrong[0]}" if wrong else ""
    )


def two_schedules(mapping: ModelMapping, steps: int = 100) -> go.Figure:
    """The figure to remember: what stands in the place of the decoder's layers, step by step, in two schedules."""
    schedules = {
        "mixtures: fine before coarse": ReplacingSchedule(mapping, steps, mixtures=1, whole=0, coarse_at=0.5),
        "modtf's own: whole-grain, too": ReplacingSchedule(mapping, steps),
    }
    figure = make_subplots(rows=1, cols=2, subplot_titles=list(schedules), shared_yaxes=True, horizontal_spacing=0.04)
    places = (1, *mapping.decoder.granularities)
    shades = ["#ffffff", "#9cc7e6", "#5fa3d5", "#2a6ea3", "#12324d"][: len(places)]
    scale = [[(i + k) / len(places), shade] for i, shade in enumerate(shades) for k in (0, 1)]
    for column, schedule in enumerate(schedules.values(), start=1):
        rows = _rows([assembly.decoder for assembly in schedule])
        figure.add_heatmap(
            z=[[places.index(g) for g in row] for row in rows], zmin=-0.5, zmax=len(places) - 0.5, text=rows, colorscale=scale,
            hovertemplate="step %{x}, layer %{y}: granularity %{text}<extra></extra>", showscale=column == 2,
            colorbar={"tickvals": list(range(len(places))), "ticktext": ["original", *map(str, places[1:])], "outlinewidth": 1},
            row=1, col=column,
        )  # fmt: skip
    title = "What each step puts in the place of the decoder's layers"
    figure.update_layout(template="plotly_white", title=title, height=400, width=900)
    figure.update_xaxes(title="training step", range=[-0.5, steps - 0.5])
    figure.update_yaxes(autorange="reversed", dtick=1, tickfont={"size": 11})
    figure.update_yaxes(title="original layer", col=1)
    return described(
        figure,
        f"Two maps of {steps} training steps against the decoder's 12 layers, coloured by the granularity drawn. Left: at first about half "
        "is white, original layers; then everything is coloured, ever darker, as coarser modules come in; after the middle no "
        "original is left. Right: whole columns of one colour, white ones too, in all shades to the very end.",
        margin={"t": 80},
    )


def _rows(paths: Iterable[LayerPath]) -> list[list[int]]:
    """For each original layer, the granularity that stands in its place at each step."""
    columns = [[g for g in path for _ in range(g)] for path in paths]
    return [list(row) for row in zip(*columns, strict=True)]


def share_of_modules(assemblies: Sequence[Assembly]) -> float:
    """The share of the original layers that modules stand for, over all steps."""
    return sum(g for one in assemblies for path in one.paths for g in path if g > 1) / sum(
        sum(path) for one in assemblies for path in one.paths
    )


def check_mixed_to_the_end(assemblies: Sequence[Assembly]) -> None:
    """The challenge of the sliders: much is replaced, and yet modules meet originals until the end."""
    share = share_of_modules(assemblies)
    assert share >= 0.6, f"modules stand for {100 * share:.1f} % of the layers; at least 60 % are wanted"
    last = assemblies[-len(assemblies) // 4 :]
    mixed = sum(1 in one.encoder + one.decoder for one in last) / len(last)
    assert mixed >= 0.5, (
        f"in the last quarter {100 * mixed:.0f} % of the steps still hold an original; at least half are wanted"
    )


def schedule_map(assemblies: Sequence[Assembly]) -> tuple[go.Figure, str]:
    """What each step replaces, in both stacks, and how far the challenge is solved."""
    figure = make_subplots(rows=1, cols=2, subplot_titles=STACKS, shared_yaxes=True, horizontal_spacing=0.04)
    for column, rows in enumerate(
        (_rows(one.encoder for one in assemblies), _rows(one.decoder for one in assemblies)), start=1
    ):
        figure.add_heatmap(
            z=[[int(g > 1) for g in row] for row in rows], zmin=0, zmax=1, colorscale=[[0, "#ffffff"], [1, "#5fa3d5"]], showscale=False,
            hovertemplate="step %{x}, layer %{y}<extra></extra>", row=1, col=column,
        )  # fmt: skip
    title = "What each step replaces: white is an original, blue a module"
    figure.update_layout(template="plotly_white", title=title, height=350, width=900)
    figure.update_xaxes(title="training step").update_yaxes(autorange="reversed", dtick=1, tickfont={"size": 11})
    figure.update_yaxes(title="original layer", col=1)
    share = share_of_modules(assemblies)
    alt = f"Two maps of {len(assemblies)} steps against 12 layers: white is an original, blue a module. Modules stand for {100 * share:.0f} percent."
    described(figure, alt, margin={"t": 80})
    try:
        check_mixed_to_the_end(assemblies)
    except AssertionError as error:
        verdict = f"The challenge is open: {error}."
    else:
        verdict = "✓ That solves the challenge. Now train with it."
    return figure, f"<p>Modules (blue) stand for {100 * share:.1f} % of the layers. {escape(verdict)}</p>"


# -- what came of it ---------------------------------------------------------------------------------------------------


def learning_curve(curve: Sequence[Mapping[str, float]], steps: int) -> go.Figure:
    """BLEU and slot errors of 2x while it trains; ``curve`` has ``step``, ``bleu`` and ``ser``."""
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("BLEU of 2x, against the original's texts", "slot error rate of 2x (%)")
    )
    for column, score in enumerate(("bleu", "ser"), start=1):
        figure.add_scatter(
            x=[row["step"] for row in curve], y=[row[score] for row in curve], mode="lines+markers", row=1, col=column
        )
    figure.update_layout(template="plotly_white", title="2x learns to write", height=350, width=900, showlegend=False)
    figure.update_xaxes(title="training step", range=[-5, steps + 5]).update_yaxes(rangemode="tozero")
    first, last = curve[0], curve[-1]
    return described(
        figure,
        f"Two curves over {steps} training steps: the BLEU of the 2x model goes from {first['bleu']:.0f} to {last['bleu']:.0f}, its slot "
        f"error rate from {first['ser']:.0f} to {last['ser']:.0f} percent.",
        margin={"t": 80},
    )


def measured_sizes(modular: ModularModel, ratios: Iterable[float], examples: Sequence[Example]) -> list[dict[str, Any]]:
    """BLEU and slot errors of each size; ``drawn`` holds those of all examples, then of each bootstrap sample of them."""
    rows = []
    for ratio in ratios:
        size = modular.choose(ratio)
        drawn = drawn_scores(E2E, examples, write_texts(modular, size, [example.source for example in examples]))
        scores = {name: float(of_all) for name, (of_all, *_) in drawn.items()}
        rows.append({"ratio": size.ratio, "layers": size.shape, **scores, "drawn": drawn})
    return rows


def sizes_in_between(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """BLEU and slot errors of each size, a pair of columns for each training so far."""
    columns = {}
    for run, rows in runs.items():
        for name, score in (("BLEU", "bleu"), ("SER %", "ser")):
            columns[run, name] = pd.Series(
                {f"{row['ratio']:.2f}x, {row['layers']}": round(row[score], 1) for row in rows}
            )
    return pd.DataFrame(columns)


def minus(row: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The scores of one size minus those of another, with 95 % intervals: paired, since both wrote for the same inputs."""
    found: Any = differences(row["drawn"], other["drawn"])
    words = [
        f"{name} {found[score]:+.1f} ({found[score + '_interval'][0]:+.1f} to {found[score + '_interval'][1]:+.1f})"
        for name, score in (("BLEU", "bleu"), ("SER", "ser"))
    ]
    return f"{row['ratio']:.2g}x minus {other['ratio']:.2g}x: {', '.join(words)}"


def schedules_compared(ablation: Mapping[str, Any]) -> go.Figure:
    """Slot errors of 2x and 6x over the training, a line for each schedule."""
    runs = _scores(ablation)
    figure = make_subplots(rows=1, cols=2, subplot_titles=("2x: slot error rate (%)", "6x: slot error rate (%)"))
    looks = zip((_BLUE, _ORANGE, _PINK, _GREEN, _GREY), ("solid", "dash", "dot", "dashdot", "longdash"), strict=True)
    for (name, of_schedule), (color, dash) in zip(runs.groupby("schedule", sort=False), looks, strict=True):
        for column, ratio in enumerate((2, 6), start=1):
            mean = of_schedule[of_schedule.ratio == ratio].groupby("step").ser.mean()
            figure.add_scatter(
                x=mean.index, y=mean, name=name, legendgroup=name, showlegend=column == 1, row=1, col=column,
                line={"color": color, "dash": dash},
            )  # fmt: skip
    title = "Five schedules, replacing alone (means of two seeds)"
    figure.update_layout(
        template="plotly_white", title=title, height=450, width=900, legend={"orientation": "h", "y": -0.25}
    )
    figure.update_xaxes(title="training step").update_yaxes(rangemode="tozero")
    final = runs[runs.step == ablation["steps"]]
    best = {ratio: final[final.ratio == ratio].groupby("schedule").ser.mean().idxmin() for ratio in (2, 6)}
    return described(
        figure,
        f"Slot error rates of 2x and of 6x over {ablation['steps']} training steps, a line for each of five schedules. At the end the "
        f"lowest line at 2x is '{best[2]}', at 6x '{best[6]}'.",
        margin={"t": 80},
    )


def _scores(ablation: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"schedule": run["name"], "seed": run["seed"]} | score for run in ablation["runs"] for score in run["scores"]]
    )


def given_back(kept: Mapping[bool, Mapping[float, float]]) -> go.Figure:
    """BLEU kept by each ratio, before (False) and after (True) the training of a kit."""
    figure = go.Figure()
    for trained, name, dash in ((True, "trained", "solid"), (False, "copies of the first layers", "dash")):
        figure.add_scatter(
            x=list(kept[trained]), y=list(kept[trained].values()), mode="lines+markers", name=name, line={"dash": dash}
        )
    figure.update_layout(
        template="plotly_white", title="What the training of the translator's kit gave back", height=340, width=800
    )
    figure.update_xaxes(title="compression ratio, size first").update_yaxes(title="BLEU kept (%)", range=[-3, 105])
    return described(
        figure,
        f"BLEU kept by the translator over the ratio, before and after training. Before: {kept[False][1.09]} percent at 1.09x and "
        f"{kept[False][2]} at 2x. After: {kept[True][1.09]} percent at 1.09x, {kept[True][2]} at 2x and {kept[True][6]} at 6x.",
    )


def bleu_kept(model: str) -> dict[bool, dict[float, float]]:
    """BLEU kept (%) by each ratio of size first, before (False) and after (True) the training of a bundled kit."""
    rows = _size_first(model)
    return {
        when: {ratio: row["bleu_kept"] for (trained, ratio), row in rows.items() if trained == when}
        for when in (False, True)
    }
