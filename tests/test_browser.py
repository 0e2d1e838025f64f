"""The page in a real headless Chromium: what a person does, and what they then read."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any
from urllib.parse import urlsplit

import pytest

import modtf
from modtf.data import bundled
from modtf.errors import ModtfError

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[1]
SCREENSHOT = ROOT / "build" / "explorer.png"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
#: Generous: everything is slow on a machine that does something else.
SECONDS = 180

if CHROMIUM is None:
    pytest.skip("no Chromium found; the page was not tested. On Debian: apt install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed; the page was not tested: pip install playwright")
pytest.importorskip("voila", reason="Voila is not installed; the page was not tested: pip install 'modtf[demo]'")


def has_table() -> bool:
    try:
        return bundled("table.json").is_file()
    except ModtfError:
        return False


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page's address with its token, from a server that was started as `modtf demo` starts it."""
    code = "from modtf.views.serve import serve; serve(open_browser=False)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    environment.pop("JUPYTER_TOKEN", None)
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    lines: Queue[str] = Queue()
    threading.Thread(target=lambda: [lines.put(line) for line in server.stdout or []], daemon=True).start()
    said = ""
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{20,}", said)):
            try:
                said += lines.get(timeout=SECONDS)
            except Empty:
                pytest.fail(f"the server named no address; it said: {said}")
        yield found[0]
    finally:
        server.send_signal(signal.SIGINT)
        try:
            code_ = server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            pytest.fail("the server did not stop after Ctrl-C")
    assert code_ == 0


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 900, "height": 1240})
        page.set_default_timeout(SECONDS * 1000)
        page.goto(address)
        page.wait_for_selector(".modtf-card")
        yield page
        page.goto("about:blank")  # the page says goodbye to its kernel
        browser.close()


def settled(page: Any, generation: int = -1) -> int:
    """Wait until the texts on the page belong to a request after ``generation``; the number of that request."""
    page.wait_for_function(
        "before => { const r = document.querySelector('.modtf-result'); return r && r.ariaBusy === 'false' && +r.dataset.generation > before"
        " && !r.classList.contains('modtf-waiting') && !r.classList.contains('modtf-stale'); }",
        arg=generation,
    )
    return int(page.get_attribute(".modtf-result", "data-generation"))


def read(page: Any) -> dict[str, str]:
    return {
        name: page.inner_text(selector)
        for name, selector in {
            "full": ".modtf-full .modtf-text", "small": ".modtf-small .modtf-text", "title": ".modtf-small header", "speed": ".modtf-speed b",
            "table": ".modtf-table", "quality": ".modtf-quality", "chips": ".modtf-full .modtf-chips",
        }.items()
    }  # fmt: skip


def refused(url: str, **headers: str) -> bool:
    """Whether a request ends at the login form or at an error."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS) as answer:
            return "/login" in answer.url
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)


def test_no_request_without_its_token_is_answered(address: str) -> None:
    parts = urlsplit(address)
    root = f"http://{parts.netloc}"
    assert parts.hostname == "127.0.0.1"
    assert refused(f"{root}/")
    assert refused(f"{root}/?token=guess")
    assert refused(f"{root}/api/kernels/00000000-0000-0000-0000-000000000000")
    assert refused(f"{root}/voila/files/page.ipynb")
    assert refused(address, Host="evil.example"), "a name that resolves to this machine is no way in"


def test_the_slider_brings_new_text_quality_and_speed(page: Any) -> None:
    before = settled(page)
    first = read(page)
    assert "The Vaults" in first["full"] and "✓ name" in first["chips"]
    assert "2.00×" in first["title"] and re.fullmatch(r"\d+\.\d\d×", first["speed"])
    source = page.get_by_label("the same as text").input_value()
    modular = modtf.load("pocket")
    ratios = modular.mapping.ratios()
    at_two = ratios.index(2)
    # The nearest position of the slider where this model's text is another one.
    steps, expected = next(
        (steps, text)
        for steps in sorted(range(-at_two, len(ratios) - at_two), key=abs)
        if (text := modular.generate(source, ratio=ratios[at_two + steps])) != first["small"]
    )
    handle = page.locator(".modtf-ratio .noUi-handle, .modtf-ratio .ui-slider-handle")
    handle.focus()
    for _ in range(abs(steps)):
        handle.press("ArrowRight" if steps > 0 else "ArrowLeft")
    page.wait_for_function("() => !document.querySelector('.modtf-small header').innerText.includes('2.00×')")
    settled(page, before)
    second = read(page)
    assert second["title"] != first["title"] and second["small"] == expected
    assert second["full"] == first["full"], "the slider changes the assembled model only"
    assert second["table"] != first["table"] and re.fullmatch(r"\d+\.\d\d×", second["speed"])
    if has_table():
        assert "% of the full model's BLEU" in second["quality"] and "slot errors" in second["quality"]
        curve = page.frame_locator(".modtf-curve iframe")
        curve.locator(".legendtext", has_text="size first").wait_for()
        curve.locator(".legendtext", has_text=re.compile("you are here|nearest measured")).wait_for()
    else:
        assert "No measurements are bundled" in second["quality"]


def test_the_other_strategy_builds_another_model(page: Any) -> None:
    before = settled(page)
    shape = read(page)["table"]
    page.get_by_role("button", name="speed first").click()
    settled(page, before)
    assert read(page)["table"] != shape
    page.get_by_role("button", name="size first").click()
    settled(page, before + 1)


def test_the_page_is_pictured(page: Any) -> None:
    settled(page)
    page.get_by_text("median of 3 runs").wait_for()
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOT)
    assert SCREENSHOT.stat().st_size > 20_000
    assert page.evaluate("document.querySelector('.modtf').scrollWidth <= 900")


def test_a_wrong_mr_is_answered_in_words(page: Any) -> None:
    before = settled(page)
    field = page.get_by_label("the same as text")
    field.fill("name[Zizzi], area[moon]")
    field.press("Enter")
    problem = page.locator(".modtf-problem")
    problem.wait_for()
    assert "area[moon] is unknown" in problem.inner_text() and "riverside" in problem.inner_text()
    field.fill("name[Zizzi], area[riverside]")
    field.press("Enter")
    settled(page, before + 1)
    assert problem.count() == 0 and "Zizzi" in read(page)["full"]
    assert page.get_by_label("area").input_value() == "riverside", "the dropdowns follow the text"


def test_a_dropdown_changes_the_text(page: Any) -> None:
    before = settled(page)
    page.get_by_label("area").select_option("city centre")
    settled(page, before)
    assert "area[city centre]" in page.get_by_label("the same as text").input_value()


def test_what_is_typed_stays_text(page: Any) -> None:
    before = settled(page)
    page.evaluate("window.broken = false")
    evil = "<img src=x onerror='window.broken=true'>"
    name = page.get_by_label("name", exact=True)
    name.fill(evil)
    name.press("Enter")
    settled(page, before)
    assert evil in page.get_by_label("the same as text").input_value()
    field = page.get_by_label("the same as text")
    field.fill(f"name[{evil}], area[{evil}]")
    field.press("Enter")
    page.locator(".modtf-problem").wait_for()
    assert "<img" in page.locator(".modtf-problem").inner_text(), "shown as it was typed"
    assert page.locator(".modtf img").count() == 0
    assert not page.evaluate("window.broken")
