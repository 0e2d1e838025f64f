"""What is seen of a training before it is done, and that looking at it changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import modtf
from modtf.errors import ModtfError
from modtf.tasks import TEXT, Example
from modtf.training.batches import WHOLE_BATCHES
from modtf.training.runs import train_kit
from modtf.training.watch import FILE, Watch, read_quality

EXAMPLES = [
    Example(f"name[The Mill], food[{'Thai ' * n}]", (f"The Mill serves {'Thai ' * n}food.",)) for n in range(1, 9)
]


def arguments(folder: Path, **options: Any) -> modtf.ModularTrainingArguments:
    given = {"max_steps": 6, "learning_rate": 1e-3, "use_cpu": True, "report_to": "none", "logging_steps": 1} | options
    return modtf.ModularTrainingArguments(output_dir=str(folder), disable_tqdm=True, **WHOLE_BATCHES, **given)


def kit(make_modular: Any, tokenizer: Any, family: str = "t5") -> modtf.ModularModel:
    return make_modular(family, tokenizer=tokenizer, vocabulary=len(tokenizer))


def test_three_sizes_are_measured_now_and_then(family: str, make_modular: Any, tokenizer: Any, tmp_path: Path) -> None:
    weights, said = [], []
    for name in ("watched", "alone"):
        modular = kit(make_modular, tokenizer, family)
        watch = Watch(modular, EXAMPLES[:3], 2, said.append) if name == "watched" else None
        train_kit(modular, TEXT, EXAMPLES, arguments(tmp_path / name), 4, watch=watch)
        weights.append(modular.bank_weights())
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items()), "it only looks"
    rows = [json.loads(line) for line in (tmp_path / "watched" / FILE).read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6] and {row["metric"] for row in rows} == {"bleu"}
    assert all(row.keys() == {"step", "metric", "full", "4-3", "2-2"} for row in rows)
    assert len(said) >= 3 and said[0].startswith("step 2: BLEU 4-3 ") and "(full model " in said[0]
    assert not (tmp_path / "alone" / FILE).exists()


def test_a_student_is_measured_at_its_own_size(make_modular: Any, tmp_path: Path) -> None:
    modular, args = make_modular("t5"), arguments(tmp_path, assembly="encoder 3·3 | decoder 2·2·2")
    assert [assembly.shape for assembly in Watch(modular, EXAMPLES, 1).sizes(args)] == ["6-6", "2-3"]


def logged(losses: list[float], steps: int) -> SimpleNamespace:
    """The state of a training that logs at every step, after as many losses."""
    history = [{"loss": loss, "step": step} for step, loss in enumerate(losses, start=1)]
    return SimpleNamespace(global_step=len(losses), max_steps=steps, log_history=history, is_world_process_zero=True)


def words_for(
    modular: modtf.ModularModel, losses: list[float], folder: Path, steps: int = 40, **options: Any
) -> list[str]:
    said: list[str] = []
    watch, args = Watch(modular, [], 1, said.append), arguments(folder, **({"logging_steps": 25} | options))
    for count in range(1, len(losses) + 1):
        watch.on_log(args, logged(losses[:count], steps), None, logs={"loss": losses[count - 1]})
    return said


def test_a_loss_that_does_not_fall(make_modular: Any, tmp_path: Path) -> None:
    """Counted from where the schedule stays as it is: before, a rise says nothing about learning."""
    modular = make_modular("t5")
    rising = [1.0 + step / 20 for step in range(20)]  # while more and coarser modules come in
    assert words_for(modular, rising, tmp_path) == []
    assert words_for(modular, [*rising, *(2.0 - step / 20 for step in range(20))], tmp_path) == []
    assert words_for(modular, [*rising, *[2.0] * 6], tmp_path) == [], "too early to say"
    (flat,) = words_for(modular, [*rising, *[2.0, 2.01] * 10], tmp_path)
    assert flat.startswith("step 28: the loss does not fall (2") and "--learning-rate" in flat
    (student,) = words_for(modular, [2.0] * 12, tmp_path, assembly="encoder 3·3 | decoder 3·3")
    assert student.startswith("step 8: "), "a student has no schedule"
    assert words_for(modular, [*rising, *[2.0, 2.01] * 10], tmp_path, logging_steps=1) == [], "too few steps to say"
    assert words_for(modular, [3.0, 2.0, 1.0, 0.5], tmp_path, 4, logging_steps=60) == [], (
        "one alone has nothing to be compared with"
    )


def test_a_loss_that_is_no_number_ends_the_training(make_modular: Any, tokenizer: Any, tmp_path: Path) -> None:
    modular = kit(make_modular, tokenizer)
    with torch.no_grad():
        for weight in modular.bank_weights().values():
            weight.fill_(float("nan"))
    with pytest.raises(ModtfError, match=r"the loss of the logits is nan at step 0: .*Lower --learning-rate"):
        train_kit(modular, TEXT, EXAMPLES, arguments(tmp_path), 4)
    assert not (tmp_path / "modtf.json").exists()


def test_what_was_measured_after_the_checkpoint_is_measured_again(
    make_modular: Any, tokenizer: Any, tmp_path: Path
) -> None:
    def run(steps: int) -> None:
        modular = kit(make_modular, tokenizer)
        watch = Watch(modular, EXAMPLES[:2], 1, lambda words: None)
        train_kit(modular, TEXT, EXAMPLES, arguments(tmp_path, max_steps=steps, save_steps=2), 4, watch=watch)

    run(4)
    rows = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(rows + rows.splitlines()[-1] + "\n" + '{"step": 5, "metr')  # as if killed
    shutil.rmtree(tmp_path / "checkpoint-4")
    run(6)
    assert [row["step"] for row in read_quality(tmp_path / FILE)] == [1, 2, 3, 4, 5, 6]


def test_a_small_size_that_writes_nothing_of_use(
    make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modular, said = kit(make_modular, tokenizer), []
    scores = {"6-6": 40.0, "4-3": 30.0, "2-2": 1.0}
    monkeypatch.setattr(
        "modtf.training.watch.measure_quality", lambda modular, assembly, examples: {"bleu": scores[assembly.shape]}
    )
    watch, args = Watch(modular, EXAMPLES, 1, said.append), arguments(tmp_path)
    for step in (1, 3, 4, 6):
        watch.on_step_end(args, logged([1.0] * step, 6), None)
    assert ["writes little of use" in line for line in said] == [False, False, True, False, False], "half-way, once"
    scores["2-2"] = 10.0
    said.clear()
    watch = Watch(modular, EXAMPLES, 1, said.append)
    watch.on_step_end(args, logged([1.0] * 3, 6), None)
    assert said == ["step 3: BLEU 4-3 30.0, 2-2 10.0 (full model 40.0; 8 inputs)"]
