"""CTranslate2 as an engine: the loop's texts, compiled once for the same weights, kept within a limit."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import modtf
from modtf import compiled
from modtf.compiled import CTRANSLATE2, CTRANSLATE2_INT8, FOLDER, MEGABYTES
from modtf.views.controller import Controller
from modtf.views.explorer import Explorer
from modtf.views.markup import python_lines, race_html, result_html

pytest.importorskip("ctranslate2")

TEXTS = {
    "pocket": ["name[The Vaults], food[French], near[Café Adriatic]", "name[Zizzi], eatType[pub]"],
    "translator": ["Wo ist der nächste Bahnhof?", "Ich habe den ganzen Tag auf dich gewartet."],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("ctranslate2-*")}


@pytest.mark.parametrize("name", TEXTS)
def test_the_loops_texts(name: str) -> None:
    kit = modtf.load(name)
    for ratio in (1, 3):
        assembly = kit.choose(ratio)
        for texts, length in ((TEXTS[name], None), (TEXTS[name][:1], 5)):
            by_loop = kit.write(texts, assembly, max_new_tokens=length)
            written = kit.write(texts, assembly, max_new_tokens=length, engine=CTRANSLATE2)
            assert torch.equal(written.tokens, by_loop.tokens) and written.texts == by_loop.texts
            assert written.engine == CTRANSLATE2 and by_loop.engine == "loop" and written.seconds > 0
    eight_bits = kit.write(TEXTS[name], kit.choose(3), engine=CTRANSLATE2_INT8)
    assert eight_bits.engine == CTRANSLATE2_INT8 and all(len(text) > 10 for text in eight_bits.texts)
    assert kit.generate(TEXTS[name][0], ratio=3, engine=CTRANSLATE2) == kit.generate(TEXTS[name][0], ratio=3)


def test_one_text_can_be_watched_and_stopped() -> None:
    kit = modtf.load("pocket")
    seen: list[int] = []

    def watch(token: torch.Tensor) -> bool:
        seen.append(int(token))
        return len(seen) == 4

    written = kit.write(TEXTS["pocket"][:1], kit.choose(6), engine=CTRANSLATE2, watch=watch)
    assert written.tokens[0].tolist() == seen and len(seen) == 4
    with pytest.raises(modtf.ModtfError, match="several texts cannot be watched"):
        kit.write(TEXTS["pocket"], kit.choose(6), engine=CTRANSLATE2, watch=watch)


def test_compiled_once_for_the_same_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text, _), calls = TEXTS["pocket"], []
    convert = compiled.convert
    monkeypatch.setattr(compiled, "convert", lambda *given: (calls.append(given), convert(*given)))
    kit = modtf.load("pocket")
    expected = kit.generate(text, ratio=6, engine=CTRANSLATE2)
    assert kit.generate(text, ratio=6, engine=CTRANSLATE2) == expected and len(calls) == 1
    again = modtf.load("pocket")
    assert again.generate(text, ratio=6, engine=CTRANSLATE2) == expected and len(calls) == 1, "it lies on disk"
    with torch.no_grad():
        next(iter(again.bank_weights().values())).add_(1e-3)
    again.generate(text, ratio=6, engine=CTRANSLATE2)
    assert len(calls) == 1, "a bank of another granularity"
    with torch.no_grad():
        for weight in again.bank_weights().values():
            weight.flatten()[-1].add_(1e-3)
    again.generate(text, ratio=6, engine=CTRANSLATE2)
    assert len(calls) == 2 == len(kept(folder)), "other weights"
    again.generate(text, ratio=6, engine=CTRANSLATE2_INT8)
    assert len(calls) == 3 == len(kept(folder)), "another precision"


def test_a_damaged_one_is_compiled_anew(folder: Path) -> None:
    text = TEXTS["pocket"][0]
    expected = modtf.load("pocket").generate(text, ratio=6, engine=CTRANSLATE2)
    (name,) = kept(folder)
    model = folder / name / "model.bin"
    model.write_bytes(model.read_bytes()[:1000])
    assert modtf.load("pocket").generate(text, ratio=6, engine=CTRANSLATE2) == expected
    assert kept(folder) == {name} and model.stat().st_size > 1e6


def test_a_vocabulary_that_was_changed_is_noticed(folder: Path) -> None:
    text = TEXTS["pocket"][0]
    expected = modtf.load("pocket").generate(text, ratio=6, engine=CTRANSLATE2)
    (one,) = folder.glob("ctranslate2-*")
    (one / "shared_vocabulary.json").write_text('["a"]')
    assert modtf.load("pocket").generate(text, ratio=6, engine=CTRANSLATE2) == expected
    assert "checksums.json" in os.listdir(one) and (one / "shared_vocabulary.json").stat().st_size > 1000


class Adapted(torch.nn.Linear):
    """What an adapter library puts in a layer's place: its weights would be lost."""


def test_a_changed_layer_is_not_left_out() -> None:
    kit = modtf.load("pocket")
    layer = kit.stacks[0].banks["6"][0].layer[-1].DenseReluDense
    layer.wo.__class__ = Adapted
    with pytest.raises(modtf.ModtfError, match=r"a module that CTranslate2 would leave out \(Adapted\)"):
        kit.generate(TEXTS["pocket"][0], ratio=6, engine=CTRANSLATE2)


def test_a_long_source_is_read_whole() -> None:
    kit = modtf.load("pocket")
    kit.tokenizer.model_max_length = 5000
    source = f"{TEXTS['pocket'][1]}, " * 300 + "food[Chinese]"
    assert kit.encode([source])["input_ids"].shape[1] > 1024
    smallest = kit.choose(6)
    by_loop = kit.write([source], smallest, max_new_tokens=20)
    assert kit.write([source], smallest, max_new_tokens=20, engine=CTRANSLATE2).texts == by_loop.texts


def test_what_was_not_used_for_longest_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit, text = modtf.load("pocket"), TEXTS["pocket"][0]
    names = []
    for age, ratio in ((300, 6), (200, 4)):
        kit.generate(text, ratio=ratio, engine=CTRANSLATE2_INT8)
        (name,) = kept(folder) - set(names)
        names.append(name)
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    modtf.load("pocket").generate(text, ratio=6, engine=CTRANSLATE2_INT8)  # used again
    sizes = [sum(file.stat().st_size for file in (folder / name).iterdir()) for name in names]
    monkeypatch.setenv(MEGABYTES, str(round(2.5 * max(sizes) / 1e6)))
    kit.generate(text, ratio=3, engine=CTRANSLATE2_INT8)
    assert names[0] in kept(folder) and names[1] not in kept(folder) and len(kept(folder)) == 2
    monkeypatch.setenv(MEGABYTES, "0")
    kit.generate(text, ratio=2, engine=CTRANSLATE2_INT8)
    assert len(kept(folder)) == 1, "the newest stays, since it is in use"
    monkeypatch.setenv(MEGABYTES, "much")
    for _ in range(2):
        with pytest.raises(modtf.ModtfError, match="MODTF_CACHE_MB is 'much'; give a whole number"):
            kit.generate(text, ratio=1.5, engine=CTRANSLATE2_INT8)


def test_what_is_not_possible_is_told(make_modular: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit, (text, _) = modtf.load("pocket"), TEXTS["pocket"]

    def refused(words: str, kit: Any = kit, **options: Any) -> None:
        with pytest.raises(modtf.ModtfError, match=re.escape(words)):
            kit.generate(text, **{"ratio": 6, "engine": CTRANSLATE2} | options)

    refused(
        "engine 'ctranslate' is unknown; use one of loop, generate, ctranslate2, ctranslate2-int8", engine="ctranslate"
    )
    refused("takes max_new_tokens only, not num_beams", num_beams=2)
    refused("drafts are for the loop", ratio=1, draft=6)
    refused("max_new_tokens is 0", max_new_tokens=0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER, str(tmp_path / "file"))
    refused("where nothing can be written", ratio=4)
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    refused('pip install "modtf[ctranslate2]"')


def test_settings_are_followed_or_refused() -> None:
    kit, (_, text) = modtf.load("translator"), TEXTS["translator"]
    plain = kit.generate(text, engine=CTRANSLATE2)
    config = kit.model.generation_config
    ends = config.eos_token_id
    third = kit.write([text], kit.choose(1)).tokens[0, 2].item()
    config.eos_token_id = [ends, third]
    by_loop = kit.write([text], kit.choose(1))
    assert torch.equal(kit.write([text], kit.choose(1), engine=CTRANSLATE2).tokens, by_loop.tokens)
    assert by_loop.texts[0] != plain
    config.eos_token_id, config.suppress_tokens = ends, [third]
    with pytest.raises(modtf.ModtfError, match="does not follow suppress_tokens"):
        kit.generate(text, engine=CTRANSLATE2)
    config.suppress_tokens = None
    assert kit.generate(text, engine=CTRANSLATE2) == plain
    assert copy.deepcopy(kit).generate(text, engine=CTRANSLATE2) == plain
    hook = kit.assembled(kit.choose(2)).get_decoder().register_forward_hook(lambda *given: None)
    with pytest.raises(modtf.ModtfError, match="a hook, or a forward of its own, which CTranslate2 would not call"):
        kit.generate(text, ratio=2, engine=CTRANSLATE2)
    hook.remove()


def test_without_a_home_the_process_keeps_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    kit, text = modtf.load("pocket"), TEXTS["pocket"][0]
    assert kit.generate(text, ratio=6, engine=CTRANSLATE2) == kit.generate(text, ratio=6)


def test_the_explorer_compares_engines() -> None:
    explorer = Explorer(modtf.load("pocket"))
    controller: Controller = explorer.controller
    controller.wait(timed_in_turns=True)
    explorer.engine.value = CTRANSLATE2
    state = controller.wait(timed_in_turns=True)
    result = state.result
    assert result is not None and state.request is not None
    assert {result.full.engine, result.small.engine} == {CTRANSLATE2} and result.by_loop is not None
    assert result.by_loop.engine == "loop" and result.by_loop.text == result.full.text
    html = result_html(state, explorer.task)
    assert "written by CTranslate2 in float32. By modtf's greedy loop the full model took" in html
    controller.race()
    race = controller.wait().race
    assert (
        race is not None and race.small.texts[-1] == result.small.text and "(CTranslate2 in float32)" in race_html(race)
    )
    names: dict[str, Any] = {}
    exec(python_lines(controller.modular, state.request), names)
    assert names["text"] == result.small.text and "engine='ctranslate2'" in python_lines(
        controller.modular, state.request
    )
    controller.sweep("size_first")
    sweep = controller.wait(timeout=120).sweep
    assert sweep is not None and {side.engine for side in sweep.sides} == {"loop"}, "not all are compiled"
    controller.measure(10)
    (row,) = controller.wait(timeout=120).measured_here
    assert row["engine"] == "loop", "its scores are of texts by the loop"
    explorer.engine.value = ""
    last = controller.wait().result
    assert last is not None and last.small.engine == "loop" and last.by_loop is None
    controller.close()
