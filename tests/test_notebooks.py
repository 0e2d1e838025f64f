"""The course: the notebooks run, are what their sources say, and can be read, linked and solved."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9]_*.py"))
#: What the course may take on two cores; a busy machine may have more.
SECONDS_EACH = float(os.environ.get("MODTF_NOTEBOOK_SECONDS", 180))
SECONDS_TOGETHER = 5 * SECONDS_EACH
#: Kernels as a test wants them: no network, one thread, no bars of progress, figures without an image engine.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PLOTLY_RENDERER": "plotly_mimetype",
}

sys.path.insert(0, str(FOLDER))  # the builder's own modules, as where it runs
_spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
assert _spec and _spec.loader
build: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)
controls: Any = build.controls

of_each = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
taken: dict[str, float] = {}


def stored(source: Path) -> Any:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def text_of(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_course_is_whole() -> None:
    assert [source.stem for source in SOURCES] == [
        "0_quickstart",
        "1_layer_mapping",
        "2_module_replacement",
        "3_distillation",
        "4_assembly",
        "5_quality_and_speed",
        "6_one_kit_or_students",
        "7_your_own_model",
    ]


# -- running -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@of_each
def test_runs_and_gives_what_is_stored(source: Path) -> None:
    """Under nbval, from top to bottom; cells tagged nbval-check-output give what is stored."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=600",
        "-p",
        "no:cacheprovider",
        "-q",
        "--tb=short",
    ]
    begun = time.perf_counter()
    try:
        run = subprocess.run(
            [*command, str(source.with_suffix(".ipynb"))],
            cwd=FOLDER,
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=SECONDS_EACH,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(
            f"{source.stem} did not end within {SECONDS_EACH:.0f} seconds: {(error.output or b'').decode()[-2000:]}"
        )
    taken[source.stem] = time.perf_counter() - begun
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert re.search(rf"\b{sum(cell.cell_type == 'code' for cell in stored(source).cells)} passed", run.stdout), (
        run.stdout[-500:]
    )


@pytest.mark.slow
def test_the_course_keeps_to_its_time() -> None:
    if len(taken) < len(SOURCES):
        pytest.skip("not all notebooks were run")
    print({name: round(seconds) for name, seconds in taken.items()})
    assert sum(taken.values()) < SECONDS_TOGETHER


@pytest.mark.slow
@of_each
def test_solutions_pass_their_checks(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every exercise replaced by its solution; what takes long is left out, so no check may need it."""
    notebook = stored(source)
    solutions = iter(
        re.findall(
            r"<summary>Solution</summary>\s*```python\n(.*?)```",
            "\n".join(cell.source for cell in notebook.cells),
            re.DOTALL,
        )
    )
    for cell in notebook.cells:
        if "exercise" in tags(cell):
            cell.source = next(solutions)
    notebook.cells = [cell for cell in notebook.cells if "long" not in tags(cell)]
    for name, value in {**ENVIRONMENT, "JUPYTER_PREFER_ENV_PATH": "1"}.items():  # for the kernel
        monkeypatch.setenv(name, value)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    said = [text_of(cell) for cell in notebook.cells if "check" in tags(cell)]
    assert next(solutions, None) is None and len(said) == build.exercises_of(stored(source))
    assert all(re.fullmatch(r"✓ Exercise \d\.\d: that is right\.\n", text) for text in said), said


# -- what is stored ----------------------------------------------------------------------------------------------------


@of_each
def test_source_and_notebook_hold_the_same_cells(source: Path) -> None:
    def cells(notebook: Any) -> list[tuple[str, str, list[str]]]:
        return [(cell.cell_type, cell.source, tags(cell)) for cell in notebook.cells]

    assert cells(jupytext.read(source, fmt="py:percent")) == cells(stored(source)), "run `make notebooks`"


@of_each
def test_every_cell_has_run_without_error(source: Path) -> None:
    notebook = stored(source)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run `make notebooks`"
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert not (output.output_type == "stream" and output.name == "stderr"), output.text
    assert "widgets" not in notebook.metadata


@of_each
def test_stored_files_are_small_and_know_no_machine(source: Path) -> None:
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert len(text.encode()) < 1_000_000
    assert "widget-view+json" not in text and "widget-state" not in text
    assert not re.findall(r"(?:/(?:home|root|tmp|work|Users)/[\w.-]+)", text)


@of_each
def test_figures_can_be_seen_anywhere_and_by_anybody(source: Path) -> None:
    """A picture for pages that run nothing, words for people who do not see it."""
    outputs = [output for cell in stored(source).cells if cell.cell_type == "code" for output in cell.outputs]
    figures = [output for output in outputs if "application/vnd.plotly.v1+json" in output.get("data", {})]
    assert figures
    for output in figures:
        assert output.data["image/png"]
        assert len(output.metadata["image/png"]["alt"].split()) >= 8


@of_each
def test_controls_can_be_seen_in_use_by_those_who_run_nothing(source: Path) -> None:
    """In the place of each widget stands a picture with its alternative text, and below it what one can do."""
    for cell in stored(source).cells:
        outputs = cell.get("outputs", [])
        places = [i for i, output in enumerate(outputs) if output.get("data", {}).get("text/plain") == controls.WORDS]
        made = re.findall(r"^(?:notebook\.play|modtf\.explore)\(", cell.source, re.MULTILINE)
        assert cell.cell_type != "code" or len(places) >= len(made), cell.id
        for i in places:
            assert outputs[i].data["image/png"], f"{cell.id}: run `make notebooks`"
            assert len(outputs[i].metadata["image/png"]["alt"].split()) >= 8
            assert "When you run this cell" in outputs[i + 1].data["text/markdown"]


def screen(colours: list[str]) -> bytes:
    """A picture of stripes."""
    image = pytest.importorskip("PIL.Image")
    picture = image.new("RGB", (90, 30 * len(colours)))
    for number, colour in enumerate(colours):
        picture.paste(colour, (0, 30 * number, 90, 30 * number + 30))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_an_animation_is_a_png_that_shows_each_frame() -> None:
    image = pytest.importorskip("PIL.Image")
    frames = [screen(["red", "white", "blue"]), screen(["red", "lime", "blue"]), screen(["red", "white", "blue"])]
    made = controls.encoded(frames, [100, 200, 300])
    with image.open(io.BytesIO(made)) as shown:
        assert (shown.format, shown.n_frames, shown.size) == ("PNG", 3, (90, 90))
        for number, frame in enumerate(frames):
            shown.seek(number)
            assert shown.info["duration"] == 100 * (number + 1)
            assert shown.convert("RGB").tobytes() == image.open(io.BytesIO(frame)).tobytes()
    with image.open(io.BytesIO(controls.encoded(frames[:1]))) as still:
        assert still.n_frames == 1 and still.mode == "P" and still.convert("RGB").getpixel((0, 89)) == (0, 0, 255)


def test_some_of_many_frames_are_kept() -> None:
    assert controls.spread([]) == [] and controls.spread([7]) == [7] and controls.spread([1, 2, 3]) == [1, 2, 3]
    some = controls.spread(range(100))
    assert len(some) == controls.FRAMES and (some[0], some[-1]) == (0, 99) and some == sorted(set(some))


def test_what_a_view_showed_while_its_cell_ran_is_remembered() -> None:
    client = controls.Recorder(nbformat.v4.new_notebook())
    client.widget_state = {
        "view": {"_model_name": "VBoxModel", "children": ["IPY_MODEL_words", "IPY_MODEL_box"]},
        "box": {"_model_name": "HBoxModel", "children": ["IPY_MODEL_figure"]},
        **{name: {"_model_name": "HTMLModel"} for name in ("words", "figure", "elsewhere")},
    }
    steps = [("words", ""), ("figure", ""), ("words", "one"), ("figure", "1"), ("elsewhere", "!"), ("words", "two")]
    client.shown = [*steps, ("figure", "2"), ("figure", "3")]
    assert client.frames("view") == [["one", "1"], ["two", "2"], ["two", "3"]]
    assert client.frames("elsewhere") == [["!"]] and client.frames("box") == [["1"], ["2"], ["3"]]


def test_a_picture_takes_the_place_of_a_widget() -> None:
    view = nbformat.v4.new_output("execute_result", {controls.VIEW: {"model_id": "a"}, "text/plain": "VBox()"})
    text = nbformat.v4.new_output("stream", text="said")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("words"), nbformat.v4.new_code_cell(outputs=[text, view, text])]
    )
    views = [notebook.cells[1].outputs[1]]
    controls.store(notebook, views, [(b"png", "what it shows", "m_(2, j) is yours")])
    kinds = [list(output.get("data", {})) for output in notebook.cells[1].outputs]
    assert kinds == [[], ["image/png", "text/plain"], ["text/markdown", "text/plain"], []]
    assert views[0].metadata == {"image/png": {"alt": "what it shows"}}
    assert notebook.cells[1].outputs[2].data["text/markdown"] == r"m\_(2, j) is yours"
    nbformat.validate(notebook)


IN_USE = """
import ipywidgets as widgets
import plotly.graph_objects as go
from modtf.views import notebook
def bar(height, colour):
    figure = go.Figure(go.Bar(y=[height], marker_color=colour)).update_layout(height=200, title=f"{height} high")
    return figure, f"<p>a {colour} bar</p>"
notebook.play(bar, height=widgets.IntSlider(2, 0, 8, description="height"), colour=widgets.Dropdown(options=["red", "blue"]))
"""
GROWING = """
canvas = notebook.Canvas("growing line")
display(canvas.widget)
for length in range(1, 6):
    canvas.draw(go.Figure(go.Scatter(y=list(range(length)))).update_layout(height=200, title="a line"))
"""
TYPED = 'notebook.play(lambda text: f"<p>{text.upper()}</p>", text=widgets.Text("one", placeholder="a few", description="text"))'


@pytest.mark.browser
def test_controls_are_moved_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("playwright")
    pytest.importorskip("jupyterlab")
    image = pytest.importorskip("PIL.Image")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no Chromium found; no picture was taken")
    for name, value in {**ENVIRONMENT, "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in (IN_USE, GROWING, TYPED)]
    )
    assert controls.run(notebook, FOLDER) > 0
    assert "widgets" not in notebook.metadata
    (moved, below), (grown, _), (typed, asked) = (cell.outputs for cell in notebook.cells)
    assert typed.metadata["image/png"]["alt"] == "Controls in use, set to text = a few. They show: A FEW"
    assert "text is yours to change" in asked.data["text/plain"]
    assert moved.metadata["image/png"]["alt"].startswith(
        "Controls in use, set to height = 4, red. They show: 4 high a red bar"
    )
    assert "these controls are yours to change" in below.data["text/plain"]
    assert "recording of the growing line" in grown.metadata["image/png"]["alt"]
    frames = [image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))) for output in (moved, grown)]
    assert [picture.n_frames for picture in frames] == [1, 5]
    assert all(700 < picture.size[0] <= 920 and picture.size[1] > 180 for picture in frames)


# -- form --------------------------------------------------------------------------------------------------------------


@of_each
def test_frame_is_what_the_builder_writes(source: Path) -> None:
    """Badge, links and the cell that installs come from one place: the project's address and the order of the files."""
    notebook = jupytext.read(source, fmt="py:percent")
    before = [cell.source for cell in notebook.cells]
    build.write_frame(notebook, source, build.minutes_of(notebook) * 60)
    assert [cell.source for cell in notebook.cells] == before, "run `make notebooks`"
    repository = build.REPOSITORY.removeprefix("https://github.com/")
    assert f"colab.research.google.com/github/{repository}/blob/main/notebooks/{source.stem}.ipynb" in before[0]


@of_each
def test_has_what_a_learner_needs(source: Path) -> None:
    notebook = stored(source)
    words = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    for needed in (
        "**You will be able to**",
        "**You need**",
        "**In the paper**",
        "figure to remember",
        "## In five lines",
    ):
        assert needed in words, needed
    assert len(re.findall(r"^\d\. ", words.partition("## In five lines")[2], re.MULTILINE)) == 5
    guesses = set(re.findall(r"^(guess_\w+) = None", code, re.MULTILINE))
    assert guesses and guesses == set(re.findall(r"notebook\.reveal\([^\n]*?(guess_\w+)", code))


@of_each
def test_exercises_have_hint_solution_and_check(source: Path) -> None:
    cells = stored(source).cells
    places = [i for i, cell in enumerate(cells) if "exercise" in tags(cell)]
    assert 2 <= len(places) <= 4
    for number, i in enumerate(places, start=1):
        name = f"{source.stem[0]}.{number}"
        task, _, help_, check = cells[i - 1 : i + 3]
        assert f"### Exercise {name}" in task.source
        assert "<summary>Hint" in help_.source and help_.source.count("<summary>Solution</summary>") == 1
        assert {"check", "nbval-check-output"} <= set(tags(check)) and f'notebook.check("{name}")' in check.source
        assert re.match(rf"✗ Exercise {name}, not yet[:.]", text_of(check)), (
            "the stub must not pass, and its check says why in words"
        )


@pytest.mark.parametrize(
    "page",
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "docs" / "results.md",
        ROOT / "docs" / "deploy.md",
        FOLDER / "README.md",
        *(s.with_suffix(".ipynb") for s in SOURCES),
    ],
    ids=lambda page: page.name,
)
def test_links_resolve(page: Path) -> None:
    def markdown(path: Path) -> str:
        if path.suffix == ".md":
            return path.read_text(encoding="utf-8")
        return "\n\n".join(
            cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "markdown"
        )

    def anchors(path: Path) -> set[str]:
        headings = re.findall(r"^#+ (.+)$", markdown(path), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    own = {
        f"{build.REPOSITORY}/blob/main/",
        build.REPOSITORY.replace("https://github.com", "https://colab.research.google.com/github") + "/blob/main/",
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", markdown(page)):
        here = next((target.removeprefix(prefix) for prefix in own if target.startswith(prefix)), None)
        if here is None and re.match(r"[a-z]+:", target):
            continue  # elsewhere; not looked up
        name, _, anchor = (here or target).partition("#")
        path = ((ROOT if here else page.parent) / unquote(name)).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_index_lists_every_notebook() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \[(.+?)\]\((\w+)\.ipynb\) \| ([\d.]+) minutes? \| (\d+) minutes \| (\d) \|", text, re.MULTILINE
    )
    assert [(name, stem, int(exercises)) for name, stem, _, _, exercises in rows] == [
        (build.title(source), source.stem, build.exercises_of(jupytext.read(source, fmt="py:percent")))
        for source in SOURCES
    ]
