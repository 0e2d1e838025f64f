"""Training: what a step changes, which losses it computes, accumulation, checkpoints, whole batches, the optimizer."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    HfArgumentParser,
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    default_data_collator,
    set_seed,
)

import modtf
from modtf.architectures import stacks_of
from modtf.distillation import attention_loss, hidden_loss, logits_loss
from modtf.errors import ModtfError
from modtf.mapping import Assembly, boundaries
from modtf.tasks import TEXT, Example
from modtf.training import ModularTrainer, ModularTrainingArguments
from modtf.training.batches import WHOLE_BATCHES, encode_sources_once, only_batch
from modtf.training.optimizer import Muon, MuonWithAdamW, _newton_schulz, _together
from modtf.training.runs import set_dropout, train_kit, train_original

Batch = dict[str, torch.Tensor]
NO_DROPOUT = {"bart": {"dropout": 0.0}, "t5": {"dropout_rate": 0.0}, "t5-gated": {"dropout_rate": 0.0}}
LOSSES = ("labels", "logits", "hidden", "attention")
OPTIONS = {
    "max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "lr_scheduler_type": "constant",
    "save_strategy": "no", "logging_steps": 1, "remove_unused_columns": False,
    "use_cpu": True, "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False,
}  # fmt: skip
ASSEMBLY = Assembly((1, 1, 2, 2), (3, 1, 2))


def weights_of(**given: float) -> dict[str, float]:
    """Every loss off but those given."""
    return {f"{name}_weight": given.get(name, 0.0) for name in LOSSES}


def arguments(folder: Path, **options: Any) -> ModularTrainingArguments:
    """Every loss, unless ``options`` say otherwise."""
    defaults = OPTIONS | {"coarse_at": 0.0} | weights_of(**dict.fromkeys(LOSSES, 1.0))
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
    """A list that collects the assemblies of each student's forward pass; the teacher's is a positional argument."""
    seen: list[Assembly] = []
    modular.register_forward_pre_hook(
        lambda _, args, options: None if args else seen.extend(options["assembly"]), with_kwargs=True
    )
    return seen


# -- what a step changes -----------------------------------------------------------------------------------------------


def test_a_step_changes_the_modules_that_ran_and_nothing_else(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family)
    original, banks = snapshot(modular.original_weights()), snapshot(modular.bank_weights())
    everything = snapshot(modular.state_dict())
    trainer = train(modular, tmp_path, max_steps=2)
    assert not changed(original, modular.original_weights())
    ran = modules_of(trainer.schedule().draw(0)) | modules_of(trainer.schedule().draw(1))
    moved = changed(banks, modular.bank_weights())
    assert {".".join(name.split(".")[:3]) for name in moved} == ran
    assert ran != {".".join(name.split(".")[:3]) for name in banks}, "some did not run, so the test is not trivial"
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


# -- which losses, and what they cost ----------------------------------------------------------------------------------


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
    losses, _ = trainer.losses(modular.train(), [ASSEMBLY], default_data_collator(examples(3)))
    assert losses.keys() == given.keys()
    assert calls["model"] == passes
    # of the encoder's originals the student runs the first two, the teacher all
    assert [calls[f"original {i}"] for i in range(6)] == [passes, passes, *[passes - 1] * 4]
    assert not any(m._forward_hooks for stack in modular.stacks for m in stack.banks.modules()), (
        "the hooks that record are removed"
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
        losses, _ = trainer.losses(modular.eval(), [ASSEMBLY], batch)
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


def test_several_assemblies_learn_from_one_pass_of_the_original(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family, **NO_DROPOUT[family])
    trainer = make_trainer(modular, tmp_path)
    batch, assemblies = default_data_collator(examples(4)), [ASSEMBLY, modular.mapping.coarsest]
    apart = [trainer.losses(modular.train(), [assembly], batch) for assembly in assemblies]
    passes = Counter[str]()
    hook = modular.model.register_forward_hook(lambda *_: passes.update(["model"]))
    losses, outputs = trainer.losses(modular, assemblies, batch)
    hook.remove()
    assert passes["model"] == 1 + len(assemblies)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, (apart[0][0][name] + apart[1][0][name]) / 2)
    for output, (_, (alone,)) in zip(outputs, apart, strict=True):
        assert torch.equal(output.logits, alone.logits)


def test_assemblies_of_a_step_take_turns_in_memory(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family, **NO_DROPOUT[family])
    trainer = make_trainer(modular, tmp_path, assemblies_per_step=3, coarse_at=0.0, max_steps=4)
    trainer.current_gradient_accumulation_steps = 1  # the training loop sets it
    batch = default_data_collator(examples(4))

    def gradients() -> dict[str, torch.Tensor]:
        found = {name: weight.grad for name, weight in modular.named_parameters() if weight.grad is not None}
        modular.zero_grad()
        return found

    at_once = trainer.compute_loss(modular.train(), batch)
    at_once.backward()
    expected = gradients()
    alive, most = WeakSet[torch.Tensor](), []

    def count(module: Any, given: Any, output: Any) -> None:
        if output.logits.requires_grad:
            alive.add(output.logits)
        most.append(len(alive))

    hook = modular.model.register_forward_hook(count)
    loss = trainer.training_step(modular, batch)
    hook.remove()
    assert len(most) == 1 + 3 and max(most) == 1
    torch.testing.assert_close(loss, at_once.detach())
    torch.testing.assert_close(gradients(), expected)


TWO_PROCESSES = """
import sys, torch, transformers, modtf
from safetensors.torch import save_file
folder, at_once = sys.argv[1], sys.argv[2] == "at-once"
torch.set_num_threads(1)
original = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
modular = modtf.modularize(original, (2, 3, 6))
generator = torch.Generator().manual_seed(0)
rows = [
    {name: torch.randint(3, 97, (6,), generator=generator) for name in ("input_ids", "labels")} for _ in range(16)
]
if at_once:
    del modtf.ModularTrainer.training_step
args = modtf.ModularTrainingArguments(
    folder + "/run", max_steps=4, per_device_train_batch_size=2, assemblies_per_step=3, coarse_at=0.0, whole=0.0,
    optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", max_grad_norm=0.0, save_strategy="no",
    report_to="none", use_cpu=True, disable_tqdm=True, seed=1,
)
trainer = modtf.ModularTrainer(modular, args, train_dataset=rows, data_collator=transformers.default_data_collator)
drawn = [trainer.schedule().draw_several(step, 3) for step in range(4)]
assert any(set(step[0].encoder + step[0].decoder) - set(step[2].encoder + step[2].decoder) for step in drawn)
trainer.train()
assert args.world_size == 2
save_file({name: weight.detach().clone() for name, weight in modular.bank_weights().items()},
          f"{folder}/{sys.argv[2]}-{args.process_index}.safetensors")
"""


def test_two_processes_exchange_the_gradients_of_all_assemblies(make_model: Any, tmp_path: Path) -> None:
    """Some modules learn in one of the passes only, and not in the last one, after which gradients are exchanged."""
    make_model("bart", dropout=0.0).save_pretrained(tmp_path)
    (tmp_path / "train.py").write_text(TWO_PROCESSES)
    for how in ("in-turns", "at-once"):
        command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(modtf.__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, *command, str(tmp_path / "train.py"), str(tmp_path), how],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    turns = [load_file(tmp_path / f"in-turns-{process}.safetensors") for process in (0, 1)]
    at_once = load_file(tmp_path / "at-once-0.safetensors")
    assert all(torch.equal(turns[0][name], turns[1][name]) for name in at_once), "both hold the same weights"
    torch.testing.assert_close(turns[0], at_once)


def test_a_configuration_that_asks_for_hidden_states_changes_no_loss(
    family: str, make_modular: Any, tmp_path: Path
) -> None:
    modular = make_modular(family, **NO_DROPOUT[family])
    trainer, batch = make_trainer(modular, tmp_path), default_data_collator(examples(3))
    expected, _ = trainer.losses(modular.train(), [ASSEMBLY], batch)
    for config in (modular.config, *(stack.config for stack in stacks_of(modular.model))):
        config.output_hidden_states = True
    losses, _ = trainer.losses(modular, [ASSEMBLY], batch)
    assert losses.keys() == expected.keys() and all(torch.equal(losses[name], expected[name]) for name in losses)


def test_a_step_of_several_assemblies_changes_the_modules_of_all(make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular("bart")
    banks = snapshot(modular.bank_weights())
    trainer = train(modular, tmp_path, max_steps=1, assemblies_per_step=3, coarse_at=0.0)
    drawn = trainer.schedule().draw_several(0, 3)
    moved = {".".join(name.split(".")[:3]) for name in changed(banks, modular.bank_weights())}
    assert moved == set().union(*map(modules_of, drawn)) > modules_of(drawn[0])


def test_a_training_of_one_assembly_changes_its_modules_alone(make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular("bart")
    banks = snapshot(modular.bank_weights())
    train(modular, tmp_path, assembly=str(ASSEMBLY))
    moved = {".".join(name.split(".")[:3]) for name in changed(banks, modular.bank_weights())}
    assert moved == modules_of(ASSEMBLY)
    batch = default_data_collator(examples(3))
    trainer = make_trainer(modular, tmp_path, assembly=str(ASSEMBLY))
    evaluated = trainer.compute_loss(modular.eval(), batch)
    assert torch.equal(evaluated, modular(ASSEMBLY, **batch).loss), "not the coarsest one, which did not learn"


def test_the_original_as_student_has_nothing_to_learn(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family).train()
    losses, _ = make_trainer(modular, tmp_path).losses(
        modular.train(), [modular.mapping.original], default_data_collator(examples(3))
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


class CrossEntropies(TorchDispatchMode):
    """Counts the cross-entropies computed while it is open."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if "nll_loss" in name and "backward" not in name:
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_cross_entropy_is_computed_only_for_its_weight(
    family: str, make_modular: Any, tmp_path: Path, weight: float
) -> None:
    modular = make_modular(family)
    batch = default_data_collator(examples(3))
    with torch.no_grad():
        expected = modular.assemble(assembly=ASSEMBLY)(**batch)
    trainer = make_trainer(modular, tmp_path, **weights_of(labels=weight, logits=1, hidden=1))
    with CrossEntropies() as computed:
        losses, outputs = trainer.losses(modular.eval(), [ASSEMBLY], batch)
    assert computed.count == weight, "never for the teacher"
    assert torch.equal(outputs[0].logits, expected.logits)
    if weight:
        assert torch.equal(losses["labels"], expected.loss)


def test_decoder_inputs_of_a_batch_are_kept(family: str, make_modular: Any, tmp_path: Path) -> None:
    """As ``DataCollatorForSeq2Seq`` may add them; where there are none, the labels shifted by one token are read."""
    modular = make_modular(family).eval()
    trainer = make_trainer(modular, tmp_path)
    batch = default_data_collator(examples(3))
    shifted = batch | {"decoder_input_ids": modular.model.prepare_decoder_input_ids_from_labels(batch["labels"])}
    other = batch | {"decoder_input_ids": shifted["decoder_input_ids"].flip(1)}
    with torch.no_grad():
        logits = [trainer.losses(modular, [ASSEMBLY], given)[1][0].logits for given in (batch, shifted, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2], atol=1e-3)


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


# -- accumulation and checkpointing ------------------------------------------------------------------------------------


def test_accumulated_gradients(family: str, make_modular: Any, tmp_path: Path) -> None:
    """Two batches of four are one of eight."""
    results, assemblies = [], []
    for batch_size, accumulated in ((8, 1), (4, 2)):
        modular = make_modular(family, **NO_DROPOUT[family])
        before = snapshot(modular.bank_weights())
        seen = student_assemblies(modular)
        train(
            modular, tmp_path, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulated,
            optim="sgd", learning_rate=1e-3, max_grad_norm=0.0, **weights_of(labels=1, logits=1, hidden=1, attention=1),
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


# -- checkpoints -------------------------------------------------------------------------------------------------------


def muon(modular: modtf.ModularModel) -> dict[str, Any]:
    return {"optimizers": (MuonWithAdamW(modular, lr=1e-2, adamw_lr=3e-3, weight_decay=0.1), None)}


def adamw(_: modtf.ModularModel) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("optimizer", [adamw, muon])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_resume_is_bit_identical(
    family: str, make_modular: Any, tmp_path: Path, optimizer: Callable, accumulated: int
) -> None:
    """With dropout, shuffled data, a changing learning rate, and another random state before resuming."""
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
        modular, tmp_path, data=data, trainer_options={"eval_dataset": data}, max_steps=6, learning_rate=0.3,
        eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        load_best_model_at_end=True, metric_for_best_model="loss",
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

    def keep(evaluated: Any) -> dict[str, float]:
        written.append(evaluated.predictions)
        return {}

    trainer = make_trainer(
        modular, tmp_path, data, {"eval_dataset": data, "compute_metrics": keep},
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
    """Like Seq2SeqTrainer, it takes rows without attention_mask: then all tokens count."""
    logged = []
    for given in ({"attention_mask": torch.ones(6, dtype=torch.long)}, {}):
        data = [{"input_ids": row["input_ids"], "labels": row["labels"], **given} for row in examples()]
        modular = make_modular(family, **NO_DROPOUT[family])
        logged.append(train(modular, tmp_path, data=data, max_steps=2).state.log_history[:2])
    for name in ("loss", "loss_hidden"):
        assert [entry[name] for entry in logged[0]] == pytest.approx([entry[name] for entry in logged[1]])


# -- logging -----------------------------------------------------------------------------------------------------------


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


# -- whole batches, and sources with several targets -------------------------------------------------------------------


def whole_batches(count: int) -> list[Batch]:
    """Batches of six targets and three sources, of which one has three targets and one a single one."""
    batches = []
    for step in range(count):
        rows = default_data_collator(examples(6, seed=step))
        sources = {name: rows[name][:3] for name in ("input_ids", "attention_mask")}
        batches.append(sources | {"labels": rows["labels"], "source_index": torch.tensor([0, 0, 1, 1, 1, 2])})
    return batches


def repeated(batch: Batch) -> Batch:
    """The same batch with a source for each target."""
    batch = dict(batch)
    index = batch.pop("source_index")
    return batch | {name: batch[name][index] for name in ("input_ids", "attention_mask")}


def train_on_whole_batches(modular: modtf.ModularModel, folder: Path, resume: Any = None, **options: Any) -> None:
    encode_sources_once(modular.model)
    given = {"data_collator": only_batch} | muon(modular)
    train(modular, folder, data=whole_batches(6), trainer_options=given, resume=resume, **(WHOLE_BATCHES | options))


def test_resume_with_whole_batches(make_modular: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    whole, again = make_modular("t5"), make_modular("t5")
    train_on_whole_batches(whole, tmp_path, **options)
    train_on_whole_batches(again, tmp_path, resume=str(tmp_path / "checkpoint-4"), **options)
    assert not changed(whole.bank_weights(), again.bank_weights())


def test_whole_batches_come_in_their_order(make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular("t5")
    seen: list[torch.Tensor] = []
    modular.register_forward_pre_hook(lambda _, args, options: seen.append(options["input_ids"]), with_kwargs=True)
    train_on_whole_batches(modular, tmp_path, max_steps=6, **weights_of(labels=1))
    assert len(seen) == 6
    assert all(torch.equal(ids, batch["input_ids"]) for ids, batch in zip(seen, whole_batches(6), strict=True))


def test_sharing_sources_gives_the_losses_of_repeating_them(family: str, make_modular: Any, tmp_path: Path) -> None:
    modular = make_modular(family)
    encode_sources_once(modular.model)
    trainer = make_trainer(modular, tmp_path)
    (batch,) = whole_batches(1)
    for index, same in (
        (torch.tensor([0, 0, 1, 1, 2, 2]), LOSSES),  # as many targets of each: the encoder's losses weigh them the same
        (torch.tensor([2, 0, 2, 2, 1, 0]), ("labels", "logits")),
    ):
        batch["source_index"] = index
        with torch.no_grad():
            shared, _ = trainer.losses(modular.eval(), [ASSEMBLY], batch)
            apart, _ = trainer.losses(modular, [ASSEMBLY], repeated(batch))
        for name in same:
            torch.testing.assert_close(shared[name], apart[name], rtol=1e-5, atol=1e-6)


def encoded_rows(model: PreTrainedModel) -> set[int]:
    """A set that collects how many sources each of the encoder's batches holds."""
    seen: set[int] = set()
    encoder, _ = stacks_of(model)
    encoder.register_forward_pre_hook(lambda _, args, options: seen.add(len(options["input_ids"])), with_kwargs=True)
    return seen


def test_each_source_is_encoded_once(family: str, make_modular: Any, tmp_path: Path) -> None:
    """With gradient checkpointing, too; and the gradients are those of repeated sources."""
    moves = []
    (batch,) = whole_batches(1)
    for data in (batch, repeated(batch)):
        modular = make_modular(family, **NO_DROPOUT[family])
        encode_sources_once(modular.model)
        encoded = encoded_rows(modular.model)
        before = snapshot(modular.bank_weights())
        train(
            modular, tmp_path, data=[data] * 2, trainer_options={"data_collator": only_batch}, max_steps=2, optim="sgd",
            gradient_checkpointing=True, max_grad_norm=0.0, **(WHOLE_BATCHES | weights_of(labels=1, logits=1)),
        )  # fmt: skip
        assert encoded == {len(data["input_ids"])}
        moves.append(moved(before, modular.bank_weights()))
    assert len(repeated(batch)["input_ids"]) == 6
    assert_same_moves(*moves)


def test_what_else_a_batch_holds_is_kept_with_shared_sources(family: str, make_modular: Any, make_model: Any) -> None:
    """The decoder's inputs and its mask, within a modular model and in a plain one."""
    modular, plain = make_modular(family), make_model(family)
    encode_sources_once(modular.model)
    encode_sources_once(plain)
    (batch,) = whole_batches(1)
    batch["decoder_attention_mask"] = (batch["labels"] != -100).long()
    batch["decoder_attention_mask"][:, 1] = 0
    batch["decoder_input_ids"] = batch["labels"].flip(1).clamp_min(0)
    for model in (modular, plain):
        with torch.no_grad():
            shared, apart = model(**batch), model(**repeated(batch))
            torch.testing.assert_close(shared.logits, apart.logits, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(shared.loss, apart.loss)
            for name in ("decoder_attention_mask", "decoder_input_ids"):
                without = model(**{key: value for key, value in batch.items() if key != name})
                assert not torch.allclose(without.logits, shared.logits, atol=1e-3), f"{name} matters"


def test_sharing_sources_without_a_mask(family: str, make_model: Any) -> None:
    model = make_model(family)
    encode_sources_once(model)
    (batch,) = whole_batches(1)
    masked = batch | {"attention_mask": torch.ones_like(batch["attention_mask"])}
    del batch["attention_mask"]
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, model(**repeated(masked)).logits, rtol=1e-5, atol=1e-5)


def test_only_batches_that_share_sources_are_changed(family: str, make_modular: Any, batch: Batch) -> None:
    modular, untouched = make_modular(family), make_modular(family)
    encode_sources_once(modular.model)
    with torch.no_grad():
        modular(**whole_batches(1)[0])
        assert torch.equal(modular(**batch).logits, untouched(**batch).logits)
    small = modular.assemble(assembly=ASSEMBLY)
    assert not any(stack._forward_hooks or stack._forward_pre_hooks for stack in stacks_of(small))


@pytest.mark.parametrize("bf16", [False, True])
def test_the_original_is_trained_on_shared_sources(family: str, make_model: Any, tmp_path: Path, bf16: bool) -> None:
    """By transformers' own trainer; the encoder runs under its autocast, too."""
    whole_layers = {"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0} if family == "bart" else {}
    model: PreTrainedModel = make_model(family, **NO_DROPOUT[family], **whole_layers)
    encode_sources_once(model)
    types: list[set[torch.dtype]] = []
    for stack in stacks_of(model):
        types.append(set())
        linear = next(module for module in stack.modules() if isinstance(module, nn.Linear))
        linear.register_forward_hook(lambda *given, seen=types[-1]: seen.add(given[2].dtype))
    (batch,) = whole_batches(1)
    with torch.no_grad():
        expected = model(**repeated(batch)).loss.item()
    for seen in types:
        seen.clear()
    args = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), **(OPTIONS | WHOLE_BATCHES | {"learning_rate": 1e-3, "bf16": bf16})
    )
    trainer = Seq2SeqTrainer(model=model, args=args, train_dataset=[batch] * 3, data_collator=only_batch)
    trainer.train()
    assert types == [{torch.bfloat16 if bf16 else torch.float32}] * 2
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(expected, rel=0.02 if bf16 else 1e-4)
    assert losses[-1] < losses[0]


# -- the optimizer -----------------------------------------------------------------------------------------------------


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


def test_dropout_of_a_training(family: str, make_modular: Any) -> None:
    options = {"dropout": 0.0, "activation_dropout": 0.1} if family == "bart" else {}
    modular = make_modular(family, **options).train()
    batch = default_data_collator(examples(3))

    def moves() -> bool:
        first, second = (modular(modular.mapping.coarsest, **batch).logits for _ in range(2))
        return not torch.equal(first, second)

    assert moves()
    set_dropout(modular.model, 0.0)
    assert not moves()


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


def test_muon_takes_matrices_of_one_shape_together_on_a_gpu() -> None:
    group = {"ns_coefficients": (3.4445, -4.775, 2.0315), "ns_steps": 5, "eps": 1e-7, "bf16": False}
    tall = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0))
    for matrices in (tall, tall.mT):
        each = torch.stack([_newton_schulz(matrix, group) for matrix in matrices])
        torch.testing.assert_close(_newton_schulz(matrices, group), each)
    mixed = [torch.empty(shape, device="meta") for shape in ((8, 4), (4, 8), (8, 4), (2, 2))]
    assert [made.shape for made in _together(mixed, group)] == [matrix.shape for matrix in mixed]


@pytest.mark.parametrize("shape", [(7, 4), (4, 7)])
def test_muon_moves_matrices_as_that_of_torch(shape: tuple[int, int]) -> None:
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 28).view(shape).sin()) for _ in range(2))
    optimizers = [
        Muon([ours], lr=0.1, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for step in range(3):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        for matrix, optimizer in zip((ours, theirs), optimizers, strict=True):
            matrix.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # theirs rounds to bfloat16


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


def test_muon_decays_weights_as_the_arguments_say(
    make_modular: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modular = make_modular("t5", tokenizer=tokenizer, vocabulary=len(tokenizer))
    args = ModularTrainingArguments(output_dir=str(tmp_path), max_steps=1, weight_decay=0.1, report_to="none")
    decays: list[float] = []
    monkeypatch.setattr(
        Trainer, "train", lambda trainer, **_: decays.extend(g["weight_decay"] for g in trainer.optimizer.param_groups)
    )
    monkeypatch.setattr("modtf.training.runs._record", lambda *_: None)
    train_kit(modular, TEXT, [Example("a", ("b",))], args, 1, 1e-3)
    assert decays == [0.1, 0.0], "of matrices, and of the rest"


# -- words for bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_no_banks_in_half_precision(make_model: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    """From checkpoints stored in half precision: the training would run, and learn almost nothing."""
    halved = modtf.modularize(make_model("t5").to(dtype))
    with pytest.raises(ModtfError, match=rf"banks are in {str(dtype).removeprefix('torch.')}, .*dtype=torch.float32"):
        modtf.ModularTrainer(
            halved, modtf.ModularTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
        )


def test_several_gpus_in_one_process_are_refused(
    make_modular: Any, make_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """As on a machine with two GPUs, for a script started with plain ``python``."""
    args = arguments(tmp_path)
    args._n_gpu = 2
    with pytest.raises(ModtfError, match=r"this process sees 2 GPUs, .*`accelerate launch"):
        ModularTrainer(make_modular("t5", 2, 2), args)
    with pytest.raises(ModtfError, match="this process sees 2 GPUs"):
        train_original(make_model("t5"), tokenizer, TEXT, [Example("a", ("b",))], args, batch_size=1)


def test_a_model_can_be_trained_twice(make_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """The hooks of a training leave with it: twice there, they would take the sources of other targets."""
    model = make_model("t5", 2, 2, vocabulary=len(tokenizer))
    data = [Example(f"name[{name}]", (f"{name} is a pub.", f"{name} is cheap.")) for name in ("Zizzi", "The Mill")]
    for part in ("first", "second"):
        args = arguments(tmp_path / part, max_steps=1, **WHOLE_BATCHES)
        train_original(model, tokenizer, TEXT, data, args, batch_size=4)
        hooks = [stack._forward_hooks | stack._forward_pre_hooks for stack in stacks_of(model)]
        assert not any(hooks)


def test_batches_without_labels_are_refused(make_modular: Any, tmp_path: Path) -> None:
    data = [{name: row[name] for name in ("input_ids", "attention_mask")} for row in examples()]
    with pytest.raises(ModtfError, match=r"the batch has input_ids, attention_mask, but no labels; .*text_target"):
        train(make_modular("t5", 2, 2), tmp_path, data=data)


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mixtures": 0.7, "whole": 0.7}, "0.7 \\+ 0.7 is more than 1"),
        ({"full_at": 2.0}, "full_at is 2.0; give a number"),
        ({"assembly": "2 and 2"}, "'2 and 2' is not an assembly"),
        ({"assembly": "encoder 1·1 | decoder 1·1"}, "is the original, which does not train"),
        ({"assembly": "encoder 2 | decoder 2", "assemblies_per_step": 2}, "leave one of them out"),
    ],
)
def test_an_impossible_schedule_is_refused_before_the_training(
    options: dict[str, Any], words: str, make_modular: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModtfError, match=words):
        make_trainer(make_modular("t5", 2, 2), tmp_path, **options)


def test_it_is_a_trainer(make_modular: Any, tmp_path: Path) -> None:
    trainer = make_trainer(make_modular("t5", 2, 2), tmp_path)
    assert isinstance(trainer, Trainer)
    assert trainer.model_accepts_loss_kwargs is False, "transformers would divide by the number of accumulated tokens"
    assert trainer.args.ddp_find_unused_parameters is True


# -- arguments ---------------------------------------------------------------------------------------------------------


def own_fields() -> list[Any]:
    inherited = {field.name for field in fields(Seq2SeqTrainingArguments)}
    return [field for field in fields(ModularTrainingArguments) if field.name not in inherited]


def test_the_defaults_are_the_kits(make_model: Any, tmp_path: Path) -> None:
    args = ModularTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    assert [getattr(args, f"{name}_weight") for name in LOSSES] == [0, 1, 0.2, 0]
    modular = modtf.modularize(make_model("t5", attn_implementation="sdpa"))
    ModularTrainer(modular, args)
    assert modular.config._attn_implementation == "sdpa", "eager attention is slower, and these losses do without it"


def test_a_shell_may_read_the_arguments(tmp_path: Path) -> None:
    parser = HfArgumentParser(ModularTrainingArguments)  # type: ignore[arg-type]
    typed = ["--output_dir", str(tmp_path), "--use_cpu", "--report_to", "none"]
    (args,) = parser.parse_args_into_dataclasses([*typed, "--hidden-weight", "0.5", "--coarse_at", "0.3"])
    assert (args.hidden_weight, args.coarse_at, args.logits_weight) == (0.5, 0.3, 1.0)
    shown = " ".join(parser.format_help().split())
    assert len(own_fields()) == 13
    for field in own_fields():
        assert field.metadata["help"] in shown
        assert field.metadata["help"].endswith(".")


def test_columns_that_the_model_does_not_know_are_left_out(make_modular: Any, tmp_path: Path) -> None:
    """As in Seq2SeqTrainer, where ``remove_unused_columns`` is on by default; what the model knows stays."""
    modular = make_modular("t5")
    seen: list[set[str]] = []
    modular.model.register_forward_pre_hook(
        lambda _, args, options: seen.append({name for name in options if options[name] is not None}), with_kwargs=True
    )
    data = [row | {"decoder_attention_mask": torch.ones(6), "length": 6} for row in examples()]
    train(modular, tmp_path, data=data, max_steps=1, remove_unused_columns=True, **weights_of(labels=1))
    assert [names - {"use_cache"} for names in seen] == [
        {"input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask"}
    ]
