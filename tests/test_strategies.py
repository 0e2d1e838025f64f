"""Strategies: deterministic, monotone, the nearest that they can reach, for every pair of depths."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modtf.errors import ModtfError
from modtf.mapping import Assembly, Mapping, all_paths, check_path, default_granularities, divisors, path_lengths
from modtf.strategies import STRATEGIES, assemblies, choose, even_path, size_first, speed_first

DEEP = Mapping(12, 12, (2, 3, 4, 6), (2, 3, 4, 6))
names = st.sampled_from(sorted(STRATEGIES))


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    depths = [draw(st.integers(1, 13)) for _ in range(2)]
    chosen = [
        tuple(sorted(draw(st.sets(st.sampled_from(divisors(depth)))))) if divisors(depth) else () for depth in depths
    ]
    return Mapping(*depths, *chosen)


@st.composite
def wanted(draw: st.DrawFn) -> tuple[Mapping, float]:
    mapping = draw(mappings())
    return mapping, draw(st.floats(1, mapping.maximum_ratio))


@given(wanted(), names)
def test_valid_and_deterministic(given_: tuple[Mapping, float], name: str) -> None:
    mapping, ratio = given_
    assembly = choose(mapping, ratio, name)
    assert mapping.check(assembly) == assembly
    again = Mapping(
        mapping.encoder_depth, mapping.decoder_depth, mapping.encoder_granularities, mapping.decoder_granularities
    )
    assert choose(again, ratio, name) == assembly


@given(mappings(), names, st.data())
def test_a_higher_ratio_never_has_more_layers_in_either_stack(mapping: Mapping, name: str, data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.floats(1, mapping.maximum_ratio)) for _ in range(2))
    larger, smaller = choose(mapping, low, name), choose(mapping, high, name)
    assert len(smaller.encoder) <= len(larger.encoder)
    assert len(smaller.decoder) <= len(larger.decoder)


@given(mappings(), names)
def test_ends_are_the_original_and_the_coarsest(mapping: Mapping, name: str) -> None:
    assert choose(mapping, 1, name) == mapping.original
    assert choose(mapping, mapping.maximum_ratio, name) == mapping.coarsest
    reached = assemblies(mapping, name)
    assert reached[0] == mapping.original
    assert reached[-1] == mapping.coarsest
    assert [a.layers for a in reached] == sorted({a.layers for a in reached}, reverse=True)


@given(wanted(), names)
def test_nearest_on_the_descent(given_: tuple[Mapping, float], name: str) -> None:
    """No other assembly that the strategy ever gives has a number of layers nearer to the wanted one."""
    mapping, ratio = given_
    wanted_layers = mapping.layers / ratio
    distance = abs(choose(mapping, ratio, name).layers - wanted_layers)
    assert distance <= min(abs(assembly.layers - wanted_layers) for assembly in assemblies(mapping, name)) + 1e-9


@given(mappings())
def test_reachable_ratios_are_met_exactly_where_every_length_exists(mapping: Mapping) -> None:
    """12 layers with 2, 3, 4, 6 reach every length from 2 to 12: there size-first misses no number of layers."""
    encoder = path_lengths(mapping.encoder_depth, mapping.encoder_granularities)
    decoder = path_lengths(mapping.decoder_depth, mapping.decoder_granularities)
    if encoder == tuple(range(encoder[0], encoder[-1] + 1)) and decoder == tuple(range(decoder[0], decoder[-1] + 1)):
        for name in STRATEGIES:
            assert all(choose(mapping, ratio, name).ratio == pytest.approx(ratio) for ratio in mapping.ratios())


@given(mappings())
def test_speed_first_shrinks_the_encoder_last(mapping: Mapping) -> None:
    smallest = len(mapping.coarsest.decoder)
    for assembly in assemblies(mapping, "speed_first"):
        assert len(assembly.encoder) == mapping.encoder_depth or len(assembly.decoder) == smallest


@given(mappings())
def test_size_first_takes_from_the_stack_that_has_kept_more(mapping: Mapping) -> None:
    """Between neighbours on its way only the stack shrinks that had kept the larger share (or the only one that can)."""
    reached = assemblies(mapping, "size_first")
    smallest = mapping.coarsest
    for before, after in itertools.pairwise(reached):
        shrinks = (len(after.encoder) < len(before.encoder), len(after.decoder) < len(before.decoder))
        shares = (len(before.encoder) / mapping.encoder_depth, len(before.decoder) / mapping.decoder_depth)
        if shrinks == (True, False):
            assert shares[0] > shares[1] or len(before.decoder) == len(smallest.decoder)
        if shrinks == (False, True):
            assert shares[1] >= shares[0] or len(before.encoder) == len(smallest.encoder)


@given(st.integers(1, 12), st.data())
def test_even_path_is_the_most_even_of_all(depth: int, data: st.DataObject) -> None:
    granularities = default_granularities(depth)
    length = data.draw(st.sampled_from(path_lengths(depth, granularities)))
    path = even_path(depth, granularities, length)
    assert check_path(path, depth, granularities, "encoder") == path
    rivals = [rival for rival in all_paths(depth, granularities) if len(rival) == length]
    assert len(path) == length
    assert (sum(g * g for g in path), path) == min((sum(g * g for g in rival), rival) for rival in rivals)


@pytest.mark.parametrize("strategy", [size_first, speed_first])
@pytest.mark.parametrize("ratio", [0, -1, 0.99, 6.1, 100, float("inf"), float("nan")])
def test_out_of_reach(strategy: object, ratio: float) -> None:
    with pytest.raises(ModtfError, match=r"ratio .* is out of reach; .* ratios from 1 to 6"):
        strategy(DEEP, ratio)  # type: ignore[operator]


def test_unknown_strategy() -> None:
    with pytest.raises(ModtfError, match="'fastest' is unknown; possible are size_first, speed_first"):
        choose(DEEP, 2, "fastest")


def test_shapes_at_the_ratios_of_the_table() -> None:
    assert [size_first(DEEP, ratio).shape for ratio in (1, 1.5, 2, 3, 4, 6)] == [
        "12-12",
        "8-8",
        "6-6",
        "4-4",
        "3-3",
        "2-2",
    ]
    assert [speed_first(DEEP, ratio).shape for ratio in (1, 1.5, 2, 3, 4, 6)] == [
        "12-12",
        "12-4",
        "10-2",
        "6-2",
        "4-2",
        "2-2",
    ]
    assert size_first(DEEP, 3) == Assembly((3,) * 4, (3,) * 4)


@pytest.mark.parametrize(
    ("mapping", "coarsest"),
    [
        (Mapping(7, 5, (7,), (5,)), "1-1"),  # prime depths
        (Mapping(1, 1, (), ()), "1-1"),  # nothing to replace
        (Mapping(3, 12, (3,), (2, 3, 4, 6)), "1-2"),  # unequal depths
        (Mapping(6, 1, (2, 3), ()), "2-1"),
    ],
)
def test_odd_depths(mapping: Mapping, coarsest: str) -> None:
    for name in STRATEGIES:
        assert choose(mapping, mapping.maximum_ratio, name).shape == coarsest
        assert choose(mapping, 1, name) == mapping.original


def test_depth_one_has_only_the_original() -> None:
    with pytest.raises(ModtfError, match="ratios from 1 to 1"):
        size_first(Mapping(1, 1, (), ()), 2)


def test_a_rounded_ratio_is_within_reach() -> None:
    """8 layers of 3 + 5 that become 1 + 1 ... what a person reads as 2.67 must be accepted where the maximum is 2.6667."""
    mapping = Mapping(4, 4, (2,), (4,))
    assert mapping.maximum_ratio == pytest.approx(8 / 3)
    assert size_first(mapping, 2.67) == mapping.coarsest


def test_off_the_way_down_may_lie_a_nearer_one() -> None:
    """What the docstring admits: monotone in each stack, and nearest of all, do not go together where lengths have gaps."""
    mapping = Mapping(12, 4, (2, 3, 4, 6), (4,))
    assert mapping.layers / 15 in mapping.ratios()
    assert size_first(mapping, 16 / 15).shape == "12-4"
