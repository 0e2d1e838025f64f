"""The page that a training leaves: what it says is what was measured, and it needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import modtf
from modtf.evaluation import measure_quality, size_of
from modtf.tasks import Example
from modtf.views.report import FILE, ROWS, course_figure, measure, write_report

EXAMPLES = [Example(f"name[The Mill], food[{'Thai ' * n}]", (f"<b>The Mill</b> serves {n}.",)) for n in range(1, 7)]


@pytest.fixture(scope="module")
def modular(make_modular: Any, tokenizer: Any) -> modtf.ModularModel:
    return make_modular("bart", tokenizer=tokenizer, vocabulary=len(tokenizer))


def test_rows_hold_what_is_measured(modular: modtf.ModularModel) -> None:
    done: list[int] = []
    rows = measure(modular, EXAMPLES, done.append)
    sizes = {row["layers"] for row in rows}
    assert {"6-6", "3-3", "2-2", "6-2"} <= sizes and done == list(range(1, len(sizes) + 1))
    for row in rows:
        assembly = modtf.Assembly.parse(row["assembly"])
        assert row["bleu"] == measure_quality(modular, assembly, EXAMPLES)["bleu"]
        assert row["parameters"] == size_of(modular.assemble(assembly=assembly)).parameters
        assert row["latency_ms"] > 0 and len(row["texts"]) == 4 and row["ratio"] == assembly.ratio
    assert {row["speed_up"] for row in rows if row["layers"] == "6-6"} == {1.0}


def test_the_page(modular: modtf.ModularModel, tmp_path: Path) -> None:
    history = [{"loss": str(3.0 - step / 10), "step": step} for step in range(1, 9)]
    (tmp_path / "checkpoint-8").mkdir()
    (tmp_path / "checkpoint-8" / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (tmp_path / "training.json").write_text(json.dumps({"steps": 8, "seconds": 61.5}))
    (tmp_path / "quality.jsonl").write_text(json.dumps({"step": 4, "metric": "bleu", "full": 9.0, "2-2": 4.5}) + "\n")
    rows = measure(modular, EXAMPLES)
    path = write_report(tmp_path, modular, EXAMPLES, rows)
    page = path.read_text(encoding="utf-8")
    assert path.name == FILE and not list(tmp_path.glob("*.part"))
    assert json.loads((tmp_path / ROWS).read_text(encoding="utf-8")) == rows
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page), "it loads nothing"
    for row in rows:
        assert f"<td>{row['layers']}</td>" in page and f"{row['parameters']:,}" in page
    assert "&lt;b&gt;The Mill&lt;/b&gt; serves" in page and "<b>The Mill" not in page
    assert "<td>61.5</td>" in page and "2-2: BLEU" in page and "2 and 3 as granularities" in page


def test_a_page_without_a_history(modular: modtf.ModularModel, tmp_path: Path) -> None:
    page = write_report(tmp_path, modular, EXAMPLES, measure(modular, EXAMPLES)).read_text()
    assert "Quality by size" in page and "The training" not in page and "What it cost" not in page
    assert course_figure(tmp_path) is None
