"""The explorer: choose an input and an assembly, and see at once what it writes, how fast and how well.

It uses core ipywidgets only, of versions 7.7 (Colab) and 8. This file holds the widgets and keeps them in step; the
:class:`Controller` computes, and the functions in ``markup`` turn its states into HTML.
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

from modtf.bundled import BUNDLED_MODELS
from modtf.compiled import CTRANSLATE2, CTRANSLATE2_INT8, FAMILIES, is_installed
from modtf.decoding.layouts import LAYOUTS
from modtf.errors import ModtfError
from modtf.evaluation import measured_students, measured_table
from modtf.mapping import Assembly
from modtf.modular import ModularModel, load
from modtf.strategies import QUALITY_FIRST, even_assembly
from modtf.tasks import TASKS
from modtf.tasks.task import Field, Metric
from modtf.views import markup
from modtf.views.controller import Controller
from modtf.views.figures import CURVE_CLASS, UNITS, figure_html, frame_html, frontier, quality_curve
from modtf.views.picture import Picture
from modtf.views.state import Row, State, words_of

_FIRST_RATIO = 2.0
_NOT_GIVEN = "(not given)"
_TRY = "sentences to try"
_STRATEGY_HINTS = {
    "size_first": "both stacks shrink evenly",
    "speed_first": "the decoder shrinks first, since it runs once per token",
    "quality_first": "of each number of layers, the assembly that was measured to be the best",
}
_EXAMPLES = (30, 100, 300)
_JOB_LABELS = {"race": "race", "sweep": "sweep", "measure": "measure this assembly"}
#: What the curve shows: quality against people's texts (the table's test set); against the full model's own texts for
#: the bundled inputs, which can be measured in the explorer too; or what quality first chooses from.
_PEOPLE, _MODEL, _FRONTIER = "people", "model", "frontier"
_LIMIT_LABELS = {name: f"{words} at most" for name, (words, _) in UNITS.items()} | {
    "min_quality": "% of the quality at least"
}


def explore(
    modular: ModularModel | None = None, *, source: str = "", folder: str | Path = ".", quiet: bool = False
) -> widgets.Widget:
    """The explorer for a modular model (default: the bundled ones, with a switch), as a widget to end a cell with.

    The model's task defines how inputs are made and texts are judged. ``source`` is the input that a given model's
    explorer opens with (default: the task's own). Checkpoints are saved in ``folder``. With ``quiet`` it shows texts
    without scores, marks and times until a button is pressed: guess first. Raises :class:`ModtfError` if ``modular`` is
    not a :class:`ModularModel`.
    """
    if modular is not None and not isinstance(modular, ModularModel):
        raise ModtfError(
            f"cannot explore a {type(modular).__name__}; give it modularized layers first: modtf.modularize(model, ...)"
        )
    return bundled_models(folder, {}, quiet) if modular is None else Explorer(modular, folder, quiet, source).widget


def bundled_models(folder: str | Path, explorers: dict[str, Explorer], quiet: bool = False) -> widgets.Widget:
    """An explorer for each bundled model, made and put into ``explorers`` when it is first chosen; one is shown."""
    labels = {task.model: task.label for task in TASKS.values() if task.model}
    switch = widgets.ToggleButtons(options=[(labels.get(name, name), name) for name in BUNDLED_MODELS])
    page = widgets.VBox()

    def show(change: Any) -> None:
        for explorer in explorers.values():
            explorer.controller.stop()
        try:
            name = switch.value
            if name in explorers:
                explorers[name].controller.cancel()  # goes on with the text and times that the switch interrupted
            else:
                explorers[name] = Explorer(load(name), folder, quiet)
            page.children = [explorers[name].widget]
        except ModtfError as error:  # damaged files: the other model can still be chosen
            page.children = [widgets.HTML(markup.problem_html(str(error)))]

    switch.observe(show, "value")
    show(None)
    bar = _bar(switch)
    bar.add_class("modtf")
    return widgets.VBox([bar, page])


class Explorer:
    """The widgets of :func:`explore`, which draw the states that a controller publishes."""

    def __init__(self, modular: ModularModel, folder: str | Path = ".", quiet: bool = False, source: str = "") -> None:
        self.table, self._table_note = measured_table(modular)
        self._students = measured_students(modular, self.table)
        self.controller = Controller(modular, self.table, self._draw, folder)
        self.task = self.controller.task
        self.measurable = bool(self.task.model)  # whether the task has bundled examples to measure on
        self._profiled = QUALITY_FIRST in modular.strategies
        self._following = False  # true while code sets the controls, so that they do not react to each other
        self._figures: dict[Any, str] = {}
        self._points: tuple[Row, ...] = ()  # measured here
        self._limit: float | None = None  # the one that the current assembly was chosen for
        self._named: Assembly | None = None  # the assembly that the suggested folder name is for
        self.job_buttons: dict[str, Any] = {}
        self.result = widgets.HTML()
        self.scores = _button("", "")
        sections = [
            widgets.VBox([widgets.HTML(self._title()), *self._input(source)]),
            _section("", *self._how_small()),
            widgets.VBox([self.result, *self._racing()]),
            _section("Quality", *self._quality(), score=True),
            _section("One input at every ratio", *self._sweeping()),
            _section("Take it away", *self._taking_away()),
        ]
        self.widget = widgets.VBox(sections)
        self.widget.add_class("modtf")
        self.scores.on_click(lambda _: self.be_quiet("modtf-quiet" not in self.widget._dom_classes))
        self.be_quiet(quiet)
        self._ask(ratio=self.ratio.value, strategy=self.strategy.value)

    # -- the parts of the page, from top to bottom ---------------------------------------------------------------------

    def _title(self) -> str:
        mapping = self.controller.modular.mapping
        style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
        about = (
            f"{mapping.count_assemblies():,} models in one: every size shares its weights with the full "
            f"{mapping.encoder.depth} + {mapping.decoder.depth} layers."
        )
        return f'<style>{style}</style><h2>Train once, slide to any size</h2><p class="modtf-sub">{about}</p>'

    def _input(self, source: str) -> list[widgets.Widget]:
        form = self.task.form
        self.source = widgets.Text(
            value=source or self.task.first,
            continuous_update=False,
            description=self.task.input_label,
            placeholder=self.task.placeholder,
        )
        self.source.add_class("modtf-field")
        self.source.observe(self._guarded(self._source_changed), "value")
        self.source.layout.flex = "1 1 auto"
        self.problem, self.failure = widgets.HTML(), widgets.HTML()
        self.fields = {field.key: _field(field) for field in form.fields} if form else {}
        self._show_fields()
        for field in self.fields.values():
            field.observe(self._guarded(self._field_changed), "value")
        row = [self.source]
        self.menu = widgets.Dropdown(options=[(_TRY, ""), *((text, text) for text in self.task.suggestions)])
        if self.task.suggestions:
            self.menu.layout = {"width": "150px", "margin": "22px 0 0 8px", "height": "30px"}
            self.menu.observe(self._guarded(self._suggestion_chosen), "value")
            row.append(self.menu)
        if self.task.draw is not None or self.measurable:
            another = _button(self.task.draw_label, "random")
            another.layout = {"width": "170px", "margin": "22px 0 0 8px", "height": "30px"}
            another.on_click(self._guarded(self._draw_another))
            row.append(another)
        parts = [widgets.HBox(row), self.problem, self.failure]
        if self.task.notice:
            parts.insert(1, widgets.HTML(_hint(escape(self.task.notice))))
        if not self.fields:
            return parts
        layout = {"grid_template_columns": "repeat(4, minmax(0, 1fr))", "grid_gap": "4px 12px"}
        return [widgets.GridBox(list(self.fields.values()), layout=layout), *parts]

    def _how_small(self) -> list[widgets.Widget]:
        modular = self.controller.modular
        mapping, strategies = modular.mapping, modular.strategies
        self.strategy = widgets.ToggleButtons(
            options=[(name.replace("_", " "), name) for name in strategies],
            tooltips=[_STRATEGY_HINTS[name] for name in strategies],
            style={"button_width": "auto"},
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
            self.lengths[stack.name].observe(
                self._guarded(functools.partial(self._length_changed, stack.name)), "value"
            )
        self.picture = Picture(mapping, self._touched)
        self.structure, self.impossible = widgets.HTML(), widgets.HTML()
        controls, stacks = widgets.HBox([self.ratio, self.strategy]), widgets.HBox(list(self.lengths.values()))
        for box in (controls, stacks):
            box.add_class("modtf-controls")
        if modular.architecture.model_type in FAMILIES and is_installed():
            controls.children += (self._engines(),)
        limited = [self._limiting()] if self._profiled else []
        return [controls, *limited, stacks, self.picture.widget, self.impossible, self.structure]

    @property
    def _loops(self) -> bool:
        """Whether the greedy loop can write with a model of this family, which drafts need."""
        return self.controller.modular.architecture.model_type in LAYOUTS

    def _engines(self) -> widgets.Widget:
        """Who writes the texts: sizes and engines can be compared."""
        own = "greedy loop" if self._loops else "generate"
        self.engine = widgets.Dropdown(
            options=[
                (own, ""),
                ("CTranslate2, float32", CTRANSLATE2),
                ("CTranslate2, int8", CTRANSLATE2_INT8),
            ],
            description="engine",
            layout={"width": "230px"},
            style={"description_width": "initial"},
        )
        self.engine.observe(self._guarded(lambda: self._ask(engine=self.engine.value)), "value")
        return self.engine

    def _limiting(self) -> widgets.Widget:
        """A limit in place of a ratio, under which quality first chooses."""
        self.limit = widgets.Text(
            description="or the best with",
            placeholder="such as 10",
            continuous_update=False,
            layout={"width": "220px"},
            style={"description_width": "initial"},
        )
        options = [(words, name) for name, words in _LIMIT_LABELS.items()]
        self.limited = widgets.Dropdown(options=options, layout={"width": "210px"})
        self.limit_met = widgets.HTML()
        self.limit.observe(self._guarded(self._limit_changed), "value")
        self.limited.observe(self._guarded(self._limited_changed), "value")
        return _bar(self.limit, self.limited, self.limit_met)

    def _racing(self) -> list[widgets.Widget]:
        self.race_button = self._job_button("race", "play")
        self.race, self.race_status = widgets.HTML(), widgets.HTML()
        self.drafting = widgets.Checkbox(
            description="draft with the small, answer with the large",
            indent=False,
            layout={"width": "auto", "display": None if self._loops else "none"},
        )
        return [_bar(self.race_button, self.drafting, self.scores, self.race_status), self.race]

    def be_quiet(self, quiet: bool) -> None:
        """Hide scores, marks and times, or show them; they are there all the time, and the style sheet hides them."""
        self.scores.description, self.scores.icon = (
            ("show the scores", "eye") if quiet else ("hide the scores", "eye-slash")
        )
        (self.widget.add_class if quiet else self.widget.remove_class)("modtf-quiet")

    def _quality(self) -> list[widgets.Widget]:
        self.quality, self.measured = widgets.HTML(), widgets.HTML()
        if not self.controller.rows:
            live = "" if self.measurable else f" {self.task.measure} is shown beside the texts."
            self.quality.value = f'<p class="modtf-note">{escape(self._table_note + live)}</p>'
        name = self.task.metrics[0].name
        shown = {
            _PEOPLE: (
                f"{name} against people's texts",
                "the table's test set, measured earlier",
                bool(self.controller.rows),
            ),
            _MODEL: (
                f"{name} against the full model's texts",
                "the bundled inputs, which can be measured here too: how similar are the two models' texts?",
                self.measurable,
            ),
            _FRONTIER: (
                "what quality first chooses from",
                "the losses of assemblies, as measured and as predicted from their modules",
                self._profiled,
            ),
        }
        offered = {key: about for key, (*about, possible) in shown.items() if possible}
        if not self.controller.rows and self._profiled:  # what can be drawn at once comes first
            offered = {_FRONTIER: offered.pop(_FRONTIER)} | offered
        if not offered:
            return [self.quality]
        self.against = widgets.ToggleButtons(
            options=[(words, key) for key, (words, _) in offered.items()],
            style={"button_width": "auto"},
            layout={"width": "auto"},
            tooltips=[about for _, about in offered.values()],
        )
        self.against.observe(self._guarded(lambda: self._draw_curve(self.controller.state)), "value")
        self.yardstick = _bar(self.against)
        title = "Quality against speed, or loss against size: the current assembly as a point"
        self.figure = widgets.HTML(layout={"display": "none"})
        self.curve = widgets.VBox([widgets.HTML(frame_html(title)), self.figure])
        self.curve.add_class(CURVE_CLASS)
        if list(offered) == [_MODEL]:  # nothing to draw until a measurement is made
            self.curve.layout.display = "none"
        if len(offered) == 1:
            self.yardstick.layout.display = "none"
        parts = [self.quality, self.yardstick, self.curve]
        return [*parts, self._measuring(), self.measured] if self.measurable else parts

    def _measuring(self) -> widgets.Widget:
        self.examples = widgets.Dropdown(
            options=[(f"{n} inputs", n) for n in _EXAMPLES],
            value=_EXAMPLES[0],
            description="on",
            layout={"width": "150px"},
            style={"description_width": "24px"},
        )
        self.measure_button = self._job_button("measure", "tachometer")
        self.progress = widgets.IntProgress(layout={"width": "160px", "display": "none"})
        self.measure_status = widgets.HTML()
        return _bar(self.measure_button, self.examples, self.progress, self.measure_status)

    def _sweeping(self) -> list[widgets.Widget]:
        self.sweep_button = self._job_button("sweep", "list-ol")
        self.sweep, self.sweep_status = widgets.HTML(), widgets.HTML()
        return [_bar(self.sweep_button, self.sweep_status), self.sweep]

    def _taking_away(self) -> list[widgets.Widget]:
        self.code, self.saved = widgets.HTML(), widgets.HTML()
        self.name = widgets.Text(description="folder", layout={"width": "260px"}, style={"description_width": "48px"})
        self.save_button = _button("save this checkpoint", "download")
        self.save_button.on_click(self._guarded(lambda: self.controller.save(self.name.value)))
        return [self.code, _bar(self.name, self.save_button), self.saved]

    def _job_button(self, kind: str, icon: str) -> Any:
        """A button that starts jobs of this kind, and stops them while they run."""
        button = self.job_buttons[kind] = _button(_JOB_LABELS[kind], icon)
        button.on_click(self._guarded(lambda: self._start_or_stop(kind)))
        return button

    # -- from the controls to the controller ---------------------------------------------------------------------------

    def _ask(self, **changes: Any) -> None:
        """Make a request, and set the controls to the resulting assembly."""
        if self._profiled and changes.keys() - {"engine"}:
            self._forget_limit()
        self.controller.request(self.source.value, **changes)
        state = self.controller.state
        assembly = self._current()
        with self._follow():
            self.strategy.value = state.strategy
            options = self._ratios(self.controller.strategy)
            if all(abs(value - assembly.ratio) > 1e-9 for _, value in options):
                # Built by hand, with a ratio that this strategy does not reach.
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
        self._source_changed()  # text typed into one field may have changed other fields

    def _draw_another(self) -> None:
        with self._follow():
            self.source.value = self.task.suggest(random.Random()) or ""
        self._source_changed()

    def _suggestion_chosen(self) -> None:
        if self.menu.value:
            with self._follow():
                self.source.value, self.menu.value = self.menu.value, ""
            self._source_changed()

    def _strategy_changed(self) -> None:
        if self.strategy.value is not None:
            wanted, options = self.ratio.value, self._ratios(self.strategy.value)
            self._ask(ratio=_nearest(wanted, options), strategy=self.strategy.value)

    def _ratio_changed(self) -> None:
        self._ask(ratio=self.ratio.value, strategy=self.controller.strategy)

    def _length_changed(self, stack: str) -> None:
        even = even_assembly(self.controller.modular.mapping, *(slider.value for slider in self.lengths.values()))
        self._ask(assembly=dataclasses.replace(self._current(), **{stack: getattr(even, stack)}))

    def _limited_changed(self) -> None:
        self._forget_limit()  # 20 megabytes are not 20 percent
        self._draw_curve(self.controller.state)

    def _forget_limit(self) -> None:
        self._limit, self.limit_met.value = None, ""
        with self._follow():
            self.limit.value = ""

    def _limit_changed(self) -> None:
        typed, name, modular = self.limit.value.strip(), self.limited.value, self.controller.modular
        self._limit, self.limit_met.value = None, ""
        if typed:
            try:
                limit = _positive(typed)
                limits: dict[str, Any] = {name: limit * UNITS.get(name, ("", 1))[1]}
                chosen = modular.choose(strategy=QUALITY_FIRST, **limits)
            except ModtfError as error:
                self.limit_met.value = markup.problem_html(f"Not possible: {error}.")
            else:
                if chosen == modular.choose(chosen.ratio, QUALITY_FIRST):
                    self._ask(ratio=chosen.ratio, strategy=QUALITY_FIRST)
                else:  # a better one of as many layers is larger, or slower
                    self._ask(assembly=chosen)
                with self._follow():
                    self.limit.value = typed
                self._limit, self.limit_met.value = limit, _hint(f"{chosen.shape} layers: {self._counted(chosen)}")
        self._draw_curve(self.controller.state)

    def _counted(self, assembly: Assembly) -> str:
        """How much an assembly has of what is limited."""
        profile = self.controller.modular.profile
        if self.limited.value == "min_quality":
            return f'<span class="modtf-score">{profile.kept[assembly]:.1f} % of each score or more</span>'
        words, unit = UNITS[self.limited.value]
        return f"{profile.cost(assembly, self.limited.value) / unit:.3g} {words}"

    def _touched(self, make: Callable[[], Assembly]) -> None:
        def apply() -> None:
            try:
                assembly = make()
            except ModtfError as error:
                self.impossible.value = markup.problem_html(f"Not possible: {error}.")
            else:
                self._ask(assembly=assembly)

        self._guarded(apply)(None)

    def _current(self) -> Assembly:
        return self.controller.state.assembly or self.controller.modular.mapping.original

    def _start_or_stop(self, kind: str) -> None:
        job = self.controller.state.job
        if job is not None and job.running and job.kind == kind:
            self.controller.cancel()
        elif kind == "race":
            self.controller.race(self.drafting.value)
        elif kind == "sweep":
            self.controller.sweep(self.controller.strategy)
        else:
            self.controller.measure(self.examples.value)

    def _ratios(self, strategy: str) -> list[tuple[str, float]]:
        return [(f"{one.ratio:.2f}×", one.ratio) for one in self.controller.modular.assemblies(strategy)]

    def _show_fields(self) -> None:
        """Set the fields from the text. If it is not a valid input, leave them; the controller reports the problem."""
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
        """An observer that does nothing while code sets the controls, and shows errors instead of losing them."""

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
        """Draw a state, texts first. The worker thread calls this too, so it sets traits of display widgets only."""
        self.result.value = markup.result_html(state, self.task)
        self.problem.value = markup.problem_html(state.problem)
        self.race.value = markup.race_html(state.race)
        self._draw_jobs(state)
        if state.assembly is not None and state.size is not None:
            self.picture.draw(state.assembly)
            self.structure.value = markup.assembly_html(state.assembly, state.size)
            self._draw_taking_away(state)
        self.sweep.value = markup.sweep_html(None if state.problem else state.sweep, self.task)
        if self.measurable or self.controller.rows or self._profiled:
            self._draw_quality(state)

    def _draw_taking_away(self, state: State) -> None:
        self.code.value = markup.code_html(self.controller.modular, None if state.problem else state.request)
        if state.assembly is not None and state.assembly != self._named:
            # A typed name stays until the assembly changes.
            self._named = state.assembly
            model = re.sub(r"[^\w+-]+", "-", Path(self.controller.modular.source or "").name).strip("-") or "model"
            self.name.value = f"{model}-{state.assembly.shape}"

    def _draw_jobs(self, state: State) -> None:
        job = state.job
        running = job.kind if job is not None and job.running else ""
        for kind, button in self.job_buttons.items():
            button.description = "stop" if running == kind else _JOB_LABELS[kind]
            button.disabled = running not in ("", kind)
        self.save_button.disabled = bool(running)
        if self.measurable:
            self.measure_status.value = markup.job_html(job, "measure")
            self.progress.layout.display = "" if running == "measure" else "none"
            if job is not None and running == "measure":
                self.progress.max, self.progress.value = max(1, job.total), job.done
        self.race_status.value = markup.job_html(job, "race") or _hint("watch both texts appear, token by token")
        self.sweep_status.value = markup.job_html(job, "sweep") or _hint(self.task.question)
        self.saved.value = markup.saved_html(job)

    def _draw_quality(self, state: State) -> None:
        if state.assembly is None:
            return
        row, exact = self.controller.measured(state.assembly, state.strategy)
        if row is not None:
            self.quality.value = markup.quality_html(row, exact, self.table or {}, self.task.metrics[:2])
        self.measured.value = markup.measured_html(state, self.task.metrics[:2])
        if state.measured_here != self._points:
            # Show the new point on the curve that it can be compared with.
            self._points = state.measured_here
            self._figures.clear()
            self.curve.layout.display = self.yardstick.layout.display = ""
            self.against.value = _MODEL
        if not state.busy and not (state.job and state.job.running):  # the figure takes longest, so it comes last
            self._draw_curve(state)

    def _draw_curve(self, state: State) -> None:
        if state.assembly is None:
            return
        if self.against.value == _FRONTIER:
            self._draw_frontier(state.assembly)
            return
        here, exact = self.controller.measured(state.assembly, state.strategy)
        rows, mine, titles, students = self.controller.rows, [], None, self._students
        metrics = self.task.metrics[:2]
        if self.against.value == _MODEL:
            # The bundled inputs are only some of the table's, or others, so these differ from the sentence above.
            titles = [
                f"{metric.title}, bundled inputs" if metric.errors else f"{metric.name} against the full model's texts"
                for metric in metrics
            ]
            rows = [_against_model(row, row["bundled"], metrics) for row in rows if "bundled" in row]
            mine, students = [_against_model(row, row, metrics) for row in self._points], []
            same = [row for row in mine if row["assembly"] == state.assembly.to_json()]
            if same:
                here, exact = same[0], True
            elif here is not None and "bundled" in here:
                here = _against_model(here, here["bundled"], metrics)
            else:
                here = None
        key = (self.against.value, None if here is None else str(here["assembly"]), exact)
        if key not in self._figures:
            self._figures[key] = figure_html(
                quality_curve(rows, metrics, here, exact, "speed_up", mine, students, titles)
            )
        self.figure.value = self._figures[key]

    def _draw_frontier(self, here: Assembly) -> None:
        modular, name, limit = self.controller.modular, self.limited.value, self._limit
        if name not in UNITS:  # a share of the quality is not on this axis
            name, limit = next(iter(UNITS)), None
        key = (_FRONTIER, name, limit, here)
        try:
            profile = modular.profile
        except ModtfError as error:  # the weights have changed since it was measured
            self.failure.value = markup.problem_html(str(error))
            return
        if key not in self._figures:
            self._figures[key] = figure_html(frontier(profile, modular.mapping, name, here, limit))
        self.figure.value = self._figures[key]


def _against_model(row: Row, scores: Row, metrics: Sequence[Metric]) -> Row:
    """The row with ``scores``, measured against the full model's own texts, in the fields that are drawn."""
    return {**row, **{metric.field: scores[metric.key] for metric in metrics}}


def _positive(typed: str) -> float:
    with suppress(ValueError):
        if 0 < (number := float(typed)) < float("inf"):
            return number
    raise ModtfError(f"{typed!r} is not a number above 0; write one such as 10 or 2.5")


def _nearest(ratio: float, options: list[tuple[str, float]]) -> float:
    return min((value for _, value in options), key=lambda value: abs(value - ratio))


def _slider(name: str, options: list[tuple[str, Any]], value: Any) -> Any:
    slider = widgets.SelectionSlider(
        options=options, value=value, description=name, continuous_update=True, style={"description_width": "60px"}
    )
    slider.add_class("modtf-slider")
    return slider


def _section(title: str, *children: widgets.Widget, score: bool = False) -> Any:
    heading = [widgets.HTML(f"<h3>{title}</h3>")] if title else []
    section = widgets.VBox([*heading, *children])
    section.add_class("modtf-section")
    if score:
        section.add_class("modtf-score")
    return section


def _bar(*children: widgets.Widget) -> Any:
    bar = widgets.HBox(list(children))
    bar.add_class("modtf-bar")
    return bar


def _hint(words: str) -> str:
    return f'<span class="modtf-note">{words}</span>'


def _button(words: str, icon: str) -> Any:
    return widgets.Button(description=words, icon=icon)


def _field(field: Field) -> Any:
    if field.open:
        widget = widgets.Combobox(
            options=field.values, description=field.label, placeholder=_NOT_GIVEN, continuous_update=False
        )
    else:
        options = [(_NOT_GIVEN, ""), *((value, value) for value in field.values)]
        widget = widgets.Dropdown(options=options, description=field.label)
    widget.add_class("modtf-field")
    return widget
