"""From a wanted ratio to an assembly.

The paper names two deterministic strategies, size-first and speed-first, and says what they are for, but not how they
choose among paths. The rules below are our choice. Each strategy defines a descent from the original to the smallest
assembly, in which no step adds a layer to either stack, and chooses the step whose number of layers is nearest to the
wanted one. (Where the stacks' lengths have gaps, an assembly outside the descent may be nearer: 12 + 4 layers whose
decoder has 4 layers or 1 can be assembled to 15 layers, but the descent of size-first skips that number.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from numbers import Real

from modtf.errors import ModtfError
from modtf.mapping import Assembly, LayerPath, Mapping, StackMapping

#: Numbers of layers (encoder, decoder) from the original's to the fewest; each step removes layers and adds none.
Descent = tuple[tuple[int, int], ...]
Strategy = Callable[[Mapping, float], Assembly]


def size_first(mapping: Mapping, ratio: float) -> Assembly:
    """Both stacks shrink evenly, so that the smaller model keeps the same share of each.

    12 + 12 layers at 2x become 6 + 6. The paper's *size-first*, meant to save storage; the paths are our choice.
    Raises :class:`ModtfError` for a ratio that is not a number, is below 1 or above the maximum.
    """
    return _nearest(mapping, ratio, _even_descent(mapping))


def speed_first(mapping: Mapping, ratio: float) -> Assembly:
    """The decoder shrinks first, since it runs once per generated token and the encoder only once per text.

    12 + 12 layers at 1.5x become 12 + 4. The encoder shrinks only when the decoder is at its smallest (2x: 10 + 2).
    The paper's *speed-first*; the paths are our choice. Raises :class:`ModtfError` like :func:`size_first`.
    """
    encoder, decoder = mapping.encoder.lengths[::-1], mapping.decoder.lengths[::-1]
    decoder_shrinks = [(encoder[0], d) for d in decoder]
    encoder_shrinks = [(e, decoder[-1]) for e in encoder[1:]]
    return _nearest(mapping, ratio, (*decoder_shrinks, *encoder_shrinks))


STRATEGIES: dict[str, Strategy] = {"size_first": size_first, "speed_first": speed_first}
#: The strategy that needs a measured profile of the kit: :func:`modtf.quality.quality_first`.
QUALITY_FIRST = "quality_first"


def choose(mapping: Mapping, ratio: float | None, strategy: str) -> Assembly:
    """The assembly that the named strategy gives for a ratio; None means ratio 1, the original."""
    if strategy == QUALITY_FIRST:
        raise ModtfError(f"{QUALITY_FIRST} needs the profile of a kit: use ModularModel.choose")
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise ModtfError(f"strategy {strategy!r} is unknown; choose from {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy](mapping, 1.0 if ratio is None else ratio)


def assemblies(mapping: Mapping, strategy: str) -> tuple[Assembly, ...]:
    """All assemblies that a strategy reaches, from the original to the smallest."""
    return tuple(dict.fromkeys(choose(mapping, ratio, strategy) for ratio in mapping.ratios()))


def even_assembly(mapping: Mapping, encoder: int, decoder: int) -> Assembly:
    """The assembly of so many layers in each stack, by :func:`even_path`; the encoder's path is reversed.

    The encoder thus has its coarse modules first, the decoder last: of the four ways to place them, the one that kept
    most on average on the development inputs of the bundled models (benchmarks/LOG.md). Our choice. Raises
    :class:`ModtfError` like :func:`even_path`.
    """
    # A reversed path is valid, too: granularities divide the depth.
    return Assembly(even_path(mapping.encoder, encoder)[::-1], even_path(mapping.decoder, decoder))


def even_path(stack: StackMapping, layers: int) -> LayerPath:
    """The path of ``layers`` layers whose granularities differ least, finer ones first.

    Of all paths of that length it has the smallest sum of squared granularities, so that no module replaces many more
    layers than the others; among equals, the one that begins with the finest layers. Both rules are our choice. Raises
    :class:`ModtfError` if the stack cannot be assembled to that many layers.
    """
    if layers not in stack.lengths:
        possible = ", ".join(map(str, stack.lengths))
        raise ModtfError(f"the {stack.name} cannot be assembled to {layers!r} layers; choose from {possible}")
    return _most_even(stack, layers, 0)[1]


@cache
def _most_even(stack: StackMapping, layers: int, start: int) -> tuple[float, LayerPath]:
    """The smallest sum of squares (infinite if no path fits) and its path, from original layer ``start`` on."""
    if layers == 0 and start == stack.depth:
        return 0.0, ()
    if layers == 0 or start == stack.depth:
        return float("inf"), ()
    options = []
    for g in (1, *stack.granularities):
        if start % g == 0 and start + g <= stack.depth:
            squares, rest = _most_even(stack, layers - 1, start + g)
            options.append((squares + g * g, (g, *rest)))
    return min(options)


@cache
def _even_descent(mapping: Mapping) -> Descent:
    """Each step shrinks the stack that has kept the larger share of its layers; on a tie, the decoder."""
    encoder, decoder = mapping.encoder.lengths[::-1], mapping.decoder.lengths[::-1]
    e = d = 0
    descent = [(encoder[0], decoder[0])]
    while e + 1 < len(encoder) or d + 1 < len(decoder):
        encoder_share, decoder_share = encoder[e] / encoder[0], decoder[d] / decoder[0]
        if d + 1 < len(decoder) and (decoder_share >= encoder_share or e + 1 == len(encoder)):
            d += 1
        else:
            e += 1
        descent.append((encoder[e], decoder[d]))
    return tuple(descent)


def _nearest(mapping: Mapping, ratio: float, descent: Descent) -> Assembly:
    """The step of the descent whose number of layers is nearest to the wanted one; on a tie, the larger one."""
    maximum = mapping.maximum_ratio
    if isinstance(ratio, bool) or not isinstance(ratio, Real):
        kind = type(ratio).__name__
        raise ModtfError(f"the ratio is {ratio!r} ({kind}); give a number from 1 to {maximum:.4g}")
    # A ratio rounded for display (2.67 for 8 / 3) may be just above the maximum.
    if not 1 - 1e-9 <= ratio <= maximum + 0.005:
        raise ModtfError(
            f"ratio {ratio} is out of reach; this model can be assembled to ratios from 1 to {maximum:.4g}"
        )
    wanted = mapping.layers / float(ratio)
    encoder, decoder = min(descent, key=lambda lengths: (abs(sum(lengths) - wanted), -sum(lengths)))
    return even_assembly(mapping, encoder, decoder)
