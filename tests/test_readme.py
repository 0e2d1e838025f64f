"""The lines that people copy from the README run as they stand; the commands of notebook 7 have options that exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import modtf
from modtf import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path, make_model: object, tokenizer: object) -> Path:
    """An original of a person's own, stored in half precision as many are, and lines of JSON."""
    original = make_model("t5", 4, 4, vocabulary=300)  # type: ignore[operator]
    original.to(torch.bfloat16).save_pretrained(tmp_path / "your-t5")
    tokenizer.save_pretrained(tmp_path / "your-t5")  # type: ignore[attr-defined]
    (tmp_path / "data").mkdir()
    rows = [{"in": "name[The Mill], food[Thai]", "out": "The Mill serves Thai food."}] * 40
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_your_own_model(folder: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"The same in Python:\n\n```python\n(.*?)```", text, re.DOTALL)[0]
    for there, here in (
        ('[{"source": "...", "target": "..."}]', '[{"source": "name[The Mill]", "target": "The Mill is a pub."}] * 40'),
        ("max_steps=10_000", "max_steps=2, use_cpu=True, report_to='none'"),
    ):
        assert code.count(there) == 1
        code = code.replace(there, here)
    (folder / "own.py").write_text(code)
    run(["own.py"], folder)
    assert modtf.load(folder / "my-banks").mapping.encoder.granularities == (2,)


def test_a_student_of_one_size_is_fine_tuned_as_any_model(make_model: object) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    line = re.findall(r"`(modularize\(original, \[2\], .*?)`", text)[0]
    original = make_model("t5", 12, 12)  # type: ignore[operator]
    student = eval(line, {"modularize": modtf.modularize, "original": original})
    ids = torch.tensor([[5, 6, 1]])
    student(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert (student.config.num_layers, student.config.num_decoder_layers) == (6, 2)


#: Its texts, without the marks of comments.
NOTEBOOK = re.sub(
    r"^# ?", "", (ROOT / "notebooks" / "7_your_own_model.py").read_text(encoding="utf-8"), flags=re.MULTILINE
)
COMMANDS = [
    line.partition("modtf.cli ")[2] or line.removeprefix("modtf ")
    for block in re.findall(r"```sh\n(.*?)```", NOTEBOOK, re.DOTALL)
    for line in block.splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_notebook_7_have_options_that_exist(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to where the model would be loaded, which is not here."""

    def load(*_: object, **__: object) -> None:
        raise modtf.ModtfError("all is read, but the model")

    monkeypatch.setattr("modtf.training.runs.load_original", load)
    monkeypatch.setattr("modtf.modular.load", load)
    monkeypatch.chdir(tmp_path)
    (options,) = re.findall(r"```yaml\n(.*?)```", NOTEBOOK, re.DOTALL)
    (tmp_path / "dialogsum.yaml").write_text(options)
    assert cli.main(shlex.split(command)) == 2
    assert capsys.readouterr().err == "modtf: all is read, but the model\n"
