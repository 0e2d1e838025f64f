"""Module replacing: which layers a training step runs.

As in BERT-of-Theseus (Xu et al., 2020), layers of the original are replaced at random by successors, which learn to
work in their place. The paper does so at several granularities in one training phase. We do not know its schedule;
this one is our choice, and `benchmarks/LOG.md` says what was tried. The path of a step is a pure function of
(seed, step).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real

from modtf.errors import ModtfError
from modtf.mapping import Assembly, LayerPath, Mapping, StackMapping
from modtf.strategies import STRATEGIES, assemblies

_TRIES = 100


@dataclass(frozen=True)
class ReplacingSchedule:
    """Which layers each of ``steps`` training steps replaces.

    Three kinds of steps alternate at random:

    - *mixtures* (a share ``mixtures`` of all steps) go through each stack and replace the next layers, with probability
      p, by a module of any granularity that may start there: they teach every module to work beside every other;
    - *whole* steps (a share ``whole``) give each stack one granularity from end to end, drawn uniformly, 1 included:
      a full stack must work with a compressed one. In a share ``matched`` of them both stacks have the same one, not 1,
      as in the sizes that are asked for most;
    - *strategy* steps, the rest, run assemblies of :mod:`modtf.strategies`, with probability proportional to the ratio.

    p rises linearly from ``probability`` at the first step to 1 at ``full_at`` (a share of all steps). The coarsest
    granularity that may be drawn rises from the finest one to the coarsest one at ``coarse_at`` (also a share).

    With ``only``, every step runs that assembly: it becomes a student of one size, without module replacing. Raises
    :class:`ModtfError` for a mapping without modules, for an ``only`` without modules, for steps or a seed that are not
    whole numbers, and for shares outside 0 to 1.
    """

    mapping: Mapping
    steps: int
    seed: int = 0
    probability: float = 0.5
    full_at: float = 0.5
    coarse_at: float = 0.1
    mixtures: float = 0.1
    whole: float = 0.6
    matched: float = 0.0
    only: Assembly | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.mapping, Mapping):
            raise ModtfError(f"mapping is {self.mapping!r}; give the mapping of a modular model, modular.mapping")
        if self.mapping.maximum_ratio == 1:
            raise ModtfError(
                "the model has no modularized layers, so nothing can be replaced; modularize it with granularities"
            )
        for name in ("steps", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise ModtfError(f"{name} is {value!r}; give a whole number")
        if self.steps < 1:
            raise ModtfError(f"steps is {self.steps}; give 1 or more")
        for name in ("probability", "full_at", "coarse_at", "mixtures", "whole", "matched"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
                raise ModtfError(f"{name} is {value!r}; give a number from 0 to 1")
        if self.mixtures + self.whole > 1:
            raise ModtfError(
                "mixtures and whole are shares of all steps, "
                f"but {self.mixtures} + {self.whole} is more than 1; lower one of them"
            )
        if self.only is not None and self.mapping.check(self.only) == self.mapping.original:
            raise ModtfError(f"{self.only} is the original, which does not train; give an assembly with modules")

    def replacing_probability(self, step: int) -> float:
        """p at a step, from ``probability`` up to 1."""
        return self.probability + (1 - self.probability) * self._progress(step, self.full_at)

    def allowed_granularities(self, step: int) -> tuple[int, ...]:
        """Granularities that a step may draw, ascending; coarse ones come later."""
        last = int(self._progress(step, self.coarse_at) * (len(self._granularities) - 1))
        return self._granularities[: last + 1]

    @property
    def _granularities(self) -> tuple[int, ...]:
        return tuple(sorted({g for stack in self.mapping.stacks for g in stack.granularities}))

    def draw_several(self, step: int, count: int) -> list[Assembly]:
        """The ``count`` assemblies that one training step runs.

        In a share ``whole`` of the steps the granularities of each stack are dealt like cards, 1 included, so that as
        many modules as possible learn, each beside another granularity of the other stack. In the other steps the
        coarsest assembly is one of them, since it has the most to learn (slimmable networks, Yu and Huang, 2019, train
        their smallest at every step), and from 3 on also the coarsest decoder beside the original's encoder; the rest
        are draws.
        """
        if self.only or count == 1:
            return [self.draw(step, number) for number in range(count)]
        rng = random.Random(f"{self.seed} dealing {step}")
        allowed = self.allowed_granularities(step)
        if rng.random() < self.whole:
            return self._deal(rng, allowed, count)
        fixed: list[Assembly] = []
        if len(allowed) == len(self._granularities):
            coarsest = self.mapping.coarsest
            ends = (coarsest, Assembly(self.mapping.encoder.original, coarsest.decoder))
            fixed = [end for end in dict.fromkeys(ends) if end != self.mapping.original][: count - 1]
        return [*fixed, *(self.draw(step, number, whole=False) for number in range(count - len(fixed)))]

    def _deal(self, rng: random.Random, allowed: tuple[int, ...], count: int) -> list[Assembly]:
        """Assemblies of one granularity in each stack; those of the two stacks are dealt from shuffled decks."""
        hands: list[list[LayerPath]] = []
        for stack in self.mapping.stacks:
            deck = [_uniform(stack, g) for g in (1, *stack.granularities) if g in (1, *allowed)]
            hand: list[LayerPath] = []
            while len(hand) < count:
                hand += rng.sample(deck, len(deck))
            hands.append(hand[:count])
        # The original has nothing to learn: the coarsest that may be drawn takes its place.
        instead = Assembly(*(_coarsest(stack, allowed) for stack in self.mapping.stacks))
        drawn = (Assembly(*pair) for pair in zip(*hands, strict=True))
        return [instead if one == self.mapping.original else one for one in drawn]

    def draw(self, step: int, number: int = 0, whole: bool = True) -> Assembly:
        """The assembly that training step ``step`` (0-based) runs; at least one layer of it is replaced.

        A step that runs several draws them with ``number`` 0, 1, 2 ...; without ``whole`` it is no whole-grain step.
        """
        if self.only:
            return self.only
        rng = random.Random(f"{self.seed} replacing {step}" + (f" {number}" if number else ""))
        allowed = self.allowed_granularities(step)
        for _ in range(_TRIES):
            drawn = self._draw_once(rng, step, allowed, whole)
            # Without modules there is no gradient, and a strategy may use modules that come later: draw again.
            if drawn != self.mapping.original and set(drawn.encoder + drawn.decoder) <= {1, *allowed}:
                return drawn
        # Hardly any draw fits yet (p is 0, or no strategy uses the finest granularity): replace all by the finest.
        return Assembly(*(_uniform(stack, allowed[0]) for stack in self.mapping.stacks))

    def _draw_once(self, rng: random.Random, step: int, allowed: tuple[int, ...], whole: bool) -> Assembly:
        shares = self.mixtures, self.whole if whole else 0.0, max(0.0, 1 - self.mixtures - self.whole)
        (kind,) = rng.choices(("mixture", "whole", "strategy"), weights=shares)
        if kind == "mixture":
            p = self.replacing_probability(step)
            return Assembly(*(_mixture(rng, p, stack, allowed) for stack in self.mapping.stacks))
        if kind == "whole" and self.matched and rng.random() < self.matched:
            g = rng.choice(allowed)
            return Assembly(*(_uniform(stack, g) for stack in self.mapping.stacks))
        if kind == "whole":
            return Assembly(*(_whole(rng, stack, allowed) for stack in self.mapping.stacks))
        reachable = assemblies(self.mapping, rng.choice(sorted(STRATEGIES)))
        return rng.choices(reachable, weights=[assembly.ratio for assembly in reachable])[0]

    def _progress(self, step: int, end: float) -> float:
        """Rises from 0 at the first step to 1 at ``end``, a share of all steps."""
        return 1.0 if end == 0 else min(1.0, step / self.steps / end)

    def __iter__(self) -> Iterator[Assembly]:
        """The assemblies of all steps, in order."""
        return (self.draw(step) for step in range(self.steps))


def _mixture(rng: random.Random, p: float, stack: StackMapping, allowed: tuple[int, ...]) -> LayerPath:
    """A path that, wherever modules may start, takes one with probability p and an original layer otherwise."""
    path: list[int] = []
    start = 0
    while start < stack.depth:
        fitting = [g for g in stack.granularities if g in allowed and start % g == 0]
        g = rng.choice(fitting) if fitting and rng.random() < p else 1
        path.append(g)
        start += g
    return tuple(path)


def _whole(rng: random.Random, stack: StackMapping, allowed: tuple[int, ...]) -> LayerPath:
    """A path of one granularity; 1, the original's, is among the possible ones."""
    return _uniform(stack, rng.choice([1, *(g for g in stack.granularities if g in allowed)]))


def _coarsest(stack: StackMapping, allowed: tuple[int, ...]) -> LayerPath:
    """The path of the coarsest allowed granularity that the stack has, or the original's."""
    return _uniform(stack, max((g for g in stack.granularities if g in allowed), default=1))


def _uniform(stack: StackMapping, g: int) -> LayerPath:
    """The path of granularity g alone, or the original's if the stack lacks g."""
    return (g,) * (stack.depth // g) if g in stack.granularities else stack.original
