"""Measuring what the layers of one kit cost: the profile for the strategy ``quality_first`` (:mod:`modtf.quality`)."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from random import Random
from typing import Any

import torch

from modtf.decoding import decode
from modtf.distillation import labels_loss
from modtf.errors import ModtfError
from modtf.evaluation import in_turns, measure_quality, size_of_assembly, write_texts
from modtf.mapping import STACKS, Assembly, Mapping
from modtf.modular import ModularModel
from modtf.quality import Fit, Profile, features, forecast
from modtf.saving import fingerprint_of
from modtf.strategies import STRATEGIES, assemblies, even_assembly
from modtf.tasks import Example, task_named
from modtf.tasks.examples import without_faults

#: Random assemblies that are measured, beside each module alone, to fit the costs.
RANDOM = 150
#: Length of every timed text.
TOKENS = 32
#: Weight of the squared costs against the squared errors (ridge regression), and parts of the cross-validation.
_RIDGE, _PARTS = 1.0, 6


class Losses:
    """Measures the cross-entropy of assemblies with texts for ``examples``, in nats a token.

    The texts are read, not written, so that all assemblies are compared at the same tokens. They are each example's
    first one; or, where the task can tell which texts have faults, those that the original writes without any. These
    losses rank assemblies better by their scores than KL(original ‖ assembly) does, for a kit may write better texts
    than its original (benchmarks/LOG.md). Raises :class:`ModtfError` if no text is without faults.
    """

    def __init__(self, modular: ModularModel, examples: Sequence[Example], batch_size: int = 32) -> None:
        self.modular = modular
        faultless = task_named(modular.task).faultless
        if faultless is not None:
            examples = _faultless_texts(modular, examples, faultless)
        self.batches = []
        for start in range(0, len(examples), batch_size):
            rows = examples[start : start + batch_size]
            inputs = modular.encode([example.source for example in rows])
            encoded = modular.tokenizer(
                text_target=[example.references[0] for example in rows], padding=True, return_tensors="pt"
            ).to(modular.device)
            labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
            inputs["decoder_input_ids"] = modular.model.prepare_decoder_input_ids_from_labels(labels)
            self.batches.append((inputs, labels))

    @torch.inference_mode()
    def of(self, assembly: Assembly) -> float:
        total = tokens = 0.0
        for inputs, labels in self.batches:
            count = (labels != -100).sum().item()
            total += labels_loss(self.modular(assembly, **inputs).logits, labels).item() * count
            tokens += count
        return total / tokens


def _faultless_texts(
    modular: ModularModel, examples: Sequence[Example], faultless: Callable[[str, str], bool]
) -> list[Example]:
    """What the original writes for the examples, where that has no faults."""
    sources = [example.source for example in examples]
    texts = write_texts(modular, modular.mapping.original, sources)
    written = without_faults(map(Example, sources, ((text,) for text in texts)), faultless)
    if not written:
        raise ModtfError(
            f"all of the {len(sources)} texts that the original wrote have faults, so assemblies cannot be compared with "
            "texts that have none; give a better original, or more inputs"
        )
    return written


def measure(
    modular: ModularModel,
    examples: Sequence[Example],
    *,
    seed: int = 0,
    known: dict[Assembly, float] | None = None,
    progress: Callable[[Assembly, float], None] = lambda assembly, value: None,
) -> Profile:
    """Measure a kit's profile on examples of its task that no training saw.

    First each module alone and :data:`RANDOM` random assemblies, to which costs are fitted; then the strategies'
    assemblies and, for each pair of lengths, the one that should be best. ``known`` are losses measured before,
    with the same examples and seed; ``progress`` is called with each new one.
    """
    mapping, losses = modular.mapping, dict(known or {})
    measured = Losses(modular, examples)

    def measure_all(wanted: Iterable[Assembly]) -> dict[Assembly, float]:
        chosen = list(dict.fromkeys(wanted))
        for assembly in chosen:
            if assembly not in losses:
                losses[assembly] = measured.of(assembly)
                progress(assembly, losses[assembly])
        return {assembly: losses[assembly] for assembly in chosen}

    rng = Random(seed)
    drawn = measure_all(random_assembly(rng, mapping) for _ in range(RANDOM))
    held_out = cross_validated(drawn)
    fitted = fit(drawn | measure_all([mapping.original, *modules_alone(mapping)]))
    measure_all(assembly for name in STRATEGIES for assembly in assemblies(mapping, name))
    measure_all(forecast(mapping, fitted))
    # Of each number of layers the one with the least loss, which comes last.
    best = {a.layers: a for a in sorted(losses, key=losses.__getitem__, reverse=True)}
    return Profile(
        banks=fingerprint_of(modular.bank_weights(), torch.float16),
        losses=losses,
        fit=fitted,
        held_out=held_out,
        kept=measure_kept(modular, list(best.values()), examples),
        parameters=count_parameters(modular),
        milliseconds=time_layers(modular, examples),
        machine=machine(modular),
        examples=len(examples),
    )


def fit(losses: dict[Assembly, float]) -> Fit:
    """Ridge regression of measured losses on :func:`features`."""
    counts = [features(assembly) for assembly in losses]
    names = sorted(set().union(*counts))
    x = torch.tensor([[float(count[name]) for name in names] for count in counts], dtype=torch.float64)
    y = torch.tensor(list(losses.values()), dtype=torch.float64)
    x, y = torch.cat([x, _RIDGE**0.5 * torch.eye(len(names))]), torch.cat([y - y.mean(), torch.zeros(len(names))])
    costs = torch.linalg.lstsq(x.double(), y.double()[:, None]).solution[:, 0]
    return Fit(sum(losses.values()) / len(losses), dict(zip(names, costs.tolist(), strict=True)))


def random_assembly(rng: Random, mapping: Mapping) -> Assembly:
    """Two paths, each with its own random preference for some granularities, so that all lengths occur."""
    paths = []
    for stack in mapping.stacks:
        liked = {g: rng.expovariate(1.0) for g in (1, *stack.granularities)}
        path: list[int] = []
        while (start := sum(path)) < stack.depth:
            fitting = [g for g in liked if start % g == 0]
            path += rng.choices(fitting, weights=[liked[g] for g in fitting])
        paths.append(tuple(path))
    return Assembly(*paths)


def modules_alone(mapping: Mapping) -> list[Assembly]:
    """For each module the assembly in which all other layers are originals."""
    found = []
    for name, stack in zip(STACKS, mapping.stacks, strict=True):
        for g in stack.granularities:
            for start in range(0, stack.depth, g):
                path = (1,) * start + (g,) + (1,) * (stack.depth - start - g)
                found.append(replace(Assembly(mapping.encoder.original, mapping.decoder.original), **{name: path}))
    return found


def cross_validated(losses: dict[Assembly, float]) -> dict[str, float]:
    """How well fits to a part of the assemblies predict the others."""
    every = list(losses)
    predicted: dict[Assembly, float] = {}
    for part in range(_PARTS):
        seen = fit({assembly: losses[assembly] for i, assembly in enumerate(every) if i % _PARTS != part})
        predicted |= {assembly: seen.predicted(assembly) for assembly in every[part::_PARTS]}
    values = torch.tensor([[predicted[assembly], losses[assembly]] for assembly in every], dtype=torch.float64)
    ranks = values.argsort(0).argsort(0).double()
    errors = ((values[:, 0] - values[:, 1]).abs() / values[:, 1].clamp(min=1e-9)).median()
    return {
        "rank_correlation": round(torch.corrcoef(ranks.T)[0, 1].item(), 3),
        "relative_error": round(errors.item(), 3),
    }


def measure_kept(
    modular: ModularModel, chosen: Sequence[Assembly], examples: Sequence[Example]
) -> dict[Assembly, float]:
    """:attr:`Profile.kept` of some assemblies, the original among them."""
    metrics = task_named(modular.task).metrics
    scores = {}
    for assembly in chosen:
        of_assembly = measure_quality(modular, assembly, examples)
        scores[assembly] = [100 - of_assembly[m.key] if m.errors else of_assembly[m.key] for m in metrics]
    full = scores[modular.mapping.original]
    return {
        assembly: min(100 * own / of_full if of_full else 100.0 for own, of_full in zip(of_assembly, full, strict=True))
        for assembly, of_assembly in scores.items()
    }


def machine(modular: ModularModel) -> str:
    """On which the times hold."""
    device = torch.cuda.get_device_name(modular.device) if modular.device.type == "cuda" else platform.machine()
    return f"{device}, torch {torch.__version__}, threads: {torch.get_num_threads()}"


def time_layers(modular: ModularModel, examples: Sequence[Example], repeats: int = 7) -> dict[str, float]:
    """Milliseconds of one text of 32 tokens: a constant and a share for each layer, by least squares.

    The sources are those of the first three examples.
    """
    encoded = [modular.encode([example.source]) for example in examples[:3]]
    runs: dict[Any, Callable[[], Any]] = {
        (assembly, number): partial(
            decode, modular.assembled(assembly), *inputs.values(), max_new_tokens=TOKENS, exactly=True
        )
        for assembly in corners(modular.mapping)
        for number, inputs in enumerate(encoded)
    }
    times = {key: statistics.median(of_key) for key, of_key in in_turns(runs, repeats).items()}
    return per_layer({a: statistics.mean(times[a, n] for n in range(len(encoded))) for a in corners(modular.mapping)})


def count_parameters(modular: ModularModel) -> dict[str, int]:
    """Parameters of a model: a constant and a share for each layer."""
    counted = {a: float(size_of_assembly(modular, a).parameters) for a in corners(modular.mapping)}
    return {name: round(value) for name, value in per_layer(counted).items()}


def corners(mapping: Mapping) -> list[Assembly]:
    """The assemblies whose stacks have all layers, or the fewest."""
    lengths = ((stack.lengths[0], stack.lengths[-1]) for stack in mapping.stacks)
    shapes = dict.fromkeys(product(*lengths))
    return [even_assembly(mapping, *shape) for shape in shapes]


def per_layer(values: dict[Assembly, float]) -> dict[str, float]:
    """The constant and the share of each layer that explain the values best."""
    x = torch.tensor([[1.0, len(a.encoder), len(a.decoder)] for a in values], dtype=torch.float64)
    y = torch.tensor(list(values.values()), dtype=torch.float64)
    solved = torch.linalg.lstsq(x, y[:, None], driver="gelsd").solution[:, 0].clamp(min=0).tolist()
    return {name: round(value, 3) for name, value in zip(("constant", *STACKS), solved, strict=True)}
