"""Training a modular model: the trainer, an optimizer, whole batches, and the trainings of the shell."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modtf.training.trainer import ModularTrainer, ModularTrainingArguments

__all__ = ["ModularTrainer", "ModularTrainingArguments"]


def __getattr__(name: str) -> Any:
    # Trainer takes seconds to import; whoever needs only the optimizer or the batches does not wait for it.
    if name in __all__:
        return getattr(import_module("modtf.training.trainer"), name)
    raise AttributeError(f"module 'modtf.training' has no attribute {name!r}")
