"""The shell commands as people run them: train (interrupted, too), evaluate, generate, export; errors in one line."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, Seq2SeqTrainingArguments

import modtf
from modtf import cli
from modtf.bundled import bundled
from modtf.tasks import E2E
from modtf.tasks.e2e import check, parse_mr
from modtf.tasks.examples import read_pairs
from modtf.training.options import NOT_OFFERED
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
    """A folder of E2E data, made from texts that the bundled original wrote."""
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
    run("train", "original", "--task", "e2e", "--data", data, "--output", output, "--steps", "4", "--batch-size", "8")
    return output


def test_an_original_can_begin_with_another(data: Path, original: Path, tmp_path: Path) -> None:
    run("train", "original", "--task", "e2e", "--data", data, "--begin-with", original, "--dropout", "0.1",
        "--output", tmp_path / "more", "--steps", "2", "--batch-size", "8")  # fmt: skip
    before, after = (AutoModelForSeq2SeqLM.from_pretrained(folder) for folder in (original, tmp_path / "more"))
    assert not torch.equal(before.shared.weight, after.shared.weight)
    assert (before.shared.weight - after.shared.weight).abs().max() < 0.1, "it began with the other's weights"
    assert after.config.dropout_rate == 0
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "more").get_vocab()
        == AutoTokenizer.from_pretrained(original).get_vocab()
    )


def test_a_kit_can_begin_with_another(data: Path, original: Path, tmp_path: Path) -> None:
    few = [
        "--task",
        "e2e",
        "--data",
        data,
        "--original",
        original,
        "--steps",
        "2",
        "--batch-size",
        "8",
        "--pairs",
        "10",
    ]
    slow = ["--learning-rate", "1e-9", "--adamw-learning-rate", "1e-9"]
    run("train", "kit", *few, "--output", tmp_path / "first")
    run("train", "kit", *few, "--output", tmp_path / "alone", "--seed", "1")
    run("train", "kit", *few, "--output", tmp_path / "more", "--seed", "1", "--begin-with", tmp_path / "first", *slow)
    twelve = [*few[:-1], "12", *slow]
    run("train", "kit", *twelve, "--output", tmp_path / "fresh")
    run("train", "kit", *twelve, "--output", tmp_path / "twelve", "--begin-with", tmp_path / "first")
    first, alone, more, fresh = (
        load_file(next((tmp_path / name).glob("banks-*.safetensors"))) for name in ("first", "alone", "more", "fresh")
    )
    assert any(not torch.allclose(fresh[key], more[key], atol=1e-6) for key in fresh), "two steps do move the weights"
    assert len((tmp_path / "twelve" / "pairs.jsonl").read_text().splitlines()) == 12, (
        "ten were there, twelve are wanted"
    )
    assert all(torch.allclose(first[key], more[key], atol=1e-6) for key in first), "it began with the other's weights"
    for name in ("pairs", "evaluation"):
        texts = [(tmp_path / kit / f"{name}.jsonl").read_text() for kit in ("first", "alone", "more")]
        assert texts[0] == texts[2] != texts[1], "the original does not write again"
    assert any(not torch.allclose(first[key], alone[key], atol=1e-6) for key in first)
    evaluated, trained = (
        {example.source for example in read_pairs(tmp_path / path)}
        for path in ("first/evaluation.jsonl", "alone/pairs.jsonl")
    )
    assert not evaluated & trained, "the next seed does not train on what the kit is evaluated with"

    other = tmp_path / "more"  # has all granularities
    told = run(
        "train", "kit", *few, "--granularities", "2", "--begin-with", other, "--output", tmp_path / "x", fails=True
    )
    assert "do not fit this model" in told and not (tmp_path / "x").exists()


def test_a_killed_training_resumes_to_the_same_kit(data: Path, original: Path, tmp_path: Path) -> None:
    def arguments(output: str) -> list[str | Path]:
        return ["train", "kit", "--task", "e2e", "--data", data, "--original", original,
                "--output", tmp_path / output, "--steps", "6", "--batch-size", "8", "--pairs", "10"]  # fmt: skip

    run(*arguments("whole"))
    killed = subprocess.Popen(
        command(*arguments("killed")), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / "killed" / "checkpoint-2" / "trainer_state.json").exists():
        assert killed.poll() is None and time.monotonic() < deadline, "no checkpoint to resume from"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "modtf.json").exists(), "it was killed before its end"
    run(*arguments("killed"))
    whole, resumed = (load_file(next((tmp_path / name).glob("banks-*.safetensors"))) for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    kit = modtf.load(tmp_path / "killed")
    assert isinstance(kit.generate("name[The Vaults], eatType[pub]", ratio=6, max_new_tokens=4), str)


def test_an_incomplete_checkpoint_is_skipped(tmp_path: Path) -> None:
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
        "train", "kit", "--task", "e2e", "--data", data, "--original", damaged, "--output", tmp_path / "kit", fails=True
    )
    assert not (tmp_path / "kit").exists()


def test_two_processes_train_together(data: Path, original: Path, tmp_path: Path) -> None:
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *command()[1:]]
    options = ["--task", "e2e", "--data", data, "--original", original, "--output", tmp_path,
               "--steps", "3", "--batch-size", "8", "--pairs", "10", "--assemblies-per-step", "2"]  # fmt: skip
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
        "evaluate", "--data", data, "--ratios", "1", "--strategies", "size_first", "--json", tmp_path / "scores.json",
        "--beams", "2",
    )  # fmt: skip
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
        (["train", "original", "--task", "e2e", "--data", "/nowhere", "--output", "out"], "/nowhere"),
        (["train", "original", "--dropout", "1", "--output", "out"], "--dropout is 1"),
        (["train", "original", "--begin-with", "/nowhere", "--output", "out"], "/nowhere holds no model"),
        (["train", "kit", "--original", "/nowhere", "--output", "out"], "/nowhere holds no model"),
        (["train", "kit", "--original", ORIGINAL, "--dropout", "-1", "--output", "out"], "--dropout is -1"),
        (
            ["train", "kit", "--original", ORIGINAL, "--granularities", "5", "--output", "out"],
            "granularity 5 does not divide",
        ),
        (
            ["train", "kit", "--task", "e2e", "--original", ORIGINAL, "--data", "/nowhere", "--output", "out"],
            "/nowhere",
        ),
        (["train", "original", "--batch-size", "0", "--output", "out"], "--batch-size is 0"),
        (["evaluate", "--beams", "0"], "--beams is 0"),
        (["evaluate", "--json", "no/such/scores.json"], "no folder"),
    ],
)
def test_errors_are_one_line(arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in run(*arguments, fails=True)
    assert not list(tmp_path.iterdir())


# -- the options of a training -----------------------------------------------------------------------------------------

KIT = ("train", "kit", "--task", "e2e", "--original", ORIGINAL, "--pairs", "0")


@pytest.fixture
def asked(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What a training would get: examples, its arguments, the batch size, and AdamW's learning rate beside Muon's."""

    def ask(*command: str) -> dict[str, Any]:
        given: dict[str, Any] = {}

        def train(*positional: Any, **named: Any) -> None:
            *_, given["examples"], given["args"], given["batch_size"], given["adamw_learning_rate"] = positional

        monkeypatch.setattr("modtf.training.runs.train_kit", train)
        monkeypatch.setattr("modtf.training.runs.train_original", train)
        monkeypatch.setattr("modtf.commands.training._say_where", lambda *given: None)
        monkeypatch.setattr("modtf.commands.training._WORTH_A_PLAN", float("inf"))
        assert cli.main([*command, "--data", str(data), "--output", str(tmp_path / "run")]) == 0
        return given

    return ask


def fields_of(kind: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.init]


@pytest.mark.parametrize(
    ("what", "kind"), [("original", Seq2SeqTrainingArguments), ("kit", modtf.ModularTrainingArguments)]
)
def test_help_names_every_option(what: str, kind: type, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", what, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for field in fields_of(kind):
        assert (f"--{field.name} " in shown) == (field.name not in NOT_OFFERED), field.name
    assert "--batch-size" in shown and "for all but the matrices; independent of" in shown
    own = {field.name for field in fields_of(modtf.ModularTrainingArguments)} - {
        field.name for field in fields_of(Seq2SeqTrainingArguments)
    }
    assert all((f"--{name}" in shown) == (what == "kit") for name in own)


def test_defaults_are_those_of_the_recipe(asked: Callable[..., dict[str, Any]]) -> None:
    kit, original = asked(*KIT), asked("train", "original", "--task", "e2e", "--begin-with", ORIGINAL)
    args = kit["args"]
    assert (kit["batch_size"], args.learning_rate, kit["adamw_learning_rate"]) == (64, 5e-3, 1e-3)
    assert (args.max_steps, args.warmup_steps, args.save_steps, args.seed) == (10_000, 100, 500, 0)
    defaults = modtf.ModularTrainingArguments(output_dir=args.output_dir, use_cpu=True)
    for name in ("labels_weight", "logits_weight", "hidden_weight", "attention_weight", "mixtures", "whole", "full_at"):
        assert getattr(args, name) == getattr(defaults, name)
    args = original["args"]
    assert (original["batch_size"], args.learning_rate, original["adamw_learning_rate"]) == (128, 8e-3, 3e-3)
    assert (args.max_steps, args.lr_scheduler_type, args.max_grad_norm) == (3_000, "linear", 1.0)


def test_options_of_the_library_are_options_of_the_shell(asked: Callable[..., dict[str, Any]]) -> None:
    """With dashes or with underscores, as users of transformers know them."""
    given = asked(
        *KIT, "--hidden-weight", "0.5", "--mixtures", "0.2", "--gradient-accumulation-steps", "2", "--coarse_at", "0.3",
        "--lr-scheduler-type", "cosine", "--max-steps", "40", "--warmup-steps", "7", "--seed", "3", "--no-bf16",
    )  # fmt: skip
    args = given["args"]
    assert (args.hidden_weight, args.mixtures, args.coarse_at) == (0.5, 0.2, 0.3)
    assert (args.lr_scheduler_type, args.max_steps, args.warmup_steps, args.seed) == ("cosine", 40, 7, 3)
    assert given["batch_size"] * args.gradient_accumulation_steps == 64, "texts per step, however they are split"
    assert args.bf16 is False and args.save_steps == 2


def test_texts_of_one_process_and_batch(asked: Callable[..., dict[str, Any]]) -> None:
    given = asked(*KIT, "--per-device-train-batch-size", "12", "--gradient-accumulation-steps", "3")
    assert given["batch_size"] == 12
    assert given["args"].per_device_train_batch_size == 1, "an item of the data is a whole batch"


def test_processes_and_batches_share_the_texts_of_a_step(
    asked: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(*KIT, "--batch-size", "24", "--gradient-accumulation-steps", "3")["batch_size"] == 8
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main([*KIT, "--output", "run", "--batch-size", "25"]) == 2
    assert "25 texts per step cannot be shared evenly by 2 processes" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["original", "kit"])
def test_another_optimizer_trains_alone(what: str, data: Path, original: Path, tmp_path: Path) -> None:
    begin = ["--begin-with", str(original)] if what == "original" else ["--original", str(original), "--pairs", "0"]
    options = ["--optim", "adamw_torch", "--adam-beta2", "0.97", "--per-device-train-batch-size", "4"]
    more = [
        "--gradient-accumulation-steps",
        "2",
        "--steps",
        "2",
        "--report-to",
        "none",
        "--task",
        "e2e",
        "--data",
        str(data),
    ]
    assert cli.main(["train", what, *begin, *options, *more, "--output", str(tmp_path)]) == 0
    state = torch.load(tmp_path / "checkpoint-2" / "optimizer.pt", weights_only=True)
    assert {group["betas"] for group in state["param_groups"]} == {(0.9, 0.97)} and "parts" not in state
    assert json.loads((tmp_path / "training.json").read_text())["batch_size"] == 8


def test_texts_with_faults_are_left_out(
    asked: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People's, and the original's: here those of the bundled kit."""
    written = ("--pairs", "4000", "--begin-with", str(bundled("pocket")))
    counts = []
    for source in ((), ("--without-data", *written), written):
        examples = asked(*KIT, *source, "--faultless")["examples"]
        assert all(not check(parse_mr(one.source), text).errors for one in examples for text in one.references)
        counts.append(sum(len(one.references) for one in examples))
        assert f"{counts[-1]:,} of " in capsys.readouterr().out
        if written[0] in source:
            used = (tmp_path / "run" / "pairs.jsonl").read_bytes()
            assert used == bundled("pocket/pairs.jsonl").read_bytes(), "an input drawn twice has two texts"
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    people, original, both = counts
    assert 100 < people < 200 and 2000 < original < 4000 and both == people + original


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lr-scheduler-type", "nonsense"], "invalid choice: 'nonsense' (choose from"),
        (["--optim", "nonsense"], "invalid choice: 'nonsense'"),
        (["--hidden-weight", "much"], "--hidden-weight: invalid float value: 'much'; see modtf train kit --help"),
        (["--colour", "red"], "unrecognized arguments: --colour red; see modtf train kit --help"),
        (["--steps", "0"], "--steps is 0; give 1 or more"),
        (["--max-steps", "-1"], "--steps is -1; give 1 or more"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--per-device-train-batch-size", "0"], "--per-device-train-batch-size is 0"),
        (["--threads", "0"], "--threads is 0"),
        (["--pairs", "-3"], "--pairs is -3; give 0 or more"),
        (["--seed", "-1"], "--seed is -1; give a number from 0"),
        (["--learning-rate", "nan"], "--learning-rate is nan; give a number above 0"),
        (["--adamw-learning-rate", "-1"], "--adamw-learning-rate is -1; give a number above 0"),
        (["--temperature", "0"], "the temperature is 0.0; give one above 0"),
        (["--logits-weight", "-1"], "the losses' weights are"),
        (["--mixtures", "2"], "mixtures is 2.0; give a number from 0 to 1"),
        (["--mixtures", "0.9", "--whole", "0.9"], "0.9 + 0.9 is more than 1"),
        (["--output", ""], "--output is missing"),
        (["--output", __file__], "is a file; give a folder"),
        (["--task", "poems"], "the task 'poems' is unknown"),
        (["--bf16", "--fp16"], "these options are not possible: At most one of fp16 and bf16"),
        (["--report-to", "nonsense"], "these options are not possible: nonsense is not supported"),
        (["--without-data"], "--pairs is 0; leave out --without-data"),
        (["--task", "translation", "--faultless"], "the task translation cannot tell which texts have faults"),
    ],
)
def test_impossible_options_are_refused_in_one_line(
    options: list[str], words: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [*KIT, "--data", str(data), "--output", str(tmp_path / "run"), "--batch-size", "8", "--steps", "1"]
    assert cli.main([*command, *options]) == 2
    said = capfd.readouterr().err
    assert said.startswith("modtf: ") and said.count("\n") == 1 and words in said, said
    assert not (tmp_path / "run" / "modtf.json").exists()


@pytest.mark.parametrize("what", ["original", "kit"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num-train-epochs", "2"], "--num-train-epochs has no effect here: give the number of steps, --steps"),
        (
            ["--resume_from_checkpoint", "run"],
            "--resume-from-checkpoint has no effect here: run the same command again",
        ),
        (["--auto-find-batch-size"], "--auto-find-batch-size has no effect here: --batch-size and --seed decide"),
        (["--no-remove-unused-columns"], "--remove-unused-columns has no effect here"),
        (["--eval-strategy", "steps"], "--eval-strategy has no effect here: a training does not evaluate"),
        (["--label-smoothing-factor", "0.1"], "--label-smoothing-factor has no effect here"),
        (["--report-to", "wandb"], "these options are not possible: WandbCallback requires wandb to be installed"),
    ],
)
def test_options_without_effect_are_refused_before_any_work(
    what: str, options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Even before the model and the data are looked for: neither exists."""
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: False)
    begin = ["--begin-with", "/nowhere"] if what == "original" else ["--original", "/nowhere"]
    assert cli.main(["train", what, *begin, "--output", str(tmp_path / "run"), *options]) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"modtf: {words}") and said.count("\n") == 1, said
    assert not (tmp_path / "run").exists()


def test_every_option_that_is_not_offered_is_one_of_transformers() -> None:
    assert NOT_OFFERED.keys() <= {field.name for field in fields_of(Seq2SeqTrainingArguments)}


def test_a_required_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "kit", "--output", "run"]) == 2
    assert capsys.readouterr().err == (
        "modtf: the following arguments are required: --model/--original; see modtf train kit --help\n"
    )


def test_help_is_there_at_once() -> None:
    """Without torch, which takes seconds to import."""
    code = "import sys; from modtf import cli\ntry: cli.main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("demo", "generate", "evaluate", "export", "train"))
