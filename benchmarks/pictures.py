"""The pictures of the README, made in headless Chromium from what the explorer shows.

    python benchmarks/pictures.py ratios --model pocket "name[The Plough], eatType[pub], ..."    # docs/<model>.png
    python benchmarks/pictures.py explorer                                                       # docs/explorer.png
    python benchmarks/pictures.py versus --model translator                                      # docs/versus-<model>.png

`ratios` shows one input as the full model and smaller assemblies write it; `explorer` the page of `modtf demo` at 6x,
as it opens; `versus` what `benchmarks/versus.py` wrote: a kit and separately made students over the cost of training.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import modtf
from modtf.bundled import BUNDLED_MODELS, bundled
from modtf.errors import ModtfError
from modtf.views import explorer
from modtf.views.controller import Controller
from modtf.views.figures import versus_figure
from modtf.views.markup import sweep_html
from modtf.views.state import Sweep

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 900
SECONDS = 180


def ratios(model: str, text: str, wanted: list[float], strategy: str) -> None:
    """The input at some ratios, as a sweep of the explorer shows it."""
    modular = modtf.load(model)
    controller = Controller(modular)
    sides = []
    try:
        for ratio in wanted:
            controller.request(source=text, ratio=ratio, strategy=strategy)
            state = controller.wait(SECONDS, timed_in_turns=True)
            if state.problem or state.result is None:
                raise ModtfError(state.problem)
            sides.append(state.result.small)
    finally:
        controller.close()
    style = Path(explorer.__file__).with_name("style.css").read_text(encoding="utf-8")
    shown = sweep_html(Sweep(text, strategy, len(sides), tuple(sides)), controller.task)
    with page(WIDTH, 400) as tab:
        tab.set_content(f'<style>{style} body {{ margin: 0 }}</style><div class="modtf">{shown}</div>')
        tab.locator(".modtf-sweep").screenshot(path=DOCS / f"{model}.png")


def versus(model: str) -> None:
    """The comparison by the first score of the model's task that tells the sizes apart."""
    comparison = json.loads(bundled(f"{model}/versus.json").read_text(encoding="utf-8"))
    metrics = {metric.key: metric for metric in modtf.tasks.task_named(modtf.load(model).task).metrics}
    figure = versus_figure(comparison, metrics.get("ser", metrics["bleu"])).update_layout(
        width=1000, margin={"l": 60, "r": 10, "t": 40, "b": 90}, paper_bgcolor="white"
    )
    with page(1000, int(figure.layout.height)) as tab:
        tab.set_content(figure.to_html(include_plotlyjs=True, config={"staticPlot": True}))
        tab.locator(".main-svg").first.wait_for()
        tab.locator(".js-plotly-plot").screenshot(path=DOCS / f"versus-{model}.png")


def opened() -> None:
    """The explorer, slid to 6x."""
    command = [sys.executable, "-m", "modtf.cli", "demo", "--no-browser"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        try:
            assert demo.stdout is not None
            address = next(found[0] for line in demo.stdout if (found := re.search(r"http://\S+", line)))
            with page(WIDTH, 1420) as tab:
                tab.goto(address)
                tab.locator(".modtf-ratio .noUi-handle").first.focus()
                tab.keyboard.press("End")
                tab.locator(".modtf-small header", has_text="6.00×").wait_for()
                tab.get_by_text("median of 5 runs").first.wait_for()
                tab.wait_for_timeout(3000)  # the curve follows the text
                tab.screenshot(path=DOCS / "explorer.png")
        finally:
            demo.send_signal(signal.SIGTERM)
            demo.communicate()


@contextmanager
def page(width: int, height: int) -> Iterator[Any]:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.set_default_timeout(SECONDS * 1000)
        try:
            yield tab
        finally:
            browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pictures = parser.add_subparsers(dest="picture", required=True)
    of_ratios = pictures.add_parser("ratios")
    of_ratios.add_argument("text")
    of_ratios.add_argument("--model", default=BUNDLED_MODELS[0], choices=BUNDLED_MODELS)
    of_ratios.add_argument("--ratios", type=float, nargs="+", default=[1, 2, 6])
    of_ratios.add_argument("--strategy", default="size_first", choices=modtf.strategies.STRATEGIES)
    pictures.add_parser("explorer")
    of_versus = pictures.add_parser("versus")
    of_versus.add_argument("--model", default=BUNDLED_MODELS[0], choices=BUNDLED_MODELS)
    options = parser.parse_args()
    if options.picture == "ratios":
        ratios(options.model, options.text, options.ratios, options.strategy)
    elif options.picture == "versus":
        versus(options.model)
    else:
        opened()


if __name__ == "__main__":
    try:
        main()
    except ModtfError as error:
        sys.exit(str(error))
