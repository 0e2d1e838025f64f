"""What a training will cost, from a few of its steps: memory by part, seconds a step, hours, disk."""

from __future__ import annotations

import copy
import math
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset
from transformers import PrinterCallback, TrainerCallback

from modtf.architectures import set_attention
from modtf.errors import ModtfError
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.tasks.batches import TaskBatches
from modtf.training.batches import WHOLE_BATCHES, encode_sources_once, only_batch
from modtf.training.cost import LOOKED_AT, step_operations
from modtf.training.optimizer import MuonWithAdamW
from modtf.training.trainer import ModularTrainer, ModularTrainingArguments

#: Of the steps that are looked at, the typical ones that are run.
_TYPICAL = 3


@dataclass(frozen=True)
class Plan:
    """The cost of a training of a kit; sizes in bytes."""

    #: parameters of the original, and of the modules that train
    original: int
    banks: int
    #: by part; "gradients" are those of the largest step, "batch" what it needs besides, libraries included
    memory: dict[str, int]
    steps: int
    seconds_a_step: float
    #: checkpoints that are on disk at once, and in the end, beside the kit
    checkpoints: int
    kept: int

    @property
    def peak(self) -> int:
        """The most memory that the training holds at once."""
        return sum(self.memory.values())

    @property
    def checkpoint(self) -> int:
        """Bytes on disk: the banks, and what the optimizer keeps."""
        return self.memory["banks"] + self.memory["optimizer"]

    @property
    def kit(self) -> int:
        """Bytes on disk: the banks with a copy of their original."""
        return self.memory["original"] + self.memory["banks"]

    @property
    def disk(self) -> int:
        """The most that the training's folder takes at once."""
        return max(self.checkpoints * self.checkpoint, self.kept * self.checkpoint + self.kit)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size_in_words(number)}" for name, number in self.memory.items())
        return (
            f"parameters: {self.original:,} of the original, {self.banks:,} of the banks, which train\n"
            f"memory: {size_in_words(self.peak)} ({parts})\n"
            f"time: {self.seconds_a_step:.3g} s a step, {duration(self.seconds_a_step * self.steps)} for {self.steps:,} steps\n"
            f"disk: {size_in_words(self.disk)} ({self.checkpoints} checkpoints of {size_in_words(self.checkpoint)} at once; "
            f"in the end {self.kept}, and the kit {size_in_words(self.kit)})"
        )

    def shortage(self, folder: str | Path) -> str:
        """A sentence where the disk of ``folder`` has too little left; else nothing."""
        place = Path(folder).absolute()
        place = next(path for path in (place, *place.parents) if path.exists())
        free = shutil.disk_usage(place).free
        if free < self.disk:
            return f"{place} has {size_in_words(free)} free, but the training needs {size_in_words(self.disk)}"
        return ""


@dataclass(frozen=True)
class _Step:
    """A step of the training: about what its passes compute, and the modules that it trains."""

    number: int
    assemblies: list[Assembly]
    work: float
    modules: set[nn.Module]
    #: bytes of the weights that it trains, which are those of its gradients
    gradients: int


@dataclass
class _Measured:
    """What a step took: seconds of its passes and of its optimizer, and bytes besides weights and optimizer state."""

    passes: float = 0.0
    optimizer: float = 0.0
    needed: int = 0


def plan_training(
    modular: ModularModel,
    args: ModularTrainingArguments,
    batches: TaskBatches,
    adamw_learning_rate: float | None = None,
) -> Plan:
    """Run the largest steps of a training and three typical ones, at a learning rate of 0: no weight changes.

    The largest steps are the longest one and the one with most gradients, which may be the same. What a step's passes
    cost grows with the tokens of its batches and the layers of its assemblies; what its optimizer costs, with the
    weights that it trains. ``adamw_learning_rate`` is as in :func:`modtf.training.runs.train_kit`. Raises
    :class:`ModtfError` where several processes would train.
    """
    if args.world_size > 1:
        raise ModtfError(
            f"a plan is for one process, not for {args.world_size}; start it alone, with the batch size of one of them"
        )
    steps = _steps(modular, args, batches)
    work, gradients = mean(step.work for step in steps), mean(step.gradients for step in steps)
    longest = max(steps, key=lambda step: step.work)
    most = max(steps, key=lambda step: (step.gradients, step.work))
    typical = sorted(steps, key=lambda step: abs(step.work - work))[:_TYPICAL]
    # The first step pays for what is new; at the last one memory is in use, and in pieces, as later in the training.
    run = [most, *typical, longest]
    measured, optimizer = _run(modular, args, batches, run, adamw_learning_rate)
    of_typical = measured[1:-1]  # which are not quite average ones
    passes = sum(one.passes for one in of_typical) * work / sum(step.work for step in typical)
    updates = sum(one.optimizer for one in of_typical) * gradients / sum(step.gradients for step in typical)
    needed, of_gradients = max((one.needed, step.gradients) for one, step in zip(measured, run, strict=True))
    modules = {module for step in steps for module in step.modules}
    memory = held(modular, optimizer, modules)
    memory |= {"gradients": of_gradients, "batch": max(0, needed - of_gradients)}
    every = args.save_steps if args.save_steps >= 1 else math.ceil(args.save_steps * args.max_steps)
    saved = 0 if args.save_strategy == "no" else math.ceil(args.max_steps / max(1, every))
    limit = args.save_total_limit or saved
    return Plan(
        original=sum(p.numel() for p in modular.parameters() if not p.requires_grad),
        banks=sum(p.numel() for part in ([modular] if args.assembly is None else modules) for p in _trained(part)),
        memory=memory,
        steps=args.max_steps,
        seconds_a_step=passes + updates,
        checkpoints=min(saved, limit + 1),  # the oldest goes when the newest is complete
        kept=min(saved, limit),
    )


def held(
    modular: ModularModel, optimizer: torch.optim.Optimizer, modules: Iterable[nn.Module] | None = None
) -> dict[str, int]:
    """Bytes that a training holds from step to step: the original, the banks, and what the optimizer keeps of them.

    Shapes decide about them, so the device may be "meta". ``modules`` are those that the training runs, by default all;
    the optimizer keeps as much of those that it has not met yet as of the others.
    """
    met = _bytes(p for part in _parts(optimizer) for p, state in part.state.items() if state)
    run = _trained(modular) if modules is None else [p for module in modules for p in _trained(module)]
    return {
        "original": _bytes(p for p in modular.parameters() if not p.requires_grad),
        "banks": _bytes(_trained(modular)),
        "optimizer": round(_state(optimizer) * _bytes(run) / max(1, met)),
    }


def _steps(modular: ModularModel, args: ModularTrainingArguments, batches: TaskBatches) -> list[_Step]:
    """Steps of the training, evenly spaced."""
    count, accumulated = args.max_steps, args.gradient_accumulation_steps
    schedule, few = args.schedule(modular.mapping, count), min(count, LOOKED_AT)
    steps = []
    for number in (step * count // few for step in range(few)):
        drawn = schedule.draw_several(number, args.assemblies_per_step)
        shapes = batches.shapes[number * accumulated : (number + 1) * accumulated]
        work = step_operations(modular, args, drawn, shapes)
        modules = _modules(modular, drawn)
        steps.append(_Step(number, drawn, work, modules, _bytes(p for module in modules for p in _trained(module))))
    return steps


def _modules(modular: ModularModel, assemblies: list[Assembly]) -> set[nn.Module]:
    """The layers of these assemblies that are no originals."""
    paths = [(stack, path) for one in assemblies for stack, path in zip(modular.stacks, one.paths, strict=True)]
    return {layer for stack, path in paths for layer, g in zip(stack.layers(path), path, strict=True) if g > 1}


def _run(
    modular: ModularModel,
    args: ModularTrainingArguments,
    batches: TaskBatches,
    steps: list[_Step],
    adamw_learning_rate: float | None,
) -> tuple[list[_Measured], torch.optim.Optimizer]:
    """What each step took, and the optimizer that they used."""

    class Trial(ModularTrainer):
        def drawn(self) -> list[Assembly]:
            return steps[self.state.global_step].assemblies

    meter = _Meter(modular)
    args = copy.copy(args)
    args.max_steps, args.learning_rate, args.report_to, args.disable_tqdm = len(steps), 0.0, [], True
    settings = {"save_strategy": "no", "logging_strategy": "no", "push_to_hub": False, **WHOLE_BATCHES}
    settings |= {"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {}, "warmup_steps": 0}  # of a rate of 0
    for name, value in settings.items():
        setattr(args, name, value)
    accumulated = args.gradient_accumulation_steps
    indices = [step.number * accumulated + batch for step in steps for batch in range(accumulated)]
    with tempfile.TemporaryDirectory() as folder, _as_it_was(modular, args):
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
            callbacks=[meter],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return meter.measured, trainer.optimizer


@contextmanager
def _as_it_was(modular: ModularModel, args: ModularTrainingArguments) -> Iterator[None]:
    """Take back what a training changes in a model, beside its weights, and in the generators of random numbers."""
    hooks = encode_sources_once(modular.model)
    attention, attributes = modular.config._attn_implementation, set(vars(modular))
    checkpointed = _is_checkpointed(modular)
    numbers, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(numbers)
        np.random.set_state(of_numpy)
        for hook in hooks:
            hook.remove()
        if args.attention_weight > 0:
            set_attention(modular.model, attention)
        if not checkpointed and _is_checkpointed(modular):
            modular.activation_checkpointing_disable()
            modular.model.disable_input_require_grads()  # which came with it
        # accelerate's forward, and its mark: it would take the model for prepared, and compute in float32 the next time.
        for name in set(vars(modular)) - attributes:
            delattr(modular, name)
        modular.train(False)
        modular.zero_grad()


def _is_checkpointed(modular: ModularModel) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in modular.modules())


class _Meter(TrainerCallback):
    def __init__(self, modular: ModularModel) -> None:
        self.measured: list[_Measured] = []
        self._weights = _bytes(modular.parameters())

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.measured.append(_Measured())
        self._began = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.measured[-1].passes = self._lap(args.device, kwargs["optimizer"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.measured[-1].optimizer = self._lap(args.device, kwargs["optimizer"])

    def _lap(self, device: torch.device, optimizer: torch.optim.Optimizer) -> float:
        """Seconds since the last lap. The optimizer's state grows until it has met all modules: it is counted apart."""
        if device.type == "cuda":
            torch.cuda.synchronize()
        now, step = time.perf_counter(), self.measured[-1]
        step.needed = max(step.needed, _peak_memory(device) - self._weights - _state(optimizer))
        seconds, self._began = now - self._began, now
        return seconds


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _parts(optimizer: Any) -> list[torch.optim.Optimizer]:
    """The optimizers behind one interface: accelerate wraps them, and one of ours has two."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return getattr(inner, "parts", [inner])


def _state(optimizer: torch.optim.Optimizer) -> int:
    """Bytes that the optimizer keeps now."""
    values = [value for part in _parts(optimizer) for state in part.state.values() for value in state.values()]
    return _bytes(value for value in values if isinstance(value, torch.Tensor))


def _peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: on its GPU, or in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):  # on Linux, where a new process begins with the ru_maxrss of the one that started it
        if match := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(match[1]) * 1024
    if sys.platform == "win32":
        return 0  # not known there: the part "batch" is left out
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def size_in_words(number: int) -> str:
    megabytes = number / 1e6
    return f"{number / 1e9:.2f} GB" if megabytes >= 1000 else f"{megabytes:.{0 if megabytes >= 10 else 1}f} MB"


def duration(seconds: float) -> str:
    if seconds < 59.5:
        return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"
