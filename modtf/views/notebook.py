"""What the notebooks share: guesses, checks of exercises, and controls that draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
from IPython.display import display

from modtf.errors import ModtfError
from modtf.views.figures import CURVE_CLASS, described, figure_html, frame_html
from modtf.views.markup import problem_html

_BAR = 40


def reveal(what: str, guess: Any, measured: float) -> None:
    """Show a guess beside what came out, as two bars; folded while there is no guess, so that one can still make it."""
    number = _number(guess)
    longest = max(abs(measured), abs(number or 0)) or 1

    def line(name: str, value: float) -> str:
        shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return f"  {name:<10} {'█' * round(_BAR * abs(value) / longest):<{_BAR}} {shown}"

    if guess is not None and number is None:
        yours = f"  your guess {guess!r} is not a number; write digits only, such as 40 or 12000"
    else:
        yours = "  your guess (none yet)" if number is None else line("your guess", number)
    text = "\n".join((what, yours, line("measured", measured)))
    title = (
        escape(what)
        if number is not None
        else f"{escape(what)}: write your guess into its cell, run that and this one; or open this"
    )
    html = (
        f"<details{' open' if number is not None else ''}><summary>{title}</summary><pre>{escape(text)}</pre></details>"
    )
    display({"text/plain": text, "text/html": html}, raw=True)


def _number(guess: Any) -> float | None:
    try:
        number = float(guess)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


@contextmanager
def check(exercise: str) -> Iterator[None]:
    """Say in words whether an exercise is solved: the first assertion within that fails is what is still wrong.

    Nothing is raised, so that a notebook with open exercises runs to its end.
    """
    try:
        yield
    except AssertionError as error:
        print(f"✗ Exercise {exercise}, not yet: {error}")
    except ModtfError as error:
        print(f"✗ Exercise {exercise}, not yet. modtf says: {error}")
    except NameError as error:
        print(
            f"✗ Exercise {exercise}, not yet: {error}. Was a cell above not run? "
            "(In the menu: run all above the selected cell.)"
        )
    except Exception as error:  # whatever a learner's code does
        print(f"✗ Exercise {exercise}, not yet: your code raised {type(error).__name__}: {error}")
    else:
        print(f"✓ Exercise {exercise}: that is right.")


class Canvas:
    """A place on the page whose content changes while a cell runs, or as controls move; display its ``widget``."""

    def __init__(self, title: str = "figure") -> None:
        self._title = title
        self._words, self._figure = widgets.HTML(), widgets.HTML()
        self.widget = widgets.VBox([self._words, self._figure])
        self.widget.add_class(CURVE_CLASS)

    def draw(self, figure: go.Figure | None = None, words: str = "") -> None:
        """Show HTML text and a plotly figure in place of what was there."""
        if figure is not None and len(self.widget.children) == 2:  # the frame that draws figures stays; it is heavy
            height = (figure.layout.height or 400) + 6
            self.widget.children = (self._words, widgets.HTML(frame_html(self._title, height)), self._figure)
        self._words.value = words
        if figure is None:
            self._figure.value = ""
        else:
            margin = figure.layout.margin.to_plotly_json()  # what the figure says itself stays
            shown = described(
                go.Figure(figure),
                (figure.layout.meta or {}).get("alt", ""),
                paper_bgcolor="rgba(0,0,0,0)",
                plot_bgcolor="rgba(0,0,0,0)",
            )  # on the page's own background
            self._figure.value = figure_html(shown.update_layout(margin=margin))


def play(draw: Callable[..., go.Figure | str | tuple[go.Figure, str]], **controls: widgets.Widget) -> widgets.Widget:
    """Controls, and below them what ``draw`` makes of their values, each under its name.

    ``draw`` gives a plotly figure, HTML text, or both. It is drawn anew after each move. A :class:`ModtfError` is shown in words.
    """
    canvas, problem = Canvas(), widgets.HTML()
    for control in controls.values():
        if hasattr(control, "continuous_update"):
            control.continuous_update = False  # drawn when the hand lets go
        control.style.description_width = "initial"
        control.layout.width = "min(100%, 560px)"

    def redraw(_: object = None) -> None:
        try:
            made = draw(**{name: control.value for name, control in controls.items()})
        except ModtfError as error:
            problem.value = (
                f'<div style="border-left: 4px solid #cc4e94; padding: 2px 10px">{problem_html(str(error))}</div>'
            )
            canvas.widget.layout.visibility = "hidden"  # it is of other values
            return
        problem.value = ""
        canvas.widget.layout.visibility = "visible"
        if isinstance(made, tuple):
            canvas.draw(*made)
        elif isinstance(made, go.Figure):
            canvas.draw(made)
        else:
            canvas.draw(words=made)

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    return widgets.VBox([*controls.values(), problem, canvas.widget])
