"""The record of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modtf.tasks import Example
from modtf.training.options import Settings

# Gentle enough for a wide model that was trained before; the narrow ones of the bundled recipes learn at higher rates.
_ORIGINAL = Settings(steps=3_000, batch_size=32, learning_rate=1e-4, adamw_learning_rate=1e-4)
_KIT = Settings(steps=10_000, batch_size=64, learning_rate=1e-3, adamw_learning_rate=3e-4)


@dataclass(frozen=True)
class Recipe:
    """How to make an original from examples, and a kit for it. Without ``new_original``, give a model to begin with."""

    new_original: Callable[[Sequence[Example]], tuple[PreTrainedModel, PreTrainedTokenizerBase]] | None = None
    original: Settings = _ORIGINAL
    kit: Settings = _KIT
    #: texts that the original writes for the kit's training, beside people's
    pairs: int = 4_000
