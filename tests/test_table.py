"""The measured table: its script writes what its readers expect; CTranslate2, if installed, runs the same model."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import modtf
from modtf.bundled import bundled
from modtf.decoding import decode
from modtf.errors import ModtfError
from modtf.tasks import E2E, Example
from modtf.tasks.e2e import write_mr
from modtf.views.controller import Controller
from modtf.views.figures import quality_curve
from modtf.views.markup import quality_html

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "table.py"
EXAMPLES = [
    Example(write_mr({"name": name, "eatType": "pub", "food": food}), ("A pub.",))
    for name in ("The Mill", "Zizzi")
    for food in ("Thai", "French")
]
SPEEDS = {"latency_ms", "speed_up", "batch_latency_ms", "batch_speed_up"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """benchmarks/ is no package, so it is loaded from its file."""
    spec = importlib.util.spec_from_file_location("benchmarks_table", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def modular(make_modular: Any, tokenizer: Any) -> modtf.ModularModel:
    return make_modular("t5", tokenizer=tokenizer, vocabulary=len(tokenizer))


@pytest.fixture(scope="module")
def wanted(modular: modtf.ModularModel) -> list[Any]:
    return [
        (strategy, ratio, modular.choose(ratio, strategy))
        for strategy in ("size_first", "speed_first")
        for ratio in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def written(script: ModuleType, modular: modtf.ModularModel, wanted: list[Any]) -> str:
    """A table as the script makes it, except for the scores and the memory of processes, which are invented."""
    chosen = list(dict.fromkeys(assembly for _, _, assembly in wanted))
    costs = script.latencies(modular, chosen, [example.source for example in EXAMPLES], 2, 1, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "measure_quality", lambda *_: {"bleu": 60.0, "ser": 2.0, "rouge_l": 65.0})
        rows = script.measure_rows(modular, wanted, EXAMPLES)
    for row in rows:
        if row["trained"]:
            row |= costs[modtf.Assembly.from_json(row["assembly"])]
            row |= {
                "parameters": 5_000_000,
                "parameters_without_embeddings": 4_000_000,
                "assemble_ms": 1.0,
                "peak_memory_mb": 100.0,
            }
    return json.dumps(
        {
            "machine": "a machine",
            "engine": "loop",
            "threads": 1,
            "examples": len(EXAMPLES),
            "rows": rows,
            "training": {},
        }
    )


@pytest.fixture
def table(written: str) -> dict[str, Any]:
    return json.loads(written)


def grids(text: str) -> list[list[list[str]]]:
    """The cells of the two tables in a text, without the lines of dashes."""
    tables = [[line.strip("|").split("|") for line in part.splitlines()] for part in text.split("\n\n")[:2]]
    assert all(len({len(line) for line in one}) == 1 for one in tables), "each line has a cell for each column"
    return [[one[0], *one[2:]] for one in tables]


def test_each_engine_is_compared_with_itself(table: dict[str, Any]) -> None:
    for row in table["rows"]:
        if not row["trained"]:
            assert not SPEEDS & row.keys(), "the untrained kit is not timed"
            continue
        for record in row, row["generate"]:
            assert record.keys() >= SPEEDS
            assert 0 < record["latency_ms"]["median"] <= record["latency_ms"]["p95"]
            if row["ratio"] == 1:
                assert record["speed_up"] == record["batch_speed_up"] == 1


def test_both_engines_write_the_same_number_of_tokens(
    script: ModuleType, modular: modtf.ModularModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def watched(*arguments: Any, **options: Any) -> None:
        tokens, engine = decode(*arguments, **options)
        written.append((engine, tokens.shape))

    monkeypatch.setattr(script, "decode", watched)
    original = modular.mapping.original
    script.latencies(modular, [original], [example.source for example in EXAMPLES], 1, 1, {})
    one, batch = (1, 1 + script.TOKENS), (len(EXAMPLES), 1 + script.TOKENS)
    assert written == [("loop", one), ("generate", one)] * 2 + [("loop", batch), ("generate", batch)] * 2


def test_turns_begin_after_a_warm_up(script: ModuleType) -> None:
    order: list[str] = []
    times = script.in_turns({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert "".join(order) == "ababab" and [len(values) for values in times.values()] == [2, 2]


def test_the_readme_has_quality_by_row_and_speed_by_assembly(script: ModuleType, table: dict[str, Any]) -> None:
    quality, speed = grids(script.markdown(table))
    assert len(quality) - 1 == 6 and len(speed) - 1 == len({str(row["assembly"]) for row in table["rows"]}) < 6
    assert speed[1][0].strip() == "size_first and speed_first", "at 1x both are the original"
    assert not any("CTranslate2" in cell for line in speed for cell in line) and "CTranslate2" not in script.markdown(
        table
    )


def test_the_readme_says_how_like_ctranslate2_writes(script: ModuleType, table: dict[str, Any]) -> None:
    table["ctranslate2"] = "4.8.5"
    trained = [row for row in table["rows"] if row["trained"]]
    for i, row in enumerate(trained):
        row["ctranslate2"] = {
            precision: row["generate"] | {"same_text": share}
            for precision, share in (("float32", 1.0), ("int8", 0.9 + i / 100))
        }
    text = script.markdown(table)
    assert sum("CTranslate2" in cell for cell in grids(text)[1][0]) == 2
    assert "CTranslate2 4.8.5" in text and "100 in float32 and 90 to 95 in int8" in text


def test_known_quality_is_kept_without_old_speeds(
    script: ModuleType, table: dict[str, Any], wanted: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table))
    rows, examples = script.known_rows(path, wanted)
    assert examples == len(EXAMPLES) and [row["bleu"] for row in rows] == [60.0] * 12
    assert not any({*SPEEDS, "generate", "assemble_ms"} & row.keys() for row in rows)


def test_quality_of_other_assemblies_is_refused(
    script: ModuleType, table: dict[str, Any], wanted: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    with pytest.raises(ModtfError, match=r"table.json is missing.*leave out --speed-only"):
        script.known_rows(path, wanted)
    path.write_text(json.dumps(table))
    with pytest.raises(ModtfError, match=r"other assemblies.*leave out --speed-only"):
        script.known_rows(path, wanted[:-1])


def test_the_page_reads_what_the_script_writes(table: dict[str, Any], modular: modtf.ModularModel) -> None:
    for measured in table, json.loads(bundled("pocket/table.json").read_text()):
        here = next(row for row in measured["rows"] if row["trained"] and row["ratio"] > 1)
        assert len(quality_curve(measured["rows"], E2E.metrics, here).data) == 6
        assert f"<b>{here['speed_up']:.2f}×</b>" in quality_html(here, True, measured, E2E.metrics[:2])
        controller = Controller(modular, measured)
        assert controller.measured(modtf.Assembly.from_json(here["assembly"]), here["strategy"]) == (here, True)


def test_a_missing_ctranslate2_is_said_at_once(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["table.py", "--ctranslate2"])
    with pytest.raises(SystemExit):
        script.main()
    assert "-m pip install ctranslate2" in capsys.readouterr().err


def test_ctranslate2_runs_the_same_model(script: ModuleType) -> None:
    pytest.importorskip("ctranslate2", reason="only the table's script needs it: pip install ctranslate2")
    pocket = modtf.load("pocket")
    assembly = pocket.choose(6)
    translators = script.compile_assembly(pocket, assembly, threads=1)
    sources = [example.source for example in EXAMPLES]
    assert script.same_texts(pocket, assembly, translators, sources)["float32"] == 1
    costs = script.latencies(pocket, [pocket.mapping.original], sources, 1, 1, {pocket.mapping.original: translators})
    assert all(record.keys() >= SPEEDS for record in costs[pocket.mapping.original]["ctranslate2"].values())
