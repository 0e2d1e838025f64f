"""Datasets whose items are whole batches, and batches in which several targets share a source."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from modtf.architectures import architecture_of, stacks_of

#: Training arguments that make a trainer take the batches of such a dataset unchanged and in order.
#: Use them with the collator :func:`only_batch`.
WHOLE_BATCHES: dict[str, Any] = {
    "per_device_train_batch_size": 1,
    "train_sampling_strategy": "sequential",
    "remove_unused_columns": False,
}


def only_batch(features: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collator for datasets whose items are whole batches."""
    (batch,) = features
    return batch


def encode_sources_once(model: PreTrainedModel) -> list[RemovableHandle]:
    """Make the model encode each source only once for all its targets, in batches that have ``source_index``.

    ``source_index`` (targets,) holds, for each row of ``labels``, ``decoder_input_ids`` and ``decoder_attention_mask``
    (targets, target), the index of its row in ``input_ids`` and ``attention_mask`` (sources, source). The outputs equal
    those of a batch that repeats its sources. Batches without ``source_index`` run as before. Assemblies do not take
    part, since assembling drops hooks. Where a family's forward does not allow it, sources are repeated and encoded
    anew for each target. Returns the hooks that do it.
    """
    encoder, decoder = stacks_of(model)

    def repeat_sources(module: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        index = inputs.pop("source_index", None)
        if index is not None:
            inputs |= {name: inputs[name][index] for name in ("input_ids", "attention_mask") if name in inputs}
        return args, inputs

    if not architecture_of(model).hands_on:
        return [model.register_forward_pre_hook(repeat_sources, with_kwargs=True)]

    # The model's forward passes arguments that it does not know on to both stacks. Hooks on the stacks run inside that
    # forward, and so under the trainer's autocast; a hook on the model itself would run outside of it.

    def repeat_states(module: nn.Module, args: Any, inputs: dict[str, Any], output: Any) -> Any:
        if "source_index" in inputs:
            output.last_hidden_state = output.last_hidden_state[inputs["source_index"]]
        return output

    def repeat_mask(module: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        index = inputs.pop("source_index", None)
        mask = inputs.get("encoder_attention_mask")
        if index is not None and mask is not None:
            inputs["encoder_attention_mask"] = mask[index]
        return args, inputs

    return [
        encoder.register_forward_hook(repeat_states, with_kwargs=True),
        decoder.register_forward_pre_hook(repeat_mask, with_kwargs=True),
    ]
