"""Pictures of the notebooks' controls in use, for those who read a notebook and do not run it.

A notebook runs as usual. Then JupyterLab shows its widgets in a headless Chromium, with the kernel that made them still
alive, so that they answer: an explorer is slid, shows its scores and races, a figure that grew while its cell ran grows
once more, and of other controls the first one is moved, so who writes a cell chooses by their order. Animations are PNG
files, too (APNG): wherever a stored PNG is shown, they are, and it is the only picture that GitHub, JupyterLab, Colab
and the site all show.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbformat.sign import NotebookNotary

VIEW = "application/vnd.jupyter.widget-view+json"
#: What a page shows that shows no pictures.
WORDS = "(Controls to play with: they appear when you run this cell.)"
#: Inside, an output is as wide as the page is, less JupyterLab's margins.
WIDTH, HEIGHT = 1070, 3000
#: How much of an explorer is seen at once: controls and texts, or a race with what stands above it.
SCENE = 800
#: A label may begin left of its widget.
MARGIN = 8
COLOURS = 128
#: Milliseconds between two pictures of a race, and for how long others stand.
STEP, STAND, END = 250, 1400, 3000
#: As many pictures as a race or a growing figure has at most.
FRAMES = 12
SECONDS = 180

#: What the controls are called and where they stand, from the widgets on the page.
READ = """view => Array.from(view.querySelectorAll('.widget-inline-hbox, .widget-toggle-buttons')).map(box => {
    // The label of a checkbox stands beside it, and in the usual place an invisible character.
    const text = query => box.querySelector(query)?.innerText.replace(/\\u200b/g, '').trim();
    const name = text('.widget-label') || text('.widget-label-basic');
    const tick = box.querySelector('input[type=checkbox]');
    const value = box.querySelector('.widget-readout')?.innerText.trim()
        || box.querySelector('.widget-toggle-button.mod-active, .jupyter-button.mod-active')?.innerText.trim()
        || box.querySelector('select')?.selectedOptions[0]?.innerText.trim()
        || (tick ? (tick.checked ? 'yes' : 'no') : box.querySelector('input, textarea')?.value);
    return [name || '', value || ''];
}).filter(([name, value]) => name || value)"""

#: The alternative text or else the titles of the figure, and the words beside it.
DESCRIBE = """view => {
    const text = view.querySelector('.modtf-figure')?.textContent;
    const words = Array.from(view.querySelectorAll('.widget-html-content')).filter(one => one.offsetHeight
        && !one.querySelector('iframe, .modtf-figure')).map(one => one.innerText).join(' ');
    if (!text) return words;
    const layout = JSON.parse(text).layout;
    const titles = [layout.title?.text, ...(layout.annotations ?? []).map(one => one.text)].filter(Boolean);
    return `${layout.meta?.alt || titles.join('; ')} ${words}`;
}"""


#: What can be moved; a text only where it has a placeholder (ipywidgets writes an invisible one).
MOVED = """.noUi-handle, .widget-toggle-buttons button:not(.mod-active), select,
:is(input[type=text], textarea)[placeholder]:not([placeholder="\u200b"], [placeholder=""])"""

#: Puts contents into the HTML widgets; not into frames, which stay as they are.
REPLAY = """(view, contents) => Array.from(view.querySelectorAll('.widget-html-content')).forEach((one, number) => {
    if (!one.querySelector('iframe')) one.innerHTML = contents[number];
})"""


def chromium() -> str:
    """The browser. Ends the program with what to do where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        sys.exit("The pictures of figures and controls need Chromium, which was not found. On Debian: apt install chromium")
    return found


class Recorder(NotebookClient):
    """Runs a notebook, and remembers what its HTML widgets showed meanwhile."""

    def __init__(self, notebook: Any, **settings: Any) -> None:
        super().__init__(notebook, **settings)
        self.shown: list[tuple[str, str]] = []  # widget and content, in the order of time

    def handle_comm_msg(self, outs: Any, msg: Any, cell_index: int) -> None:
        super().handle_comm_msg(outs, msg, cell_index)
        widget = msg["content"]["comm_id"]
        value = msg["content"]["data"].get("state", {}).get("value")
        if self.widget_state.get(widget, {}).get("_model_name") == "HTMLModel" and value is not None:
            self.shown.append((widget, value))

    def frames(self, view: str) -> list[list[str]]:
        """The contents of all HTML widgets in a view, each time that the one that changes most often has changed."""
        inside = self.inside(view)
        changes = Counter(widget for widget, value in self.shown if widget in inside and value)
        clock = max(reversed(inside), key=changes.__getitem__, default=None)  # a figure follows the words above it
        now, frames = dict.fromkeys(inside, ""), []
        for widget, value in self.shown:
            if widget in now:
                now[widget] = value
                if widget == clock and value:
                    frames.append(list(now.values()))
        return frames

    def inside(self, view: str) -> list[str]:
        """The HTML widgets of a view, from top to bottom."""
        state = self.widget_state.get(view, {})
        below = [self.inside(child.removeprefix("IPY_MODEL_")) for child in state.get("children", [])]
        return [view] * (state.get("_model_name") == "HTMLModel") + list(itertools.chain(*below))


def run(notebook: Any, folder: Path) -> float:
    """Run a notebook in its folder, and put pictures in the place of its widgets; the seconds that the run took."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for folder_of in ("kernels", "data"):
            (place / folder_of).mkdir()
        kernel = AsyncKernelManager(kernel_name="python3", connection_file=str(place / "kernels" / "kernel.json"))
        if os.name != "nt":
            kernel.transport, kernel.ip = "ipc", str(place / "kernel")  # no open port
        client = Recorder(
            notebook,
            km=kernel,
            timeout=900,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            begun = time.perf_counter()
            client.execute()
            seconds = time.perf_counter() - begun
            notebook.metadata.pop("widgets", None)
            outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
            views = [output for output in outputs if VIEW in output.get("data", {})]
            if views:
                with opened(views, place) as tab:
                    taken = [
                        Camera(tab, tab.locator(".jp-CodeCell").nth(number)).take(client.frames(view.data[VIEW]["model_id"]))
                        for number, view in enumerate(views)
                    ]
                store(notebook, views, taken)
            return seconds
        finally:
            run_sync(kernel.shutdown_kernel)(now=True)


def store(notebook: Any, views: Sequence[Any], taken: Sequence[tuple[bytes, str, str]]) -> None:
    """Put pictures in the place of widgets: each is a PNG, its alternative text, and the words to go below it."""
    pictures = {id(view): picture for view, picture in zip(views, taken, strict=True)}
    for cell in notebook.cells:
        outputs = []
        for output in cell.get("outputs", []):
            outputs.append(output)
            if id(output) in pictures:
                png, alt, words = pictures[id(output)]
                picture = base64.b64encode(png).decode() + "\n"
                output.data = nbformat.from_dict({"image/png": picture, "text/plain": WORDS})
                output.metadata = nbformat.from_dict({"image/png": {"alt": alt}})
                below = {"text/markdown": re.sub(r"([\\`*_\[\]])", r"\\\1", words), "text/plain": words}
                outputs.append(nbformat.v4.new_output("display_data", below))
        if cell.cell_type == "code":
            cell.outputs = outputs


@contextmanager
def opened(views: Sequence[Any], place: Path) -> Iterator[Any]:
    """A tab in which JupyterLab shows these outputs, one to a cell, with the kernel whose file is in ``place/kernels``."""
    from playwright.sync_api import sync_playwright

    page = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(outputs=[view]) for view in views],
        metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    )
    nbformat.write(page, place / "views.ipynb")
    NotebookNotary(data_dir=str(place / "data")).sign(page)  # widgets are shown only where a notebook is trusted
    for name, setting in (
        ("notebook-extension/tracker", '{"windowingMode": "none"}'),  # render what is out of view, too
        ("apputils-extension/notification", '{"fetchNews": "false"}'),
    ):
        file = place / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(setting)
    with served(place) as (address, token):
        kernel = ask(f"{address}/api/kernels", token)[0]["id"]
        session = {"path": "views.ipynb", "name": "views.ipynb", "type": "notebook", "kernel": {"id": kernel}}
        ask(f"{address}/api/sessions", token, session)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
            tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            tab.set_default_timeout(SECONDS * 1000)
            tab.goto(f"{address}/doc/tree/views.ipynb?token={token}")
            for number in range(len(views)):
                tab.locator(".jp-CodeCell").nth(number).locator(".jupyter-widgets").first.wait_for()
            yield tab
            browser.close()


@contextmanager
def served(place: Path) -> Iterator[tuple[str, str]]:
    """JupyterLab with nobody's settings, and the kernel that runs already: its address and token."""
    token = secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root",
        f"--ServerApp.root_dir={place}", f"--IdentityProvider.token={token}",
        "--ServerApp.allow_external_kernels=True", f"--ServerApp.external_connection_dir={place / 'kernels'}",
        # The state of all widgets comes at once; their frames hold plotly.
        "--ZMQChannelsWebsocketConnection.iopub_data_rate_limit=0",
        f"--LabServerApp.user_settings_dir={place / 'settings'}", f"--LabServerApp.workspaces_dir={place}",
    ]  # fmt: skip
    own = {f"JUPYTER_{name}_DIR": str(place / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | own) as server:
        assert server.stderr is not None
        try:
            found = next((f for line in server.stderr if (f := re.search(r"(http://127\.0\.0\.1:\d+)/lab\?token", line))), None)
            if found is None:
                sys.exit("JupyterLab, which shows the controls, did not start.")
            threading.Thread(target=server.stderr.read, daemon=True).start()  # or it waits for us to read
            yield found[1], token
        finally:
            server.terminate()


def ask(address: str, token: str, given: Any = None) -> Any:
    """What the server answers; with something given, it is a POST."""
    body = None if given is None else json.dumps(given).encode()
    headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
    for attempt in range(50):  # it prints its address before it listens
        try:
            with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=60) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            if attempt == 49:
                raise
            time.sleep(0.2)


class Camera:
    """Uses the widget that a cell of JupyterLab shows, and takes pictures of it."""

    def __init__(self, tab: Any, cell: Any) -> None:
        self.tab, self.view = tab, cell.locator(".jp-OutputArea-output .jupyter-widgets").first
        self.frames: list[bytes] = []
        self.stand: list[int] = []  # milliseconds

    def take(self, shown: Sequence[list[str]]) -> tuple[bytes, str, str]:
        """A PNG, its alternative text, and words to go below it. ``shown`` are the HTML widgets' contents while its cell ran."""
        self.view.scroll_into_view_if_needed()
        self.still()
        if self.view.locator(".modtf-ratio").count():
            return self.explorer()
        return self.growing(shown) if len(shown) > 2 else self.controls()

    def controls(self) -> tuple[bytes, str, str]:
        self.move()
        if self.view.locator("[role=alert]").count():
            self.move(back=True)
        named = self.view.evaluate(READ)
        values = ", ".join(" = ".join(filter(None, pair)) for pair in named).rstrip(".")
        told = " ".join(self.view.evaluate(DESCRIBE).split())
        names = [name for name, _ in named if name]
        if not 0 < len(names) == len(named) <= 3:
            names = ["these controls"]
        listed = ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]
        be = "is" if len(named) == 1 and named[0][0] else "are"
        words = f"A picture of the controls in use. When you run this cell, {listed} {be} yours to change."
        return encoded([self.still()]), shortened(f"Controls in use, set to {values}. They show: {told}"), words

    def growing(self, shown: Sequence[list[str]]) -> tuple[bytes, str, str]:
        for contents in spread(shown):
            self.view.evaluate(REPLAY, contents)
            self.snap(self.still(), 2 * STEP)
        self.stand[-1] = END
        frame = self.view.locator("iframe")
        name = frame.first.get_attribute("title") if frame.count() else "output"
        told = " ".join(self.view.evaluate(DESCRIBE).split())
        alt = f"A recording of the {name} as it grew while the cell ran, and then stood still. At its end: {told}"
        words = f"A recording of the {name}. When you run this cell, it grows before your eyes."
        return encoded(self.frames, self.stand), shortened(alt), words

    def explorer(self) -> tuple[bytes, str, str]:
        """The ratio slides to the right end, with a stop on its way; then both models race."""
        top = self.view.bounding_box()
        handle = self.view.locator(".modtf-ratio .noUi-handle").first
        if not self.view.locator(".modtf-result").count():  # it waits for a text
            self.move()
        show = self.view.get_by_role("button", name="show the scores")
        quiet = show.count() > 0
        stand = 2 * STAND if quiet else STAND  # where nothing is marked, readers have to compare the texts
        first = final = self.settled()
        self.snap(self.scene(top["y"]), stand)
        last = int(float(handle.get_attribute("aria-valuemax")))
        places = range(int(float(handle.get_attribute("aria-valuenow"))), last + 1)
        handle.focus()
        for place in places[1:]:
            handle.press("ArrowRight")
            if place in (places[len(places) // 2], last):
                final = self.settled()
                self.snap(self.scene(top["y"]), stand)
        marked = "with the words marked that differ from the full model's"
        if quiet:
            marked = "with nothing marked; then the words are marked that differ from the full model's, and scores appear"
            show.click()
            self.snap(self.scene(top["y"]), STAND)
        self.tab.wait_for_timeout(2000)  # the curve follows the texts; then nothing moves but the race
        self.view.get_by_role("button", name=re.compile(r"^\W*race$")).click()
        race = self.view.locator(".modtf-race")
        race.wait_for()
        # bounding_box() may meet the moment between two states of the race, and then gives nothing.
        y = max(top["y"], race.evaluate("one => one.getBoundingClientRect().bottom") + 30 - SCENE)
        seen = []
        while race.get_attribute("data-finished") != "true":
            seen.append(self.scene(y))
        for scene in spread(seen):
            self.snap(scene, STEP)
        self.snap(self.scene(y), END)
        alt = (
            f"A recording of the explorer. The slider goes from {first} to {final}, the blocks of both stacks become fewer, and the "
            f"small model's text changes, {marked}. Then both models race: "
            + " ".join(race.locator(".modtf-note").last.inner_text().split())
        )
        words = (
            "A recording. When you run this cell, the explorer is yours: slide, split and merge blocks, "
            "race, sweep, and type your own input."
        )
        return encoded(self.frames, self.stand), shortened(alt, 600), words

    def settled(self) -> str:
        """Wait until an explorer's texts are those of the ratio that its slider shows, and timed; gives the ratio."""
        ratio = self.view.locator(".modtf-ratio .widget-readout").inner_text()
        result = self.view.locator(".modtf-result[aria-busy=false]:not(.modtf-waiting, .modtf-stale)")
        result.locator(".modtf-small header", has_text=ratio).wait_for()
        result.get_by_text("median of").wait_for(state="attached")  # its first time may have met a busy browser; quiet ones hide it
        self.tab.wait_for_timeout(300)
        return str(ratio)

    def scene(self, y: float, height: float = SCENE) -> bytes:
        box = self.view.bounding_box()
        clip = {"x": box["x"] - MARGIN, "y": y, "width": box["width"] + MARGIN, "height": height}
        return bytes(self.tab.screenshot(clip=clip))

    def snap(self, picture: bytes, milliseconds: int) -> None:
        self.frames.append(picture)
        self.stand.append(milliseconds)

    def still(self) -> bytes:
        """A picture, once the kernel is idle and nothing moves any more."""
        before, now = b"", b"."
        while before != now:
            self.tab.wait_for_timeout(400)
            self.tab.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for()
            box = self.view.bounding_box()
            before, now = now, self.scene(box["y"], box["height"])
        return now

    def move(self, back: bool = False) -> None:
        """Move the first control: a slider by a quarter of its way, a choice to the next one, a text to its placeholder."""
        control = self.view.locator(MOVED).first
        if not control.count():
            return
        kind = control.evaluate("one => one.matches('.noUi-handle') ? 'slider' : one.localName")
        if kind == "slider":
            low, high, at = (float(control.get_attribute(f"aria-value{name}")) for name in ("min", "max", "now"))
            up = (at < high) != back
            arrow, page = ("ArrowRight", "PageUp") if up else ("ArrowLeft", "PageDown")
            control.focus()
            control.press(arrow)
            step = abs(float(control.get_attribute("aria-valuenow")) - at) or high - low
            pages, arrows = divmod(max(0, round((high - low) / 4 / step) - 1), 5)  # a page is five steps
            for key in [page] * pages + [arrow] * arrows:
                control.press(key)
        elif kind == "button":
            control.click()
        elif kind == "select":
            control.select_option(index=control.evaluate("one => (one.selectedIndex + 1) % one.options.length"))
        else:
            control.fill(control.get_attribute("placeholder"))
            control.blur()
        self.still()


def spread(items: Sequence[Any]) -> list[Any]:
    """Some of the items, evenly, with the first and the last one."""
    count = min(len(items), FRAMES)
    return [items[round(number * (len(items) - 1) / max(1, count - 1))] for number in range(count)]


def shortened(text: str, most: int = 400) -> str:
    return text if len(text) <= most else text[:most].rpartition(" ")[0] + " …"


def encoded(frames: Sequence[bytes], stand: Sequence[int] = ()) -> bytes:
    """One PNG of the most frequent colours, the same for all frames; with more than one frame it is animated.

    Of a later frame only what has changed is stored; the rest is transparent, so that the one before it shows through.
    """
    import numpy as np
    from PIL import Image

    pictures = [Image.open(io.BytesIO(frame)).convert("RGB") for frame in frames]
    width, height = (max(sizes) for sizes in zip(*(picture.size for picture in pictures), strict=True))
    strip = Image.new("RGB", (width, height * len(pictures)), "white")
    for number, picture in enumerate(pictures):
        strip.paste(picture, (0, number * height))
    found = sorted(strip.getcolors(strip.width * strip.height), reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette(bytes(value for _, colour in found for value in colour))
    near = np.asarray(strip.quantize(palette=palette, dither=Image.Dither.NONE))
    # Pillow finds a colour that is near. One that is in the palette shall stay as it is, white above all.
    places = np.full(1 << 24, -1, np.int16)
    for place, (_, (red, green, blue)) in enumerate(found):
        places[red << 16 | green << 8 | blue] = place
    exact = places[np.asarray(strip).astype(np.int32) @ (1 << 16, 1 << 8, 1)]
    indices = np.where(exact < 0, near, exact).astype(np.uint8).reshape(-1, height, width)
    clear = len(found)
    for number in range(len(pictures) - 1, 0, -1):
        indices[number][indices[number] == indices[number - 1]] = clear
    made = [Image.fromarray(frame).convert("P") for frame in indices]
    for picture in made:
        picture.putpalette(palette.getpalette()[: 3 * clear] + [255] * 3)
        picture.info["transparency"] = clear
    file = io.BytesIO()
    animation = {"append_images": made[1:], "duration": list(stand), "loop": 0, "disposal": 0, "blend": 1}
    if len(made) == 1:
        del made[0].info["transparency"]
    made[0].save(file, "PNG", optimize=True, **(animation | {"save_all": True} if len(made) > 1 else {}))
    return file.getvalue()
