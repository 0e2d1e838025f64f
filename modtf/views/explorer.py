"""The explorer: choose an input and what the model is made of, and see at once what it writes, how fast and how well.

Core ipywidgets only, of version 7.7 (Colab) and 8. This file holds the widgets and how they follow each other; the
:class:`Controller` computes, and the functions of ``markup`` draw its states.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from modtf.errors import ModtfError
from modtf.evaluation import measured_table
from modtf.mapping import Assembly, StackMapping
from modtf.modular import ModularModel, load
from modtf.strategies import STRATEGIES, assemblies, even_path
from modtf.tasks.task import Field, Metric
from modtf.views import markup
from modtf.views.controller import Controller
from modtf.views.figures import CURVE_CLASS, figure_html, frame_html, quality_curve
from modtf.views.picture import Picture
from modtf.views.state import Row, State, words_of

_FIRST_RATIO = 2.0
_NOT_SAID = "(not said)"
_STRATEGY_HINTS = {
    "size_first": "both stacks shrink evenly",
    "speed_first": "the decoder shrinks first, since it runs once for every token",
}
_EXAMPLES = (30, 100, 300)
#: What quality is measured against: people's texts (the table's test set), or the full model's own texts for bundled
#: inputs, which can be measured here too.
_PEOPLE, _MODEL = "people's texts", "the full model's texts"


def explore(modular: ModularModel | None = None, *, folder: str | Path = ".") -> widgets.Widget:
    """The explorer for a modular model, the bundled pocket model by default; show it as the last value of a cell.

    The model's task says how an input is made and how a text is judged. Checkpoints are saved in ``folder``.
    """
    if modular is not None and not isinstance(modular, ModularModel):
        raise ModtfError(
            f"a {type(modular).__name__} cannot be explored; "
            "give it modularized layers first: modtf.modularize(model, ...)"
        )
    return Explorer(load("pocket") if modular is None else modular, folder).widget


class Explorer:
    """The widgets of :func:`explore`, drawing what a controller publishes."""

    def __init__(self, modular: ModularModel, folder: str | Path = ".") -> None:
        self.table, self._table_note = measured_table(modular)
        self.controller = Controller(modular, self.table, self._draw, folder)
        self.task = self.controller.task
        self.measurable = bool(self.task.model)  # whether there are bundled examples to measure on
        self._following = False  # set while fields follow each other, so that they do not answer
        self._figures: dict[Any, str] = {}
        self._points: tuple[Row, ...] = ()  # measured here
        self._named: Assembly | None = None  # the assembly that the folder's name was made for
        self.result = widgets.HTML()
        sections = [
            widgets.VBox([widgets.HTML(self._title()), *self._input()]),
            _section("", *self._how_small()),
            widgets.VBox([self.result, *self._racing()]),
            _section("Quality", *self._quality()),
            _section("One input at every ratio", *self._sweeping()),
            _section("Take it away", *self._taking_away()),
        ]
        self.widget = widgets.VBox(sections)
        self.widget.add_class("modtf")
        self._ask(ratio=self.ratio.value, strategy=self.strategy.value)

    # -- the parts, from top to bottom ---------------------------------------------------------------------------------

    def _title(self) -> str:
        mapping = self.controller.modular.mapping
        style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
        about = (
            f"{mapping.count_assemblies():,} models in one: every size shares its weights with the full "
            f"{mapping.encoder.depth} + {mapping.decoder.depth} layers."
        )
        return f'<style>{style}</style><h2>Train once, slide to any size</h2><p class="modtf-sub">{about}</p>'

    def _input(self) -> list[widgets.Widget]:
        form = self.task.form
        self.source = _labelled(
            widgets.Text(
                value=self.task.first,
                continuous_update=False,
                description="text" if form is None else "the same as text",
                placeholder=self.task.placeholder,
            )
        )
        self.source.observe(self._guarded(self._source_changed), "value")
        self.source.layout.flex = "1 1 auto"
        self.problem, self.failure = widgets.HTML(), widgets.HTML()
        self.fields = {field.key: _field(field) for field in form.fields} if form else {}
        self._show_fields()
        for field in self.fields.values():
            field.observe(self._guarded(self._field_changed), "value")
        row = [self.source]
        if self.task.draw is not None:
            another = _button(self.task.draw_label, "random")
            another.layout = {"width": "170px", "margin": "22px 0 0 8px", "height": "30px"}
            another.on_click(self._guarded(self._draw_another))
            row.append(another)
        grid = widgets.GridBox(
            list(self.fields.values()),
            layout={"grid_template_columns": "repeat(4, minmax(0, 1fr))", "grid_gap": "4px 12px"},
        )
        return [*([grid] if self.fields else []), widgets.HBox(row), self.problem, self.failure]

    def _how_small(self) -> list[widgets.Widget]:
        mapping = self.controller.modular.mapping
        self.strategy = widgets.ToggleButtons(
            options=[(name.replace("_", " "), name) for name in STRATEGIES],
            tooltips=list(_STRATEGY_HINTS.values()),
            style={"button_width": "96px"},
            layout={"width": "auto", "flex": "none"},
        )
        self.strategy.observe(self._guarded(self._strategy_changed), "value")
        options = self._ratios(self.strategy.value)
        self.ratio = _slider("ratio", options, _nearest(_FIRST_RATIO, options))
        self.ratio.add_class("modtf-ratio")
        self.ratio.observe(self._guarded(self._ratio_changed), "value")
        self.lengths = {}
        for stack in mapping.stacks:
            lengths = [(f"{n} layers" if n > 1 else "1 layer", n) for n in reversed(stack.lengths)]
            self.lengths[stack.name] = _slider(stack.name, lengths, stack.depth)
            self.lengths[stack.name].observe(self._guarded(functools.partial(self._length_changed, stack)), "value")
        self.picture = Picture(mapping, self._touched)
        self.structure, self.impossible = widgets.HTML(), widgets.HTML()
        controls, stacks = widgets.HBox([self.ratio, self.strategy]), widgets.HBox(list(self.lengths.values()))
        for box in (controls, stacks):
            box.add_class("modtf-controls")
        return [controls, stacks, self.picture.widget, self.impossible, self.structure]

    def _racing(self) -> list[widgets.Widget]:
        self.race_button, self.race = _button("race", "play"), widgets.HTML()
        self.race_button.on_click(self._guarded(lambda: self._start_or_stop("race", self.controller.race)))
        self.race_status = widgets.HTML()
        return [_bar(self.race_button, self.race_status), self.race]

    def _quality(self) -> list[widgets.Widget]:
        self.quality, self.figure = widgets.HTML(), widgets.HTML(layout={"display": "none"})
        self.measure_status, self.measured = widgets.HTML(), widgets.HTML()
        if not self.measurable:
            note = f"{self._table_note} {self.task.measure} stands beside the texts."
            self.quality.value = f'<p class="modtf-note">{escape(note)}</p>'
            return [self.quality]
        self.examples = widgets.Dropdown(
            options=[(f"{n} inputs", n) for n in _EXAMPLES],
            value=_EXAMPLES[0],
            description="on",
            layout={"width": "150px"},
            style={"description_width": "24px"},
        )
        self.measure_button = _button("measure this assembly", "tachometer")
        self.measure_button.on_click(
            self._guarded(lambda: self._start_or_stop("measure", lambda: self.controller.measure(self.examples.value)))
        )
        self.progress = widgets.IntProgress(layout={"width": "160px", "display": "none"})
        self.against = widgets.ToggleButtons(
            options=[_PEOPLE, _MODEL],
            style={"button_width": "auto"},
            layout={"width": "auto"},
            tooltips=[
                "the table's test set, measured before",
                "bundled inputs, so that it can be measured here too: how alike are both models' texts?",
            ],
        )
        self.against.observe(self._guarded(lambda: self._draw_curve(self.controller.state)), "value")
        title = "Measured quality against measured speed: a line for each strategy, the present assembly as a point"
        self.curve = widgets.VBox([widgets.HTML(frame_html(title)), self.figure])
        self.curve.add_class(CURVE_CLASS)
        if not self.controller.rows:
            self.quality.value = f'<p class="modtf-note">{escape(self._table_note)}</p>'
            self.against.value = _MODEL
        self.yardstick = _bar(
            widgets.HTML(_hint(f"{self.task.metrics[0].name} against"), layout={"flex": "none"}), self.against
        )
        if not self.controller.rows:
            self.yardstick.layout.display = self.curve.layout.display = "none"
        return [
            self.quality,
            self.yardstick,
            self.curve,
            _bar(self.measure_button, self.examples, self.progress, self.measure_status),
            self.measured,
        ]

    def _sweeping(self) -> list[widgets.Widget]:
        self.sweep_button, self.sweep, self.sweep_status = _button("sweep", "list-ol"), widgets.HTML(), widgets.HTML()
        self.sweep_button.on_click(
            self._guarded(lambda: self._start_or_stop("sweep", lambda: self.controller.sweep(self.controller.strategy)))
        )
        return [_bar(self.sweep_button, self.sweep_status), self.sweep]

    def _taking_away(self) -> list[widgets.Widget]:
        self.code, self.saved = widgets.HTML(), widgets.HTML()
        self.name = widgets.Text(description="folder", layout={"width": "260px"}, style={"description_width": "48px"})
        self.save_button = _button("save this checkpoint", "download")
        self.save_button.on_click(self._guarded(lambda: self.controller.save(self.name.value)))
        return [self.code, _bar(self.name, self.save_button), self.saved]

    # -- from the person to the controller -----------------------------------------------------------------------------

    def _ask(self, **wish: Any) -> None:
        """Request, and let the controls follow to what is then in force."""
        self.controller.request(self.source.value, **wish)
        state = self.controller.state
        assembly = self._present()
        with self._follow():
            self.strategy.value = state.strategy
            options = self._ratios(self.controller.strategy)
            if all(
                abs(value - assembly.ratio) > 1e-9 for _, value in options
            ):  # built by hand, and off this strategy's way
                options = sorted([*options, (f"{assembly.ratio:.2f}×", assembly.ratio)], key=lambda option: option[1])
            if self.ratio.options != tuple(options):
                self.ratio.options = options
            self.ratio.value = _nearest(assembly.ratio, options)
            self.lengths["encoder"].value = len(assembly.encoder)
            self.lengths["decoder"].value = len(assembly.decoder)

    def _source_changed(self) -> None:
        self._show_fields()
        self._ask()

    def _field_changed(self) -> None:
        given = {key: field.value.strip() for key, field in self.fields.items() if field.value.strip()}
        with self._follow():
            self.source.value = self.task.form.write(given) if self.task.form else ""
        self._source_changed()  # what was typed into one field may have made another of it

    def _draw_another(self) -> None:
        with self._follow():
            self.source.value = self.task.draw(random.Random()) if self.task.draw else ""
        self._source_changed()

    def _strategy_changed(self) -> None:
        if self.strategy.value is not None:
            wanted, options = self.ratio.value, self._ratios(self.strategy.value)
            self._ask(ratio=_nearest(wanted, options), strategy=self.strategy.value)

    def _ratio_changed(self) -> None:
        self._ask(ratio=self.ratio.value, strategy=self.controller.strategy)

    def _length_changed(self, stack: StackMapping) -> None:
        path = even_path(stack, self.lengths[stack.name].value)
        self._ask(assembly=dataclasses.replace(self._present(), **{stack.name: path}))

    def _touched(self, make: Callable[[], Assembly]) -> None:
        def apply() -> None:
            try:
                assembly = make()
            except ModtfError as error:
                self.impossible.value = markup.problem_html(f"Not possible: {error}.")
            else:
                self._ask(assembly=assembly)

        self._guarded(apply)(None)

    def _present(self) -> Assembly:
        return self.controller.state.assembly or self.controller.modular.mapping.original

    def _start_or_stop(self, kind: str, start: Callable[[], int]) -> None:
        job = self.controller.state.job
        if job is not None and job.running and job.kind == kind:
            self.controller.cancel()
        else:
            start()

    def _ratios(self, strategy: str) -> list[tuple[str, float]]:
        return [(f"{one.ratio:.2f}×", one.ratio) for one in assemblies(self.controller.modular.mapping, strategy)]

    def _show_fields(self) -> None:
        """Let the fields follow the text, where it is an input; the controller says where it is none."""
        if self.task.form is None:
            return
        with suppress(ModtfError):
            values = self.task.form.read(self.source.value)
            with self._follow():
                for key, field in self.fields.items():
                    field.value = values.get(key, "")

    @contextmanager
    def _follow(self) -> Iterator[None]:
        self._following = True
        try:
            yield
        finally:
            self._following = False

    def _guarded(self, action: Callable[[], Any]) -> Callable[[Any], None]:
        """An observer that keeps still while fields follow each other, and shows its errors instead of losing them."""

        @functools.wraps(action)
        def observer(change: Any) -> None:
            if self._following:
                return
            self.failure.value = self.impossible.value = ""
            try:
                action()
            except Exception as error:
                self.failure.value = markup.problem_html(words_of(error))

        return observer

    # -- from the controller to the page -------------------------------------------------------------------------------

    def _draw(self, state: State) -> None:
        """Called by the worker thread too: sets traits of display widgets only. Texts come first: people wait for them."""
        self.result.value = markup.result_html(state, self.task)
        self.problem.value = markup.problem_html(state.problem)
        self.race.value = markup.race_html(state.race)
        self._draw_jobs(state)
        if state.assembly is not None and state.size is not None:
            self.picture.draw(state.assembly)
            self.structure.value = markup.assembly_html(state.assembly, state.size)
            self._draw_taking_away(state)
        self.sweep.value = markup.sweep_html(None if state.problem else state.sweep, self.task)
        if self.measurable:
            self._draw_quality(state)

    def _draw_taking_away(self, state: State) -> None:
        self.code.value = markup.code_html(self.controller.modular, None if state.problem else state.request)
        if state.assembly is not None and state.assembly != self._named:
            # A name that was typed stays while the assembly does.
            self._named = state.assembly
            model = re.sub(r"[^\w+-]+", "-", Path(self.controller.modular.source or "").name).strip("-") or "model"
            self.name.value = f"{model}-{state.assembly.shape}"

    def _draw_jobs(self, state: State) -> None:
        job = state.job
        running = job.kind if job is not None and job.running else ""
        buttons = {"race": (self.race_button, "race"), "sweep": (self.sweep_button, "sweep")}
        if self.measurable:
            buttons["measure"] = (self.measure_button, "measure this assembly")
        for kind, (button, words) in buttons.items():
            button.description = "stop" if running == kind else words
            button.disabled = running not in ("", kind)
        self.save_button.disabled = bool(running)
        self.race_status.value = markup.job_html(job, "race") or _hint(
            "both texts token by token, to feel the difference"
        )
        self.sweep_status.value = markup.job_html(job, "sweep") or _hint(self.task.question)
        self.saved.value = markup.saved_html(job)
        if self.measurable:
            self.measure_status.value = markup.job_html(job, "measure")
            self.progress.layout.display = "" if running == "measure" else "none"
            if job is not None and running == "measure":
                self.progress.max, self.progress.value = max(1, job.total), job.done

    def _draw_quality(self, state: State) -> None:
        if state.assembly is None:
            return
        row, exact = self.controller.measured(state.assembly, state.strategy)
        if row is not None:
            self.quality.value = markup.quality_html(row, exact, self.table or {}, self.task.metrics[:2])
        self.measured.value = markup.measured_html(state, self.task.metrics[:2])
        if state.measured_here != self._points:
            # A point that was measured here stands on the curve that it can be compared with.
            self._points = state.measured_here
            self._figures.clear()
            self.curve.layout.display = self.yardstick.layout.display = ""
            self.against.value = _MODEL
        if not state.busy and not (state.job and state.job.running):  # a figure takes longest: text first
            self._draw_curve(state)

    def _draw_curve(self, state: State) -> None:
        if state.assembly is None:
            return
        here, exact = self.controller.measured(state.assembly, state.strategy)
        rows, mine, titles = self.controller.rows, [], None
        metrics = self.task.metrics[:2]
        if self.against.value == _MODEL:
            # Other inputs than the table's, and harder ones: their errors are not those of the sentence above.
            titles = [
                f"{metric.title}, bundled inputs" if metric.errors else f"{metric.name} against the full model's texts"
                for metric in metrics
            ]
            rows = [_against_model(row, row["bundled"], metrics) for row in rows if "bundled" in row]
            mine = [_against_model(row, row, metrics) for row in self._points]
            same = [row for row in mine if row["assembly"] == state.assembly.to_json()]
            if same:
                here, exact = same[0], True
            else:
                here = _against_model(here, here["bundled"], metrics) if here and "bundled" in here else None
        key = (self.against.value, here and str(here["assembly"]), exact)
        if key not in self._figures:
            self._figures[key] = figure_html(quality_curve(rows, metrics, here, exact, mine=mine, titles=titles))
        self.figure.value = self._figures[key]


def _against_model(row: Row, scores: Row, metrics: Sequence[Metric]) -> Row:
    """The row with scores against the full model's own texts in the fields that are drawn."""
    return {**row, **{metric.field: scores[metric.key] for metric in metrics}}


def _nearest(ratio: float, options: list[tuple[str, float]]) -> float:
    return min((value for _, value in options), key=lambda value: abs(value - ratio))


def _slider(name: str, options: list[tuple[str, Any]], value: Any) -> Any:
    slider = widgets.SelectionSlider(
        options=options, value=value, description=name, continuous_update=True, style={"description_width": "60px"}
    )  # fmt: skip
    slider.add_class("modtf-slider")
    return slider


def _section(title: str, *children: widgets.Widget) -> Any:
    section = widgets.VBox([*([widgets.HTML(f"<h3>{title}</h3>")] if title else []), *children])
    section.add_class("modtf-section")
    return section


def _bar(*children: widgets.Widget) -> Any:
    bar = widgets.HBox(list(children))
    bar.add_class("modtf-bar")
    return bar


def _hint(words: str) -> str:
    return f'<span class="modtf-note">{words}</span>'


def _button(words: str, icon: str) -> Any:
    return widgets.Button(description=words, icon=icon)


def _labelled(widget: Any) -> Any:
    """Its label above it instead of beside it."""
    widget.add_class("modtf-field")
    return widget


def _field(field: Field) -> Any:
    if field.open:
        return _labelled(
            widgets.Combobox(
                options=field.values,
                description=field.label,
                placeholder=_NOT_SAID,
                ensure_option=False,
                continuous_update=False,
            )
        )
    options = [(_NOT_SAID, ""), *((value, value) for value in field.values)]
    return _labelled(widgets.Dropdown(options=options, description=field.label))
