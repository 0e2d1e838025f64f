"""How the bundled models are made: what is trained, with which settings, in which order. One file a model."""

from __future__ import annotations

from modtf.recipes.pocket import POCKET
from modtf.recipes.recipe import Recipe
from modtf.recipes.translator import TRANSLATOR
from modtf.tasks import Task

#: By the name of their task.
RECIPES: dict[str, Recipe] = {"e2e": POCKET, "translation": TRANSLATOR}

__all__ = ["RECIPES", "Recipe", "recipe_for"]


def recipe_for(task: Task) -> Recipe:
    """The recipe of a task, or the general settings for one that has none."""
    return RECIPES.get(task.name, Recipe())
