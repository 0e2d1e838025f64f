"""Every known family through the same matrix; and what is said of families that cannot be modularized."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import randomize
from families import TINY, _bart, _t5
from transformers import GenerationMixin, PreTrainedModel, set_seed

import modtf
from modtf.architectures import ARCHITECTURES, REFUSED, items_of, stacks_of
from modtf.conformance import _close, _fits, _inputs, _tokens
from modtf.decoding import decode, obstacle
from modtf.decoding.layouts import LAYOUTS
from modtf.errors import ModtfError
from modtf.mapping import Assembly
from modtf.modular import modularize
from modtf.strategies import STRATEGIES
from modtf.training.batches import encode_sources_once
from modtf.training.trainer import decoder_inputs

FAMILIES = tuple(TINY)
families = pytest.mark.parametrize("name", FAMILIES)


def make(name: str, encoder: int = 6, decoder: int = 6) -> PreTrainedModel:
    set_seed(0)
    model = TINY[name](encoder, decoder)
    tables = {weight: weight.detach().clone() for weight in model.parameters() if not weight.requires_grad}
    randomize(model.modules())
    with torch.no_grad():
        for weight, values in tables.items():  # sines of positions are computed, and not saved
            weight.copy_(values)
    return model.eval()


def with_banks(name: str, encoder: int = 6, decoder: int = 6) -> modtf.ModularModel:
    """Banks of other weights than the original's, as if they had learnt something."""
    modular = modularize(make(name, encoder, decoder))
    with torch.no_grad():
        for weight in modular.bank_weights().values():
            weight.add_(0.1 * torch.randn_like(weight))
    return modular


shared = cache(with_banks)  # for tests that leave it as it is


@cache
def cached_otherwise(name: str) -> bool:
    """Whether transformers itself computes other logits with a cache than without, as 5.15 does for UMT5."""
    model = make(name)
    inputs = _inputs(model)
    written = GenerationMixin.generate(
        model, **inputs, do_sample=False, num_beams=1, max_new_tokens=6, min_new_tokens=6, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    whole = logits(model, inputs | {"decoder_input_ids": written.sequences[:, :-1]})
    return not _close(torch.stack(written.logits, 1), whole[:, -6:])


def skip_where_transformers_is_wrong(name: str) -> None:
    if cached_otherwise(name):
        pytest.skip(f"transformers {transformers.__version__} computes {name} otherwise with a cache")


@torch.no_grad()
def logits(model: Any, batch: dict[str, torch.Tensor], assembly: Assembly | None = None) -> torch.Tensor:
    chosen = {} if assembly is None else {"assembly": assembly}
    return model(**chosen, **batch, use_cache=False).logits


def batch_for(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return _inputs(model) | {"decoder_input_ids": _tokens(model, 2, 6)}


@families
def test_every_known_family_can_be_modularized(name: str) -> None:
    skip_where_transformers_is_wrong(name)
    model = make(name)
    before, known = logits(model, batch_for(model)), dict(ARCHITECTURES)
    trained = [parameter.requires_grad for parameter in model.parameters()]
    first = next(iter(model.parameters()))
    first.grad = torch.ones_like(first)
    stacks_of(model)[0].train()
    modes = [module.training for module in model.modules()]
    found = modtf.check(model)
    assert torch.equal(first.grad, torch.ones_like(first)) and [module.training for module in model.modules()] == modes
    first.grad = None
    model.eval()
    assert found.exact and found.known, str(found)
    assert len(found.findings) == 7 and "can be modularized" in str(found)
    assert [parameter.requires_grad for parameter in model.parameters()] == trained and known == ARCHITECTURES
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert torch.equal(logits(model, batch_for(model)), before)


@families
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("ratio", [1.2, 1.5, 2, 3])
def test_cached_logits_of_every_strategy(name: str, strategy: str, ratio: float) -> None:
    """Against one pass over the whole text, without a cache: tokens alone would hide faults."""
    skip_where_transformers_is_wrong(name)
    modular = shared(name)
    small, inputs = modular.assemble(ratio, strategy), _inputs(modular.model)
    written = GenerationMixin.generate(
        small, **inputs, do_sample=False, num_beams=1, max_new_tokens=9, min_new_tokens=9, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    whole = logits(small, inputs | {"decoder_input_ids": written.sequences[:, :-1]})
    assert written.logits[0].shape == whole[:, 0].shape
    assert _close(torch.stack(written.logits, 1), whole[:, -9:])
    batch = batch_for(modular.model)
    assert torch.equal(logits(modular, batch, small.assembly), logits(small, batch))


@families
@pytest.mark.parametrize(("encoder", "decoder"), [(2, 6), (6, 2), (1, 3)])
def test_originals_of_unequal_depths(name: str, encoder: int, decoder: int) -> None:
    skip_where_transformers_is_wrong(name)
    found = modtf.check(make(name, encoder, decoder))
    assert found.exact, str(found)


@families
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    modular = with_banks(name)
    modular.save_pretrained(tmp_path)
    again, batch = modtf.load(tmp_path), batch_for(modular.model)
    assert type(again.model) is type(modular.model) and again.mapping == modular.mapping
    for assembly in (modular.mapping.original, modular.mapping.coarsest, Assembly((1, 1, 2, 2), (3, 1, 2))):
        assert torch.equal(logits(again, batch, assembly), logits(modular, batch, assembly))
    given = modtf.ModularModel.from_pretrained(tmp_path, original=make(name))
    assert torch.equal(logits(given, batch, given.mapping.coarsest), logits(modular, batch, given.mapping.coarsest))


@families
def test_a_training_and_the_same_one_resumed(name: str, tmp_path: Path) -> None:
    def train(steps: int, resume: bool = False) -> dict[str, torch.Tensor]:
        modular = with_banks(name)
        inputs = {key: value[:1].repeat(8, *[1] * (value.ndim - 1)) for key, value in _inputs(modular.model).items()}
        labels = _tokens(modular.model, 8, 5)
        data = [{key: value[row] for key, value in (inputs | {"labels": labels}).items()} for row in range(8)]
        args = modtf.ModularTrainingArguments(
            output_dir=str(tmp_path), max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-2, seed=3,
            lr_scheduler_type="constant", coarse_at=0.0, labels_weight=1.0, save_steps=2, use_cpu=True, report_to="none",
            disable_tqdm=True, dataloader_pin_memory=False, logging_steps=1, hidden_weight=0.5,
        )  # fmt: skip
        before = {key: weight.detach().clone() for key, weight in modular.bank_weights().items()}
        original = {key: weight.detach().clone() for key, weight in modular.original_weights().items()}
        set_seed(5)
        trainer = modtf.ModularTrainer(modular, args, train_dataset=data)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2") if resume else None)
        after = modular.bank_weights()
        assert any(not torch.equal(after[key], before[key]) for key in before)
        assert all(torch.equal(weight, original[key]) for key, weight in modular.original_weights().items())
        assert all(entry["loss"] > 0 for entry in trainer.state.log_history if "loss" in entry)
        return after

    straight = {key: weight.detach().clone() for key, weight in train(4).items()}
    resumed = train(4, resume=True)
    assert all(torch.equal(resumed[key], weight) for key, weight in straight.items())


@families
def test_the_loop_writes_only_where_it_writes_what_generate_writes(name: str) -> None:
    modular = shared(name)
    model, inputs = modular.assemble(2), _inputs(modular.model)
    served = name in LAYOUTS
    assert (obstacle(model) == "") == served
    if served:
        written = [decode(model, *inputs.values(), max_new_tokens=12, engine=engine) for engine in ("loop", "generate")]
        assert torch.equal(written[0][0], written[1][0])


@families
def test_what_the_decoder_reads_follows_from_the_labels(name: str) -> None:
    """Where transformers has a method for it, and where it has none."""
    modular = shared(name)
    labels = _tokens(modular.model, 2, 5)
    labels[1, 3:] = -100
    read = decoder_inputs(modular.model, labels)
    inputs = _inputs(modular.model)
    with torch.no_grad():
        given = modular(modular.mapping.coarsest, **inputs, decoder_input_ids=read).logits
        assert torch.equal(given, modular(modular.mapping.coarsest, **inputs, labels=labels).logits)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("whisper", "moonshine")])
def test_sources_are_encoded_once_for_several_texts(name: str) -> None:
    modular = with_banks(name)
    inputs, index, labels = _inputs(modular.model), torch.tensor([0, 1, 1, 0, 0]), _tokens(modular.model, 5, 4)
    repeated = {key: value[index] for key, value in inputs.items()}
    with torch.no_grad():
        expected = modular(modular.mapping.coarsest, **repeated, labels=labels)
        encode_sources_once(modular.model)
        once = modular(modular.mapping.coarsest, **inputs, labels=labels, source_index=index)
    torch.testing.assert_close(once.logits, expected.logits)
    torch.testing.assert_close(once.loss, expected.loss)


# -- what single families need -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2", "led"])
def test_an_item_of_the_configuration_goes_where_its_layer_goes(name: str, tmp_path: Path) -> None:
    modular = shared(name)
    assembly = Assembly((2, 1, 1, 2), (1, 1, 1, 3))
    small = modular.assemble(assembly=assembly)
    of_original = items_of(modular.config, modular.architecture)
    starts = ((0, 2, 3, 4), (0, 1, 2, 3))
    expected = {key: [items[start] for start in starts[stack]] for key, (stack, items) in of_original.items()}
    assert expected and any(len(set(items)) > 1 for items in expected.values())
    assert {key: items for key, (_, items) in items_of(small.config, modular.architecture).items()} == expected
    for stack, layers in enumerate(stacks_of(small)):
        types = [layer.attention_type for layer in layers.layers if hasattr(layer, "attention_type")]
        assert not types or types in [items for key, items in expected.items() if of_original[key][0] == stack]
    assert items_of(modular.config, modular.architecture) == of_original, "the kit's own stay"


def test_whispers_alignment_heads_are_those_of_layers_that_are_left(tmp_path: Path) -> None:
    modular = shared("whisper")
    assert modular.generation_config.alignment_heads == [[1, 0], [5, 1]]
    small = modular.assemble(assembly=Assembly((1,) * 6, (3, 1, 1, 1)))
    assert small.generation_config.alignment_heads == [[3, 1]]
    assert modular.assembled(small.assembly).generation_config.alignment_heads == [[3, 1]]
    small.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["alignment_heads"] == [[3, 1]]
    assert not hasattr(modular.assemble(ratio=3).generation_config, "alignment_heads")
    assert modular.assemble().generation_config.alignment_heads == [[1, 0], [5, 1]]


def test_whisper_writes_by_its_own_generate() -> None:
    modular = shared("whisper")
    inputs = _inputs(modular.model)
    written = [modular.assemble(ratio).generate(**inputs, max_new_tokens=5) for ratio in (1, 2, 3)]
    assert all(len(tokens) == 2 for tokens in written)


def test_a_model_of_features_takes_no_texts() -> None:
    with pytest.raises(ModtfError, match=r"reads input_features, not texts; assemble"):
        shared("whisper").encode(["Hello."])


def test_each_layer_of_umt5_has_biases_of_its_own() -> None:
    modular = shared("umt5")
    biases = [name for name in modular.bank_weights() if "relative_attention_bias" in name]
    assert len(biases) == 2 * (3 + 2), "those of all modularized layers train"
    assert not any("relative_attention_bias" in name for name in shared("mt5").bank_weights())
    assert not any("relative_attention_bias" in name for name in shared("longt5-global").bank_weights())


@pytest.mark.parametrize("name", ["longt5"])
def test_a_layer_without_attention_maps(name: str) -> None:
    modular = shared(name)
    with pytest.raises(ModtfError, match=r"LongT5Block has no layer.0.SelfAttention.*train without attention_weight"):
        modular(modular.mapping.coarsest, **batch_for(modular.model), output_attentions=True)


@pytest.mark.parametrize("name", ["mt5", "umt5", "mbart", "marian", "t5gemma", "t5gemma2", "whisper", "moonshine"])
def test_attention_maps_are_transformers_own(name: str) -> None:
    modular = with_banks(name)
    modtf.architectures.set_attention(modular.model, "eager")
    assembly, batch = Assembly((2, 1, 1, 2), (3, 1, 2)), batch_for(modular.model)
    with torch.no_grad():
        mine = modular(assembly, **batch, output_attentions=True)
        theirs = modular.assemble(assembly=assembly)(**batch, output_attentions=True, use_cache=False)
    for key in ("decoder_attentions", "cross_attentions", "encoder_attentions"):
        assert len(mine[key]) == len(theirs[key])
        for one, other in zip(mine[key], theirs[key], strict=True):
            assert torch.equal(one, other)


# -- families that nobody has tried, and those that cannot work ----------------------------------------------------------


@pytest.mark.parametrize("family", ["PLBart", "Mvp"])
def test_an_unknown_family_that_works_like_a_known_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _bart(family)
    randomize(model.modules())
    kind = model.config.model_type
    with pytest.raises(ModtfError, match=rf"\({kind}\) is not one of the families that are known: t5, .*modtf.check"):
        modularize(model)
    found = modtf.check(model.eval())
    assert found.exact and not found.known and kind not in ARCHITECTURES
    assert found.architecture == replace(ARCHITECTURES["bart"], model_type=kind)
    assert f"modtf.ARCHITECTURES['{kind}'] = check(model).architecture" in str(found)
    monkeypatch.setitem(ARCHITECTURES, kind, found.architecture)
    batch, expected = batch_for(model), logits(model, batch_for(model))
    assert torch.equal(logits(modularize(model), batch), expected)


def test_a_family_with_other_names() -> None:
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 20,
    }
    bert = transformers.BertConfig(**sizes)
    both = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(bert, bert)
    with pytest.raises(
        ModtfError, match=r"under other names than t5, .*; describe it: check\(model, Architecture\('enc"
    ):
        modtf.check(transformers.EncoderDecoderModel(both))


def test_words_for_what_cannot_be_checked() -> None:
    model = _bart("PLBart")
    with pytest.raises(ModtfError, match="other names than this record says; describe it"):
        modtf.check(model, replace(ARCHITECTURES["bart"], layers="blocks"))
    with pytest.raises(ModtfError, match="other names than this record says"):
        modtf.check(model, replace(ARCHITECTURES["bart"], self_attention="attn"))
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2))
    with pytest.raises(ModtfError, match="is not an encoder-decoder that writes text"):
        modtf.check(gpt2)
    with pytest.raises(ModtfError, match="'plbart' is not a model"):
        modtf.check("plbart")  # type: ignore[arg-type]


FAULTS: dict[str, tuple[Callable[[], PreTrainedModel], dict[str, Any], str]] = {
    "generate does not know the decoder's depth": (partial(_t5, "T5"), {"cache_depth": None}, "IndexError"),
    "types of layers stay behind": (
        TINY["t5gemma2"], {"encoder_items": None, "decoder_items": None}, "must be equal to the number of `layer_types`",
    ),
    "a key for another depth": (partial(TINY["mbart"], 4, 6), {"cache_depth": "encoder_layers"}, "NO "),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_record_is_found_out(fault: str) -> None:
    make_it, wrong, words = FAULTS[fault]
    model = make_it()
    randomize(model.modules())
    right = ARCHITECTURES[model.config.model_type]
    found = modtf.check(model.eval(), replace(right, **wrong))
    assert not found.exact and "cannot be modularized" in str(found) and words in str(found)
    assert modtf.check(model, right).exact


def test_a_model_whose_layers_do_nothing_is_found_out() -> None:
    """Assemblies that all compute the same would pass every comparison."""
    model = make("mbart")
    with torch.no_grad():
        for stack in stacks_of(model):
            for layer in stack.layers:
                for part in (layer.self_attn.out_proj, layer.fc2):
                    part.weight.zero_(), part.bias.zero_()
                if hasattr(layer, "encoder_attn"):
                    layer.encoder_attn.out_proj.weight.zero_(), layer.encoder_attn.out_proj.bias.zero_()
    found = modtf.check(model)
    assert not found.exact and "the same logits as another assembly's" in str(found)


def test_what_check_reads_must_be_given_where_it_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("moonshine")
    given = modtf.check(model, inputs={"input_values": torch.randn(2, 8000)})
    assert given.exact
    monkeypatch.setattr(type(model), "main_input_name", "pixel_values")
    with pytest.raises(ModtfError, match=r"reads pixel_values; give them: check\(model, inputs="):
        modtf.check(model)


def _refused() -> dict[str, Callable[[], PreTrainedModel]]:
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    small = {
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
        "d_model": 8,
        **heads,
    }
    t5 = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
    prophet = {"hidden_size": 8, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "max_position_embeddings": 16}
    for stack in ("encoder", "decoder"):
        prophet |= {f"num_{stack}_layers": 2, f"num_{stack}_attention_heads": 2}
    languages = {"langs": ["en", "de"], "src_vocab_size": 20, "tgt_vocab_size": 20}
    options: dict[str, dict[str, Any]] = {
        "SwitchTransformers": t5 | {"num_experts": 2, "vocab_size": 20},
        "NllbMoe": small | {"num_experts": 2, "vocab_size": 20, "max_position_embeddings": 16},
        "PegasusX": small | {"vocab_size": 20, "max_position_embeddings": 16},
        "ProphetNet": prophet | {"vocab_size": 20},
        "FSMT": small | languages,
    }

    def new(name: str) -> PreTrainedModel:
        config = getattr(transformers, f"{name}Config")(**options[name])
        return getattr(transformers, f"{name}ForConditionalGeneration")(config)

    return {getattr(transformers, f"{name}Config").model_type: partial(new, name) for name in options}


def test_all_refused_families_are_tried() -> None:
    assert _refused().keys() == REFUSED.keys() and not REFUSED.keys() & ARCHITECTURES.keys()


@pytest.mark.parametrize("name", _refused())
def test_words_for_families_that_cannot_be_modularized(name: str) -> None:
    model = _refused()[name]()
    assert model.config.model_type == name
    for attempt in (modularize, modtf.check):
        with pytest.raises(ModtfError, match=rf"\({name}\) cannot be modularized: ") as raised:
            attempt(model)
        assert REFUSED[name] in str(raised.value)


def test_the_readme_names_every_family() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.fullmatch(r"\|.*\| (loop|generate) \|", line)]
    listed = {
        name: row.endswith("loop |") for row in rows for name in re.findall(r"`([a-z0-9_-]+)`", row.split("|")[1])
    }
    assert listed == {name: name in LAYOUTS for name in ARCHITECTURES}
    assert f"[{len(ARCHITECTURES) - 2} other families]" in text
    assert all(f"`{name}`" in text for name in REFUSED)


@families
def test_a_record_fits_its_family(name: str) -> None:
    model = make(name)
    assert name.startswith("longt5") or _fits(model, ARCHITECTURES[model.config.model_type])
