"""A draft changes how long a text takes, and nothing else: the tokens are those that the large assembly writes alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decoding import sources

import modtf
from modtf.decoding import LOOP, decode
from modtf.decoding.drafting import write_drafted


def assert_same(large: Any, draft: Any, encoded: dict[str, torch.Tensor], length: int, exactly: bool = False) -> Any:
    expected, engine = decode(large, **encoded, max_new_tokens=length, exactly=exactly)
    assert engine == LOOP
    with torch.inference_mode():
        tokens, drafted = write_drafted(large, draft, **encoded, length=length, exactly=exactly)
    assert torch.equal(tokens, expected)
    return drafted


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=60)
def test_any_assembly_drafts_for_any_other(
    modular: modtf.ModularModel, lengths: list[int], seed: int, data: Any
) -> None:
    ratios = st.sampled_from(modular.mapping.ratios())
    large, draft = (modular.assembled(modular.choose(data.draw(ratios))) for _ in range(2))
    ends = large.generation_config.eos_token_id
    try:
        # Some tokens that random models write, so that texts end, at different positions.
        large.generation_config.eos_token_id = data.draw(st.lists(st.integers(3, 96), min_size=1, max_size=12))
        encoded = sources(lengths, seed, 97, left=data.draw(st.booleans()))
        assert_same(large, draft, encoded, data.draw(st.integers(1, 24)), data.draw(st.booleans()))
    finally:
        large.generation_config.eos_token_id = ends


def test_a_draft_by_the_same_decoder_is_right(modular: modtf.ModularModel) -> None:
    model = modular.assembled(modular.choose(2))
    drafted = assert_same(model, model, sources([7, 3], 3, 97), 20, exactly=True)
    for ahead, right in drafted.passes:
        assert right == [ahead] * 2
    assert sum(ahead + 1 for ahead, _ in drafted.passes) == 20 and len(drafted.passes) < 6
    assert drafted.tokens_a_pass == 20 / len(drafted.passes)


def test_forced_tokens_are_written(make_modular: Any) -> None:
    modular = make_modular("bart")
    large, draft = (modular.assembled(modular.choose(ratio)) for ratio in (1, 3))
    config = large.generation_config
    config.forced_bos_token_id, config.forced_eos_token_id = 5, 6
    for length in (1, 2, 9):
        assert_same(large, draft, sources([4, 6], 1, 97), length)


@pytest.mark.parametrize("name", ["pocket", "translator"])
def test_bundled_kits_draft_for_themselves(name: str) -> None:
    kit = modtf.load(name)
    texts = {
        "pocket": ["name[The Vaults], food[French], near[Café Adriatic]", "name[Zizzi], eatType[pub]"],
        "translator": ["Wo ist der nächste Bahnhof?", "Ich habe den ganzen Tag auf dich gewartet."],
    }[name]
    small = kit.assembled(kit.choose(kit.mapping.ratios()[-1]))
    for ratio in (1, 2):
        large = kit.assembled(kit.choose(ratio))
        for some in (texts, texts[:1], texts[1:]):
            drafted = assert_same(large, small, kit.encode(some), kit.longest)
            assert drafted.tokens_a_pass > 1.5
