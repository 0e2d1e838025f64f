"""What a kit's layers cost, and the choice of the best assembly from it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import modtf
from modtf import cli, profile
from modtf.errors import ModtfError
from modtf.evaluation import size_of_assembly
from modtf.mapping import Assembly, Mapping, StackMapping
from modtf.profile import Losses, fit, random_assembly
from modtf.quality import Fit, Profile, cheapest_paths, features, quality_first
from modtf.tasks import TRANSLATION, Example
from modtf.tasks.task import Metric
from modtf.views.explorer import Explorer

MAPPING = Mapping(StackMapping(6, (2, 3, 6)), StackMapping(6, (2, 3)))
DEEP = Mapping(StackMapping(12, (2, 3, 4, 6)), StackMapping(12, (2, 3, 4, 6)))
EXAMPLES = [
    Example("Mir ist kalt.", ("I am cold.",)),
    Example("Tom liest ein Buch.", ("Tom is reading a book.",)),
    Example("Wer ist da?", ("Who is there?",)),
]


def score_layers(modular: Any, assembly: Assembly, examples: Any) -> dict[str, float]:
    return {"bleu": 5.0 * assembly.layers, "chrf": 6.0 * assembly.layers}


def random_costs(seed: int, mapping: Mapping = MAPPING) -> Fit:
    rng = Random(seed)
    names = {
        name for e in mapping.encoder.paths() for d in [mapping.decoder.original] for name in features(Assembly(e, d))
    }
    names |= {name for d in mapping.decoder.paths() for name in features(Assembly(mapping.encoder.original, d))}
    return Fit(rng.random(), {name: rng.uniform(-0.1, 1) for name in sorted(names)})


# -- costs and paths ---------------------------------------------------------------------------------------------------


def test_features_are_modules_and_neighbours() -> None:
    assert features(Assembly((1, 1, 2, 2), (3, 3))) == {
        "encoder m(2, 1)": 1, "encoder m(2, 2)": 1, "encoder 1·1": 1, "encoder 1·2": 1, "encoder 2·2": 1,
        "decoder m(3, 0)": 1, "decoder m(3, 1)": 1, "decoder 3·3": 1,
    }  # fmt: skip


@given(st.integers(0, 50))
def test_the_cheapest_paths_are_those_of_a_full_search(seed: int) -> None:
    costs = random_costs(seed).costs
    for stack in MAPPING.stacks:
        found = cheapest_paths(stack, costs)
        assert tuple(found) == stack.lengths

        def cost(path: tuple[int, ...], stack: StackMapping = stack) -> float:
            paths = {"encoder": MAPPING.encoder.original, "decoder": MAPPING.decoder.original, stack.name: path}
            return sum(costs[n] * k for n, k in features(Assembly(**paths)).items() if n.startswith(stack.name))

        for length, path in found.items():
            stack.check(path)
            assert cost(path) == pytest.approx(min(cost(p) for p in stack.paths() if len(p) == length))


@given(st.integers(0, 20))
def test_a_fit_predicts_what_is_a_sum(seed: int) -> None:
    """Up to what ridge regression gives away."""
    truth = random_costs(seed)
    every = [Assembly(e, d) for e, d in product(MAPPING.encoder.paths(), MAPPING.decoder.paths())]
    values = {assembly: truth.predicted(assembly) for assembly in every}
    fitted = fit(values)
    assert all(fitted.predicted(a) == pytest.approx(values[a], abs=0.05 * max(values.values())) for a in every)


@given(st.integers(0, 1000))
def test_random_assemblies_are_possible(seed: int) -> None:
    DEEP.check(random_assembly(Random(seed), DEEP))


def test_random_assemblies_have_all_lengths() -> None:
    rng = Random(0)
    drawn = [random_assembly(rng, DEEP) for _ in range(400)]
    assert {len(assembly.encoder) for assembly in drawn} >= set(range(2, 12))
    assert len(set(drawn)) > 350


def test_cross_validation_tells_sums_from_noise() -> None:
    truth, rng = random_costs(3), Random(1)
    drawn = [random_assembly(rng, MAPPING) for _ in range(120)]
    sums = profile.cross_validated({assembly: truth.predicted(assembly) for assembly in drawn})
    noise = profile.cross_validated({assembly: rng.random() for assembly in drawn})
    assert sums["rank_correlation"] > 0.95 > 0.5 > noise["rank_correlation"]
    assert sums["relative_error"] < 0.1 < noise["relative_error"]


# -- measuring ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def modular(make_model: Any, tokenizer: Any) -> modtf.ModularModel:
    return modtf.modularize(
        make_model("bart", vocabulary=len(tokenizer)), (2, 3, 6), tokenizer=tokenizer, task="translation"
    )


def loss_of(modular: modtf.ModularModel, assembly: Assembly, pairs: list[tuple[str, str]]) -> float:
    """The cross-entropy with some texts, one after the other."""
    total = tokens = 0.0
    for source, text in pairs:
        ids, labels = (modular.tokenizer(one, return_tensors="pt")["input_ids"] for one in (source, text))
        with torch.no_grad():
            total += modular(assembly, input_ids=ids, labels=labels).loss.item() * labels.numel()
        tokens += labels.numel()
    return total / tokens


def test_losses_are_those_of_peoples_first_texts(modular: modtf.ModularModel) -> None:
    more = [replace(example, references=(*example.references, "Another one.")) for example in EXAMPLES]
    measured = Losses(modular, more, batch_size=2)
    for assembly in (modular.mapping.original, modular.mapping.coarsest):
        expected = loss_of(modular, assembly, [(example.source, example.references[0]) for example in EXAMPLES])
        assert measured.of(assembly) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("right", [(0, 2), ()])
def test_where_faults_can_be_told_faultless_texts_are_the_measure(
    modular: modtf.ModularModel, monkeypatch: pytest.MonkeyPatch, right: tuple[int, ...]
) -> None:
    texts = ["I am cold.", "Tom reads.", "Who is there?"]
    writers = []

    def write(modular: Any, assembly: Assembly, sources: list[str]) -> list[str]:
        writers.append(assembly)
        return texts

    task = replace(TRANSLATION, faultless=lambda source, text: text in [texts[i] for i in right])
    monkeypatch.setattr(profile, "write_texts", write)
    monkeypatch.setattr(profile, "task_named", lambda name: task)
    if not right:
        with pytest.raises(modtf.ModtfError, match="all of the 3 texts"):
            Losses(modular, EXAMPLES)
        return
    measured = Losses(modular, EXAMPLES)
    assert writers == [modular.mapping.original]
    for assembly in (modular.mapping.original, modular.mapping.coarsest):
        expected = loss_of(modular, assembly, [(EXAMPLES[i].source, texts[i]) for i in right])
        assert measured.of(assembly) == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def kit(modular: modtf.ModularModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit with its profile, and the data beside it; made by the command."""
    folder = tmp_path_factory.mktemp("kit")
    modular.save_pretrained(folder, copy_original=True)
    (folder / "dev.tsv").write_text("".join(f"{e.references[0]}\t{e.source}\n" for e in EXAMPLES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "RANDOM", 12)
        patch.setattr(profile, "measure_quality", score_layers)
        assert cli.main(["profile", "--model", str(folder), "--data", str(folder), "--inputs", "3"]) == 0
    return folder


def test_a_profile_chooses_the_least_loss_of_a_size(kit: Path) -> None:
    modular = modtf.load(kit)
    measured = modular.profile
    assert measured.examples == 3 and not (kit / "profile.json.part").exists()
    assert Profile.from_json(json.loads(json.dumps(measured.to_json()))).to_json() == measured.to_json()
    for ratio in (1, 1.5, 2, 3, 6):
        best = modular.choose(ratio, "quality_first")
        assert best.layers == modular.choose(ratio).layers and best in measured.losses
        for strategy in ("size_first", "speed_first"):
            other = modular.choose(ratio, strategy)
            assert other.layers != best.layers or measured.loss(best) <= measured.loss(other)
    small = modular.assemble(2, "quality_first")
    assert small.config.encoder_layers + small.config.decoder_layers == 6
    assert isinstance(modular.generate("Wer ist da?", 3, "quality_first", max_new_tokens=3), str)


def test_limits(kit: Path) -> None:
    modular = modtf.load(kit)
    measured = modular.profile
    size = size_of_assembly(modular, modular.choose(3))
    for name, limit in (
        ("max_parameters", size.parameters), ("max_megabytes", size.megabytes),
        ("max_latency_ms", measured.latency_ms(modular.choose(3))),
    ):  # fmt: skip
        chosen = quality_first(modular.mapping, measured, **{name: limit})
        costs = {
            "max_parameters": size_of_assembly(modular, chosen).parameters,
            "max_megabytes": size_of_assembly(modular, chosen).megabytes,
            "max_latency_ms": measured.latency_ms(chosen),
        }
        assert costs[name] <= limit
        assert measured.loss(chosen) <= measured.loss(modular.choose(3))
    assert modular.choose(strategy="quality_first", min_quality=50).layers == 6, "the score was made 5 for each layer"
    small = modular.choose(strategy="quality_first", min_quality=30)
    given = {"strategy": "quality_first", "min_quality": 30, "max_new_tokens": 4}
    assert modular.generate("Wer ist da?", **given) == modular.generate("Wer ist da?", assembly=small, max_new_tokens=4)
    assert modular.choose(strategy="quality_first", max_parameters=1e12) == min(
        measured.losses, key=measured.losses.__getitem__
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no limit given; give one of ratio, max_parameters"),
        ({"ratio": 2, "min_quality": 90}, "ratio, min_quality given; give one of"),
        ({"max_parameters": 10}, "no assembly has 10 parameters or less; the smallest one has"),
        ({"max_megabytes": 1e-9}, "no assembly has 1e-09 megabytes or less"),
        ({"max_latency_ms": 1e-9}, "no assembly has 1e-09 ms or less"),
        ({"min_quality": 101}, "min_quality is 101; give a percentage of the full model's scores, up to 100"),
        ({"max_megabytes": True}, "max_megabytes is True; give a number above 0"),
        ({"min_quality": float("nan")}, "min_quality is nan; give a number above 0"),
        ({"ratio": 7}, "ratio 7.0 is out of reach"),
    ],
)
def test_words_for_limits(kit: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ModtfError) as raised:
        modtf.load(kit).choose(strategy="quality_first", **given)
    assert words in str(raised.value)


def test_words_for_a_missing_profile(modular: modtf.ModularModel, kit: Path, tmp_path: Path) -> None:
    with pytest.raises(ModtfError, match="lies in no folder"):
        modular.choose(2, "quality_first")
    modular.save_pretrained(tmp_path / "bare", copy_original=True)
    with pytest.raises(ModtfError, match="make one with `modtf profile`"):
        modtf.load(tmp_path / "bare").choose(2, "quality_first")
    (tmp_path / "bare" / "profile.json").write_text("{")
    with pytest.raises(ModtfError, match="could not be read"):
        modtf.load(tmp_path / "bare").choose(2, "quality_first")
    trained = modtf.load(kit)
    with torch.no_grad():
        next(iter(trained.bank_weights().values())).add_(1)
    with pytest.raises(ModtfError, match="is of other weights"):
        trained.choose(2, "quality_first")
    with pytest.raises(ModtfError, match="max_parameters needs the strategy 'quality_first'"):
        modular.choose(max_parameters=10)
    with pytest.raises(ModtfError, match="needs the profile of a kit"):
        modtf.strategies.choose(modular.mapping, 2, "quality_first")


def test_the_explorer_offers_it(kit: Path) -> None:
    modular = modtf.load(kit)
    explorer = Explorer(modular)
    try:
        assert [name for _, name in explorer.strategy.options] == ["size_first", "speed_first", "quality_first"]
        explorer.strategy.value = "quality_first"
        reached = modular.assemblies("quality_first")
        assert [value for _, value in explorer.ratio.options] == [assembly.ratio for assembly in reached]
        for assembly in reached[1:4]:
            explorer.ratio.value = assembly.ratio
            assert explorer.controller.state.assembly == assembly == modular.choose(assembly.ratio, "quality_first")
        assert explorer.controller.state.strategy == "quality_first" == explorer.strategy.value
        with torch.no_grad():
            next(iter(modular.bank_weights().values())).add_(1)
        explorer.ratio.value = reached[2].ratio
        assert "is of other weights" in explorer.problem.value + explorer.failure.value
    finally:
        explorer.controller.close()


def test_a_limit_in_the_explorer(kit: Path) -> None:
    modular = modtf.load(kit)
    measured = modular.profile
    explorer = Explorer(modular)
    state = explorer.controller
    try:
        names = [name for _, name in explorer.limited.options]
        assert names == ["max_megabytes", "max_parameters", "max_latency_ms", "min_quality"]
        smallest = min(measured.cost(assembly, "max_parameters") for assembly in measured.losses)
        for name, number in (
            ("max_parameters", 2 * smallest / 1e6),
            ("max_megabytes", 4.01 * smallest / 1e6),
            ("max_latency_ms", measured.latency_ms(modular.choose(3))),
            ("min_quality", 50),
        ):
            explorer.limited.value = name
            explorer.limit.value = str(number)
            chosen = modular.choose(
                strategy="quality_first", **{name: number * (1e6 if name == "max_parameters" else 1)}
            )
            assert state.state.assembly == chosen and f"{chosen.shape} layers:" in explorer.limit_met.value
            assert state.strategy == "quality_first" or chosen != modular.choose(chosen.ratio, "quality_first")
        assert "50.0 % of each score" in explorer.limit_met.value
        explorer.source.value = "Mir ist warm."
        assert explorer.limit.value == "50" and explorer.limit_met.value, "another text, but the same assembly"
        explorer.ratio.value = explorer.ratio.options[-1][1]
        assert not explorer.limit.value and not explorer.limit_met.value, "it was of another assembly"
        explorer.limit.value = "50"
        assert state.state.assembly == chosen, "the same limit holds again"
        for number, words in (("ten", "is not a number"), ("-3", "not a number above 0"), ("101", "up to 100")):
            explorer.limit.value = number
            assert words in explorer.limit_met.value and state.state.assembly == chosen
            explorer.against.value = "model" if explorer.against.value == "frontier" else "frontier"
            assert words in explorer.limit_met.value, "the message stays as long as the limit does"
        explorer.limited.value = "max_megabytes"
        assert not explorer.limit.value and state.state.assembly == chosen, "101 megabytes were not asked for"
    finally:
        state.close()


def test_the_frontier_in_the_explorer(kit: Path) -> None:
    modular = modtf.load(kit)
    explorer = Explorer(modular)
    try:
        assert [name for _, name in explorer.against.options] == ["frontier", "model"], "there is no table"
        explorer.controller.wait()
        drawn = explorer.figure.value
        assert "best predicted" in drawn and "MB in float32" in drawn
        explorer.limit.value = "1000"
        limited = explorer.figure.value
        assert "shapes" not in drawn and "shapes" in limited
        explorer.limit.value = "-3"
        assert "shapes" not in explorer.figure.value
        explorer.limited.value = "max_latency_ms"
        assert "ms for 32 tokens" in explorer.figure.value and not explorer.failure.value
        with torch.no_grad():
            next(iter(modular.bank_weights().values())).add_(1)
        explorer.limited.value = "max_parameters"
        assert "is of other weights" in explorer.failure.value
    finally:
        explorer.controller.close()


def test_what_is_kept_is_the_least_of_all_scores(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of errors what is free of them counts, and a lucky small assembly does not hide what larger ones lose."""
    modular = modtf.load(kit)
    original, two, three = (modular.choose(ratio) for ratio in (1, 2, 3))
    errors = {original: 2.0, two: 51.0, three: 12.0}
    metrics = (Metric("bleu", "BLEU", "BLEU"), Metric("ser", "slot errors", "SER", errors=True))
    monkeypatch.setattr(profile, "task_named", lambda name: replace(TRANSLATION, metrics=metrics))
    monkeypatch.setattr(profile, "measure_quality", lambda modular, a, examples: {"bleu": 60.0, "ser": errors[a]})
    kept = profile.measure_kept(modular, list(errors), EXAMPLES)
    assert kept == pytest.approx({original: 100, two: 50, three: 100 * 88 / 98})
    measured = replace(modular.profile, kept=kept)
    for limit, expected in ((100, original), (80, original), (50, three)):
        assert quality_first(modular.mapping, measured, min_quality=limit) == expected


# -- the command -------------------------------------------------------------------------------------------------------


def test_an_interrupted_profile_goes_on(kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(profile, "RANDOM", 12)
    monkeypatch.setattr(profile, "measure_quality", score_layers)
    measured: list[Assembly] = []
    of = Losses.of

    def interrupted(self: Losses, assembly: Assembly) -> float:
        measured.append(assembly)
        if len(measured) == 9:
            raise KeyboardInterrupt
        return of(self, assembly)

    monkeypatch.setattr(Losses, "of", interrupted)
    before = json.loads((kit / "profile.json").read_text())["losses"]
    command = ["profile", "--model", str(kit), "--data", str(kit), "--inputs", "3"]
    assert cli.main(command) == 130
    unfinished = kit / "profile.json.part"
    assert len(unfinished.read_text().splitlines()) == 1 + 8
    with unfinished.open("a") as file:
        file.write('["encoder 1·1')  # cut off
    assert cli.main(command) == 0
    assert len(measured) == len(set(measured)) + 1, "only the one that was interrupted came twice"
    after = json.loads((kit / "profile.json").read_text())["losses"]
    assert after == pytest.approx(before) and not unfinished.exists()
    assert "not measured with a correlation of" in capsys.readouterr().out


def test_times_alone(kit: Path) -> None:
    before = json.loads((kit / "profile.json").read_text())
    (kit / "profile.json").write_text(
        json.dumps(before | {"milliseconds": {"constant": 0, "encoder": 0, "decoder": 0}})
    )
    assert cli.main(["profile", "--model", str(kit), "--data", str(kit), "--times"]) == 0
    after = json.loads((kit / "profile.json").read_text())
    assert after["milliseconds"]["decoder"] > 0
    assert {name for name in before if before[name] != after[name]} <= {"milliseconds"}


def test_limits_in_the_shell(kit: Path, tmp_path: Path, capsys: Any) -> None:
    # Unchecked: the bundled sentences are too long for this model.
    arguments = ["export", "--model", str(kit), "--strategy", "quality_first", "--check", "0"]
    assert cli.main([*arguments, "--min-quality", "50", str(tmp_path / "small")]) == 0
    assert "ratio 2.00" in capsys.readouterr().out
    assert cli.main([*arguments, str(tmp_path / "none")]) == 2
    assert "no limit given" in capsys.readouterr().err
    assert cli.main(["profile", "--model", str(kit), "--inputs", "0"]) == 2
