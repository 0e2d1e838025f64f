"""The scripts of bundled models: the measured table is what its readers expect, and a bundle holds what they load."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import modtf
from modtf.bundled import BUNDLED_MODELS, bundled
from modtf.decoding import decode
from modtf.errors import ModtfError
from modtf.tasks import E2E, TRANSLATION, Example, Task, task_named
from modtf.tasks.e2e import write_mr
from modtf.tasks.examples import read_pairs, spread, write_pairs
from modtf.views.controller import Controller
from modtf.views.figures import quality_curve
from modtf.views.markup import quality_html

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    E2E: [
        Example(write_mr({"name": name, "eatType": "pub", "food": food}), ("A pub.",))
        for name in ("The Mill", "Zizzi")
        for food in ("Thai", "French")
    ],
    TRANSLATION: [
        Example("Mir ist kalt.", ("I'm cold.", "I am cold.")),
        Example("Tom liest.", ("Tom is reading.",)),
        Example("Wer ist da?", ("Who's there?",)),
        Example("Guten Tag.", ("Hello.", "Good day.", "Good afternoon.")),
    ],
}
SPEEDS = {"latency_ms", "speed_up", "batch_latency_ms", "batch_speed_up"}


def load_script(name: str) -> ModuleType:
    """benchmarks/ is no package, so its scripts are loaded from their files, which may import one another."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("table")


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda task: task.name)
def task(request: pytest.FixtureRequest) -> Task:
    return request.param


@pytest.fixture(scope="module")
def sources(task: Task) -> list[str]:
    return [example.source for example in EXAMPLES[task]]


@pytest.fixture(scope="module")
def modular(task: Task, make_modular: Any, tokenizer: Any) -> modtf.ModularModel:
    family = "t5" if task is E2E else "bart"
    modular = make_modular(family, tokenizer=tokenizer, vocabulary=len(tokenizer))
    modular.task = task.name
    return modular


@pytest.fixture(scope="module")
def data(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the test split."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [(example.source, text) for example in EXAMPLES[task] for text in example.references]
    if task is E2E:
        (folder / "test.csv").write_text("mr,ref\n" + "".join(f'"{mr}",{text}\n' for mr, text in pairs))
    else:
        (folder / "test.tsv").write_text("".join(f"{english}\t{german}\n" for german, english in pairs))
    return folder


@pytest.fixture(scope="module")
def wanted(modular: modtf.ModularModel) -> list[Any]:
    return [
        (strategy, ratio, modular.choose(ratio, strategy))
        for strategy in ("size_first", "speed_first")
        for ratio in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def written(
    script: ModuleType, task: Task, modular: modtf.ModularModel, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkout in which the script has run, except for the scores and the memory of processes, which are invented."""
    root = tmp_path_factory.mktemp("checkout")
    folder = root / "data" / "small"
    folder.mkdir(parents=True)
    write_pairs([(example.source, "") for example in EXAMPLES[task]], folder / "evaluation.jsonl")
    (root / "docs").mkdir()
    for page in root / "docs" / "results.md", folder / "README.md":
        page.write_text("Ä\n<!-- table: benchmarks/table.py --model small -->\nold\n<!-- end of table -->\nend\n")
    (root / "README.md").write_text(
        "<!-- table: benchmarks/table.py --model small, in short -->\nold\n<!-- end of table -->\n"
    )
    costs = {
        "parameters": 5_000_000, "parameters_without_embeddings": 4_000_000, "assemble_ms": 1.0, "peak_memory_mb": 1.0,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(task.data_variable, str(data))
        patch.setitem(modtf.tasks.TASKS, task.name, replace(task, model="small"))
        patch.setattr("modtf.tasks.task.bundled", lambda name: root / "data" / name)
        patch.setattr(modtf, "load", lambda name: modular)
        for name, value in {
            "ROOT": root, "BUNDLED_MODELS": ("small",), "RATIOS": (1, 2, 3), "sizes": lambda *_: costs,
            "measure_quality": lambda *_: {metric.key: 60.0 for metric in task.metrics},
        }.items():  # fmt: skip
            patch.setattr(script, name, value)
        patch.setattr(sys, "argv", ["table.py", "--model", "small", "--sentences", "2", "--batches", "1"])
        script.main()
    return root


@pytest.fixture
def table(written: Path) -> dict[str, Any]:
    return json.loads((written / "data" / "small" / "table.json").read_text())


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
    script: ModuleType, modular: modtf.ModularModel, sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def watched(*arguments: Any, **options: Any) -> None:
        tokens, engine = decode(*arguments, **options)
        written.append((engine, tokens.shape))

    monkeypatch.setattr(script, "decode", watched)
    original = modular.mapping.original
    script.latencies(modular, [original], sources, 1, 1, {})
    one, batch = (1, 1 + script.TOKENS), (len(sources), 1 + script.TOKENS)
    assert written == [("loop", one), ("generate", one)] * 2 + [("loop", batch), ("generate", batch)] * 2


def test_turns_begin_after_a_warm_up(script: ModuleType) -> None:
    order: list[str] = []
    times = script.in_turns({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert "".join(order) == "ababab" and [len(values) for values in times.values()] == [2, 2]


def test_the_pages_get_the_table(script: ModuleType, task: Task, written: Path, table: dict[str, Any]) -> None:
    assert table["examples"] == len(EXAMPLES[task])
    text = script.markdown(table, task)
    short = script.in_short(table, task)
    marker = "<!-- table: benchmarks/table.py --model small, in short -->"
    assert (written / "README.md").read_text() == f"{marker}\n{short}<!-- end of table -->\n"
    for page in written / "docs" / "results.md", written / "data" / "small" / "README.md":
        marker = "<!-- table: benchmarks/table.py --model small -->"
        assert page.read_text() == f"Ä\n{marker}\n{text}<!-- end of table -->\nend\n"


def test_a_page_keeps_what_stands_behind_a_table_without_end(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("<!-- table: benchmarks/table.py -->\nbehind\n")
    with pytest.raises(ModtfError, match="has no <!-- end of table -->"):
        script.insert(page, "benchmarks/table.py", "a table")
    assert page.read_text().endswith("behind\n")


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_the_pages_show_the_stored_table(script: ModuleType, name: str, tmp_path: Path) -> None:
    folder = ROOT / "data" / name
    task = task_named(json.loads((folder / "modtf.json").read_text())["task"])
    text = script.markdown(json.loads((folder / "table.json").read_text()), task)
    for page in ROOT / "docs" / "results.md", folder / "README.md":
        copy = Path(shutil.copy(page, tmp_path))
        script.insert(copy, f"benchmarks/table.py --model {name}", text)
        assert text.encode() in page.read_bytes() and copy.read_bytes() == page.read_bytes()


def test_the_first_page_shows_the_stored_table_in_short(script: ModuleType) -> None:
    table = json.loads((ROOT / "data" / "translator" / "table.json").read_text())
    short = script.in_short(table, task_named("translation"))
    marker = "<!-- table: benchmarks/table.py --model translator, in short -->"
    assert f"{marker}\n{short}<!-- end of table -->\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| ([\d.]+x) \| (\d-\d)", short, re.MULTILINE) == [
        ("1x", "6-6"), ("1.5x", "4-4"), ("2x", "3-3"), ("3x", "2-2"), ("6x", "1-1"),
    ]  # fmt: skip


def test_the_columns_are_those_of_the_task(script: ModuleType, task: Task, table: dict[str, Any]) -> None:
    (columns, *_), _ = grids(script.markdown(table, task))
    expected = {
        E2E: ["BLEU (kept)", "SER % (of the original's)", "ROUGE-L (kept)", "BLEU untrained"],
        TRANSLATION: ["BLEU (kept)", "chrF2 (kept)", "BLEU untrained"],
    }
    assert [name.strip() for name in columns[5:-2]] == expected[task]
    for row in table["rows"]:
        assert {"bleu", "bleu_kept", task.metrics[1].key, f"{task.metrics[1].key}_kept"} <= row.keys()
        if row["trained"]:
            assert row["bundled"].keys() == {"bleu", task.metrics[1].key, "examples"}


def test_the_readme_has_quality_by_row_and_speed_by_assembly(
    script: ModuleType, task: Task, table: dict[str, Any]
) -> None:
    text = script.markdown(table, task)
    quality, speed = grids(text)
    assert len(quality) - 1 == 6 and len(speed) - 1 == len({str(row["assembly"]) for row in table["rows"]}) < 6
    assert speed[1][0].strip() == "size_first and speed_first", "at 1x both are the original"
    assert "CTranslate2" not in text


def test_the_readme_says_how_like_ctranslate2_writes(script: ModuleType, task: Task, table: dict[str, Any]) -> None:
    table["ctranslate2"] = "4.8.5"
    trained = [row for row in table["rows"] if row["trained"]]
    for i, row in enumerate(trained):
        row["ctranslate2"] = {
            precision: row["generate"] | {"same_text": share}
            for precision, share in (("float32", 1.0), ("int8", 0.9 + i / 100))
        }
    text = script.markdown(table, task)
    assert sum("CTranslate2" in cell for cell in grids(text)[1][0]) == 2
    assert "CTranslate2 4.8.5" in text and "100 in float32 and 90 to 95 in int8" in text


def test_known_quality_is_kept_without_old_speeds(
    script: ModuleType, task: Task, written: Path, wanted: list[Any]
) -> None:
    rows, examples = script.known_rows(written / "data" / "small" / "table.json", wanted, task.metrics)
    assert examples == len(EXAMPLES[task]) and [row["bleu"] for row in rows] == [60.0] * 12
    assert not any({*SPEEDS, "generate", "assemble_ms"} & row.keys() for row in rows)


def test_quality_of_other_assemblies_is_refused(
    script: ModuleType, task: Task, written: Path, wanted: list[Any]
) -> None:
    with pytest.raises(ModtfError, match=r"table.json is missing.*leave out --speed-only"):
        script.known_rows(written / "table.json", wanted, task.metrics)
    with pytest.raises(ModtfError, match=r"other assemblies.*leave out --speed-only"):
        script.known_rows(written / "data" / "small" / "table.json", wanted[:-1], task.metrics)


def test_known_speeds_are_kept_without_old_quality(
    script: ModuleType, task: Task, written: Path, wanted: list[Any], tmp_path: Path
) -> None:
    path = written / "data" / "small" / "table.json"
    chosen = [assembly for _, _, assembly in wanted]
    costs = script.known_costs(path, [*chosen, modtf.Assembly((6,) * 9, (1,))], threads=1, ctranslate2=False)
    assert costs.keys() == set(chosen), "nobody has timed 9-1 layers"
    rows = {row["layers"]: row for row in json.loads(path.read_text())["rows"] if row["trained"]}
    for assembly, kept in costs.items():
        assert {*SPEEDS, "generate", "assemble_ms", "parameters"} <= kept.keys()
        assert not {"bleu", "bundled"} & kept.keys()
        assert kept.items() <= rows[assembly.shape].items()
    for refused, words in (
        ((tmp_path / "table.json", chosen, 1, False), "table.json is missing.*leave out --quality-only"),
        ((path, chosen, 1, True), "measured otherwise; with --quality-only give --threads 1$"),
        ((path, chosen, 2, False), "measured otherwise"),
    ):
        with pytest.raises(ModtfError, match=words):
            script.known_costs(*refused)


def test_rows_that_nobody_has_timed_are_left_out_and_named(
    script: ModuleType, task: Task, modular: modtf.ModularModel, data: Path, written: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    page = written / "docs" / "results.md"
    before = page.read_bytes()
    monkeypatch.setenv(task.data_variable, str(data))
    monkeypatch.setitem(modtf.tasks.TASKS, task.name, replace(task, model="small"))
    monkeypatch.setattr("modtf.tasks.task.bundled", lambda name: written / "data" / name)
    monkeypatch.setattr(modtf, "load", lambda name: modular)
    scores = {metric.key: 50.0 for metric in task.metrics}
    for name, value in {
        "ROOT": written, "BUNDLED_MODELS": ("small",), "RATIOS": (1, 1.5, 2, 3), "measure_quality": lambda *_: scores,
    }.items():  # fmt: skip
        monkeypatch.setattr(script, name, value)
    output = tmp_path / "table.json"
    monkeypatch.setattr(sys, "argv", ["table.py", "--model", "small", "--quality-only", "--output", str(output)])
    script.main()
    old, new = (json.loads(path.read_text()) for path in (written / "data" / "small" / "table.json", output))
    known = {row["layers"] for row in old["rows"]}
    untimed = sorted({modular.choose(1.5, strategy).shape for strategy in modular.strategies} - known)
    assert untimed and f"of so many layers are not known: {', '.join(untimed)}\n" in capsys.readouterr().out
    assert [row["layers"] for row in new["rows"]] == [row["layers"] for row in old["rows"]]
    assert all(row["bleu"] == 50 for row in new["rows"])
    assert [row.get("latency_ms") for row in new["rows"]] == [row.get("latency_ms") for row in old["rows"]]
    assert page.read_bytes() == before


def test_the_page_reads_what_the_script_writes(task: Task, table: dict[str, Any], modular: modtf.ModularModel) -> None:
    for measured in table, json.loads(bundled(f"{task.model}/table.json").read_text()):
        here = next(row for row in measured["rows"] if row["trained"] and row["ratio"] > 1)
        assert len(quality_curve(measured["rows"], task.metrics, here).data) == 2 * (
            1 + len({row["strategy"] for row in measured["rows"]})
        )
        assert f"<b>{here['speed_up']:.2f}×</b>" in quality_html(here, True, measured, task.metrics[:2])
        controller = Controller(modular, measured)
        assert controller.measured(modtf.Assembly.from_json(here["assembly"]), here["strategy"]) == (here, True)


def test_a_missing_ctranslate2_is_said_at_once(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["table.py", "--ctranslate2"])
    with pytest.raises(SystemExit):
        script.main()
    assert '-m pip install "modtf[ctranslate2]"' in capsys.readouterr().err


def test_ctranslate2_runs_the_same_model(script: ModuleType, task: Task, sources: list[str]) -> None:
    pytest.importorskip("ctranslate2", reason='it is in an extra: pip install "modtf[ctranslate2]"')
    modular = modtf.load(task.model)
    assembly, original = modular.choose(3), modular.mapping.original
    translators = script.compile_assembly(modular, assembly, threads=1)
    assert script.same_texts(modular, assembly, translators, sources)["float32"] == 1
    costs = script.latencies(modular, [original], sources, 1, 1, {original: translators})
    assert all(record.keys() >= SPEEDS for record in costs[original]["ctranslate2"].values())


# -- bundle.py ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2], ids=["one part", "two parts"])
def test_a_bundle(task: Task, modular: modtf.ModularModel, data: Path, tmp_path: Path, parts: int) -> None:
    kit, folder = tmp_path / "kit", tmp_path / "bundle"
    modular.save_pretrained(kit, copy_original=True)
    originals = [tmp_path / f"original-{i}" for i in range(parts)]
    kits = [*(tmp_path / f"kit-{i}" for i in range(parts - 1)), kit]
    for made in (*originals, *kits):
        made.mkdir(exist_ok=True)
        (made / "training.json").write_text(json.dumps({"of": made.name}))
        write_pairs([("another", "part's")], made / "pairs.jsonl")
    pairs = [(f"source {i}", f"text\u2028{i}") for i in range(8000)]
    write_pairs(pairs, kits[0] / "pairs.jsonl")
    if task.draw:  # then the kit's training has drawn and written these
        write_pairs([("a", "b")], kits[0] / "evaluation.jsonl")
    script = load_script("bundle")
    script.bundle(folder, originals, kits, str(data))

    loaded = modtf.load(folder)
    source = EXAMPLES[task][0].source
    assert loaded.task == task.name and loaded.generate(source, ratio=3) == modular.generate(source, ratio=3)
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) < 0.7 * sum(
        path.stat().st_size for path in kit.rglob("*.safetensors")
    )
    assert read_pairs(folder / "pairs.jsonl") == [Example(source, (text,)) for source, text in pairs[::2]]
    expected = [Example("a", ("b",))] if task.draw else EXAMPLES[task]
    assert read_pairs(folder / "evaluation.jsonl") == expected
    training = json.loads((folder / "training.json").read_text())
    if parts == 1:
        assert training == {"original": {"of": "original-0"}, "kit": {"of": "kit"}}
    else:
        assert training == {
            "original, part 1": {"of": "original-0"}, "original, part 2": {"of": "original-1"},
            "kit, part 1": {"of": "kit-0"}, "kit, part 2": {"of": "kit"},
        }  # fmt: skip


def test_nothing_is_bundled_without_the_data(
    modular: modtf.ModularModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = tmp_path / "kit"
    modular.save_pretrained(kit, copy_original=True)
    write_pairs([("a", "b")], kit / "pairs.jsonl")
    with pytest.raises(ModtfError):
        load_script("bundle").bundle(tmp_path / "bundle", [kit], [kit], str(tmp_path))
    assert not (tmp_path / "bundle").exists()


def test_spread() -> None:
    assert spread("abcdefg", 3) == ["a", "c", "e"] and spread("ab", 3) == ["a", "b"] and spread([], 3) == []
