"""Modular Transformers: train once, slide to any size.

Banks of modularized layers (Zhou, Le Bras, Choi, Findings of ACL 2023) for encoder-decoders: after one training phase, any
compression ratio is an assembly that costs milliseconds and is an ordinary Hugging Face model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modtf.errors import ModtfError
from modtf.mapping import Assembly, Mapping, StackMapping
from modtf.replacing import ReplacingSchedule
from modtf.strategies import size_first, speed_first

if TYPE_CHECKING:
    from modtf.architectures import ARCHITECTURES, Architecture
    from modtf.conformance import check
    from modtf.modular import ModularModel, load, modularize
    from modtf.training import ModularTrainer, ModularTrainingArguments
    from modtf.views.explorer import explore

__version__ = "0.2.0"

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Assembly",
    "Mapping",
    "ModtfError",
    "ModularModel",
    "ModularTrainer",
    "ModularTrainingArguments",
    "ReplacingSchedule",
    "StackMapping",
    "check",
    "explore",
    "load",
    "modularize",
    "size_first",
    "speed_first",
]

# These names need torch. Their modules load on first use: `modtf --help` needs none, and only training needs Trainer.
_MODULES = {
    "ARCHITECTURES": "modtf.architectures",
    "Architecture": "modtf.architectures",
    "ModularModel": "modtf.modular",
    "ModularTrainer": "modtf.training",
    "ModularTrainingArguments": "modtf.training",
    "check": "modtf.conformance",
    "explore": "modtf.views.explorer",
    "load": "modtf.modular",
    "modularize": "modtf.modular",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'modtf' has no attribute {name!r}")
