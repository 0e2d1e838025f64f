"""Detecting changed weights without reading them, and keeping what was made from weights until they change."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdRef, WeakTensorKeyDictionary

Made = TypeVar("Made")


def modules_in(*modules: nn.Module) -> list[nn.Module]:
    """These modules and all within them, in a fraction of the time of ``modules()``, which also makes their names."""
    found = list(modules)
    for module in found:  # it grows
        if children := module._modules:
            found += [child for child in children.values() if child is not None]
    return found


def parameters_in(*modules: nn.Module) -> list[nn.Parameter]:
    """The parameters of these modules, the innermost first; those that are shared come more than once."""
    return [p for module in reversed(modules_in(*modules)) for p in module._parameters.values() if p is not None]


#: Part of every stamp. A new object differs from all earlier ones; two threads could count up to the same number.
_epoch = object()


def forget() -> None:
    """Treat all weights as changed: the next text is written from their present values.

    Needed only after changes that PyTorch does not count: in-place writes through ``weight.data``, a NumPy or DLPack
    view, a custom kernel, or another process. Noticed without it: in-place operations (also on ``weight.detach()`` and
    other views), ``copy_``, ``load_state_dict``, the steps of all optimizers, assignments to ``weight.data``, and new
    parameters.
    """
    global _epoch
    _epoch = object()


# In torch 2.13 the fused SGD, Adam, AdamW and Adagrad change weights without raising their version counters; the plain
# and the "foreach" forms of all optimizers raise them. Other optimizers may not either, so every step counts.
register_optimizer_step_post_hook(lambda optimizer, args, kwargs: forget())


def weights_stamp(parameters: Iterable[Tensor]) -> Hashable:
    """A stamp of these tensors, equal to an earlier one only if they are unchanged; no weight is read.

    :func:`forget` says which changes are noticed. The stamp does not keep the tensors alive.
    """
    return (_epoch, *map(_tensor_stamp, parameters))


def _tensor_stamp(tensor: Tensor) -> Hashable:
    # Tensors made in inference mode have no version. They count as changed each time: slower, but never wrong.
    if tensor.is_inference():
        return object()
    # An address alone is not enough: once freed, it may be given to the next tensor of that size.
    storage = StorageWeakRef(tensor.untyped_storage())
    return WeakIdRef(tensor), storage, tensor._version, tensor.data_ptr(), tensor.stride()


def _has(tensor: Tensor, stamp: Any) -> bool:
    """Whether this is the stamp of a tensor: in a third of the time that it takes to make a new one and compare."""
    return (
        type(stamp) is tuple
        and stamp[0]() is tensor
        and stamp[1].cdata == tensor.untyped_storage()._cdata
        and stamp[2:] == (tensor._version, tensor.data_ptr(), tensor.stride())
    )


#: By the first of some weights: the epoch, their stamps and what was made from them. An entry is freed with that weight.
_remembered: Any = WeakTensorKeyDictionary()


def remembered(parameters: Iterable[Tensor], make: Callable[[], Made]) -> Made:
    """What ``make`` returns; it is called again only after one of the parameters has changed.

    Assemblies share their layers' parameters, and therefore share this too. The result must not hold the first
    parameter, or neither would ever be freed.
    """
    parameters = list(parameters)
    epoch, stamps, made = _remembered.get(parameters[0], (None, (), None))
    if epoch is not _epoch or len(stamps) != len(parameters) or not all(map(_has, parameters, stamps)):
        # Before calling `make`: a change during the call counts as one after it.
        epoch, stamps = _epoch, [_tensor_stamp(parameter) for parameter in parameters]
        made = make()
        _remembered[parameters[0]] = epoch, stamps, made
    return made
