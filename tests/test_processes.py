"""Two processes that train together (DDP, gloo): they are one process with the same batches; and what is refused."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from conftest import SENTENCES, randomize
from families import _bart, _t5
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq, Seq2SeqTrainer

import modtf
from modtf import cli
from modtf.errors import ModtfError
from modtf.tasks import TEXT, Example
from modtf.training import options as training_options
from modtf.training.runs import train_original

FAMILIES = ("t5", "bart")
#: 11 texts of several lengths: batches of two or four leave a smaller last one.
ROWS = [
    {"source": f"name[{name}], food[{food}]", "target": f"{name} serves {food} food. {sentence[: 12 * place]}"}
    for name in ("The Mill", "Zizzi")
    for food in ("Thai", "French")
    for place, sentence in enumerate(SENTENCES)
][:11]
#: Plain gradient descent: what optimizers divide by a gradient's size, rounding would move far where it is near 0.
STEPS = ["--steps", "4", "--batch-size", "16", "--optim", "sgd", "--learning-rate", "0.1", "--report-to", "none"]

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two originals, and data of one's own."""
    folder = tmp_path_factory.mktemp("own")
    for name, original in (
        ("t5", _t5("T5", 4, 4, vocab_size=len(tokenizer), dropout_rate=0.0)),
        ("bart", _bart("Bart", 4, 4, vocab_size=len(tokenizer), dropout=0.0)),
    ):
        randomize(original.modules())
        original.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    for name, rows in (("own", ROWS), ("dev", ROWS[:4])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def started(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """What two processes said, once they are done."""
    paths = os.pathsep.join(str(path) for path in (Path(modtf.__file__).parents[1], Path(__file__).parent))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def torchrun(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return started("torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command)


def accelerate_launch(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """On CPUs, too, `--multi_gpu` is the option that starts several processes."""
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    return started("accelerate.commands.launch", *options, *command)


def trained(what: str, name: str, folder: Path, output: Path, *options: str) -> None:
    """One training of the shell, in this process; all processes of a launch together take 4 batches a step."""
    own = ["--model", str(folder / name), "--data", str(folder / "own.jsonl"), "--output", str(output)]
    accumulated = 4 // int(os.environ.get("WORLD_SIZE", "1"))
    options = ("--gradient-accumulation-steps", str(accumulated), *STEPS, *options)
    assert cli.main(["train", what, *own, *options]) == 0


def banks(folder: Path) -> Weights:
    (file,) = folder.glob("banks-*.safetensors")
    return load_file(file)


def assert_same(weights: Weights, others: Weights, begun: Weights, share: float = 1e-4) -> None:
    """Up to rounding, which is a small share of how far the weights have moved."""
    moved = max(float((weights[name] - begun[name].detach()).abs().max()) for name in weights)
    assert moved > 1e-3
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=0, atol=share * moved, msg=lambda m, n=name: f"{n}: {m}")


# -- a script of one's own ---------------------------------------------------------------------------------------------


class Rows(Dataset):
    """Rows that remember which of them were read; or those of ``order``, one after the other, whatever is asked for."""

    def __init__(self, rows: list[dict[str, list[int]]], order: list[int] | None = None) -> None:
        self.rows, self.order, self.read = rows, order, list[int]()
        self._next = iter(order or ())

    def __len__(self) -> int:
        return len(self.rows) if self.order is None else len(self.order) // 2  # of two epochs

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        self.read.append(index if self.order is None else next(self._next))
        return self.rows[self.read[-1]]


def modular_of(folder: Path, name: str) -> modtf.ModularModel:
    original = AutoModelForSeq2SeqLM.from_pretrained(folder / name, dtype=torch.float32)
    return modtf.modularize(original, tokenizer=AutoTokenizer.from_pretrained(folder / name))


def with_the_trainer(
    folder: Path, name: str, order: list[int] | None = None, even: bool = False, **options: Any
) -> tuple[list[int], float, Weights]:
    """Two epochs of :class:`modtf.ModularTrainer` with an ordinary dataset.

    Returns the rows that were read, the loss of an evaluation, and the banks.
    """
    modular, output = modular_of(folder, name), folder / "run"
    tokenized = [modular.tokenizer(row["source"], text_target=row["target"]) for row in ROWS]
    rows = [{key: list(row[key]) for key in ("input_ids", "attention_mask", "labels")} for row in tokenized]
    if even:  # of one length
        rows = [{key: (values * 9)[:9] for key, values in row.items()} for row in [*rows, rows[0]]]
    args = modtf.ModularTrainingArguments(
        str(output), num_train_epochs=2, optim="sgd", learning_rate=0.1, lr_scheduler_type="constant",
        save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, assemblies_per_step=2,
        per_device_eval_batch_size=1,
        **({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2} | options),
    )  # fmt: skip
    data = Rows(rows, order)
    collator = DataCollatorForSeq2Seq(modular.tokenizer, modular.model)
    few = rows[:4]  # as many for each process: transformers would count those that fill up
    trainer = modtf.ModularTrainer(modular, args, train_dataset=data, eval_dataset=few, data_collator=collator)
    trainer.train()
    weights = {key: weight.detach().clone() for key, weight in modular.bank_weights().items()}
    return data.read, trainer.evaluate()["eval_loss"], weights


def in_each_process(folder: Path) -> None:
    """What each of two processes does: trainings of the shell, and of a script."""
    rank = os.environ["RANK"]
    training_options.fast_bf16 = lambda: rank == "1"  # on a busy machine they may find it otherwise
    for name in FAMILIES:
        trained("kit", name, folder, folder / f"{name}-kit", "--pairs", "0")
        for even in (False, True):
            read, loss, weights = with_the_trainer(folder, name, even=even)
            save_file(weights, folder / f"{name}-{even}-{rank}.safetensors")
            (folder / f"{name}-{even}-{rank}.json").write_text(json.dumps([read, loss]))
    trained("original", "t5", folder, folder / "tuned")
    own = ["--model", str(folder / "t5"), "--data", str(folder / "own.jsonl")]
    assert cli.main(["plan", *own, *STEPS]) == 2


@pytest.fixture(scope="module")
def together(folder: Path) -> subprocess.CompletedProcess[str]:
    """Two processes have done :func:`in_each_process`."""
    script = folder / "script.py"
    script.write_text(
        f"import pathlib, test_processes\ntest_processes.in_each_process(pathlib.Path({str(folder)!r}))\n"
    )
    return torchrun(script)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_shells_kit_is_that_of_one_process(name: str, folder: Path, together: Any, tmp_path: Path) -> None:
    """Two processes that accumulate two batches each read the batches of one that accumulates four.

    The 11 texts make batches of 4, 4 and 3; each counts as much as the others.
    """
    trained("kit", name, folder, tmp_path, "--pairs", "0", "--no-bf16")
    assert_same(banks(folder / f"{name}-kit"), banks(tmp_path), modular_of(folder, name).bank_weights())


def test_the_shells_original_is_that_of_one_process(folder: Path, together: Any, tmp_path: Path) -> None:
    trained("original", "t5", folder, tmp_path, "--no-bf16")
    both, alone, begun = (load_file(of / "model.safetensors") for of in (folder / "tuned", tmp_path, folder / "t5"))
    assert_same(both, alone, begun, 1e-3)


def said(folder: Path, name: str, even: bool, rank: int) -> tuple[list[int], float]:
    """The rows that one of the processes read, and its loss."""
    return json.loads((folder / f"{name}-{even}-{rank}.json").read_text())


def dealt(folder: Path, name: str, even: bool) -> Iterator[int]:
    """The rows that both processes read, in the order of one that reads two at a time."""
    first, second = (said(folder, name, even, rank)[0] for rank in (0, 1))
    assert len(first) == len(second) == 12
    for place in range(0, 12, 2):
        yield from first[place : place + 2] + second[place : place + 2]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_script_with_an_uneven_last_batch(name: str, folder: Path, together: Any) -> None:
    """Of 11 rows the last batch has one: accelerate fills it up with another row, so that all processes stay in step."""
    order = list(dealt(folder, name, even=False))
    assert all(set(epoch) == set(range(11)) for epoch in (order[:12], order[12:])), "no row is left out"
    processes = [load_file(folder / f"{name}-False-{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(processes[0][key], weight) for key, weight in processes[1].items())
    # Three batches in each process make two steps, the second of one batch; together those are four, and two.
    sequential = {"gradient_accumulation_steps": 4, "train_sampling_strategy": "sequential"}
    _, loss, alone = with_the_trainer(folder, name, order, **sequential)
    assert_same(processes[0], alone, modular_of(folder, name).bank_weights())
    assert said(folder, name, False, 0)[1] == said(folder, name, False, 1)[1] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_of_two_halves_is_that_of_the_batch_if_their_texts_are_as_long(
    name: str, folder: Path, together: Any
) -> None:
    """Each batch gives the mean over its tokens, and so does each process; a longer text counts less."""
    begun = modular_of(folder, name).bank_weights()
    whole = {"per_device_train_batch_size": 4, "train_sampling_strategy": "sequential"}
    for even in (True, False):
        both = load_file(folder / f"{name}-{even}-0.safetensors")
        _, _, alone = with_the_trainer(folder, name, list(dealt(folder, name, even)), even, **whole)
        if even:
            assert_same(both, alone, begun, 1e-3)  # other shapes, other rounding
        else:
            with pytest.raises(AssertionError):
                assert_same(both, alone, begun, 1e-3)


def test_a_plan_is_for_one_process(together: subprocess.CompletedProcess[str]) -> None:
    assert "modtf: a plan is for one process, not for 2; start it alone" in together.stderr


# -- the commands ------------------------------------------------------------------------------------------------------


def test_a_training_and_its_resumption(folder: Path, tmp_path: Path) -> None:
    """With dropout, Muon, the original's texts and a look at the quality: started by torchrun, resumed by accelerate."""

    def command(output: Path) -> list[str | Path]:
        return ["-m", "modtf.cli", "train", "kit", "--model", folder / "bart", "--data", folder / "own.jsonl",
                "--dev", folder / "dev.jsonl", "--output", output, "--steps", "4", "--batch-size", "12",
                "--gradient-accumulation-steps", "2", "--dropout", "0.1", "--pairs", "3", "--watch-steps", "2",
                "--save-steps", "2", "--save-total-limit", "2", "--report-to", "none"]  # fmt: skip

    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    done = torchrun(*command(whole))

    for words in ("own.jsonl: 11 rows with", "dev.jsonl: 4 rows with"):
        assert done.stderr.count(words) == 1, "said by one of the two"
    for words in ("step 2: BLEU ", "step 4: BLEU ", "how good each size is: "):
        assert done.stdout.count(words) == 1, "measured once"
    assert [json.loads(row)["step"] for row in (whole / "quality.jsonl").read_text().splitlines()] == [2, 4]
    assert len((whole / "pairs.jsonl").read_text().splitlines()) == 3
    record = json.loads((whole / "training.json").read_text())
    assert (record["processes"], record["batch_size"], record["steps"]) == (2, 12, 4)
    options = yaml.safe_load((whole / "options.yaml").read_text())
    assert (options["batch_size"], options["gradient_accumulation_steps"], options["max_steps"]) == (12, 2, 4)
    checkpoints = {path.name: {file.name for file in path.iterdir()} for path in whole.glob("checkpoint-*")}
    assert checkpoints.keys() == {"checkpoint-2", "checkpoint-4"}
    for files in checkpoints.values():
        assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "modtf.json"} < files
        assert len([name for name in files if name.startswith("banks-")]) == 1
    assert modtf.load(whole).mapping.maximum_ratio == 2
    logged = json.loads((whole / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    for entry in logged:  # all of them means over both processes
        assert entry["loss"] == pytest.approx(entry["loss_logits"] + 0.2 * entry["loss_hidden"], rel=1e-3)

    if 'device.type != "cpu"' not in inspect.getsource(Seq2SeqTrainer._load_optimizer_and_scheduler):
        pytest.skip(
            "this transformers loads a checkpoint to cpu:0, which torch refuses, where several processes resume"
        )

    finished = shutil.ignore_patterns("checkpoint-4", "banks-*", "modtf.json", "report.html", "training.json")
    shutil.copytree(whole, resumed, ignore=finished)
    shutil.copytree(whole / "checkpoint-2", resumed / "checkpoint-2", dirs_exist_ok=True)
    done = accelerate_launch(*command(resumed))
    assert "step 2: " not in done.stdout and done.stdout.count("step 4: BLEU ") == 1, "it goes on from step 2"
    before, after = banks(whole), banks(resumed)
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert json.loads((resumed / "training.json").read_text())["processes"] == 2
    assert (resumed / "quality.jsonl").read_text() == (whole / "quality.jsonl").read_text()


# -- what is refused ---------------------------------------------------------------------------------------------------


def launch_options(*options: str) -> argparse.Namespace:
    return _validate_launch_command(launch_command_parser().parse_args([*options, "--num_machines", "1", "x.py"]))[0]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main([*arguments, "--data", "/nowhere", "--output", "/nowhere/at/all", *STEPS]) == 2
    words = capsys.readouterr().err
    assert words.count("\n") == 1, words
    return words


@pytest.mark.parametrize("what", ["kit", "original"])
def test_fsdp_of_accelerate_is_refused(
    what: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the environment in which `accelerate launch` starts its processes."""
    (tmp_path / "fsdp.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nnum_processes: 2\nmixed_precision: 'no'\n"
        "use_cpu: true\nfsdp_config: {fsdp_version: 2}\n"
    )
    options = launch_options("--config_file", str(tmp_path / "fsdp.yaml"), "--main_process_port", "0")
    environment = prepare_multi_gpu_env(options)
    for name in environment.keys() - os.environ.keys():
        monkeypatch.setenv(name, environment[name])
    words = refused(["train", what, "--model", str(folder / "t5")], capsys)
    assert words.startswith("modtf: FSDP leaves each process a part of every weight, ") and "(DDP)" in words


def test_fsdp_of_the_trainer_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")  # transformers sets it
    assert "FSDP leaves each process a part" in refused(
        ["train", "kit", "--model", str(folder / "t5"), "--fsdp"], capsys
    )
    args = modtf.ModularTrainingArguments(str(tmp_path), use_cpu=True, report_to="none", fsdp=True)
    modular = modular_of(folder, "t5")
    with pytest.raises(ModtfError, match="FSDP leaves each process a part"):
        modtf.ModularTrainer(modular, args)
    with pytest.raises(ModtfError, match="FSDP leaves each process a part"):
        train_original(modular.model, modular.tokenizer, TEXT, [Example("a", ("b",))], args, batch_size=1)


def test_accelerate_starts_one_process_with_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "kit", "--model", str(folder / "t5")]
    for number, words in (("2", "`accelerate launch --cpu` starts a single process"), ("1", "/nowhere")):
        _, environment = prepare_simple_launcher_cmd_env(launch_options("--cpu", "--num_processes", number))
        with monkeypatch.context() as patched:
            for name in environment.keys() - os.environ.keys():
                patched.setenv(name, environment[name])
            assert words in refused(command, capsys)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ddp-find-unused-parameters", "false"], "each step trains other modules, so ddp_find_unused_parameters"),
        (["--ddp-static-graph", "true"], "nor ddp_static_graph on; leave both out"),
        (["--accelerator-config", '{"split_batches": true}'], "split_batches and dispatch_batches of"),
        (["--accelerator-config", '{"dispatch_batches": true}'], "split_batches and dispatch_batches of"),
    ],
)
def test_options_that_several_processes_cannot_have(
    options: list[str], words: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--data", str(folder / "own.jsonl"), "--output", str(tmp_path / "run"), *STEPS]
    assert cli.main(["train", "kit", "--model", str(folder / "t5"), *own, "--pairs", "0", *options]) == 2
    assert words in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("stage", "options", "words"),
    [
        (1, {}, ""),
        (2, {"assemblies_per_step": 2}, r"assemblies_per_step is 2, but DeepSpeed .* set it to 1"),
        (2, {"bf16": True}, "in half precision DeepSpeed rounds all weights, those of the original, too"),
        (3, {}, "ZeRO of stage 3 leaves each process a part of every weight"),
    ],
)
def test_what_deepspeed_cannot_do(
    stage: int, options: dict[str, Any], words: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not installed. In a trial, stages 1 and 2 gave the weights of DDP, and those of stage 3 were others."""
    create, plugins = Seq2SeqTrainer.create_accelerator_and_postprocess, list[Any]()

    def with_deepspeed(trainer: Any) -> None:
        plugins[:] = [None]
        create(trainer)
        plugins[:] = [argparse.Namespace(zero_stage=stage)]
        trainer.is_deepspeed_enabled = True

    monkeypatch.setattr(Seq2SeqTrainer, "create_accelerator_and_postprocess", with_deepspeed)
    monkeypatch.setattr(AcceleratorState, "deepspeed_plugin", property(lambda state: plugins[0]))
    modular = modular_of(folder, "t5")
    args = modtf.ModularTrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, report_to="none", **options)
    with pytest.raises(ModtfError, match=words) if words else nullcontext():
        modtf.ModularTrainer(modular, args)
    if stage == 3:
        with pytest.raises(ModtfError, match=words):
            train_original(modular.model, modular.tokenizer, TEXT, [Example("a", ("b",))], args, batch_size=1)
