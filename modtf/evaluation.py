"""Measuring assemblies: size, speed and memory, quality. Everything comes back as plain records."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.tasks.e2e import Example, write_mr
from modtf.tasks.scores import Scores, score


@dataclass(frozen=True)
class Size:
    """Parameters of a model; embeddings (and the tied or untied head) do not shrink with the ratio."""

    parameters: int
    without_embeddings: int
    bytes_each: int = 4

    @property
    def megabytes(self) -> float:
        """On disk, 10⁶ bytes."""
        return self.parameters * self.bytes_each / 1e6


def size_of(model: PreTrainedModel) -> Size:
    """Count each parameter once, however often it is used."""
    return _count(model, model.parameters())


def size_of_assembly(modular: ModularModel, assembly: Assembly) -> Size:
    """The size of an assembly, without assembling it."""
    every = {id(p) for stack in modular.stacks for p in stack.parameters()}
    outside = [p for p in modular.model.parameters() if id(p) not in every]
    paths = zip(modular.stacks, (assembly.encoder, assembly.decoder), strict=True)
    return _count(
        modular.model,
        [*outside, *(p for stack, path in paths for layer in stack.layers(path) for p in layer.parameters())],
    )


def _count(model: PreTrainedModel, parameters: Iterable[torch.Tensor]) -> Size:
    numbers = {id(p): p.numel() for p in parameters}
    outside = [model.get_input_embeddings(), model.get_output_embeddings()]
    embeddings = {id(p): p.numel() for module in outside if module is not None for p in module.parameters()}
    return Size(sum(numbers.values()), sum(numbers.values()) - sum(embeddings.values()), model.dtype.itemsize)


@dataclass(frozen=True)
class Latency:
    """Times of repeated runs of the same work, in milliseconds, and the tokens that one run wrote (all rows together)."""

    times_ms: tuple[float, ...]
    tokens: int

    @property
    def median_ms(self) -> float:
        return statistics.median(self.times_ms)

    @property
    def p95_ms(self) -> float:
        ordered = sorted(self.times_ms)
        return ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]

    @property
    def tokens_per_second(self) -> float:
        return 1000 * self.tokens / self.median_ms


def in_turns(runs: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, list[float]]:
    """Milliseconds of each of the runs, so often repeated, after one each that warms up.

    They take turns, so that all meet the same machine. What runs on a GPU must wait for its end itself, as decoding does.
    """
    times: dict[Any, list[float]] = {key: [] for key in runs}
    for turn in range(repeats + 1):
        for key, run in runs.items():
            started = time.perf_counter()
            run()
            if turn:
                times[key].append(1000 * (time.perf_counter() - started))
    return times


def seconds_now(model: PreTrainedModel) -> float:
    """The time, once the model's device has done all that it was asked to."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def write_texts(
    modular: ModularModel,
    assembly: Assembly,
    sources: Sequence[str],
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Greedy texts of an assembly for many sources, in their order; batches hold sources of like length."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    texts = [""] * len(sources)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        for row, text in zip(rows, modular.generate([sources[i] for i in rows], assembly=assembly), strict=True):
            texts[row] = text
        progress(start + len(rows))
    return texts


def measure_quality(
    modular: ModularModel,
    assembly: Assembly,
    examples: Sequence[Example],
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> Scores:
    """BLEU, SER and ROUGE-L of an assembly's greedy texts on examples with references."""
    mrs = [example.mr for example in examples]
    texts = write_texts(modular, assembly, [write_mr(mr) for mr in mrs], batch_size, progress)
    return score(mrs, texts, [example.references for example in examples])
