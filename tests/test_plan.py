"""What a training will cost: the plan's parts, what it leaves alone, and the shell command that says it."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import modtf
from modtf import cli
from modtf.bundled import bundled
from modtf.errors import ModtfError
from modtf.tasks import TEXT, Example
from modtf.tasks.batches import TaskBatches
from modtf.training import plan as planning
from modtf.training.batches import WHOLE_BATCHES
from modtf.training.plan import Plan, plan_training
from modtf.training.runs import plan_kit, train_kit

EXAMPLES = [
    Example(f"name[The Mill], food[{'Thai ' * n}]", (f"The Mill serves {'Thai ' * n}food.",)) for n in range(1, 10)
]
ORIGINAL = str(next(bundled("pocket").glob("original-*")))


def arguments(folder: Path, **options: Any) -> modtf.ModularTrainingArguments:
    given = {"max_steps": 40, "learning_rate": 1e-2, "use_cpu": True, "report_to": "none", "save_steps": 10} | options
    return modtf.ModularTrainingArguments(output_dir=str(folder), disable_tqdm=True, **WHOLE_BATCHES, **given)


def kit(make_modular: Any, tokenizer: Any, family: str = "t5") -> modtf.ModularModel:
    return make_modular(family, tokenizer=tokenizer, vocabulary=len(tokenizer))


@pytest.mark.parametrize("adamw", [None, 1e-2])
@pytest.mark.parametrize("options", [{}, {"assemblies_per_step": 3}, {"gradient_accumulation_steps": 2}], ids=repr)
def test_planning_changes_nothing(
    family: str, adamw: float | None, options: dict[str, Any], make_modular: Any, tokenizer: Any, tmp_path: Path
) -> None:
    modular = kit(make_modular, tokenizer, family)
    before = copy.deepcopy(modular.state_dict())
    args, random = arguments(tmp_path, **options), torch.get_rng_state()
    kept = dict(vars(args))
    plan = plan_kit(modular, TEXT, EXAMPLES, args, 4, adamw)
    assert all(torch.equal(value, before[name]) for name, value in modular.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and vars(args) == kept and not list(tmp_path.iterdir())
    assert all(weight.grad is None for weight in modular.parameters()) and not modular.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modular.modules())
    trained = sum(weight.numel() for weight in modular.bank_weights().values())
    assert plan.banks == trained and plan.memory["banks"] == plan.memory["gradients"] == 4 * trained
    # AdamW keeps two numbers for each, and counts its steps; Muon keeps one for each number of a matrix.
    assert 8 * trained <= plan.memory["optimizer"] <= 9 * trained if adamw is None else True
    assert 4 * trained <= plan.memory["optimizer"] <= 9 * trained
    assert plan.seconds_a_step > 0 and plan.steps == 40


@pytest.mark.parametrize("bf16", [False, True])
def test_a_training_after_a_plan_is_the_same_training(
    bf16: bool, make_modular: Any, tokenizer: Any, tmp_path: Path
) -> None:
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
    """The largest one, which shows the peak, and three of about the mean cost; their times give the mean."""
    modular, args = kit(make_modular, tokenizer), arguments(tmp_path, max_steps=60)
    batches = TaskBatches(TEXT, EXAMPLES, modular.tokenizer, 60, 4)
    schedule = args.schedule(modular.mapping, 60)
    costs = [batches.tokens[step] * (3 * schedule.draw(step).layers + 12) for step in range(60)]
    run: list[int] = []

    def measured(modular: Any, args: Any, batches: Any, steps: Any, adamw: Any) -> tuple[list[float], int, Any]:
        run.extend(step for step, _ in steps)
        assert [drawn for _, drawn in steps] == [[schedule.draw(step)] for step in run]
        return [float(costs[step]) for step in run], 0, torch.optim.SGD(modular.parameters())

    monkeypatch.setattr(planning, "_run", measured)
    plan = plan_training(modular, args, batches)
    assert costs[run[0]] == max(costs) and len(run) == 4
    mean = sum(costs) / 60
    assert max(abs(costs[step] - mean) for step in run[1:]) <= sorted(abs(cost - mean) for cost in costs)[2]
    assert plan.seconds_a_step == pytest.approx(mean)


def test_tokens_of_a_step(tokenizer: Any) -> None:
    batches = TaskBatches(TEXT, EXAMPLES, tokenizer, 8, 4)
    for step in range(8):
        batch = batches[step]
        sources = batch["attention_mask"][: int(batch["source_index"].max()) + 1]
        assert batches.tokens[step] == int(sources.sum()) + int((batch["labels"] != -100).sum())


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(10, 10, {"banks": 40}, 100, 1.0, checkpoint=10**9, kit=5 * 10**8, checkpoints=2)
    assert plan.disk == 25 * 10**8 and plan.peak == 40
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**10, 0, 10**10))  # type: ignore[attr-defined]
    assert plan.shortage(tmp_path / "not" / "there") == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**10, 0, 10**9))  # type: ignore[attr-defined]
    assert plan.shortage(tmp_path / "not" / "there") == (f"{tmp_path} has 1.00 GB free, but the training needs 2.50 GB")


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
    with pytest.raises(ModtfError, match="--data is missing"):
        cli._plan(["--model", ORIGINAL])
