"""From a wanted ratio to an assembly.

The paper names two deterministic strategies, size-first and speed-first, and what they are for. How they choose among
paths is not published, so the rules below are our choice: each strategy is one way down from the original to the smallest
assembly, on which a higher ratio never has more layers in either stack, and takes the assembly on it whose number of layers is nearest to
the wanted one. (Where the stacks' lengths have gaps, an assembly off that way may come nearer: 12 + 4 layers whose decoder
is of 4 layers or 1 have one of 15, but not on the even way.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from modtf.errors import ModtfError
from modtf.mapping import Assembly, Mapping, Path, path_lengths

#: (encoder layers, decoder layers) from the original's to the fewest, each step taking layers away and adding none.
Descent = tuple[tuple[int, int], ...]
Strategy = Callable[[Mapping, float], Assembly]


def size_first(mapping: Mapping, ratio: float) -> Assembly:
    """Both stacks shrink evenly: the smallest model that keeps as much of each stack as of the other.

    12 + 12 layers at 2x become 6 + 6. For equal sizes this suits storage; the paper's *size-first*, with our choice of paths.
    Raises :class:`ModtfError` for a ratio below 1 or above the maximum.
    """
    return _nearest(mapping, ratio, _even_descent(mapping))


def speed_first(mapping: Mapping, ratio: float) -> Assembly:
    """The decoder shrinks first, since it runs once for every generated token and the encoder once a sentence.

    12 + 12 layers at 1.5x become 12 + 4; only when the decoder is at its smallest does the encoder shrink (2x: 10 + 2).
    The paper's *speed-first*, with our choice of paths. Raises :class:`ModtfError` as :func:`size_first`.
    """
    encoder, decoder = _descending_lengths(mapping)
    return _nearest(mapping, ratio, (*((encoder[0], d) for d in decoder), *((e, decoder[-1]) for e in encoder[1:])))


STRATEGIES: dict[str, Strategy] = {"size_first": size_first, "speed_first": speed_first}


def choose(mapping: Mapping, ratio: float, strategy: str) -> Assembly:
    """The assembly of a strategy given by its name."""
    if strategy not in STRATEGIES:
        raise ModtfError(f"strategy {strategy!r} is unknown; possible are {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy](mapping, ratio)


def assemblies(mapping: Mapping, strategy: str) -> tuple[Assembly, ...]:
    """All assemblies that a strategy reaches, from the original to the smallest."""
    return tuple(dict.fromkeys(choose(mapping, ratio, strategy) for ratio in mapping.ratios()))


def even_path(depth: int, granularities: tuple[int, ...], layers: int) -> Path:
    """The path of ``layers`` layers whose granularities differ least, fine ones first.

    Of all paths of that length the one with the smallest sum of squared granularities (no module does much more than
    its share), and among those the one that keeps original layers longest (our choice; the last layers are the ones that
    users of SFT drop with the least loss).
    """
    return _even_path(depth, granularities, layers, 0)[1]


@cache
def _even_path(depth: int, granularities: tuple[int, ...], layers: int, start: int) -> tuple[float, Path]:
    """The best (sum of squares, path) from original layer ``start`` on, by dynamic programming."""
    if layers == 0 or start == depth:
        return (0.0, ()) if layers == 0 and start == depth else (float("inf"), ())
    options = []
    for g in (1, *granularities):
        if start % g == 0 and start + g <= depth:
            squares, rest = _even_path(depth, granularities, layers - 1, start + g)
            options.append((squares + g * g, (g, *rest)))
    return min(options)


def _descending_lengths(mapping: Mapping) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (
        path_lengths(mapping.encoder_depth, mapping.encoder_granularities)[::-1],
        path_lengths(mapping.decoder_depth, mapping.decoder_granularities)[::-1],
    )


@cache
def _even_descent(mapping: Mapping) -> Descent:
    """Take the next layers from the stack that has kept the larger share of its own; from the decoder on a tie."""
    encoder, decoder = _descending_lengths(mapping)
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
    """The step of the descent whose number of layers is nearest to the wanted one, the larger on a tie."""
    maximum = mapping.maximum_ratio
    # A ratio that was rounded for people (1.09, 2.67) may lie a hair outside of what is possible.
    if not 1 - 1e-9 <= ratio <= maximum + 0.005:
        raise ModtfError(
            f"ratio {ratio:g} is out of reach; this model can be assembled to ratios from 1 to {maximum:.4g}"
        )
    wanted = mapping.layers / ratio
    encoder, decoder = min(descent, key=lambda lengths: (abs(sum(lengths) - wanted), -sum(lengths)))
    return Assembly(
        even_path(mapping.encoder_depth, mapping.encoder_granularities, encoder),
        even_path(mapping.decoder_depth, mapping.decoder_granularities, decoder),
    )
