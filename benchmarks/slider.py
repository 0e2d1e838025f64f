"""How long a person waits from the last move of the slider to the new text of 24 tokens, and the share of the widgets.

    python benchmarks/slider.py              # the widgets alone
    python benchmarks/slider.py --browser    # the page in headless Chromium, which needs cores of its own

The times include the 10 ms in which the controller waits for further moves. At 1x the full model's text is forgotten
before each move, since it would only be looked up. The goals on an idle core: p95 of 120 ms at 1x and 50 ms at 6x.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time

import torch

import modtf
from modtf.tasks import E2E
from modtf.tasks.e2e.mrs import draw_mr, write_mr
from modtf.views.explorer import Explorer

TOKENS, MOVES = 24, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browser", action="store_true")
    torch.set_num_threads(1)
    if parser.parse_args().browser:
        in_the_browser()
    else:
        widgets_alone()


def source_of_24_tokens() -> str:
    """An MR for which both the full and the smallest model write ``TOKENS`` tokens."""
    modular = modtf.load("pocket")
    for seed in itertools.count():
        source = write_mr(draw_mr(random.Random(seed)))
        texts = [modular.generate(source, ratio=ratio) for ratio in (1, 6)]
        if all(len(modular.tokenizer(text)["input_ids"]) == TOKENS for text in texts):
            return source
    raise AssertionError("unreachable")


def widgets_alone() -> None:
    explorer = Explorer(modtf.load("pocket"))
    controller = explorer.controller
    explorer.source.value = source_of_24_tokens()
    ratios = [ratio for _, ratio in explorer.ratio.options]
    for ratio in ratios:  # assemble and warm up
        explorer.ratio.value = ratio
        controller.wait()
    for ratio in (1.0, 2.0, 6.0):
        waits, own = [], []
        for _ in range(MOVES):
            explorer.ratio.value = ratios[ratios.index(ratio) - 1]
            controller.wait()
            if ratio == 1:
                controller._remembered.clear()
            started = time.perf_counter()
            explorer.ratio.value = ratio
            state = controller.wait()
            waits.append(1000 * (time.perf_counter() - started))
            assert state.current and state.result is not None, state.problem
            own.append(waits[-1] - state.result.small.latency.times_ms[0])
            written = state.result.small
        report(f"{ratio:g}x, {written.latency.tokens} tokens, engine: {written.engine}", waits)
        report("   without the model", own)
    controller.close()


def in_the_browser() -> None:
    """From the key that moves the slider to the text on the page, measured by the page's clock."""
    import os
    import re
    import subprocess
    import sys

    from playwright.sync_api import sync_playwright

    source = source_of_24_tokens()
    code = "from modtf.views.serve import serve; serve(open_browser=False)"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    address = re.search(r"http\S+", server.stdout.readline())
    assert address is not None
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 900, "height": 1400})
            page.goto(address[0])
            page.wait_for_selector(".modtf-card", timeout=120_000)
            page.get_by_role("button", name=E2E.label).click()
            field = page.get_by_label("the same as text")
            field.fill(source)
            field.press("Enter")
            handle = page.locator(".modtf-ratio .noUi-handle")
            handle.focus()

            def press(arrow: str) -> None:
                """Move the slider and wait for the text."""
                before = page.get_attribute(".modtf-result", "data-generation")
                handle.press(arrow)
                page.wait_for_function(
                    "before => { const r = document.querySelector('.modtf-result');"
                    " return r.ariaBusy === 'false' && +r.dataset.generation > +before; }",
                    arg=before,
                )

            page.wait_for_timeout(2000)
            # Eight steps from 2x to 6x; then eighteen to 1.09x, not 1x, where the full model's text is only looked up.
            for steps, there, back, name in (
                (8, "ArrowRight", "ArrowLeft", "6x"),
                (18, "ArrowLeft", "ArrowRight", "1.09x"),
            ):
                for _ in range(steps):
                    press(there)
                waits = []
                for _ in range(MOVES):
                    press(back)
                    page.wait_for_timeout(100)
                    page.evaluate(
                        """() => {
                            const title = () => document.querySelector('.modtf-small header').innerText;
                            window.took = null;
                            document.addEventListener('keydown', () => {
                                const start = performance.now(), old = title();
                                const seen = new MutationObserver(() => {
                                    const result = document.querySelector('.modtf-result');
                                    if (result.ariaBusy === 'false' && title() !== old) {
                                        window.took = performance.now() - start;
                                        seen.disconnect();
                                    }
                                });
                                const all = {subtree: true, childList: true, characterData: true};
                                seen.observe(document.querySelector('.modtf:has(.modtf-result)'), all);
                            }, {once: true, capture: true});
                        }"""
                    )
                    handle.press(there)
                    waits.append(float(page.wait_for_function("() => window.took").json_value()))
                report(f"in the browser, {page.inner_text('.modtf-ratio .widget-readout')} (to {name})", waits)
            page.goto("about:blank")
            browser.close()
    finally:
        server.terminate()
        server.wait()


def report(what: str, milliseconds: list[float]) -> None:
    ordered = sorted(milliseconds)
    median, p95 = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
    print(f"{what}: median {median:.1f} ms, p95 {p95:.1f} ms, {len(ordered)} moves", flush=True)


if __name__ == "__main__":
    main()
