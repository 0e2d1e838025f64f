"""Modular Transformers: train once, slide to any size.

Banks of modularized layers (Zhou, Le Bras, Choi, Findings of ACL 2023) for T5 and BART: after one training phase, any
compression ratio is an assembly that costs milliseconds and is an ordinary Hugging Face model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modtf.errors import ModtfError
from modtf.mapping import Assembly, Mapping
from modtf.modular import ModularModel, load, modularize
from modtf.replacing import ReplacingSchedule
from modtf.strategies import size_first, speed_first

if TYPE_CHECKING:
    from modtf.trainer import ModularTrainer, ModularTrainingArguments
    from modtf.views.explorer import explore

__version__ = "0.1.0"

__all__ = [
    "Assembly",
    "Mapping",
    "ModtfError",
    "ModularModel",
    "ModularTrainer",
    "ModularTrainingArguments",
    "ReplacingSchedule",
    "explore",
    "load",
    "modularize",
    "size_first",
    "speed_first",
]

# Transformers' trainer loads `datasets` and the explorer loads plotly and ipywidgets: seconds that `import modtf` need not cost.
_LATE = {
    "ModularTrainer": "modtf.trainer",
    "ModularTrainingArguments": "modtf.trainer",
    "explore": "modtf.views.explorer",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'modtf' has no attribute {name!r}")
