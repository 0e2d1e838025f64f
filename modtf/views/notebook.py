"""What the notebooks share: guesses, checks of exercises, and interactive figures."""

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


def reveal(
    what: str, guess: Any, measured: float, interval: tuple[float, float] | None = None, table: str = ""
) -> None:
    """Show a guess and the measured value as two bars; until there is a guess, the value alone, folded.

    ``interval``: that of a difference, which is then written with its sign. ``table``: lines that give
    the value away, to be folded with it.
    """
    number = _number(guess)
    longest = max(abs(measured), abs(number or 0)) or 1  # 1 where both are zero

    def line(name: str, value: float) -> str:
        shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        if name == "measured" and interval is not None:
            shown = "{:+.1f} ({:+.1f} to {:+.1f})".format(value, *interval)
        bar = (
            f"{'█' * round(_BAR * abs(value) / longest):<{_BAR}} " if number is not None else ""
        )  # one alone compares nothing
        return f"  {name:<10} {bar}{shown}"

    opening, title = "<details>", f"{escape(what)}: write your guess into its cell, run that and this one; or open this"
    if number is not None:
        yours = line("your guess", number)
        opening, title = "<details open>", escape(what)
    elif guess is None:
        yours = "  your guess (none yet)"
    else:
        yours = f"  your guess {guess!r} is not a number; write digits only, such as 40 or 12000"
    text = "\n".join((what, yours, line("measured", measured), *table.splitlines()))
    html = f"{opening}<summary>{title}</summary><pre>{escape(text)}</pre></details>"
    display({"text/plain": text, "text/html": html}, raw=True)


def _number(guess: Any) -> float | None:
    try:
        number = float(guess)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


@contextmanager
def check(exercise: str) -> Iterator[None]:
    """Print whether an exercise is solved, or the first assertion in the block that fails.

    Exceptions are printed, not raised, so that a notebook with open exercises runs to its end.
    """
    try:
        yield
    except AssertionError as error:
        print(f"✗ Exercise {exercise}, not yet: {error}")
    except ModtfError as error:
        print(f"✗ Exercise {exercise}, not yet. modtf says: {error}")
    except NameError as error:
        print(
            f"✗ Exercise {exercise}, not yet: {error}. Did you run all cells above this one? "
            "(The Run or Runtime menu does that in one step.)"
        )
    except Exception as error:  # a learner's code may raise anything
        print(f"✗ Exercise {exercise}, not yet: your code raised {type(error).__name__}: {error}")
    else:
        print(f"✓ Exercise {exercise}: that is right.")


def chosen(name: str, yours: Callable[..., Any], ours: Callable[..., Any], test: Callable[[Any], None]) -> Any:
    """A learner's function if it passes ``test``, else the library's, which is then as good; it prints whose it is.

    ``test`` takes the function and raises an AssertionError that says what is wrong. So the training below an exercise
    runs what was written there, and runs all the same where a stub stands.
    """
    try:
        test(yours)
    except Exception:  # a learner's code may raise anything; the check of the exercise has said what
        print(f"{name}: the library's, since yours does not pass its check yet")
        return ours
    print(f"{name}: yours")
    return yours


class Canvas:
    """A place on the page whose content can change, while a cell runs or as controls move. Display its ``widget``."""

    def __init__(self, title: str = "figure") -> None:
        self._title = title
        self._words, self._figure = widgets.HTML(), widgets.HTML()
        self.widget = widgets.VBox([self._words, self._figure])
        self.widget.add_class(CURVE_CLASS)

    def draw(self, figure: go.Figure | None = None, words: str = "") -> None:
        """Replace the content by HTML text and a plotly figure."""
        if figure is not None and len(self.widget.children) == 2:  # add the heavy frame once, for the first figure
            height = (figure.layout.height or 400) + 6
            self.widget.children = (self._words, widgets.HTML(frame_html(self._title, height)), self._figure)
        self._words.value = words
        if figure is None:
            self._figure.value = ""
        else:
            margin = figure.layout.margin.to_plotly_json()  # described() sets its own; the figure's margin stays
            shown = described(
                go.Figure(figure),
                (figure.layout.meta or {}).get("alt", ""),
                paper_bgcolor="rgba(0,0,0,0)",  # transparent, so that the page's background shows
                plot_bgcolor="rgba(0,0,0,0)",
                margin=margin,
            )
            self._figure.value = figure_html(shown)


def play(draw: Callable[..., go.Figure | str | tuple[go.Figure, str]], **controls: widgets.Widget) -> widgets.Widget:
    """Controls, and below them what ``draw`` returns for their values, which it gets as keyword arguments.

    ``draw`` returns a plotly figure, HTML text, or both, and is called after each move. A :class:`ModtfError` from it
    is shown as a message.
    """
    canvas, problem = Canvas(), widgets.HTML()
    for control in controls.values():
        if hasattr(control, "continuous_update"):
            control.continuous_update = False  # draw once the control is released
        control.style.description_width = "initial"
        control.layout.width = "min(100%, 560px)"

    def redraw(_: object = None) -> None:
        try:
            made = draw(**{name: control.value for name, control in controls.items()})
        except ModtfError as error:
            words = problem_html(str(error))
            problem.value = f'<div style="border-left: 4px solid #cc4e94; padding: 2px 10px">{words}</div>'
            canvas.widget.layout.visibility = "hidden"  # it shows other values
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
