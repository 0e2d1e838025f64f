"""Meaning representations: a restaurant's attributes.

A meaning representation (MR) is a ``dict`` from slot to value; as text it reads
``name[The Vaults], food[French], near[Café Adriatic]``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from modtf.errors import ModtfError

MR = dict[str, str]

#: The values of each slot in the data. ``name``, ``food`` and ``near`` are open: they may be any short text.
VALUES: dict[str, tuple[str, ...]] = {
    "name": (
        "Alimentum", "Aromi", "Bibimbap House", "Blue Spice", "Browns Cambridge", "Clowns", "Cocum", "Cotto",
        "Fitzbillies", "Giraffe", "Green Man", "Loch Fyne", "Midsummer House", "Strada", "Taste of Cambridge",
        "The Cambridge Blue", "The Cricketers", "The Dumpling Tree", "The Eagle", "The Golden Curry",
        "The Golden Palace", "The Mill", "The Olive Grove", "The Phoenix", "The Plough", "The Punter",
        "The Rice Boat", "The Twenty Two", "The Vaults", "The Waterman", "The Wrestlers", "Travellers Rest Beefeater",
        "Wildwood", "Zizzi",
    ),
    "eatType": ("coffee shop", "pub", "restaurant"),
    "food": ("Chinese", "English", "Fast food", "French", "Indian", "Italian", "Japanese"),
    "priceRange": ("cheap", "moderate", "high", "less than £20", "£20-25", "more than £30"),
    "customer rating": ("low", "average", "high", "1 out of 5", "3 out of 5", "5 out of 5"),
    "area": ("city centre", "riverside"),
    "familyFriendly": ("yes", "no"),
    "near": (
        "All Bar One", "Avalon", "Burger King", "Café Adriatic", "Café Brazil", "Café Rouge", "Café Sicilia",
        "Clare Hall", "Crowne Plaza Hotel", "Express by Holiday Inn", "Rainbow Vegetarian Café", "Raja Indian Cuisine",
        "Ranch", "The Bakers", "The Portland Arms", "The Rice Boat", "The Six Bells", "The Sorrento",
        "Yippee Noodle Bar",
    ),
}  # fmt: skip

#: The slots in the order in which the data writes them.
SLOTS: tuple[str, ...] = tuple(VALUES)
OPEN_SLOTS: tuple[str, ...] = ("name", "food", "near")

_PAIR = re.compile(r"\s*([A-Za-z ]+?)\s*\[([^\[\]]*)\]\s*(,|$)")
_MAX_VALUE_CHARACTERS = 60


def parse_mr(text: str) -> MR:
    """Read ``"name[The Vaults], food[French]"`` into ``{"name": "The Vaults", "food": "French"}``.

    Slots, and values of closed slots, are matched without regard to case; the order is kept. Raises :class:`ModtfError`
    if the text is not an MR, and says where and what is possible there.
    """
    if not text.strip():
        raise ModtfError("the MR is empty; write for example: name[The Vaults], eatType[pub], food[French]")
    mr: MR = {}
    position = 0
    while position < len(text.rstrip()):
        match = _PAIR.match(text, position)
        if not match:
            rest = text[position : position + 40].strip()
            raise ModtfError(
                f"the MR does not parse at {rest!r}; "
                "write slot[value] pairs separated by commas, such as name[The Vaults], food[French]"
            )
        slot = _known(match[1], SLOTS, f"slot {match[1]!r} is unknown; the slots are {', '.join(SLOTS)}")
        if slot in mr:
            raise ModtfError(f"slot {slot!r} is given twice ({mr[slot]!r} and {match[2]!r}); keep one")
        mr[slot] = match[2].strip()
        position = match.end()
    return check_mr(mr)


def check_mr(mr: MR) -> MR:
    """The same MR with closed values spelled as in the data; raises :class:`ModtfError` unless it is a valid MR."""
    checked: MR = {}
    for slot, value in mr.items():
        if slot not in VALUES:
            raise ModtfError(f"slot {slot!r} is unknown; the slots are {', '.join(SLOTS)}")
        if not value:
            raise ModtfError(f"slot {slot!r} has no value; write one, or leave the slot out")
        if len(value) > _MAX_VALUE_CHARACTERS:
            raise ModtfError(
                f"the value of {slot!r} has {len(value)} characters; at most {_MAX_VALUE_CHARACTERS} are allowed"
            )
        if set(value) & set("[]"):
            raise ModtfError(f"the value of {slot!r} contains a bracket ({value!r}); leave it out")
        if slot in OPEN_SLOTS:
            checked[slot] = value
        else:
            checked[slot] = _known(
                value, VALUES[slot], f"{slot}[{value}] is unknown; choose from {', '.join(VALUES[slot])}"
            )
    if "name" not in checked:
        raise ModtfError("the MR has no name; begin for example with name[The Vaults]")
    return checked


def _known(given: str, possible: Sequence[str], message: str) -> str:
    for value in possible:
        if value.casefold() == given.strip().casefold():
            return value
    raise ModtfError(message)


def write_mr(mr: MR) -> str:
    """The MR as text, slots in the order of the data. Inverse of :func:`parse_mr` up to that order."""
    return ", ".join(f"{slot}[{mr[slot]}]" for slot in SLOTS if slot in mr)


def draw_mr(rng: random.Random, slots: int | None = None) -> MR:
    """Draw a random MR of ``slots`` slots, by default 3 to 8 as in the test data; it always has a name."""
    if slots is None:
        slots = rng.randint(3, 8)
    if not 1 <= slots <= len(SLOTS):
        raise ModtfError(f"cannot draw an MR of {slots} slots; ask for 1 to {len(SLOTS)}")
    chosen = {"name", *rng.sample(SLOTS[1:], slots - 1)}
    return {slot: rng.choice(VALUES[slot]) for slot in SLOTS if slot in chosen}


def draw_typical_mr(rng: random.Random) -> MR:
    """Draw a random MR like those of the test data: half of them are long, with 7 or 8 slots."""
    if rng.random() < 0.5:
        return draw_mr(rng, rng.choice((7, 8)))
    return draw_mr(rng)
