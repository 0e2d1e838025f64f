"""Notebook 1: checks of its exercises, the builder of paths, figures, and a model that runs through a learner's list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import modtf
from modtf.course import mapping as course
from modtf.mapping import StackMapping, start_indices

TWELVE = StackMapping(12, (2, 3, 4, 6))


def test_checks_accept_solutions() -> None:
    course.check_covers(lambda g, j: range(j * g, (j + 1) * g))
    course.check_layers(course.layers)
    course.check_count_paths(lambda depth, granularities: StackMapping(depth, granularities).count)


def by_place(originals: Any, banks: Any, path: Any) -> list[Any]:
    """Counts the layers of the path, not the originals that they stand for."""
    return [originals[i] if g == 1 else banks[g][i // g] for i, g in enumerate(path)]


def next_of_bank(originals: Any, banks: Any, path: Any) -> list[Any]:
    """Takes the modules of each bank in turn."""
    turns = {g: iter(bank) for g, bank in banks.items()} | {1: iter(originals)}
    return [next(turns[g]) for g in path]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (lambda originals, banks, path: None, "gives nothing back yet"),
        (by_place, r"path 2·2·2·2·2·2, the layer at place 1 .* so it is m\(2, 1\); yours is m\(2, 0\)"),
        (next_of_bank, r"path 1·1·2·2·6, the layer at place 2 .* begins at original layer 2, so it is m\(2, 1\)"),
        (lambda o, b, path: [b[g][s] for g, s in zip(path, start_indices(path), strict=True)], "banks has no 1"),
        (lambda originals, banks, path: originals, "has 6 layers; your list has 12"),
    ],
)
def test_check_of_layers_names_the_fault(layers: Callable[..., Any], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        course.check_layers(layers)


def test_other_checks_name_the_fault() -> None:
    with pytest.raises(AssertionError, match="which columns does m"):
        course.check_covers(lambda g, j: range(j, j + g))
    with pytest.raises(AssertionError, match="begin at any layer"):
        course.check_count_paths(lambda depth, granularities: {2: 2, 4: 5}.get(depth, 0))
    with pytest.raises(AssertionError, match="gives nothing back yet"):
        course.check_count_paths(lambda depth, granularities: None)

    def without_six(depth: int, granularities: tuple[int, ...]) -> int:
        return course.ways_to_cover(depth, [g for g in granularities if g != 6])[depth]

    with pytest.raises(AssertionError, match=r"\(2, 3, 4, 6\), 6 layers have 16 paths; yours are 15"):
        course.check_count_paths(without_six)


def test_a_model_runs_through_a_learners_list() -> None:
    pocket = modtf.load("pocket")
    assembly = modtf.Assembly((1, 1, 2, 2, 6), (2, 1, 3, 6))
    batch = pocket.encode(["name[The Vaults], food[French]"]) | {"decoder_input_ids": torch.tensor([[0, 5]])}
    asked: list[Any] = []

    def learners(originals: Any, banks: Any, path: Any) -> list[Any]:
        asked.append(path)
        return course.layers(originals, banks, path)

    with torch.no_grad(), course.through(pocket, learners) as ran:
        logits = pocket(assembly, **batch).logits
    assert ran["encoder"] == ["original 0", "original 1", "m(2, 1)", "m(2, 2)", "m(6, 1)"]
    assert ran["decoder"] == ["m(2, 0)", "original 2", "m(3, 1)", "m(6, 1)"]
    assert set(asked) == set(assembly.paths)
    with torch.no_grad():
        assert torch.equal(logits, pocket.assemble(assembly=assembly)(**batch).logits)
    assert all("layers" not in vars(stack) and not stack.originals[0]._forward_hooks for stack in pocket.stacks)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 1 2 2 6", "ratio, beside 12 originals in the other stack: 24 / 17 = <b>1.41x</b>"),
        ("", "covers 0 of 12"),
        ("1 1 2", "Not at the end yet. At layer 4 may begin: an original, m(2, 2), m(4, 1)"),
        ("1 2", "granularity 2 starts at layer 1"),
        ("6 6 6", "covers 18 layers"),
        ("5", "has no granularity 5"),
        ("1 1 x", "is not a granularity"),
    ],
)
def test_builder_says_what_a_text_is(text: str, words: str) -> None:
    assert words in course.path_html(TWELVE, text, other=12)


def test_builder_of_paths() -> None:
    builder = course.PathBuilder(TWELVE, 12, course.check_four_kinds)
    row, text, _, judged = builder.widget.children
    buttons = {button.description: button for button in row.children}
    for words in ("m(2, ·)", "original", "original", "take back", "m(3, ·)"):
        buttons[words].click()
    assert text.value == "2 1 3" and "first build a path" in judged.value
    buttons["m(6, ·)"].click()
    assert "solves the challenge" in judged.value
    text.value = "6 6"
    assert "four layers are wanted; yours has 2" in judged.value
    buttons["empty"].click()
    assert text.value == ""


@pytest.mark.parametrize("stack", [TWELVE, StackMapping(6, (2, 3)), StackMapping(6, (2, 3, 6))])
def test_ways_to_cover_are_the_paths(stack: StackMapping) -> None:
    ways = course.ways_to_cover(stack.depth, stack.granularities)
    assert ways[stack.depth] == len(list(stack.paths()))
    for n in range(1, stack.depth + 1):  # what stands left of a cut at n is one of the ways to get there
        begun = {path[:k] for path in stack.paths() for k in range(len(path) + 1) if sum(path[:k]) == n}
        assert ways[n] == len(begun)


def test_figures_have_titles_and_words() -> None:
    figures = [
        course.all_banks(TWELVE),
        course.one_module(4, 5),
        course.one_path((6, 6)),
        course.count_by_length(TWELVE.paths()),
    ]
    table = {
        "rows": [
            {"trained": True, "strategy": "size_first", "ratio": r, "parameters": 12 // r, "speed_up": r}
            for r in (1, 2)
        ]
    }
    for figure in (*figures, course.three_ratios(table)):
        assert len(figure.layout.meta["alt"].split()) >= 8 and figure.layout.title.text
    assert "m(4, 2) stands for the original layers 8 to 11" in course.one_module(4, 5).layout.title.text
