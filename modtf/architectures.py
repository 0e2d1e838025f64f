"""Where T5 and BART keep what the method needs. A new family is one more record, and a row in the test matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from modtf.errors import ModtfError


@dataclass(frozen=True)
class Architecture:
    """One ``model_type``: the names of its modules, and of the depths in its configuration."""

    model_type: str
    #: the list of layers in a stack
    layers: str
    #: configuration keys for the depths of the encoder and of the decoder
    encoder_depth: str
    decoder_depth: str
    #: the attention modules within a layer; the last item of their output is the attention map
    self_attention: str
    cross_attention: str
    #: the module within a layer that holds relative position biases, where only the first layer of a stack has it
    position_bias: str | None = None
    #: the key for a stack's own depth, where each stack has its own copy of the configuration
    stack_depth: str | None = None
    #: whether a stack has a ``layerdrop``, the probability that it skips a layer in training
    layerdrop: bool = False


_T5 = Architecture(
    model_type="t5",
    layers="block",
    encoder_depth="num_layers",
    decoder_depth="num_decoder_layers",
    self_attention="layer.0.SelfAttention",
    cross_attention="layer.1.EncDecAttention",
    position_bias="layer.0.SelfAttention.relative_attention_bias",
    stack_depth="num_layers",
)
_BART = Architecture(
    model_type="bart",
    layers="layers",
    encoder_depth="encoder_layers",
    decoder_depth="decoder_layers",
    self_attention="self_attn",
    cross_attention="encoder_attn",
    layerdrop=True,
)
ARCHITECTURES: dict[str, Architecture] = {family.model_type: family for family in (_T5, _BART)}


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The record of a model; raises :class:`ModtfError` unless it is an encoder-decoder of a known family."""
    if not isinstance(model, PreTrainedModel):
        raise ModtfError(f"{model!r:.80} is not a model; load one with AutoModelForSeq2SeqLM.from_pretrained")
    model_type = model.config.model_type
    if model_type not in ARCHITECTURES or not (model.can_generate() and model.config.is_encoder_decoder):
        raise ModtfError(
            f"{type(model).__name__} ({model_type}) is not supported; use a sequence-to-sequence model of one of these "
            f"types: {', '.join(ARCHITECTURES)}. Load it with AutoModelForSeq2SeqLM.from_pretrained"
        )
    return ARCHITECTURES[model_type]


def stacks_of(model: PreTrainedModel) -> tuple[Any, Any]:
    """The encoder and the decoder."""
    return model.get_encoder(), model.get_decoder()


def set_attention(model: PreTrainedModel, implementation: str) -> None:
    """Set the attention implementation ("eager", "sdpa") of the model and of both stacks.

    Before transformers 5.20, ``set_attn_implementation`` of the model does not reach T5's stacks, which have copies of
    the configuration.
    """
    for module in (model, *stacks_of(model)):
        module.set_attn_implementation(implementation)


def set_depths(model: PreTrainedModel, architecture: Architecture, encoder: int, decoder: int) -> None:
    """Write the depths wherever this family keeps them."""
    stacks = stacks_of(model)
    for config in (model.config, *(stack.config for stack in stacks)):
        setattr(config, architecture.encoder_depth, encoder)
        setattr(config, architecture.decoder_depth, decoder)
        # `generate` reads the size of the decoder's cache from this key. Without it, a T5 whose encoder is shallower
        # than its decoder raises an IndexError, even when it is loaded with plain transformers.
        config.decoder_layers = decoder
    if architecture.stack_depth:  # last: in T5, the same key as that of the encoder's depth
        for stack, depth in zip(stacks, (encoder, decoder), strict=True):
            setattr(stack.config, architecture.stack_depth, depth)
