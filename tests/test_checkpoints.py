"""What a killed training leaves, and what one that goes on from it does with that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SENTENCES
from test_watch import EXAMPLES, arguments, kit
from transformers import AutoTokenizer, Trainer

from modtf.errors import ModtfError
from modtf.saving import save_tokenizer, write_whole, written_aside
from modtf.tasks import TEXT
from modtf.training import ModularTrainingArguments
from modtf.training.checkpoints import alone_in, last_checkpoint, tidy
from modtf.training.options import Settings, parse_training
from modtf.training.runs import train_kit, train_original


def checkpoint(folder: Path, state: str | None = "{}") -> None:
    folder.mkdir()
    (folder / "optimizer.pt").touch()
    if state is not None:
        (folder / "trainer_state.json").write_text(state)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_killed_training_leaves_is_removed(tmp_path: Path) -> None:
    others = {"checkpoint-7", "checkpoint-10", "checkpoint-best", "checkpoint-12b", "checkpoint-9", "modtf.json"}
    for name in ("checkpoint-7", "checkpoint-10", "checkpoint-2"):  # the oldest one is removed in part
        checkpoint(tmp_path / name)
    checkpoint(tmp_path / "checkpoint-11", state='{"epoch": 1.')
    checkpoint(tmp_path / "checkpoint-12", state=None)
    checkpoint(tmp_path / "checkpoint-best", state=None)
    checkpoint(tmp_path / "checkpoint-12b", state=None)
    (tmp_path / "checkpoint-9").touch()
    (tmp_path / "modtf.json").touch()
    (tmp_path / ".saving-x1").mkdir()
    (tmp_path / ".saving-x1" / "banks").touch()
    (tmp_path / ".options.yaml.123.part").touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    tidy(tmp_path, limit=None)
    assert names(tmp_path) == others | {"checkpoint-2"}
    tidy(tmp_path, limit=2)
    assert names(tmp_path) == others
    tidy(tmp_path, limit=0)  # which means as many as there are
    assert names(tmp_path) == others
    tidy(tmp_path / "new", limit=1)
    assert last_checkpoint(tmp_path / "new") is None


def test_a_checkpoint_that_cannot_be_read_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def refused(path: Path, **options: Any) -> str:
        if path.parent.name == "checkpoint-2":
            raise PermissionError
        return read(path, **options)

    for step in (1, 2):
        checkpoint(tmp_path / f"checkpoint-{step}")
    monkeypatch.setattr(Path, "read_text", refused)
    tidy(tmp_path, limit=None)
    assert names(tmp_path) == {"checkpoint-1", "checkpoint-2"}
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")


def test_two_trainings_in_one_folder(
    make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtf.training.checkpoints._PATIENCE", 0.0)
    given = (kit(make_modular, tokenizer), TEXT, EXAMPLES, arguments(tmp_path, max_steps=1), 4)
    checkpoint(tmp_path / "checkpoint-1", state=None)  # which the other one is writing
    with alone_in(tmp_path), pytest.raises(ModtfError, match=r"another process trains in .*; wait for its end"):
        train_kit(*given)
    assert names(tmp_path) == {"checkpoint-1"} and names(tmp_path / "checkpoint-1") == {"optimizer.pt"}
    train_kit(*given)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")


@pytest.mark.parametrize("what", ["kit", "original"])
def test_the_state_comes_last(
    what: str, make_model: Any, make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several processes, too: the first waits for the others before it writes that a checkpoint is complete."""
    met, folder = [], tmp_path / "checkpoint-1"
    make, write = Trainer.create_accelerator_and_postprocess, Trainer._save_rng_state

    def with_a_witness(trainer: Any) -> None:
        make(trainer)
        trainer.accelerator.wait_for_everyone = lambda: met.append(names(folder) if folder.is_dir() else set())

    def in_time(trainer: Any, output: str) -> None:
        write(trainer, output)
        met.clear()

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", with_a_witness)
    monkeypatch.setattr(Trainer, "_save_rng_state", in_time)
    args = arguments(tmp_path, max_steps=1)
    if what == "kit":
        train_kit(kit(make_modular, tokenizer), TEXT, EXAMPLES, args, 4)
    else:
        train_original(make_model("t5", vocabulary=len(tokenizer)), tokenizer, TEXT, EXAMPLES, args, 4)
    assert met[0] == names(folder) - {"trainer_state.json"} and {"optimizer.pt", "rng_state.pth"} <= met[0]


def test_what_is_no_error_of_the_disk_is_not_said_to_be_one(
    make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("shared tensors")

    monkeypatch.setattr(Trainer, "_save_rng_state", broken)
    with pytest.raises(RuntimeError, match="shared tensors"):
        train_kit(kit(make_modular, tokenizer), TEXT, EXAMPLES, arguments(tmp_path, max_steps=1), 4)
    assert names(tmp_path) == set(), "nothing of the checkpoint is left"


def test_an_error_after_a_checkpoint_is_complete(
    make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("transformers.trainer.rotate_checkpoints", no_network)
    with pytest.raises(OSError, match="no network"):
        train_kit(kit(make_modular, tokenizer), TEXT, EXAMPLES, arguments(tmp_path, max_steps=1), 4)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")


def test_seconds_before_an_interruption_count(make_modular: Any, tokenizer: Any, tmp_path: Path) -> None:
    def seconds(steps: int) -> float:
        train_kit(kit(make_modular, tokenizer), TEXT, EXAMPLES, arguments(tmp_path, max_steps=steps, save_steps=1), 4)
        return json.loads((tmp_path / "training.json").read_text())["seconds"]

    assert 0 < seconds(2) < 500
    path = tmp_path / "checkpoint-2" / "trainer_state.json"
    state = json.loads(path.read_text())
    assert 0 < state["stateful_callbacks"]["Elapsed"]["attributes"]["_before"] < 500
    state["stateful_callbacks"]["Elapsed"]["attributes"]["_before"] = 1000.0
    path.write_text(json.dumps(state))
    (tmp_path / "training.json").unlink()  # killed before it was written
    assert 1000 <= seconds(2) < 1500
    assert 1000 <= seconds(3) < 1500, "the file of a shorter training is not taken for this one's"
    del state["stateful_callbacks"]["Elapsed"]  # by an earlier version
    path.write_text(json.dumps(state))
    for step in (1, 3):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").unlink()
    assert 0 < seconds(4) < 500


def test_what_goes_on_computes_as_it_began(
    make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which precision is faster was measured as it began; another moment may find otherwise."""

    def trained(output: str, steps: int, bf16: bool) -> dict[str, torch.Tensor]:
        monkeypatch.setattr("modtf.training.optimizer.fast_bf16", lambda: bf16)
        modular = kit(make_modular, tokenizer)
        args = arguments(tmp_path / output, max_steps=steps, lr_scheduler_type="constant")
        train_kit(modular, TEXT, EXAMPLES, args, 4, adamw_learning_rate=1e-3)
        return modular.bank_weights()

    single, half = trained("single", 4, bf16=False), trained("half", 4, bf16=True)
    trained("both", 2, bf16=False)
    both = trained("both", 4, bf16=True)
    assert all(torch.equal(weight, both[name]) for name, weight in single.items())
    assert not all(torch.equal(weight, both[name]) for name, weight in half.items())


def test_the_precision_of_a_training_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bf16(*given: str) -> bool:
        command = ["--output", str(tmp_path), "--report-to", "none", *given]
        args, options = parse_training(
            ModularTrainingArguments, Settings(3, 4, 1e-3, 1e-3), lambda _: None, command, prog="x"
        )
        assert options.record["bf16"] is args.bf16, "so that the file of options repeats it"
        return args.bf16

    monkeypatch.setattr("modtf.training.options.fast_bf16", lambda: True)
    assert bf16() and not bf16("--no-bf16")
    (tmp_path / "options.yaml").write_text("bf16: false\n")
    assert bf16(), "of a training that has no checkpoint, so a new one begins"
    checkpoint(tmp_path / "checkpoint-1")
    assert not bf16() and bf16("--bf16", "true")
    (tmp_path / "options.yaml").write_text("max_steps: 3\n")  # by an earlier version
    assert bf16()


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "new" / "options.yaml", "steps: 1\n")
    with pytest.raises(ModtfError, match=r"options.yaml could not be written: Is a directory"):
        (tmp_path / "options.yaml").mkdir()
        write_whole(tmp_path / "options.yaml", "steps: 2\n")
    assert names(tmp_path) == {"new", "options.yaml"}
    with pytest.raises(KeyboardInterrupt), written_aside(tmp_path / "original") as new:
        (new / "config.json").write_text("{}")
        raise KeyboardInterrupt
    assert names(tmp_path / "original") == set()
    with written_aside(tmp_path / "original") as new:
        for name in ("config.json", "more/template", "model.safetensors"):
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text("{}")
    assert names(tmp_path / "original") == {"config.json", "more", "model.safetensors"}


def test_a_saved_tokenizer_does_not_know_its_last_use(tokenizer: Any, tmp_path: Path) -> None:
    """So a kit is the same whether or not the process that saved it has trained."""
    save_tokenizer(tokenizer, tmp_path / "before")
    tokenizer(list(SENTENCES), padding=True, truncation=True, max_length=9)
    used = tokenizer.backend_tokenizer.to_str()
    save_tokenizer(tokenizer, tmp_path / "after")
    assert tokenizer.backend_tokenizer.to_str() == used, "another thread may be using it"
    before, after = ((tmp_path / name / "tokenizer.json").read_text() for name in ("before", "after"))
    assert before == after != used
    ids = tokenizer(list(SENTENCES), padding=True, truncation=True, max_length=9)["input_ids"]
    again = AutoTokenizer.from_pretrained(tmp_path / "after")
    assert again(list(SENTENCES), padding=True, truncation=True, max_length=9)["input_ids"] == ids


def test_a_full_disk_in_the_tokenizer_of_a_kit(
    make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise Exception("No space left on device (os error 28)")  # as tokenizers does

    modular = kit(make_modular, tokenizer)
    monkeypatch.setattr(type(tokenizer), "save_pretrained", full)
    for save in (modular.save_pretrained, lambda folder: modular.export(folder, modular.mapping.coarsest)):
        with pytest.raises(ModtfError, match=r"could not save to .*: No space left on device"):
            save(tmp_path / "new")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
