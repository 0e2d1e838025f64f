"""The shell commands as people run them: train (interrupted, too), evaluate, generate, export, and errors in one line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import modtf
from modtf.bundled import bundled
from modtf.tasks import E2E
from modtf.training.runs import last_checkpoint

ORIGINAL = str(next(bundled("pocket").glob("original-*")))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "modtf.cli", *map(str, arguments)]


def run(*arguments: str | Path, fails: bool = False) -> str:
    done = subprocess.run(command(*arguments), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == (2 if fails else 0), done.stderr
    if fails:
        assert done.stderr.startswith("modtf: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of E2E data, made of what the bundled original wrote."""
    folder = tmp_path_factory.mktemp("e2e")
    for split, examples in (
        ("train-cleaned", E2E.bundled_examples("pairs")[:200]),
        ("test", E2E.bundled_examples("evaluation")[:6]),
    ):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["mr", "ref"])
            rows.writerows([example.source, reference] for example in examples for reference in example.references)
    return folder


@pytest.fixture(scope="module")
def original(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("training") / "original"
    run("train", "original", "--data", data, "--output", output, "--steps", "4", "--batch-size", "8")
    return output


def test_an_original_goes_on_from_another(data: Path, original: Path, tmp_path: Path) -> None:
    run("train", "original", "--data", data, "--begin-with", original, "--dropout", "0.1", "--output", tmp_path / "more", "--steps", "2",
        "--batch-size", "8")  # fmt: skip
    before, after = (AutoModelForSeq2SeqLM.from_pretrained(folder) for folder in (original, tmp_path / "more"))
    assert not torch.equal(before.shared.weight, after.shared.weight)
    assert (before.shared.weight - after.shared.weight).abs().max() < 0.1, "it began with the other's weights"
    assert after.config.dropout_rate == 0
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "more").get_vocab()
        == AutoTokenizer.from_pretrained(original).get_vocab()
    )


def test_a_killed_training_goes_on_to_the_same_kit(data: Path, original: Path, tmp_path: Path) -> None:
    def arguments(output: str) -> list[str | Path]:
        return ["train", "kit", "--data", data, "--original", original, "--output", tmp_path / output, "--steps", "6", "--batch-size", "8",
                "--pairs", "10"]  # fmt: skip

    run(*arguments("whole"))
    killed = subprocess.Popen(
        command(*arguments("killed")), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / "killed" / "checkpoint-2" / "trainer_state.json").exists():
        assert killed.poll() is None and time.monotonic() < deadline, "no checkpoint to go on from"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "modtf.json").exists(), "it was killed before its end"
    run(*arguments("killed"))
    whole, resumed = (load_file(next((tmp_path / name).glob("banks-*.safetensors"))) for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    kit = modtf.load(tmp_path / "killed")
    assert isinstance(kit.generate("name[The Vaults], eatType[pub]", ratio=6, max_new_tokens=4), str)


def test_half_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-9" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text('{"epoch": 1.')
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")


def test_a_damaged_original(data: Path, original: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(original, tmp_path / "damaged"))
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "could not be loaded" in run(
        "train", "kit", "--data", data, "--original", damaged, "--output", tmp_path / "kit", fails=True
    )
    assert not (tmp_path / "kit").exists()


def test_two_processes_train_together(data: Path, original: Path, tmp_path: Path) -> None:
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *command()[1:]]
    options = [
        "--data",
        data,
        "--original",
        original,
        "--output",
        tmp_path,
        "--steps",
        "3",
        "--batch-size",
        "8",
        "--pairs",
        "10",
    ]
    done = subprocess.run(
        [*together, "train", "kit", *map(str, options)], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "training.json").read_text())["processes"] == 2
    assert json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())["epoch"] == 1, (
        "no batch comes twice"
    )
    assert (tmp_path / "checkpoint-3").is_dir() and modtf.load(tmp_path).mapping.maximum_ratio == 6


def test_generate_and_evaluate(data: Path, tmp_path: Path) -> None:
    written = run("generate", "--ratio", "3", "name[The Vaults], eatType[pub], food[French]")
    assert "full: 12-12 layers" in written and "assembled: 4-4 layers" in written and "tokens/s" in written
    table = run(
        "evaluate", "--data", data, "--ratios", "1", "--strategies", "size_first", "--json", tmp_path / "scores.json"
    )
    assert "12-12" in table and (tmp_path / "scores.json").exists()


def test_export(tmp_path: Path) -> None:
    said = run("export", "--ratio", "6", tmp_path / "small")
    assert "2·2" not in said and "6·6" in said
    assert len(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "small").decoder.block) == 2
    assert "not empty" in run("export", "--ratio", "6", tmp_path / "small", fails=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "--ratio", "9", "name[The Vaults]"], "from 1 to 6"),
        (["generate", "--assembly", "encoder 5 | decoder [1]*12", "name[The Vaults]"], "encoder"),
        (["generate", "colour[red]"], "'colour' is unknown"),
        (["generate", "--model", "/nowhere", "name[The Vaults]"], "/nowhere"),
        (["train", "original", "--data", "/nowhere", "--output", "out"], "/nowhere"),
        (["train", "original", "--dropout", "1", "--output", "out"], "dropout 1"),
        (["train", "original", "--begin-with", "/nowhere", "--output", "out"], "/nowhere holds no model"),
        (["train", "kit", "--original", "/nowhere", "--output", "out"], "/nowhere holds no model"),
        (
            ["train", "kit", "--original", ORIGINAL, "--granularities", "5", "--output", "out"],
            "granularity 5 does not divide",
        ),
        (["train", "kit", "--original", ORIGINAL, "--data", "/nowhere", "--output", "out"], "/nowhere"),
        (["train", "original", "--batch-size", "0", "--output", "out"], "--batch-size is 0"),
        (["evaluate", "--json", "no/such/scores.json"], "no folder"),
    ],
)
def test_errors_are_one_line(arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in run(*arguments, fails=True)
    assert not list(tmp_path.iterdir())
