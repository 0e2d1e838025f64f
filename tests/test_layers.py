"""Cloning shares weights and nothing else: what is done to a clone's modules is not done to its source's, nor back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import modtf
from modtf.layers import clone_module


def nothing(*arguments: Any) -> None:
    pass


#: Every way to register a hook on one module.
HOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "forward": lambda module: module.register_forward_hook(nothing, with_kwargs=True, always_call=True),
    "before forward": lambda module: module.register_forward_pre_hook(nothing, with_kwargs=True),
    "full backward": lambda module: module.register_full_backward_hook(nothing),
    "backward": lambda module: module.register_backward_hook(nothing),
    "before backward": lambda module: module.register_full_backward_pre_hook(nothing),
    "state": lambda module: module.register_state_dict_post_hook(nothing),
    "before state": lambda module: module.register_state_dict_pre_hook(nothing),
    "loading": lambda module: module.register_load_state_dict_post_hook(nothing),
    "before loading": lambda module: module.register_load_state_dict_pre_hook(nothing),
}


def hooks_of(model: nn.Module) -> list[str]:
    """The attributes of all modules that hold a hook."""
    return [
        f"{type(module).__name__}.{name}"
        for module in model.modules()
        for name, value in vars(module).items()
        if "hooks" in name and isinstance(value, dict) and value
    ]


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_stay_where_they_were_registered(make_modular: Any, kind: str) -> None:
    modular: modtf.ModularModel = make_modular("t5")
    small = modular.assemble(ratio=2)
    assert hooks_of(small) == hooks_of(modular) == []
    HOOKS[kind](small)
    HOOKS[kind](small.get_decoder().block[1])
    assert len(hooks_of(small)) >= 2 and hooks_of(modular) == hooks_of(modular.assemble(ratio=2)) == []
    other = modular.assemble(ratio=2)
    for module in modular.modules():
        HOOKS[kind](module)
    assert hooks_of(modular) and hooks_of(other) == hooks_of(modular.assemble(ratio=2)) == []


def test_a_hook_of_another_kind_can_be_registered_on_a_clone() -> None:
    """PyTorch refuses both kinds of backward hooks on one module; a clone has neither."""
    source = nn.Linear(2, 2)
    source.register_backward_hook(nothing)
    clone_module(source, {}).register_full_backward_hook(nothing)


def test_clones_share_weights_but_no_containers(make_model: Any, family: str) -> None:
    model = make_model(family).train()
    clone = clone_module(model, {})
    assert clone.training
    for one, other in zip(model.modules(), clone.modules(), strict=True):
        assert one is not other and type(one) is type(other)
        assert all(a is b for a, b in zip(one.parameters(), other.parameters(), strict=True))
        assert all(a is b for a, b in zip(one.buffers(), other.buffers(), strict=True))
        for name, container in vars(nn.Module()).items():
            if isinstance(container, (dict, set)):
                assert vars(one)[name] is not vars(other)[name], name


def test_buffers_that_are_not_saved_stay_apart() -> None:
    source = nn.Linear(2, 2)
    source.register_buffer("table", torch.zeros(2), persistent=False)
    clone = clone_module(source, {})
    assert "table" not in clone.state_dict()
    clone.register_buffer("own", torch.zeros(2), persistent=False)
    source.register_buffer("own", torch.zeros(2))
    assert "own" in source.state_dict() and "own" not in clone.state_dict()
