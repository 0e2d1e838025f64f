"""The trainer: what a step changes, what each weight turns on, accumulation, checkpointing, and a resume that changes nothing."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Seq2SeqTrainingArguments, Trainer, default_data_collator, set_seed

import modtf
from modtf.architectures import stacks_of
from modtf.distillation import attention_loss, hidden_loss, logits_loss
from modtf.errors import ModtfError
from modtf.mapping import Assembly, boundaries
from modtf.tasks.batches import TaskBatches, only_batch
from modtf.tasks.e2e import Example
from modtf.trainer import ModularTrainer, ModularTrainingArguments, MuonWithAdamW

Batch = dict[str, torch.Tensor]
NO_DROPOUT = {"bart": {"dropout": 0.0}, "t5": {"dropout_rate": 0.0}, "t5-gated": {"dropout_rate": 0.0}}
LOSSES = ("labels", "logits", "hidden", "attention")
ASSEMBLY = Assembly((1, 1, 2, 2), (3, 1, 2))


def weights_of(**given: float) -> dict[str, float]:
    """Every loss off but those given."""
    return {f"{name}_weight": given.get(name, 0.0) for name in LOSSES}


def arguments(folder: Path, **options: Any) -> ModularTrainingArguments:
    defaults = {
        "max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "use_cpu": True,
        "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "remove_unused_columns": False,
        "dataloader_pin_memory": False, "coarse_at": 0.0,
    }  # fmt: skip
    return ModularTrainingArguments(output_dir=str(folder), **(defaults | options))


def examples(count: int = 16, seed: int = 0) -> list[Batch]:
    """Rows of equal length, so that a mean over a batch is the mean over its halves."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "input_ids": torch.randint(3, 97, (6,), generator=generator),
            "attention_mask": torch.tensor([1, 1, 1, 1, 1, 0]),
            "labels": torch.cat([torch.randint(3, 97, (4,), generator=generator), torch.tensor([1, -100])]),
        }
        for _ in range(count)
    ]


def make_trainer(
    modular: modtf.ModularModel,
    folder: Path,
    data: Any = None,
    trainer_options: dict[str, Any] | None = None,
    **options: Any,
) -> ModularTrainer:
    given = {"train_dataset": examples() if data is None else data, "data_collator": default_data_collator} | (
        trainer_options or {}
    )
    return ModularTrainer(modular, arguments(folder, **options), **given)


def train(modular: modtf.ModularModel, folder: Path, *, resume: Any = None, **options: Any) -> ModularTrainer:
    set_seed(3)
    trainer = make_trainer(modular, folder, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def snapshot(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: after[name].detach() - before[name] for name in before}


def assert_same_moves(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Up to rounding: a hundredth of the largest move is far less than a wrong scale or another dropout would give."""
    assert max(move.abs().max() for move in one.values()) > 1e-4
    for name, move in one.items():
        torch.testing.assert_close(other[name], move, rtol=0, atol=1e-2 * move.abs().max().item() + 1e-6)


def modules_of(assembly: Assembly) -> set[str]:
    """``encoder.2.1`` for m(2, 1), as the names of the banks' weights begin."""
    return {
        f"{stack}.{g}.{(end - g) // g}"
        for stack, path in (("encoder", assembly.encoder), ("decoder", assembly.decoder))
        for g, end in zip(path, boundaries(path), strict=True)
        if g > 1
    }


def student_assemblies(modular: modtf.ModularModel) -> list[Assembly]:
    """Filled with the assembly of each student's forward pass; the teacher's is given by position."""
    seen: list[Assembly] = []
    modular.register_forward_pre_hook(
        lambda _, args, options: seen.append(options["assembly"]) if not args else None, with_kwargs=True
    )
    return seen


# -- what a step changes ---------------------------------------------------------------------------------------------------


def test_a_step_changes_the_modules_that_ran_and_nothing_else(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family)
    original, banks = snapshot(modular.original_weights()), snapshot(modular.bank_weights())
    everything = snapshot(modular.state_dict())
    trainer = train(modular, tmp_path, max_steps=2)
    assert not changed(original, modular.original_weights())
    ran = modules_of(trainer.schedule().draw(0)) | modules_of(trainer.schedule().draw(1))
    moved = changed(banks, modular.bank_weights())
    assert {".".join(name.split(".")[:3]) for name in moved} == ran
    assert ran != {".".join(name.split(".")[:3]) for name in banks}, "some did not run, so that says something"
    names = {name for name in everything if ".banks." not in name}
    assert not changed({name: everything[name] for name in names}, {name: modular.state_dict()[name] for name in names})
    assert all(p.grad is None for p in modular.original_weights().values())


def test_memorising_lowers_the_loss(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family, **NO_DROPOUT[family])
    data = examples(4)
    batch = default_data_collator(data)
    chosen = [modular.mapping.coarsest, Assembly((2, 2, 2), (2, 2, 2)), Assembly((1,) * 6, (3, 3))]

    @torch.no_grad()
    def losses() -> list[float]:
        return [modular.assemble(assembly=assembly)(**batch).loss.item() for assembly in chosen]

    before = losses()
    train(
        modular, tmp_path, data=data, max_steps=120, learning_rate=2e-2, mixtures=0.0, whole=1.0, **weights_of(labels=1)
    )
    assert all(after < 0.5 * start for after, start in zip(losses(), before, strict=True))


@pytest.mark.parametrize("name", ["logits", "hidden", "attention"])
def test_each_distillation_loss_can_be_lowered(name: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular("t5", **NO_DROPOUT["t5"])
    trainer = train(modular, tmp_path, data=examples(4), max_steps=60, learning_rate=3e-3, **weights_of(**{name: 1}))
    values = [entry[f"loss_{name}"] for entry in trainer.state.log_history if f"loss_{name}" in entry]
    assert len(values) == 60
    assert sum(values[-15:]) < 0.75 * sum(values[:15])


# -- which losses, and what they cost --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "passes"),
    [
        ({"labels": 1}, 1),
        ({"logits": 2}, 2),
        ({"hidden": 1}, 2),
        ({"attention": 1}, 2),
        ({"labels": 1, "attention": 0.5}, 2),
        (dict.fromkeys(LOSSES, 1), 2),
    ],
    ids=str,
)
def test_a_weight_of_zero_costs_nothing(
    family: str, make_modular: Any, tmp_path: Path, given: dict[str, float], passes: int
) -> None:
    modular = make_modular(family)
    calls: Counter[str] = Counter()
    modular.model.register_forward_hook(lambda *_: calls.update(["model"]))
    for index, layer in enumerate(modular.stacks[0].originals):
        layer.register_forward_hook(lambda *_, name=f"original {index}": calls.update([name]))
    trainer = make_trainer(modular, tmp_path, **weights_of(**given))
    losses, _ = trainer.losses(modular.train(), ASSEMBLY, default_data_collator(examples(3)))
    assert losses.keys() == given.keys()
    assert calls["model"] == passes
    # of the encoder's originals the student runs the first two, the teacher all
    assert [calls[f"original {i}"] for i in range(6)] == [passes, passes, *[passes - 1] * 4]
    assert not any(m._forward_hooks for stack in modular.stacks for m in stack.banks.modules()), (
        "recording leaves with the step"
    )


def test_total_is_the_weighted_sum(make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular("bart", **NO_DROPOUT["bart"])
    given = {"labels": 0.5, "logits": 2.0, "hidden": 3.0, "attention": 0.25}
    trainer = train(modular, tmp_path, max_steps=1, **weights_of(**given))
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(
        sum(weight * entry[f"loss_{name}"] for name, weight in given.items()), rel=1e-3
    )


def test_losses_are_those_of_the_assembled_models(family: str, make_modular: Any, tmp_path: Path) -> None:
    """Against states and maps that transformers itself records in the assembled student and in the original."""
    modular = make_modular(family)
    trainer = make_trainer(modular, tmp_path)
    batch = default_data_collator(examples(5))
    with torch.no_grad():
        losses, _ = trainer.losses(modular.eval(), ASSEMBLY, batch)
        states: dict[str, list[list[torch.Tensor]]] = {}
        outputs = {}
        for name, assembly in (("student", ASSEMBLY), ("teacher", modular.mapping.original)):
            model = modular.assemble(assembly=assembly)
            states[name] = [[], []]
            for kept, stack in zip(states[name], stacks_of(model), strict=True):
                for layer in stack.layers if family == "bart" else stack.block:
                    layer.register_forward_hook(
                        lambda *a, kept=kept: kept.append(a[2][0] if isinstance(a[2], tuple) else a[2])
                    )
            outputs[name] = model(**batch, output_attentions=True, use_cache=False)
    source, target = batch["attention_mask"].bool(), batch["labels"] != -100
    student, teacher = outputs["student"], outputs["teacher"]
    torch.testing.assert_close(losses["labels"], student.loss)
    torch.testing.assert_close(losses["logits"], logits_loss(student.logits, teacher.logits, target))
    # the encoder's path 1·1·2·2 ends at the original layers 1, 2, 4, 6; the decoder's 3·1·2 at 3, 4, 6
    encoder, decoder = (0, 1, 3, 5), (2, 3, 5)
    hidden = hidden_loss(states["student"][0], [states["teacher"][0][i] for i in encoder], source) + hidden_loss(
        states["student"][1], [states["teacher"][1][i] for i in decoder], target
    )
    torch.testing.assert_close(losses["hidden"], hidden)
    attention = (
        attention_loss(student.encoder_attentions, [teacher.encoder_attentions[i] for i in encoder], source)
        + attention_loss(student.decoder_attentions, [teacher.decoder_attentions[i] for i in decoder], target)
        + attention_loss(student.cross_attentions, [teacher.cross_attentions[i] for i in decoder], target)
    )
    torch.testing.assert_close(losses["attention"], attention)
    assert min(losses.values()) > 0.01


def test_the_original_as_student_has_nothing_to_learn(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family).train()
    losses, _ = make_trainer(modular, tmp_path).losses(
        modular.train(), modular.mapping.original, default_data_collator(examples(3))
    )
    assert {name: loss.item() for name, loss in losses.items() if name != "labels"} == pytest.approx(
        {"logits": 0, "hidden": 0, "attention": 0}, abs=1e-6
    )


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_attention_maps_need_eager_attention(family: str, make_model: Any, tmp_path: Path, weight: float) -> None:
    modular = modtf.modularize(make_model(family, attn_implementation="sdpa"))
    configs = [modular.config, *(stack.config for stack in stacks_of(modular.model))]
    before = [config._attn_implementation for config in configs]
    make_trainer(modular, tmp_path, **weights_of(labels=1, attention=weight))
    assert [config._attn_implementation for config in configs] == (["eager"] * 3 if weight else before)
    for stack in stacks_of(modular.model):
        read = [
            m.config
            for m in stack.modules()
            if type(m).__name__ in ("BartAttention", "T5Attention") and "config" in m.__dict__
        ]
        assert {config._attn_implementation for config in read} <= {stack.config._attn_implementation}, (
            "banks read it as well"
        )


def test_dropout_is_never_active_in_the_original(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family)
    in_banks = {id(m) for stack in modular.stacks for m in stack.banks.modules()}
    active: list[tuple[bool, bool]] = []

    def look(*_: Any) -> None:
        on = {id(m) for m in modular.model.modules() if m.training}
        active.append((bool(on - in_banks), on == in_banks))

    modular.model.register_forward_pre_hook(look)
    train(modular, tmp_path, max_steps=2)
    assert active == [(False, True)] * 4, (
        "teacher and student in each of two steps: banks in training mode, all else not"
    )


# -- accumulation and checkpointing ----------------------------------------------------------------------------------------


def test_accumulated_gradients(family: str, make_modular: Any, tmp_path: Path) -> None:
    """Two batches of four are one of eight."""
    results, assemblies = [], []
    for batch_size, accumulated in ((8, 1), (4, 2)):
        modular = make_modular(family, **NO_DROPOUT[family])
        before = snapshot(modular.bank_weights())
        seen = student_assemblies(modular)
        train(
            modular, tmp_path, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulated, optim="sgd",
            learning_rate=1e-3, max_grad_norm=0.0, **weights_of(labels=1, logits=1, hidden=1, attention=1),
        )  # fmt: skip
        results.append(moved(before, modular.bank_weights()))
        assemblies.append(seen)
    assert len(assemblies[0]) == 3
    assert assemblies[1] == [assembly for assembly in assemblies[0] for _ in range(2)], (
        "both halves of a step run the same"
    )
    assert_same_moves(*results)


def test_accumulated_losses_are_logged_as_of_one_batch(make_modular: Any, tmp_path: Path) -> None:
    entries = []
    for batch_size, accumulated in ((8, 1), (4, 2)):
        modular = make_modular("t5", **NO_DROPOUT["t5"])
        trainer = train(
            modular,
            tmp_path,
            max_steps=1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulated,
        )
        entries.append(trainer.state.log_history[0])
    for name in ("loss", *(f"loss_{name}" for name in LOSSES)):
        assert entries[1][name] == pytest.approx(entries[0][name], rel=1e-4)


def test_gradient_checkpointing_changes_nothing(family: str, make_modular: Any, tmp_path: Path) -> None:
    """With dropout: what is recomputed must draw the same."""
    results = []
    for on in (False, True):
        modular = make_modular(family)
        before = snapshot(modular.bank_weights())
        train(modular, tmp_path, gradient_checkpointing=on, optim="sgd", learning_rate=1e-3, max_grad_norm=0.0)
        assert on == any(getattr(module, "gradient_checkpointing", False) for module in modular.modules())
        results.append(moved(before, modular.bank_weights()))
    assert_same_moves(*results)


# -- checkpoints -----------------------------------------------------------------------------------------------------------


def muon(modular: modtf.ModularModel) -> dict[str, Any]:
    return {"optimizers": (MuonWithAdamW(modular, lr=1e-2, adamw_lr=3e-3, weight_decay=0.1), None)}


def adamw(_: modtf.ModularModel) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("optimizer", [adamw, muon])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_resume_is_bit_identical(
    family: str, make_modular: Any, tmp_path: Path, optimizer: Callable, accumulated: int
) -> None:
    """With dropout, shuffled data, a moving learning rate, and a world whose random numbers went on meanwhile."""
    options = {
        "max_steps": 5, "save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "linear", "warmup_steps": 2,
        "per_device_train_batch_size": 3, "gradient_accumulation_steps": accumulated,
    }  # fmt: skip
    whole = make_modular(family)
    straight = train(whole, tmp_path, trainer_options=optimizer(whole), **options)
    again = make_modular(family)
    torch.manual_seed(99)
    resumed = make_trainer(again, tmp_path, trainer_options=optimizer(again), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert not changed(whole.bank_weights(), again.bank_weights())
    assert not changed(whole.original_weights(), again.original_weights())
    assert resumed.state.global_step == 5
    times = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}
    histories = [
        [{k: v for k, v in entry.items() if k not in times} for entry in t.state.log_history if "loss" in entry]
        for t in (straight, resumed)
    ]
    assert [entry["step"] for entry in histories[0]] == [1, 2, 3, 4, 5]
    assert histories[0] == histories[1]
    assert len({entry["learning_rate"] for entry in histories[0]}) > 2


def task_batches(tokenizer: Any, steps: int) -> TaskBatches:
    mrs = [{"name": name, "food": food} for name in ("Zizzi", "The Mill", "Cotto") for food in ("Thai", "French")]
    texts = [
        Example(mr, tuple(f"{mr['name']} {verb} {mr['food']} food." for verb in ("serves", "has", "does")))
        for mr in mrs
    ]
    return TaskBatches(texts, tokenizer, steps, batch_size=6, seed=1)


def test_resume_with_whole_batches(make_modular: Any, tokenizer: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 2,
        "per_device_train_batch_size": 1,
    }
    given = {"whole_batches": True, "data_collator": only_batch}
    whole, again = (make_modular("t5", vocabulary=len(tokenizer)) for _ in range(2))
    train(whole, tmp_path, data=task_batches(tokenizer, 6), trainer_options=given | muon(whole), **options)
    train(
        again,
        tmp_path,
        data=task_batches(tokenizer, 6),
        trainer_options=given | muon(again),
        resume=str(tmp_path / "checkpoint-4"),
        **options,
    )
    assert not changed(whole.bank_weights(), again.bank_weights())


def test_whole_batches_come_in_their_order(make_modular: Any, tokenizer: Any, tmp_path: Path) -> None:
    modular = make_modular("t5", vocabulary=len(tokenizer))
    seen: list[torch.Tensor] = []
    modular.register_forward_pre_hook(lambda _, args, options: seen.append(options["labels"]), with_kwargs=True)
    data = task_batches(tokenizer, 4)
    given = {"whole_batches": True, "data_collator": only_batch}
    train(
        modular,
        tmp_path,
        data=data,
        trainer_options=given,
        max_steps=4,
        per_device_train_batch_size=1,
        **weights_of(labels=1),
    )
    assert len(seen) == 4
    assert all(torch.equal(labels, data[step]["labels"]) for step, labels in enumerate(seen))


def test_checkpoints_hold_banks_only(family: str, make_modular: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    modular = make_modular(family)
    trainer = train(modular, tmp_path, max_steps=2, save_strategy="steps", save_steps=1, save_total_limit=1)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    folder = tmp_path / "checkpoint-2"
    (banks,) = folder.glob("*.safetensors")
    saved = load_file(banks)
    assert saved.keys() == modular.bank_weights().keys()
    assert all(torch.equal(saved[name], weight) for name, weight in modular.bank_weights().items())
    others = {path.name for path in folder.iterdir()} - {banks.name, "modtf.json", "trainer_state.json"}
    assert others <= {"optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"}
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.load(folder / name, weights_only=True)  # tensors and numbers, no pickled objects
    trained = sum(w.numel() for w in modular.bank_weights().values())
    state = torch.load(folder / "optimizer.pt", weights_only=True)["state"].values()
    assert sum(entry["exp_avg"].numel() for entry in state) <= trained
    fresh = make_modular(family, seed=0)
    fresh.load_banks(folder)
    assert not changed(modular.bank_weights(), fresh.bank_weights())
    trainer.save_model(str(tmp_path / "final"))
    assert sorted(path.suffix for path in (tmp_path / "final").iterdir()) == [".json", ".safetensors"]


def test_resuming_the_training_of_another_original(make_modular: Any, tmp_path: Path) -> None:
    train(make_modular("t5"), tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    other = make_modular("t5", seed=4)
    before = snapshot(other.bank_weights())
    with pytest.raises(ModtfError, match="another original"):
        train(other, tmp_path, max_steps=2, resume=str(tmp_path / "checkpoint-1"))
    assert not changed(before, other.bank_weights())


def test_evaluation_and_the_best_checkpoint(make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular("t5")
    data = examples(4)
    trainer = train(
        modular, tmp_path, data=data, trainer_options={"eval_dataset": data}, max_steps=6, learning_rate=0.3, eval_strategy="steps",
        eval_steps=2, save_strategy="steps", save_steps=2, load_best_model_at_end=True, metric_for_best_model="loss",
    )  # fmt: skip
    losses = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    assert trainer.state.best_model_checkpoint == str(
        tmp_path / f"checkpoint-{min(losses, key=lambda step: losses[step])}"
    )
    with torch.no_grad():
        loss = modular.assemble(assembly=modular.mapping.coarsest)(**default_data_collator(data)).loss.item()
    assert loss == pytest.approx(min(losses.values()), rel=1e-4), (
        "the coarsest assembly is evaluated, and the best banks are back"
    )


def test_evaluation_may_write_texts(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family)
    data = examples(4)
    written: list[Any] = []
    trainer = make_trainer(
        modular, tmp_path, data, {"eval_dataset": data, "compute_metrics": lambda evaluated: written.append(evaluated.predictions) or {}},
        predict_with_generate=True, generation_max_length=6, per_device_eval_batch_size=4,
    )  # fmt: skip
    trainer.evaluate()
    batch = default_data_collator(data)
    small = modular.assemble(assembly=modular.mapping.coarsest)
    expected = small.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_length=6, do_sample=False
    )
    assert written[0][:, : expected.shape[1]].tolist() == expected.tolist()
    assert isinstance(trainer.model, modtf.ModularModel), "training may go on"


def test_words_for_arguments_of_another_trainer(make_modular: Any, tmp_path: Path) -> None:
    with pytest.raises(ModtfError, match="label_smoothing_factor has no effect"):
        make_trainer(make_modular("t5"), tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(ModtfError, match="ModularTrainingArguments are needed, not Seq2SeqTrainingArguments"):
        ModularTrainer(
            make_modular("t5"), Seq2SeqTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
        )


def test_data_without_masks(family: str, make_modular: Any, tmp_path: Path) -> None:
    """Seq2SeqTrainer takes rows without attention_mask; so does this one, as if all tokens counted."""
    logged = []
    for given in ({"attention_mask": torch.ones(6, dtype=torch.long)}, {}):
        data = [{"input_ids": row["input_ids"], "labels": row["labels"], **given} for row in examples()]
        modular = make_modular(family, **NO_DROPOUT[family])
        logged.append(train(modular, tmp_path, data=data, max_steps=2).state.log_history[:2])
    for name in ("loss", "loss_hidden"):
        assert [entry[name] for entry in logged[0]] == pytest.approx([entry[name] for entry in logged[1]])


# -- logging ---------------------------------------------------------------------------------------------------------------


def test_tensorboard_shows_each_loss(make_modular: Any, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    trainer = train(make_modular("t5"), tmp_path, report_to="tensorboard", max_steps=4, logging_steps=2)
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    reader = accumulator.EventAccumulator(str(events))
    reader.Reload()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in history] == [2, 4]
    for name in ("loss", *(f"loss_{name}" for name in LOSSES)):
        shown = [(event.step, event.value) for event in reader.Scalars(f"train/{name}")]
        assert shown == [(entry["step"], pytest.approx(entry[name], rel=1e-5)) for entry in history]
        assert all(math.isfinite(value) and value > 0 for _, value in shown)


def test_logged_losses_are_means_since_the_last_log(make_modular: Any, tmp_path: Path) -> None:
    each, pairs = (
        [
            entry
            for entry in train(make_modular("t5"), tmp_path, max_steps=4, logging_steps=every).state.log_history
            if "loss" in entry
        ]
        for every in (1, 2)
    )
    assert [len(each), len(pairs)] == [4, 2]
    for name in LOSSES:
        values = [entry[f"loss_{name}"] for entry in each]
        assert [entry[f"loss_{name}"] for entry in pairs] == pytest.approx(
            [sum(values[:2]) / 2, sum(values[2:]) / 2], rel=1e-4
        )


# -- shared sources --------------------------------------------------------------------------------------------------------


def test_sharing_sources_gives_the_losses_of_repeating_them(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family)
    trainer = make_trainer(modular, tmp_path)
    rows = default_data_collator(examples(6))
    sources = {name: rows[name][:3] for name in ("input_ids", "attention_mask")}
    for index, same in (
        (torch.tensor([0, 0, 1, 1, 2, 2]), LOSSES),
        (torch.tensor([2, 0, 2, 2, 1, 0]), ("labels", "logits")),
    ):
        with torch.no_grad():
            shared, _ = trainer.losses(
                modular.eval(), ASSEMBLY, sources | {"labels": rows["labels"], "source_index": index}
            )
            repeated, _ = trainer.losses(
                modular, ASSEMBLY, {name: t[index] for name, t in sources.items()} | {"labels": rows["labels"]}
            )
        for name in same:
            torch.testing.assert_close(shared[name], repeated[name], rtol=1e-5, atol=1e-6)


# -- the optimizer ---------------------------------------------------------------------------------------------------------


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.matrix = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.frozen(self.matrix(self.embedding(tokens))).square().sum()


def steps(model: Toy, optimizer: torch.optim.Optimizer, count: int) -> None:
    for i in range(count):
        optimizer.zero_grad()
        model(torch.tensor([i % 5, 1])).backward()
        optimizer.step()


def test_muon_takes_matrices_and_adamw_the_rest() -> None:
    model = Toy()
    optimizer = MuonWithAdamW(model, lr=0.1, adamw_lr=0.01)
    parts = {
        type(part).__name__: [p for group in part.param_groups for p in group["params"]] for part in optimizer.parts
    }
    assert [id(p) for p in parts["Muon"]] == [id(model.matrix.weight)]
    assert {id(p) for p in parts["AdamW"]} == {id(model.embedding.weight), id(model.matrix.bias)}
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]
    before = snapshot(model.state_dict())
    steps(model, optimizer, 2)
    assert changed(before, model.state_dict()) == {"embedding.weight", "matrix.weight", "matrix.bias"}


def test_optimizer_state_round_trip(tmp_path: Path) -> None:
    model = Toy()
    optimizer = MuonWithAdamW(model, lr=0.1, adamw_lr=0.01, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    steps(model, optimizer, 3)
    scheduler.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    twin = copy.deepcopy(model)
    other = MuonWithAdamW(twin, lr=0.7, adamw_lr=0.7)
    fresh_scheduler = torch.optim.lr_scheduler.LambdaLR(other, lambda step: 1 / (1 + step))
    other.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    fresh_scheduler.load_state_dict(scheduler.state_dict())
    assert (
        [group["lr"] for group in other.param_groups]
        == [group["lr"] for group in optimizer.param_groups]
        == [0.05, 0.005]
    )
    for _ in range(3):  # momentum, second moments, decay and the scheduler's next rates are all the same
        steps(model, optimizer, 1)
        steps(twin, other, 1)
        scheduler.step()
        fresh_scheduler.step()
        assert not changed(model.state_dict(), twin.state_dict())
    assert [group["lr"] for part in other.parts for group in part.param_groups] == pytest.approx([0.1 / 5, 0.01 / 5])


def test_the_scheduler_reaches_both_parts(make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular("t5")
    trainer = train(
        modular, tmp_path, trainer_options=muon(modular), max_steps=4, lr_scheduler_type="linear", learning_rate=5
    )
    rates = [group["lr"] for part in trainer.optimizer.optimizer.parts for group in part.param_groups]
    assert rates == pytest.approx([0, 0])
    assert [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry] == pytest.approx(
        [0.01, 0.0075, 0.005, 0.0025]
    )


# -- words for bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_no_banks_in_half_precision(make_model: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    """As transformers loads a checkpoint that is stored so: the training would run, and learn next to nothing."""
    halved = modtf.modularize(make_model("t5").to(dtype))
    with pytest.raises(ModtfError, match=rf"banks are in {str(dtype).removeprefix('torch.')}, .*dtype=torch.float32"):
        modtf.ModularTrainer(
            halved, modtf.ModularTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
        )


def test_only_modular_models(make_model: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ModtfError, match=r"a ModularModel is needed, not a T5ForConditionalGeneration; make one with modtf.modularize"
    ):
        ModularTrainer(make_model("t5", 2, 2), arguments(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (weights_of(), "at least one above 0"),
        (weights_of(labels=1, hidden=-1), "0 or more"),
        ({"temperature": 0.0}, "temperature is 0.0; give one above 0"),
    ],
)
def test_words_for_bad_arguments(options: dict[str, float], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModtfError) as raised:
        arguments(tmp_path, **options)
    assert words in str(raised.value)


@pytest.mark.parametrize("options", [{"mixtures": 0.7, "whole": 0.7}, {"full_at": 2.0}])
def test_a_schedule_that_cannot_be_is_refused_before_the_training(
    options: dict[str, float], make_modular: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModtfError):
        make_trainer(make_modular("t5", 2, 2), tmp_path, **options).train()


def test_it_is_a_trainer(make_modular: Any, tmp_path: Path) -> None:
    trainer = make_trainer(make_modular("t5", 2, 2), tmp_path)
    assert isinstance(trainer, Trainer)
    assert trainer.model_accepts_loss_kwargs is False, "transformers would divide by the number of accumulated tokens"
    assert trainer.args.ddp_find_unused_parameters is True
