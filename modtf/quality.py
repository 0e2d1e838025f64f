"""The strategy ``quality_first``: the best assembly under a limit, by what was measured on one kit.

The paper's strategies, size-first and speed-first, see numbers of layers alone. ``quality_first``, which is ours, sees
what a kit has learned. Its profile (:mod:`modtf.profile` measures it) holds the losses of many assemblies on texts that
no training saw, and a fit of these as a sum over the paths: a cost for each module, and one for each pair of
neighbouring granularities, since layers work best beside those they were trained with. (A sum over modules alone ranks
pocket's assemblies with a correlation of 0.64, with neighbours 0.96.) Of such a sum the cheapest path of each length is
found exactly, by dynamic programming.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise, product, starmap, takewhile
from numbers import Real
from pathlib import Path
from typing import Any

from modtf.errors import ModtfError
from modtf.mapping import STACKS, Assembly, LayerPath, Mapping, StackMapping, start_indices
from modtf.strategies import choose

#: The profile's name in a kit's folder.
FILE = "profile.json"
#: What may stand in place of a ratio; see :func:`quality_first`. All but the last limit what :meth:`Profile.cost` counts.
COSTS = ("max_parameters", "max_megabytes", "max_latency_ms")
LIMITS = (*COSTS, "min_quality")


@dataclass(frozen=True)
class Fit:
    """Costs in nats a token: the loss of an assembly is about ``constant`` plus the costs of its features."""

    constant: float
    #: by the names of :func:`features`
    costs: dict[str, float]

    def predicted(self, assembly: Assembly) -> float:
        return max(0.0, self.constant + sum(self.costs.get(name, 0.0) * n for name, n in features(assembly).items()))


def features(assembly: Assembly) -> Counter[str]:
    """How often each module and each pair of neighbours occurs: ``decoder m(3, 1)``, ``encoder 1·2``."""
    return Counter(
        name
        for stack, path in zip(STACKS, assembly.paths, strict=True)
        for name in _names(stack, path, start_indices(path))
    )


def _names(stack: str, path: LayerPath, starts: Sequence[int]) -> list[str]:
    modules = [f"{stack} m({g}, {start // g})" for g, start in zip(path, starts, strict=True) if g > 1]
    return modules + [f"{stack} {g}·{after}" for g, after in pairwise(path)]


def cheapest_paths(stack: StackMapping, costs: dict[str, float]) -> dict[int, LayerPath]:
    """For each length, the path whose modules and pairs cost least; among equals, the one with finer layers first."""
    name = stack.name
    # best[start][g, length]: the cheapest path over the first ``start`` layers that ends with a layer of granularity g
    best: list[dict[tuple[int, int], tuple[float, LayerPath]]] = [{} for _ in range(stack.depth + 1)]
    best[0][0, 0] = 0.0, ()
    for start in range(stack.depth):
        for (before, length), (cost, path) in best[start].items():
            for g in (1, *stack.granularities):
                if start % g == 0 and start + g <= stack.depth:
                    added = costs.get(f"{name} m({g}, {start // g})", 0.0) + costs.get(f"{name} {before}·{g}", 0.0)
                    new = cost + added, (*path, g)
                    place = best[start + g]
                    place[g, length + 1] = min(new, place.get((g, length + 1), new))
    ends: dict[int, tuple[float, LayerPath]] = {}
    for (_, length), found in best[stack.depth].items():
        ends[length] = min(found, ends.get(length, found))
    return {length: path for length, (_, path) in sorted(ends.items())}


def forecast(mapping: Mapping, fit: Fit) -> dict[Assembly, float]:
    """For each pair of lengths the assembly with the least loss by a fit, and that loss."""
    encoders, decoders = (cheapest_paths(stack, fit.costs).values() for stack in mapping.stacks)
    return {assembly: fit.predicted(assembly) for assembly in starmap(Assembly, product(encoders, decoders))}


@dataclass(frozen=True)
class Profile:
    """What :func:`modtf.profile.measure` found out about one kit, on one machine."""

    #: fingerprint of the banks
    banks: str
    #: measured, in nats a token: see :class:`modtf.profile.Losses`
    losses: dict[Assembly, float]
    fit: Fit
    #: of assemblies that the fit had not seen: rank correlation, and the median error relative to what was measured
    held_out: dict[str, float]
    #: percent of the full model's scores that the best assembly of each number of layers keeps, by the metric of which
    #: it keeps least; of errors, what is free of them counts
    kept: dict[Assembly, float]
    #: of one text of 32 tokens: a constant, and for each encoder and decoder layer
    milliseconds: dict[str, float]
    #: of a model: a constant, and for each encoder and decoder layer
    parameters: dict[str, int]
    machine: str
    examples: int

    def loss(self, assembly: Assembly) -> float:
        """As measured, or else as the fit predicts it."""
        return self.losses.get(assembly, self.fit.predicted(assembly))

    def latency_ms(self, assembly: Assembly) -> float:
        """Of one text of 32 tokens, predicted from the number of layers of each stack."""
        return _of_layers(self.milliseconds, assembly)

    def parameters_of(self, assembly: Assembly) -> float:
        return _of_layers(self.parameters, assembly)

    def cost(self, assembly: Assembly, limit: str) -> float:
        """What a limit of this name counts: one of :data:`COSTS`."""
        if limit == "max_latency_ms":
            return self.latency_ms(assembly)
        return self.parameters_of(assembly) * (4 / 1e6 if limit == "max_megabytes" else 1)

    @cached_property
    def ranked(self) -> list[Assembly]:
        """All that were measured, the least loss first; among equals the smallest."""
        return sorted(self.losses, key=lambda a: (self.losses[a], a.layers, str(a)))

    def to_json(self) -> dict[str, Any]:
        by_assembly = {
            name: {str(assembly): round(value, 6) for assembly, value in getattr(self, name).items()}
            for name in _BY_ASSEMBLY
        }
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return own | by_assembly | {"fit": asdict(self.fit)}

    def save(self, folder: Path) -> None:
        """Write it into the folder of its kit, whole or not at all."""
        new = folder / f"{FILE}.new"
        new.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(folder / FILE)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Profile:
        by_assembly = {name: {Assembly.parse(a): value for a, value in data[name].items()} for name in _BY_ASSEMBLY}
        return cls(**{**data, **by_assembly, "fit": Fit(**data["fit"])})


def _of_layers(costs: dict[str, Any], assembly: Assembly) -> float:
    return costs["constant"] + costs["encoder"] * len(assembly.encoder) + costs["decoder"] * len(assembly.decoder)


_BY_ASSEMBLY = ("losses", "kept")


def quality_first(
    mapping: Mapping,
    profile: Profile,
    ratio: float | None = None,
    *,
    max_parameters: float | None = None,
    max_megabytes: float | None = None,
    max_latency_ms: float | None = None,
    min_quality: float | None = None,
) -> Assembly:
    """The assembly with the least loss, of those that were measured and that one limit allows.

    The limit is a ratio (as many layers as the other strategies give it), a size in float32, a time (of one text of 32
    tokens, on the profile's machine), or ``min_quality``, percent of each of the full model's scores: the fewest layers
    that keep it, if all with more layers do. Raises :class:`ModtfError` unless exactly one limit is given, and for one that no assembly meets.
    """
    limits = {
        "ratio": ratio, "max_parameters": max_parameters, "max_megabytes": max_megabytes,
        "max_latency_ms": max_latency_ms, "min_quality": min_quality,
    }  # fmt: skip
    given = {name: value for name, value in limits.items() if value is not None}
    if len(given) != 1:
        raise ModtfError(f"{', '.join(given) or 'no limit'} given; give one of {', '.join(limits)}")
    name, limit = next(iter(given.items()))
    if isinstance(limit, bool) or not isinstance(limit, Real) or not limit > 0:
        raise ModtfError(f"{name} is {limit!r}; give a number above 0")
    candidates = profile.ranked
    if name == "ratio":
        layers = choose(mapping, float(limit), "size_first").layers
        return next(assembly for assembly in candidates if assembly.layers == layers)
    if name == "min_quality":
        if limit > 100:
            raise ModtfError(f"min_quality is {limit:g}; give a percentage of the full model's scores, up to 100")
        largest_first = sorted(profile.kept, key=lambda assembly: -assembly.layers)
        return list(takewhile(lambda assembly: profile.kept[assembly] >= limit, largest_first))[-1]

    costs = {assembly: profile.cost(assembly, name) for assembly in candidates}
    allowed = [assembly for assembly in candidates if costs[assembly] <= limit]
    if not allowed:
        least, unit = min(costs.values()), name.removeprefix("max_").replace("latency_ms", "ms")
        raise ModtfError(f"no assembly has {_number(limit)} {unit} or less; the smallest one has {_number(least)}")
    return allowed[0]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def read_profile(folder: Path, banks: str) -> Profile:
    """The profile in a kit's folder; raises :class:`ModtfError` unless it is one of banks with this fingerprint."""
    how = "make one with `modtf profile`, or choose another strategy"
    path = folder / FILE
    if not path.is_file():
        raise ModtfError(f"{folder} has no {FILE}; {how}")
    try:
        profile = Profile.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModtfError(f"the profile {path} could not be read ({error!r}); {how}") from error
    if profile.banks != banks:
        raise ModtfError(f"the profile {path} is of other weights; {how}")
    return profile
