"""The options of a training in the shell: every field of the dataclass, defaults from the recipe, errors in words."""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import Seq2SeqTrainingArguments

from modtf.errors import ModtfError
from modtf.training import ModularTrainingArguments
from modtf.training.options import Settings, parse_training

SETTINGS = Settings(steps=200, batch_size=24, learning_rate=5e-3, adamw_learning_rate=1e-3)


def parse(folder: Path, *arguments: str, kind: Any = ModularTrainingArguments) -> tuple[Any, argparse.Namespace]:
    given = ["--output", str(folder), "--report-to", "none", *arguments]
    return parse_training(kind, SETTINGS, lambda parser: None, given, prog="modtf train kit")


def test_defaults_are_those_of_the_recipe(tmp_path: Path) -> None:
    args, options = parse(tmp_path)
    assert (args.max_steps, args.learning_rate, options.batch_size) == (200, 5e-3, 24)
    assert (args.save_steps, args.warmup_steps, args.per_device_train_batch_size) == (10, 20, 1)
    assert options.adamw_learning_rate == 1e-3
    plain = ModularTrainingArguments(output_dir=str(tmp_path), report_to="none")
    for name in ("labels_weight", "logits_weight", "hidden_weight", "attention_weight", "mixtures", "whole"):
        assert getattr(args, name) == getattr(plain, name), name


def test_every_option_of_the_library_is_in_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(tmp_path, "--help")
    shown = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    fields = [field for field in dataclasses.fields(ModularTrainingArguments) if field.init]
    missing = {field.name for field in fields} - {option[2:].replace("-", "_") for option in shown}
    assert not missing
    own = {f.name for f in fields} - {f.name for f in dataclasses.fields(Seq2SeqTrainingArguments)}
    assert len(own) == 10 and all(field.metadata["help"] for field in fields if field.name in own)


def test_what_is_given_arrives(tmp_path: Path) -> None:
    args, options = parse(
        tmp_path, "--hidden-weight", "0.5", "--mixtures", "0.3", "--whole", "0.5", "--max-steps", "40",
        "--gradient-accumulation-steps", "2", "--save-steps", "7", "--no-bf16", "--seed", "9", "--weight-decay", "0.1",
    )  # fmt: skip
    assert (args.hidden_weight, args.mixtures, args.whole, args.max_steps) == (0.5, 0.3, 0.5, 40)
    assert (args.save_steps, args.bf16, args.seed, args.weight_decay) == (7, False, 9, 0.1)
    assert options.batch_size == 12, "24 texts a step are two batches of 12"
    assert parse(tmp_path, "--per-device-train-batch-size", "5")[1].batch_size == 5


def test_another_optimizer_takes_the_place_of_muon(tmp_path: Path) -> None:
    args, options = parse(tmp_path, "--optim", "adamw_torch")
    assert args.optim == "adamw_torch" and options.adamw_learning_rate is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], "--steps is 0; give 1 or more"),
        (["--batch-size", "-1"], "--batch-size is -1"),
        (["--threads", "0"], "--threads is 0"),
        (["--gradient-accumulation-steps", "5"], "24 texts a step cannot be shared evenly"),
        (["--temperature", "0"], "the temperature is 0.0; give one above 0"),
        (["--logits-weight", "0", "--hidden-weight", "0"], "at least one above 0"),
        (["--eval-strategy", "steps", "--load-best-model-at-end", "true", "--eval-steps", "3"], "not possible"),
    ],
)
def test_words_for_what_is_not_possible(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModtfError) as raised:
        parse(tmp_path, *arguments)
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_an_output_is_needed() -> None:
    with pytest.raises(ModtfError, match="--output is missing"):
        parse_training(ModularTrainingArguments, SETTINGS, lambda parser: None, [])


def test_the_list_of_commands_needs_no_torch() -> None:
    code = "import sys; from modtf.cli import main\ntry: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: modtf" in run.stdout and run.stdout.endswith("False\n")
