"""The slider: choose what to say and how small the model is, and see at once what it writes, how fast and how well.

Core ipywidgets only, of version 7.7 (Colab) and 8. The view draws the :class:`Controller`'s states and knows nothing else. Whatever
was typed or generated is escaped before it becomes HTML.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from html import escape
from typing import Any

import ipywidgets as widgets
from transformers.utils import logging

from modtf.errors import ModtfError
from modtf.mapping import Assembly, Path, write_path
from modtf.modular import ModularModel, load
from modtf.strategies import STRATEGIES, assemblies
from modtf.tasks.e2e import MR, OPEN_SLOTS, SLOTS, VALUES, draw_mr, parse_mr, write_mr
from modtf.views.controller import Controller, Row, Side, State, bundled_table
from modtf.views.figures import CURVE_CLASS, figure_html, frame_html, quality_curve

_FIRST_MR = (
    "name[The Vaults], eatType[pub], food[French], priceRange[£20-25], customer rating[5 out of 5], area[riverside], near[Café Adriatic]"
)
_FIRST_RATIO = 2.0
_NOT_SAID = "(not said)"
_LABELS = {"eatType": "type", "priceRange": "price", "customer rating": "rating", "familyFriendly": "family friendly"}
_STRATEGY_HINTS = {
    "size_first": "both stacks shrink evenly",
    "speed_first": "the decoder shrinks first, since it runs once for every token",
}

#: Colours follow the page (light or dark); those of chips and blocks are told apart without colour vision, and symbols say it again.
_STYLE = """<style>
.modtf { max-width: 900px; margin: 0 auto; color: var(--jp-content-font-color1, inherit); --modtf-line: rgba(128,128,128,.35);
  --modtf-soft: rgba(128,128,128,.09); --modtf-blue: 59,143,208; --modtf-orange: 224,123,26; --modtf-pink: 204,78,148;
  font-family: var(--jp-ui-font-family, system-ui, sans-serif); font-size: 14px; padding: 0 8px; box-sizing: border-box; }
.modtf .widget-html, .modtf .widget-html-content { width: 100%; margin: 0; height: auto; line-height: 1.5; font-size: 14px; overflow: visible; color: inherit; }
.modtf h2 { font-size: 24px; font-weight: 650; margin: 10px 0 0; letter-spacing: -.01em; line-height: 1.3; color: inherit; }
.modtf .modtf-sub { opacity: .75; margin: 0 0 10px; }
.modtf-field.widget-inline-hbox { flex-direction: column; align-items: stretch; height: auto; width: auto; margin: 2px 0; }
.modtf-field.widget-inline-hbox > .widget-label { text-align: left; width: auto; height: 20px; line-height: 20px; font-size: 12px; opacity: .8; color: inherit; }
.modtf-field input[type=text], .modtf-field select { flex: none; width: 100%; min-width: 0; height: 30px; min-height: 30px; box-sizing: border-box; }
.modtf-controls { border-top: 1px solid var(--modtf-line); padding-top: 10px; margin-top: 8px; align-items: center; overflow: visible; }
.modtf-ratio .widget-readout { font-size: 22px; font-weight: 650; min-width: 84px; text-align: right; color: inherit; font-variant-numeric: tabular-nums; height: auto; line-height: 1.3; overflow: visible; }
.modtf-controls .widget-toggle-buttons { margin-left: 14px; overflow: visible; }
.modtf-problem { border-left: 4px solid rgb(var(--modtf-orange)); background: rgba(var(--modtf-orange),.13); padding: 6px 10px; border-radius: 4px; overflow-wrap: anywhere; margin: 4px 0; }
.modtf-texts { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
.modtf-card { border: 1px solid var(--modtf-line); border-radius: 10px; padding: 10px 14px 12px; background: var(--modtf-soft); min-width: 0; }
.modtf-card.modtf-small { border-color: rgb(var(--modtf-blue)); }
.modtf-card header { font-size: 12.5px; opacity: .85; display: flex; justify-content: space-between; gap: 8px; }
.modtf-card .modtf-text { font-size: 16px; line-height: 1.5; margin: 6px 0 8px; min-height: 72px; max-height: 168px; overflow: auto; overflow-wrap: anywhere; white-space: pre-wrap; }
.modtf-waiting .modtf-small .modtf-text, .modtf-waiting .modtf-small .modtf-chips, .modtf-waiting .modtf-new { opacity: .35; }
.modtf-stale .modtf-text, .modtf-stale .modtf-chips, .modtf-stale .modtf-new { opacity: .35; }
.modtf-chip { display: inline-block; border: 1px solid; border-radius: 999px; padding: 0 9px; margin: 0 5px 5px 0; font-size: 12px; line-height: 20px; white-space: nowrap; }
.modtf-said { border-color: rgba(var(--modtf-blue),.75); background: rgba(var(--modtf-blue),.13); }
.modtf-missed { border-color: rgb(var(--modtf-orange)); border-style: dashed; background: rgba(var(--modtf-orange),.1); }
.modtf-wrong, .modtf-added { border-color: rgb(var(--modtf-pink)); background: rgba(var(--modtf-pink),.2); font-weight: 600; }
.modtf-repeated { border-color: rgb(var(--modtf-orange)); background: rgba(var(--modtf-orange),.22); }
.modtf-facts { display: grid; grid-template-columns: minmax(0, 1fr) 176px; gap: 14px; margin-top: 12px; align-items: stretch; }
.modtf table.modtf-table { width: 100%; border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: 0; table-layout: auto; color: inherit; }
.modtf table.modtf-table th, .modtf table.modtf-table td { text-align: right; padding: 3px 8px; border: 0; border-bottom: 1px solid var(--modtf-line); background: none; white-space: nowrap; font-weight: 400; color: inherit; }
.modtf table.modtf-table th:first-child { text-align: left; opacity: .8; }
.modtf table.modtf-table thead th { opacity: .8; font-size: 12px; }
.modtf table.modtf-table td:last-child { font-weight: 600; }
.modtf table.modtf-table tr { background: none !important; }
.modtf-speed { border-radius: 10px; background: rgba(var(--modtf-blue),.14); display: flex; flex-direction: column; justify-content: center; text-align: center; padding: 8px; }
.modtf-speed b { font-size: 36px; line-height: 1.15; font-weight: 700; font-variant-numeric: tabular-nums; }
.modtf-speed span { font-size: 12px; opacity: .85; }
.modtf-stack { display: flex; gap: 3px; align-items: center; margin: 3px 0; }
.modtf-stack > small { width: 64px; flex: none; opacity: .8; font-size: 12px; }
.modtf-block { box-sizing: border-box; flex-basis: 0; min-width: 0; border-radius: 4px; font-size: 11px; line-height: 20px; text-align: center; border: 1px solid rgba(128,128,128,.6); overflow: hidden; }
.modtf-block.modtf-module { border-color: rgb(var(--modtf-blue)); background: rgba(var(--modtf-blue),.3); font-weight: 600; }
.modtf-structure { margin: 10px 0 12px; }
.modtf-note { font-size: 12.5px; opacity: .8; margin: 4px 0 0; }
.modtf-quality { margin-top: 16px; border-top: 1px solid var(--modtf-line); padding-top: 10px; }
@media (max-width: 620px) { .modtf-texts, .modtf-facts { grid-template-columns: 1fr; } }
</style>"""


def explore(modular: ModularModel | None = None) -> widgets.Widget:
    """The slider for a modular model, the bundled pocket model where none is given; show it as the last value of a cell.

    Models of the bundled task get a field for each slot and a report of what each text says; others get a field for any text.
    """
    return Explorer(_load_quietly() if modular is None else modular).widget


def _load_quietly() -> ModularModel:
    """Pocket, without the progress bar that would stay above the page."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return load("pocket")
    finally:
        if shown:
            logging.enable_progress_bar()


class Explorer:
    """The widgets of :func:`explore`, drawing what a controller publishes."""

    def __init__(self, modular: ModularModel) -> None:
        self.table, self._table_note = bundled_table(modular)
        self.controller = Controller(modular, self.table, self._draw)
        self._following = False  # set while fields follow each other, so that they do not answer
        self._figures: dict[tuple[int, bool], str] = {}
        mapping = modular.mapping
        about = f"{mapping.count_assemblies():,} models in one: every size shares its weights with the full {mapping.encoder_depth} + {mapping.decoder_depth} layers."

        # -- what to say
        first = _FIRST_MR if self.controller.has_slots else ""
        self.source = _field(
            widgets.Text(
                value=first, continuous_update=False, description="the same as text" if self.controller.has_slots else "text",
                placeholder="name[The Vaults], food[French]" if self.controller.has_slots else "any text that the model was trained to work on",
            )
        )  # fmt: skip
        self.source.observe(self._guarded(self._source_changed), "value")
        self.problem = widgets.HTML()
        self.slots: dict[str, Any] = {}
        said: list[widgets.Widget] = []
        if self.controller.has_slots:
            self.slots = {slot: _slot_field(slot) for slot in SLOTS}
            self._show_slots(parse_mr(first))
            for field in self.slots.values():
                field.observe(self._guarded(self._slot_changed), "value")
            draw = widgets.Button(
                description="another restaurant", icon="random", layout={"width": "170px", "margin": "22px 0 0 8px", "height": "30px"}
            )
            draw.on_click(self._guarded(self._draw_restaurant))
            self.source.layout.flex = "1 1 auto"
            said = [
                widgets.GridBox(
                    list(self.slots.values()), layout={"grid_template_columns": "repeat(4, minmax(0, 1fr))", "grid_gap": "4px 12px"}
                ),
                widgets.HBox([self.source, draw]),
            ]
        else:
            said = [self.source]

        # -- how small
        self.strategy = widgets.ToggleButtons(
            options=[(name.replace("_", " "), name) for name in STRATEGIES], tooltips=list(_STRATEGY_HINTS.values()),
            style={"button_width": "96px"}, layout={"width": "auto", "flex": "none"},
        )  # fmt: skip
        self.strategy.observe(self._guarded(self._strategy_changed), "value")
        options = self._ratios()
        self.ratio = widgets.SelectionSlider(
            options=options, value=_nearest(_FIRST_RATIO, options), description="ratio", continuous_update=True, layout={"flex": "1 1 auto", "width": "auto"},
            style={"description_width": "40px"},
        )  # fmt: skip
        self.ratio.add_class("modtf-ratio")
        self.ratio.observe(self._guarded(self._ratio_changed), "value")
        controls = widgets.HBox([self.ratio, self.strategy])
        controls.add_class("modtf-controls")

        # -- what comes of it
        self.structure, self.result, self.quality = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.figure = widgets.HTML(layout={"display": "none"})
        children = [
            widgets.HTML(f'{_STYLE}<h2>Train once, slide to any size</h2><p class="modtf-sub">{about}</p>'),
            *said, self.problem, controls, self.structure, self.result, self.quality,
        ]  # fmt: skip
        if self.controller.rows:
            curve = widgets.VBox(
                [widgets.HTML(frame_html("Measured quality against measured speed, a line for each strategy")), self.figure]
            )
            curve.add_class(CURVE_CLASS)
            children.append(curve)
        self.widget = widgets.VBox(children)
        self.widget.add_class("modtf")
        if first:
            self._request()
        else:
            self._draw(self.controller.state)

    # -- from the person to the controller -----------------------------------------------------------------------------

    def _request(self) -> None:
        self.controller.request(self.source.value, self.ratio.value, self.strategy.value)

    def _source_changed(self) -> None:
        if self.controller.has_slots:
            with suppress(ModtfError):  # the controller says the same, where it is seen
                self._show_slots(parse_mr(self.source.value))
        self._request()

    def _slot_changed(self) -> None:
        mr = {slot: field.value.strip() for slot, field in self.slots.items() if field.value.strip()}
        with self._follow():
            self.source.value = write_mr(mr)
        self._request()

    def _draw_restaurant(self) -> None:
        mr = draw_mr(random.Random())
        self._show_slots(mr)
        with self._follow():
            self.source.value = write_mr(mr)
        self._request()

    def _strategy_changed(self) -> None:
        options, wanted = self._ratios(), self.ratio.value
        with self._follow():
            self.ratio.options = options
            self.ratio.value = _nearest(wanted, options)
        self._request()

    def _ratio_changed(self) -> None:
        self._request()

    def _ratios(self) -> list[tuple[str, float]]:
        return [(f"{one.ratio:.2f}×", one.ratio) for one in assemblies(self.controller.modular.mapping, self.strategy.value)]

    def _show_slots(self, mr: MR) -> None:
        with self._follow():
            for slot, field in self.slots.items():
                field.value = mr.get(slot, "")

    @contextmanager
    def _follow(self) -> Iterator[None]:
        self._following = True
        try:
            yield
        finally:
            self._following = False

    def _guarded(self, action: Callable[[], None]) -> Callable[[Any], None]:
        """An observer that keeps still while fields follow each other, and whose errors are shown instead of lost in a log."""

        @functools.wraps(action)
        def observer(change: Any) -> None:
            if self._following:
                return
            try:
                action()
            except Exception as error:
                self.problem.value = problem_html(str(error) if isinstance(error, ModtfError) else f"{type(error).__name__}: {error}")

        return observer

    # -- from the controller to the page -------------------------------------------------------------------------------

    def _draw(self, state: State) -> None:
        """Called by the worker thread too: sets traits of display widgets only, each at most once."""
        self.problem.value = problem_html(state.problem)
        if state.request is not None:
            self.structure.value = structure_html(state.request.assembly)
        self.result.value = result_html(state)
        if not self.controller.rows:
            self.quality.value = (
                f'<div class="modtf-quality"><p class="modtf-note">{escape(self._table_note or "No measurements are bundled.")}</p></div>'
            )
        elif state.request is not None:
            here, exact = self.controller.measured(state.request.assembly, state.request.strategy)
            if here is not None:
                self.quality.value = quality_html(here, exact, self.table or {})
                if not state.busy:  # a figure takes longer than all else here: text first, and each figure once
                    key = (self.controller.rows.index(here), exact)
                    if key not in self._figures:
                        self._figures[key] = figure_html(quality_curve(self.controller.rows, here, exact))
                    self.figure.value = self._figures[key]


def _nearest(ratio: float, options: list[tuple[str, float]]) -> float:
    return min((value for _, value in options), key=lambda value: abs(value - ratio))


def _field(field: Any) -> Any:
    """Its label above it instead of beside it."""
    field.add_class("modtf-field")
    return field


def _slot_field(slot: str) -> Any:
    label = _LABELS.get(slot, slot)
    if slot in OPEN_SLOTS:
        return _field(
            widgets.Combobox(options=VALUES[slot], description=label, placeholder=_NOT_SAID, ensure_option=False, continuous_update=False)
        )
    return _field(widgets.Dropdown(options=[(_NOT_SAID, ""), *((value, value) for value in VALUES[slot])], description=label))


# -- drawing: plain functions from records to HTML ---------------------------------------------------------------------


def problem_html(problem: str) -> str:
    """What is wrong, in words; nothing where nothing is."""
    return f'<div class="modtf-problem" role="alert">{escape(problem)}</div>' if problem else ""


def structure_html(assembly: Assembly) -> str:
    """Both stacks as blocks in the widths of what they stand for: original layers hollow, modularized layers filled."""

    def stack(name: str, path: Path) -> str:
        blocks = "".join(
            f'<span class="modtf-block{" modtf-module" if g > 1 else ""}" style="flex-grow:{g}" title="'
            + (f"a modularized layer for {g} original layers" if g > 1 else "an original layer")
            + f'">{g if g > 1 else "&nbsp;"}</span>'
            for g in path
        )
        return f'<div class="modtf-stack" role="img" aria-label="{name} {write_path(path)}"><small>{name} {len(path)}</small>{blocks}</div>'

    return (
        f'<div class="modtf-structure">{stack("encoder", assembly.encoder)}{stack("decoder", assembly.decoder)}'
        '<p class="modtf-note">hollow: an original layer · filled: one modularized layer in place of so many</p></div>'
    )


_KINDS = (("said", "✓", ""), ("missed", "○", "missed"), ("wrong", "≠", "wrong"), ("added", "+", "added"))


def chips_html(side: Side) -> str:
    """The slots of a text as chips: said, repeated, missed, wrong, added."""
    report = side.report
    if report is None:
        return ""
    chips = []
    for kind, symbol, word in _KINDS:
        for slot in getattr(report, kind):
            again = kind == "said" and slot in report.repeated
            shown = ("repeated", "↻", "repeated") if again else (kind, symbol, word)
            name = escape(_LABELS.get(slot, slot))
            chips.append(f'<span class="modtf-chip modtf-{shown[0]}">{shown[1]} {name}{f" · {shown[2]}" if shown[2] else ""}</span>')
    return f'<div class="modtf-chips">{"".join(chips)}</div>'


def card_html(title: str, side: Side, kind: str, note: str = "") -> str:
    text = escape(side.text) or '<i style="opacity:.6">(an empty text)</i>'
    return (
        f'<section class="modtf-card modtf-{kind}"><header><span>{title}</span><span>{note}</span></header>'
        f'<div class="modtf-text">{text}</div>{chips_html(side)}</section>'
    )


def result_html(state: State) -> str:
    """Both texts, and what they took. Dimmed where it is not (or not yet) of the present request."""
    result = state.result
    if result is None:
        words = "Writing the first text …" if state.busy else "" if state.problem else "Type a text above and press Enter."
        return f'<p class="modtf-note" role="status">{words}</p>'
    full, small = result.full, result.small
    # A text for another source is old on both sides; at another ratio the full model's text still holds.
    same_source = state.request is not None and state.request.source == result.request.source and not state.problem
    dim = "" if state.current else "modtf-waiting" if same_source else "modtf-stale"
    note = "writing …" if state.busy else ""
    rows = [
        ("layers (encoder-decoder)", full.assembly.shape, small.assembly.shape),
        ("parameters", f"{full.size.parameters:,}", f"{small.size.parameters:,}"),
        ("… without embeddings", f"{full.size.without_embeddings:,}", f"{small.size.without_embeddings:,}"),
        ("milliseconds, now", f"{full.milliseconds:,.0f}" + ("*" if full.remembered else ""), f"{small.milliseconds:,.0f}"),
        ("tokens written", f"{full.tokens}", f"{small.tokens}"),
        ("tokens per second", f"{full.tokens_per_second:,.0f}", f"{small.tokens_per_second:,.0f}"),
    ]
    table = "".join(f'<tr><th scope="row">{name}</th><td>{left}</td><td>{right}</td></tr>' for name, left, right in rows)
    how = (
        "full model: remembered from an earlier run of this text"
        if full.remembered
        else f"greedy, batch 1, median of {full.runs} runs in turns"
        if full.runs > 1
        else "greedy, batch 1, one run; timing again …"
    )
    remembered = f'<p class="modtf-note">{"* " if full.remembered else ""}{how}</p>'
    return (
        f'<div class="modtf-result {dim}" aria-live="polite" aria-busy="{str(state.busy).lower()}" data-generation="{state.generation}">'
        f'<div class="modtf-texts">{card_html("full model", full, "full", full.assembly.shape)}'
        f"{card_html(f'assembled at {small.assembly.ratio:.2f}×', small, 'small', note or small.assembly.shape)}</div>"
        f'<div class="modtf-facts modtf-new"><div><table class="modtf-table"><thead><tr><th></th><th scope="col">full</th>'
        f'<th scope="col">assembled</th></tr></thead><tbody>{table}</tbody></table>{remembered}</div>'
        f'<div class="modtf-speed"><b>{result.speed_up:.2f}×</b><span>the full model\'s speed,<br>token for token, on this text</span></div></div></div>'
    )


def quality_html(here: Row, exact: bool, table: dict[str, Any]) -> str:
    """What was measured of this assembly, or of the nearest one, in a sentence."""
    subject = (
        "This assembly"
        if exact
        else f"This assembly was not measured. The nearest that was ({here['ratio']:.2f}×, {escape(str(here['layers']))})"
    )
    return (
        f'<div class="modtf-quality" aria-live="polite"><b>Quality, measured before.</b> {subject}: '
        f"<b>{here['bleu_kept']:.1f} %</b> of the full model's BLEU ({here['bleu']:.1f}), <b>{here['ser']:.1f} %</b> slot errors, "
        f"<b>{here['speed_up']:.2f}×</b> its speed."
        f'<p class="modtf-note">{table.get("examples", "?")} test MRs, greedy; {escape(str(table.get("machine", "")))}, '
        f"threads: {escape(str(table.get('threads', '?')))}</p></div>"
    )
