"""Where T5 and BART keep what the method needs. A new family is one more record, and a row in the tests' matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from modtf.errors import ModtfError


@dataclass(frozen=True)
class Architecture:
    """One ``model_type``: names of attributes, and of the configuration's depths."""

    model_type: str
    #: the stack's list of layers
    layers: str
    #: keys of the configuration for the depth of the encoder and of the decoder
    encoder_depth: str
    decoder_depth: str
    #: attention modules within a layer, whose output ends with the attention map
    self_attention: str
    cross_attention: str
    #: where only the first layer of a stack holds relative position biases: that module's name within the layer
    position_bias: str | None = None
    #: where each stack reads its own depth from a configuration of its own: that key
    stack_depth: str | None = None
    #: whether a stack has a ``layerdrop``, the probability that it skips a layer in training
    layerdrop: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    architecture.model_type: architecture
    for architecture in (
        Architecture(
            "t5", "block", "num_layers", "num_decoder_layers", "layer.0.SelfAttention", "layer.1.EncDecAttention",
            position_bias="layer.0.SelfAttention.relative_attention_bias", stack_depth="num_layers",
        ),
        Architecture("bart", "layers", "encoder_layers", "decoder_layers", "self_attn", "encoder_attn", layerdrop=True),
    )
}  # fmt: skip


def architecture_of(model: PreTrainedModel) -> Architecture:
    """The record of a model; raises :class:`ModtfError` for what is not an encoder-decoder of a known family."""
    if not isinstance(model, PreTrainedModel):
        raise ModtfError(f"{model!r:.80} is not a model; load one with AutoModelForSeq2SeqLM.from_pretrained")
    model_type = model.config.model_type
    if model_type not in ARCHITECTURES or not (model.can_generate() and model.config.is_encoder_decoder):
        raise ModtfError(
            f"{type(model).__name__} ({model_type}) is not supported; possible are sequence-to-sequence models of the "
            f"types {', '.join(ARCHITECTURES)}. Load one with AutoModelForSeq2SeqLM.from_pretrained"
        )
    return ARCHITECTURES[model_type]


def stacks_of(model: PreTrainedModel) -> tuple[Any, Any]:
    """The encoder and the decoder."""
    return model.get_encoder(), model.get_decoder()


def set_attention(model: PreTrainedModel, implementation: str) -> None:
    """Set the attention implementation ("eager", "sdpa") of the model and of both stacks.

    Before 5.20, transformers' own ``set_attn_implementation`` does not reach T5's stacks, which have copies of the
    configuration.
    """
    for one in (model, *stacks_of(model)):
        one.set_attn_implementation(implementation)


def set_depths(model: PreTrainedModel, architecture: Architecture, encoder: int, decoder: int) -> None:
    """Write the depths wherever this family keeps them."""
    for stack, depth in zip(stacks_of(model), (encoder, decoder), strict=True):
        _write_depths(stack.config, architecture, encoder, decoder)
        if architecture.stack_depth:
            setattr(stack.config, architecture.stack_depth, depth)
    _write_depths(model.config, architecture, encoder, decoder)


def _write_depths(config: PreTrainedConfig, architecture: Architecture, encoder: int, decoder: int) -> None:
    setattr(config, architecture.encoder_depth, encoder)
    setattr(config, architecture.decoder_depth, decoder)
    # `generate` sizes the decoder's cache by this name; without it, a T5 whose encoder is shallower than its decoder
    # raises an IndexError, even when exported.
    config.decoder_layers = decoder
