"""What the notebooks share: guesses, checks of exercises, and interactive figures."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
import pytest

import modtf
from modtf.views import notebook
from modtf.views.figures import described, paths_figure


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    outputs: list[dict[str, str]] = []
    monkeypatch.setattr(notebook, "display", lambda data, raw: outputs.append(data))
    return outputs


@pytest.mark.parametrize("given", [40, "40", 40.0])
def test_a_guess_is_shown_beside_the_measured_value(given: Any, shown: list[dict[str, str]]) -> None:
    notebook.reveal("BLEU", given, 80)
    name, guess, measured = shown[0]["text/plain"].splitlines()
    assert name == "BLEU"
    assert guess.split()[-1] == "40" and measured.split()[-1] == "80"
    assert 2 * guess.count("█") == measured.count("█") > 0
    assert shown[0]["text/html"].startswith("<details open>")


@pytest.mark.parametrize(("measured", "written"), [(85264, "85,264"), (3.8624, "3.86"), (0.0, "0"), (-2, "-2")])
def test_without_a_guess_the_result_is_folded(measured: float, written: str, shown: list[dict[str, str]]) -> None:
    notebook.reveal("assemblies", None, measured)
    _, guess, line = shown[0]["text/plain"].splitlines()
    assert "none yet" in guess and line.split() == ["measured", written], "a bar alone would compare nothing"
    assert shown[0]["text/html"].startswith("<details><summary>assemblies: write your guess")


def test_a_difference_is_shown_with_its_interval(shown: list[dict[str, str]]) -> None:
    notebook.reveal("student minus kit", 2, -1.25, (-3.5, 1))
    _, guess, measured = shown[0]["text/plain"].splitlines()
    assert guess.split()[-1] == "2" and measured.endswith(" -1.2 (-3.5 to +1.0)")


def test_a_table_is_folded_with_the_value(shown: list[dict[str, str]]) -> None:
    notebook.reveal("BLEU", None, 80, table="6x 60\n2x 80")
    assert shown[0]["text/plain"].splitlines()[-2:] == ["6x 60", "2x 80"]
    fold, _, inside = shown[0]["text/html"].partition("</summary>")
    assert fold.startswith("<details>") and "2x 80" not in fold and "2x 80" in inside


@pytest.mark.parametrize("guess", ["about 5", (10, 0), float("nan"), "inf", 10**400, "<b>"])
def test_a_guess_that_is_not_a_number_is_refused(guess: Any, shown: list[dict[str, str]]) -> None:
    notebook.reveal("layers", guess, 24)
    assert "is not a number; write digits only" in shown[0]["text/plain"]
    assert shown[0]["text/html"].startswith("<details><summary>") and "<b>" not in shown[0]["text/html"]


def test_checks_print_what_is_wrong_and_raise_nothing(capsys: pytest.CaptureFixture) -> None:
    def run(work: Any) -> str:
        with notebook.check("1.1"):
            work()
        return capsys.readouterr().out

    def wrong() -> None:
        raise AssertionError("that is three, not four")

    assert run(lambda: None) == "✓ Exercise 1.1: that is right.\n"
    assert run(wrong) == "✗ Exercise 1.1, not yet: that is three, not four\n"
    assert run(lambda: None + 1).startswith("✗ Exercise 1.1, not yet: your code raised TypeError: unsupported operand")
    assert run(lambda: modtf.Assembly.parse("?")).startswith(
        "✗ Exercise 1.1, not yet. modtf says: '?' is not an assembly"
    )


def test_a_missing_name_asks_about_the_cells_above(capsys: pytest.CaptureFixture) -> None:
    with notebook.check("1.1"):
        covers(3, 1)  # type: ignore[name-defined]  # noqa: F821
    assert "name 'covers' is not defined. Did you run all cells above this one?" in capsys.readouterr().out


def test_an_interrupted_check_stops() -> None:
    with pytest.raises(KeyboardInterrupt), notebook.check("1.1"):
        raise KeyboardInterrupt


def drawn(box: Any) -> tuple[str, dict[str, Any] | None, str]:
    """The text, figure and problem below the controls."""
    problem, canvas = box.children[-2:]
    figure = re.search(r"<div class=\"modtf-figure\" hidden>(.*)</div>", canvas.children[-1].value)
    return canvas.children[0].value, json.loads(unescape(figure[1])) if figure else None, problem.value


def test_play_draws_the_controls_values() -> None:
    slider = widgets.IntSlider(value=2, min=1, max=3)
    box = notebook.play(lambda g: f"<b>{g}</b>", g=slider)
    assert drawn(box) == ("<b>2</b>", None, "")
    slider.value = 3
    assert drawn(box) == ("<b>3</b>", None, "")
    assert slider.continuous_update is False


def test_play_draws_figures_in_one_frame() -> None:
    slider = widgets.IntSlider(value=2, min=2, max=6)
    box = notebook.play(lambda g: (paths_figure({"stack": (g,)}, f"of {g}"), f"<p>{g}</p>"), g=slider)
    frame = box.children[-1].children[1]
    for g in (2, 5):
        slider.value = g
        words, figure, _ = drawn(box)
        assert words == f"<p>{g}</p>" and figure is not None
        assert figure["layout"]["title"]["text"] == f"of {g}"
        assert figure["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"  # dark pages too
    assert box.children[-1].children[1] is frame and "<iframe" in frame.value


def test_play_reports_a_problem_and_recovers() -> None:
    def draw(text: str) -> str:
        return str(modtf.Assembly.parse(text))

    field = widgets.Text(value="encoder 1 | decoder 1")
    box = notebook.play(draw, text=field)
    field.value = "<b>"
    _, _, problem = drawn(box)
    assert "is not an assembly" in problem and "<b>" not in problem
    assert box.children[-1].layout.visibility == "hidden", "the drawing shows other values"
    field.value = "encoder 2 | decoder 2"
    assert drawn(box) == ("encoder 2 | decoder 2", None, "") and box.children[-1].layout.visibility == "visible"


def test_blocks_are_placed_over_their_layers() -> None:
    figure = paths_figure({"encoder": (1, 1, 2, 2, 6), "decoder": (6, 6)})
    blocks = {
        (row, start): (width, text)
        for bar in figure.data
        for row, start, width, text in zip(bar.y, bar.base, bar.x, bar.text, strict=True)
    }
    assert blocks == {
        ("encoder", 0): (1, "0"), ("encoder", 1): (1, "1"), ("encoder", 2): (2, "m(2, 1)"),
        ("encoder", 4): (2, "m(2, 2)"), ("encoder", 6): (6, "m(6, 1)"),
        ("decoder", 0): (6, "m(6, 0)"), ("decoder", 6): (6, "m(6, 1)"),
    }  # fmt: skip


def test_a_description_travels_with_its_figure() -> None:
    figure = described(go.Figure(go.Bar(y=[1])), "One bar.", height=200)
    assert json.loads(figure.to_json())["layout"]["meta"]["alt"] == "One bar."
    assert figure.layout.height == 200


def test_whose_function_runs_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def test(double: Any) -> None:
        assert double(2) == 4, "twice two is four"

    def ours(x: float) -> float:
        return x + x

    stub, mine, broken = (lambda x: None), (lambda x: 2 * x), (lambda x: x.nothing)
    assert notebook.chosen("double", mine, ours, test) is mine
    assert notebook.chosen("double", stub, ours, test) is notebook.chosen("double", broken, ours, test) is ours
    assert capsys.readouterr().out.split("\n")[:2] == [
        "double: yours",
        "double: the library's, since yours does not pass its check yet",
    ]
