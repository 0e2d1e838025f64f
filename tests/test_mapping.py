"""Granularities, paths, assemblies and ratios: properties that hold for every depth."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modtf.errors import ModtfError
from modtf.mapping import (
    Assembly,
    LayerPath,
    Mapping,
    StackMapping,
    boundaries,
    default_granularities,
    divisors,
    parse_path,
    start_indices,
    write_path,
)

DEEP = StackMapping(12, (2, 3, 4, 6))


@st.composite
def stacks(draw: st.DrawFn, deepest: int = 12) -> StackMapping:
    """A depth and some of its divisors."""
    depth = draw(st.integers(1, deepest))
    chosen = draw(st.sets(st.sampled_from(divisors(depth)))) if divisors(depth) else set()
    return StackMapping(depth, tuple(chosen))


def mappings(deepest: int = 12) -> st.SearchStrategy[Mapping]:
    return st.builds(Mapping, stacks(deepest), stacks(deepest))


paths = st.lists(st.integers(1, 999), min_size=1, max_size=12).map(tuple)
assemblies = st.builds(Assembly, paths, paths)


@given(stacks())
def test_every_path_covers_the_stack(stack: StackMapping) -> None:
    found = list(stack.paths())
    assert len(found) == len(set(found)) == stack.count
    assert {stack.original, stack.coarsest} <= set(found)
    for path in found:
        assert stack.check(list(path)) == path
        starts, ends = start_indices(path), boundaries(path)
        assert ends[-1] == stack.depth
        covered = [layer for start, end in zip(starts, ends, strict=True) for layer in range(start, end)]
        assert covered == list(range(stack.depth)), "each original layer is stood for exactly once"
        assert all(start % g == 0 for g, start in zip(path, starts, strict=True))


@given(stacks(8))
def test_paths_misses_none(stack: StackMapping) -> None:
    """Against every composition of the depth, checked one by one."""

    def compositions(rest: int) -> list[LayerPath]:
        return [()] if rest == 0 else [(g, *tail) for g in range(1, rest + 1) for tail in compositions(rest - g)]

    valid = set()
    for path in compositions(stack.depth):
        with suppress(ModtfError):
            valid.add(stack.check(path))
    assert set(stack.paths()) == valid


@given(stacks())
def test_lengths_are_those_of_all_paths(stack: StackMapping) -> None:
    assert stack.lengths == tuple(sorted({len(path) for path in stack.paths()}))
    assert (stack.lengths[0], stack.lengths[-1]) == (len(stack.coarsest), stack.depth)


@given(mappings(8))
def test_counts_and_ratios(mapping: Mapping) -> None:
    encoder, decoder = (list(stack.paths()) for stack in mapping.stacks)
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


@given(st.lists(st.sampled_from((1, 2, 12)), min_size=1, max_size=12).map(tuple), st.data())
def test_a_path_is_read_in_any_spelling(path: LayerPath, data: st.DataObject) -> None:
    """Runs of one granularity written out or as ``[g]*n``, and any separator after each part."""
    text = ""
    for g, run in groupby(path):
        times = len(list(run))
        sign = data.draw(st.sampled_from(["*", "×", " * "]))
        parts = data.draw(st.sampled_from([[f"[{g}]{sign}{times}"], [str(g)] * times]))
        for part in parts:
            text += part + data.draw(st.sampled_from(["·", ",", " ", ".", ", "]))
    assert parse_path(text.rstrip("·,. ")) == parse_path(write_path(path)) == path


def test_numbers_of_the_paper() -> None:
    """12 layers with 2, 3, 4, 6."""
    assert default_granularities(12) == (2, 3, 4, 6)
    assert DEEP.count == 292
    mapping = Mapping(DEEP, DEEP)
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
        ("encoder 6,6 | decoder [2]*6", Assembly((6, 6), (2,) * 6)),
        ("encoder [2]*2, 6 | decoder [1]×12", Assembly((2, 2, 6), (1,) * 12)),
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
        "encoder [2*3] | decoder 2",
        "encoder [2] | decoder 2",
        "encoder [2]*0 | decoder 2",
        "encoder 2·2· | decoder 2",
        None,
        5,
    ],
)
def test_text_that_is_no_assembly(text: Any) -> None:
    with pytest.raises(ModtfError, match="write for example"):
        Assembly.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3x4", "'3x4' could mean 3 times granularity 4 or 4 times granularity 3; write [4]*3 or [3]*4"),
        ("12×1", "'12×1' could mean 12 times granularity 1 or 1 times granularity 12; write [1]*12 or [12]*1"),
        ("6, 2 * 3", "'2*3' could mean 2 times granularity 3 or 3 times granularity 2; write [3]*2 or [2]*3"),
        ("2x2", "'2x2' could mean 2 times granularity 2; write [2]*2"),
    ],
)
def test_repeats_that_read_two_ways_are_refused(text: str, words: str) -> None:
    with pytest.raises(ModtfError) as raised:
        parse_path(text)
    assert str(raised.value) == f"{text!r} is not a path: {words}"


@pytest.mark.parametrize(
    "path", [5, "x", "66", None, (), [], (0,), (-1, 2), (2.0,), (True,), ("2",), ((1, 1),), {2}, {2: 2}], ids=repr
)
def test_values_that_are_no_path(path: Any) -> None:
    words = f"the decoder's path is {path!r}; a path is a tuple of at least one granularity"
    with pytest.raises(ModtfError) as raised:
        Assembly((6, 6), path)
    assert words in str(raised.value)
    with pytest.raises(ModtfError, match="the encoder's path is"):
        Assembly(path, (6, 6))
    with pytest.raises(ModtfError, match="the stack's path is"):
        DEEP.check(path)


def test_lists_become_tuples() -> None:
    assembly = Assembly([6, 6], [2, 2, 2])  # type: ignore[arg-type]
    assert assembly == Assembly((6, 6), (2, 2, 2)) and hash(assembly) == hash(Assembly((6, 6), (2, 2, 2)))
    assert assembly.paths == ((6, 6), (2, 2, 2))


@pytest.mark.parametrize("value", [[(6, 6), (6, 6)], ((6, 6), (6, 6)), {"encoder": (6, 6)}, 3, None, "6·6"], ids=repr)
def test_values_that_are_no_assembly(value: Any) -> None:
    with pytest.raises(ModtfError, match=r"the assembly is .*; give a modtf.Assembly, such as Assembly\(\(6, 6\)"):
        Mapping(DEEP, DEEP).check(value)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"encoder": [6]},
        {"encoder": [6], "decoder": []},
        {"encoder": [6], "decoder": [0]},
        {"encoder": [6], "decoder": ["2"]},
        {"encoder": [6], "decoder": [True]},
        {"encoder": [6], "decoder": [2], "more": 1},
    ],
)
def test_json_that_is_no_assembly(data: object) -> None:
    with pytest.raises(ModtfError, match=r"is not an assembly; write|the (encoder|decoder)'s path is"):
        Assembly.from_json(data)


@given(stacks(), st.data())
def test_granularities_come_in_any_order_and_number(stack: StackMapping, data: st.DataObject) -> None:
    given_ = data.draw(st.permutations([1, *stack.granularities, *stack.granularities]))
    kinds: tuple[Any, ...] = (tuple, list, set, iter)
    for kind in kinds:
        same = StackMapping(stack.depth, kind(given_), "encoder")
        assert same == stack and hash(same) == hash(stack), "the name does not matter"
        assert same.granularities == tuple(sorted(set(given_) - {1}))


def test_granularities_are_checked() -> None:
    with pytest.raises(
        ModtfError, match=r"granularity 5 does not divide the decoder's 12 layers; possible: 2, 3, 4, 6, 12"
    ):
        StackMapping(12, (2, 5), "decoder")
    with pytest.raises(ModtfError, match="the stack has one layer"):
        StackMapping(1, (2,))


@pytest.mark.parametrize("granularities", [2, "23", None, 2.0], ids=repr)
def test_granularities_that_are_no_collection(granularities: Any) -> None:
    with pytest.raises(ModtfError) as raised:
        StackMapping(12, granularities, "encoder")
    words = f"the encoder's granularities are {granularities!r}, which is not a collection of numbers"
    assert str(raised.value) == f"{words}; give for example (2, 3)"


@pytest.mark.parametrize("granularity", [2.0, None, True, "2", (2,), [2]], ids=repr)
def test_granularities_that_are_no_whole_numbers(granularity: Any) -> None:
    with pytest.raises(ModtfError) as raised:
        StackMapping(12, (3, granularity), "encoder")
    words = f"the encoder's granularity {granularity!r} is not a whole number; possible: 2, 3, 4, 6, 12"
    assert str(raised.value) == words


@pytest.mark.parametrize("depth", [0, -1, 2.0, "12", None, True], ids=repr)
def test_depths_are_checked(depth: Any) -> None:
    with pytest.raises(ModtfError, match="give its number of layers, 1 or more"):
        StackMapping(depth)


def test_a_mapping_names_its_stacks_in_errors() -> None:
    mapping = Mapping(DEEP, StackMapping(6, (2,)))
    assert [stack.name for stack in mapping.stacks] == ["encoder", "decoder"]
    with pytest.raises(ModtfError, match="the decoder has no granularity 6; it has 1, 2"):
        mapping.check(Assembly((6, 6), (6,)))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ((6,), "covers 6 layers; the stack has 12"),
        ((6, 6, 6), "covers 18 layers; the stack has 12"),
        ((5, 6, 1), "path 5·6·1 is not possible: the decoder has no granularity 5; it has 1, 2, 6"),
        ((1, 2, *(1,) * 9), "granularity 2 starts at layer 1; it may start only at multiples of 2"),
    ],
)
def test_paths_are_checked(path: tuple[int, ...], words: str) -> None:
    with pytest.raises(ModtfError) as raised:
        StackMapping(12, (2, 6), "decoder").check(path)
    assert words in str(raised.value)
    assert f"decoder's path {write_path(path)}" in str(raised.value), "as it was understood"
    with pytest.raises(ModtfError) as of_mapping:
        Mapping(DEEP, StackMapping(12, (2, 6))).check(Assembly((6, 6), path))
    assert str(of_mapping.value) == str(raised.value)


# -- building by hand -----------------------------------------------------------------------------------------------

EXAMPLES = [
    StackMapping(depth, granularities)
    for depth, granularities in [
        (12, (2, 3, 4, 6)),
        (12, (2, 3, 6)),
        (12, (4, 6)),
        (6, (2, 3)),
        (4, (2, 4)),
        (5, (5,)),
        (1, ()),
    ]
]
PATHS = [(stack, path) for stack in EXAMPLES for path in stack.paths()]


@given(st.sampled_from(PATHS), st.data())
def test_splitting_keeps_the_rest_and_is_finer(example: tuple[StackMapping, LayerPath], data: st.DataObject) -> None:
    stack, path = example
    layer = data.draw(st.integers(0, stack.depth - 1))
    over = next(g for g, end in zip(path, boundaries(path), strict=True) if layer < end)
    if over == 1:
        with pytest.raises(ModtfError, match="original layer"):
            stack.split(path, layer)
        return
    finer = stack.split(path, layer)
    assert stack.check(finer) == finer
    assert len(finer) > len(path) and set(boundaries(path)) < set(boundaries(finer))


@given(st.sampled_from(PATHS), st.data())
def test_merging_takes_the_smallest_module_that_joins(
    example: tuple[StackMapping, LayerPath], data: st.DataObject
) -> None:
    stack, path = example
    layer = data.draw(st.sampled_from([0, *boundaries(path)]))
    ends = {0, *boundaries(path)}
    possible = [
        g
        for g in stack.granularities
        for start in range(0, stack.depth, g)
        if start < layer < start + g and {start, start + g} <= ends
    ]
    if not possible or layer == stack.depth:
        with pytest.raises(ModtfError, match=r"no module joins|no two layers of the path"):
            stack.merge(path, layer)
        return
    coarser = stack.merge(path, layer)
    assert stack.check(coarser) == coarser
    assert set(boundaries(coarser)) < set(boundaries(path)) and layer not in boundaries(coarser)
    start = layer - layer % min(possible)
    assert len(path) - len(coarser) == sum(start < end < start + min(possible) for end in ends)


def test_every_path_can_be_built_by_hand() -> None:
    """From the original, by merging and splitting alone, all 292 paths of 12 layers are reached."""
    reached, waiting = {DEEP.original}, [DEEP.original]
    while waiting:
        path = waiting.pop()
        for layer in range(12):
            for move in (DEEP.split, DEEP.merge):
                with suppress(ModtfError):
                    new = move(path, layer)
                    if new not in reached:
                        reached.add(new)
                        waiting.append(new)
    assert reached == set(DEEP.paths())


def test_moves_say_why_they_cannot_be() -> None:
    stack = StackMapping(12, (2, 3, 6), "encoder")
    with pytest.raises(ModtfError, match=r"the encoder has no layer 12; it has layers 0 to 11"):
        stack.split((6, 6), 12)
    with pytest.raises(ModtfError, match=r"no module joins layers 5 and 6 here \(granularities: 2, 3, 6\)"):
        stack.merge((6, 6), 6)
    with pytest.raises(ModtfError, match="no two layers of the path 6·6 meet at layer 3"):
        stack.merge((6, 6), 3)
    with pytest.raises(ModtfError, match="the encoder's path 4·4·4 is not possible"):
        stack.split((4, 4, 4), 0)
