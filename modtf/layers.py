"""Layers: cloning them without copying weights, and the stack that holds originals and banks."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from modtf.architectures import Architecture
from modtf.errors import ModtfError
from modtf.mapping import LayerPath, start_indices

#: The dictionaries of hooks that a module has, whatever the version of PyTorch.
_HOOKS = [name for name, value in vars(nn.Module()).items() if isinstance(value, OrderedDict)]


def clone_module(module: nn.Module, replaced: dict[int, Any]) -> nn.Module:
    """New module objects over the very same parameters and buffers: no weight is copied.

    ``replaced`` maps the ``id`` of a module or configuration to what takes its place in the clone; it also remembers
    what was cloned already, so that a module that occurs twice stays one. Hooks of every kind stay with the source.
    """
    if id(module) in replaced:
        return replaced[id(module)]
    clone = copy.copy(module)  # for nn.Module a new object over the same __dict__ entries
    replaced[id(module)] = clone
    state = clone.__dict__
    for name, value in state.items():
        if id(value) in replaced:
            state[name] = replaced[id(value)]
    for name in _HOOKS:
        state[name] = OrderedDict()
    state["_is_full_backward_hook"] = None
    state["_parameters"] = dict(module._parameters)
    state["_buffers"] = dict(module._buffers)
    state["_non_persistent_buffers_set"] = set(module._non_persistent_buffers_set)
    state["_modules"] = {
        name: child if child is None else clone_module(child, replaced) for name, child in module._modules.items()
    }
    return clone


class ModularStack(nn.Module):
    """All layers that one stack can be made of: the originals, and for each granularity g its bank m(g, ·).

    It takes the place of the stack's list of layers. Hugging Face's own forward iterates over it and so runs the layers
    of the current ``path``; the path of all originals is the original model, bit for bit.
    """

    def __init__(self, originals: nn.ModuleList, banks: dict[int, nn.ModuleList]) -> None:
        super().__init__()
        self.originals = originals
        self.banks = nn.ModuleDict({str(g): bank for g, bank in banks.items()})
        self.path: LayerPath = (1,) * len(originals)

    def layers(self, path: LayerPath) -> list[nn.Module]:
        """The layers of a path: originals where g = 1, else m(g, start / g)."""
        banks: Any = self.banks
        return [
            self.originals[start] if g == 1 else banks[str(g)][start // g]
            for g, start in zip(path, start_indices(path), strict=True)
        ]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.layers(self.path))

    def __getitem__(self, index: int | slice) -> Any:
        return self.layers(self.path)[index]

    def __len__(self) -> int:
        return len(self.path)

    def forward(self, *_: Any) -> None:
        raise NotImplementedError(
            "a ModularStack is iterated by its encoder or decoder, which calls the layers one by one"
        )


def new_bank(originals: nn.ModuleList, g: int, architecture: Architecture) -> nn.ModuleList:
    """m(g, ·), each with the weights of the first layer that it stands for: our choice. BERT-of-Theseus begins with the
    first layers of the model.

    The copies train, all but the relative position biases of T5's first layer: m(g, 0) shares the original's.
    """
    bank = nn.ModuleList()
    for start in range(0, len(originals), g):
        layer = clone_module(originals[start], {})
        for name, parameter in list(layer.named_parameters()):
            if architecture.is_shared(name):
                continue
            owner, _, leaf = name.rpartition(".")
            weight = nn.Parameter(parameter.detach().clone())
            layer.get_submodule(owner)._parameters[leaf] = weight
        for name, buffer in list(layer.named_buffers()):
            owner, _, leaf = name.rpartition(".")
            layer.get_submodule(owner)._buffers[leaf] = buffer.clone()
        bank.append(layer)
    return bank


class Recording:
    """What a path's layers returned in one forward pass.

    ``hidden`` are the states (batch, length, d_model) after each layer, ``self_attention`` and ``cross_attention`` its
    maps (batch, heads, query, key).
    """

    def __init__(self) -> None:
        self.hidden: list[torch.Tensor] = []
        self.self_attention: list[torch.Tensor] = []
        self.cross_attention: list[torch.Tensor] = []


@contextmanager
def record(
    layers: Iterable[nn.Module], architecture: Architecture, attentions: bool = False, cross: bool = False
) -> Iterator[Recording]:
    """Record the outputs of these layers while the context is open, through hooks that are removed with it.

    With ``attentions`` their maps, too; with ``cross`` also those of cross-attention: the layers are a decoder's.
    Transformers' own ``output_hidden_states`` installs its hooks once, on the modules then present; a path that changes
    at every step needs hooks of its own. Raises :class:`ModtfError` where a layer has no attention map.
    """
    recording = Recording()
    with ExitStack() as hooks:

        def keep(module: nn.Module, values: list[torch.Tensor], index: int) -> None:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                values.append(output[index] if isinstance(output, tuple) else output)

            hooks.enter_context(module.register_forward_hook(hook))

        for layer in layers:
            keep(layer, recording.hidden, 0)
            if attentions:
                own, other = architecture.self_attention, architecture.cross_attention
                keep(_part(layer, own), recording.self_attention, architecture.self_map)
                if cross:
                    keep(_part(layer, other), recording.cross_attention, architecture.cross_map)
        yield recording


def _part(layer: nn.Module, name: str) -> nn.Module:
    try:
        return layer.get_submodule(name)
    except AttributeError as error:
        raise ModtfError(
            f"a {type(layer).__name__} has no {name}, whose attention map is wanted; train without attention_weight"
        ) from error
