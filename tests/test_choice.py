"""What quality_first is worth: the forecast's rank correlation, and the differences from the other strategies."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from test_table import load_script

import modtf
from modtf.profile import measure
from modtf.tasks import Example

LINES = [
    ("Ich habe den ganzen Tag auf dich gewartet.", "I have been waiting for you all day."),
    ("Tom liest im Garten ein Buch.", "Tom is reading a book in the garden."),
]
EXAMPLES = [Example(german, (english,)) for german, english in LINES]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    loaded = load_script("choice")
    monkeypatch.setattr(loaded, "RANDOM", 8)
    return loaded


@pytest.fixture
def modular(make_model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> modtf.ModularModel:
    monkeypatch.setattr("modtf.profile.RANDOM", 12)
    model = make_model("bart", vocabulary=len(tokenizer))
    made = modtf.modularize(model, (2, 3, 6), tokenizer=tokenizer, task="translation")
    found = measure(made, EXAMPLES)
    monkeypatch.setattr(modtf.ModularModel, "profile", property(lambda self: found))
    return made


def test_a_forecast_that_is_right_has_a_correlation_of_minus_one(
    script: ModuleType, modular: modtf.ModularModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = modular.profile.fit

    def as_forecast(_: modtf.ModularModel, assembly: modtf.Assembly, __: Any) -> list[dict[str, float]]:
        of_all = {"bleu": 100 - fit.predicted(assembly), "errors": fit.predicted(assembly)}
        return [of_all, of_all, {"bleu": of_all["bleu"], "errors": -of_all["errors"]}]

    monkeypatch.setattr(script, "quality", as_forecast)
    found = script.forecast(modular, EXAMPLES)
    assert found["assemblies"] == 8 and found["examples"] == 2
    assert {name: found["rank_correlation"][name] for name in ("bleu", "errors")} == {"bleu": -1.0, "errors": 1.0}
    assert found["rank_correlation_possible"] == {"bleu": 1.0, "errors": 0.0}, "halves that agree, and that do not"
    of_measured = found["rank_correlation_of_the_measured"]
    assert of_measured == {"bleu": -of_measured["errors"], "errors": found["rank_correlation"]["loss"]}
    low, high = found["eight_of_ten"]["bleu"]
    assert low < high < 100


def test_differences_at_every_number_of_layers(
    script: ModuleType, modular: modtf.ModularModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = modular.mapping.original

    def cut_short(_: modtf.ModularModel, assembly: modtf.Assembly, __: Any) -> list[str]:
        return [english if assembly.encoder == full.encoder else english[:-9] for _, english in LINES]

    monkeypatch.setattr(script, "write_texts", cut_short)
    rows = script.by_layers(modular, EXAMPLES)
    assert [row["layers"] for row in rows] == list(range(12, 1, -1))
    assert all(value in (0.0, [0.0, 0.0]) for of_one in rows[0]["differences"].values() for value in of_one.values())
    for row in rows:
        scores = row["scores"]
        for name, difference in row["differences"].items():
            assert difference["bleu"] == pytest.approx(scores["quality_first"]["bleu"] - scores[name]["bleu"], abs=0.02)
    assert any(row["differences"]["speed_first"]["bleu"] for row in rows)
