"""Whether weights have changed, told without reading them, and what was made from them, kept until they do."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdRef, WeakTensorKeyDictionary

Made = TypeVar("Made")

#: Part of every stamp. A new object equals no earlier one, so no two threads can count to the same number.
_epoch = object()


def forget() -> None:
    """Treat all weights as changed: the next text is written from what they hold now.

    Needed only after changes that PyTorch does not count: in-place writes through ``weight.data``, a NumPy or DLPack
    view, a kernel of your own, or another process. Noticed without it are in-place operations (on ``weight.detach()``
    and other views too), ``copy_``, ``load_state_dict``, the steps of all optimizers, assignments to ``weight.data``,
    and new parameters.
    """
    global _epoch
    _epoch = object()


# In torch 2.13 the fused SGD, Adam, AdamW and Adagrad change weights without counting up their versions; the plain and
# the "foreach" forms of all optimizers count. Optimizers from elsewhere may do as the fused ones, so every step counts.
register_optimizer_step_post_hook(lambda optimizer, args, kwargs: forget())


def weights_stamp(parameters: Iterable[Tensor]) -> Hashable:
    """A stamp of these tensors, equal to an earlier one only while they are unchanged; no weight is read.

    :func:`forget` says which changes are noticed. The stamp keeps no tensor alive.
    """
    return (_epoch, *map(_tensor_stamp, parameters))


def _tensor_stamp(tensor: Tensor) -> Hashable:
    # Tensors made in inference mode count no versions. They pass for changed each time: slower, but never wrong.
    if tensor.is_inference():
        return object()
    # An address alone is not enough: once freed, it is given to the next tensor of that size.
    storage = StorageWeakRef(tensor.untyped_storage())
    return WeakIdRef(tensor), storage, tensor._version, tensor.data_ptr(), tensor.stride()


#: What was made from weights, with their stamp, by the first of them; it goes when that one does.
_remembered: Any = WeakTensorKeyDictionary()


def remembered(parameters: Iterable[Tensor], make: Callable[[], Made]) -> Made:
    """What ``make`` returns, made anew only after one of the parameters has changed.

    Assemblies share their layers' parameters, and so share this too. What is made must not hold the first parameter,
    or neither would ever be freed.
    """
    parameters = list(parameters)
    stamp = weights_stamp(parameters)  # before making: what changes meanwhile counts as changed afterwards
    known = _remembered.get(parameters[0])
    if known is None or known[0] != stamp:
        known = _remembered[parameters[0]] = (stamp, make())
    return known[1]
