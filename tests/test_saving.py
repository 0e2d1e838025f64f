"""Saving and loading: assemblies that plain transformers loads, banks that belong to one original, and what stays whole when it fails."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

import modtf
import modtf.modular
from modtf.errors import ModtfError
from modtf.mapping import Assembly

Batch = dict[str, torch.Tensor]
ASSEMBLIES = (Assembly((1,) * 6, (1,) * 6), Assembly((2, 2, 2), (3, 3)), Assembly((3, 3), (1, 1, 1, 1, 2)))
GREEDY = {"do_sample": False, "num_beams": 1, "max_new_tokens": 8, "min_new_tokens": 8}
BEAM = GREEDY | {"num_beams": 3, "length_penalty": 0.7}
FAMILIES = ("t5", "t5-gated", "bart")

PLAIN_TRANSFORMERS = """
import json, sys
sys.modules["modtf"] = None  # importing it raises, whatever is installed
from transformers import AutoModelForSeq2SeqLM
work = json.load(sys.stdin)
import torch
torch.set_num_threads(1)
sources = {name: torch.tensor(rows) for name, rows in work["sources"].items()}
written = {}
for folder in work["folders"]:
    model, loading = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    with torch.no_grad():
        written[folder] = [type(model).__name__] + [model.generate(**sources, **options).tolist() for options in work["options"]]
assert not [name for name in sys.modules if name.split(".")[0] == "modtf" and sys.modules[name]]
print(json.dumps(written))
"""


def sources(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def weights(model: PreTrainedModel | modtf.ModularModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same_weights(a: Any, b: Any) -> None:
    a, b = (x if isinstance(x, dict) else weights(x) for x in (a, b))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def change_banks(modular: modtf.ModularModel) -> None:
    with torch.no_grad():
        for parameter in modular.bank_weights().values():
            parameter.add_(0.25)


# -- assemblies as ordinary checkpoints ------------------------------------------------------------------------------------


def test_an_assembly_loads_where_modtf_is_not_installed(make_modular: Any, batch: Batch, tmp_path: Path) -> None:
    expected = {}
    for family in FAMILIES:
        modular = make_modular(family)
        for assembly in ASSEMBLIES:
            folder = tmp_path / f"{family} {assembly.shape}"
            small = modular.assemble(assembly=assembly)
            small.save_pretrained(folder)
            assert sorted(path.name for path in folder.iterdir()) == [
                "config.json",
                "generation_config.json",
                "model.safetensors",
            ]
            expected[str(folder)] = [
                type(small).__name__,
                *(small.generate(**sources(batch), **options).tolist() for options in (GREEDY, BEAM)),
            ]
    work = {
        "folders": list(expected),
        "options": [GREEDY, BEAM],
        "sources": {name: rows.tolist() for name, rows in sources(batch).items()},
    }
    run = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN_TRANSFORMERS],
        input=json.dumps(work),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == expected
    assert len({json.dumps(written) for written in expected.values()}) == len(expected), (
        "they differ, so equality says something"
    )


def test_an_assembly_saved_in_half_precision(family: str, make_modular: Any, batch: Batch, tmp_path: Path) -> None:
    small = make_modular(family).assemble(ratio=2)
    small.save_pretrained(tmp_path)
    half = type(small).from_pretrained(tmp_path, dtype=torch.float16)
    torch.testing.assert_close(half.float()(**batch).logits, small(**batch).logits, rtol=0.05, atol=0.05)


def test_saving_an_assembly_leaves_banks_and_original_alone(
    family: str, make_modular: Any, batch: Batch, tmp_path: Path
) -> None:
    modular = make_modular(family)
    before = weights(modular)
    modular.assemble(ratio=2).save_pretrained(tmp_path)
    assert_same_weights(modular, before)


# -- round trips -----------------------------------------------------------------------------------------------------------


def assert_alike(a: modtf.ModularModel, b: modtf.ModularModel, batch: Batch) -> None:
    assert a.mapping == b.mapping
    assert_same_weights(a, b)
    for assembly in ASSEMBLIES:
        one, other = (x.assemble(assembly=assembly).generate(**sources(batch), **GREEDY) for x in (a, b))
        assert torch.equal(one, other)


def test_copy_of_the_original(family: str, make_modular: Any, batch: Batch, tokenizer: Any, tmp_path: Path) -> None:
    modular = make_modular(family, tokenizer=tokenizer)
    modular.save_pretrained(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "moved")  # nothing in it says where it was
    again = modtf.load(tmp_path / "moved")
    assert_alike(modular, again, batch)
    assert again.tokenizer("name[Zizzi]")["input_ids"] == tokenizer("name[Zizzi]")["input_ids"]
    assert not any(p.requires_grad for p in again.original_weights().values())
    assert all(p.requires_grad for p in again.bank_weights().values())
    suffixes = {path.suffix for path in (tmp_path / "moved").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}, "no pickles"


def test_pointer_to_the_original(family: str, make_model: Any, batch: Batch, tokenizer: Any, tmp_path: Path) -> None:
    original = make_model(family)
    original.save_pretrained(tmp_path / "original")
    tokenizer.save_pretrained(tmp_path / "original")
    modular = modtf.modularize(type(original).from_pretrained(tmp_path / "original"))
    change_banks(modular)
    modular.save_pretrained(tmp_path / "banks")
    assert len(contents(tmp_path / "banks")) == 2, "an index and the banks"
    saved = load_file(next((tmp_path / "banks").glob("*.safetensors")))
    assert saved.keys() == modular.bank_weights().keys()
    again = modtf.load(tmp_path / "banks")
    assert_alike(modular, again, batch)
    assert again.tokenizer("pub")["input_ids"] == tokenizer("pub")["input_ids"]
    given = modtf.ModularModel.from_pretrained(
        tmp_path / "banks", original=type(original).from_pretrained(tmp_path / "original")
    )
    assert_alike(modular, given, batch)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("copied", [True, False])
def test_half_precision(
    family: str, make_model: Any, batch: Batch, tmp_path: Path, dtype: torch.dtype, copied: bool
) -> None:
    make_model(family).save_pretrained(tmp_path / "original")
    original = type(make_model(family)).from_pretrained(tmp_path / "original")
    modular = modtf.modularize(original)
    change_banks(modular)
    before = weights(modular)
    modular.save_pretrained(tmp_path / "full", copy_original=copied)
    modular.save_pretrained(tmp_path / "half", copy_original=copied, dtype=dtype)
    assert_same_weights(modular, before)
    sizes = [sum(map(len, contents(tmp_path / name).values())) for name in ("half", "full")]
    assert sizes[0] < 0.8 * sizes[1]  # tiny weights, long headers
    again = modtf.load(tmp_path / "half")
    banks = again.bank_weights()
    for name, weight in modular.bank_weights().items():
        assert torch.equal(banks[name], weight.to(dtype).float())
    if copied:
        for name, weight in modular.original_weights().items():
            assert torch.equal(again.original_weights()[name], weight.to(dtype).float())
    else:
        assert_same_weights(again.original_weights(), modular.original_weights())
    again.save_pretrained(tmp_path / "again", copy_original=copied)
    assert_alike(again, modtf.load(tmp_path / "again"), batch)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_and_the_living_original(
    family: str, make_model: Any, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Banks saved beside a rounded copy still belong to the original that it was rounded from."""
    modular = modtf.modularize(make_model(family))
    modular.save_pretrained(tmp_path, dtype=dtype)
    banks = {name: weight.to(dtype).float() for name, weight in modular.bank_weights().items()}
    change_banks(modular)
    modular.load_banks(tmp_path)
    assert_same_weights(modular.bank_weights(), banks)
    given = modtf.ModularModel.from_pretrained(tmp_path, original=make_model(family))
    assert_same_weights(given.bank_weights(), banks)


def test_loaded_in_half_precision_and_saved_again(family: str, make_modular: Any, tmp_path: Path) -> None:
    """A model that was loaded to be small must still be recognised by its own banks."""
    make_modular(family).save_pretrained(tmp_path / "full")
    half = modtf.ModularModel.from_pretrained(tmp_path / "full", dtype=torch.float16)
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    half.save_pretrained(tmp_path / "again")
    again = modtf.load(tmp_path / "again")
    assert torch.equal(next(iter(again.bank_weights().values())), next(iter(half.bank_weights().values())).float())


def test_an_original_loaded_in_half_precision(family: str, make_model: Any, tmp_path: Path) -> None:
    """... and banks of an original that was loaded in bfloat16 from float32 files."""
    original = make_model(family)
    original.save_pretrained(tmp_path / "original")
    modular = modtf.modularize(type(original).from_pretrained(tmp_path / "original", dtype=torch.bfloat16))
    modular.save_pretrained(tmp_path / "banks")
    again = modtf.load(tmp_path / "banks")
    assert again.mapping == modular.mapping


def test_unequal_depths_and_granularities(family: str, make_model: Any, tmp_path: Path) -> None:
    modular = modtf.modularize(make_model(family, 2, 6), (2,), decoder_granularities=(3, 6))
    modular.save_pretrained(tmp_path)
    again = modtf.load(tmp_path)
    assert again.mapping == modular.mapping
    assert_same_weights(modular, again)


def test_saved_over_itself(family: str, make_modular: Any, batch: Batch, tmp_path: Path) -> None:
    """Load, train on, save to the same folder: the copy of the original that lies in it must survive."""
    make_modular(family).save_pretrained(tmp_path)
    loaded = modtf.load(tmp_path)
    change_banks(loaded)
    loaded.save_pretrained(tmp_path)
    assert_alike(loaded, modtf.load(tmp_path), batch)
    assert len(list(tmp_path.glob("banks-*"))) == 1, "old banks are gone"


def test_a_loaded_copy_saved_elsewhere_stands_alone(
    family: str, make_modular: Any, batch: Batch, tmp_path: Path
) -> None:
    make_modular(family).save_pretrained(tmp_path / "first")
    loaded = modtf.load(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    assert_alike(loaded, modtf.load(tmp_path / "second"), batch)


def test_saved_in_many_ways_into_one_folder(make_model: Any, batch: Batch, tmp_path: Path) -> None:
    make_model("t5").save_pretrained(tmp_path / "original")
    modular = modtf.modularize(type(make_model("t5")).from_pretrained(tmp_path / "original"))
    for options in (
        {"copy_original": True},
        {"copy_original": False},
        {"copy_original": True, "dtype": torch.float16},
        {"copy_original": True},
    ):
        modular.save_pretrained(tmp_path / "banks", **options)
        assert len(list((tmp_path / "banks").glob("original-*"))) == bool(options["copy_original"]), (
            "old copies are gone"
        )
    assert_alike(modular, modtf.load(tmp_path / "banks"), batch)


def test_files_of_others_stay(make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular("t5", 2, 2)
    (tmp_path / "original-data").mkdir()
    (tmp_path / "original-data" / "notes.txt").write_text("mine")
    (tmp_path / "banks-of-a-friend.safetensors").write_text("mine")
    modular.save_pretrained(tmp_path)
    change_banks(modular)
    modular.save_pretrained(tmp_path)
    assert (tmp_path / "original-data" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "banks-of-a-friend.safetensors").read_text() == "mine"


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_checkpoint_beside_a_saved_model_leaves_its_original(
    make_modular: Any, tmp_path: Path, dtype: torch.dtype | None
) -> None:
    """``trainer.save_model()`` writes banks into the output folder, where the model itself may have been saved before."""
    modular = make_modular("t5")
    modular.save_pretrained(tmp_path, dtype=dtype)
    change_banks(modular)
    modular.save_banks(tmp_path)
    assert len(list(tmp_path.glob("original-*/model.safetensors"))) == 1


def test_a_model_fine_tuned_in_memory_keeps_its_weights(
    family: str, make_model: Any, batch: Batch, tmp_path: Path
) -> None:
    """Load, fine-tune, modularize, save: the folder that the model once came from no longer holds it."""
    make_model(family).save_pretrained(tmp_path / "start")
    tuned = type(make_model(family)).from_pretrained(tmp_path / "start")
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.mul_(1.01)
    modular = modtf.modularize(tuned)
    modular.save_pretrained(tmp_path / "banks")
    assert_alike(modular, modtf.load(tmp_path / "banks"), batch)


def test_a_tokenizer_given_later_is_saved(make_modular: Any, make_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    make_modular("t5").save_pretrained(tmp_path)
    modtf.modularize(make_model("t5"), tokenizer=tokenizer).save_pretrained(tmp_path)
    assert modtf.load(tmp_path).tokenizer("pub")["input_ids"] == tokenizer("pub")["input_ids"]


def test_the_originals_own_tokenizer_is_kept(make_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Nobody has asked for it when the model is saved, and where the original lay may not be there later."""
    make_model("t5").save_pretrained(tmp_path / "original")
    tokenizer.save_pretrained(tmp_path / "original")
    original = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "original")
    modtf.modularize(original).save_pretrained(tmp_path / "copied", copy_original=True)
    shutil.rmtree(tmp_path / "original")
    assert modtf.load(tmp_path / "copied").tokenizer("pub")["input_ids"] == tokenizer("pub")["input_ids"]


def test_no_pointer_to_a_folder_that_lacks_the_tokenizer(make_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    make_model("t5").save_pretrained(tmp_path / "original")
    original = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "original")
    modtf.modularize(original, tokenizer=tokenizer).save_pretrained(tmp_path / "saved")
    assert modtf.load(tmp_path / "saved").tokenizer("pub")["input_ids"] == tokenizer("pub")["input_ids"]


def test_no_place_to_point_to(make_modular: Any, tmp_path: Path) -> None:
    with pytest.raises(ModtfError, match=r"made in memory.*copy_original=True"):
        make_modular("t5", 2, 2).save_pretrained(tmp_path / "banks", copy_original=False)
    assert not (tmp_path / "banks").exists()


# -- banks and original belong together ------------------------------------------------------------------------------------


def test_banks_of_another_original(family: str, make_model: Any, make_modular: Any, tmp_path: Path) -> None:
    make_modular(family, seed=0).save_pretrained(tmp_path / "banks")
    other = make_model(family, seed=5)
    before = weights(other)
    with pytest.raises(
        ModtfError, match=r"trained for another original: its fingerprint is \w{12}, the given one's is \w{12}"
    ):
        modtf.ModularModel.from_pretrained(tmp_path / "banks", original=other)
    assert_same_weights(other, before)
    assert all(p.requires_grad for p in other.parameters()), "not touched at all"


def test_a_single_tensor_makes_another_original(family: str, make_model: Any, tmp_path: Path) -> None:
    modtf.modularize(make_model(family, 2, 2)).save_pretrained(tmp_path)
    for name, _ in make_model(family, 2, 2).named_parameters():
        other = make_model(family, 2, 2)
        with torch.no_grad():
            dict(other.named_parameters())[name].add_(0.01)
        with pytest.raises(ModtfError, match="another original"):
            modtf.ModularModel.from_pretrained(tmp_path, original=other)


def test_banks_of_another_original_into_a_living_model(family: str, make_modular: Any, tmp_path: Path) -> None:
    """As when a training is resumed from the checkpoint of another one."""
    make_modular(family, seed=0).save_banks(tmp_path)
    other = make_modular(family, seed=5)
    before = weights(other)
    with pytest.raises(ModtfError, match="another original"):
        other.load_banks(tmp_path)
    assert_same_weights(other, before)


def test_banks_alone_need_their_original(make_modular: Any, make_model: Any, tmp_path: Path) -> None:
    modular = make_modular("t5")
    modular.save_banks(tmp_path)
    with pytest.raises(ModtfError, match=r"without their original .* give it: original="):
        modtf.load(tmp_path)
    assert_same_weights(modtf.ModularModel.from_pretrained(tmp_path, original=make_model("t5")), modular)


def test_banks_of_other_granularities(make_modular: Any, make_model: Any, tmp_path: Path) -> None:
    make_modular("t5").save_banks(tmp_path)
    fewer = modtf.modularize(make_model("t5"), (2,))
    before = weights(fewer)
    with pytest.raises(ModtfError, match=r"do not fit this model .*other granularities"):
        fewer.load_banks(tmp_path)
    assert_same_weights(fewer, before)


# -- files that are missing, cut off or strange ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(make_modular: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "modular"
    make_modular("t5").save_pretrained(folder)
    return folder


@pytest.fixture()
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "modular"))


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def test_missing_banks(folder: Path) -> None:
    next(folder.glob("banks-*")).unlink()
    with pytest.raises(ModtfError, match=r"missing or cut off.*copy the whole folder again"):
        modtf.load(folder)


@pytest.mark.parametrize("share", [0, 0.0001, 0.02, 0.5, 0.999])
def test_banks_cut_off(folder: Path, share: float) -> None:
    cut(next(folder.glob("banks-*")), share)
    with pytest.raises(ModtfError, match="missing or cut off"):
        modtf.load(folder)


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.999])
def test_original_cut_off(folder: Path, share: float) -> None:
    cut(next(folder.glob("original-*/model.safetensors")), share)
    with pytest.raises(ModtfError, match=r"the original of .* could not be loaded"):
        modtf.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", ""])
def test_original_missing(folder: Path, name: str) -> None:
    path = next(folder.glob("original-*")) / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ModtfError, match=r"the original of .* could not be loaded .*Put it back there"):
        modtf.load(folder)


def test_saving_again_repairs_a_damaged_copy(folder: Path, batch: Batch) -> None:
    modular = modtf.load(folder)
    damaged = next(folder.glob("original-*/model.safetensors"))
    whole = damaged.read_bytes()
    damaged.unlink()  # the living model still reads its weights from that file
    damaged.write_bytes(whole[: len(whole) // 2])
    modular.save_pretrained(folder)
    assert_alike(modular, modtf.load(folder), batch)


@pytest.mark.parametrize("damage", [
    {"encoder": {}}, {"decoder": {"granularities": 2}}, {"encoder": {"granularities": ["2"]}}, {"banks": 5}, {"original": None},
    {"original": {"copy": 1}}, {"fingerprint": None},
], ids=str)  # fmt: skip
def test_strange_values_in_the_index(folder: Path, make_modular: Any, batch: Batch, damage: dict[str, Any]) -> None:
    index = folder / "modtf.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | damage))
    with pytest.raises(ModtfError, match="values of the wrong kind"):
        modtf.load(folder)
    modular = another(make_modular)
    modular.save_pretrained(folder)
    assert_alike(modular, modtf.load(folder), batch)


def test_a_broken_folder_leaves_a_living_model_alone(folder: Path, make_modular: Any) -> None:
    modular = make_modular("t5", seed=3)
    before = weights(modular)
    cut(next(folder.glob("banks-*")), 0.9)
    with pytest.raises(ModtfError):
        modular.load_banks(folder)
    assert_same_weights(modular, before)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "holds no modtf.json, so it is not a modular model"),
        ("", "cannot be read"),
        ('{"format": 1, "banks": "ba', "cannot be read"),
        ("[]", "modtf.json"),
        ('{"format": 1}', "modtf.json"),
        ('{"format": 2}', "has format 2; this modtf reads 1: upgrade modtf"),
        ('{"banks": "x"}', "has format None"),
        (b"\xff\xfe\x00\x01", "cannot be read"),
    ],
)
def test_strange_index(folder: Path, text: str | bytes | None, words: str) -> None:
    index = folder / "modtf.json"
    if text is None:
        index.unlink()
    else:
        index.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModtfError) as raised:
        modtf.load(folder)
    assert words in str(raised.value)


@pytest.mark.parametrize("name", ["nowhere", "./no/where", "/no/where", "a/b/c", ""])
def test_no_such_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModtfError):
        modtf.load(name)


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModtfError, match="no folder here and could not be fetched from the hub"):
        modtf.load("somebody/banks-of-nobody")


def test_folder_is_a_file(make_modular: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ModtfError, match="could not save to"):
        make_modular("t5", 2, 2).save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


# -- failing in the middle -------------------------------------------------------------------------------------------------


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fails_at(call: int, function: Callable, fail: Callable) -> Callable:
    """``function``, but its ``call``-th call (from 0) fails."""
    calls = iter(range(10**6))
    return lambda *args, **options: fail(*args, **options) if next(calls) == call else function(*args, **options)


STAGES = [("save_file", 0), *(("replace", n) for n in range(3)), ("write_text", 0), ("copy", 0)]


def break_at(stage: tuple[str, int], patch: pytest.MonkeyPatch, fail: Callable) -> None:
    name, call = stage
    if name == "save_file":
        patch.setattr(modtf.modular, "save_file", fails_at(call, modtf.modular.save_file, fail))
    elif name == "replace":  # the copy of the original, the banks, the index
        patch.setattr(modtf.modular.os, "replace", fails_at(call, os.replace, fail))
    elif name == "write_text":
        patch.setattr(Path, "write_text", fails_at(call, Path.write_text, fail))
    else:
        patch.setattr(PreTrainedModel, "save_pretrained", fails_at(call, PreTrainedModel.save_pretrained, fail))


def another(make_modular: Any) -> modtf.ModularModel:
    """With another original, so that saving it over the first one copies it too and all stages are met."""
    return make_modular("t5", seed=9)


@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_full_disk(stage: tuple[str, int], folder: Path, make_modular: Any, batch: Batch) -> None:
    before, modular = contents(folder), another(make_modular)
    expected = modtf.load(folder)
    with pytest.MonkeyPatch.context() as patch:
        break_at(stage, patch, full_disk)
        with pytest.raises(
            ModtfError, match=r"could not save to .*No space left.*What it held before is still there; free some space"
        ):
            modular.save_pretrained(folder)
    assert contents(folder) == before, "nothing lost, nothing left over"
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert_alike(expected, modtf.load(folder), batch)
    modular.save_pretrained(folder)
    assert_alike(modular, modtf.load(folder), batch)
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_full_disk_in_a_new_folder(stage: tuple[str, int], make_modular: Any, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        break_at(stage, patch, full_disk)
        with pytest.raises(ModtfError, match="could not save to"):
            another(make_modular).save_pretrained(tmp_path / "new")
    assert contents(tmp_path) == {}
    with pytest.raises(ModtfError):
        modtf.load(tmp_path / "new")


def test_interrupted_by_hand(folder: Path, make_modular: Any) -> None:
    before = contents(folder)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for stage in STAGES:
        with pytest.MonkeyPatch.context() as patch:
            break_at(stage, patch, interrupt)
            with pytest.raises(KeyboardInterrupt):
                another(make_modular).save_pretrained(folder)
        assert contents(folder) == before, stage


def test_interrupted_when_all_is_in_place(
    make_modular: Any, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modular, replace = make_modular("t5"), os.replace

    def interrupted(source: Path, target: Path) -> None:
        replace(source, target)
        if Path(target).name == "modtf.json":
            raise KeyboardInterrupt

    monkeypatch.setattr("modtf.modular.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        modular.save_pretrained(tmp_path)
    assert_alike(modular, modtf.load(tmp_path), batch)


def test_full_disk_while_a_tokenizer_joins_the_copy(folder: Path, make_model: Any, tokenizer: Any) -> None:
    """The copy of the original stays; only its tokenizer is new."""
    before = contents(folder)
    modular = modtf.modularize(make_model("t5"), tokenizer=tokenizer)

    def half_written(self: Any, where: Any, *_: Any, **__: Any) -> None:
        Path(where).mkdir(exist_ok=True)
        for name in ("tokenizer_config.json", "tokenizer.json"):
            (Path(where) / name).write_text('{"tokenizer_cl')
        full_disk()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreTrainedTokenizerBase, "save_pretrained", half_written)
        with pytest.raises(ModtfError, match="could not save to"):
            modular.save_pretrained(folder)
    assert contents(folder) == before
    modular.save_pretrained(folder)
    assert modtf.load(folder).tokenizer("pub")["input_ids"] == tokenizer("pub")["input_ids"]


@pytest.mark.parametrize("path", ["../mine.safetensors", "/absolute/mine.safetensors"])
@pytest.mark.parametrize("key", ["banks", "copy"])
def test_an_index_cannot_reach_out_of_its_folder(folder: Path, make_modular: Any, key: str, path: str) -> None:
    """A folder that somebody else made: what it names elsewhere is neither read nor, when it is saved over, removed."""
    mine = folder.parent / "mine.safetensors"
    mine.write_text("mine")
    index = json.loads((folder / "modtf.json").read_text())
    given = str(mine) if path.startswith("/") else path
    index |= {"banks": given} if key == "banks" else {"original": {"copy": given}}
    (folder / "modtf.json").write_text(json.dumps(index))
    with pytest.raises(ModtfError, match=r"modtf.json"):
        modtf.load(folder)
    make_modular("t5", 2, 2).save_pretrained(folder)
    assert mine.read_text() == "mine"


def killed(*args: Any, **_: Any) -> None:
    """Writes what it can of a file, and dies."""
    for argument in args:
        if isinstance(argument, Path) and argument.suffix == ".safetensors" and not argument.exists():
            argument.write_bytes(b"\x08\x00\x00\x00")
    os.kill(os.getpid(), signal.SIGKILL)


def _save_and_die(stage: tuple[str, int], modular: modtf.ModularModel, folder: Path) -> None:
    break_at(stage, pytest.MonkeyPatch(), killed)
    modular.save_pretrained(folder)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork and SIGKILL, which this system lacks"
)
@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_killed_while_saving(stage: tuple[str, int], folder: Path, make_modular: Any, batch: Batch) -> None:
    before, modular = contents(folder), another(make_modular)
    expected = modtf.load(folder)
    process = multiprocessing.get_context("fork").Process(target=_save_and_die, args=(stage, modular, folder))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before, "the old files are whole"
    assert_alike(expected, modtf.load(folder), batch)
    modular = make_modular("t5", seed=9)  # neither the old one nor the one that did not get there
    modular.save_pretrained(folder)
    assert_alike(modular, modtf.load(folder), batch)
    assert len([path for path in folder.iterdir() if not path.name.startswith(".saving-")]) == 3, (
        "what the killed process left is gone"
    )
