"""Variations of an example for training: other names, and the slots in another order."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import partial

from modtf.tasks.e2e.mrs import MR, VALUES, parse_mr, write_mr

#: The probabilities that an MR gets other names, and that its slots come in random order.
_SWAPPED, _SHUFFLED = 0.5, 0.5

# Values that the data does not have, so that the model learns to copy any name.
_FIRST = (
    "The Golden", "The Silver", "The Old", "The Little", "The Red", "The Black", "Café", "Casa", "Villa", "Chez",
    "The Royal", "Green", "Happy", "Blue", "The Lazy",
)  # fmt: skip
_SECOND = (
    "Fox", "Anchor", "Lantern", "Orchard", "Verona", "Luna", "Marie", "Crown", "Harbour", "Peacock", "Willow",
    "Kitchen", "Tiger", "Star", "Rose", "Bridge", "Oak", "Pearl", "Swan", "Lemon",
)  # fmt: skip
_NEW_FOODS = (
    "Thai", "Mexican", "Greek", "Spanish", "Korean", "Turkish", "Vietnamese", "Lebanese", "American", "German",
    "Vegetarian", "Moroccan", "Polish", "Brazilian",
)  # fmt: skip
_CUISINES = [food for food in VALUES["food"] if food != "Fast food"]  # "English food" would become "Fast food food"


def _with_article(new: str, found: re.Match[str]) -> str:
    """The new value, after its fitting article where the text has one."""
    if not found[1]:
        return new
    return f"{found[1]}n {new}" if new[0] in "AEIOU" else f"{found[1]} {new}"


def swap_open_values(mr: MR, texts: Sequence[str], rng: random.Random) -> tuple[MR, tuple[str, ...]]:
    """Give the restaurant another name, food and neighbour, in the MR and in its texts alike.

    A value is swapped only if every text says it literally, so that MR and texts still agree.
    """
    mr, texts = dict(mr), tuple(texts)
    for slot in ("name", "near", "food"):
        old = mr.get(slot)
        if old is None:
            continue
        # As a whole word, with its article.
        literally = re.compile(rf"(?:\b([Aa])n? )?(?<!\w){re.escape(old)}(?!\w)")
        if not all(literally.search(text) for text in texts):
            continue
        if any(other != slot and (old in value or value in old) for other, value in mr.items()):
            continue
        if slot == "food":
            new = rng.choice(_CUISINES if rng.random() < 0.7 else _NEW_FOODS)
        else:
            new = rng.choice(VALUES[slot]) if rng.random() < 0.7 else f"{rng.choice(_FIRST)} {rng.choice(_SECOND)}"
        if any(new in value or value in new for other, value in mr.items() if other != slot):
            continue
        mr[slot] = new
        texts = tuple(literally.sub(partial(_with_article, new), text) for text in texts)
    return mr, texts


def vary(source: str, references: tuple[str, ...], rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """Half of the MRs with swapped names (:func:`swap_open_values`), half with their slots in random order."""
    mr = parse_mr(source)
    if rng.random() < _SWAPPED:
        mr, references = swap_open_values(mr, references, rng)
    if rng.random() < _SHUFFLED:
        slots = list(mr.items())
        rng.shuffle(slots)
        return ", ".join(f"{slot}[{value}]" for slot, value in slots), references
    return write_mr(mr), references
