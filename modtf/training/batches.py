"""Datasets whose items are whole batches, and batches in which several targets share a source."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from modtf.architectures import stacks_of

#: Training arguments with which a trainer takes such a dataset's batches as they are and in their order.
#: They go together with the collator :func:`only_batch`.
WHOLE_BATCHES: dict[str, Any] = {
    "per_device_train_batch_size": 1,
    "train_sampling_strategy": "sequential",
    "remove_unused_columns": False,
}


def only_batch(features: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collator for datasets whose items are whole batches already."""
    (batch,) = features
    return batch


def encode_sources_once(model: PreTrainedModel) -> None:
    """From now on encode a source once for its many targets, wherever a batch has ``source_index``.

    ``source_index`` (targets,) says which row of ``input_ids`` and ``attention_mask`` (sources, source) each row of
    ``labels``, ``decoder_input_ids`` and ``decoder_attention_mask`` (targets, target) belongs to. The outputs are those
    of a batch that repeats its sources. Batches without ``source_index`` run as before. Assemblies leave hooks behind,
    so they do not take part.
    """
    encoder, decoder = stacks_of(model)

    # The model's forward hands the arguments that it does not know to both stacks. Hooks on the stacks run within that
    # forward, and so under the autocast that a trainer puts around it; a hook on the model itself would run outside.

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

    encoder.register_forward_hook(repeat_states, with_kwargs=True)
    decoder.register_forward_pre_hook(repeat_mask, with_kwargs=True)
