"""Layer mapping: granularities, paths, assemblies, ratios. Pure integers.

The modularized layer m(g, j) stands for the original layers j·g … j·g+g−1 (0-based). The paper (abstract and figure 1)
numbers them from one; that granularities divide the depth is our choice, since nothing else covers a stack evenly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from modtf.errors import ModtfError

#: One stack's granularities in order, covering it from its first layer to its last: ``(1, 1, 2, 2, 6)`` covers 12.
Path = tuple[int, ...]


def divisors(depth: int) -> tuple[int, ...]:
    """Granularities that a stack of ``depth`` layers can have: its divisors greater than one."""
    return tuple(g for g in range(2, depth + 1) if depth % g == 0)


def default_granularities(depth: int) -> tuple[int, ...]:
    """All divisors from 2 to half the depth: 2, 3, 4, 6 for 12 layers. A prime or tiny depth has only itself."""
    return tuple(g for g in divisors(depth) if g <= depth // 2) or divisors(depth)


def check_granularities(granularities: Iterable[int], depth: int, stack: str) -> tuple[int, ...]:
    """Sorted and without repeats; raises :class:`ModtfError` for one that does not divide ``depth``."""
    chosen = tuple(sorted(set(granularities) - {1}))  # originals are always there
    wrong = [g for g in chosen if type(g) is not int or g not in divisors(depth)]
    if wrong:
        possible = ", ".join(map(str, divisors(depth))) or "none (the stack has one layer)"
        raise ModtfError(
            f"granularity {wrong[0]} does not divide the {stack}'s {depth} layers; possible are {possible}"
        )
    return chosen


def check_path(path: Iterable[int], depth: int, granularities: Iterable[int], stack: str) -> Path:
    """The path as a tuple; raises :class:`ModtfError` where it does not cover the stack exactly with what exists."""
    path = tuple(path)
    known = (1, *granularities)
    start = 0
    for g in path:
        if g not in known:
            raise ModtfError(
                f"the {stack} has no granularity {g}; it has {', '.join(map(str, known))} (1 is an original layer)"
            )
        if start % g:
            raise ModtfError(
                f"in the {stack}'s path {write_path(path)} granularity {g} starts at layer {start}; "
                f"it may start only at multiples of {g}. Put layers of granularity 1 or a divisor of {start} before it"
            )
        start += g
    if start != depth:
        raise ModtfError(
            f"the {stack}'s path {write_path(path) or '(empty)'} covers {start} layers; the stack has {depth}: cover all of them"
        )
    return path


def boundaries(path: Path) -> Path:
    """For each layer of the path, how many original layers are done after it: ``(1, 2, 3)`` → ``(1, 3, 6)``."""
    done, result = 0, []
    for g in path:
        done += g
        result.append(done)
    return tuple(result)


def split(path: Path, layer: int, granularities: Iterable[int]) -> Path:
    """The path with the module over original ``layer`` (0-based) split into the next finer layers that fill its place evenly.

    >>> split((6, 6), 0, (2, 3, 6))
    (3, 3, 6)

    Raises :class:`ModtfError` where there is an original layer, which nothing is finer than.
    """
    start, g = _at(path, layer)
    if g == 1:
        raise ModtfError(f"layer {layer} is an original layer: there is nothing finer to split it into")
    finer = max(f for f in (1, *granularities) if f < g and g % f == 0)
    index = start_indices(path).index(start)
    return (*path[:index], *(finer,) * (g // finer), *path[index + 1 :])


def merge(path: Path, layer: int, granularities: Iterable[int]) -> Path:
    """The path with the smallest module that joins what ends before original ``layer`` (0-based) with what begins there.

    >>> merge((1, 1, 2, 2), 2, (2, 3, 6))
    (6,)

    The module takes the place of every block that it covers, and must not cut one in two. Raises :class:`ModtfError` where none does,
    or where no block begins at ``layer``.
    """
    starts = start_indices(path)
    depth, known = sum(path), sorted(set(granularities))
    if layer not in starts or layer == 0:
        raise ModtfError(f"no block of the path {write_path(path)} begins at layer {layer} with another before it")
    for g in known:
        start = layer - layer % g
        if start < layer and start in starts and start + g in (*starts, depth):
            first, end = starts.index(start), (*starts, depth).index(start + g)
            return (*path[:first], g, *path[end:])
    sizes = ", ".join(map(str, known)) or "none"
    raise ModtfError(
        f"no module joins layers {layer - 1} and {layer} here: there are modules of {sizes} layers, each begins at a multiple of its size, "
        "and none may cut a neighbouring block in two. Split the neighbours first, or merge elsewhere"
    )


def start_indices(path: Path) -> Path:
    """The original layer that each layer of the path begins at: ``(1, 2, 3)`` → ``(0, 1, 3)``."""
    return tuple(end - g for g, end in zip(path, boundaries(path), strict=True))


def _at(path: Path, layer: int) -> tuple[int, int]:
    """(start, granularity) of the block over an original layer."""
    for start, g in zip(start_indices(path), path, strict=True):
        if start <= layer < start + g:
            return start, g
    raise ModtfError(f"there is no layer {layer}; the path {write_path(path)} covers layers 0 to {sum(path) - 1}")


def all_paths(depth: int, granularities: Iterable[int]) -> Iterator[Path]:
    """Every path of a stack, fine ones first. There are 292 for 12 layers with 2, 3, 4, 6."""
    steps = (1, *sorted(set(granularities)))

    def extend(path: Path, start: int) -> Iterator[Path]:
        if start == depth:
            yield path
        for g in steps:
            if start % g == 0 and start + g <= depth:
                yield from extend((*path, g), start + g)

    return extend((), 0)


@cache
def path_lengths(depth: int, granularities: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of layers that a stack can be assembled to, ascending, without listing every path."""
    lengths: list[set[int]] = [{0}] + [set() for _ in range(depth)]
    for end in range(1, depth + 1):
        for g in (1, *granularities):
            if end >= g and (end - g) % g == 0:
                lengths[end] |= {n + 1 for n in lengths[end - g]}
    return tuple(sorted(lengths[depth]))


@dataclass(frozen=True)
class Mapping:
    """What a modular model can be assembled to: the depth and granularities of both stacks."""

    encoder_depth: int
    decoder_depth: int
    encoder_granularities: tuple[int, ...]
    decoder_granularities: tuple[int, ...]

    def __post_init__(self) -> None:
        for stack in ("encoder", "decoder"):
            name = f"{stack}_granularities"
            object.__setattr__(
                self, name, check_granularities(getattr(self, name), getattr(self, f"{stack}_depth"), stack)
            )

    @property
    def layers(self) -> int:
        """Layers of the original, both stacks together."""
        return self.encoder_depth + self.decoder_depth

    @property
    def original(self) -> Assembly:
        """The assembly of all original layers."""
        return Assembly((1,) * self.encoder_depth, (1,) * self.decoder_depth)

    @property
    def coarsest(self) -> Assembly:
        """The assembly with the fewest layers."""
        e, d = max((1, *self.encoder_granularities)), max((1, *self.decoder_granularities))
        return Assembly((e,) * (self.encoder_depth // e), (d,) * (self.decoder_depth // d))

    @property
    def maximum_ratio(self) -> float:
        return self.coarsest.ratio

    def check(self, assembly: Assembly) -> Assembly:
        """The same assembly; raises :class:`ModtfError` where this model cannot be assembled to it."""
        check_path(assembly.encoder, self.encoder_depth, self.encoder_granularities, "encoder")
        check_path(assembly.decoder, self.decoder_depth, self.decoder_granularities, "decoder")
        return assembly

    def ratios(self) -> tuple[float, ...]:
        """All reachable ratios, ascending from 1."""
        encoder = path_lengths(self.encoder_depth, self.encoder_granularities)
        decoder = path_lengths(self.decoder_depth, self.decoder_granularities)
        return tuple(sorted({self.layers / (e + d) for e in encoder for d in decoder}))

    def count_assemblies(self) -> int:
        """How many different assemblies exist."""
        return _count_paths(self.encoder_depth, self.encoder_granularities) * _count_paths(
            self.decoder_depth, self.decoder_granularities
        )


@cache
def _count_paths(depth: int, granularities: tuple[int, ...]) -> int:
    ways = [1] + [0] * depth
    for end in range(1, depth + 1):
        ways[end] = sum(ways[end - g] for g in (1, *granularities) if end >= g and (end - g) % g == 0)
    return ways[depth]


@dataclass(frozen=True)
class Assembly:
    """An encoder path and a decoder path.

    >>> assembly = Assembly((2, 2, 2), (1, 1, 2, 2))
    >>> print(assembly)
    encoder 2·2·2 | decoder 1·1·2·2
    >>> Assembly.parse(str(assembly)) == assembly
    True
    """

    encoder: Path
    decoder: Path

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
        """Layers as ``encoder-decoder``, such as ``6-6``."""
        return f"{len(self.encoder)}-{len(self.decoder)}"

    def __str__(self) -> str:
        return f"encoder {write_path(self.encoder)} | decoder {write_path(self.decoder)}"

    @classmethod
    def parse(cls, text: str) -> Assembly:
        """Read what ``str`` writes; ``encoder 6,6 | decoder 2x6`` is understood too (``2x6`` is 2·2·2·2·2·2)."""
        match = re.fullmatch(r"\s*encoder\s+([\d·.,x×\s]+)\|\s*decoder\s+([\d·.,x×\s]+)", text)
        if not match:
            raise ModtfError(f"{text!r} is not an assembly; write for example 'encoder 6·6 | decoder 2·2·2·6'")
        return cls(parse_path(match[1]), parse_path(match[2]))

    def to_json(self) -> dict[str, list[int]]:
        """As plain JSON data: ``{"encoder": [...], "decoder": [...]}``."""
        return {"encoder": list(self.encoder), "decoder": list(self.decoder)}

    @classmethod
    def from_json(cls, data: Any) -> Assembly:
        """Inverse of :meth:`to_json`; raises :class:`ModtfError` for anything else."""
        paths: list[Any] = (
            [data.get(stack) for stack in ("encoder", "decoder")]
            if isinstance(data, dict) and len(data) == 2
            else [None]
        )
        if not all(isinstance(path, list) and path and all(type(g) is int and g > 0 for g in path) for path in paths):
            raise ModtfError(f'{data!r} is not an assembly; write {{"encoder": [6, 6], "decoder": [2, 2, 2, 6]}}')
        return cls(tuple(paths[0]), tuple(paths[1]))


def write_path(path: Path) -> str:
    """``(2, 2, 6)`` → ``2·2·6``."""
    return "·".join(map(str, path))


def parse_path(text: str) -> Path:
    """``2·2·6``, ``2,2,6`` or ``2x2 6`` (granularity x times) → ``(2, 2, 6)``."""
    path: list[int] = []
    for part in re.split(r"[·.,\s]+", text.strip()):
        match = re.fullmatch(r"([1-9]\d{0,3})(?:[x×]([1-9]\d{0,3}))?", part)
        if not match:
            raise ModtfError(
                f"{text.strip()!r} is not a path: {part!r} is not a granularity; write for example 2·2·6 or 2x2,6"
            )
        path += [int(match[1])] * int(match[2] or 1)
    return tuple(path)
