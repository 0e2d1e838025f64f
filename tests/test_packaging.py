"""The files around the package agree with each other, and a wheel holds what a pip install needs."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

CONDA_NAMES = {"torch": "pytorch"}


def requirements(*groups: str) -> dict[str, Requirement]:
    """The requirements of the package (``core``) and of its extras, by name."""
    lines = [line for group in groups for line in (PROJECT["dependencies"] if group == "core" else EXTRAS[group])]
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one for one in parsed if one.name != PROJECT["name"]}


def constraints(file: str = "constraints.txt") -> dict[str, Requirement]:
    """The lines of the file that hold for the Python that runs this."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    parsed = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"==[^+*,]+", str(one.specifier)) for one in parsed), "one exact public version a line"
    return {canonicalize_name(one.name): one for one in parsed if one.marker is None or one.marker.evaluate()}


# Nothing of these may be upgraded on Colab; when they were looked up is said in the file.
COLAB_PYTHON = "3.13"
COLAB = {
    "torch": "2.11",
    **{name: str(one.specifier).removeprefix("==") for name, one in constraints("constraints-colab.txt").items()},
}


@pytest.mark.parametrize("requirement", requirements("core", *EXTRAS).values(), ids=str)
def test_requirements_are_floors_without_caps(requirement: Requirement) -> None:
    assert [one.operator for one in requirement.specifier] == [">="]
    assert requirement.marker is None and requirement.url is None


def test_python_is_a_floor_that_colab_meets() -> None:
    floor = SpecifierSet(PROJECT["requires-python"])
    assert [one.operator for one in floor] == [">="]
    assert floor.contains(COLAB_PYTHON)


@pytest.mark.parametrize("name", sorted(set(requirements("core", "demo")) & set(COLAB)))
def test_colab_meets_the_floor(name: str) -> None:
    assert requirements("core", "demo")[name].specifier.contains(COLAB[name])


def test_nothing_touches_colabs_notebook_stack() -> None:
    assert not {"numpy", "ipython", "ipykernel"} & set(requirements("core"))


def test_conda_says_the_same() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *lines, pip = environment["dependencies"]
    expected = {CONDA_NAMES.get(name, name): str(one.specifier) for name, one in requirements("core", "demo").items()}
    found = {canonicalize_name(one.name): str(one.specifier) for one in map(Requirement, lines)}
    assert found == {"python": PROJECT["requires-python"], "pip": "", **expected}
    assert pip == {"pip": ["-e ."]}


def test_constraints_cover_the_requirements() -> None:
    pinned = constraints()
    for name, requirement in requirements("core", *EXTRAS).items():
        assert name in pinned, f"{name} has no version in constraints.txt: run `make constraints`"
        (exact,) = pinned[name].specifier
        assert requirement.specifier.contains(exact.version), (
            f"constraints.txt has {pinned[name]}, pyproject.toml wants {requirement}"
        )


def test_constraints_bring_no_cuda() -> None:
    assert not [name for name in constraints() if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(
        r"^## \[(?P<version>\d[^\]]*)\] - (?P<date>\S+)$",
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert newest is not None
    assert PROJECT["version"] == citation["version"] == newest["version"]
    assert str(citation["date-released"]) == newest["date"]


def test_wheel_holds_modules_and_data(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    run = subprocess.run(build, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {info.filename: info.file_size for info in archive.infolist()}
    modules = [path for path in (ROOT / "modtf").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    bundled = [path for path in (ROOT / "data").rglob("*") if path.is_file()]
    expected = {path.relative_to(ROOT).as_posix(): path for path in modules}
    expected |= {"modtf/" + path.relative_to(ROOT).as_posix(): path for path in bundled}
    metadata = f"{PROJECT['name']}-{PROJECT['version']}.dist-info/"
    assert {name: size for name, size in inside.items() if not name.startswith(metadata)} == {
        name: path.stat().st_size for name, path in expected.items()
    }
    assert {metadata + "licenses/LICENSE", metadata + "licenses/data/LICENSE", metadata + "entry_points.txt"} <= set(
        inside
    )
