"""What a training will cost: the plan's parts, what it leaves alone, and the shell command that says it."""

from __future__ import annotations

import copy
import json
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers.trainer
from test_table import load_script

import modtf
from modtf import cli
from modtf.architectures import set_attention
from modtf.bundled import bundled
from modtf.mapping import start_indices
from modtf.tasks import TEXT, Example
from modtf.tasks.batches import TaskBatches
from modtf.training import plan as planning
from modtf.training.batches import WHOLE_BATCHES
from modtf.training.cost import step_operations
from modtf.training.optimizer import MuonWithAdamW
from modtf.training.plan import Plan, held, plan_training
from modtf.training.runs import load_original, load_tokenizer, plan_kit, train_kit

EXAMPLES = [
    Example(f"name[The Mill], food[{'Thai ' * n}]", (f"The Mill serves {'Thai ' * n}food.",)) for n in range(1, 10)
]
ORIGINAL = str(next(bundled("pocket").glob("original-*")))
CHECKPOINTING = {"gradient_checkpointing": True}


def arguments(folder: Path, **options: Any) -> modtf.ModularTrainingArguments:
    given = {"max_steps": 40, "learning_rate": 1e-2, "use_cpu": True, "report_to": "none", "save_steps": 10} | options
    return modtf.ModularTrainingArguments(output_dir=str(folder), disable_tqdm=True, **WHOLE_BATCHES, **given)


def kit(make_modular: Any, tokenizer: Any, family: str = "t5") -> modtf.ModularModel:
    return make_modular(family, tokenizer=tokenizer, vocabulary=len(tokenizer))


def bank_numbers(modular: modtf.ModularModel) -> int:
    return sum(weight.numel() for weight in modular.bank_weights().values())


@pytest.mark.parametrize("adamw", [None, 1e-2])
@pytest.mark.parametrize("options", [{}, {"assemblies_per_step": 3}, {"gradient_accumulation_steps": 2}], ids=repr)
def test_planning_changes_nothing(
    family: str, adamw: float | None, options: dict[str, Any], make_modular: Any, tokenizer: Any, tmp_path: Path
) -> None:
    modular = kit(make_modular, tokenizer, family)
    before = copy.deepcopy(modular.state_dict())
    args, numbers = arguments(tmp_path, **options), torch.get_rng_state()
    kept = dict(vars(args))
    plan = plan_kit(modular, TEXT, EXAMPLES, args, 4, adamw)
    assert all(torch.equal(value, before[name]) for name, value in modular.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers) and vars(args) == kept and not list(tmp_path.iterdir())
    assert all(weight.grad is None for weight in modular.parameters()) and not modular.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modular.modules())
    trained = bank_numbers(modular)
    assert plan.banks == trained and plan.memory["banks"] == 4 * trained
    assert 0 < plan.memory["gradients"] <= 4 * trained
    # AdamW keeps two numbers for each, and counts its steps; Muon keeps one for each number of a matrix.
    assert (8 if adamw is None else 4) * trained <= plan.memory["optimizer"] <= 9 * trained
    assert plan.seconds_a_step > 0 and plan.steps == 40


def test_a_plan_makes_no_repository(make_modular: Any, tokenizer: Any, tmp_path: Path) -> None:
    """There is no network: it would fail."""
    args = arguments(tmp_path, push_to_hub=True, hub_token="hf_none")
    assert plan_kit(kit(make_modular, tokenizer), TEXT, EXAMPLES, args, 4).steps == 40


@pytest.mark.parametrize("options", [{"bf16": True}, {"attention_weight": 1.0}, CHECKPOINTING], ids=repr)
def test_a_plan_leaves_the_model_as_it_was(
    family: str, options: dict[str, Any], make_modular: Any, tokenizer: Any, batch: dict[str, torch.Tensor]
) -> None:
    """With bf16 accelerate computes in another precision; maps need another attention; checkpointing marks modules."""
    modular = kit(make_modular, tokenizer, family)
    set_attention(modular.model, "sdpa")

    def logits() -> list[torch.Tensor]:
        assemblies = [modular.mapping.original, modular.mapping.coarsest]
        with torch.no_grad():
            return [output.logits for output in modular(assemblies, **batch)]

    def settings() -> list[Any]:
        return [
            modular.model.config._attn_implementation,
            [(p.requires_grad, p.dtype, p.device) for p in modular.parameters()],
            sorted(vars(modular)),
            [getattr(module, "gradient_checkpointing", None) for module in modular.modules()],
            [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modular.modules()],
            random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
        ]  # fmt: skip

    before, settings_before = logits(), settings()
    plan_kit(modular, TEXT, EXAMPLES, arguments(Path("nowhere"), max_steps=3, **options), 4)
    after = logits()
    assert [one.dtype for one in after] == [torch.float32] * 2
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert settings() == settings_before


@pytest.mark.parametrize("bf16", [False, True])
def test_a_training_after_a_plan_is_the_same_training(
    bf16: bool, make_modular: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """In bfloat16, too: accelerate leaves a model alone that bears its mark of an earlier training."""
    planned, plain = kit(make_modular, tokenizer), kit(make_modular, tokenizer)
    for modular, name in ((planned, "planned"), (plain, "plain")):
        args = arguments(tmp_path / name, max_steps=3, bf16=bf16)
        if modular is planned:
            plan_kit(modular, TEXT, EXAMPLES, args, 4)
        train_kit(modular, TEXT, EXAMPLES, args, 4)
    assert all(torch.equal(weight, plain.bank_weights()[name]) for name, weight in planned.bank_weights().items())


def test_which_steps_are_run(
    make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one with most gradients and the longest, which show the peak, and three typical ones, which give the mean."""
    modular, args = kit(make_modular, tokenizer), arguments(tmp_path, max_steps=60)
    batches = TaskBatches(TEXT, EXAMPLES, modular.tokenizer, 60, 4)
    schedule = args.schedule(modular.mapping, 60)
    work, gradients = [], []
    for step in range(60):
        drawn = schedule.draw(step)
        work.append(step_operations(modular, args, [drawn], [batches.shapes[step]]))
        gradients.append(sum(weight.nbytes for name, weight in modular.bank_weights().items() if is_run(name, drawn)))
    run: list[int] = []

    def measured(modular: Any, args: Any, batches: Any, steps: Any, adamw: Any) -> tuple[list[Any], Any]:
        run.extend(step.number for step in steps)
        assert [step.assemblies for step in steps] == [[schedule.draw(step)] for step in run]
        return [planning._Measured(work[i], 10 * gradients[i], 5) for i in run], torch.optim.SGD(modular.parameters())

    monkeypatch.setattr(planning, "_run", measured)
    plan = plan_training(modular, args, batches)
    assert len(run) == 5 and gradients[run[0]] == max(gradients) and work[run[-1]] == max(work)
    mean = sum(work) / 60
    assert max(abs(work[step] - mean) for step in run[1:-1]) <= sorted(abs(one - mean) for one in work)[2]
    assert plan.seconds_a_step == pytest.approx(mean + 10 * sum(gradients) / 60)


def is_run(name: str, assembly: modtf.Assembly) -> bool:
    """Whether a weight of a bank, ``stack.granularity.place. ...``, belongs to a module of the assembly."""
    stack, g, place, _ = name.split(".", 3)
    path = getattr(assembly, stack)
    starts = start_indices(path)
    return any(of == int(g) and start == int(g) * int(place) for of, start in zip(path, starts, strict=True))


def test_the_peak(make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps meet an optimizer that keeps nothing yet, and not all modules; the training's largest step will."""
    modular, phases = kit(make_modular, tokenizer), 0
    needs = [300, 100, 700, 200, *[0] * 20]

    def peak(device: torch.device) -> int:
        nonlocal phases
        phases += 1
        weights = sum(p.nbytes for p in modular.parameters())
        return weights + sum(map(planning._state, optimizers)) + 1000 * needs[phases - 1]

    optimizers: list[Any] = []
    kept = planning._Meter._lap

    def lap(meter: Any, device: Any, optimizer: Any) -> float:
        optimizers[:] = [optimizer]
        return kept(meter, device, optimizer)

    monkeypatch.setattr(planning, "_peak_memory", peak)
    monkeypatch.setattr(planning._Meter, "_lap", lap)
    plan = plan_kit(modular, TEXT, EXAMPLES, arguments(tmp_path), 4, None)
    banks, tensors = bank_numbers(modular), len(modular.bank_weights())
    assert phases == 10, "both phases of each step"
    assert plan.memory["gradients"] + plan.memory["batch"] == 700_000
    assert plan.memory["optimizer"] == pytest.approx(8 * banks + 4 * tensors, rel=1e-3)
    assert plan.peak == plan.memory["original"] + 4 * banks + plan.memory["optimizer"] + 700_000


def test_a_student_trains_few_modules(make_modular: Any, tokenizer: Any, tmp_path: Path) -> None:
    modular = kit(make_modular, tokenizer)
    alone = modtf.Assembly((3, 3), (1,) * 6)
    plan = plan_kit(modular, TEXT, EXAMPLES, arguments(tmp_path, assembly=str(alone)), 4)
    weights = [weight for name, weight in modular.bank_weights().items() if is_run(name, alone)]
    numbers = sum(weight.numel() for weight in weights)
    assert 0 < numbers < bank_numbers(modular)
    assert plan.memory["gradients"] == 4 * numbers and plan.memory["optimizer"] == 8 * numbers + 4 * len(weights)


#: Parameters of the original and of the banks of the default granularities, 2 and 3, of 12 layers also 4 and 6.
PARAMETERS = {
    "t5-small": (60_506_624, 36_712_960),
    "t5-base": (222_903_552, 247_783_680),
    "bart-base": (139_420_416, 82_698_240),
    "bart-large": (406_291_456, 440_893_440),
    "nllb-600m": (615_073_792, 440_893_440),
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("plan")


@pytest.mark.parametrize("shape", PARAMETERS)
@pytest.mark.parametrize("muon", [False, True])
def test_what_a_training_of_a_known_model_holds(shape: str, muon: bool, script: ModuleType) -> None:
    """Computed from shapes, without numbers; a step of the optimizer on them shows what it keeps."""
    original, banks = PARAMETERS[shape]
    with torch.device("meta"):
        modular = modtf.modularize(script.original_of(shape))
    weights = modular.bank_weights().values()
    optimizer = MuonWithAdamW(modular, 1e-3, adamw_lr=1e-3) if muon else torch.optim.AdamW(weights)
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    optimizer.step()
    memory = held(modular, optimizer)
    assert memory["original"] == 4 * original and memory["banks"] == 4 * banks
    once = sum(weight.numel() for weight in weights if muon and weight.ndim == 2)
    counters = sum(not muon or weight.ndim != 2 for weight in weights)
    assert memory["optimizer"] == 4 * (once + 2 * (banks - once) + counters)
    assert once > 0.99 * banks if muon else once == 0
    plan = Plan(original, banks, memory, 100, 1.0, checkpoints=2, kept=1)
    assert plan.kit == 4 * (original + banks) and plan.checkpoint == 4 * banks + memory["optimizer"]


@pytest.mark.parametrize(("batch_size", "rows"), [(4, 4), (12, 12), (17, 32)])
def test_shapes_of_a_step(batch_size: int, rows: int, tokenizer: Any) -> None:
    """A small batch is not filled up with more sources than it can have."""
    examples = [Example(f"{one.source} {i}", one.references) for i in range(4) for one in EXAMPLES]
    batches = TaskBatches(TEXT, examples, tokenizer, 8, batch_size)
    assert batches.shapes == [(batches[i]["input_ids"].numel(), batches[i]["labels"].numel()) for i in range(8)]
    assert max(len(batches[i]["input_ids"]) for i in range(8)) == rows


@pytest.mark.parametrize(("limit", "at_once", "in_the_end"), [(1, 2, 1), (2, 3, 2), (None, 3, 3)])
def test_disk(
    limit: int | None, at_once: int, in_the_end: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a training writes, at most and in the end, is what the plan said."""
    modular, sizes = modtf.modularize(load_original(ORIGINAL), [6], tokenizer=load_tokenizer(ORIGINAL)), []
    rotate = transformers.trainer.rotate_checkpoints

    def size() -> int:
        return sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())

    def measured(**options: Any) -> None:
        sizes.append(size())
        rotate(**options)

    monkeypatch.setattr(transformers.trainer, "rotate_checkpoints", measured)
    args = arguments(tmp_path, max_steps=3, save_steps=1, save_total_limit=limit, assembly="encoder 6·6 | decoder 6·6")
    plan = plan_kit(modular, TEXT, EXAMPLES, args, 4)
    train_kit(modular, TEXT, EXAMPLES, args, 4)
    assert (plan.checkpoints, plan.kept) == (at_once, in_the_end)
    assert max(sizes) == pytest.approx(plan.checkpoints * plan.checkpoint, rel=0.05)
    assert size() == pytest.approx(plan.kept * plan.checkpoint + plan.kit, rel=0.05)
    assert plan.disk == pytest.approx(max(*sizes, size()), rel=0.05)


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = {"original": 2 * 10**8, "banks": 3 * 10**8, "optimizer": 7 * 10**8}
    plan = Plan(10, 10, memory, 100, 1.0, checkpoints=3, kept=2)
    assert plan.checkpoint == 10**9 and plan.kit == 5 * 10**8
    assert plan.disk == 30 * 10**8 and plan.peak == 12 * 10**8
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**10, 0, 10**10))  # type: ignore[attr-defined]
    assert plan.shortage(tmp_path / "not" / "there") == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**10, 0, 10**9))  # type: ignore[attr-defined]
    assert plan.shortage(tmp_path / "not" / "there") == (f"{tmp_path} has 1.00 GB free, but the training needs 3.00 GB")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_that_of_this_process_alone() -> None:
    """Not of a notebook that started it."""
    code = "import torch; from modtf.training.plan import _peak_memory; print(_peak_memory(torch.device('cpu')))"
    before = bytearray(10**9)
    before[::4096] = b"." * len(before[::4096])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10**8 < int(run.stdout) < 10**9 < resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_the_shell_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"source": example.source, "target": example.references[0]} for example in EXAMPLES]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    own = ["--model", ORIGINAL, "--data", "train.jsonl", "--batch-size", "4", "--pairs", "40"]
    assert cli.main(["plan", *own, "--steps", "1000"]) == 0
    said = capsys.readouterr().out
    for words in (
        "parameters: 5,769,216 of the original, 6,890,880",
        "memory: ",
        "s a step, ",
        "disk: ",
        "writes 9 texts",
    ):
        assert words in said, said
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"], "nothing was written"
    assert cli.main(["train", "kit", *own, "--steps", "20", "--output", "run", "--report-to", "none"]) == 0
    assert "parameters: 5,769,216 of the original" in capsys.readouterr().out, "the first lines of a training"
    assert cli.main(["plan", *own, "--granularities", "5"]) == 2
    assert "granularity 5 does not divide" in capsys.readouterr().err
    monkeypatch.setattr(Plan, "shortage", lambda plan, folder: "the disk is full")
    assert cli.main(["train", "kit", *own, "--steps", "30", "--output", "other"]) == 2
    assert "the disk is full; free some, or give another --output" in capsys.readouterr().err
    assert not Path("other").exists()


def test_errors_are_those_of_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--model", ORIGINAL, "--colour", "red"]) == 2
    assert capsys.readouterr().err == "modtf: unrecognized arguments: --colour red; see modtf plan --help\n"
    assert cli.main(["plan", "--model", ORIGINAL]) == 2
    assert "--data is missing" in capsys.readouterr().err
