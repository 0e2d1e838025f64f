"""Layer mapping: granularities, paths, assemblies and ratios. Pure integers, no weights.

The modularized layer m(g, j) stands for the original layers j·g … j·g+g−1 (0-based). The paper (figure 1) counts
both from one. That granularities divide the depth is our choice: no other granularity covers a stack evenly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from modtf.errors import ModtfError

#: The two stacks of every model, in the order of :attr:`Mapping.stacks` and :attr:`Assembly.paths`.
STACKS = ("encoder", "decoder")
#: One stack's granularities in order, from its first layer to its last: ``(1, 1, 2, 2, 6)`` covers 12 layers.
LayerPath = tuple[int, ...]


def divisors(depth: int) -> tuple[int, ...]:
    """Granularities that a stack of ``depth`` layers can have: the divisors of its depth, without 1."""
    return tuple(g for g in range(2, depth + 1) if depth % g == 0)


def default_granularities(depth: int) -> tuple[int, ...]:
    """All divisors from 2 to half the depth: 2, 3, 4, 6 for 12 layers. For a prime depth, the depth itself."""
    return tuple(g for g in divisors(depth) if g <= depth // 2) or divisors(depth)


@dataclass(frozen=True)
class StackMapping:
    """What one stack can be assembled to: its depth and its granularities.

    ``granularities`` may be any iterable of whole numbers. They are stored sorted, without duplicates and without 1,
    since the original layers are always available. ``name`` is used in error messages only. Raises :class:`ModtfError`
    for a depth that is not a positive whole number, and for a granularity that does not divide it.
    """

    depth: int
    granularities: tuple[int, ...] = ()
    name: str = field(default="stack", compare=False)

    def __post_init__(self) -> None:
        if type(self.depth) is not int or self.depth < 1:
            raise ModtfError(f"the {self.name}'s depth is {self.depth!r}; give its number of layers, 1 or more")
        if isinstance(self.granularities, str) or not isinstance(self.granularities, Iterable):
            raise ModtfError(
                f"the {self.name}'s granularities are {self.granularities!r}, which is not a collection of numbers; "
                "give for example (2, 3)"
            )
        chosen = tuple(self.granularities)
        possible = ", ".join(map(str, divisors(self.depth))) or "none (the stack has one layer)"
        for g in chosen:
            if type(g) is not int:
                raise ModtfError(f"the {self.name}'s granularity {g!r} is not a whole number; possible: {possible}")
            if g < 1 or self.depth % g:
                raise ModtfError(
                    f"granularity {g} does not divide the {self.name}'s {self.depth} layers; possible: {possible}"
                )
        object.__setattr__(self, "granularities", tuple(sorted(set(chosen) - {1})))

    @property
    def original(self) -> LayerPath:
        """The path of all original layers."""
        return (1,) * self.depth

    @property
    def coarsest(self) -> LayerPath:
        """The path with the fewest layers."""
        g = max((1, *self.granularities))
        return (g,) * (self.depth // g)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Numbers of layers that the stack can be assembled to, ascending."""
        return tuple(sorted(self._paths_of_length))

    @cached_property
    def count(self) -> int:
        """Number of paths: 292 for 12 layers with granularities 2, 3, 4 and 6."""
        return self._paths_of_length.total()

    @cached_property
    def _paths_of_length(self) -> Counter[int]:
        """For each possible length, the number of paths: by dynamic programming, without listing them."""
        over = [Counter({0: 1})]  # over[end]: the same for paths over the first ``end`` original layers
        for end in range(1, self.depth + 1):
            over.append(Counter())
            for g in (1, *self.granularities):
                if end % g == 0:
                    for length, paths in over[end - g].items():
                        over[end][length + 1] += paths
        return over[self.depth]

    def check(self, path: Iterable[int]) -> LayerPath:
        """The path as a tuple; raises :class:`ModtfError` if it is not a path or does not cover exactly this stack."""
        path = _as_path(path, self.name)
        start = 0
        for g in path:
            if g not in (1, *self.granularities):
                known = ", ".join(map(str, (1, *self.granularities)))
                raise ModtfError(
                    f"the {self.name}'s path {write_path(path)} is not possible: "
                    f"the {self.name} has no granularity {g}; it has {known} (1 is an original layer)"
                )
            if start % g:
                raise ModtfError(
                    f"in the {self.name}'s path {write_path(path)}, granularity {g} starts at layer {start}; "
                    f"it may start only at multiples of {g}. Put layers of granularity 1 before it to reach one"
                )
            start += g
        if start != self.depth:
            raise ModtfError(
                f"the {self.name}'s path {write_path(path)} covers {start} layers; "
                f"the stack has {self.depth}: cover all of them"
            )
        return path

    def paths(self) -> Iterator[LayerPath]:
        """Every path of the stack; those that begin with finer layers come first."""

        def extend(path: LayerPath, start: int) -> Iterator[LayerPath]:
            if start == self.depth:
                yield path
            for g in (1, *self.granularities):
                if start % g == 0 and start + g <= self.depth:
                    yield from extend((*path, g), start + g)

        return extend((), 0)

    def split(self, path: LayerPath, layer: int) -> LayerPath:
        """The path after splitting the module over original layer ``layer`` (0-based) into the next finer ones.

        >>> StackMapping(12, (2, 3, 6)).split((6, 6), layer=0)
        (3, 3, 6)

        Raises :class:`ModtfError` if that is an original layer, since nothing is finer, or outside the stack.
        """
        path = self.check(path)
        for index, (start, g) in enumerate(zip(start_indices(path), path, strict=True)):
            if start <= layer < start + g:
                if g == 1:
                    raise ModtfError(f"layer {layer} is an original layer: there is nothing finer to split it into")
                finer = max(f for f in (1, *self.granularities) if f < g and g % f == 0)
                return path[:index] + (finer,) * (g // finer) + path[index + 1 :]
        raise ModtfError(f"the {self.name} has no layer {layer}; it has layers 0 to {self.depth - 1}")

    def merge(self, path: LayerPath, layer: int) -> LayerPath:
        """The path after joining the layers that meet between original layers ``layer - 1`` and ``layer`` (0-based).

        >>> StackMapping(6, (2, 3, 6)).merge((1, 1, 2, 2), layer=2)
        (6,)

        They are joined by the smallest module that covers both of them and cuts no other layer of the path in two.
        Raises :class:`ModtfError` if there is no such module, or if no two layers of the path meet there.
        """
        path = self.check(path)
        starts = start_indices(path)
        if layer not in starts or layer == 0:
            raise ModtfError(f"no two layers of the path {write_path(path)} meet at layer {layer}")
        edges = (*starts, self.depth)
        for g in self.granularities:
            start = layer - layer % g
            end = start + g
            if start < layer and start in edges and end in edges:
                return (*path[: edges.index(start)], g, *path[edges.index(end) :])
        known = ", ".join(map(str, self.granularities)) or "none"
        raise ModtfError(
            f"no module joins layers {layer - 1} and {layer} here (granularities: {known}): "
            "a module begins at a multiple of its granularity and cannot cut a neighbour in two. "
            "Split the neighbours first, or merge elsewhere"
        )


@dataclass(frozen=True)
class Mapping:
    """What a modular model can be assembled to.

    >>> mapping = Mapping(StackMapping(12, (2, 3, 4, 6)), StackMapping(12, (2, 3, 4, 6)))
    >>> mapping.count_assemblies(), mapping.maximum_ratio
    (85264, 6.0)
    """

    encoder: StackMapping
    decoder: StackMapping

    def __post_init__(self) -> None:
        for name, stack in zip(STACKS, self.stacks, strict=True):
            object.__setattr__(self, name, replace(stack, name=name))

    @property
    def stacks(self) -> tuple[StackMapping, StackMapping]:
        return self.encoder, self.decoder

    @property
    def layers(self) -> int:
        """Layers of the original, both stacks together."""
        return self.encoder.depth + self.decoder.depth

    @property
    def original(self) -> Assembly:
        """The assembly of all original layers."""
        return Assembly(self.encoder.original, self.decoder.original)

    @property
    def coarsest(self) -> Assembly:
        """The assembly with the fewest layers."""
        return Assembly(self.encoder.coarsest, self.decoder.coarsest)

    @property
    def maximum_ratio(self) -> float:
        return self.coarsest.ratio

    def check(self, assembly: Assembly) -> Assembly:
        """The same assembly; raises :class:`ModtfError` for a value that this model cannot be assembled to."""
        if not isinstance(assembly, Assembly):
            raise ModtfError(
                f"the assembly is {assembly!r}; give a modtf.Assembly, such as Assembly((6, 6), (2, 2, 2, 6)), "
                "or its text 'encoder 6·6 | decoder 2·2·2·6'"
            )
        for stack, path in zip(self.stacks, assembly.paths, strict=True):
            stack.check(path)
        return assembly

    def ratios(self) -> tuple[float, ...]:
        """All reachable ratios, ascending from 1."""
        return tuple(sorted({self.layers / (e + d) for e in self.encoder.lengths for d in self.decoder.lengths}))

    def count_assemblies(self) -> int:
        """Number of different assemblies."""
        return self.encoder.count * self.decoder.count


@dataclass(frozen=True)
class Assembly:
    """An encoder path and a decoder path; raises :class:`ModtfError` for a value that is not a path.

    >>> assembly = Assembly((2, 2, 2), (1, 1, 2, 2))
    >>> print(assembly)
    encoder 2·2·2 | decoder 1·1·2·2
    >>> Assembly.parse(str(assembly)) == assembly
    True
    """

    encoder: LayerPath
    decoder: LayerPath

    def __post_init__(self) -> None:
        for name, path in zip(STACKS, self.paths, strict=True):
            object.__setattr__(self, name, _as_path(path, name))

    @property
    def paths(self) -> tuple[LayerPath, LayerPath]:
        return self.encoder, self.decoder

    @property
    def layers(self) -> int:
        """Layers of both stacks together."""
        return len(self.encoder) + len(self.decoder)

    @property
    def ratio(self) -> float:
        """Original layers / assembled layers, both stacks together (the paper's compression ratio)."""
        return (sum(self.encoder) + sum(self.decoder)) / self.layers

    @property
    def shape(self) -> str:
        """Numbers of layers as ``encoder-decoder``, such as ``6-6``."""
        return f"{len(self.encoder)}-{len(self.decoder)}"

    def __str__(self) -> str:
        return f"encoder {write_path(self.encoder)} | decoder {write_path(self.decoder)}"

    @classmethod
    def parse(cls, text: str) -> Assembly:
        """Read what ``str`` writes; each path may have any spelling that :func:`parse_path` reads.

        >>> print(Assembly.parse("encoder 6,6 | decoder [2]*3, 6"))
        encoder 6·6 | decoder 2·2·2·6
        """
        match = re.fullmatch(r"\s*encoder\s+(.+?)\|\s*decoder\s+(.+)", text) if isinstance(text, str) else None
        if not match:
            raise ModtfError(f"{text!r} is not an assembly; write for example 'encoder 6·6 | decoder 2·2·2·6'")
        return cls(parse_path(match[1]), parse_path(match[2]))

    def to_json(self) -> dict[str, list[int]]:
        """Plain data for JSON: ``{"encoder": [...], "decoder": [...]}``."""
        return {"encoder": list(self.encoder), "decoder": list(self.decoder)}

    @classmethod
    def from_json(cls, data: Any) -> Assembly:
        """Inverse of :meth:`to_json`; raises :class:`ModtfError` for anything else."""
        if not isinstance(data, dict) or data.keys() != set(STACKS):
            raise ModtfError(f'{data!r} is not an assembly; write {{"encoder": [6, 6], "decoder": [2, 2, 2, 6]}}')
        return cls(**data)


def boundaries(path: LayerPath) -> tuple[int, ...]:
    """For each layer of the path, the original layers covered up to its end: ``(1, 2, 3)`` → ``(1, 3, 6)``."""
    return tuple(accumulate(path))


def start_indices(path: LayerPath) -> tuple[int, ...]:
    """For each layer of the path, the original layer at which it begins: ``(1, 2, 3)`` → ``(0, 1, 3)``."""
    return tuple(end - g for g, end in zip(path, boundaries(path), strict=True))


def write_path(path: LayerPath) -> str:
    """``(2, 2, 6)`` → ``2·2·6``."""
    return "·".join(map(str, path))


def parse_path(text: str) -> LayerPath:
    """Read granularities separated by ``·``, dots, commas or spaces; ``[4]*3`` is three layers of granularity 4.

    >>> parse_path("2·2·6"), parse_path("[2]*2, 6")
    ((2, 2, 6), (2, 2, 6))

    Raises :class:`ModtfError` for anything else, ``3x4`` included: it could mean three layers or four.
    """
    if not isinstance(text, str):
        raise ModtfError(f"{text!r} is not the text of a path; write for example '2·2·6'")
    path: list[int] = []
    number = r"([1-9]\d{0,3})"
    for part in re.split(r"[·.,\s]+", re.sub(r"\s*([*x×])\s*", r"\1", text.strip())):
        if match := re.fullmatch(number, part):
            path.append(int(match[1]))
        elif match := re.fullmatch(rf"\[{number}\][*×]{number}", part):
            path.extend([int(match[1])] * int(match[2]))
        elif match := re.fullmatch(rf"{number}[*x×]{number}", part):
            first, second = match.groups()
            meanings, spellings = f"{first} times granularity {second}", f"[{second}]*{first}"
            if first != second:
                meanings += f" or {second} times granularity {first}"
                spellings += f" or [{first}]*{second}"
            raise ModtfError(f"{text.strip()!r} is not a path: {part!r} could mean {meanings}; write {spellings}")
        else:
            raise ModtfError(
                f"{text.strip()!r} is not a path: {part!r} is not a granularity; "
                "write for example 2·2·6, or [2]*3 for three layers of granularity 2"
            )
    return tuple(path)


def _as_path(value: Any, stack: str) -> LayerPath:
    """A list or tuple as a path; raises :class:`ModtfError` for a value that cannot be the path of any stack."""
    if not isinstance(value, list | tuple) or not value or not all(type(g) is int and g >= 1 for g in value):
        raise ModtfError(
            f"the {stack}'s path is {value!r}; "
            "a path is a tuple of at least one granularity, each a positive whole number, such as (2, 2, 6)"
        )
    return tuple(value)
