"""The site, made by Sphinx from the texts and notebooks where they lie: `make site`. Nothing is run, nothing is fetched."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(ROOT))  # this checkout, wherever another one is installed
import modtf  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["repository"]

project = PROJECT["name"]
author = PROJECT["authors"][0]["name"]
copyright = author
release = PROJECT["version"]

# The source folder is the repository itself, so a link that works on GitHub works here.
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.md", "notebooks/*.ipynb", "benchmarks/*.md", "data/*/*.md"]
exclude_patterns = [".*", "**/.*", "build", "dist"]

extensions = ["myst_nb", "sphinx.ext.autodoc"]
nitpicky = True
# Other projects' types in signatures; their pages are on the net.
nitpick_ignore_regex = [("py:.*", r"(collections|huggingface_hub|ipywidgets|pathlib|torch|transformers)\..*")]

nb_execution_mode = "off"
myst_heading_anchors = 3  # as on GitHub
myst_enable_extensions = ["dollarmath"]
# Pygments takes the backslash in a cell's shell command for an error, and colours the cell all the same.
suppress_warnings = ["misc.highlighting_failure"]

smartquotes = False
pygments_style, pygments_dark_style = "friendly", "github-dark"
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]  # the address of the site leads to docs/index.html
html_show_sourcelink = html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": ""}


class LinkToRepository(SphinxTransform):
    """A link to a file that is no page leads to the repository."""

    default_priority = 100

    def apply(self, **_: Any) -> None:
        for link in list(self.document.findall(addnodes.download_reference)):
            path, _ = self.env.relfn2path(link["reftarget"])
            link.replace_self(nodes.reference("", "", *link.children, refuri=f"{REPOSITORY}/blob/main/{path}"))


def resolve(app: Sphinx, env: Any, link: Any, text: nodes.Node) -> nodes.reference | None:
    """A name in a docstring that has no entry of its own: a public name, or one that the reader finds in its file."""
    if link.get("refdomain") != "py":
        return None
    target, public = link["reftarget"], f"modtf.{link['reftarget']}"
    python = env.domains.python_domain
    if public in python.objects:
        return python.resolve_xref(env, link["refdoc"], app.builder, link["reftype"], public, link, text)
    known = {path: module for path, module in sys.modules.items() if path.partition(".")[0] == "modtf"}
    place, _, name = target.rpartition(".")
    places = [place] if place else [link.get("py:module"), *sorted(known)]
    homes = (
        getattr(getattr(known[path], name), "__module__", path) for path in places if hasattr(known.get(path), name)
    )
    module = known.get(target) or known.get(next(homes, ""))
    if module is None:
        return None
    file = Path(str(module.__file__)).relative_to(ROOT).as_posix()
    return nodes.reference("", "", text, refuri=f"{REPOSITORY}/blob/main/{file}")


def describe_options(app: Sphinx, what: str, name: str, one: Any, options: Any, lines: list[str]) -> None:
    """The fields of a training's arguments, with the words of ``--help``."""
    if name == "modtf.ModularTrainingArguments":
        for field in dataclasses.fields(one):
            if field.name in vars(one)["__annotations__"]:
                lines += [f"* ``{field.name}`` (``{field.default!r}``): {field.metadata['help']}"]


def prepare(app: Sphinx, page: str, source: list[str]) -> None:
    """The badge for Colab, a picture from the net, becomes words; figures get their alternative texts.

    The cell that installs modtf on Colab is left out: it is the same everywhere, and says nothing to a reader.
    """
    badge = "![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)"
    source[0] = source[0].replace(badge, "Open in Colab")
    if app.env.doc2path(page).suffix == ".ipynb":
        notebook = json.loads(source[0])
        notebook["cells"] = [cell for cell in notebook["cells"] if "install" not in cell["metadata"].get("tags", [])]
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                output.get("data", {}).pop("application/vnd.plotly.v1+json", None)  # the PNG beside it needs no script
                if figure := output.get("metadata", {}).get("image/png"):
                    cell["metadata"]["mystnb"] = {"image": {"alt": figure["alt"]}}
        source[0] = json.dumps(notebook)


def write_math(writer: Any, node: Any) -> None:
    """MathML, which browsers draw by themselves."""
    writer.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    for name in modtf.__all__:
        getattr(modtf, name)  # loads its module
    app.add_transform(LinkToRepository)
    app.connect("source-read", prepare)
    app.connect("autodoc-process-docstring", describe_options)
    app.connect("missing-reference", resolve)
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
