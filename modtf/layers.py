"""Layers: cloning them without copying weights, and the stack that holds originals and banks."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from modtf.architectures import Architecture
from modtf.mapping import Path, boundaries

_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip


def clone_module(module: nn.Module, replaced: dict[int, Any]) -> nn.Module:
    """New module objects over the very same parameters and buffers: no weight is copied.

    ``replaced`` maps the ``id`` of a module or configuration to what takes its place in the clone; it also remembers what was
    cloned already, so that modules which occur twice stay one. Hooks stay behind: they belong to the source.
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
    state["_parameters"] = dict(module._parameters)
    state["_buffers"] = dict(module._buffers)
    state["_modules"] = {
        name: child if child is None else clone_module(child, replaced) for name, child in module._modules.items()
    }
    return clone


class ModularStack(nn.Module):
    """All layers that one stack can be made of: the originals, and for each granularity g its bank m(g, ·).

    It takes the place of the stack's list of layers. Hugging Face's own forward iterates over it and so runs the layers of
    the current ``path``; the path of all originals is the original model, bit for bit.
    """

    def __init__(self, originals: nn.ModuleList, banks: dict[int, nn.ModuleList]) -> None:
        super().__init__()
        self.originals = originals
        self.banks = nn.ModuleDict({str(g): bank for g, bank in banks.items()})
        self.path: Path = (1,) * len(originals)

    def layers(self, path: Path) -> list[nn.Module]:
        """The layers of a path: originals where g = 1, else m(g, start / g)."""
        starts = (end - g for g, end in zip(path, boundaries(path), strict=True))
        banks: Any = self.banks
        return [
            self.originals[start] if g == 1 else banks[str(g)][start // g]
            for g, start in zip(path, starts, strict=True)
        ]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.layers(self.path))

    def __len__(self) -> int:
        return len(self.path)

    def forward(self, *_: Any) -> None:
        raise NotImplementedError(
            "a ModularStack is iterated by its encoder or decoder, which calls the layers one by one"
        )


def new_bank(originals: nn.ModuleList, g: int, architecture: Architecture) -> nn.ModuleList:
    """m(g, ·) with weights copied from the first layer that each stands for (as BERT-of-Theseus' successors; our choice).

    The copies train, but the relative position biases of T5's first layer: m(g, 0) needs them and shares the original's.
    """
    bank = nn.ModuleList()
    for start in range(0, len(originals), g):
        layer = clone_module(originals[start], {})
        shared = architecture.position_bias + "." if architecture.position_bias else None
        for name, parameter in list(layer.named_parameters()):
            if shared and name.startswith(shared):
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
    """What a path's layers gave in one forward pass: ``hidden`` states (batch, length, d_model) after each layer, and
    ``self_attention`` / ``cross_attention`` maps (batch, heads, query, key) of each."""

    def __init__(self) -> None:
        self.hidden: list[torch.Tensor] = []
        self.self_attention: list[torch.Tensor] = []
        self.cross_attention: list[torch.Tensor] = []


@contextmanager
def record(layers: Iterable[nn.Module], architecture: Architecture, attentions: bool = False) -> Iterator[Recording]:
    """Record the outputs of these layers while the context is open, through hooks that leave with it.

    Transformers' own ``output_hidden_states`` installs hooks once and for the modules then present; a path that changes
    at every step needs its own.
    """
    recording = Recording()

    def keep(values: list[torch.Tensor], index: int) -> Any:
        return lambda module, args, output: values.append(output[index] if isinstance(output, tuple) else output)

    handles = []
    try:
        for layer in layers:
            handles.append(layer.register_forward_hook(keep(recording.hidden, 0)))
            if attentions:
                handles.append(
                    layer.get_submodule(architecture.self_attention).register_forward_hook(
                        keep(recording.self_attention, -1)
                    )
                )
                if _has(layer, architecture.cross_attention):
                    handles.append(
                        layer.get_submodule(architecture.cross_attention).register_forward_hook(
                            keep(recording.cross_attention, -1)
                        )
                    )
        yield recording
    finally:
        for handle in handles:
            handle.remove()


def _has(layer: nn.Module, name: str) -> bool:
    # T5 numbers its parts: layer.1 is cross-attention in the decoder and the feed-forward network in the encoder.
    try:
        layer.get_submodule(name)
    except AttributeError:
        return False
    return True
