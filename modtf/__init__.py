"""Modular Transformers: train once, slide to any size.

Banks of modularized layers (Zhou, Le Bras, Choi, Findings of ACL 2023) for T5 and BART: after one training phase, any
compression ratio is an assembly that costs milliseconds and is an ordinary Hugging Face model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modtf.errors import ModtfError
from modtf.mapping import Assembly, Mapping, StackMapping
from modtf.replacing import ReplacingSchedule
from modtf.strategies import size_first, speed_first

if TYPE_CHECKING:
    from modtf.modular import ModularModel, load, modularize
    from modtf.training import ModularTrainer, ModularTrainingArguments
    from modtf.views.explorer import explore

__version__ = "0.2.0"

__all__ = [
    "Assembly",
    "Mapping",
    "ModtfError",
    "ModularModel",
    "ModularTrainer",
    "ModularTrainingArguments",
    "ReplacingSchedule",
    "StackMapping",
    "explore",
    "load",
    "modularize",
    "size_first",
    "speed_first",
]

# These names need torch. Their modules load on first use: `modtf --help` needs none, and only training needs Trainer.
_MODULES = {
    "ModularModel": "modtf.modular",
    "ModularTrainer": "modtf.training",
    "ModularTrainingArguments": "modtf.training",
    "explore": "modtf.views.explorer",
    "load": "modtf.modular",
    "modularize": "modtf.modular",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'modtf' has no attribute {name!r}")
