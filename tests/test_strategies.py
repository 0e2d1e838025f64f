"""Strategies: deterministic, monotone, the nearest that they can reach, for every pair of depths."""

from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modtf.errors import ModtfError
from modtf.mapping import Assembly, Mapping, StackMapping, default_granularities, divisors
from modtf.strategies import STRATEGIES, assemblies, choose, even_assembly, even_path, size_first, speed_first

TWELVE = StackMapping(12, (2, 3, 4, 6))
DEEP = Mapping(TWELVE, TWELVE)
names = st.sampled_from(sorted(STRATEGIES))


@st.composite
def stacks(draw: st.DrawFn) -> StackMapping:
    depth = draw(st.integers(1, 13))
    chosen = draw(st.sets(st.sampled_from(divisors(depth)))) if divisors(depth) else set()
    return StackMapping(depth, tuple(chosen))


def mappings() -> st.SearchStrategy[Mapping]:
    return st.builds(Mapping, stacks(), stacks())


@st.composite
def wanted(draw: st.DrawFn) -> tuple[Mapping, float]:
    mapping = draw(mappings())
    return mapping, draw(st.floats(1, mapping.maximum_ratio))


@given(wanted(), names)
def test_valid_and_deterministic(given_: tuple[Mapping, float], name: str) -> None:
    mapping, ratio = given_
    assembly = choose(mapping, ratio, name)
    assert mapping.check(assembly) == assembly
    again = Mapping(*(StackMapping(stack.depth, stack.granularities) for stack in mapping.stacks))
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
    lengths = [stack.lengths for stack in mapping.stacks]
    if all(reached == tuple(range(reached[0], reached[-1] + 1)) for reached in lengths):
        for name in STRATEGIES:
            assert all(choose(mapping, ratio, name).ratio == pytest.approx(ratio) for ratio in mapping.ratios())


@given(mappings())
def test_speed_first_shrinks_the_encoder_last(mapping: Mapping) -> None:
    smallest = len(mapping.coarsest.decoder)
    for assembly in assemblies(mapping, "speed_first"):
        assert len(assembly.encoder) == mapping.encoder.depth or len(assembly.decoder) == smallest


@given(mappings())
def test_size_first_takes_from_the_stack_that_has_kept_more(mapping: Mapping) -> None:
    """Each step shrinks the stack that has kept the larger share, or the only one that can still shrink."""
    reached = assemblies(mapping, "size_first")
    smallest = mapping.coarsest
    for before, after in itertools.pairwise(reached):
        shrinks = (len(after.encoder) < len(before.encoder), len(after.decoder) < len(before.decoder))
        shares = (len(before.encoder) / mapping.encoder.depth, len(before.decoder) / mapping.decoder.depth)
        if shrinks == (True, False):
            assert shares[0] > shares[1] or len(before.decoder) == len(smallest.decoder)
        if shrinks == (False, True):
            assert shares[1] >= shares[0] or len(before.encoder) == len(smallest.encoder)


@given(st.integers(1, 12), st.data())
def test_even_path_is_the_most_even_of_all(depth: int, data: st.DataObject) -> None:
    stack = StackMapping(depth, default_granularities(depth))
    length = data.draw(st.sampled_from(stack.lengths))
    path = even_path(stack, length)
    assert stack.check(path) == path
    rivals = [rival for rival in stack.paths() if len(rival) == length]
    assert len(path) == length
    assert (sum(g * g for g in path), path) == min((sum(g * g for g in rival), rival) for rival in rivals)


@given(mappings(), st.data())
def test_coarse_layers_stand_first_in_the_encoder_and_last_in_the_decoder(
    mapping: Mapping, data: st.DataObject
) -> None:
    lengths = [data.draw(st.sampled_from(stack.lengths)) for stack in mapping.stacks]
    assembly = even_assembly(mapping, *lengths)
    assert mapping.check(assembly) == assembly
    assert assembly.encoder == even_path(mapping.encoder, lengths[0])[::-1]
    assert assembly.decoder == even_path(mapping.decoder, lengths[1])
    assert even_assembly(DEEP, 9, 9) == Assembly((2, 2, 2, 1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 1, 1, 2, 2, 2))


@pytest.mark.parametrize("layers", [0, 1, 13, 2.5, "6", None])
def test_lengths_that_no_path_has(layers: Any) -> None:
    with pytest.raises(ModtfError, match=rf"cannot be assembled to {layers!r} layers; choose from 2, 3, 4"):
        even_path(TWELVE, layers)


@pytest.mark.parametrize("strategy", [size_first, speed_first])
@pytest.mark.parametrize("ratio", [0, -1, 0.99, 6.1, 100, 10**400, float("inf"), float("nan")])
def test_out_of_reach(strategy: object, ratio: float) -> None:
    with pytest.raises(ModtfError, match=r"ratio .* is out of reach; .* ratios from 1 to 6"):
        strategy(DEEP, ratio)  # type: ignore[operator]


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("ratio", ["3", "x", [2], 2 + 1j, True, np.True_, Decimal(2)], ids=repr)
def test_ratios_that_are_no_numbers(name: str, ratio: Any) -> None:
    with pytest.raises(ModtfError) as raised:
        choose(DEEP, ratio, name)
    kind = type(ratio).__name__
    assert str(raised.value) == f"the ratio is {ratio!r} ({kind}); give a number from 1 to 6"


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("ratio", [3, Fraction(3), np.float32(3), np.int64(3)], ids=repr)
def test_ratios_may_be_any_real_number(name: str, ratio: Any) -> None:
    assert choose(DEEP, ratio, name) == choose(DEEP, 3.0, name)


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_ratio_is_ratio_one(name: str) -> None:
    assert choose(DEEP, None, name) == DEEP.original


@pytest.mark.parametrize("strategy", ["fastest", ["size_first"], {}, None, 2], ids=repr)
def test_unknown_strategies(strategy: Any) -> None:
    with pytest.raises(ModtfError) as raised:
        choose(DEEP, 2, strategy)
    assert str(raised.value) == f"strategy {strategy!r} is unknown; choose from size_first, speed_first"


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
        (Mapping(StackMapping(7, (7,)), StackMapping(5, (5,))), "1-1"),  # prime depths
        (Mapping(StackMapping(1), StackMapping(1)), "1-1"),  # nothing to replace
        (Mapping(StackMapping(3, (3,)), TWELVE), "1-2"),  # unequal depths
        (Mapping(StackMapping(6, (2, 3)), StackMapping(1)), "2-1"),
    ],
)
def test_odd_depths(mapping: Mapping, coarsest: str) -> None:
    for name in STRATEGIES:
        assert choose(mapping, mapping.maximum_ratio, name).shape == coarsest
        assert choose(mapping, 1, name) == mapping.original


def test_depth_one_has_only_the_original() -> None:
    with pytest.raises(ModtfError, match="ratios from 1 to 1"):
        size_first(Mapping(StackMapping(1), StackMapping(1)), 2)


def test_a_rounded_ratio_is_within_reach() -> None:
    """Where the maximum is 8 / 3, shown as 2.67, that is accepted."""
    mapping = Mapping(StackMapping(4, (2,)), StackMapping(4, (4,)))
    assert mapping.maximum_ratio == pytest.approx(8 / 3)
    assert size_first(mapping, 2.67) == mapping.coarsest


def test_off_the_way_down_may_lie_a_nearer_one() -> None:
    """As the docstring says: where lengths have gaps, the nearest of all may lie off the way down."""
    mapping = Mapping(TWELVE, StackMapping(4, (4,)))
    assert mapping.layers / 15 in mapping.ratios()
    assert size_first(mapping, 16 / 15).shape == "12-4"
