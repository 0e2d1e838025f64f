"""The greedy loop writes what transformers' ``generate`` writes, token for token, or leaves it to that."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import T5ForConditionalGeneration

import modtf
from modtf.decoding import GENERATE, LOOP, decode, forget, obstacle, weights_stamp
from modtf.strategies import STRATEGIES
from modtf.tasks.e2e.mrs import draw_mr, write_mr


def sources(lengths: list[int], seed: int, vocabulary: int, left: bool = False) -> dict[str, torch.Tensor]:
    """Random sources of these lengths, padded to the longest."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.stack([torch.arange(max(lengths)) < length for length in lengths]).long()
    ids = torch.randint(3, vocabulary, mask.shape, generator=generator) * mask
    return {"input_ids": ids.flip(1) if left else ids, "attention_mask": mask.flip(1) if left else mask}


def assert_same(model: Any, encoded: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
    expected, by_generate = decode(model, **encoded, engine=GENERATE, **options)
    tokens, by_loop = decode(model, **encoded, **options)
    assert (by_generate, by_loop) == (GENERATE, LOOP), obstacle(model)
    assert torch.equal(tokens, expected)
    return tokens


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=30)
def test_random_models_write_the_same_tokens(
    modular: modtf.ModularModel, lengths: list[int], seed: int, data: Any
) -> None:
    assembly = modular.choose(
        data.draw(st.sampled_from(modular.mapping.ratios())), data.draw(st.sampled_from(sorted(STRATEGIES)))
    )
    encoded = sources(lengths, seed, 97, left=data.draw(st.booleans()))
    assert_same(
        modular.assembled(assembly),
        encoded,
        max_new_tokens=data.draw(st.integers(1, 20)),
        exactly=data.draw(st.booleans()),
    )


def test_rows_that_end_early_are_padded_alike(modular: modtf.ModularModel) -> None:
    model = modular.assemble(ratio=2)
    ended = 0
    for seed in range(8):
        encoded = sources([8, 5, 3, 7], seed, 97)
        model.generation_config.eos_token_id = None
        written = decode(model, **encoded, max_new_tokens=12, engine=GENERATE)[0]
        # Two rows end where they write these, the others later or never.
        model.generation_config.eos_token_id = sorted({int(written[0, 4]), int(written[1, 8])})
        tokens = assert_same(model, encoded, max_new_tokens=12)
        ended += int((tokens[:, -1] == 0).any())
    assert ended > 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pocket_writes_the_same_tokens(dtype: torch.dtype) -> None:
    import random

    modular = modtf.load("pocket").to(dtype)
    texts = [write_mr(draw_mr(random.Random(seed))) for seed in range(24)]
    for ratio in (1, 2, 6):
        model = modular.assemble(ratio=ratio)
        assert_same(model, modular.encode(texts))
        assert_same(model, modular.encode(texts[:1]))


@pytest.mark.parametrize("token", [0, 2])
def test_forced_tokens_are_written(make_model: Any, token: int) -> None:
    model = make_model("bart")
    model.generation_config.forced_bos_token_id = token
    encoded = sources([4, 6], 1, 97)
    assert (assert_same(model, encoded, max_new_tokens=6)[:, 1] == token).all()
    model.generation_config.forced_eos_token_id = token
    assert_same(model, encoded, max_new_tokens=6)


def test_models_that_name_no_end(make_model: Any) -> None:
    for family in ("bart", "t5"):
        model = make_model(family)
        model.generation_config.forced_eos_token_id = model.generation_config.eos_token_id = None
        assert assert_same(model, sources([4, 6], 1, 97), max_new_tokens=6).shape[1] == 7
        model.generation_config.pad_token_id = None
        assert assert_same(model, sources([4, 6], 1, 97), max_new_tokens=6).shape[1] == 7


def test_the_cache_grows(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modtf.decoding.loop._FIRST_POSITIONS", 3)
    for family in ("bart", "t5"):
        assert assert_same(make_model(family), sources([4, 6], 1, 97), max_new_tokens=20, exactly=True).shape[1] == 21


@pytest.mark.parametrize("wrong", [0, -1, None, "9", 1.5, True])
def test_wrong_numbers_of_tokens_are_said(make_model: Any, wrong: Any) -> None:
    with pytest.raises(modtf.ModtfError, match="whole number, 1 or more"):
        decode(make_model("t5"), **sources([4], 1, 97), max_new_tokens=wrong)


def test_biases_of_the_logits_count(make_model: Any) -> None:
    model = make_model("bart")
    encoded = sources([4, 6], 1, 97)
    before = decode(model, **encoded, max_new_tokens=6)[0]
    model.final_logits_bias[0, 50] = 1000
    assert not torch.equal(assert_same(model, encoded, max_new_tokens=6), before)


def test_scaled_embeddings_count(make_model: Any) -> None:
    assert_same(make_model("bart", scale_embedding=True), sources([4, 6], 1, 97), max_new_tokens=6)


def step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def muon_step(model: nn.Module, parameters: list[nn.Parameter]) -> None:
    from modtf.training.optimizer import MuonWithAdamW

    step(MuonWithAdamW(model, lr=0.3, adamw_lr=0.3), parameters)


@torch.no_grad()
def turn_in_place(model: Any, parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.neg_()


@torch.no_grad()
def turn_a_view(model: Any, parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.detach().view(-1).neg_()


def assign_data(model: Any, parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.data = -parameter.data


def assign_a_transposed_view(model: Any, parameters: list[nn.Parameter]) -> None:
    """The same memory and norm, read in another order."""
    for parameter in parameters:
        if parameter.ndim == 2 and parameter.shape[0] == parameter.shape[1]:
            parameter.data = parameter.data.t()


def assign_new_parameters(model: Any, parameters: list[nn.Parameter]) -> None:
    these = set(map(id, parameters))
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in these:
                setattr(module, name, nn.Parameter(-parameter.detach()))


def load_others(model: Any, parameters: list[nn.Parameter]) -> None:
    model.load_state_dict({name: -weight for name, weight in model.state_dict().items()})


#: What changes the weights of ``parameters``, all those of one of ``model``'s stacks.
WAYS: dict[str, Callable[[Any, list[nn.Parameter]], None]] = {
    "in place": turn_in_place,
    "in place, through a view": turn_a_view,
    "data assigned": assign_data,
    "a transposed view assigned": assign_a_transposed_view,
    "new parameters": assign_new_parameters,
    "load_state_dict": load_others,
    "AdamW": lambda _, parameters: step(torch.optim.AdamW(parameters, lr=0.3), parameters),
    "fused AdamW": lambda _, parameters: step(torch.optim.AdamW(parameters, lr=0.3, fused=True), parameters),
    "fused SGD": lambda _, parameters: step(torch.optim.SGD(parameters, lr=3, fused=True), parameters),
    "Muon with AdamW": muon_step,
    "another type": lambda model, _: model.double(),
}


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("way", WAYS)
def test_changed_weights_are_seen(make_model: Any, family: str, way: str, stack: str) -> None:
    """Laid-out weights are kept, but old ones must not be in use after weights have changed in whatever way."""
    model, encoded = make_model(family), sources([6, 4], 5, 97)
    before = [assert_same(model, encoded, max_new_tokens=10), weights_stamp(model.parameters())]
    WAYS[way](model, list(getattr(model, f"get_{stack}")().parameters()))
    after = [assert_same(model, encoded, max_new_tokens=10), weights_stamp(model.parameters())]
    assert way == "another type" or not torch.equal(after[0], before[0]), "a change that changes no token shows nothing"
    assert after[1] != before[1]


def test_what_is_written_past_pytorch_can_be_forgotten(modular: modtf.ModularModel) -> None:
    """Nothing counts writes through ``.data``; with the sign alone changed, the norms of the weights stay, too."""
    model = copy.deepcopy(modular).assemble(ratio=2)
    encoded = sources([6, 4], 5, 97)
    before, stamp = assert_same(model, encoded, max_new_tokens=10), weights_stamp(model.parameters())
    for parameter in model.get_decoder().parameters():
        parameter.data.neg_()
    assert weights_stamp(model.parameters()) == stamp
    forget()
    assert weights_stamp(model.parameters()) != stamp
    assert not torch.equal(assert_same(model, encoded, max_new_tokens=10), before)


def test_memory_that_is_used_again_does_not_pass_for_unchanged() -> None:
    weight = nn.Parameter(torch.randn(64, 64))
    stamps = [weights_stamp([weight])]
    addresses = {weight.data_ptr()}
    for _ in range(20):
        weight.data = -weight.data
        stamps.append(weights_stamp([weight]))
        addresses.add(weight.data_ptr())
    assert len(set(stamps)) == len(stamps) > len(addresses), "every stamp is new, though addresses come back"


def test_weights_made_in_inference_mode_are_seen_to_change(make_model: Any, family: str) -> None:
    encoded = sources([6, 4], 5, 97)
    with torch.inference_mode():
        model = make_model(family)
        before = assert_same(model, encoded, max_new_tokens=10)
        turn_in_place(model, list(model.get_decoder().parameters()))
        assert not torch.equal(assert_same(model, encoded, max_new_tokens=10), before)


def test_another_activation_is_seen(modular: modtf.ModularModel) -> None:
    """It belongs to one assembly, whose weights are those of others."""
    small, other, encoded = modular.assemble(ratio=2), modular.assemble(ratio=2), sources([6, 4], 5, 97)
    before = assert_same(small, encoded, max_new_tokens=10)
    for module in small.get_decoder().modules():
        for name in ("act", "activation_fn"):
            if hasattr(module, name):
                setattr(module, name, nn.LeakyReLU(-5.0).eval())
    assert not torch.equal(assert_same(small, encoded, max_new_tokens=10), before)
    assert torch.equal(assert_same(other, encoded, max_new_tokens=10), before)


class Operations(TorchDispatchMode):
    """Counts what is done with tensors."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_a_stamp_reads_no_weights_and_holds_none() -> None:
    weight = nn.Parameter(torch.randn(64, 64))
    with Operations() as operations:
        stamp = weights_stamp([weight])
        assert stamp == weights_stamp([weight]) and hash(stamp) == hash(weights_stamp([weight]))
    assert operations.count == 0
    gone = weakref.ref(weight)
    del weight
    assert gone() is None and stamp != weights_stamp([nn.Parameter(torch.randn(64, 64))])


def test_assemblies_share_what_is_laid_out_and_free_it(make_modular: Any, family: str) -> None:
    from modtf.decoding.weights import _remembered

    gc.collect()
    before = set(map(id, _remembered.values()))
    modular, encoded = make_modular(family), sources([6], 5, 97)

    def laid_out(modular: modtf.ModularModel) -> set[int]:
        for ratio in (1, 2):
            decode(modular.assemble(ratio=ratio), **encoded, max_new_tokens=2)
        return set(map(id, _remembered.values())) - before

    first = laid_out(modular)
    assert len(first) == 2 * (6 + 3) + 1 and laid_out(modular) == first, "nine layers of each stack and the head, once"
    del modular
    gc.collect()
    assert set(map(id, _remembered.values())) <= before


def test_watching_and_stopping(modular: modtf.ModularModel) -> None:
    model = modular.assemble()
    encoded = sources([6, 3], 5, 97)
    for engine in (LOOP, GENERATE):
        seen: list[torch.Tensor] = []

        def watch(tokens: torch.Tensor, seen: list[torch.Tensor] = seen) -> bool:
            seen.append(tokens.clone())
            return len(seen) == 4

        tokens, _ = decode(model, **encoded, max_new_tokens=10, exactly=True, engine=engine, watch=watch)
        assert tokens.shape[1] == 5 and torch.equal(tokens[:, 1:], torch.stack(seen, 1))


def test_what_the_loop_does_not_know_goes_to_generate(make_model: Any, make_modular: Any) -> None:
    encoded = sources([5], 2, 97)
    bart = make_model("bart")
    assert obstacle(bart) == ""
    assert "positions" in obstacle(bart, max_new_tokens=65)
    bart.generation_config.no_repeat_ngram_size = 3
    assert "no_repeat_ngram_size" in obstacle(bart)
    assert decode(bart, **encoded, max_new_tokens=3)[1] == GENERATE
    with pytest.raises(modtf.ModtfError, match="no_repeat_ngram_size"):
        decode(bart, **encoded, engine=LOOP)
    for wrong in ("quick", 5, ["loop"]):
        with pytest.raises(modtf.ModtfError, match="'loop' or 'generate'"):
            decode(bart, **encoded, engine=wrong)  # type: ignore[arg-type]
    half = make_model("t5").to(torch.bfloat16)
    assert "half precision" in obstacle(half)
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in obstacle(make_model("t5"))


class Adapter(nn.Linear):
    """What an adapter library puts in a linear layer's place."""


class Other(T5ForConditionalGeneration):
    """A model with a forward of its own, perhaps."""


def hooked(module: nn.Module) -> None:
    module.register_forward_hook(lambda module, inputs, output: None)


CHANGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "an adapter": (
        "Adapter",
        lambda m: setattr(m.decoder.block[1].layer[1].EncDecAttention, "v", Adapter(16, 16, bias=False)),
    ),
    "another norm": ("LayerNorm", lambda m: setattr(m.decoder.block[1].layer[1], "layer_norm", nn.LayerNorm(16))),
    "no part": ("Identity", lambda m: setattr(m.decoder.block[1].layer, "2", nn.Identity())),
    "a subclass": ("Other", lambda m: setattr(m, "__class__", Other)),
    "a hook of a layer": ("hook", lambda m: hooked(m.decoder.block[1].layer[1].EncDecAttention.v)),
    "a hook of the model": ("hook", hooked),
    "a hook in the encoder": ("hook", lambda m: hooked(m.encoder.block[1].layer[0])),
    "an adapter in the encoder": (
        "Adapter",
        lambda m: setattr(m.encoder.block[1].layer[0].SelfAttention, "v", Adapter(16, 16, bias=False)),
    ),
    "an encoder in training": ("training mode", lambda m: m.encoder.train()),
    "a forward of its own": (
        "forward of its own",
        lambda m: setattr(m.decoder.block[0], "forward", m.decoder.block[0].forward),
    ),
    "training": ("training mode", lambda m: m.train()),
    "a part in training": ("training mode", lambda m: m.decoder.block[1].train()),
    "a bias": (
        "biases",
        lambda m: setattr(m.decoder.block[0].layer[0].SelfAttention.q, "bias", nn.Parameter(torch.zeros(16))),
    ),
    "a bias of the head": ("biases", lambda m: setattr(m.lm_head, "bias", nn.Parameter(torch.zeros(97)))),
    "elsewhere": ("one device", lambda m: m.decoder.to("meta")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_models_go_to_generate(make_model: Any, name: str) -> None:
    model = make_model("t5")
    assert obstacle(model) == ""
    words, change = CHANGES[name]
    change(model)
    assert words in obstacle(model)


def test_a_later_generation_configuration_counts(make_modular: Any) -> None:
    modular = make_modular("bart")
    coarsest, encoded = modular.mapping.coarsest, sources([5], 2, 97)
    before = decode(modular.assembled(coarsest), **encoded, max_new_tokens=5)[0]
    modular.generation_config.forced_bos_token_id = 77
    assert before[0, 1] != 77 and decode(modular.assembled(coarsest), **encoded, max_new_tokens=5)[0][0, 1] == 77


def test_a_row_of_padding_alone_goes_to_generate(make_model: Any) -> None:
    encoded = sources([5, 4], 2, 97)
    encoded["attention_mask"][1] = 0
    assert decode(make_model("t5"), **encoded, max_new_tokens=3)[1] == GENERATE


def test_the_modular_models_texts_say_nothing_of_the_engine() -> None:
    modular = modtf.load("pocket")
    texts = ["name[Zizzi], food[Thai]", "name[The Mill], eatType[pub], area[riverside]"]
    assert modular.generate(texts, ratio=2) == modular.generate(texts, ratio=2, engine=GENERATE)
    assert modular.generate(texts[0], ratio=2, num_beams=3)
    assert modular.generate(texts[0], ratio=2, max_new_tokens=None, max_length=20)
    with pytest.raises(modtf.ModtfError, match=r"not num_beams;"):
        modular.generate(texts, ratio=2, num_beams=3, max_new_tokens=9, engine=LOOP)
    with pytest.raises(modtf.ModtfError, match="unknown"):
        modular.generate(texts, ratio=2, num_beams=3, engine="quick")
