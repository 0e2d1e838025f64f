"""Module replacing: which layers a training step runs.

As in BERT-of-Theseus, layers of the original are replaced at random by successors while those learn to work in their place.
The paper does so at several granularities in one training phase. Its schedule is not published; this one is our choice, and
`benchmarks/LOG.md` says what was tried. The path of a step is a pure function of (seed, step).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from modtf.errors import ModtfError
from modtf.mapping import Assembly, Mapping, Path
from modtf.strategies import STRATEGIES, assemblies

_TRIES = 100


@dataclass(frozen=True)
class ReplacingSchedule:
    """What is replaced at each of ``steps`` training steps.

    Three kinds of steps alternate at random:

    - *mixtures* (a share ``mixtures``) go through each stack and replace the layers ahead with probability p, by a module of
      any granularity that may start there: they teach every module to work beside every other;
    - *whole* steps (a share ``whole``) give each stack one granularity from end to end, 1 among them, all alike often: a full
      stack must work with a compressed one;
    - *strategy* steps, the rest, run what :mod:`modtf.strategies` gives, drawn in proportion to the ratio.

    p rises linearly from ``probability`` to 1 at ``full_at`` (a share of all steps); the coarsest granularity allowed rises
    from the finest to all at ``coarse_at``.
    """

    mapping: Mapping
    steps: int
    seed: int = 0
    probability: float = 0.5
    full_at: float = 0.5
    coarse_at: float = 0.1
    mixtures: float = 0.1
    whole: float = 0.6

    def __post_init__(self) -> None:
        if self.mapping.maximum_ratio == 1:
            raise ModtfError(
                "the model has no modularized layers, so nothing can be replaced; modularize it with granularities"
            )
        if self.steps < 1:
            raise ModtfError(f"a schedule of {self.steps} steps was asked for; at least 1 is needed")
        for name in ("probability", "full_at", "coarse_at", "mixtures", "whole"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ModtfError(f"{name} is {value}; possible are values from 0 to 1")
        if self.mixtures + self.whole > 1:
            raise ModtfError(
                f"mixtures and whole are shares of all steps, but {self.mixtures} + {self.whole} is more than 1; lower one"
            )

    def replacing_probability(self, step: int) -> float:
        """p at a step, from ``probability`` up to 1."""
        return self.probability + (1 - self.probability) * self._risen(step, self.full_at)

    def allowed_granularities(self, step: int) -> tuple[int, ...]:
        """Granularities that a step may draw, the fine ones first in time."""
        every = tuple(sorted({*self.mapping.encoder_granularities, *self.mapping.decoder_granularities}))
        return every[: 1 + int(self._risen(step, self.coarse_at) * (len(every) - 1))]

    def draw(self, step: int) -> Assembly:
        """The assembly that training step ``step`` (0-based) runs; at least one layer of it is replaced."""
        rng = random.Random(f"{self.seed} replacing {step}")
        allowed = self.allowed_granularities(step)
        stacks = (
            (self.mapping.encoder_depth, self.mapping.encoder_granularities),
            (self.mapping.decoder_depth, self.mapping.decoder_granularities),
        )
        for _ in range(_TRIES):
            kind = rng.random()
            if kind < self.mixtures:
                p = self.replacing_probability(step)
                drawn = Assembly(
                    *(self._mixture(rng, p, depth, granularities, allowed) for depth, granularities in stacks)
                )
            elif kind < self.mixtures + self.whole:
                drawn = Assembly(*(self._whole(rng, depth, granularities, allowed) for depth, granularities in stacks))
            else:
                reachable = assemblies(self.mapping, rng.choice(sorted(STRATEGIES)))
                drawn = rng.choices(reachable, [assembly.ratio for assembly in reachable])[0]
            # A step without modules has no gradient, one with modules that are not due yet comes too early: draw again.
            if drawn != self.mapping.original and set(drawn.encoder + drawn.decoder) <= {1, *allowed}:
                return drawn
        # These options have next to no such draw yet (p is 0, or no strategy uses the finest granularity): replace all by the finest.
        finest = allowed[0]
        return Assembly(
            *(
                (finest,) * (depth // finest) if finest in granularities else (1,) * depth
                for depth, granularities in stacks
            )
        )

    def _risen(self, step: int, at: float) -> float:
        return 1.0 if at == 0 else min(1.0, step / self.steps / at)

    @staticmethod
    def _mixture(rng: random.Random, p: float, depth: int, granularities: Path, allowed: Path) -> Path:
        path: list[int] = []
        start = 0
        while start < depth:
            fitting = [g for g in granularities if g in allowed and start % g == 0]
            g = rng.choice(fitting) if fitting and rng.random() < p else 1
            path.append(g)
            start += g
        return tuple(path)

    @staticmethod
    def _whole(rng: random.Random, depth: int, granularities: Path, allowed: Path) -> Path:
        possible = [1, *(g for g in granularities if g in allowed)]
        g = rng.choice(possible)
        return (g,) * (depth // g)

    def __iter__(self) -> Iterator[Assembly]:
        """All draws in order: what a training with this schedule would run."""
        return (self.draw(step) for step in range(self.steps))
