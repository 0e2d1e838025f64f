"""The page on deployment: its commands write what its lines load, and these are the lines of the cards."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

import modtf
from modtf import cli
from modtf.errors import ModtfError
from modtf.exports import format_named
from modtf.exports.card import lines_of

PAGE = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")
#: A command, and the Python that follows it.
PAIRS = re.findall(r"```sh\n(.*?)\n```\s+```python\n(.*?)\n```", PAGE, re.DOTALL)


def test_every_block_is_run_below() -> None:
    assert len(PAIRS) == PAGE.count("```sh") == PAGE.count("```python") == 5


@pytest.mark.parametrize(("command", "code"), PAIRS, ids=[command.split()[2] for command, _ in PAIRS])
def test_a_block(
    command: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command.removeprefix("modtf "))
    given = dict(pairwise(words))
    to, name, folder = given.get("--to", "transformers"), given["--model"], words[1]
    try:
        made = format_named(to, given.get("--precision", "float32"))
    except ModtfError as error:
        pytest.skip(str(error))
    modular = modtf.load(name)
    if "--ratios" not in words:
        assert code == lines_of(modular, folder, made.HOW), "the card has the same lines"
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "--check", "2"]) == 0
    said = capsys.readouterr().out
    if "llama_cpp" in code and not find_spec("llama_cpp"):
        pytest.skip("llama-cpp-python is not installed; the file was written, but not read")
    exec(compile(code, folder, "exec"), {})
    written = capsys.readouterr().out.strip()
    source = re.findall(r'(?:source = |tokenizer\()"(.*?)"', code)[0]
    place = Path(folder) / ("2x" if "--ratios" in words else "")
    assert written == made.reader(place, modular.longest)([source])[0]
    if given.get("--precision") != "int8":  # whose rounding depends on the processor
        assert "2 of 2 texts are those of the assembly" in said
        assert written == modular.generate(source, float(given["--ratio"]), given.get("--strategy", "size_first"))
