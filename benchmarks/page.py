"""How long a person waits for the first look at the page, and where the time goes, beside `import torch`.

    python benchmarks/page.py [--repeats 3] [--pause 20]     # the table; --write puts it into README.md
    python benchmarks/page.py --against ../another-checkout  # both checkouts in turns, such as before and after a change
    python benchmarks/page.py --parts                        # instead: where the time goes

Each time is the median of its repeats, with the lowest and the highest. Times differ between machines and hours; their
ratios to `import torch` in the same run differ less. The page opens in headless Chromium, by whose clock the words and
texts are timed from the click on. The first opening comes right after the address; before each other one the server
rests for --pause seconds. A new browser has nothing in its cache.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pages import insert
from table import cpu_name

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "modtf.cli"]
TORCH = "`import torch`"
#: The rows of README's table.
SHOWN = (
    TORCH, "`modtf --help`", "`modtf demo`: address answers", "first opening: words", "first opening: the first texts",
    "first opening: the controls", "later, in a new browser: the first texts", "later, in a new browser: the controls",
)  # fmt: skip

#: Notes when words and the first text are there to be seen.
WATCH = """
window.first = {};
const watch = setInterval(() => {
    const seen = query => Array.from(document.querySelectorAll(query)).some(one => one.innerText.trim());
    if (!window.first.word && document.body && seen('body')) window.first.word = performance.now();
    if (!window.first.text && seen('.modtf-small .modtf-text')) window.first.text = performance.now();
    if (seen('.modtf-result .modtf-small .modtf-text')) {
        window.first.widgets = performance.now();
        clearInterval(watch);
    }
}, 20);
"""

#: The kernel's work until the first text, in laps.
PARTS = """
import time
began = time.perf_counter()
def lap(what):
    global began
    print(f"{time.perf_counter() - began:8.2f} s  {what}", flush=True)
    began = time.perf_counter()
import ipykernel.kernelapp
lap("imports: ipykernel")
import torch
lap("imports: torch")
from transformers import AutoModelForSeq2SeqLM
lap("imports: transformers, with AutoModelForSeq2SeqLM")
import modtf.modular
lap("imports: modtf.modular")
import modtf.views.explorer
lap("imports: modtf.views.explorer")
modular = modtf.load("translator")
lap("weights")
explorer = modtf.views.explorer.Explorer(modular)
lap("widgets")
explorer.controller.wait()
lap("first text, and the figure after it")
explorer.controller.close()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--pause", type=float, default=20, help="seconds before an opening (default %(default)s)")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="measured in turns with this one")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    checkouts = {"": ROOT} if options.against is None else {"before": options.against.resolve(), "after": ROOT}
    for name, folder in checkouts.items():
        os.environ["PYTHONPATH"] = str(folder)
        if options.parts:
            print(name)
            parts()
    if not options.parts:
        times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in checkouts}
        for _ in range(options.repeats):
            for name, folder in checkouts.items():
                os.environ["PYTHONPATH"] = str(folder)
                measure(times[name], options.pause)
        for name in checkouts:
            print(f"\n{name}\n" if name else "", table(times[name]), sep="")
        if options.write:
            about = f"Medians of {options.repeats} runs, headless Chromium on the same machine: {cpu_name()}, {os.cpu_count()} cores."
            shown = {what: seconds for what, seconds in times[name].items() if what in SHOWN}
            insert(ROOT / "README.md", "benchmarks/page.py", f"{table(shown)}\n\n{about}\n")


def measure(times: dict[str, list[float]], pause: float) -> None:
    """Measure everything once."""
    python = [sys.executable, "-c"]
    for what, command in {
        TORCH: [*python, "import torch"],
        "`import modtf`": [*python, "import modtf"],
        "`modtf --help`": [*COMMAND, "--help"],
    }.items():
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times[what].append(time.perf_counter() - began)
    with browser() as chromium, served() as (address, printed, answered):
        times["`modtf demo`: address printed"].append(printed)
        times["`modtf demo`: address answers"].append(answered)
        opened(chromium.new_context(), address, times, "first opening")
        for _ in range(2):
            visitor = chromium.new_context()
            for what in ("later, in a new browser", "later, in the same browser"):
                time.sleep(pause)
                opened(visitor, address, times, what)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def served() -> Iterator[tuple[str, float, float]]:
    """Run `modtf demo`; yields its address, and the seconds until it was printed and until it answered."""
    began = time.perf_counter()
    command = [*COMMAND, "demo", "--no-browser"]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        try:
            assert server.stdout is not None
            found = re.search(r"http\S+", server.stdout.readline())
            assert found, "no address"
            printed = time.perf_counter() - began
            login = found[0].partition("?")[0] + "login"  # answers without the token, and starts no kernel
            while True:
                with contextlib.suppress(urllib.error.URLError):
                    urllib.request.urlopen(login, timeout=60).close()
                    break
                time.sleep(0.02)
            yield found[0], printed, time.perf_counter() - began
        finally:
            server.terminate()
            server.wait()


def opened(visitor: Any, address: str, times: dict[str, list[float]], what: str) -> None:
    """Open the page in a new tab, and close it once there is a text."""
    page = visitor.new_page()
    page.add_init_script(WATCH)
    page.goto(address, wait_until="commit", timeout=300_000)
    first = page.wait_for_function("() => window.first.widgets && window.first", timeout=300_000).json_value()
    for event, shown in (("words", "word"), ("the first texts", "text"), ("the controls", "widgets")):
        times[f"{what}: {event}"].append(first[shown] / 1000)
    page.goto("about:blank")  # leaving the page shuts its kernel down
    page.close()


def table(times: dict[str, list[float]]) -> str:
    torch = statistics.median(times[TORCH])
    lines = ["| | seconds (lowest to highest) | of `import torch` |", "|---|---|---|"]
    for what, seconds in times.items():
        median = statistics.median(seconds)
        lines.append(f"| {what} | {median:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {median / torch:.2f} |")
    return "\n".join(lines)


def parts() -> None:
    """Print where the time of server and kernel goes."""
    for what, module in (("the server", "voila.app"), ("the kernel", "modtf.views.explorer")):
        run = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
        said = subprocess.run(run, capture_output=True, text=True, check=True).stderr
        rows = re.findall(r"import time:\s*(\d+) \|\s*(\d+) \|\s*(\S+)", said)
        print(f"{what} imports {module}, slowest modules by their own time:")
        for own, _, name in sorted(rows, key=lambda row: -int(row[0]))[:8]:
            print(f"{int(own) / 1e6:8.2f} s  {name}")
    print("a kernel starts and answers:", flush=True)
    code = (
        "import subprocess, time\n"
        "from jupyter_client.manager import start_new_kernel\n"
        "began = time.perf_counter(); manager, client = start_new_kernel(stderr=subprocess.DEVNULL)\n"
        "print(f'{time.perf_counter() - began:8.2f} s', flush=True)\n"
        "client.stop_channels(); manager.shutdown_kernel(now=True)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    print("its work until the first text:", flush=True)
    subprocess.run([sys.executable, "-c", PARTS], check=True)


if __name__ == "__main__":
    main()
