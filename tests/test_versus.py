"""The comparison of a kit with students: what is trained, at what cost, and what is written down."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_table import load_script

import modtf
from modtf.evaluation import STUDENTS, measured_students
from modtf.recipes.recipe import Recipe
from modtf.saving import fingerprint_of
from modtf.tasks import TRANSLATION, Example
from modtf.tasks.examples import write_pairs
from modtf.training.options import Settings

ROOT = Path(__file__).parents[1]
#: Operations of a step of the tiny kit, about.
UNIT = 2e7
LINES = [
    ("I have been waiting for you all day.", "Ich habe den ganzen Tag auf dich gewartet."),
    ("Tom is reading a book in the garden.", "Tom liest im Garten ein Buch."),
    ("Who is the man at the door?", "Wer ist der Mann an der Tür?"),
]


def write_less(modular: modtf.ModularModel, assembly: modtf.Assembly, sources: list[str], batch_size: int) -> list[str]:
    """People's texts, without the last words where few layers are left."""
    texts = {german: english for english, german in LINES}
    return [" ".join(texts[source].split()[: len(assembly.encoder) + 4]) for source in sources]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("versus")


@pytest.fixture
def arguments(
    script: ModuleType, make_model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    kit = modtf.modularize(
        make_model("bart", vocabulary=len(tokenizer)), (2, 3, 6), tokenizer=tokenizer, task="translation"
    )
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("".join(f"{english}\t{german}\n" for english, german in LINES))
    write_pairs([("Mir ist kalt.", "I'm cold.")], tmp_path / "pairs.jsonl")
    (tmp_path / "data" / "translator").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    recipe = Recipe(kit=Settings(steps=1, batch_size=2, learning_rate=1e-2, adamw_learning_rate=1e-2))
    monkeypatch.setattr(modtf, "load", lambda name: copy.deepcopy(kit))
    for name, value in {
        "ROOT": tmp_path,
        "BUNDLED_MODELS": ("translator",),
        "COUNTED": 4,
        "TIMED": 2,
        "UNITS": {"translator": UNIT},
        "write_texts": write_less,
        "FIRST_RATES": (1.0,),
        "RATE_LIMITS": (1.0, 1.0),
    }.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "recipe_for", lambda task: recipe)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(
        "# Ä\n<!-- table: benchmarks/versus.py translator -->\n<!-- end of table -->\n"
    )
    return ["versus.py", "translator", "--data", str(tmp_path), "--pairs", str(tmp_path / "pairs.jsonl"),
            "--budgets", "4", "16", "--seeds", "0"]  # fmt: skip


def test_every_method_is_trained_and_compared_with_the_kit(
    script: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = tmp_path / "benchmarks" / "versus-translator-seconds.json"
    for more in (["--workers", "2"], ["--time"], ["--report"]):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        script.main()
        if more == ["--time"]:
            timed = json.loads(seconds.read_text())
            seconds.write_text(json.dumps(timed | {"seconds": dict.fromkeys(timed["seconds"], 30.0)}))
    made = json.loads((tmp_path / "data" / "translator" / "versus.json").read_text())
    assert made["done"] == made["of"] == 1 + 2 * 2 + 2 * (5 * 4 - 1 + 2), (
        "at fast, Theseus is SFT; alternating layers differ at 2x and 3x only"
    )
    rows = {(row["method"], row["size"], row["cost"]): row for row in made["rows"]}
    assert {method for method, _, _ in rows} == set(script.METHODS)
    assert {method for method, size, _ in rows if size == "1x"} == {"LayerDrop", "untrained"}
    assert {size for method, size, _ in rows if method == "untrained"} == {"1x", *made["sizes"]}
    assert 0 < made["megabytes"]["students_sharing"] <= made["megabytes"]["kit"] < made["megabytes"]["students"]
    for (method, size, cost), row in rows.items():
        assert row["dev"].keys() == row["test"].keys() == {"bleu", "chrf"}
        assert method == "untrained" or row["minutes"] == row["steps"] / 2
        if not script.METHODS[method].for_all:
            assert row["total"] == 4 * cost
            accounts = {"equal_total": 4 * cost} | ({"equal_each": cost} if cost == 4 else {})
            assert {name for name in row if name.startswith("equal")} == set(accounts)
            for name, budget in accounts.items():
                of_kit = rows["kit", size, budget]["test"]["bleu"]
                assert row[name]["bleu"] == pytest.approx(row["test"]["bleu"] - of_kit, abs=0.02)
                low, high = row[name]["bleu_interval"]
                assert low <= row[name]["bleu"] <= high
                assert row[name]["share"] == pytest.approx(100 * of_kit / row["test"]["bleu"], abs=0.2)
    assert rows["KD", "6x", 4]["steps"] > rows["KD", "2x", 4]["steps"] > 1, "small students pay for more steps"
    assert rows["kit", "2x", 4]["steps"] > rows["KD", "2x", 4]["steps"], "a kit's have no teacher"

    lines = (tmp_path / "docs" / "results.md").read_text().splitlines()
    header, *table = [line.split(" | ") for line in lines if line.startswith("| ")]
    minutes = [line.pop(2) for line in table]
    assert header[2] == "minutes" and not any(minutes[:2]) and all(minutes[2:])
    together = [(name.strip("| "), cost) for name, cost, *_ in table]
    methods = [(name, method) for name, method in script.METHODS.items() if name != "untrained"]
    assert together == [
        ("original", ""),
        ("untrained", "0"),
        *((name, "0.00032" if method.for_all else "4 × 8e-05") for name, method in methods),
        *((name, "8e-05" if method.for_all else "4 × 8e-05") for name, method in methods),
    ], "nobody has the largest budget each"
    assert "(" not in "".join(cell for line in table[:3] for cell in line[2:])
    assert all("(" in cell for cell in table[3][3:])
    assert table[0][2] == table[2][2] and not any(table[1][2] + table[3][2]), "a kit's 1x is the original"

    # On another machine only the archive is there: nothing is trained again, and the report is the same.
    shutil.rmtree(tmp_path / "build")
    for more in ([], ["--report"]):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        script.main()
    assert not list((tmp_path / "build").rglob("result.json"))
    assert json.loads((tmp_path / "data" / "translator" / "versus.json").read_text()) == made

    assert script.UNSETTLED not in (tmp_path / "docs" / "results.md").read_text()
    monkeypatch.setattr(script, "FIRST_RATES", (1.0, 2.0))
    monkeypatch.setattr(script, "RATE_LIMITS", (1.0, 2.0))
    script.main()
    rows = json.loads((tmp_path / "data" / "translator" / "versus.json").read_text())["rows"]
    assert len(rows) == len(made["rows"]) and all(row["settled"] == (row["method"] == "untrained") for row in rows)
    *table, marked = [
        line for line in (tmp_path / "docs" / "results.md").read_text().splitlines() if script.UNSETTLED in line
    ]
    assert len(table) == 2 * len(methods) and "not all learning rates" in marked


def test_the_plan_has_the_students_that_it_says(script: ModuleType) -> None:
    sizes = script.sizes_of(modtf.load("translator").mapping)
    runs = script.plan(sizes, (100, 400, 1600), (0, 1, 2))
    assert len(set(runs)) == len(runs)

    def students(method: str, cost: float) -> list[tuple[str, int]]:
        return [(run.size, run.seed) for run in runs if run.method == method and run.cost == cost]

    for method in ("KD", "sequence-level KD", "SFT", "SFT, all weights", "Theseus"):
        of = [size for size in sizes if (method, size) != ("Theseus", "fast")]
        assert sorted(students(method, 25)) == sorted((size, seed) for size in of for seed in range(3))
        assert students(method, 100) == [(size, 0) for size in of]
    assert students("KD", 400) == students("sequence-level KD", 400) == [(size, 0) for size in sizes]
    fewer = [("2x", 0), ("6x", 0), ("fast", 0)]
    assert students("SFT", 400) == students("SFT, all weights", 400) == fewer
    assert students("Theseus", 400) == fewer[:2]
    assert students("SFT, alternating layers", 400) == [("2x", 0)]
    assert not [run for run in runs if run.size and run.cost == 1600]
    for method in ("kit", "LayerDrop"):
        assert [len(students(method, cost)) for cost in (100, 400, 1600)] == [3, 1, 1]
    runs = script.plan(sizes, (25, 100, 400), (0, 1, 2), seeded=100)
    assert [len(students("SFT", cost)) for cost in (6.25, 25, 100)] == [4, 12, 3], "and fewer sizes from the middle on"
    assert [len(students("kit", cost)) for cost in (25, 100, 400)] == [1, 3, 1]
    runs = script.plan(sizes, (25, 100, 400), (0, 1, 2), 100, ("SFT", "LayerDrop"))
    assert [len(students("SFT", cost)) for cost in (6.25, 25, 100)] == [0, 4, 3], "one seed, no smallest shares"
    assert [len(students("LayerDrop", cost)) for cost in (25, 100, 400)] == [1, 1, 1], (
        "what has all sizes has no shares"
    )
    assert [len(students("KD", cost)) for cost in (6.25, 25, 100)] == [4, 12, 4]
    assert script.plan(sizes, (25, 100), (0, 1), seeded=400) == script.plan(sizes, (25, 100), (0, 1)), "the smallest"


def test_what_is_done_is_not_done_again(
    script: ModuleType,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [*arguments, "--methods", "kit"])
    script.main()
    result = tmp_path / "build" / "versus" / "translator" / "kit-all-4-0" / "result.json"
    before = result.stat().st_mtime_ns
    script.main()
    assert result.stat().st_mtime_ns == before
    # Killed as it wrote its texts: the training is there, and goes on only with the same settings.
    for other in result.parent.parent.glob("*/result.json"):
        other.unlink()
    monkeypatch.setattr(script, "UNITS", {"translator": 2 * UNIT})
    with pytest.raises(SystemExit):
        script.main()
    assert "other settings or precision began in" in capsys.readouterr().err
    monkeypatch.setattr(script, "UNITS", {"translator": UNIT})
    (result.parent.parent / "untrained-all-0-0" / "result.json").unlink()
    script.main()
    result.write_text(json.dumps(json.loads(result.read_text()) | {"of": "another original"}))
    for more in ([], ["--report"]):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        with pytest.raises(modtf.ModtfError, match="is of another original"):
            script.main()
    monkeypatch.setattr(sys, "argv", [*arguments, "--ablation", "--report"])
    with pytest.raises(SystemExit):
        script.main()


@pytest.mark.parametrize(
    "run", [("KD", "2x"), ("SFT", "6x"), ("sequence-level KD", "fast"), ("kit", "")], ids=lambda run: run[0]
)
def test_small_batches_tell_what_large_ones_cost(
    script: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: tuple[str, str]
) -> None:
    people = [(" ".join(english.split()[:k]), german) for k in range(1, 7) for english, german in LINES * 16]
    (tmp_path / "train.tsv").write_text(
        "".join(f"{english}\t{german} {i}\n" for i, (english, german) in enumerate(people))
    )
    write_pairs([(f"{german} {i}", english) for i, (english, german) in enumerate(people)], tmp_path / "pairs.jsonl")
    monkeypatch.setattr(script, "COUNTED", 24 if run[1] else 100)
    comparison = script.Comparison("translator", str(tmp_path), tmp_path / "pairs.jsonl")
    this = script.Run(*run, 4, 0)
    examples = comparison.examples(script.METHODS[run[0]].texts)
    texts = sum(len(example.references) for example in examples)
    batches = script.TaskBatches(comparison.task, examples, comparison.tokenizer, -(-texts // 48), 48)
    model = comparison.modular(this)
    steps = len(batches) * (1 if this.size else 12)  # a kit draws its assemblies
    monkeypatch.setattr(script, "COUNTED_DRAWS", steps)
    trainer = modtf.ModularTrainer(model, comparison.arguments(this, steps, tmp_path), train_dataset=batches)
    trainer.current_gradient_accumulation_steps = 1
    script.encode_sources_once(model.model)
    with script.FlopCounterMode(display=False) as counter:
        for step in range(steps):
            trainer.state.global_step = step
            trainer.training_step(model, batches[step % len(batches)])
    assert comparison.operations(this, 48) == pytest.approx(counter.get_total_flops() / steps, rel=0.05)


def test_rates_are_tried_from_the_first_ones_to_worse_ones(script: ModuleType) -> None:
    assert script.rates_to_try({}) == [1, 2] and script.rates_to_try({2: 40.0}) == [1]
    assert script.rates_to_try({1: 40.0, 2: 41.0}) == [4]
    assert script.rates_to_try({1: 40.0, 2: 39.0}) == [0.5]
    assert script.rates_to_try({1: 40.0, 2: 41.0, 4: 42.0}) == [8]
    assert script.rates_to_try({1: 40.0, 2: 41.0, 4: 39.0}) == [], "2 is the best, 1 and 4 are known"
    assert script.rates_to_try({1: 1.0, 2: 2.0, 4: 3.0, 8: 4.0, 16: 5.0}) == [], "no more than the limit"
    assert script.rates_to_try({}, 4, 0.5) == [4, 2]
    assert script.rates_to_try({4: 40.0, 2: 41.0}, 4, 0.5) == [1]
    assert script.rates_to_try({4: 41.0, 2: 40.0}, 4, 0.5) == [], "a larger budget likes no higher one"
    assert script.rates_to_try({4: 40.0, 8: 41.0}, 4, 2) == [16], "a smaller one may"
    assert script.rates_to_try({16: 40.0}, 16, 2) == [], "no more than the limit"


def test_each_training_has_the_best_learning_rate_of_its_size(
    script: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "FIRST_RATES", (1.0, 2.0))
    monkeypatch.setattr(script, "RATE_LIMITS", (0.25, 16.0))
    comparison = script.Comparison("translator", str(tmp_path), tmp_path / "pairs.jsonl", (4, 16, 64))
    scores = {
        ("KD", "2x"): {1: 1, 2: 2, 4: 3, 8: 2},
        ("KD", "6x"): {0.5: 1, 1: 2, 2: 1},
        ("kit", ""): {1: 3, 2: 2, 0.5: 1},
    }
    done = {
        script.Run(method, size, 4, 0, rate): {"bleu": score}
        for (method, size), by_rate in scores.items()
        for rate, score in by_rate.items()
    }
    done[script.Run("kit", "", 16, 0, 1)] = {"bleu": 5}
    monkeypatch.setattr(comparison, "on_dev", lambda result: result)
    rates = {size: comparison.with_rate(script.Run("KD", size, 4, 1), done) for size in comparison.sizes}
    assert {size: run and run.rate for size, run in rates.items()} == {"2x": 4, "3x": 4, "6x": 1, "fast": None}
    reported = functools.partial(comparison.with_rate, done=done, settled=False)
    assert reported(script.Run("KD", "fast", 4, 1)) is None, "none was tried"
    assert reported(script.Run("KD", "2x", 16, 0)).rate == 4, "none was tried at this budget"
    assert comparison.with_rate(script.Run("logits alone", "", 4, 0), done).rate == 1, "the kit's"
    assert comparison.trials(script.Run("logits alone", "", 16, 0), done) == [script.Run("kit", "", 16, 0, 0.5)]
    done[script.Run("kit", "", 16, 0, 0.5)] = {"bleu": 6}
    assert comparison.trials(script.Run("kit", "", 64, 0), done) == [script.Run("kit", "", 16, 0, 0.25)]
    done[script.Run("kit", "", 16, 0, 0.25)] = {"bleu": 4}
    assert comparison.with_rate(script.Run("kit", "", 64, 0), done) == script.Run("kit", "", 64, 0, 0.5)
    four = script.Comparison("translator", str(tmp_path), tmp_path / "pairs.jsonl", (4, 16, 64, 256))
    monkeypatch.setattr(four, "on_dev", lambda result: result)
    assert four.trial(script.Run("KD", "2x", 64, 0), 2) == script.Run("KD", "2x", 16, 0, 2)
    assert four.trials(script.Run("kit", "", 256, 0), done) == [
        script.Run("kit", "", 64, 0, rate) for rate in (0.5, 0.25)
    ], "at a quarter of its cost, from the best one of the budget before"
    assert comparison.trials(script.Run("KD", "fast", 16, 0), done) == [
        script.Run("KD", "fast", 4, 0, r) for r in (1, 2)
    ]
    runs = comparison.open([script.Run("KD", size, 4, 1) for size in comparison.sizes], done)
    assert runs == [
        *(script.Run("KD", "fast", 4, 0, rate) for rate in (1, 2)),
        *(script.Run("KD", size, 4, 1, rate) for size, rate in (("2x", 4), ("3x", 4), ("6x", 1))),
        script.Run("untrained", "", 0, 0),
    ], "the costlier ones first"
    assert comparison.trials(script.Run("KD", "6x", 1, 2), done) == [script.Run("KD", "6x", 1, 0, r) for r in (1, 2)]
    done |= {script.Run("KD", "6x", 1, 0, rate): {"bleu": score} for rate, score in {1: 1, 2: 2, 4: 1}.items()}
    assert comparison.with_rate(script.Run("KD", "6x", 1, 2), done) == script.Run("KD", "6x", 1, 2, 2)


def test_a_rate_is_a_factor_of_both_learning_rates(
    script: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    for name in ("train_kit", "train_original"):
        train = getattr(script, name)

        def recorded(*given: Any, train: Any = train) -> None:
            args, _, adamw = given[given.index(2) - 1 : given.index(2) + 2]  # beside the batch size
            used.append((args.learning_rate, adamw))
            train(*given)

        monkeypatch.setattr(script, name, recorded)
    comparison = script.Comparison("translator", str(tmp_path), tmp_path / "pairs.jsonl", (4,))
    for method, size in (("KD", "6x"), ("SFT, all weights", "6x"), ("LayerDrop", "")):
        comparison.train(script.Run(method, size, 1, 0, 4), tmp_path / method)
    assert used == [(4e-2, 4e-2)] * 3


def test_layerdrop_writes_with_what_it_learned(
    script: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = script.Comparison("translator", str(tmp_path), tmp_path / "pairs.jsonl", (4,))
    monkeypatch.setattr(comparison, "result", lambda run, modular, *about: modular)
    trained = comparison.train(script.Run("LayerDrop", "", 1, 0), tmp_path / "run").original_weights()
    before = comparison.original().state_dict()
    changed = {name for name, weight in trained.items() if not torch.equal(weight, before[name])}
    assert "model.shared.weight" in changed and any("decoder.layers.0." in name for name in changed)


def test_a_worker_leaves_out_what_another_one_trains(script: ModuleType, tmp_path: Path) -> None:
    with script.claimed(tmp_path / "kit") as mine, script.claimed(tmp_path / "kit") as another:
        assert mine and not another
    with script.claimed(tmp_path / "kit") as mine:
        assert mine


def test_a_training_of_all_weights_resumes_to_the_bit(
    script: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = script.Comparison("translator", str(tmp_path), tmp_path / "pairs.jsonl", (4,))
    run = script.Run("SFT, all weights", "fast", 4, 0)
    monkeypatch.setattr(comparison, "steps", lambda run, batch_size: 4)
    arguments_of = comparison.arguments
    monkeypatch.setattr(
        comparison, "arguments", lambda *given: replace(arguments_of(*given), save_steps=2, save_total_limit=2)
    )
    weights = []
    monkeypatch.setattr(comparison, "result", lambda run, modular, *about: weights.append(modular.state_dict()))
    comparison.train(run, tmp_path / "run")
    began = comparison.modular(run).state_dict()
    changed = {name for name, value in weights[0].items() if not torch.equal(value, began[name])}
    for part in ("model.encoder.embed_tokens", "encoder.layers.originals.5.", "decoder.layers.banks.6."):
        assert any(part in name for name in changed)
    assert not any("decoder.layers.originals." in name for name in changed), "the student has no such layers"
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    comparison.train(run, tmp_path / "run")
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_intervals_cover_inputs_and_seeds(script: ModuleType) -> None:
    texts = {"test": [f"It is {words}." for words in ("cold", "very cold", "late", "not late")]}
    results = [
        {"method": method, "cost": 1, "seed": seed, "texts": {"2x": {"test": texts["test"][seed:] + ["Yes."] * seed}}}
        for method, seeds in (("kit", 3), ("KD", 1))
        for seed in range(seeds)
    ]
    examples = [Example("", (text,)) for text in texts["test"]]
    comparison = SimpleNamespace(
        task=TRANSLATION,
        test=examples,
        scores=lambda result, size, split: TRANSLATION.score(examples, result["texts"][size][split]),
    )
    by_size = script.scatter_of_seeds(comparison, results)
    of_kits = [script.drawn_scores(TRANSLATION, examples, one["texts"]["2x"]["test"])["bleu"] for one in results[:3]]
    of_seeds = [TRANSLATION.score(examples, one["texts"]["2x"]["test"])["bleu"] for one in results[:3]]
    scatter, of_inputs = np.std(of_seeds, ddof=1), np.var(np.mean(of_kits, 0)[1:])
    assert by_size["2x"]["bleu"] == (pytest.approx(scatter), 2) and scatter > 1
    assert script.scatter_of_seeds(comparison, results[:1]) == {}
    of_another = [one | {"method": "SFT", "texts": {"2x": {"test": texts["test"]}}} for one in results[:2]]
    pooled = script.scatter_of_seeds(comparison, [*results, *of_another])
    assert pooled["2x"]["bleu"] == (pytest.approx(scatter * (2 / 3) ** 0.5), 3), "pooled over two methods"
    groups = script.drawn_groups(comparison, results, {"2x": {"bleu": (scatter, 10**6)}})
    kits = groups["kit", "2x", 1]["bleu"]
    assert kits[0] == pytest.approx(np.mean([scores[0] for scores in of_kits]))
    assert np.var(kits[1:]) == pytest.approx(of_inputs + scatter**2 / 3, rel=0.15), "a mean of three"
    of_student = np.var(script.drawn_scores(TRANSLATION, examples, results[3]["texts"]["2x"]["test"])["bleu"][1:])
    assert np.var(groups["KD", "2x", 1]["bleu"][1:]) == pytest.approx(of_student + scatter**2, rel=0.15), "the kits'"
    same = [one | {"texts": {"2x": {"test": texts["test"]}}} for one in results]  # so only seeds scatter
    groups = script.drawn_groups(comparison, same, {"2x": {"bleu": (1.0, 4)}})
    difference = groups["kit", "2x", 1]["bleu"][1:] - groups["KD", "2x", 1]["bleu"][1:]
    t_of_4 = 2.776 * (1 / 3 + 1) ** 0.5
    assert np.percentile(difference, [2.5, 97.5]) == pytest.approx([-t_of_4, t_of_4], rel=0.1), "Student's, 95 %"
    kit, other = np.array([38.0, 37.0, 39.0]), np.array([40.0, 40.0, 40.0])
    assert script.share(kit, other) == {"share": 95.0, "share_interval": [92.6, 97.4]}
    assert script.share(kit, 0 * other) == {}
    row = {"mean": {"bleu": 0.4}, "settled": True, "equal_each": {"bleu": -37.6, "bleu_interval": [-39, -36]}}
    assert script._cell(row, "equal_each", "bleu") == "0.4", "no difference in a table of shares"


def test_kits_that_learn_otherwise_are_compared_with_the_kit(
    script: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "RATE_LIMITS", (1.0, 2.0))
    names = ["logits alone", "no strategies' paths", "begun as the mean layer"]
    log = tmp_path / "benchmarks" / "LOG.md"
    log.write_text("<!-- table: benchmarks/versus.py translator --ablation -->\n<!-- end of table -->\n")
    for more in (["--ablation", "--methods", *names], ["--methods", "kit"], ["--report"]):
        monkeypatch.setattr(sys, "argv", [*arguments, "--budgets", "4", *more])
        script.main()
    made = json.loads((tmp_path / "data" / "translator" / "versus.json").read_text())
    assert {(row["method"], row["size"]) for row in made["ablation"]} == {
        (name, size) for name in names for size in ("2x", "3x", "6x", "fast")
    }
    assert all("bleu_interval" in row["equal_each"] for row in made["ablation"])
    head, _, kit, *others = [line for line in log.read_text().splitlines() if line.startswith("|")]
    assert head == "|  | 2x (3-3) | 3x (2-2) | 6x (1-1) | fast (6-1) |"
    assert kit.startswith("| kit | ") and "(" not in kit
    assert [line.split(" | ")[0] for line in others] == [f"| {name}" for name in names]
    row = next(row for row in made["ablation"] if (row["method"], row["size"]) == (names[0], "2x"))
    assert (
        f"| {names[0]} | {row['mean']['bleu']:.1f} (" in others[0]
        and f"{row['equal_each']['bleu']:+.1f}, " in others[0]
    )
    assert {row["method"] for row in made["rows"]} == {"kit", "untrained"}
    assert [(row["method"], row["rate"]) for row in made["sweep"]] == [("kit", 1), ("kit", 2)]


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_what_modules_begin_as(script: ModuleType, make_model: Any, family: str) -> None:
    modular = modtf.modularize(make_model(family), (2, 3, 6))
    originals = [layer.state_dict() for layer in modular.stacks[1].layers((1,) * 6)]
    before = next(iter(modular.stacks[1].layers((2, 2, 2)))).state_dict().keys()
    for start in ("last", "mean"):
        script.begin_with(modular, start)
        for k, layer in enumerate(modular.stacks[1].layers((3, 3))):
            group = originals[3 * k : 3 * k + 3]
            for name in group[-1]:
                mean = sum(layer[name] for layer in group) / 3
                expected = group[-1][name] if start == "last" else mean
                torch.testing.assert_close(layer.state_dict()[name], expected)
    assert next(iter(modular.stacks[1].layers((2, 2, 2)))).state_dict().keys() == before


def test_cost_shares(script: ModuleType) -> None:
    assemblies = {"2x": modtf.Assembly((2, 2, 2), (2, 2, 2)), "6x": modtf.Assembly((6,), (6,))}
    plan = script.plan(assemblies, [10, 20], [0, 1])
    assert len(set(plan)) == len(plan) and len({run.name for run in plan}) == len(plan)
    assert {run.cost for run in plan if run.method == "KD"} == {5, 10}, "equal each at 10 is equal total at 20"
    assert {run.seed for run in plan if run.method == "kit" and run.cost == 20} == {0}


def test_alternating_layers(script: ModuleType, make_model: Any) -> None:
    assert [script.alternating((1,) * 6 if n == 6 else (6 // n,) * n) for n in (1, 2, 3, 6)] == [
        [0], [0, 5], [0, 2, 5], [0, 1, 2, 3, 4, 5],
    ]  # fmt: skip
    model = make_model("bart")
    modular = modtf.modularize(model, (2, 3, 6))
    assembly = modtf.Assembly((3, 3), (1,) * 6)
    script.take_alternating_layers(modular, assembly)
    encoder = modular.stacks[0]
    taken, last = list(encoder.layers((3, 3)))[1].state_dict(), list(encoder.layers((1,) * 6))[5].state_dict()
    assert all(torch.equal(taken[name], last[name]) for name in last)


def test_dropped_layers_are_the_others_of_training_only(script: ModuleType, make_model: Any) -> None:
    model = script.drop_layers(make_model("t5", dropout_rate=0.0), 0.5)
    ids = torch.tensor([[5, 6, 1]])
    torch.manual_seed(0)
    model.train()
    assert len({len(list(model.encoder.block)) for _ in range(30)}) > 2
    assert all(layer is model.encoder.block[0] for layer in [next(iter(model.encoder.block)) for _ in range(9)])
    model.eval()
    assert len(list(model.encoder.block)) == 6
    assert torch.isfinite(model(input_ids=ids, labels=ids).loss)


def test_bootstrap_counts_give_bleu(script: ModuleType) -> None:
    from modtf.tasks.scores import bleu

    texts, references = (
        ["a cat sat on the mat", "hello there you all"],
        [["a cat sat on a mat"], ["hello there you", "hi"]],
    )
    examples = [Example("", tuple(of_text)) for of_text in references]
    scores = script.drawn_scores(TRANSLATION, examples, texts)["bleu"]
    assert scores[0] == pytest.approx(bleu(texts, references))
    assert scores[1:].min() < scores[0] < scores[1:].max()


def test_students_beside_the_measured_table(make_model: Any, tmp_path: Path) -> None:
    kit = modtf.modularize(make_model("bart"), (2, 3, 6), task="text")
    kit.save_pretrained(tmp_path / "kit", copy_original=True)
    kit = modtf.load(tmp_path / "kit")
    sizes = {"2x": modtf.Assembly((2, 2, 2), (2, 2, 2)), "fast": modtf.Assembly((1,) * 6, (6,))}
    table = {"rows": [{"trained": True, "layers": "3-3", "speed_up": 1.5}]}

    def row(method: str, size: str, cost: float, total: float, score: float) -> dict[str, Any]:
        return {
            "method": method,
            "size": size,
            "cost": cost,
            "total": total,
            "seed": 0,
            "test": {"bleu": score, "chrf": score},
        }

    made = {
        "original": fingerprint_of(kit.original_weights(), torch.float16),
        "sizes": {name: assembly.to_json() for name, assembly in sizes.items()},
        "rows": [
            row("untrained", "1x", 0, 0, 80.0), *(row("kit", "2x", cost, cost, 70.0) for cost in (100, 400)),
            *(row("SFT", size, cost, 4 * cost, 40.0) for size in sizes for cost in (25, 100, 400)),
            row("KD", "2x", 100, 400, 50.0), row("sequence-level KD", "2x", 100, 400, 56.0),
            row("SFT, all weights", "2x", 100, 400, 60.0),
        ],
    }  # fmt: skip
    (tmp_path / "kit" / "versus.json").write_text(json.dumps(made))
    of_kit, together, distilled, of_its_texts, all_weights = measured_students(kit, table)
    assert of_kit["kind"] == STUDENTS["kit", "cost"] and of_kit["bleu_kept"] == 87.5
    assert together == {
        "kind": STUDENTS["SFT", "total"], "layers": "3-3", "ratio": 2.0, "speed_up": 1.5, "bleu_kept": 50.0, "chrf_kept": 50.0
    }, "of the largest budget; 6-1 has no measured speed"  # fmt: skip
    assert distilled["kind"] == STUDENTS["KD", "total"] and distilled["bleu_kept"] == 62.5
    assert of_its_texts["kind"] == STUDENTS["sequence-level KD", "total"] and of_its_texts["bleu_kept"] == 70.0
    assert all_weights["kind"] == STUDENTS["SFT, all weights", "total"] and all_weights["bleu_kept"] == 75.0
    assert measured_students(kit, None) == []
    for broken in (json.dumps(made | {"original": "another"}), "{", "null", json.dumps(made | {"rows": []})):
        (tmp_path / "kit" / "versus.json").write_text(broken)
        assert measured_students(kit, table) == []


def test_pockets_methods_learn_from_texts_without_slot_errors(
    script: ModuleType, tokenizer: Any, make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = modtf.modularize(make_model("t5", vocabulary=len(tokenizer)), (2, 3, 6), tokenizer=tokenizer, task="e2e")
    monkeypatch.setattr(modtf, "load", lambda name: copy.deepcopy(kit))
    monkeypatch.setattr(script, "ROOT", tmp_path)
    task = script.task_named("e2e")
    for split in (task.train_split, "dev", task.test_split):
        (tmp_path / f"{split}.csv").write_text("mr,ref\nname[The Vaults],The Vaults is cheap.\n")
    mr = "name[The Vaults], food[Indian]"
    write_pairs(
        [
            (mr, "The Vaults serves Indian food."),
            (mr, "The Vaults serves food."),
            ("name[The Vaults]", "The Vaults is a place."),
        ],
        tmp_path / "pairs.jsonl",
    )
    comparison = script.Comparison("pocket", str(tmp_path), tmp_path / "pairs.jsonl")
    assert comparison.budgets == [25, 100, 400, 1600]
    assert comparison.examples("original") == [Example(mr, ("The Vaults serves Indian food.",))]
    weights = {}
    for name, size in (("kit", ""), ("KD", "2x"), ("sequence-level KD", "2x"), ("SFT", "2x")):
        run = script.Run(name, size, 25, 0)
        args = comparison.arguments(run, 10, tmp_path)
        weights[name] = comparison.methods[name].texts, args.labels_weight, args.logits_weight, args.hidden_weight
    assert weights["kit"] == weights["sequence-level KD"] == ("original", 1, 0, 0)
    assert weights["KD"] == ("original", 1, 1, 0) and weights["SFT"] == ("people", 1, 0, 0)
    monkeypatch.setattr(sys, "argv", ["versus.py", "pocket", "--ablation"])
    with pytest.raises(modtf.ModtfError, match="translator"):
        script.main()


def test_errors_scatter_by_their_size(script: ModuleType) -> None:
    mr = "name[The Vaults], food[Indian]"
    texts = ["The Vaults serves Indian food.", "The Vaults is a place.", "A place."]  # 0, 1 and 2 of 2 slots are missed
    examples = [Example(mr, (texts[0],))] * 4
    written = [
        [texts[0]] * 3 + [texts[1]],
        [texts[0]] * 2 + [texts[1]] * 2,
        [texts[0]] * 3 + [texts[2]],
        [texts[0]] * 4,
    ]
    results = [
        {"method": "KD", "cost": 1, "seed": seed, "texts": {"2x": {"test": of_seed}}}
        for seed, of_seed in enumerate(written)
    ]
    task = script.task_named("e2e")
    comparison = SimpleNamespace(
        task=task,
        test=examples,
        scores=lambda result, size, split: task.score(examples, result["texts"][size][split]),
    )
    scatter = script.scatter_of_seeds(comparison, results)
    deviation, df = scatter["2x"]["ser"]
    assert deviation == pytest.approx(np.std(np.log([12.5, 25, 25, script.LEAST_ERRORS]), ddof=1)) and df == 3
    drawn = script.drawn_groups(comparison, results[:1], scatter)["KD", "2x", 1]["ser"]
    assert drawn[0] == 12.5 and drawn.min() >= 0, "no fewer than none"
    assert len(set(drawn.round(3))) > 100
