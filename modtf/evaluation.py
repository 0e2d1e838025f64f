"""Measuring assemblies: size, speed, quality. Everything comes back as plain records."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from modtf.errors import ModtfError
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.saving import fingerprint_of
from modtf.tasks import Example, task_named


@dataclass(frozen=True)
class Size:
    """Parameters of a model, with and without embeddings and head, which do not shrink with the ratio."""

    parameters: int
    without_embeddings: int
    bytes_each: int = 4

    @property
    def megabytes(self) -> float:
        """Size on disk, in units of 10⁶ bytes."""
        return self.parameters * self.bytes_each / 1e6


def size_of(model: PreTrainedModel) -> Size:
    """Count each parameter once, however often it is used."""
    return _count(model, model.parameters())


def size_of_assembly(modular: ModularModel, assembly: Assembly) -> Size:
    """The size of an assembly, without making it."""
    every = {id(p) for stack in modular.stacks for p in stack.parameters()}
    outside = [p for p in modular.model.parameters() if id(p) not in every]
    paths = zip(modular.stacks, assembly.paths, strict=True)
    layers = [layer for stack, path in paths for layer in stack.layers(path)]
    return _count(modular.model, [*outside, *(p for layer in layers for p in layer.parameters())])


def _count(model: PreTrainedModel, parameters: Iterable[torch.Tensor]) -> Size:
    numbers = {id(p): p.numel() for p in parameters}
    outside = [model.get_input_embeddings(), model.get_output_embeddings()]
    embeddings = {id(p): p.numel() for module in outside if module is not None for p in module.parameters()}
    return Size(sum(numbers.values()), sum(numbers.values()) - sum(embeddings.values()), model.dtype.itemsize)


@dataclass(frozen=True)
class Latency:
    """Times of repeated runs of the same work in milliseconds, and the tokens that one run wrote, over all rows."""

    times_ms: tuple[float, ...]
    tokens: int

    @property
    def median_ms(self) -> float:
        return statistics.median(self.times_ms)

    @property
    def p95_ms(self) -> float:
        ordered = sorted(self.times_ms)
        return ordered[round(0.95 * (len(ordered) - 1))]

    @property
    def tokens_per_second(self) -> float:
        return 1000 * self.tokens / self.median_ms


def in_turns(runs: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, list[float]]:
    """Time each run ``repeats`` times, after one warm-up each; milliseconds by the runs' keys.

    The runs take turns, so that all meet the same machine. A run on a GPU must wait for it, as decoding does.
    """
    times: dict[Any, list[float]] = {key: [] for key in runs}
    for turn in range(repeats + 1):
        for key, run in runs.items():
            started = time.perf_counter()
            run()
            if turn:
                times[key].append(1000 * (time.perf_counter() - started))
    return times


def write_texts(
    modular: ModularModel,
    assembly: Assembly,
    sources: Sequence[str],
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda done: None,
    **generate_options: Any,
) -> list[str]:
    """Texts of an assembly for many sources, in their order; a batch holds sources of similar length.

    They are greedy, unless ``generate_options`` say otherwise (see :meth:`ModularModel.generate`). ``progress`` is
    called after each batch with the number of texts written so far.
    """
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    texts = [""] * len(sources)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        written = modular.generate([sources[i] for i in rows], assembly=assembly, **generate_options)
        for row, text in zip(rows, written, strict=True):
            texts[row] = text
        progress(start + len(rows))
    return texts


def measure_quality(
    modular: ModularModel,
    assembly: Assembly,
    examples: Sequence[Example],
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda done: None,
    **generate_options: Any,
) -> dict[str, float]:
    """Scores of an assembly's texts (:func:`write_texts`) on examples with references, by the task's metrics."""
    sources = [example.source for example in examples]
    texts = write_texts(modular, assembly, sources, batch_size, progress, **generate_options)
    return score_texts_of(modular, examples, texts)


def score_texts_of(modular: ModularModel, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, float]:
    """Scores of texts that an assembly wrote for these examples, by the task's metrics."""
    return task_named(modular.task).score(examples, texts)


def measured_table(modular: ModularModel) -> tuple[dict[str, Any] | None, str]:
    """The table measured on exactly these weights; or None, and a sentence that says why there is none.

    It is ``table.json`` in the kit's folder, with the fingerprint of the banks it was measured on.
    """
    nothing = None, "No measurements exist for this model."
    try:
        path = modular.folder / "table.json"
    except ModtfError:  # made in memory, or from the hub
        return nothing
    if not path.is_file():
        return nothing
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return None, f"The measurements in {path} could not be read ({error}); copy the file again."
    if not isinstance(table, dict) or table.get("banks") != fingerprint_of(modular.bank_weights(), torch.float16):
        return nothing
    fields = {name for metric in task_named(modular.task).metrics[:2] for name in (metric.key, metric.field)}
    if all(fields <= row.keys() for row in table["rows"]):
        return table, ""
    return None, f"The measurements in {path} are for another task than {modular.task!r}."


#: What :func:`measured_students` gives: by method and the field of its cost. The kit is one trained for the comparison,
#: at a cost of its own, and not the one on screen.
STUDENTS = {
    ("kit", "cost"): "kit of the comparison",
    ("KD", "total"): "distilled students, together at its cost",
    ("sequence-level KD", "total"): "students of the full model's texts, together at its cost",
    ("SFT", "total"): "fine-tuned students, together at its cost",
    ("SFT, all weights", "total"): "fine-tuned students, all weights, together at its cost",
}


def measured_students(modular: ModularModel, table: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Students of this original, each trained alone, and a kit, as rows like those of ``table``.

    They are from ``versus.json`` in the kit's folder (`benchmarks/versus.py`), at the largest budget. ``kind`` is one
    of :data:`STUDENTS`. All are as fast as an assembly of their shape: those whose shape the table lacks are left
    out. The list is empty without a table or such a file, and if the file is of another original.
    """
    if table is None:
        return []
    try:
        made = json.loads((modular.folder / "versus.json").read_text(encoding="utf-8"))
        if made["original"] != fingerprint_of(modular.original_weights(), torch.float16):
            return []
        of_kit = [row for row in made["rows"] if row["method"] == "kit"]
        (original,) = (row["test"] for row in made["rows"] if (row["method"], row["size"]) == ("untrained", "1x"))
    except (ModtfError, OSError, ValueError, KeyError, TypeError):
        return []
    speed_ups = {row["layers"]: row["speed_up"] for row in table["rows"] if row["trained"]}
    largest = max((row["cost"] for row in of_kit), default=None)
    students = []
    for row in made["rows"]:
        for (method, field), kind in STUDENTS.items():
            if row["method"] != method or row["seed"] or row[field] != largest:
                continue
            assembly = Assembly.from_json(made["sizes"][row["size"]])
            if assembly.shape not in speed_ups:
                continue
            scores = {
                metric.field: row["test"][metric.key] * (1 if metric.errors else 100 / original[metric.key])
                for metric in task_named(modular.task).metrics[:2]
            }
            layers = {"layers": assembly.shape, "ratio": assembly.ratio, "speed_up": speed_ups[assembly.shape]}
            students.append({"kind": kind, **layers, **scores})
    return students
