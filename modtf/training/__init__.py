"""Training a modular model: the trainer, and beside it an optimizer and the reading of whole batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modtf.training.trainer import ModularTrainer, ModularTrainingArguments

__all__ = ["ModularTrainer", "ModularTrainingArguments"]


def __getattr__(name: str) -> Any:
    # Transformers' trainer takes seconds to import; the optimizer and the batches do without it.
    if name in __all__:
        return getattr(import_module("modtf.training.trainer"), name)
    raise AttributeError(f"module 'modtf.training' has no attribute {name!r}")
