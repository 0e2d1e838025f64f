"""The lines that people copy from the README and from notebook 6 run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import modtf

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
    code = re.findall(r"Your own model:\n\n```python\n(.*?)```", text, re.DOTALL)[0]
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


def test_the_script_of_notebook_6_goes_on_where_it_was(folder: Path) -> None:
    text = (ROOT / "notebooks" / "6_your_own_model.py").read_text(encoding="utf-8")
    script = re.findall(r'# ```python\n(# """python train_kit.*?)# ```\n', text, re.DOTALL)[0]
    (folder / "train_kit.py").write_text(re.sub(r"^# ?", "", script, flags=re.MULTILINE))
    for steps in ("2", "4"):
        run(["train_kit.py", "your-t5", "data", "in", "out", "", "my-banks", steps], folder)
    state = json.loads((folder / "my-banks" / "training" / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    assert modtf.load(folder / "my-banks").generate("name[The Mill]", ratio=2, max_new_tokens=3) is not None
