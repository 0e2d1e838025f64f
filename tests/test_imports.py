"""Which module may import which, read from the source: the package is a flight of stairs, imports only point up it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import modtf

PACKAGE = Path(__file__).parents[1] / "modtf"

# A room is a module or a sub-package; it may import itself and the rooms that stand before it.
ROOMS = (
    "errors", "bundled", "mapping", "strategies", "quality", "architectures", "layers", "decoding", "saving", "compiled", "modular",
    "conformance", "replacing", "distillation", "tasks", "bootstrap", "evaluation", "options_file", "training", "profile",
    "exports", "recipes", "views", "course", "commands", "cli",
)  # fmt: skip
# A task depends on less than its place allows: it knows nothing of models.
ONLY = {"tasks": {"errors", "bundled"}}
STANDARD_LIBRARY_ONLY = ("errors", "mapping", "strategies", "quality")
# Above all rooms: the public names, and `python -m modtf`.
ROOF = ("__init__", "__main__")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of all imports in a file, those inside functions too.

    ``from modtf import mapping`` counts as ``modtf.mapping``, since a name taken from a package may be a module of it.
    """
    package = ("modtf", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            for alias in node.names:
                yield node.lineno, ".".join((*base, *filter(None, [node.module]), alias.name))


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of the imports from modtf; a name that is no room is one of the public names: ``__init__``."""
    for line, name in imported_names(path):
        top, *rest = name.split(".")
        if top == "modtf":
            yield line, rest[0] if rest and rest[0] in ROOMS else "__init__"


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_room() -> None:
    unknown = {room_of(path) for path in SOURCES} - {*ROOMS, *ROOF}
    assert not unknown, f"give {sorted(unknown)} a place in ROOMS"


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if room_of(path) not in ROOF], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_point_up(path: Path) -> None:
    room = room_of(path)
    allowed = {room} | ONLY.get(room, set(ROOMS[: ROOMS.index(room)]))
    if room in ("cli", "commands"):
        allowed.add("__init__")  # a shell command is written as a user would write it
    wrong = [f"{path.name}:{line} imports {other}" for line, other in imported_rooms(path) if other not in allowed]
    assert not wrong, f"{wrong}; {room} may import {sorted(allowed)}"


@pytest.mark.parametrize("room", STANDARD_LIBRARY_ONLY)
def test_pure_rooms_need_the_standard_library_only(room: str) -> None:
    tops = {name.split(".")[0] for _, name in imported_names(PACKAGE / f"{room}.py")}
    assert tops <= {*sys.stdlib_module_names, "modtf"}


# What each of these does not need, and nobody who only wants that should wait for.
LIGHT = {
    "import modtf": (
        "torch", "transformers", "datasets", "ipywidgets", "plotly", "rouge_score", "sacrebleu", "tensorboard",
    ),
    "from modtf.cli import _parser; _parser().format_help()": ("torch", "transformers", "numpy"),
    "import modtf; modtf.Mapping, modtf.speed_first": ("torch", "transformers"),
    "import modtf.training.batches, modtf.training.optimizer": ("transformers.trainer", "datasets"),
    "import modtf.views.explorer": ("transformers.trainer", "datasets", "rouge_score", "sacrebleu", "tensorboard"),
    "import modtf; modtf.load('pocket').generate('name[Zizzi]', ratio=6)": (
        "transformers.trainer", "datasets", "ipywidgets", "plotly", "rouge_score", "sacrebleu", "tensorboard",
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", LIGHT)
def test_heavy_libraries_are_left_alone(code: str) -> None:
    asked = f"import sys; print(*[name for name in {LIGHT[code]!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", f"{code}\n{asked}"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [], "import them inside the function that needs them"


def test_public_names_exist() -> None:
    for name in modtf.__all__:
        assert getattr(modtf, name) is not None
    assert sorted(modtf.__all__) == modtf.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        modtf.nothing  # noqa: B018
