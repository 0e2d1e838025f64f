"""Granularities, paths, assemblies and ratios: properties that hold for every depth."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modtf.errors import ModtfError
from modtf.mapping import (
    Assembly,
    Mapping,
    all_paths,
    boundaries,
    check_granularities,
    check_path,
    default_granularities,
    divisors,
    merge,
    parse_path,
    path_lengths,
    split,
    write_path,
)


@st.composite
def stacks(draw: st.DrawFn, deepest: int = 12) -> tuple[int, tuple[int, ...]]:
    """A depth and some of its divisors."""
    depth = draw(st.integers(1, deepest))
    chosen = draw(st.sets(st.sampled_from(divisors(depth)))) if divisors(depth) else set()
    return depth, tuple(sorted(chosen))


@st.composite
def mappings(draw: st.DrawFn, deepest: int = 12) -> Mapping:
    (encoder, of_encoder), (decoder, of_decoder) = draw(stacks(deepest)), draw(stacks(deepest))
    return Mapping(encoder, decoder, of_encoder, of_decoder)


paths = st.lists(st.integers(1, 999), min_size=1, max_size=12).map(tuple)
assemblies = st.builds(Assembly, paths, paths)


@given(stacks())
def test_every_path_covers_the_stack(stack: tuple[int, tuple[int, ...]]) -> None:
    depth, granularities = stack
    found = list(all_paths(depth, granularities))
    assert len(found) == len(set(found))
    for path in found:
        assert check_path(list(path), depth, granularities, "encoder") == path
        ends = boundaries(path)
        assert ends[-1] == depth
        covered = [layer for g, end in zip(path, ends, strict=True) for layer in range(end - g, end)]
        assert covered == list(range(depth)), "each original layer is stood for exactly once"
        assert all((end - g) % g == 0 for g, end in zip(path, ends, strict=True))


@given(stacks(8))
def test_all_paths_misses_none(stack: tuple[int, tuple[int, ...]]) -> None:
    """Against every composition of the depth, checked one by one."""
    depth, granularities = stack

    def compositions(rest: int) -> list[tuple[int, ...]]:
        return [()] if rest == 0 else [(g, *tail) for g in range(1, rest + 1) for tail in compositions(rest - g)]

    valid = set()
    for path in compositions(depth):
        try:
            valid.add(check_path(path, depth, granularities, "decoder"))
        except ModtfError:
            continue
    assert set(all_paths(depth, granularities)) == valid


@given(stacks())
def test_path_lengths_are_those_of_all_paths(stack: tuple[int, tuple[int, ...]]) -> None:
    lengths = path_lengths(*stack)
    assert lengths == tuple(sorted({len(path) for path in all_paths(*stack)}))


@given(mappings(8))
def test_counts_and_ratios(mapping: Mapping) -> None:
    encoder = list(all_paths(mapping.encoder_depth, mapping.encoder_granularities))
    decoder = list(all_paths(mapping.decoder_depth, mapping.decoder_granularities))
    assert mapping.count_assemblies() == len(encoder) * len(decoder)
    assert mapping.ratios() == tuple(sorted({Assembly(e, d).ratio for e in encoder for d in decoder}))
    assert mapping.ratios()[0] == 1.0 == mapping.original.ratio
    assert mapping.ratios()[-1] == mapping.maximum_ratio == mapping.coarsest.ratio
    assert mapping.coarsest.layers == min(map(len, encoder)) + min(map(len, decoder))
    assert mapping.check(mapping.original) == mapping.original
    assert mapping.check(mapping.coarsest) == mapping.coarsest


@given(assemblies)
def test_text_and_json_round_trips(assembly: Assembly) -> None:
    assert Assembly.parse(str(assembly)) == assembly
    assert Assembly.from_json(json.loads(json.dumps(assembly.to_json()))) == assembly
    assert parse_path(write_path(assembly.encoder)) == assembly.encoder


def test_numbers_of_the_paper() -> None:
    """12 layers with 2, 3, 4, 6, as in the issue."""
    assert default_granularities(12) == (2, 3, 4, 6)
    assert len(list(all_paths(12, (2, 3, 4, 6)))) == 292
    mapping = Mapping(12, 12, (2, 3, 4, 6), (2, 3, 4, 6))
    assert mapping.maximum_ratio == 6
    assert {1, 24 / 18, 1.5, 2, 3, 4, 6} <= set(mapping.ratios())
    assembly = Assembly((2, 2, 2, 2, 2, 2), (6, 6))
    assert (assembly.shape, assembly.layers, assembly.ratio) == ("6-2", 8, 3.0)


@pytest.mark.parametrize(
    ("depth", "expected"), [(1, ()), (2, (2,)), (3, (3,)), (4, (2,)), (6, (2, 3)), (7, (7,)), (24, (2, 3, 4, 6, 8, 12))]
)
def test_default_granularities(depth: int, expected: tuple[int, ...]) -> None:
    assert default_granularities(depth) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("encoder 6,6 | decoder 2x6", Assembly((6, 6), (2,) * 6)),
        ("encoder 2x2 6 | decoder 1×12", Assembly((2, 2, 6), (1,) * 12)),
        ("  encoder 3.3|decoder 2·2·2  ", Assembly((3, 3), (2, 2, 2))),
    ],
)
def test_other_spellings(text: str, expected: Assembly) -> None:
    assert Assembly.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "6·6",
        "encoder 6·6",
        "encoder | decoder 2",
        "encoder 0 | decoder 2",
        "encoder 6·a | decoder 2",
        "encoder 2xx3 | decoder 2",
    ],
)
def test_text_that_is_no_assembly(text: str) -> None:
    with pytest.raises(ModtfError, match="write for example"):
        Assembly.parse(text)


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"encoder": [6]}, {"encoder": [6], "decoder": []}, {"encoder": [6], "decoder": [0]}, {"encoder": [6], "decoder": ["2"]},
     {"encoder": [6], "decoder": [True]}, {"encoder": [6], "decoder": [2], "more": 1}],
)  # fmt: skip
def test_json_that_is_no_assembly(data: object) -> None:
    with pytest.raises(ModtfError, match="is not an assembly"):
        Assembly.from_json(data)


def test_granularities_are_checked() -> None:
    assert check_granularities([6, 2, 2], 12, "encoder") == (2, 6)
    with pytest.raises(
        ModtfError, match=r"granularity 5 does not divide the decoder's 12 layers; possible are 2, 3, 4, 6, 12"
    ):
        check_granularities((2, 5), 12, "decoder")
    with pytest.raises(ModtfError, match="the stack has one layer"):
        check_granularities((2,), 1, "encoder")
    with pytest.raises(ModtfError, match="granularity 4 does not divide the decoder's 6 layers"):
        Mapping(4, 6, (4,), (4,))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ((6,), "covers 6 layers; the stack has 12"),
        ((6, 6, 6), "covers 18 layers; the stack has 12"),
        ((), "(empty) covers 0 layers"),
        ((5, 6, 1), "has no granularity 5; it has 1, 2, 6"),
        ((1, 2, *(1,) * 9), "granularity 2 starts at layer 1; it may start only at multiples of 2"),
    ],
)
def test_paths_are_checked(path: tuple[int, ...], words: str) -> None:
    with pytest.raises(ModtfError) as raised:
        check_path(path, 12, (2, 6), "decoder")
    assert words in str(raised.value)
    assert "decoder" in str(raised.value)
    with pytest.raises(ModtfError):
        Mapping(12, 12, (2, 6), (2, 6)).check(Assembly((6, 6), path))


# -- building by hand --------------------------------------------------------------------------------------------------------

EXAMPLES = [(12, (2, 3, 4, 6)), (12, (2, 3, 6)), (12, (4, 6)), (6, (2, 3)), (4, (2, 4)), (5, (5,)), (1, ())]
PATHS = [(path, granularities) for depth, granularities in EXAMPLES for path in all_paths(depth, granularities)]


@given(st.sampled_from(PATHS), st.data())
def test_splitting_keeps_the_rest_and_is_finer(
    example: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    path, granularities = example
    layer = data.draw(st.integers(0, sum(path) - 1))
    over = next(g for g, end in zip(path, boundaries(path), strict=True) if layer < end)
    if over == 1:
        with pytest.raises(ModtfError, match="original layer"):
            split(path, layer, granularities)
        return
    finer = split(path, layer, granularities)
    assert check_path(finer, sum(path), granularities, "encoder") == finer
    assert len(finer) > len(path) and set(boundaries(path)) < set(boundaries(finer))


@given(st.sampled_from(PATHS), st.data())
def test_merging_takes_the_smallest_module_that_joins(
    example: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    path, granularities = example
    layer = data.draw(st.sampled_from([0, *boundaries(path)]))
    ends = {0, *boundaries(path)}
    possible = [
        g for g in granularities for start in range(0, sum(path), g) if start < layer < start + g and {start, start + g} <= ends
    ]  # fmt: skip
    if not possible or layer == sum(path):
        with pytest.raises(ModtfError, match=r"no module joins|no block"):
            merge(path, layer, granularities)
        return
    coarser = merge(path, layer, granularities)
    assert check_path(coarser, sum(path), granularities, "encoder") == coarser
    assert set(boundaries(coarser)) < set(boundaries(path)) and layer not in boundaries(coarser)
    assert len(path) - len(coarser) == sum(
        layer - layer % min(possible) < end < layer - layer % min(possible) + min(possible) for end in ends
    )


def test_every_path_can_be_built_by_hand() -> None:
    """From the original, by merging and splitting alone, all 292 paths of 12 layers are reached."""
    granularities = (2, 3, 4, 6)
    reached, waiting = {(1,) * 12}, [(1,) * 12]
    while waiting:
        path = waiting.pop()
        for layer in range(12):
            for move in (split, merge):
                with suppress(ModtfError):
                    new = move(path, layer, granularities)
                    if new not in reached:
                        reached.add(new)
                        waiting.append(new)
    assert reached == set(all_paths(12, granularities))


def test_moves_say_why_they_cannot_be() -> None:
    with pytest.raises(ModtfError, match=r"no layer 12; the path 6·6 covers layers 0 to 11"):
        split((6, 6), 12, (6,))
    with pytest.raises(ModtfError, match="modules of 2, 3, 6 layers"):
        merge((6, 6), 6, (2, 3, 6))
    with pytest.raises(ModtfError, match="no block of the path 6·6 begins at layer 3"):
        merge((6, 6), 3, (2, 3, 6))
