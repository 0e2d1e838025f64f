"""Contracts with transformers: each trap of the design, on T5, T5 v1.1's shape and BART, with tiny random models."""

from __future__ import annotations

import copy
import time
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    BartForCausalLM,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

import modtf
from modtf.architectures import set_attention, stacks_of
from modtf.errors import ModtfError
from modtf.layers import ModularStack, new_bank
from modtf.mapping import Assembly, Mapping, StackMapping
from modtf.strategies import STRATEGIES

Batch = dict[str, torch.Tensor]
SIX = list(StackMapping(6, (2, 3)).paths())
RATIOS = (1, 1.2, 1.5, 2, 3)
CHOICES = [
    (strategy, ratio) for strategy in sorted(STRATEGIES) for ratio in RATIOS if ratio > 1 or strategy == "size_first"
]
#: At least this many tokens: outputs that stop at once would hide differences.
GREEDY = {"do_sample": False, "num_beams": 1, "max_new_tokens": 8, "min_new_tokens": 8}


def sources(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def layers_of(model: PreTrainedModel) -> tuple[Any, Any]:
    name = "layers" if model.config.model_type == "bart" else "block"
    return tuple(getattr(stack, name) for stack in stacks_of(model))


def attentions_of(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if type(m).__name__ in ("T5Attention", "BartAttention")]


def layer_indices(layer: nn.Module) -> set[int]:
    return {m.layer_idx for m in layer.modules() if "layer_idx" in m.__dict__}


@torch.no_grad()
def logits(model: nn.Module, batch: Batch, **options: Any) -> torch.Tensor:
    return model(**batch, **options).logits


# -- the original, and what shares its weights -------------------------------------------------------------------------


def test_all_original_assembly_is_bit_identical(family: str, make_model: Any, batch: Batch) -> None:
    original = make_model(family)
    before, tokens = logits(original, batch), original.generate(**sources(batch), **GREEDY)
    modular = modtf.modularize(original)
    small = modular.assemble(ratio=1)
    assert type(small) is (BartForConditionalGeneration if family == "bart" else T5ForConditionalGeneration)
    assert torch.equal(logits(small, batch), before)
    assert torch.equal(logits(small, batch, use_cache=False), before)
    assert torch.equal(logits(modular, batch), before), "the path of all originals, through the stacks themselves"
    assert torch.equal(small.generate(**sources(batch), **GREEDY), tokens)


def test_new_banks_begin_as_the_first_layer_that_they_stand_for(family: str, make_model: Any, batch: Batch) -> None:
    """So an untrained assembly is the original with layers left out: checked against a model that really has fewer."""
    original = make_model(family)
    reference = copy.deepcopy(original)
    small = modtf.modularize(original).assemble(assembly=Assembly((2, 2, 2), (3, 3)))
    for layers, kept in zip(layers_of(reference), ((0, 2, 4), (0, 3)), strict=True):
        chosen = [layers[i] for i in kept]
        while len(layers):
            del layers[0]
        layers.extend(chosen)
    assert torch.equal(logits(small, batch, use_cache=False), logits(reference, batch, use_cache=False))


def test_no_weight_is_copied(family: str, modular: modtf.ModularModel) -> None:
    own = {p.data_ptr() for p in modular.parameters()} | {b.data_ptr() for b in modular.buffers()}
    parameters = {id(p) for p in modular.parameters()}
    for strategy, ratio in CHOICES:
        small = modular.assemble(ratio, strategy)
        assert {p.data_ptr() for p in small.parameters()} <= own
        assert {b.data_ptr() for b in small.buffers()} <= own
        assert {id(p) for p in small.parameters()} <= parameters, (
            "the very same parameters, so training is seen at once"
        )


def test_which_layers_an_assembly_is_made_of(modular: modtf.ModularModel) -> None:
    small = modular.assemble(assembly="encoder 1·1·2·2 | decoder 3·1·2")
    expected = (
        [
            modular.stacks[0].originals[0],
            modular.stacks[0].originals[1],
            modular.stacks[0].banks["2"][1],
            modular.stacks[0].banks["2"][2],
        ],
        [modular.stacks[1].banks["3"][0], modular.stacks[1].originals[3], modular.stacks[1].banks["2"][2]],
    )
    for layers, sources_ in zip(layers_of(small), expected, strict=True):
        assert len(layers) == len(sources_)
        for layer, source in zip(layers, sources_, strict=True):
            assert layer is not source
            assert {n: p.data_ptr() for n, p in layer.named_parameters()} == {
                n: p.data_ptr() for n, p in source.named_parameters()
            }
    assert small.assembly == Assembly((1, 1, 2, 2), (3, 1, 2))


def test_several_assemblies_live_independently(modular: modtf.ModularModel, batch: Batch) -> None:
    chosen = [
        Assembly((1,) * 6, (3, 3)),
        Assembly((3, 3), (1,) * 6),
        Assembly((2, 2, 2), (2, 2, 2)),
        Assembly((2, 2, 2), (2, 2, 2)),
    ]
    alive = [modular.assemble(assembly=assembly) for assembly in chosen]
    alone = [logits(model, batch) for model in alive]
    assert torch.equal(alone[2], alone[3])
    assert len({tuple(out.flatten().tolist()) for out in alone}) == 3, "assemblies differ"
    for model, expected in zip(alive[::-1], alone[::-1], strict=True):
        assert torch.equal(logits(model, batch), expected)
    for a, b in zip(alive, [*alive[1:], modular.model], strict=True):
        assert not {id(m) for m in a.modules()} & {id(m) for m in b.modules()}
        configs = [{id(m.config) for m in x.modules() if hasattr(m, "config")} for x in (a, b)]
        assert not configs[0] & configs[1]
        assert a.generation_config is not b.generation_config
    alive[0].train()
    alive[0].config.vocab_size = alive[0].generation_config.max_length = 5
    assert not any(m.training for m in alive[2].modules())
    assert not any(m.training for m in modular.modules())
    assert modular.config.vocab_size == alive[2].config.vocab_size == 97
    assert modular.generation_config.max_length != 5


def test_layer_idx_counts_from_zero_without_gaps(modular: modtf.ModularModel) -> None:
    for strategy, ratio in CHOICES:
        small = modular.assemble(ratio, strategy)
        for layers in layers_of(small):
            for position, layer in enumerate(layers):
                assert layer_indices(layer) <= {position}
        assert [layer_indices(layer) for layer in layers_of(small)[1]] == [{i} for i in range(len(layers_of(small)[1]))]
    assert [layer_indices(layer) for layer in modular.stacks[1].originals] == [{i} for i in range(6)], (
        "the original's stay"
    )


def test_training_of_banks_is_seen_by_living_assemblies(family: str, make_modular: Any, batch: Batch) -> None:
    modular = make_modular(family)
    small, original = modular.assemble(ratio=3), modular.assemble()
    before, before_original = logits(small, batch), logits(original, batch)
    trained = [p for p in modular.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    modular(small.assembly, **batch).loss.backward()
    optimizer.step()
    after = logits(small, batch)
    assert not torch.equal(after, before)
    assert torch.equal(after, logits(modular.assemble(ratio=3), batch))
    assert torch.equal(logits(original, batch), before_original)


# -- generation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "ratio"), CHOICES)
def test_cached_equals_uncached(modular: modtf.ModularModel, batch: Batch, strategy: str, ratio: float) -> None:
    small = modular.assemble(ratio, strategy)
    cached = small.generate(**sources(batch), **GREEDY, use_cache=True)
    assert torch.equal(cached, small.generate(**sources(batch), **GREEDY, use_cache=False))
    # ... and both are what the logits of one forward pass over the whole text say
    forward = logits(small, sources(batch) | {"decoder_input_ids": cached[:, :-1]}, use_cache=False)
    forward[..., small.config.eos_token_id] = -torch.inf  # min_new_tokens
    assert torch.equal(forward.argmax(-1)[:, :7], cached[:, 1:8])


def test_static_cache(modular: modtf.ModularModel, batch: Batch) -> None:
    """A cache of fixed size has no room for layers that count with gaps."""
    for strategy in STRATEGIES:
        small = modular.assemble(2, strategy)
        expected = small.generate(**sources(batch), **GREEDY)
        assert torch.equal(
            small.generate(**sources(batch), **GREEDY, cache_implementation="static", disable_compile=True), expected
        )


def test_assemblies_write_different_texts(modular: modtf.ModularModel, batch: Batch) -> None:
    """The other tests of generation could not fail if all wrote the same."""
    written = [
        tuple(modular.assemble(ratio, strategy).generate(**sources(batch), **GREEDY).flatten().tolist())
        for strategy, ratio in CHOICES
    ]
    distinct = {modular.choose(ratio, strategy) for strategy, ratio in CHOICES}
    assert len(set(written)) == len(distinct) >= 6


@pytest.mark.parametrize(
    ("strategy", "ratio"), [("size_first", 1), ("size_first", 2), ("speed_first", 1.5), ("speed_first", 3)]
)
def test_beam_search(modular: modtf.ModularModel, batch: Batch, strategy: str, ratio: float) -> None:
    small = modular.assemble(ratio, strategy)
    beam = GREEDY | {"num_beams": 3, "num_return_sequences": 3}
    cached = small.generate(**sources(batch), **beam, return_dict_in_generate=True, output_scores=True)
    uncached = small.generate(
        **sources(batch), **beam, use_cache=False, return_dict_in_generate=True, output_scores=True
    )
    assert cached.sequences.shape[0] == 9
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(cached.sequences_scores, uncached.sequences_scores, rtol=1e-4, atol=1e-5)


def test_padded_batch_equals_one_by_one(modular: modtf.ModularModel, batch: Batch) -> None:
    for strategy, ratio in CHOICES:
        small = modular.assemble(ratio, strategy)
        together = small.generate(**sources(batch), **GREEDY)
        for row, length in enumerate((7, 5, 3)):
            alone = small.generate(input_ids=batch["input_ids"][row : row + 1, :length], **GREEDY)
            assert torch.equal(alone[0], together[row])


def test_generate_from_text(family: str, make_modular: Any, tokenizer: Any) -> None:
    modular = make_modular(family, tokenizer=tokenizer, vocabulary=len(tokenizer))
    texts = [
        "name[The Mill], food[Thai]",
        "name[Zizzi]",
        "name[The Vaults], eatType[pub], area[riverside], near[Café Adriatic]",
    ]
    options = {"max_new_tokens": 8, "min_new_tokens": 4}
    together = modular.generate(texts, ratio=2, **options)
    assert isinstance(together, list)
    assert together == [modular.generate(text, ratio=2, **options) for text in texts]
    assert modular.generate(texts[0], **options) == modular.generate(texts[0], ratio=1, **options) != together[0]
    assert modular.generate(texts, assembly="encoder 2·2·2 | decoder 2·2·2", **options) == together
    encoded = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    plain = modular.assemble(ratio=2).generate(**encoded, do_sample=False, num_beams=1, **options)
    assert together == tokenizer.batch_decode(plain, skip_special_tokens=True)
    assert len(modular.generate(texts[0], ratio=2, num_beams=2, num_return_sequences=2, **options)) == 2


def test_write_says_how(family: str, make_modular: Any, tokenizer: Any) -> None:
    modular = make_modular(family, tokenizer=tokenizer, vocabulary=len(tokenizer))
    texts, assembly = ["name[The Mill], food[Thai]", "name[Zizzi]"], modular.choose(2)
    started = time.perf_counter()
    written = modular.write(texts, assembly, max_new_tokens=6)
    assert 0 < written.seconds < time.perf_counter() - started
    assert written.texts == modular.generate(tuple(texts), assembly=assembly, max_new_tokens=6)
    assert written.engine == "loop" and written.tokens.shape[0] == 2 and 1 <= written.tokens.shape[1] <= 6
    assert written.texts == tokenizer.batch_decode(written.tokens, skip_special_tokens=True)
    plain = modular.write(texts, assembly, max_new_tokens=6, engine="generate")
    assert plain.engine == "generate" and torch.equal(plain.tokens, written.tokens)
    seen: list[int] = []
    stopped = modular.write(texts, assembly, watch=lambda tokens: seen.append(len(tokens)) or len(seen) == 2)
    assert seen == [2, 2] and torch.equal(stopped.tokens, written.tokens[:, :2])


@pytest.mark.parametrize(("encoder", "decoder"), [(2, 6), (6, 2), (1, 3)])
def test_unequal_depths(
    family: str, make_modular: Any, batch: Batch, encoder: int, decoder: int, tmp_path: Any
) -> None:
    """``generate`` reads the decoder's depth by a name that T5 lacks: a shallower encoder would raise."""
    modular = make_modular(family, encoder, decoder)
    assert modular.mapping.encoder.depth == encoder
    assert modular.mapping.decoder.depth == decoder
    for assembly in (
        modular.mapping.original,
        modular.mapping.coarsest,
        Assembly((1,) * encoder, modular.mapping.coarsest.decoder),
    ):
        small = modular.assemble(assembly=assembly)
        written = small.generate(**sources(batch), **GREEDY)
        assert torch.equal(written, small.generate(**sources(batch), **GREEDY, use_cache=False))
        small.save_pretrained(tmp_path)
        again = type(small).from_pretrained(tmp_path)
        assert [len(layers) for layers in layers_of(again)] == [len(assembly.encoder), len(assembly.decoder)]
        assert torch.equal(again.generate(**sources(batch), **GREEDY), written)


def test_encoder_shallower_than_decoder_by_assembling(modular: modtf.ModularModel, batch: Batch, tmp_path: Any) -> None:
    small = modular.assemble(assembly=Assembly((3, 3), (1,) * 6))
    written = small.generate(**sources(batch), **GREEDY)
    assert torch.equal(written, small.generate(**sources(batch), **GREEDY, use_cache=False))
    small.save_pretrained(tmp_path)
    again = type(small).from_pretrained(tmp_path)
    assert torch.equal(again.generate(**sources(batch), **GREEDY), written)
    assert torch.equal(logits(again, batch), logits(small, batch))


# -- configurations ----------------------------------------------------------------------------------------------------


def test_depths_in_every_configuration(modular: modtf.ModularModel) -> None:
    small = modular.assemble(assembly=Assembly((1, 1, 2, 2), (3, 3)))
    configs = [small.config, *(stack.config for stack in stacks_of(small))]
    for config in configs:
        assert config.decoder_layers == 2
        if config.model_type == "bart":
            assert config.encoder_layers == config.num_hidden_layers == 4
        else:
            assert config.num_decoder_layers == 2
    if small.config.model_type == "t5":
        assert [config.num_layers for config in configs] == [4, 4, 2], "each stack reads its own"
    assert small.config.get_text_config(decoder=True).num_hidden_layers == 2
    assert [len(layers) for layers in layers_of(small)] == [4, 2]
    original = modular.config
    assert (original.encoder_layers if original.model_type == "bart" else original.num_layers) == 6


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_reads_its_own_stacks_configuration(
    family: str, make_modular: Any, batch: Batch, implementation: str
) -> None:
    modular = make_modular(family)
    small = modular.assemble(ratio=2)
    other = modular.assemble(ratio=2)
    set_attention(small, implementation)
    set_attention(other, "sdpa" if family == "bart" and implementation == "eager" else "eager")
    for model in (small, other, modular.assemble(), modular.assemble(ratio=3)):
        for stack in stacks_of(model):
            modules = attentions_of(stack)
            assert modules
            if family == "bart":
                assert all(module.config is stack.config for module in modules)
            configs = [module.config for module in modules if "config" in module.__dict__]
            assert all(config is stack.config for config in configs)
            assert {config._attn_implementation for config in configs} <= {stack.config._attn_implementation}
    assert small.encoder.config._attn_implementation == implementation if family != "bart" else True
    torch.testing.assert_close(logits(small, batch), logits(other, batch), rtol=1e-4, atol=1e-4)
    written = small.generate(**sources(batch), **GREEDY)
    assert torch.equal(written, other.generate(**sources(batch), **GREEDY))
    assert torch.equal(written, small.generate(**sources(batch), **GREEDY, use_cache=False))


def test_recorded_states_belong_to_the_assembly(family: str, make_model: Any, batch: Batch) -> None:
    """Transformers installs its recording hooks at the first call: the original's must not travel with the clones."""
    original = make_model(family, attn_implementation="eager")
    recorded = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        original(**batch, **recorded)
        modular = modtf.modularize(original)
        modular.model(**batch, **recorded)
        for assembly in (Assembly((2, 2, 2), (3, 3)), modular.mapping.original, Assembly((3, 3), (1, 1, 2, 2))):
            small = modular.assemble(assembly=assembly)
            for _ in range(2):
                out = small(**batch, **recorded)
                e, d = len(assembly.encoder), len(assembly.decoder)
                assert [len(out.encoder_hidden_states), len(out.decoder_hidden_states)] == [e + 1, d + 1]
                assert [len(out.encoder_attentions), len(out.decoder_attentions), len(out.cross_attentions)] == [
                    e,
                    d,
                    d,
                ]
                for before, after in pairwise(out.encoder_hidden_states):
                    assert not torch.equal(before, after), "a state a layer, none twice"
                assert torch.equal(out.encoder_hidden_states[-1], out.encoder_last_hidden_state)
                rows = torch.stack([a.sum(-1) for a in out.cross_attentions])
                torch.testing.assert_close(rows, torch.ones_like(rows))


def test_recording_a_path(modular: modtf.ModularModel, batch: Batch) -> None:
    assembly = Assembly((1, 1, 2, 2), (3, 3))
    with torch.no_grad(), modular.record(assembly) as (encoder, decoder):
        modular(assembly, **batch)
    assert [len(encoder.hidden), len(decoder.hidden), len(encoder.self_attention)] == [4, 2, 0]
    with torch.no_grad():
        states = modular.assemble(assembly=assembly)(**batch, output_hidden_states=True, use_cache=False)
    for mine, theirs in (
        (encoder.hidden, states.encoder_hidden_states),
        (decoder.hidden, states.decoder_hidden_states),
    ):
        for own, other in zip(
            mine[:-1], theirs[1:-1], strict=True
        ):  # transformers' last state comes after the final norm
            assert torch.equal(own, other)
    assert not any(module._forward_hooks for stack in modular.stacks for module in stack.modules()), (
        "hooks leave with the context"
    )


# -- T5's position biases, BART's layerdrop ----------------------------------------------------------------------------


@pytest.mark.parametrize("t5", ["t5", "t5-gated"])
def test_position_biases_are_shared_with_the_original(t5: str, make_modular: Any, batch: Batch) -> None:
    modular = make_modular(t5)
    for stack in modular.stacks:
        original = stack.originals[0].layer[0].SelfAttention.relative_attention_bias.weight
        assert not original.requires_grad
        for bank in stack.banks.values():
            first = bank[0].layer[0].SelfAttention
            assert first.has_relative_attention_bias
            assert first.relative_attention_bias.weight is original
            assert not any(layer.layer[0].SelfAttention.has_relative_attention_bias for layer in bank[1:])
    assert not any("relative_attention_bias" in name for name in modular.bank_weights())
    # they are used: without them the coarsest assembly says something else
    small = modular.assemble(ratio=3)
    before = logits(small, batch)
    with torch.no_grad():
        for stack in modular.stacks:
            stack.originals[0].layer[0].SelfAttention.relative_attention_bias.weight.zero_()
    assert not torch.allclose(logits(small, batch), before)


def test_layerdrop_is_off(make_model: Any, batch: Batch) -> None:
    original = make_model("bart")
    assert original.model.encoder.layerdrop == 0.5
    modular = modtf.modularize(original).train()
    assembly = Assembly((2, 2, 2), (1, 1, 2, 2))
    for _ in range(8):
        with modular.record(assembly) as (encoder, decoder):
            modular(assembly, **batch)
        assert [len(encoder.hidden), len(decoder.hidden)] == [3, 4], "no layer was skipped"
    small = modular.assemble(ratio=2)
    assert [stack.layerdrop for stack in stacks_of(small)] == [0, 0]


# -- training mode -----------------------------------------------------------------------------------------------------


def test_only_banks_train(modular: modtf.ModularModel) -> None:
    trained = {id(p) for p in modular.parameters() if p.requires_grad}
    assert trained == {id(p) for p in modular.bank_weights().values()}
    originals = {p.data_ptr() for p in modular.original_weights().values()}
    assert not originals & {p.data_ptr() for p in modular.bank_weights().values()}
    try:
        modular.train()
        in_banks = {id(m) for stack in modular.stacks for m in stack.banks.modules()}
        assert {id(m) for m in modular.model.modules() if m.training} == in_banks
    finally:
        modular.eval()
    assert not any(m.training for m in modular.modules())


def test_dropout_acts_in_banks_only(family: str, make_modular: Any, batch: Batch) -> None:
    modular = make_modular(family).train()
    original = modular.mapping.original
    assert torch.equal(logits(modular, batch), logits(modular, batch | {}))
    assert torch.equal(logits(modular, batch), logits(modular.assemble(assembly=original), batch))
    coarsest = modular.mapping.coarsest
    assert not torch.equal(logits(modular, batch, assembly=coarsest), logits(modular, batch, assembly=coarsest))


def test_gradient_checkpointing(family: str, make_modular: Any, batch: Batch) -> None:
    modular = make_modular(family, **({"dropout": 0.0} if family == "bart" else {"dropout_rate": 0.0})).train()
    assembly = Assembly((1, 1, 2, 2), (3, 1, 2))

    def gradients() -> dict[str, torch.Tensor]:
        modular.zero_grad()
        modular(assembly, **batch).loss.backward()
        return {name: p.grad.clone() for name, p in modular.named_parameters() if p.grad is not None}

    plain = gradients()
    assert plain
    modular.gradient_checkpointing_enable()
    flags = [
        m.gradient_checkpointing
        for stack in modular.stacks
        for m in stack.banks.modules()
        if hasattr(m, "gradient_checkpointing")
    ]
    assert flags
    assert all(flags)
    part, calls = attentions_of(modular.stacks[1].banks["3"][0])[0], []
    handle = part.register_forward_pre_hook(lambda *_: calls.append(1))
    again = gradients()
    handle.remove()
    assert len(calls) == 2, "once forward, once recomputed"
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-3, atol=1e-5)
    small = modular.assemble(ratio=2).train()
    assert not any(getattr(m, "gradient_checkpointing", False) for m in small.modules()), "an assembly is for use"
    modular.gradient_checkpointing_disable()
    assert not any(getattr(m, "gradient_checkpointing", False) for m in modular.modules())


@settings(max_examples=25)
@given(encoder=st.sampled_from(SIX), decoder=st.sampled_from(SIX))
def test_running_a_path_equals_the_assembled_model(
    modular: modtf.ModularModel, batch: Batch, encoder: Any, decoder: Any
) -> None:
    assembly = Assembly(encoder, decoder)
    small = modular.assemble(assembly=assembly)
    expected = logits(small, batch, use_cache=False)
    assert torch.equal(logits(modular, batch, assembly=assembly), expected)
    assert [stack.path for stack in modular.stacks] == [(1,) * 6, (1,) * 6], "afterwards the original again"
    assert torch.equal(logits(small, batch), expected), "with a cache too"


def test_a_failing_forward_pass_leaves_the_original(modular: modtf.ModularModel, batch: Batch) -> None:
    with pytest.raises(IndexError):
        modular(modular.mapping.coarsest, **(batch | {"input_ids": batch["input_ids"] + 1000}))
    assert [stack.path for stack in modular.stacks] == [(1,) * 6, (1,) * 6]


def test_everything_reaches_the_model(modular: modtf.ModularModel, batch: Batch) -> None:
    """What is given for the decoder counts, too."""
    assembly = modular.mapping.coarsest
    given = sources(batch) | {
        "decoder_input_ids": batch["labels"].clamp(min=3),
        "decoder_attention_mask": torch.tensor([[1, 1, 0, 0, 1, 1]] * 3),
        "labels": batch["labels"].roll(1),
    }
    small = modular.assemble(assembly=assembly)
    with torch.no_grad():
        one, other = modular(assembly, **given, use_cache=True), small(**given, use_cache=False)
        unmasked = small(**{name: value for name, value in given.items() if name != "decoder_attention_mask"})
    assert torch.equal(one.logits, other.logits) and torch.equal(one.loss, other.loss)
    assert not torch.allclose(one.logits, unmasked.logits)
    assert one.past_key_values is None


# -- words for bad input -----------------------------------------------------------------------------------------------


def _unsupported() -> dict[str, Any]:
    t5 = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2)
    return {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2)),
        "T5EncoderModel": lambda: T5EncoderModel(t5),
    }


@pytest.mark.parametrize("name", _unsupported())
def test_unsupported_architecture(name: str) -> None:
    model = _unsupported()[name]()
    trained = [p.requires_grad for p in model.parameters()]
    with pytest.raises(
        ModtfError, match=r"is not an encoder-decoder that writes text; load one with AutoModelForSeq2S"
    ):
        modtf.modularize(model)
    assert [p.requires_grad for p in model.parameters()] == trained


def test_a_granularity_that_does_not_divide_changes_nothing(family: str, make_model: Any, batch: Batch) -> None:
    original = make_model(family, 6, 4)
    before = logits(original, batch)
    with pytest.raises(ModtfError, match=r"granularity 3 does not divide the decoder's 4 layers; possible: 2, 4"):
        modtf.modularize(original, (2, 3))
    assert all(isinstance(layers, nn.ModuleList) for layers in layers_of(original))
    assert all(p.requires_grad for p in original.parameters())
    assert torch.equal(logits(original, batch), before)
    modular = modtf.modularize(original, (2, 3), decoder_granularities=(2,))
    assert modular.mapping == Mapping(StackMapping(6, (2, 3)), StackMapping(4, (2,)))


def test_no_memory_for_the_banks_leaves_the_original_alone(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original, made = make_model("t5"), []

    def fails_at_the_second(*args: Any) -> Any:
        made.append(1)
        if len(made) == 2:
            raise MemoryError
        return new_bank(*args)

    monkeypatch.setattr("modtf.modular.new_bank", fails_at_the_second)
    with pytest.raises(MemoryError):
        modtf.modularize(original)
    assert all(isinstance(layers, nn.ModuleList) for layers in layers_of(original))
    assert all(p.requires_grad for p in original.parameters())


def test_words_for_what_is_no_model(make_model: Any) -> None:
    with pytest.raises(ModtfError, match=r"'t5-base' is not a model; load one with AutoModelForSeq2SeqLM"):
        modtf.modularize("t5-base")  # type: ignore[arg-type]
    with pytest.raises(ModtfError, match=r"BartForCausalLM .* is not an encoder-decoder"):
        modtf.modularize(BartForCausalLM(make_model("bart").config))
    with pytest.raises(ModtfError, match=r"granularity 2.0 is not a whole number"):
        modtf.modularize(make_model("t5"), (2.0,))  # type: ignore[arg-type]


def test_a_length_given_to_generate_counts(make_modular: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    modular = make_modular("t5", 2, 2, tokenizer=tokenizer, vocabulary=len(tokenizer))
    written: list[int] = []
    monkeypatch.setattr(tokenizer, "batch_decode", lambda tokens, **_: written.append(tokens.shape[1]) or [""])
    modular.generate("pub", max_length=5, min_length=5)
    assert written == [5]


def test_granularity_one_is_always_there(make_model: Any) -> None:
    assert modtf.modularize(make_model("t5"), (1, 2)).mapping == Mapping(StackMapping(6, (2,)), StackMapping(6, (2,)))


def test_granularities_may_be_any_iterable(make_model: Any) -> None:
    modular = modtf.modularize(make_model("t5"), (g for g in (3, 2)))
    assert modular.mapping == Mapping(StackMapping(6, (2, 3)), StackMapping(6, (2, 3)))


def test_already_modular(modular: modtf.ModularModel) -> None:
    with pytest.raises(ModtfError, match="modular already"):
        modtf.modularize(modular.model)
    assert isinstance(modular.stacks[0], ModularStack)
    assert isinstance(modular.stacks[0].originals, nn.ModuleList)


def test_words_for_bad_choices(modular: modtf.ModularModel) -> None:
    with pytest.raises(ModtfError, match="ratios from 1 to 3"):
        modular.assemble(ratio=7)
    with pytest.raises(ModtfError, match="strategy 'best' is unknown"):
        modular.assemble(ratio=2, strategy="best")
    with pytest.raises(ModtfError, match="give one of them"):
        modular.assemble(ratio=2, assembly="encoder 3·3 | decoder 3·3")
    with pytest.raises(ModtfError, match="covers 3 layers; the stack has 6"):
        modular.assemble(assembly="encoder 3 | decoder 3·3")
    with pytest.raises(ModtfError, match="has no granularity 6; it has 1, 2, 3"):
        modular(Assembly((3, 3), (6,)))
    with pytest.raises(ModtfError, match="is not an assembly"):
        modular.assemble(assembly="6·6")


@pytest.mark.parametrize("assembly", [[(3, 3), (3, 3)], ((3, 3), (3, 3)), {"encoder": (3, 3)}, 3, b"x", True], ids=repr)
def test_an_assembly_is_an_object_or_its_text(modular: modtf.ModularModel, assembly: Any) -> None:
    words = (
        r"give an Assembly, such as Assembly\(\(3, 3\), \(3, 3\)\), or its text, such as 'encoder 3·3 \| decoder 3·3'"
    )
    with pytest.raises(ModtfError, match=words):
        modular.assemble(assembly=assembly)
    with pytest.raises(ModtfError, match=words):
        modular.generate("pub", assembly=assembly)


@pytest.mark.parametrize("ratio", ["3", "x", [2], 2 + 1j, True, float("nan"), float("inf"), {}], ids=repr)
def test_a_ratio_is_a_number(modular: modtf.ModularModel, ratio: Any) -> None:
    with pytest.raises(ModtfError, match="ratio"):
        modular.assemble(ratio=ratio)


@pytest.mark.parametrize("strategy", [None, 5, ["size_first"], {}], ids=repr)
def test_a_strategy_is_one_of_the_names(modular: modtf.ModularModel, strategy: Any) -> None:
    with pytest.raises(ModtfError, match="strategy"):
        modular.assemble(2, strategy)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "fast"}, "engine 'fast' is unknown; use one of loop, generate, ctranslate2, ctranslate2-int8"),
        ({"engine": ["loop"]}, "is unknown; use"),
        ({"engine": 5, "num_beams": 2}, "engine 5 is unknown"),
        ({"engine": "loop", "num_beams": 2}, "takes max_new_tokens only, not num_beams"),
        *(
            ({"max_new_tokens": wrong}, "max_new_tokens is .*; give a whole number")
            for wrong in (0, -1, "3", 2.5, True)
        ),
    ],
    ids=repr,
)
def test_words_for_bad_options(make_modular: Any, tokenizer: Any, options: dict[str, Any], words: str) -> None:
    modular = make_modular("t5", 2, 2, tokenizer=tokenizer, vocabulary=len(tokenizer))
    with pytest.raises(ModtfError, match=words):
        modular.generate("pub", **options)


@pytest.mark.parametrize("more", [{}, {"engine": "generate"}, {"num_beams": 2}, {"draft": "auto"}], ids=repr)
def test_words_for_more_tokens_than_positions(make_modular: Any, tokenizer: Any, more: dict[str, Any]) -> None:
    modular = make_modular("bart", 2, 2, tokenizer=tokenizer, vocabulary=len(tokenizer))
    with pytest.raises(ModtfError, match="max_new_tokens is 200; this model has positions for 64: give at most that"):
        modular.generate("pub", max_new_tokens=200, **more)


@pytest.mark.parametrize("task", ["", 5, ["text"]], ids=repr)
def test_a_task_has_a_name(make_model: Any, task: Any) -> None:
    with pytest.raises(ModtfError, match=r"the task is .*; give its name"):
        modtf.modularize(make_model("t5", 2, 2), task=task)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("", "text 0 is empty"),
        ("  \n", "text 0 is empty"),
        (["name[Zizzi]", ""], "text 1 is empty"),
        (["name[Zizzi]", None], "text 1 is empty or not a string"),
        ([], "no texts were given"),
        ((), "no texts were given"),
        (["name[Zizzi]", 5], "text 1 is empty or not a string: 5"),
        ([["name[Zizzi]"]], "text 0 is empty or not a string"),
        (None, "the texts are None, of type NoneType; give a string, or a list of strings"),
        (5, "the texts are 5, of type int; give a string"),
        ({"a": "name[Zizzi]"}, "of type dict; give a string"),
        (b"name[Zizzi]", "of type bytes; give a string"),
        (" ".join(["pub"] * 70), "tokens; at most 64 are possible: shorten it"),
    ],
)
def test_words_for_bad_texts(make_modular: Any, tokenizer: Any, texts: Any, words: str) -> None:
    modular = make_modular("bart", 2, 2, tokenizer=tokenizer, vocabulary=len(tokenizer))
    with pytest.raises(ModtfError, match=words):
        modular.generate(texts, ratio=2)


def test_over_long_text_for_t5(make_modular: Any, tokenizer: Any) -> None:
    """T5 has no limit of its own; its tokenizer has."""
    modular = make_modular("t5", 2, 2, tokenizer=tokenizer, vocabulary=len(tokenizer))
    with pytest.raises(ModtfError, match=r"a text has \d+ tokens; at most 256 are possible"):
        modular.generate(["name[Zizzi]", " ".join(["pub"] * 300)])


def test_no_tokenizer(modular: modtf.ModularModel, family: str, make_model: Any, tmp_path: Any) -> None:
    with pytest.raises(ModtfError, match=r"without a tokenizer; give one: modularize\(\.\.\., tokenizer=\.\.\.\)"):
        modular.generate("name[Zizzi]")
    original = make_model(family)
    original.save_pretrained(tmp_path)
    loaded = modtf.modularize(type(original).from_pretrained(tmp_path))
    with pytest.raises(ModtfError, match=r"tokenizer.*give one: modularize\(\.\.\., tokenizer=\.\.\.\)"):
        loaded.generate("name[Zizzi]")


def exchange_parameters(modular: modtf.ModularModel) -> None:
    for stack in modular.stacks:
        for module in stack.modules():
            for name, parameter in list(module._parameters.items()):
                module._parameters[name] = None if parameter is None else nn.Parameter(-parameter.detach())


def assign_a_state_dict(modular: modtf.ModularModel) -> None:
    modular.load_state_dict({name: -value for name, value in modular.state_dict().items()}, assign=True)


def exchange_layers(modular: modtf.ModularModel) -> None:
    other = copy.deepcopy(modular)
    exchange_parameters(other)
    for stack, of_other in zip(modular.stacks, other.stacks, strict=True):
        stack.originals, stack.banks = of_other.originals, of_other.banks


def exchange_activations(modular: modtf.ModularModel) -> None:
    for module in modular.modules():
        for name in ("act", "activation_fn"):
            if isinstance(getattr(module, name, None), nn.Module):
                setattr(module, name, nn.Tanh())


@pytest.mark.parametrize(
    "change",
    [exchange_parameters, assign_a_state_dict, exchange_layers, exchange_activations],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("ratio", [1, 2])
def test_texts_follow_what_was_exchanged(
    family: str, make_modular: Any, tokenizer: Any, change: Any, ratio: float
) -> None:
    """Assemblies are remembered, but not with parameters and modules that the modular model no longer has."""
    modular = make_modular(family, tokenizer=tokenizer, vocabulary=len(tokenizer))
    texts = ["The Mill is a pub.", "Zizzi serves Thai food."]
    before = modular.generate(texts, ratio=ratio, max_new_tokens=12)
    kept = modular.assembled(modular.choose(ratio))
    assert modular.assembled(modular.choose(ratio)) is kept, "made once while nothing changes"
    change(modular)
    fresh = modular.assemble(ratio=ratio)
    encoded = modular.encode(texts)
    expected = modular.tokenizer.batch_decode(
        fresh.generate(**encoded, max_new_tokens=12, do_sample=False, num_beams=1), skip_special_tokens=True
    )
    for engine in ("loop", "generate"):
        assert modular.generate(texts, ratio=ratio, max_new_tokens=12, engine=engine) == expected != before
    assert all(
        own is new
        for own, new in zip(modular.original_weights().values(), modular.assemble().parameters(), strict=True)
    )


def test_what_generate_does_not_return(make_modular: Any, tokenizer: Any) -> None:
    modular = make_modular("t5", tokenizer=tokenizer, vocabulary=len(tokenizer))
    with pytest.raises(ModtfError, match="this returns texts"):
        modular.generate("The Mill", return_dict_in_generate=True)


def test_a_tokenizer_of_the_wrong_kind(make_model: Any) -> None:
    with pytest.raises(ModtfError, match="the tokenizer is 'x'; load one"):
        modtf.modularize(make_model("t5"), tokenizer="x")  # type: ignore[arg-type]
