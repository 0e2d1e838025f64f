"""The site: it is built without a warning, is whole, leads nowhere that is not there, and asks nothing of the net."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

import modtf

for module in ("sphinx", "myst_nb", "furo"):
    pytest.importorskip(
        module, reason="Sphinx and its theme are not installed; the site was not built: pip install 'modtf[site]'"
    )

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]_*.ipynb"))
PATTERNS = ("*.md", "docs/*.md", "notebooks/*.md", "notebooks/[0-9]_*.ipynb", "benchmarks/*.md", "data/*/*.md")
SOURCES = [path.relative_to(ROOT) for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
REPOSITORY = "https://github.com/modtf/modtf/blob/main/"


class Page(HTMLParser):
    """The text, the anchors, the links of a page, what a browser loads with it, and its pictures' alternative texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.pictures: set[str] = set()
        self._texts: list[str] = []
        self.feed(html)
        self.text = " ".join("".join(self._texts).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if "src" in given or "srcset" in given or (tag == "link" and "href" in given):
            self.loads.add(given.get("src") or given.get("srcset") or given["href"])
        if tag == "img":
            self.pictures.add(given.get("alt", ""))

    def handle_data(self, data: str) -> None:
        self._texts.append(data)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-M", "html", str(ROOT), str(folder), "--conf-dir", str(ROOT / "docs")]
    run = subprocess.run(
        [*command, "--quiet", "--fail-on-warning", "--keep-going"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    return folder / "html"


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(built.rglob("*.html"))}


def test_every_text_has_a_page(built: Path, pages: dict[Path, Page]) -> None:
    assert len(NOTEBOOKS) == 8
    expected = {built / path.with_suffix(".html") for path in SOURCES}
    assert set(pages) == expected | {built / name for name in ("index.html", "genindex.html", "search.html")}
    front = built / "docs" / "index.html"
    linked = {(front.parent / urlsplit(link).path).resolve() for link in pages[front].links}
    assert expected - linked == {front}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_stores(notebook: Path, built: Path, pages: dict[Path, Page]) -> None:
    """Outputs word by word, figures as pictures with their alternative texts."""
    page = pages[built / "notebooks" / f"{notebook.stem}.html"]
    outputs = [
        output
        for cell in nbformat.read(notebook, as_version=4).cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in outputs
        if "image/png" not in output.get("data", {})
    ]
    assert [text for text in texts if " ".join(text.split()) not in page.text] == []
    figures = {output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})}
    assert figures and figures <= page.pictures


def test_formulas_need_no_script(built: Path) -> None:
    assert "<mfrac>" in (built / "notebooks" / "5_quality_and_speed.html").read_text(encoding="utf-8")


def broken(path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    for link in page.links | page.loads:
        address = urlsplit(link)
        if link.startswith(REPOSITORY):
            if not (ROOT / unquote(address.path.partition("/blob/main/")[2])).exists():
                yield link
        elif not address.scheme:
            there = (path.parent / unquote(address.path)).resolve() if address.path else path
            anchors = pages[there].anchors if there in pages else set()
            if not there.is_file() or (address.fragment and unquote(address.fragment) not in anchors):
                yield link


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    found = {str(path): sorted(broken(path, page, pages)) for path, page in pages.items()}
    assert {path: links for path, links in found.items() if links} == {}


def test_links_of_texts_stay_on_the_site(built: Path, pages: dict[Path, Page]) -> None:
    """Those of a text to another one and to a heading; those to the code go to the repository."""
    links = pages[built / "notebooks" / "4_assembly.html"].links
    assert {"../README.html#use", "README.html#glossary", f"{REPOSITORY}modtf/decoding/loop.py"} <= links
    to_texts = {REPOSITORY + path.as_posix() for path in SOURCES}
    assert {link for page in pages.values() for link in page.links} & to_texts == set()


def test_nothing_is_loaded_from_the_net(built: Path, pages: dict[Path, Page]) -> None:
    assert {load for page in pages.values() for load in page.loads if urlsplit(load).netloc} == set()
    for sheet in built.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.findall(r"@import|url\(\s*[\"']?(?:https?:)?//", text), sheet.name


def test_the_site_can_be_searched(built: Path, pages: dict[Path, Page]) -> None:
    index = (built / "searchindex.js").read_text(encoding="utf-8")
    assert index.startswith("Search.setIndex(") and '"granular"' in index
    for path in NOTEBOOKS:
        assert f'"notebooks/{path.stem}"' in index
    assert "_static/searchtools.js" in {load.partition("?")[0] for load in pages[built / "search.html"].loads}


def test_the_public_names_are_documented(built: Path, pages: dict[Path, Page]) -> None:
    page = pages[built / "docs" / "api.html"]
    assert {f"modtf.{name}" for name in modtf.__all__} <= page.anchors
    for words in (
        "Load a modular model:",
        "Bad input: the message says what was given",
        "labels_weight (0.0): Weight of the cross-entropy",
    ):
        assert words in page.text
