"""What the page's notebook shows: the explorer, and ahead of it the first texts, which need no widgets."""

from __future__ import annotations

import time
from pathlib import Path

from IPython.display import display

from modtf.views.controller import Controller
from modtf.views.explorer import Explorer, bundled_models
from modtf.views.markup import texts_html
from modtf.views.state import Result

#: The template ``index.html.j2`` puts the output with this mark into the skeleton, which goes once the widgets are there.
MARK = "modtf_first_look"


def show(folder: str | Path = ".", quiet: bool = False) -> None:
    """Display the explorer of the bundled models, once the first texts are written; ``quiet`` is that of ``explore``."""
    explorers: dict[str, Explorer] = {}
    page = bundled_models(folder, explorers, quiet)
    for explorer in explorers.values():
        result = _first_result(explorer.controller)
        if result is not None:
            html = texts_html(result, result.small.assembly.shape)
            html = f'<div class="modtf-quiet">{html}</div>' if quiet else html
            display({"text/html": html}, raw=True, metadata={MARK: True})
    display(page)


def _first_result(controller: Controller, timeout: float = 60.0) -> Result | None:
    """The first texts; ``None`` after a problem, which the explorer shows, or ``timeout`` seconds."""
    latest = time.monotonic() + timeout
    # `controller.wait` would also wait for the figure, which is drawn next.
    while (state := controller.state).result is None and not state.problem and time.monotonic() < latest:
        time.sleep(0.01)
    return state.result
