"""Where each family of models keeps what the method needs, one record each; and the families that it cannot serve."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from modtf.errors import ModtfError
from modtf.mapping import LayerPath, start_indices


@dataclass(frozen=True)
class Architecture:
    """One ``model_type``: the names of its modules, and of what its configuration says about layers.

    A name with dots leads through attributes: ``encoder.num_hidden_layers`` is a key of ``config.encoder``. The
    defaults are BART's, which most families follow.
    """

    model_type: str
    #: the list of layers in a stack
    layers: str = "layers"
    #: the module within the encoder that has this list, where that is not the encoder itself
    text_encoder: str | None = None
    #: configuration keys for the depths of the encoder and of the decoder
    encoder_depth: str = "encoder_layers"
    decoder_depth: str = "decoder_layers"
    #: the key for a stack's own depth, where each stack has its own copy of the configuration
    stack_depth: str | None = None
    #: the key in which ``generate`` looks for the decoder's depth, where the family has another name for it
    cache_depth: str | None = None
    #: the attention modules within a layer, and the place of the attention map in their output
    self_attention: str = "self_attn"
    cross_attention: str = "encoder_attn"
    self_map: int = -1
    cross_map: int = -1
    #: how the names of relative position biases end, where only the first layer of a stack has them
    position_bias: str | None = None
    #: keys with one item for each layer of the encoder, or of the decoder: an item goes where its layer goes
    encoder_items: str | None = None
    decoder_items: str | None = None
    #: keys for the largest number of source and of target tokens
    source_positions: str = "max_position_embeddings"
    target_positions: str = "max_position_embeddings"
    #: whether the model's forward hands arguments that it does not know on to both stacks
    hands_on: bool = True
    #: the key of the generation configuration with (layer, head) pairs of the decoder
    heads: str | None = None

    def is_shared(self, name: str) -> bool:
        """Whether a layer's parameter of this name belongs to the whole stack, and so to original and banks alike."""
        return self.position_bias is not None and name.endswith(self.position_bias)


_BART = Architecture("bart")
_T5 = Architecture(
    "t5",
    layers="block",
    encoder_depth="num_layers",
    decoder_depth="num_decoder_layers",
    stack_depth="num_layers",
    cache_depth="decoder_layers",
    self_attention="layer.0.SelfAttention",
    cross_attention="layer.1.EncDecAttention",
    position_bias="relative_attention_bias.weight",
)
_T5GEMMA = Architecture(
    "t5gemma",
    encoder_depth="encoder.num_hidden_layers",
    decoder_depth="decoder.num_hidden_layers",
    cross_attention="cross_attn",
    encoder_items="encoder.layer_types",
    decoder_items="decoder.layer_types",
    source_positions="encoder.max_position_embeddings",
    target_positions="decoder.max_position_embeddings",
)
_LIKE_BART = ("mbart", "pegasus", "marian", "m2m_100", "blenderbot", "blenderbot-small")
_FAMILIES = (
    _T5,
    replace(_T5, model_type="mt5"),
    replace(_T5, model_type="umt5", position_bias=None),  # each of its layers has biases of its own
    replace(_T5, model_type="longt5", hands_on=False),
    _BART,
    *(replace(_BART, model_type=name) for name in _LIKE_BART),
    replace(
        _BART,
        model_type="led",
        encoder_items="attention_window",
        source_positions="max_encoder_position_embeddings",
        target_positions="max_decoder_position_embeddings",
        hands_on=False,
    ),
    _T5GEMMA,
    replace(
        _T5GEMMA,
        model_type="t5gemma2",
        text_encoder="text_model",
        encoder_depth="encoder.text_config.num_hidden_layers",
        encoder_items="encoder.text_config.layer_types",
        source_positions="encoder.text_config.max_position_embeddings",
        cross_attention="self_attn",  # one module does both
        self_map=1,
        cross_map=2,
    ),
    replace(_BART, model_type="whisper", target_positions="max_target_positions", heads="alignment_heads"),
    Architecture("moonshine", encoder_depth="encoder_num_hidden_layers", decoder_depth="decoder_num_hidden_layers"),
)
#: The record of each ``model_type`` that is known. To use another one, add its record, after :func:`modtf.check`.
ARCHITECTURES: dict[str, Architecture] = {family.model_type: family for family in _FAMILIES}

_BY_POSITION = "so a layer that stands for several would have to be of two kinds"
#: Families that cannot be modularized, and why.
REFUSED = {
    "switch_transformers": f"its layers are dense or mixtures of experts by their position, {_BY_POSITION}",
    "nllb-moe": f"its layers are dense or mixtures of experts by their position, {_BY_POSITION}",
    "pegasus_x": f"every other layer of its encoder shifts its blocks, {_BY_POSITION}",
    "fsmt": "in transformers its stacks have no configuration, and with labels its decoder would read the source",
    "prophetnet": "with a cache, transformers computes other logits for it than without, so nothing could be checked",
}


def check_kind(model: PreTrainedModel) -> None:
    """Raise :class:`ModtfError` for what is no encoder-decoder that writes text, or of a family that is refused."""
    if not isinstance(model, PreTrainedModel):
        raise ModtfError(f"{model!r:.80} is not a model; load one with AutoModelForSeq2SeqLM.from_pretrained")
    model_type, name = model.config.model_type, type(model).__name__
    if model_type in REFUSED:
        raise ModtfError(f"{name} ({model_type}) cannot be modularized: {REFUSED[model_type]}")
    if not (model.can_generate() and model.config.is_encoder_decoder):
        raise ModtfError(
            f"{name} ({model_type}) is not an encoder-decoder that writes text; load one with "
            "AutoModelForSeq2SeqLM.from_pretrained"
        )


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The record of a model; raises :class:`ModtfError` unless it is an encoder-decoder of a known family."""
    check_kind(model)
    model_type = model.config.model_type
    if model_type not in ARCHITECTURES:
        raise ModtfError(
            f"{type(model).__name__} ({model_type}) is not one of the families that are known: {', '.join(ARCHITECTURES)}. "
            "modtf.check(model) says whether it works like one of them"
        )
    return ARCHITECTURES[model_type]


def stacks_of(model: PreTrainedModel, record: Architecture | None = None) -> tuple[Any, Any]:
    """The encoder and the decoder: the modules that hold the layers. ``record`` is that of the model's family."""
    encoder, decoder = model.get_encoder(), model.get_decoder()
    record = record or ARCHITECTURES.get(model.config.model_type)
    return getattr(encoder, record.text_encoder) if record and record.text_encoder else encoder, decoder


def set_attention(model: PreTrainedModel, implementation: str) -> None:
    """Set the attention implementation ("eager", "sdpa") of the model and of both stacks.

    Before transformers 5.20, ``set_attn_implementation`` of the model does not reach T5's stacks, which have copies of
    the configuration.
    """
    for module in (model, *stacks_of(model)):
        module.set_attn_implementation(implementation)


def copied_configs(model: PreTrainedModel) -> dict[int, Any]:
    """Copies of all configurations of a model, those inside others included, by the ``id`` of what they copy."""
    copies: dict[int, Any] = {}
    for owner in (model, *stacks_of(model)):
        copy.deepcopy(owner.config, copies)
    return copies


def read_key(config: Any, key: str, default: Any = None) -> Any:
    """The value of a key, which may lead through configurations inside ``config``."""
    for part in key.split("."):
        config = getattr(config, part, None)
        if config is None:
            return default
    return config


def write_key(config: Any, key: str, value: Any) -> None:
    """Set the value of a key, as :func:`read_key` finds it."""
    *path, last = key.split(".")
    for part in path:
        config = getattr(config, part)
    setattr(config, last, value)


def longest_texts(model: PreTrainedModel) -> tuple[int | None, int | None]:
    """The most source and target tokens for which a model has positions; None where it has no limit."""
    record = architecture_of(model)
    return read_key(model.config, record.source_positions), read_key(model.config, record.target_positions)


def set_depths(model: PreTrainedModel, architecture: Architecture, encoder: int, decoder: int) -> None:
    """Write the depths wherever this family keeps them."""
    stacks = stacks_of(model)
    depths = {architecture.encoder_depth: encoder, architecture.decoder_depth: decoder}
    if architecture.cache_depth:
        # Without it, a T5 whose encoder is shallower than its decoder raises an IndexError in `generate`, even when it
        # is loaded with plain transformers.
        depths[architecture.cache_depth] = decoder
    for config in (model.config, *(stack.config for stack in stacks)):
        for key, depth in depths.items():
            if "." not in key or config is model.config:
                write_key(config, key, depth)
    if architecture.stack_depth:  # last: in T5, the same key as that of the encoder's depth
        for stack, depth in zip(stacks, (encoder, decoder), strict=True):
            setattr(stack.config, architecture.stack_depth, depth)


def items_of(config: Any, architecture: Architecture) -> dict[str, tuple[int, list[Any]]]:
    """The keys with one item a layer: the index of the stack (0 or 1), and the items."""
    keys = (architecture.encoder_items, architecture.decoder_items)
    found = {key: (stack, read_key(config, key)) for stack, key in enumerate(keys) if key}
    return {key: (stack, list(items)) for key, (stack, items) in found.items() if isinstance(items, list | tuple)}


def set_items(config: Any, items: dict[str, tuple[int, list[Any]]], paths: Sequence[LayerPath]) -> None:
    """Give each layer of the paths (encoder's, decoder's) the item of the first layer that it stands for."""
    for key, (stack, of_layers) in items.items():
        write_key(config, key, [of_layers[start] for start in start_indices(paths[stack])])


def move_heads(generation_config: Any, architecture: Architecture, path: LayerPath) -> None:
    """Keep (layer, head) pairs of those layers that are still the original's, with their new positions.

    What the heads of a modularized layer attend to is not known. Where no pair is left, the key is removed.
    """
    key = architecture.heads
    if key is None or getattr(generation_config, key, None) is None:
        return
    places = {start: place for place, (g, start) in enumerate(zip(path, start_indices(path), strict=True)) if g == 1}
    kept = [[places[layer], head] for layer, head in getattr(generation_config, key) if layer in places]
    if kept:
        setattr(generation_config, key, kept)
    else:
        delattr(generation_config, key)


@torch.inference_mode()
def scale_of_logits(model: Any) -> float:
    """By how much a T5 scales what its head reads; releases of transformers decide that in different ways, so it is seen."""
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        model.get_decoder().register_forward_hook(lambda _, given, made: seen.update(written=made[0])),
        model.get_output_embeddings().register_forward_pre_hook(lambda _, given: seen.update(read=given[0])),
    ]
    ids = torch.ones((1, 2), dtype=torch.long, device=model.device)
    try:
        model(input_ids=ids, decoder_input_ids=ids)
    finally:
        for hook in hooks:
            hook.remove()
    return (seen["read"].norm() / seen["written"].norm()).item()
