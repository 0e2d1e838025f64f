"""Build the notebooks: run each `.py` source and store its outputs in the `.ipynb` beside it.

    python notebooks/build.py         # all; `make notebooks` does this
    python notebooks/build.py 2 3     # some, by their numbers

What is the same everywhere is written here: links, the badge, the cell that installs modtf on Colab (both from the
project's address in pyproject.toml), the minutes that a run took, and the index in README.md. Needs Chromium, for the
figures' PNG copies and the pictures of controls (controls.py).
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import controls
import jupytext
import nbformat

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("[0-9]_*.py"))
REPOSITORY = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["repository"]

#: How fast people are, for the index; the minutes of a run are measured.
WORDS_A_MINUTE, MINUTES_AN_EXERCISE = 200, 5

INSTALL = f"""import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet {REPOSITORY}/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="of the notebooks to build; all where none are given")
    numbers = parser.parse_args().numbers
    controls.chromium()
    os.environ.update(PLOTLY_RENDERER="plotly_mimetype+png", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", OMP_NUM_THREADS="1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for source in SOURCES:
        if not numbers or source.name[0] in numbers:
            print(source.stem, end=" ", flush=True)
            print(f"{build(source):.0f} s", flush=True)
    write_index()


def build(source: Path) -> float:
    """Run one notebook and write both of its files; the seconds that the run took."""
    notebook = read(source)
    seconds = controls.run(notebook, FOLDER)
    write_frame(notebook, source, seconds)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # Now and then the library that draws the PNG copies logs that it could not read a message of its browser's.
            cell.outputs = [output for output in cell.outputs if "JSONError decoding message. Ignoring" not in output.get("text", "")]
            if errors := [output.text for output in cell.outputs if output.get("name") == "stderr"]:
                raise SystemExit(f"{source.name} was not written; run it again if this is no fault of {cell.id}: {errors[0]}")
            cell.outputs = [tidied(output) for output in cell.outputs]
            cell.metadata.pop("execution", None)
    jupytext.write(notebook, source, fmt="py:percent")
    nbformat.write(notebook, source.with_suffix(".ipynb"))
    return seconds


def read(source: Path) -> Any:
    """A notebook from its source, with the metadata and cell ids that make it the same whenever it is built."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "jupytext": {"notebook_metadata_filter": "-all", "cell_metadata_filter": "tags,-all"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
    write_frame(notebook, source, minutes_of(notebook) * 60)
    return notebook


def write_frame(notebook: Any, source: Path, seconds: float) -> None:
    """Write the first cell's line of links and minutes, the cell that installs, and the last cell's links."""
    place = SOURCES.index(source)
    unread = r"<details>.*?</details>|<!-- (header|footer) -->.*?<!-- end of"
    words = sum(len(re.sub(unread, "", cell.source, flags=re.DOTALL).split()) for cell in notebook.cells)
    reading = words / WORDS_A_MINUTE + MINUTES_AN_EXERCISE * exercises_of(notebook)
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    address = (
        f"{REPOSITORY.replace('https://github.com', 'https://colab.research.google.com/github')}/blob/main/notebooks/{source.stem}.ipynb"
    )
    minutes = max(0.5, math.ceil(2 * seconds / 60) / 2)
    header = (
        f"[![Open in Colab]({badge})]({address}) · runs in {minutes:g} minute{'s' * (minutes > 1)} on two CPU cores · "
        f"about {5 * round((reading + minutes) / 5):.0f} minutes to work through"
    )
    links = [f"[← {title(SOURCES[place - 1])}]({SOURCES[place - 1].stem}.ipynb)"] if place else []
    links += ["[index](README.md)", "[glossary](README.md#glossary)"]
    links += [f"[{title(SOURCES[place + 1])} →]({SOURCES[place + 1].stem}.ipynb)"] if place + 1 < len(SOURCES) else []
    first, last = notebook.cells[0], notebook.cells[-1]
    first.source = between(first.source, "header", header + "\n\n" + " · ".join(links))
    last.source = between(last.source, "footer", " · ".join(links))
    (install,) = [cell for cell in notebook.cells if "install" in cell.metadata.get("tags", [])]
    install.source = INSTALL


def between(text: str, name: str, inside: str) -> str:
    """The text with what stands between ``<!-- name -->`` and ``<!-- end of name -->`` replaced."""
    found, count = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", lambda match: f"{match[1]}{inside}\n{match[2]}", text, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(
            f"one place for the {name} is needed (<!-- {name} --> and <!-- end of {name} --> on lines of their own), found {count}"
        )
    return found


def title(source: Path) -> str:
    """``1 · Layer mapping``: the first heading."""
    return re.search(r"^# # (.+)$", source.read_text(encoding="utf-8"), re.MULTILINE)[1]  # type: ignore[index]


def minutes_of(notebook: Any) -> float:
    """Those that its header says, 0 where it has none yet."""
    found = re.search(r"runs in ([\d.]+) minute", notebook.cells[0].source)
    return float(found[1]) if found else 0


def exercises_of(notebook: Any) -> int:
    return sum("exercise" in cell.metadata.get("tags", []) for cell in notebook.cells)


def tidied(output: Any) -> Any:
    """An output as it is stored: figures with their alternative text."""
    figure = output.get("data", {}).get("application/vnd.plotly.v1+json")
    if figure:
        figure.get("config", {}).pop("plotlyServerURL", None)
        output.data.pop("text/html", None)
        output.metadata["image/png"] = {"alt": figure["layout"]["meta"]["alt"]}
    return output


def write_index() -> None:
    """The table of notebooks in README.md."""
    lines = ["| notebook | runs in | with reading and exercises | exercises | open |", "|---|---|---|---|---|"]
    for source in SOURCES:
        notebook = jupytext.read(source, fmt="py:percent")
        header = notebook.cells[0].source
        found = re.search(r"(\[!\[Open in Colab\].*?\)\]\(.*?\)) · runs in ([\d.]+ minutes?).*about (\d+ minutes)", header)
        if found is None:  # not built yet
            continue
        badge, runs, works = found.groups()
        lines.append(f"| [{title(source)}]({source.stem}.ipynb) | {runs} | {works} | {exercises_of(notebook)} | {badge} |")
    index = FOLDER / "README.md"
    index.write_text(between(index.read_text(encoding="utf-8"), "index", "\n".join(lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
