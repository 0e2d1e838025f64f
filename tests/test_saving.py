"""Saving and loading: what plain transformers loads, what belongs together, and what stays whole when saving fails."""

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
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, RepoUrl
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

import modtf
import modtf.saving
from modtf.bundled import bundled
from modtf.errors import ModtfError
from modtf.mapping import Assembly
from modtf.recipes.pocket import train_tokenizer

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
        tokens = [model.generate(**sources, **options).tolist() for options in work["options"]]
        written[folder] = [type(model).__name__, *tokens]
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


# -- assemblies as ordinary checkpoints --------------------------------------------------------------------------------


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


# -- round trips -------------------------------------------------------------------------------------------------------


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
    """``trainer.save_model()`` writes banks into the output folder, where the model itself may lie already."""
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


@pytest.mark.parametrize("copy_original", [None, True])
def test_another_tokenizer_or_generation_configuration_is_not_lost(
    make_model: Any, tokenizer: Any, tmp_path: Path, copy_original: bool | None
) -> None:
    """Beside the original there are others, so a pointer or the copy that is there would bring those back."""
    original = make_model("bart", vocabulary=len(tokenizer))
    original.save_pretrained(tmp_path / "original")
    tokenizer.save_pretrained(tmp_path / "original")

    def modular(given: Any = None) -> modtf.ModularModel:
        loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "original")
        return modtf.modularize(loaded, tokenizer=given)

    modular(tokenizer).save_pretrained(tmp_path / "kit", copy_original=copy_original)
    other = train_tokenizer(["Quite other words, of quite another task."], len(tokenizer))
    assert other.get_vocab() != tokenizer.get_vocab()
    modular(other).save_pretrained(tmp_path / "kit", copy_original=copy_original)
    assert modtf.load(tmp_path / "kit").tokenizer.get_vocab() == other.get_vocab()
    penalized = modular(tokenizer)
    penalized.generation_config.repetition_penalty = 1.5
    penalized.save_pretrained(tmp_path / "kit", copy_original=copy_original)
    again = modtf.load(tmp_path / "kit")
    assert again.generation_config.repetition_penalty == 1.5
    assert again.tokenizer.get_vocab() == tokenizer.get_vocab()


def test_no_pointer_to_a_folder_that_lacks_the_tokenizer(make_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    make_model("t5").save_pretrained(tmp_path / "original")
    original = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "original")
    modtf.modularize(original, tokenizer=tokenizer).save_pretrained(tmp_path / "saved")
    assert modtf.load(tmp_path / "saved").tokenizer("pub")["input_ids"] == tokenizer("pub")["input_ids"]


def test_no_place_to_point_to(make_modular: Any, tmp_path: Path) -> None:
    with pytest.raises(ModtfError, match=r"made in memory.*copy_original=True"):
        make_modular("t5", 2, 2).save_pretrained(tmp_path / "banks", copy_original=False)
    assert not (tmp_path / "banks").exists()


# -- an original that lies in the folder that is saved to --------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["absolute", "relative", "dotted", "linked"])
def test_a_pointer_into_its_own_folder(
    spelling: str, make_modular: Any, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original of a loaded kit lies in the kit: pointing to it must not clean it away."""
    make_modular("t5").save_pretrained(tmp_path / "kit")
    (tmp_path / "link").symlink_to(tmp_path / "kit", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    name = {"absolute": tmp_path / "kit", "relative": "kit", "dotted": "./kit/../kit/", "linked": "link"}[spelling]
    modular = modtf.load(name)
    change_banks(modular)
    modular.save_pretrained(name, copy_original=False)
    (tmp_path / "kit").rename(tmp_path / "moved")
    assert_alike(modular, modtf.load(tmp_path / "moved"), batch)
    assert len(list((tmp_path / "moved").iterdir())) == 3


@pytest.mark.parametrize("linked", ["original", "folder"])
def test_a_link_between_original_and_folder(linked: str, make_modular: Any, batch: Batch, tmp_path: Path) -> None:
    make_modular("t5").save_pretrained(tmp_path / "kit")
    inner = next((tmp_path / "kit").glob("original-*"))
    if linked == "original":  # its files are elsewhere
        inner.rename(tmp_path / "elsewhere")
        inner.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    else:
        (tmp_path / "link").symlink_to(inner, target_is_directory=True)
        index = tmp_path / "kit" / "modtf.json"
        pointing = json.loads(index.read_text()) | {"original": {"pointer": str(tmp_path / "link")}}
        index.write_text(json.dumps(pointing))
    modular = modtf.load(tmp_path / "kit")
    modular.save_pretrained(tmp_path / "kit", copy_original=False)
    assert_alike(modular, modtf.load(tmp_path / "kit"), batch)


def test_a_kit_saved_into_the_one_that_holds_its_original(make_modular: Any, batch: Batch, tmp_path: Path) -> None:
    make_modular("t5").save_pretrained(tmp_path / "a")
    modtf.load(tmp_path / "a").save_pretrained(tmp_path / "b", copy_original=False)
    assert len(list((tmp_path / "b").iterdir())) == 2, "an index that points into a, and the banks"
    b = modtf.load(tmp_path / "b")
    change_banks(b)
    b.save_pretrained(tmp_path / "a", copy_original=False)
    assert_alike(b, modtf.load(tmp_path / "a"), batch)
    assert modtf.load(tmp_path / "b").mapping == b.mapping


@pytest.mark.parametrize("copied", [None, True, False])
def test_a_copy_that_was_renamed(copied: bool | None, make_modular: Any, batch: Batch, tmp_path: Path) -> None:
    make_modular("t5").save_pretrained(tmp_path)
    next(tmp_path.glob("original-*")).rename(tmp_path / "my-t5")
    index = tmp_path / "modtf.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"original": {"copy": "my-t5"}}))
    modular = modtf.load(tmp_path)
    modular.save_pretrained(tmp_path, copy_original=copied)
    assert_alike(modular, modtf.load(tmp_path), batch)
    assert (tmp_path / "my-t5").is_dir() and len(list(tmp_path.iterdir())) == 3, "not copied a second time"


def test_a_folder_within_the_copy_stays_when_it_is_pointed_to(make_modular: Any, batch: Batch, tmp_path: Path) -> None:
    make_modular("t5").save_pretrained(tmp_path)
    inner = next(tmp_path.glob("original-*"))
    shutil.copytree(inner, tmp_path / "start")
    (tmp_path / "start").rename(inner / "start")
    modular = modtf.modularize(AutoModelForSeq2SeqLM.from_pretrained(inner / "start"))
    modular.save_pretrained(tmp_path, copy_original=False)
    assert_alike(modular, modtf.load(tmp_path), batch)


def test_another_precision_leaves_nothing_to_point_to(make_modular: Any, batch: Batch, tmp_path: Path) -> None:
    """The half precision takes the place of the copy that the living model came from."""
    make_modular("t5").save_pretrained(tmp_path)
    modular = modtf.load(tmp_path)
    modular.save_pretrained(tmp_path, copy_original=True, dtype=torch.float16)
    assert len(list(tmp_path.glob("original-*"))) == 1
    kept = contents(tmp_path)
    with pytest.raises(ModtfError, match=r"no longer, what .* holds.*copy_original=True"):
        modular.save_pretrained(tmp_path, copy_original=False)
    assert contents(tmp_path) == kept
    assert modtf.load(tmp_path).mapping == modular.mapping


def test_an_original_that_has_gone_or_changed_is_not_pointed_to(make_model: Any, tmp_path: Path) -> None:
    make_model("t5").save_pretrained(tmp_path / "original")
    modular = modtf.modularize(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "original"))
    make_model("t5", seed=5).save_pretrained(tmp_path / "original")
    for _ in range(2):
        with pytest.raises(ModtfError, match=r"is not, or no longer, what .* holds"):
            modular.save_pretrained(tmp_path / "banks", copy_original=False)
        shutil.rmtree(tmp_path / "original", ignore_errors=True)
    assert not (tmp_path / "banks").exists()


# -- comparing with a checkpoint without loading it --------------------------------------------------------------------


@pytest.fixture()
def no_second_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to forbid loading from then on."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a second model was loaded")

    return lambda: monkeypatch.setattr(AutoModelForSeq2SeqLM, "from_pretrained", forbidden)


def original_in(folder: Path) -> dict[str, str]:
    return json.loads((folder / "modtf.json").read_text())["original"]


def from_checkpoint(model: PreTrainedModel, folder: Path, **options: Any) -> modtf.ModularModel:
    model.save_pretrained(folder, **options)
    return modtf.modularize(AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32))


@pytest.mark.parametrize("stored", ["float32", "float16", "shards"])
def test_an_unchanged_checkpoint_is_pointed_to(
    family: str, stored: str, make_model: Any, tmp_path: Path, no_second_model: Any
) -> None:
    model, options = make_model(family), {"max_shard_size": "30KB"} if stored == "shards" else {}
    modular = from_checkpoint(model.half() if stored == "float16" else model, tmp_path / "original", **options)
    assert len(list((tmp_path / "original").glob("*.safetensors"))) > 1 or stored != "shards"
    no_second_model()
    modular.save_pretrained(tmp_path / "banks")
    assert original_in(tmp_path / "banks") == {"pointer": str(tmp_path / "original")}


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "30KB"}], ids=["one file", "shards"])
def test_a_single_changed_weight_is_noticed(
    family: str, options: dict[str, Any], make_model: Any, tmp_path: Path, no_second_model: Any
) -> None:
    """Also one that the fingerprint, which reads every sixth value here, does not see."""
    modular = from_checkpoint(make_model(family), tmp_path / "original", **options)
    with torch.no_grad():
        modular.model.get_input_embeddings().weight.view(-1)[1] += 1
    no_second_model()
    modular.save_pretrained(tmp_path / "banks")
    assert "copy" in original_in(tmp_path / "banks")
    saved = load_file(next((tmp_path / "banks").glob("original-*/model.safetensors")))
    own = modular.original_weights()
    assert all(torch.equal(saved[name], own[name]) for name in own)


def test_a_changed_buffer_is_noticed(make_model: Any, tmp_path: Path) -> None:
    modular = from_checkpoint(make_model("bart"), tmp_path / "original")
    modular.model.final_logits_bias[0, 3] = 1
    modular.save_pretrained(tmp_path / "banks")
    assert "copy" in original_in(tmp_path / "banks")


def renamed(checkpoint: Path, names: dict[str, str]) -> None:
    file = checkpoint / "model.safetensors"
    saved = {names.get(name, name): tensor for name, tensor in load_file(file).items()}
    file.unlink()
    save_file(saved, file, metadata={"format": "pt"})


def test_names_without_the_prefix(make_model: Any, tmp_path: Path, no_second_model: Any) -> None:
    """As in a checkpoint of BartModel, whose lack of a head (and of its bias, which is zero) matters as little."""
    make_model("bart").save_pretrained(tmp_path / "original")
    file = tmp_path / "original" / "model.safetensors"
    saved = {name.removeprefix("model."): tensor for name, tensor in load_file(file).items()}
    saved.pop("final_logits_bias", None)
    save_file(saved, file, metadata={"format": "pt"})
    modular = modtf.modularize(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "original"))
    no_second_model()
    modular.save_pretrained(tmp_path / "banks")
    assert "pointer" in original_in(tmp_path / "banks")


def test_another_name_of_a_tied_weight(make_model: Any, tmp_path: Path) -> None:
    model, before = make_model("t5"), "shared.weight"
    model.save_pretrained(tmp_path)
    for name in ("encoder.embed_tokens.weight", "lm_head.weight", "transformer.decoder.embed_tokens.weight", "unknown"):
        renamed(tmp_path, {before: name})
        before = name
        assert modtf.saving.same_weights(tmp_path, model) is (None if name == "unknown" else True)


def test_what_cannot_be_compared_is_copied(make_model: Any, tmp_path: Path, no_second_model: Any) -> None:
    modular = from_checkpoint(make_model("t5"), tmp_path / "original")
    torch.save(load_file(tmp_path / "original" / "model.safetensors"), tmp_path / "original" / "pytorch_model.bin")
    (tmp_path / "original" / "model.safetensors").unlink()
    no_second_model()
    modular.save_pretrained(tmp_path / "banks")
    assert "copy" in original_in(tmp_path / "banks")
    modular.save_pretrained(tmp_path / "pointing", copy_original=False)
    assert original_in(tmp_path / "pointing") == {"pointer": str(tmp_path / "original")}


@pytest.mark.parametrize("cached", [True, False])
def test_a_checkpoint_of_the_hub(
    cached: bool, make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_second_model: Any
) -> None:
    """Compared with what of it is on this machine, without asking the network."""
    snapshot = tmp_path / "hub" / "models--somebody--t5" / "snapshots" / ("0" * 40)
    make_model("t5").save_pretrained(snapshot)
    (tmp_path / "hub" / "models--somebody--t5" / "refs").mkdir()
    (tmp_path / "hub" / "models--somebody--t5" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    modular = modtf.modularize(AutoModelForSeq2SeqLM.from_pretrained("somebody/t5", cache_dir=tmp_path / "hub"))
    if not cached:
        shutil.rmtree(tmp_path / "hub")
    no_second_model()
    modular.save_pretrained(tmp_path / "banks")
    assert list(original_in(tmp_path / "banks")) == (["pointer"] if cached else ["copy"])
    modular.save_pretrained(tmp_path / "pointing", copy_original=False)
    assert original_in(tmp_path / "pointing") == {"pointer": "somebody/t5"}


# -- what a kit says of its task ---------------------------------------------------------------------------------------


def test_the_task_is_saved(make_model: Any, tmp_path: Path) -> None:
    modular = modtf.modularize(make_model("t5"), task="e2e")
    modular.save_pretrained(tmp_path)
    assert modtf.load(tmp_path).task == modtf.ModularModel.from_pretrained(tmp_path).task == "e2e"
    assert modtf.load(tmp_path, task="text").task == "text"
    modular.save_banks(tmp_path)
    assert json.loads((tmp_path / "modtf.json").read_text())["task"] == "e2e"
    assert modtf.modularize(make_model("t5")).task == "text"
    with pytest.raises(ModtfError, match="the task is 5; give its name"):
        modtf.load(tmp_path, task=5)  # type: ignore[arg-type]


# -- banks and original belong together --------------------------------------------------------------------------------


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


def test_banks_do_not_replace_a_kit_of_another_original(make_modular: Any, tmp_path: Path) -> None:
    make_modular("t5", 2, 2, seed=0).save_pretrained(tmp_path / "kit")
    other = make_modular("t5", 2, 2, seed=5)
    before = contents(tmp_path / "kit")
    with pytest.raises(ModtfError, match=r"trained for another original.*Use that original, or another folder"):
        other.save_banks(tmp_path / "kit")
    assert contents(tmp_path / "kit") == before
    make_modular("t5", 2, 2, seed=0).save_banks(tmp_path / "checkpoint")
    other.save_banks(tmp_path / "checkpoint")  # nothing but another checkpoint is lost
    other.load_banks(tmp_path / "checkpoint")


def test_banks_alone_need_their_original(make_modular: Any, make_model: Any, tmp_path: Path) -> None:
    modular = make_modular("t5")
    modular.save_banks(tmp_path)
    with pytest.raises(ModtfError, match=r"without their original .* give it, .*original="):
        modtf.load(tmp_path)
    assert_same_weights(modtf.ModularModel.from_pretrained(tmp_path, original=make_model("t5")), modular)


def test_banks_of_other_granularities(make_modular: Any, make_model: Any, tmp_path: Path) -> None:
    make_modular("t5").save_banks(tmp_path)
    fewer = modtf.modularize(make_model("t5"), (2,))
    before = weights(fewer)
    with pytest.raises(ModtfError, match=r"do not fit this model .*other granularities"):
        fewer.load_banks(tmp_path)
    assert_same_weights(fewer, before)


# -- files that are missing, cut off or strange ------------------------------------------------------------------------


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


def zero_the_end(path: Path, count: int = 1000) -> None:
    """What a file system may leave after a crash: the length is right."""
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:-count] + bytes(count))


@pytest.mark.parametrize("file", ["banks-*", "original-*/model.safetensors"])
def test_content_that_has_changed(folder: Path, batch: Batch, file: str) -> None:
    modular = modtf.load(folder)
    zero_the_end(next(folder.glob(file)))
    with pytest.raises(ModtfError, match=r"is damaged: its content is not what was saved.*copy the whole folder again"):
        modtf.load(folder)
    modular.save_pretrained(folder)
    assert_alike(modular, modtf.load(folder), batch)


def test_a_checkpoint_beside_a_damaged_original_does_not_bless_it(folder: Path) -> None:
    modular = modtf.load(folder)
    zero_the_end(next(folder.glob("original-*/model.safetensors")))
    modular.save_banks(folder)
    with pytest.raises(ModtfError, match="is damaged"):
        modtf.load(folder)


def as_of_version_0_1(folder: Path) -> None:
    """Its index knew neither tasks nor checksums."""
    index = json.loads((folder / "modtf.json").read_text())
    del index["sha256"], index["task"]
    (folder / "modtf.json").write_text(json.dumps(index, indent=2) + "\n")


def test_a_kit_of_version_0_1(folder: Path, make_modular: Any, batch: Batch) -> None:
    as_of_version_0_1(folder)
    assert_alike(make_modular("t5"), modtf.load(folder), batch)
    assert modtf.load(folder).task == "text"
    zero_the_end(next(folder.glob("banks-*")))  # whose name carries a digest of the content
    with pytest.raises(ModtfError, match="is damaged"):
        modtf.load(folder)


def test_renamed_banks_of_version_0_1(folder: Path, make_modular: Any, batch: Batch) -> None:
    as_of_version_0_1(folder)
    next(folder.glob("banks-*")).rename(folder / "mine.safetensors")
    index = folder / "modtf.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"banks": "mine.safetensors"}))
    assert_alike(make_modular("t5"), modtf.load(folder), batch)


def test_the_bundled_kit_is_verified(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundled("pocket"), tmp_path / "pocket"))
    assert modtf.load(folder).mapping.layers == 24
    zero_the_end(next(folder.glob("banks-*")))
    with pytest.raises(ModtfError, match="is damaged"):
        modtf.load(folder)


def test_an_unchanged_kit_saved_again_keeps_its_files(folder: Path) -> None:
    before = contents(folder)
    modtf.load(folder).save_pretrained(folder)
    assert contents(folder) == before


def test_saving_again_repairs_a_damaged_copy(folder: Path, batch: Batch) -> None:
    modular = modtf.load(folder)
    damaged = next(folder.glob("original-*/model.safetensors"))
    whole = damaged.read_bytes()
    damaged.unlink()  # the living model still reads its weights from that file
    damaged.write_bytes(whole[: len(whole) // 2])
    modular.save_pretrained(folder)
    assert_alike(modular, modtf.load(folder), batch)


@pytest.mark.parametrize("damage", [
    {"encoder": {}}, {"decoder": {"granularities": 2}}, {"encoder": {"granularities": ["2"]}}, {"banks": 5},
    {"original": None},
    {"original": {"copy": 1}}, {"fingerprint": None}, {"task": 5}, {"sha256": ["x"]}, {"sha256": {"x": 1}},
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
        ('{"banks": "x"}', "lacks values"),
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


@pytest.mark.parametrize("name", [None, 5, [], b"pocket"], ids=repr)
def test_a_name_is_a_text_or_a_path(make_modular: Any, name: Any) -> None:
    modular = make_modular("t5", 2, 2)
    with pytest.raises(ModtfError, match=r"is not a folder; give its path"):
        modtf.load(name)
    for wrong in (
        modular.save_pretrained,
        modular.save_banks,
        modular.load_banks,
        lambda folder: modular.export(folder, modular.mapping.coarsest),
    ):
        for given in (name, ""):
            with pytest.raises(ModtfError, match=r"is not a folder; give its path"):
                wrong(given)


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModtfError, match="is not a folder here, and could not be fetched from the hub"):
        modtf.load("somebody/banks-of-nobody")


def test_damaged_banks_do_not_cost_the_given_original(make_modular: Any, make_model: Any, tmp_path: Path) -> None:
    make_modular("t5", 2, 2).save_pretrained(tmp_path)
    banks = next(tmp_path.glob("banks-*"))
    content = banks.read_bytes()
    original = make_model("t5", 2, 2)
    banks.write_bytes(content[:-100] + bytes(100))
    with pytest.raises(ModtfError, match="is damaged"):
        modtf.ModularModel.from_pretrained(tmp_path, original=original)
    banks.write_bytes(content)
    assert modtf.ModularModel.from_pretrained(tmp_path, original=original).mapping.maximum_ratio == 2
    with pytest.raises(ModtfError, match="is modular already"):
        modtf.ModularModel.from_pretrained(tmp_path, original=original)


def test_types_of_numbers(make_modular: Any, tmp_path: Path) -> None:
    make_modular("t5", 2, 2).save_pretrained(tmp_path / "half", dtype="float16")
    loaded = modtf.ModularModel.from_pretrained(tmp_path / "half", dtype="bfloat16")
    assert next(loaded.parameters()).dtype == torch.bfloat16
    for wrong in ("half precision", torch.int8, 16):
        with pytest.raises(ModtfError, match="give a floating-point type"):
            loaded.save_pretrained(tmp_path / "wrong", dtype=wrong)
        with pytest.raises(ModtfError, match="give a floating-point type"):
            modtf.ModularModel.from_pretrained(tmp_path / "half", dtype=wrong)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_paths_that_cannot_be(make_modular: Any, path: str) -> None:
    modular = make_modular("t5", 2, 2)
    for use in (modtf.load, modular.save_pretrained, modular.save_banks, modular.load_banks):
        with pytest.raises(ModtfError, match="is not a possible path"):
            use(path)
    with pytest.raises(ModtfError, match="is not a possible path"):
        modular.export(path, modular.mapping.original)


def test_a_mistyped_name_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(modtf.saving, "snapshot_download", None)
    with pytest.raises(ModtfError, match=r"'pockett' is neither bundled \(translator, pocket\) nor a folder here"):
        modtf.load("pockett")


def test_folder_is_a_file(make_modular: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ModtfError, match="could not save to"):
        make_modular("t5", 2, 2).save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_kits_saved_at_once_into_one_folder_take_turns(make_modular: Any, tmp_path: Path) -> None:
    kits = [make_modular("t5", 2, 2, seed=seed) for seed in range(3)]
    for turn in range(6):
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(lambda kit: kit.save_pretrained(tmp_path / "kit"), kits))
        loaded = modtf.load(tmp_path / "kit")
        assert any(same(loaded.original_weights(), kit.original_weights()) for kit in kits), turn
        assert len(list((tmp_path / "kit").glob("banks-*"))) == 1, "of the others nothing is left"


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- failing in the middle ---------------------------------------------------------------------------------------------


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fails_at(call: int, function: Callable, fail: Callable) -> Callable:
    """``function``, but its ``call``-th call (from 0) fails."""
    calls = iter(range(10**6))
    return lambda *args, **options: fail(*args, **options) if next(calls) == call else function(*args, **options)


def test_files_reach_the_disk_before_the_index_and_the_index_before_the_end(
    make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may lose what was not waited for, in any order."""
    happened: list[tuple[str, int | str]] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(handle: int) -> None:
        happened.append(("synced", os.fstat(handle).st_ino))
        fsync(handle)

    def recorded_replace(source: Path, target: Path) -> None:
        happened.append(("placed", Path(target).name))
        replace(source, target)

    def inode(path: Path) -> int:
        return path.stat().st_ino

    make_modular("t5").save_pretrained(tmp_path)
    joining = modtf.load(tmp_path)
    joining._tokenizer = tokenizer
    for modular in (joining, another(make_modular)):  # a copy with a tokenizer, then one of another original
        monkeypatch.setattr("os.fsync", recorded_fsync)
        monkeypatch.setattr("os.replace", recorded_replace)
        happened.clear()
        modular.save_pretrained(tmp_path)
        monkeypatch.undo()
        at = happened.index(("placed", "modtf.json"))
        before, after = ({what for kind, what in part if kind == "synced"} for part in (happened[:at], happened[at:]))
        index = json.loads((tmp_path / "modtf.json").read_text())
        copied = tmp_path / index["original"]["copy"]
        named = [tmp_path / "modtf.json", tmp_path / index["banks"], copied, *copied.iterdir()]
        assert {inode(path) for path in (*named, tmp_path)} <= before
        assert inode(tmp_path) in after
        last_placed = max(i for i, (kind, _) in enumerate(happened[:at]) if kind == "placed")
        assert ("synced", inode(tmp_path)) in happened[last_placed:at], "the names of the new files, too"


STAGES = [("save_file", 0), *(("replace", n) for n in range(3)), ("write_text", 0), ("copy", 0)]


def break_at(stage: tuple[str, int], patch: pytest.MonkeyPatch, fail: Callable) -> None:
    name, call = stage
    if name == "save_file":
        patch.setattr(modtf.saving, "save_file", fails_at(call, modtf.saving.save_file, fail))
    elif name == "replace":  # the copy of the original, the banks, the index
        patch.setattr(modtf.saving.os, "replace", fails_at(call, os.replace, fail))
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

    monkeypatch.setattr("modtf.saving.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        modular.save_pretrained(tmp_path)
    assert_alike(modular, modtf.load(tmp_path), batch)


def test_a_disk_that_fails_when_all_is_in_place(
    folder: Path, make_modular: Any, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    modular, replace = another(make_modular), os.replace

    def then_the_disk_fails(source: Path, target: Path) -> None:
        replace(source, target)
        if Path(target).name == "modtf.json":
            monkeypatch.setattr("os.fsync", full_disk)

    monkeypatch.setattr("os.replace", then_the_disk_fails)
    with pytest.raises(ModtfError, match=r"holds the new model, but a power cut may undo that.*save again"):
        modular.save_pretrained(folder)
    monkeypatch.undo()
    assert_alike(modular, modtf.load(folder), batch)
    modular.save_pretrained(folder)
    assert len(list(folder.iterdir())) == 3, "what the first attempt left is gone"


def test_full_disk_while_a_tokenizer_joins_the_copy(folder: Path, make_model: Any, tokenizer: Any) -> None:
    """The copy of the original stays until one with a tokenizer is complete."""
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


@pytest.mark.parametrize("path", ["../mine.safetensors", "/absolute/mine.safetensors", ".."])
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
    for left_over in folder.glob(".saving-*"):
        os.utime(left_over, (0, 0))
    modular = make_modular("t5", seed=9)  # neither the old one nor the one that did not get there
    modular.save_pretrained(folder)
    assert_alike(modular, modtf.load(folder), batch)
    assert len(list(folder.iterdir())) == 3, "what the killed process left is gone"


# -- the hub -----------------------------------------------------------------------------------------------------------


class Hub:
    """Stands for the hub's client: it keeps what would be uploaded."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, has_card: bool = False) -> None:
        self.folder, self.asked = folder, {}
        self.holds = {"README.md"} if has_card else set()
        for method in (self.create_repo, self.file_exists, self.upload_folder):
            monkeypatch.setattr(HfApi, method.__name__, staticmethod(method))

    def create_repo(self, repo_id: str, **options: Any) -> RepoUrl:
        self.asked |= options
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def file_exists(self, repo_id: str, name: str) -> bool:
        return name in self.holds

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> None:
        self.asked |= options
        shutil.copytree(folder_path, self.folder / repo_id)


def test_push_to_hub(
    make_modular: Any, tokenizer: Any, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tmp_path / "hub", monkeypatch)
    modular = make_modular("t5", tokenizer=tokenizer)
    modular.save_pretrained(tmp_path / "here")
    modular = modtf.load(tmp_path / "here")
    where = modular.push_to_hub("somebody/kit", private=True, commit_message="First")
    assert where == "https://huggingface.co/somebody/kit"
    assert hub.asked["private"] is True and hub.asked["commit_message"] == "First"
    shutil.rmtree(tmp_path / "here")  # nobody else has it
    again = modtf.load(tmp_path / "hub" / "somebody" / "kit")
    assert_alike(modular, again, batch)
    assert again.tokenizer("pub")["input_ids"] == tokenizer("pub")["input_ids"]
    card = (tmp_path / "hub" / "somebody" / "kit" / "README.md").read_text()
    for words in (
        'modtf.load("somebody/kit")',
        "task: text",
        "encoder: 6 layers, granularities [2, 3]",
        "3x, counted in layers",
        "original: a copy in this repository",
        "icence",
    ):
        assert words in card
    assert ModelCard(card).data.to_dict()["library_name"] == "modtf", "its header can be read"
    old = ("banks-0123456789ab.safetensors", "original-0123456789ab/model.safetensors")
    assert all(any(fnmatch(name, pattern) for pattern in hub.asked["delete_patterns"]) for name in old)


def test_a_model_card_is_not_written_over(make_modular: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(tmp_path / "hub", monkeypatch, has_card=True)
    modular = make_modular("t5", 2, 2)
    modular.push_to_hub("somebody/kit")
    assert not (tmp_path / "hub" / "somebody" / "kit" / "README.md").exists(), "the one on the hub stays"
    (tmp_path / "README.md").write_text("mine")
    modular.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("repo_id", ["somebody/kit", "not/a/name", "???", None, 5])
def test_a_hub_that_refuses(repo_id: Any, make_modular: Any) -> None:
    with pytest.raises(ModtfError, match=r"could not upload to|is not a repository; give its id"):
        make_modular("t5", 2, 2).push_to_hub(repo_id)
