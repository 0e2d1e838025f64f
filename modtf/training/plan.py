"""What a training will cost, from four of its steps: memory by part, seconds a step, hours, disk."""

from __future__ import annotations

import copy
import math
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset
from transformers import PrinterCallback, TrainerCallback

from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.tasks.batches import TaskBatches
from modtf.training.batches import WHOLE_BATCHES, encode_sources_once, only_batch
from modtf.training.optimizer import MuonWithAdamW
from modtf.training.trainer import ModularTrainer, ModularTrainingArguments

#: Steps of a training that are looked at to find typical ones and the largest, and typical ones that are run.
_LOOKED_AT, _TYPICAL = 500, 3


@dataclass(frozen=True)
class Plan:
    """The cost of a training of a kit; sizes in bytes."""

    #: parameters of the original, and of the banks
    original: int
    banks: int
    #: by part; "batch" is what a step needs besides, libraries included
    memory: dict[str, int]
    steps: int
    seconds_a_step: float
    #: what a checkpoint and the kit with its original take
    checkpoint: int
    kit: int
    #: checkpoints that are there at once
    checkpoints: int

    @property
    def peak(self) -> int:
        """The most memory that the training holds at once."""
        return sum(self.memory.values())

    @property
    def disk(self) -> int:
        return self.checkpoint * self.checkpoints + self.kit

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size_in_words(number)}" for name, number in self.memory.items())
        return (
            f"parameters: {self.original:,} of the original, {self.banks:,} of the banks, which train\n"
            f"memory: {size_in_words(self.peak)} ({parts})\n"
            f"time: {self.seconds_a_step:.3g} s a step, {duration(self.seconds_a_step * self.steps)} for {self.steps:,} steps\n"
            f"disk: {size_in_words(self.disk)} ({self.checkpoints} x {size_in_words(self.checkpoint)} for checkpoints, the kit {size_in_words(self.kit)})"
        )

    def shortage(self, folder: str | Path) -> str:
        """A sentence where the disk of ``folder`` has too little left; else nothing."""
        place = Path(folder).absolute()
        place = next(path for path in (place, *place.parents) if path.exists())
        free = shutil.disk_usage(place).free
        if free < self.disk:
            return f"{place} has {size_in_words(free)} free, but the training needs {size_in_words(self.disk)}"
        return ""


def plan_training(
    modular: ModularModel,
    args: ModularTrainingArguments,
    batches: TaskBatches,
    adamw_learning_rate: float | None = None,
) -> Plan:
    """Run the largest step of a training and three typical ones, at a learning rate of 0: no weight changes.

    What a step costs grows with the tokens of its batches and the layers of its assemblies. ``adamw_learning_rate`` is
    as in :func:`modtf.training.runs.train_kit`. For one process.
    """
    steps, accumulated = args.max_steps, args.gradient_accumulation_steps
    schedule = args.schedule(modular.mapping, steps)
    looked_at = sorted({step * steps // min(steps, _LOOKED_AT) for step in range(min(steps, _LOOKED_AT))})
    drawn = {step: schedule.draw_several(step, args.assemblies_per_step) for step in looked_at}

    def cost(step: int) -> float:
        tokens = sum(batches.tokens[step * accumulated : (step + 1) * accumulated])
        # The original runs forward, the student forward and backward, which is about twice a forward pass.
        layers = sum(3 * assembly.layers for assembly in drawn[step]) + modular.mapping.original.layers
        return tokens * layers

    costs = {step: cost(step) for step in looked_at}
    mean = sum(costs.values()) / len(costs)
    largest = max(looked_at, key=costs.__getitem__)
    typical = sorted(looked_at, key=lambda step: abs(costs[step] - mean))[:_TYPICAL]
    chosen = [largest, *typical]
    seconds, peak, optimizer = _run(
        modular, args, batches, [(step, drawn[step]) for step in chosen], adamw_learning_rate
    )
    # Typical steps are not quite average ones.
    a_step = sum(seconds[1:]) * mean / sum(costs[step] for step in typical)
    return _plan(modular, args, a_step, peak, optimizer)


def _run(
    modular: ModularModel,
    args: ModularTrainingArguments,
    batches: TaskBatches,
    steps: list[tuple[int, list[Assembly]]],
    adamw_learning_rate: float | None,
) -> tuple[list[float], int, torch.optim.Optimizer]:
    """Seconds of each step, the most memory during them, and the optimizer that they used."""

    class Trial(ModularTrainer):
        def drawn(self) -> list[Assembly]:
            return steps[self.state.global_step][1]

    clock = _Clock()
    args = copy.copy(args)
    args.max_steps, args.learning_rate, args.report_to, args.disable_tqdm = len(steps), 0.0, [], True
    settings = {"save_strategy": "no", "logging_strategy": "no", **WHOLE_BATCHES}
    settings |= {"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {}, "warmup_steps": 0}  # of a rate of 0
    for name, value in settings.items():
        setattr(args, name, value)
    accumulated = args.gradient_accumulation_steps
    indices = [step * accumulated + batch for step, _ in steps for batch in range(accumulated)]
    hooks = encode_sources_once(modular.model)
    if modular.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
            args.output_dir = folder
            optimizer = None
            if adamw_learning_rate is not None:
                optimizer = MuonWithAdamW(modular, 0.0, adamw_lr=0.0)
            trainer = Trial(
                modular,
                args,
                train_dataset=Subset(batches, indices),
                data_collator=only_batch,
                optimizers=(optimizer, None),
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            try:
                trainer.train()
            finally:
                trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
                # Else accelerate would take it for wrapped, and the training would not compute in bfloat16.
                for mark in ("forward", "_is_accelerate_prepared"):
                    modular.__dict__.pop(mark, None)
            used: Any = optimizer or trainer.optimizer
            return clock.seconds, _peak_memory(args.device), getattr(used, "optimizer", used)
    finally:
        for hook in hooks:
            hook.remove()
        modular.train(False)
        modular.zero_grad()


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._began)


def _plan(
    modular: ModularModel, args: ModularTrainingArguments, seconds: float, peak: int, optimizer: torch.optim.Optimizer
) -> Plan:
    parameters = list(modular.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    banks = sum(parameter.numel() for parameter in trained)
    bytes_of = {
        "original": sum(p.numel() * p.element_size() for p in parameters if not p.requires_grad),
        "banks": sum(p.numel() * p.element_size() for p in trained),
    }
    # Modules that no step has run yet have neither gradients nor a state: both come.
    met = [p for part in getattr(optimizer, "parts", [optimizer]) for p, state in part.state.items() if state]
    state = sum(_bytes(part.state[p]) for part in getattr(optimizer, "parts", [optimizer]) for p in part.state)
    of_met = sum(p.numel() for p in met)
    bytes_of["gradients"] = bytes_of["banks"]
    bytes_of["optimizer"] = round(state * banks / max(1, of_met))
    there = bytes_of["original"] + bytes_of["banks"] + state + of_met * 4
    bytes_of["batch"] = max(0, peak - there)
    every = args.save_steps if args.save_steps >= 1 else math.ceil(args.save_steps * args.max_steps)
    saved = 0 if args.save_strategy == "no" else math.ceil(args.max_steps / max(1, every))
    kept = min(saved, args.save_total_limit + 1) if args.save_total_limit else saved
    return Plan(
        original=sum(p.numel() for p in parameters if not p.requires_grad),
        banks=banks,
        memory=bytes_of,
        steps=args.max_steps,
        seconds_a_step=seconds,
        checkpoint=bytes_of["banks"] + bytes_of["optimizer"],
        kit=bytes_of["original"] + bytes_of["banks"],
        checkpoints=kept,
    )


def _bytes(state: dict[str, Any]) -> int:
    return sum(value.numel() * value.element_size() for value in state.values() if isinstance(value, torch.Tensor))


def _peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: on its GPU, or in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0  # not known there: the part "batch" is left out
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def size_in_words(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"
