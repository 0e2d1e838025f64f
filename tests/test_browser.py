"""The page in a real headless Chromium: user actions, and what the page then shows."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any
from urllib.parse import urlsplit

import pytest
import transformers

import modtf
from modtf.tasks import E2E, TRANSLATION

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "build"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
#: Generous, because a busy machine is slow.
SECONDS = 90

if CHROMIUM is None:
    pytest.skip("no Chromium found; the page was not tested. On Debian: apt install chromium", allow_module_level=True)
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed; the page was not tested: pip install playwright"
)
pytest.importorskip("voila", reason="Voila is not installed; the page was not tested: pip install 'modtf[demo]'")
psutil = pytest.importorskip("psutil")  # ipykernel needs it


def await_port(port: int) -> None:
    """Wait until the port answers: JupyterLab prints its address a moment before it listens."""
    for _ in range(10 * SECONDS):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"nothing answers on port {port}")


@contextmanager
def started(
    command: list[str],
    folder: Path,
    said_when_ready: str,
    said_at_the_end: str = "",
    stop: signal.Signals = signal.SIGTERM,
    **environment: str,
) -> Iterator[str]:
    """Run a server; yields what matched ``said_when_ready``. A signal stops it, and it must then exit with 0."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
    variables.pop("JUPYTER_TOKEN", None)
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=variables,
        cwd=folder,
        # If these tests run in the background, their shell may ignore SIGINT, and child processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) if stop == signal.SIGINT else None,
    )
    lines: Queue[str] = Queue()
    reader = threading.Thread(target=lambda: [lines.put(line) for line in server.stdout or []], daemon=True)
    reader.start()
    said = ""
    try:
        while not (found := re.search(said_when_ready, said)):
            try:
                said += lines.get(timeout=SECONDS)
            except Empty:
                pytest.fail(f"the server was not ready; it said: {said}")
        await_port(int(urlsplit(found[0]).port or 0))
        yield found[0]
    finally:
        server.send_signal(stop)
        try:
            code = server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            pytest.fail(f"the server did not stop after {stop.name}")
    reader.join(SECONDS)
    said += "".join(lines.queue)
    assert code == 0 and said_at_the_end in said, said


DEMO = [sys.executable, "-m", "modtf.cli", "demo", "--no-browser"]
ADDRESS = r"http://127\.0\.0\.1:\d+/\?token=[\w-]{20,}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The servers' working directory, where checkpoints are saved."""
    return tmp_path_factory.mktemp("started")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The page's address with its token."""
    with started(DEMO, folder, ADDRESS, "Stopped.") as said:
        yield said


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_server_stops_on_a_signal(folder: Path, stop: signal.Signals) -> None:
    """Ctrl-C sends SIGINT."""
    with started(DEMO, folder, ADDRESS, "Stopped.", stop) as said:
        assert said.startswith("http://127.0.0.1:")


#: Both in one cell, since JupyterLab does not render cells that are scrolled out of view.
NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code", "execution_count": None, "id": "explore", "metadata": {}, "outputs": [],
            "source": "import modtf\ndisplay(modtf.explore(), modtf.explore())",
        }
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[str]:
    """The address of a notebook with two explorers, in JupyterLab with default settings."""
    (folder / "explorers.ipynb").write_text(json.dumps(NOTEBOOK))
    with in_lab(folder, "explorers.ipynb") as address:
        yield address


@contextmanager
def in_lab(folder: Path, notebook: str, **environment: str) -> Iterator[str]:
    """The address of a notebook in JupyterLab, started in ``folder`` with no user settings except those given."""
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    token = secrets.token_hex(16)
    options = [
        "--no-browser",
        "--ip=127.0.0.1",
        "--port=0",
        "--allow-root",
        f"--IdentityProvider.token={token}",
        "--ServerApp.answer_yes=True",
    ]
    command = [sys.executable, "-m", "jupyter", "lab", *options]
    own["JUPYTER_PREFER_ENV_PATH"] = "1"
    with started(command, folder, r"http://127\.0\.0\.1:\d+/lab\?token=", **own, **environment) as said:
        yield said.replace("/lab?", f"/lab/tree/{notebook}?") + token


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


#: The bundled models as the switch calls them, and the labels of their inputs.
LABELS = {task.label: task.input_label for task in (TRANSLATION, E2E)}


class Page:
    """An explorer on a page: the ``index``-th."""

    def __init__(self, page: Any, where: str, index: int = 0) -> None:
        self.page, self.where, self.index = page, where, index
        self.root = page.locator(".modtf:has(.modtf-result)").nth(index)

    def choose(self, model: str) -> None:
        """Switch to a bundled model, by what the switch calls it."""
        explorers = self.page.locator(".modtf-result").count()
        self.page.get_by_role("button", name=model).nth(self.index).click()
        self.page.wait_for_function(
            "explorers => document.querySelectorAll('.modtf-result').length === explorers", arg=explorers
        )
        self.root.get_by_label(LABELS[model], exact=True).wait_for()
        self.settled()

    def settled(self, generation: int = -1) -> int:
        """Wait until the texts on the page belong to a request after ``generation``; return that request's number."""
        self.page.wait_for_function(
            """([before, index]) => {
                const result = document.querySelectorAll('.modtf-result')[index];
                return result && result.ariaBusy === 'false' && +result.dataset.generation > before
                    && !/modtf-(waiting|stale)/.test(result.className);
            }""",
            arg=[generation, self.index],
        )
        return int(self.root.locator(".modtf-result").get_attribute("data-generation"))

    def shows(self, words: str) -> None:
        """Wait until the assembled text has this title; others may come and go until then."""
        self.page.wait_for_function(
            """([words, index]) => {
                const result = document.querySelectorAll('.modtf-result')[index];
                return result.ariaBusy === 'false' && !/modtf-(waiting|stale)/.test(result.className)
                    && result.querySelector('.modtf-small header').innerText.includes(words);
            }""",
            arg=[words, self.index],
        )

    def read(self) -> dict[str, str]:
        return {
            name: self.root.locator(selector).first.inner_text()
            for name, selector in {
                "full": ".modtf-result .modtf-full .modtf-text",
                "small": ".modtf-result .modtf-small .modtf-text",
                "title": ".modtf-result .modtf-small header",
                "speed": ".modtf-speed b",
                "table": ".modtf-table",
                "quality": ".modtf-quality",
                "shape": ".modtf-shape",
            }.items()
        }

    def button(self, name: str) -> Any:
        return self.root.get_by_role("button", name=re.compile(rf"^\W*{name}$"))  # the icon counts as a character

    def slide(self, stack: str, steps: int) -> None:
        handle = self.root.locator(f".modtf-slider:has(label:text-is('{stack}'))").locator(
            ".noUi-handle, .ui-slider-handle"
        )
        handle.focus()
        for _ in range(abs(steps)):
            handle.press("ArrowRight" if steps > 0 else "ArrowLeft")

    def path(self, stack: str) -> list[str]:
        """The blocks' labels: granularities, and empty strings for original layers."""
        return [text.strip() for text in self.blocks(stack).all_inner_texts()]

    def blocks(self, stack: str) -> Any:
        """The visible blocks."""
        return self.root.locator(f".modtf-stack:has([aria-label^='{stack}']) .modtf-block:not(.modtf-gone)")


@pytest.fixture(scope="module", params=["voila", "lab"])
def opened(request: pytest.FixtureRequest, browser: Any) -> Iterator[Page]:
    """The explorer on its own page and in a notebook; the tests below run on both."""
    tab = browser.new_page(
        viewport={"width": 900, "height": 1240} if request.param == "voila" else {"width": 1300, "height": 1240}
    )
    tab.set_default_timeout(SECONDS * 1000)
    if request.param == "voila":
        tab.goto(request.getfixturevalue("address"))
    else:
        tab.goto(request.getfixturevalue("lab"))
        tab.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        tab.locator(".jp-Notebook .jp-Cell").first.click()
        tab.keyboard.press("Shift+Enter")
        tab.locator(".modtf .modtf-card").nth(2).wait_for()
    page = Page(tab, request.param)
    page.settled()
    yield page
    tab.goto("about:blank")  # leaving the page shuts its kernel down
    tab.close()


@pytest.fixture
def translator(opened: Page) -> Page:
    opened.choose(TRANSLATION.label)
    return opened


@pytest.fixture
def page(opened: Page) -> Page:
    """Shows pocket."""
    opened.choose(E2E.label)
    return opened


def refused(url: str, **headers: str) -> bool:
    """Whether a request ends at the login form or with an error."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS) as answer:
            return "/login" in answer.url
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)


def test_requests_without_the_token_are_refused(address: str) -> None:
    parts = urlsplit(address)
    root = f"http://{parts.netloc}"
    assert parts.hostname == "127.0.0.1"
    assert refused(f"{root}/")
    assert refused(f"{root}/?token=guess")
    assert refused(f"{root}/api/kernels/00000000-0000-0000-0000-000000000000")
    assert refused(f"{root}/voila/files/page.ipynb")
    assert refused(f"{root}/voila/query/00000000-0000-0000-0000-000000000000"), "preheating would add this one, open"
    assert refused(address, Host="evil.example"), "a foreign host name that resolves to this machine is refused"


def kernels() -> set[str]:
    """The ids of the kernels of the newest server; another one of these tests may run beside it."""
    servers = [process for process in psutil.Process().children() if process.cmdline()[-len(DEMO) + 1 :] == DEMO[1:]]
    ids = set()
    for process in max(servers, key=psutil.Process.create_time).children(recursive=True):
        with suppress(psutil.Error):
            ids |= set(re.findall(r"kernel-([0-9a-f-]{36})\.json", " ".join(process.cmdline())))
    return ids


def soon(happened: Callable[[], object]) -> bool:
    """Whether something happens before a busy machine would be to blame."""
    latest = time.monotonic() + SECONDS
    while not happened() and time.monotonic() < latest:
        time.sleep(0.1)
    return bool(happened())


def test_visitors_come_one_after_the_other(browser: Any, folder: Path) -> None:
    """Each sees words and then texts until the widgets are there, and has a kernel of his own; the second a warm one."""

    def visit() -> tuple[Page, str]:
        tab = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        tab.set_default_timeout(SECONDS * 1000)
        tab.add_init_script(
            """window.seen = {words: [], texts: []};
            const note = (list, text) => text && !list.includes(text) && list.push(text);
            setInterval(() => {
                note(seen.words, document.querySelector("#modtf-loading [role=status]")?.innerText);
                note(seen.texts, document.querySelector("#modtf-first .modtf-small .modtf-text")?.innerText);
            }, 5);"""
        )
        tab.goto(address, wait_until="commit")
        tab.locator("#modtf-loading").wait_for()
        tab.screenshot(path=PICTURES / f"opening-{len(seen)}.png")
        page = Page(tab, "voila")
        page.settled()
        tab.locator("#modtf-loading").wait_for(state="detached")
        seen.append(tab.evaluate("window.seen"))
        assert seen[-1]["texts"] == [page.read()["small"]], "the first look says what the widgets say"
        assert page.blocks("encoder").count() == 3
        tab.screenshot(path=PICTURES / f"opened-{len(seen)}.png")
        return page, json.loads(tab.locator("#jupyter-config-data").text_content())["kernelId"]

    PICTURES.mkdir(exist_ok=True)
    seen: list[dict[str, list[str]]] = []
    with started(DEMO, folder, ADDRESS, "Stopped.") as address:
        first, kernel = visit()
        assert "Loading the model …" in seen[0]["words"], "it still loaded"
        first.slide("ratio", 20)
        first.shows("6.00×")
        assert soon(lambda: kernels() - {kernel}), "another kernel starts for the next visitor"
        waiting = kernels()
        second, other = visit()
        assert other in waiting - {kernel}
        assert "2.00×" in second.read()["title"] and "6.00×" in first.read()["title"]
        # A page that stands elsewhere has the cookies, too, but cannot read them into a header.
        shutdown = f"{address.partition('?')[0]}voila/api/shutdown/{other}"
        assert second.page.context.request.post(shutdown).status == 403
        second.slide("ratio", -20)
        second.shows("1.00×")
        for page, closed in ((first, kernel), (second, other)):
            page.page.goto("about:blank")
            page.page.context.close()
            assert soon(lambda closed=closed: closed not in kernels()), "a closed page's kernel ends"


# -- the translator ----------------------------------------------------------------------------------------------------


def test_the_page_opens_with_the_translator(opened: Page) -> None:
    opened.settled()
    assert opened.root.get_by_label("a German sentence").input_value() == TRANSLATION.first
    texts = opened.read()
    assert texts["small"] != texts["full"], "something is lost"
    assert opened.root.locator(".modtf-result mark").count() > 0, "and one can see what"
    assert "never from long or technical text" in opened.root.inner_text()
    assert "BLEU" in texts["quality"] and "chrF2" in texts["quality"]


def test_any_sentence_can_be_typed(translator: Page) -> None:
    field = translator.root.get_by_label("a German sentence")
    modular = modtf.load("translator")
    for typed in ("Der Zug nach Berlin fährt um acht Uhr ab.", "<img src=x onerror=alert(1)> 寒い 🥶"):
        before = translator.settled()
        field.fill(typed)
        field.press("Enter")
        translator.settled(before)
        texts = translator.read()
        assert texts["full"] == " ".join(modular.generate(typed, ratio=1).split())
        assert re.fullmatch(r"\d+ %", translator.root.locator(".modtf-fidelity").inner_text())
        assert translator.root.locator("img").count() == 0
    for typed, words in (
        ("viel " * 10_000, "translate a longer text one sentence at a time"),
        ("   ", "write one in German"),
    ):
        field.fill(typed)
        field.press("Enter")
        translator.root.locator(".modtf-problem", has_text=words).wait_for()
    before = int(translator.root.locator(".modtf-result").get_attribute("data-generation"))
    field.fill("Mir ist kalt.")
    field.press("Enter")
    translator.settled(before)
    assert translator.root.locator(".modtf-problem").count() == 0


def test_a_quiet_page_hides_scores_until_they_are_asked_for(browser: Any, folder: Path) -> None:
    PICTURES.mkdir(exist_ok=True)
    with started([*DEMO, "--quiet"], folder, ADDRESS, "Stopped.") as address:
        tab = browser.new_page(viewport={"width": 900, "height": 1400})
        tab.set_default_timeout(SECONDS * 1000)
        tab.goto(address)
        page = Page(tab, "voila")
        page.settled()
        for model in (TRANSLATION.label, E2E.label):
            page.choose(model)
            scores = page.root.locator(".modtf-score")
            assert scores.count() >= 2 and not any(one.is_visible() for one in scores.all())
            marked = page.root.locator(".modtf-result mark")
            clear = "one => getComputedStyle(one).backgroundColor"
            assert all(mark.evaluate(clear) == "rgba(0, 0, 0, 0)" for mark in marked.all())
            assert page.root.locator(".modtf-result .modtf-text").first.is_visible()
            tab.screenshot(path=PICTURES / f"quiet-{model}.png")
            page.button("show the scores").click()
            page.root.locator(".modtf-speed b").first.wait_for()
            page.root.locator(".modtf-quality").wait_for()
            curve = page.root.frame_locator(".modtf-curve iframe")
            curve.locator(".legendtext", has_text="size first").wait_for()
            tab.wait_for_function(
                "[...document.querySelectorAll('.modtf-curve iframe')].filter(one => one.offsetWidth > 0)"
                ".every(one => one.contentDocument.querySelector('.main-svg').clientWidth > 600)"
            )  # it was drawn where nobody saw it
            tab.screenshot(path=PICTURES / f"shown-{model}.png")
            page.button("hide the scores").click()
            page.root.locator(".modtf-speed b").first.wait_for(state="hidden")
        tab.goto("about:blank")
        tab.close()


def test_a_limit_in_place_of_a_ratio(translator: Page) -> None:
    before = translator.settled()
    field = translator.root.get_by_label("or the best with")
    field.fill("20")
    field.press("Enter")
    translator.settled(before)
    chosen = modtf.load("translator").choose(strategy="quality_first", max_megabytes=20)
    translator.shows(chosen.shape)
    translator.button("what quality first chooses from").click()
    frame = translator.root.frame_locator(".modtf-curve iframe")
    for words in ("MB in float32", "best measured", "best predicted", "you are here"):
        frame.get_by_text(words, exact=True).first.wait_for()
    field.fill("2")
    field.press("Enter")
    translator.root.locator(".modtf-problem", has_text="the smallest one has 13").wait_for()
    field.fill("https://example.org")
    field.press("Enter")
    translator.button("BLEU against people's texts").click()
    translator.root.locator(".modtf-problem", has_text="is not a number above 0").wait_for()


def test_sentences_for_those_who_know_no_german(translator: Page) -> None:
    field = translator.root.get_by_label("a German sentence")
    before = translator.settled()
    translator.root.locator("select").first.select_option(TRANSLATION.suggestions[0])
    translator.settled(before)
    assert field.input_value() == TRANSLATION.suggestions[0]
    before = translator.settled()
    translator.button("another sentence").click()
    translator.settled(before)
    references = {example.source: example.references for example in TRANSLATION.bundled_examples("evaluation")}
    people = translator.root.locator(".modtf-references").inner_text()
    assert all(f"“{reference}”" in people for reference in references[field.input_value()])
    assert "against people's translations" in translator.read()["table"]


def test_a_sweep_of_a_sentence(translator: Page) -> None:
    before = translator.settled()
    field = translator.root.get_by_label("a German sentence")
    field.fill(TRANSLATION.suggestions[4])
    field.press("Enter")
    translator.settled(before)
    translator.button("sweep").click()
    ratios = len(modtf.load("translator").mapping.ratios())
    translator.page.wait_for_function(f"() => document.querySelectorAll('.modtf-sweep tbody tr').length === {ratios}")
    translator.root.locator(".modtf-swept", has_text="differs from the full model's: at").wait_for()


# -- pocket ------------------------------------------------------------------------------------------------------------


def test_the_slider_updates_text_quality_and_speed(page: Page) -> None:
    page.settled()
    first = page.read()
    assert "The Plough" in first["full"]
    assert "✓ name" in page.root.locator(".modtf-full .modtf-chips").first.inner_text()
    assert "2.00×" in first["title"] and re.fullmatch(r"\d+\.\d\d×", first["speed"]) and "23.1 MB" in first["table"]
    source = page.root.get_by_label("the same as text").input_value()
    modular = modtf.load("pocket")
    ratios = modular.mapping.ratios()
    at_two = ratios.index(2)
    # The nearest slider position with a new text that also differs from the full model's.
    steps, expected = next(
        (steps, text)
        for steps in sorted(range(-at_two, len(ratios) - at_two), key=abs)
        if (text := modular.generate(source, ratio=ratios[at_two + steps])) not in (first["small"], first["full"])
    )
    page.slide("ratio", steps)
    page.shows(f"{ratios[at_two + steps]:.2f}×")
    second = page.read()
    assert second["title"] != first["title"] and second["small"] == expected
    assert second["full"] == first["full"], "the slider changes the assembled model only"
    assert second["table"] != first["table"] and re.fullmatch(r"\d+\.\d\d×", second["speed"])
    assert page.root.locator(".modtf-result mark").count() > 0, "differing words are marked"
    assert "% of the full model's)" in second["quality"] and "slot errors" in second["quality"]
    curve = page.root.frame_locator(".modtf-curve iframe")
    curve.locator(".legendtext", has_text="size first").wait_for()
    curve.locator(".legendtext", has_text=re.compile("you are here|nearest measured")).wait_for()


def test_the_other_strategy_builds_another_model(page: Page) -> None:
    before = page.settled()
    shape = page.read()["table"]
    page.button("speed first").click()
    page.settled(before)
    assert page.read()["table"] != shape
    page.button("size first").click()
    page.settled(before + 1)


def test_a_block_is_split_and_merged_and_the_sliders_follow(page: Page) -> None:
    page.settled()
    page.slide("ratio", 25)
    page.shows("2-2")
    assert page.path("encoder") == ["6", "6"]
    before = page.settled()
    page.blocks("encoder").first.click()
    page.settled(before)
    assert page.path("encoder") == ["3", "3", "6"] and "3-2" in page.read()["title"]
    assert "4.80×" in page.root.locator(".modtf-ratio .widget-readout").inner_text(), "the ratio follows"
    assert "3 layers" in page.root.locator(".modtf-slider:has(label:text-is('encoder')) .widget-readout").inner_text()
    before = page.settled()
    page.root.get_by_title("encoder: merge the blocks that meet between layers 2 and 3").click()
    page.settled(before)
    assert page.path("encoder") == ["6", "6"]
    page.root.get_by_title("encoder: merge the blocks that meet between layers 5 and 6").click()
    page.root.locator(".modtf-problem", has_text="no module joins layers 5 and 6").wait_for()
    # by keyboard, too
    before = page.settled()
    page.blocks("decoder").nth(1).focus()
    page.page.keyboard.press("Enter")
    page.settled(before)
    assert page.path("decoder") == ["6", "3", "3"]
    assert page.root.locator(".modtf-problem").count() == 0


def test_each_stack_has_a_slider(page: Page) -> None:
    before = page.settled()
    page.slide("decoder", -1)
    page.settled(before)
    assert page.read()["shape"] == "2-4" and "2-4" in page.read()["title"]


def test_a_race_streams_both_texts(page: Page) -> None:
    page.settled()
    page.root.evaluate(
        """root => {
            window.seen = {full: new Set(), small: new Set()};
            new MutationObserver(() => {
                for (const lane of ['full', 'small']) {
                    const text = root.querySelector(`.modtf-race .modtf-${lane} .modtf-text`);
                    if (text) window.seen[lane].add(text.innerText.length);
                }
            }).observe(root, {subtree: true, childList: true});
        }"""
    )
    page.button("race").click()
    race = page.root.locator(".modtf-race[data-finished=true]")
    race.wait_for()
    for lane in ("full", "small"):
        assert page.page.evaluate(f"window.seen.{lane}.size") > 4, "the texts grow during the replay"
    race = page.root.locator(".modtf-race")
    texts = page.read()
    assert race.locator(".modtf-full .modtf-text").inner_text() == texts["full"]
    assert race.locator(".modtf-small .modtf-text").inner_text() == texts["small"]
    # Either outcome is possible on a busy machine.
    assert re.search("(slow motion|At real speed).*(times as fast|times as long)", race.inner_text(), re.DOTALL)
    page.root.get_by_text("draft with the small, answer with the large").click()
    page.button("race").click()
    drafted = page.root.locator(".modtf-race[data-finished=true]", has_text="drafted by")
    drafted.wait_for()
    assert drafted.locator(".modtf-full .modtf-text").inner_text() == texts["full"]
    assert drafted.locator(".modtf-small .modtf-accepted").count() > 1
    words = drafted.locator(".modtf-text .modtf-accepted, .modtf-text .modtf-own").all_text_contents()
    assert "".join(words) == texts["full"]
    # A move stops a running race.
    page.button("race").click()
    page.button("stop").wait_for()
    before = page.settled()
    page.slide("decoder", 1)
    page.settled(before)
    page.button("race").wait_for()
    assert race.count() == 0


def test_a_measurement_can_be_stopped_and_completed(page: Page) -> None:
    page.settled()
    assert "is not in the table" in page.read()["quality"]
    page.root.get_by_label("on", exact=True).select_option("300 inputs")
    page.button("measure this assembly").click()
    bar = page.root.locator(".modtf-bar", has=page.page.get_by_label("on", exact=True))
    bar.get_by_text(re.compile(r"\d+ of \d+ texts, about \d+ s left")).wait_for()
    bar.get_by_role("button", name="stop").click()
    bar.get_by_text("stopped", exact=True).wait_for()
    assert page.root.locator(".modtf-measured").count() == 0
    page.root.get_by_label("on", exact=True).select_option("30 inputs")
    page.button("measure this assembly").click()
    page.root.locator(".modtf-measured").wait_for()
    assert "Measured here on 30 bundled inputs" in page.root.locator(".modtf-measured").inner_text()
    page.root.frame_locator(".modtf-curve iframe").locator(".legendtext", has_text="measured here").wait_for()


def test_a_sweep_shows_every_ratio(page: Page) -> None:
    page.settled()
    page.button("sweep").click()
    table = page.root.locator(".modtf-sweep")
    page.page.wait_for_function("() => document.querySelectorAll('.modtf-sweep tbody tr').length === 21")
    page.button("sweep").wait_for()
    rows = table.locator("tbody tr").all_inner_texts()
    assert rows[0].startswith("1.00×") and rows[-1].startswith("6.00×") and page.read()["full"] in rows[0]
    assert re.search(
        "The first slot that the full model gets right|No slot that the full model gets right is lost",
        page.root.locator(".modtf-swept").inner_text(),
    )


def test_a_screenshot_of_the_page(page: Page) -> None:
    page.slide("ratio", 25)
    page.slide("ratio", -4)
    page.shows("4-4")
    before = page.settled()
    page.blocks("encoder").first.click()
    page.settled(before)
    assert page.path("encoder") == ["", "", "", "3", "3", "3"]
    page.root.get_by_text("median of 5 runs").first.wait_for()
    PICTURES.mkdir(exist_ok=True)
    picture = PICTURES / f"explorer-{page.where}.png"
    page.page.set_viewport_size({"width": 900 if page.where == "voila" else 1300, "height": 1420})
    page.root.evaluate("element => element.scrollIntoView()")
    page.page.wait_for_timeout(500)
    page.page.screenshot(path=picture)
    assert picture.stat().st_size > 20_000
    assert page.root.evaluate("element => element.scrollWidth <= 900")


def test_an_invalid_mr_is_explained(page: Page) -> None:
    before = page.settled()
    field = page.root.get_by_label("the same as text")
    field.fill("name[Zizzi], area[moon]")
    field.press("Enter")
    problem = page.root.locator(".modtf-problem")
    problem.wait_for()
    assert "area[moon] is unknown" in problem.inner_text() and "riverside" in problem.inner_text()
    field.fill("name[Zizzi], area[riverside]")
    field.press("Enter")
    page.settled(before + 1)
    assert problem.count() == 0 and "Zizzi" in page.read()["full"]
    assert page.root.get_by_label("area").input_value() == "riverside", "the dropdowns follow the text"


def test_a_dropdown_changes_the_text(page: Page) -> None:
    before = page.settled()
    page.root.get_by_label("area").select_option("city centre")
    page.settled(before)
    assert "area[city centre]" in page.root.get_by_label("the same as text").input_value()


def test_a_checkpoint_is_saved(page: Page, folder: Path) -> None:
    page.settled()
    lines = page.root.locator("pre.modtf-code").first.inner_text()
    assert "modular = modtf.load('pocket')" in lines and "area[city centre]" in lines
    name = page.root.get_by_label("folder")
    name.fill("../elsewhere")
    name.press("Enter")
    page.button("save this checkpoint").click()
    page.root.locator(".modtf-problem", has_text="not a valid folder name").wait_for()
    name.fill(f"small-{page.where}")
    name.press("Enter")
    page.button("save this checkpoint").click()
    page.root.locator(".modtf-where").wait_for()
    saved = folder / f"small-{page.where}"
    assert page.root.locator(".modtf-where").inner_text() == str(saved)
    small = transformers.AutoModelForSeq2SeqLM.from_pretrained(saved)
    assert f"{small.config.num_layers}-{small.config.num_decoder_layers}" == page.read()["shape"]
    names: dict[str, Any] = {}
    exec(lines, names)
    assert names["text"] == page.read()["small"], "the lines rebuild the text on the page"


def test_typed_html_is_escaped(page: Page) -> None:
    before = page.settled()
    page.page.evaluate("window.broken = false")
    evil = "<img src=x onerror='window.broken=true'>"
    name = page.root.get_by_label("name", exact=True)
    name.fill(evil)
    name.press("Enter")
    page.settled(before)
    assert evil in page.root.get_by_label("the same as text").input_value()
    page.button("sweep").click()
    page.page.wait_for_function("() => document.querySelectorAll('.modtf-sweep tbody tr').length === 21")
    field = page.root.get_by_label("the same as text")
    field.fill(f"name[{evil}], area[{evil}]")
    field.press("Enter")
    page.root.locator(".modtf-problem").wait_for()
    assert "<img" in page.root.locator(".modtf-problem").inner_text(), "shown as it was typed"
    assert page.root.locator("img").count() == 0
    assert not page.page.evaluate("window.broken")
    before = int(page.root.locator(".modtf-result").get_attribute("data-generation"))
    field.fill("name[Zizzi]")
    field.press("Enter")
    page.settled(before)


def test_several_explorers_do_not_interfere(page: Page, browser: Any, address: str) -> None:
    """Two explorers in one notebook, or two users of one server, are independent."""
    before = page.read()
    if page.where == "lab":
        other, tab = Page(page.page, "lab", 1), None
    else:
        tab = browser.new_context(viewport={"width": 900, "height": 1240}).new_page()
        tab.set_default_timeout(SECONDS * 1000)
        tab.goto(address)
        other = Page(tab, "voila")
        other.settled()
    other.choose(E2E.label)
    assert "The Plough" in other.read()["full"] and "2.00×" in other.read()["title"]
    other.slide("ratio", 2)
    page.button("measure this assembly").click()
    other.shows("2.40×")
    page.root.locator(".modtf-measured, .modtf-note", has_text=re.compile("Measured here|texts")).first.wait_for()
    after = page.read()
    assert (after["full"], after["title"], after["shape"]) == (before["full"], before["title"], before["shape"])
    assert other.root.locator(".modtf-measured").count() == 0
    if tab is not None:
        tab.goto("about:blank")
        tab.context.close()


# -- the course, in JupyterLab -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab's address, with %s for the notebook's name; set to render cells that are out of view, too."""
    folder = tmp_path_factory.mktemp("course")
    for name in ("0_quickstart.ipynb", "4_assembly.ipynb"):
        notebook = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":  # so that all outputs come from the run
                cell |= {"outputs": [], "execution_count": None}
        (folder / name).write_text(json.dumps(notebook), encoding="utf-8")
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    with in_lab(folder, "%s", JUPYTERLAB_SETTINGS_DIR=str(folder / "settings")) as address:
        yield address


@pytest.fixture
def run_all(course: str, browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A notebook of the course, opened, with all cells run."""
    tab = browser.new_page(viewport={"width": 1300, "height": 1000})
    tab.set_default_timeout(SECONDS * 1000)
    tab.goto(course % request.param + "&reset")  # otherwise the last open notebook returns
    tab.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    cells = sum(
        cell["cell_type"] == "code"
        for cell in json.loads((ROOT / "notebooks" / request.param).read_text(encoding="utf-8"))["cells"]
    )
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    tab.locator(".jp-CodeCell").last.get_by_text(f"[{cells}]:").wait_for(timeout=600_000)
    tab.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    yield tab
    tab.screenshot(path=PICTURES / f"{request.param.removesuffix('.ipynb')}.png")
    tab.goto("about:blank")
    tab.close()


@pytest.mark.slow
@pytest.mark.parametrize("run_all", ["0_quickstart.ipynb"], indirect=True)
def test_quickstart_runs_and_slides(run_all: Any) -> None:
    page = Page(run_all, "lab")
    before = page.settled()
    full = page.read()["full"]
    page.slide("ratio", 30)  # to the right end
    page.settled(before)
    page.shows("6.00×")
    last = page.read()
    assert last["full"] == full and last["shape"] == "1-1" and last["small"] != full
    assert run_all.get_by_text("✗ Exercise 0.1, not yet").count() == 1
    assert run_all.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("run_all", ["4_assembly.ipynb"], indirect=True)
def test_assembly_runs_and_slides(run_all: Any) -> None:
    text = run_all.locator(".widget-html .course-text")
    figure = run_all.locator(".modtf-curve iframe").first.content_frame.locator(".gtitle")
    text.wait_for()
    assert "2.00x, size_first: 6-6" in figure.text_content()
    assert "£30" in text.inner_text()
    handle = run_all.locator(".widget-hslider:has(label:text-is('ratio'))").locator(".noUi-handle, .ui-slider-handle")
    handle.focus()
    for _ in range(12):
        handle.press("ArrowRight")
    figure.get_by_text("6.00x, size_first: 2-2").wait_for()
    run_all.wait_for_function(
        "!document.querySelector('.widget-html .course-text').innerText.includes('£30')"
    )  # what 6x forgets
    assert text.inner_text().startswith("The Plough is a pub")
