"""A draft changes how long a text takes, and nothing else: the tokens are those that the large assembly writes alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decoding import sources

import modtf
from modtf.decoding import GENERATE, LOOP, Draft, Pace, decode
from modtf.decoding.drafting import MOST, _Reader
from modtf.decoding.layouts import LAYOUTS
from modtf.decoding.loop import encode


def assert_same(large: Any, draft: Any, encoded: dict[str, torch.Tensor], length: int, exactly: bool = False) -> Any:
    expected, engine = decode(large, **encoded, max_new_tokens=length, exactly=exactly)
    assert engine == LOOP
    drafted = Draft(draft)
    tokens, engine = decode(large, **encoded, max_new_tokens=length, exactly=exactly, draft=drafted)
    assert engine == LOOP and torch.equal(tokens, expected)
    return drafted


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=60)
def test_any_assembly_drafts_for_any_other(
    modular: modtf.ModularModel, lengths: list[int], seed: int, data: Any
) -> None:
    ratios, strategies = st.sampled_from(modular.mapping.ratios()), st.sampled_from(modular.strategies)
    large, draft = (modular.assembled(modular.choose(data.draw(ratios), data.draw(strategies))) for _ in range(2))
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
    for one in drafted.passes:
        assert one.accepted == [len(guesses) for guesses in one.guesses] and len(one.accepted) == 2
        assert one.began <= one.drafted <= one.ended
    assert sum(one.accepted[0] + 1 for one in drafted.passes) == 20
    assert drafted.tokens_a_pass == 20 / len(drafted.passes)


def test_the_pace_decides_how_many() -> None:
    pace = Pace()
    assert 1 < pace.ahead() < MOST
    for what, seconds in 2 * (("guess", 0.1), ("pass", 1.2)):
        pace.took(what, seconds)
    first = pace.ahead()
    pace.found(0, 30)
    assert pace.ahead() < first, "guesses were wrong"
    pace.found(300, 300)
    assert pace.ahead() == MOST > first, "the latest ones were right"
    for _ in range(30):
        pace.took("guess", 9.0)
    pace.found(0, 300)
    assert pace.ahead() == 1


def test_the_pace_decides_whether() -> None:
    pace = Pace()
    for seconds in (9.0, 2.0):
        assert pace.drafts(), "to know how fast that is, but for the first time"
        pace.took("drafted", seconds)
    for seconds in (9.0, 1.5):
        assert not pace.drafts(), "and this"
        pace.took("alone", seconds)
    assert pace.seconds == {"drafted": 2.0, "alone": 1.5}
    assert [pace.drafts() for _ in range(5, 17)] == [False] * 11 + [True], "of sixteen one is tried the slower way"
    for _ in range(5):
        pace.took("drafted", 1.0)
    assert [pace.drafts() for _ in range(17, 33)] == [True] * 15 + [False]
    pace.took("alone", 30.0)
    assert [pace.drafts() for _ in range(33, 257)] == [True] * 223 + [False], "rarely if that is far slower"


def test_auto_leaves_out_what_does_not_pay() -> None:
    kit = modtf.load("pocket")
    texts = ["name[The Vaults], food[French]", "name[Zizzi], eatType[pub]"]
    full = kit.choose(1)
    assert kit.generate(texts, draft="auto") == kit.generate(texts)
    first, _, _, second = (kit.write(texts[:1], full, draft="auto") for _ in range(4))
    assert first.draft is not None and first.draft.passes and first.draft.tokens_a_pass > 1
    assert second.draft is not None and not second.draft.passes and second.draft.tokens_a_pass == 1
    assert second.draft.pace is first.draft.pace and second.draft.pace.seconds.keys() >= {"drafted", "alone"}
    assert first.texts == second.texts
    assert kit.write(texts[:1], kit.choose(6), draft="auto").draft is None, "it is the smallest itself"
    assert kit.generate(texts[0], draft="auto", engine=GENERATE) == kit.generate(texts[0])
    by_text = kit.write(texts[:1], str(full), draft=6)
    assert by_text.texts == first.texts == kit.write(texts[:1], draft=6).texts, "an assembly's text will do, or nothing"
    kit.model.generation_config.no_repeat_ngram_size = 9
    assert kit.write(texts[:1], full, draft="auto").engine == GENERATE
    for wrong in ("fast", 7, "encoder 6·6 | decoder 5·7"):
        with pytest.raises(
            modtf.ModtfError, match=f"the draft is {wrong!r}, no 'auto', ratio or assembly of this kit: "
        ):
            kit.generate(texts, draft=wrong)


def test_tokens_behind_the_last_position_are_not_seen(make_model: Any, family: str) -> None:
    """The longer texts of a batch are offered guesses that they have no room for."""
    length, model = 6, make_model(family).double().eval()
    encoded, tokens = (
        sources([5, 4], 3, 97),
        torch.randint(3, 97, (length, 2), generator=torch.Generator().manual_seed(0)),
    )
    with torch.inference_mode():
        layout = LAYOUTS[model.config.model_type](model, length)
        hidden = encode(layout, encoded["input_ids"], encoded["attention_mask"])
        singly, at_once = (_Reader(layout, hidden, encoded["attention_mask"], length, False) for _ in range(2))
        expected = [singly(tokens[t : t + 1], [t, t])[0] for t in range(length)]  # each (2, vocabulary)
        at_once(tokens[:4], [0, 0])
        rows = torch.stack([tokens[1:5, 0], torch.cat([tokens[4:, 1], tokens[:2, 1]])], 1)
        found = at_once(rows, [1, 4])[0].view(4, 2, -1)  # the second text ends after two of them
    torch.testing.assert_close(found[:, 0], torch.stack(expected[1:5])[:, 0])
    torch.testing.assert_close(found[:2, 1], torch.stack(expected[4:])[:, 1])


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
    for ratio, strategy in ((1, "size_first"), (2, "speed_first"), (2, "quality_first")):
        large = kit.assembled(kit.choose(ratio, strategy))
        for some in (texts, texts[:1], texts[1:]):
            drafted = assert_same(large, small, kit.encode(some), kit.longest)
            assert drafted.tokens_a_pass > 1.5


def test_generate_takes_a_draft() -> None:
    kit = modtf.load("pocket")
    texts = ["name[The Vaults], food[French], near[Café Adriatic]", "name[Zizzi], eatType[pub]"]
    for some in (texts[0], texts):
        expected = kit.generate(some, ratio=2)
        for draft in (6, "encoder 6·6 | decoder 6·6", kit.choose(6)):
            assert kit.generate(some, ratio=2, draft=draft) == expected
    written = kit.write(texts[:1], kit.choose(1), draft=6)
    assert written.engine == LOOP and written.draft is not None and written.draft.tokens_a_pass > 2
    assert written.draft.model.config.num_layers == 12, "it reads what the large one's encoder made"
    assert kit.write(texts[:1], kit.choose(1)).draft is None


def test_a_watched_text_can_be_drafted_and_stopped(modular: modtf.ModularModel) -> None:
    large, small = (modular.assembled(modular.choose(ratio)) for ratio in (1, 3))
    encoded = sources([6], 5, 97)
    for stop in (1, 4, 99):
        seen: dict[bool, list[int]] = {True: [], False: []}
        tokens = {}
        for drafted, of_this in seen.items():

            def watch(token: torch.Tensor, of_this: list[int] = of_this, stop: int = stop) -> bool:
                of_this.append(int(token))
                return len(of_this) == stop

            draft = Draft(small) if drafted else None
            tokens[drafted], _ = decode(large, **encoded, max_new_tokens=10, exactly=True, watch=watch, draft=draft)
        assert seen[True] == seen[False] and torch.equal(tokens[True], tokens[False])


def test_what_cannot_be_drafted_is_told(make_modular: Any, make_model: Any) -> None:
    modular, encoded = make_modular("bart"), sources([5], 2, 97)
    large, small = modular.assemble(), modular.assemble(ratio=3)

    def refused(words: str, model: Any = large, draft: Any = small, **options: Any) -> None:
        with pytest.raises(modtf.ModtfError, match=words):
            decode(model, **({"max_new_tokens": 9} | encoded | options), draft=Draft(draft))

    refused("drafts are for the loop; choose no engine", engine=GENERATE)
    refused("positions for 64 new tokens only", max_new_tokens=65)
    refused("another type, width or vocabulary", draft=make_model("t5"))
    refused("several texts cannot be watched", **sources([5, 4], 2, 97), watch=lambda tokens: False)
    small.train()
    refused("in the draft, a .* is in training mode")
    large.generation_config.no_repeat_ngram_size = 3
    refused("no_repeat_ngram_size; leave out the draft", draft=large)
    kit = modtf.load("pocket")
    with pytest.raises(modtf.ModtfError, match="a draft is for greedy texts, without num_beams"):
        kit.generate("name[Zizzi]", draft=6, num_beams=2)
    for wrong in (7, 0, "six", True, [6]):
        with pytest.raises(modtf.ModtfError):
            kit.generate("name[Zizzi]", draft=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["pocket", "translator"])
def test_likely_words_are_those_of_the_whole_head(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from modtf.decoding import layouts

    kit = modtf.load(name)
    text = {"pocket": "name[The Vaults], food[French]", "translator": "Ich habe den ganzen Tag auf dich gewartet."}[
        name
    ]
    model = kit.assembled(kit.choose(6))
    layout = layouts.LAYOUTS[kit.config.model_type](model, 8)
    tokens, _ = decode(model, **kit.encode([text]))
    with torch.inference_mode():
        # Not what the head reads, but as like its words as that: each word's own direction, and some noise.
        words = layout.head.weight.t()[tokens[0]]
        x = words + 0.3 * words.std() * torch.randn(words.shape, generator=torch.Generator().manual_seed(0))
        whole = layout.head(x, layout.head_bias)
        monkeypatch.setattr(layouts, "_LARGE", whole.numel() ** 3)
        assert torch.equal(layout.head.likely(x, layout.head_bias), whole), "small ones are read whole"
        monkeypatch.setattr(layouts, "_LARGE", 0)
        likely = layout.head.likely(x, layout.head_bias)
    found = likely.isfinite()
    assert (found.sum(1) == 16).all()
    torch.testing.assert_close(likely[found], whole[found], rtol=1e-4, atol=1e-4)
    assert (likely.argmax(1) == whole.argmax(1)).float().mean() > 0.8
