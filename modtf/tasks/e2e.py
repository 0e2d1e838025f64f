"""The bundled task, E2E NLG: a restaurant's attributes in, an English description out.

A meaning representation (MR) is a ``dict`` from slot to value; as text it reads
``name[The Vaults], food[French], near[Café Adriatic]``. Data: Novikova, Dušek, Rieser (2017) and the
cleaned release of Dušek, Howcroft, Rieser (2019), CC BY-SA 4.0.
"""

from __future__ import annotations

import csv
import gzip
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modtf.errors import ModtfError

MR = dict[str, str]

#: What each slot can say. ``name``, ``food`` and ``near`` are open (any short text); these are the values of the data.
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
        "All Bar One", "Avalon", "Burger King", "Café Adriatic", "Café Brazil", "Café Rouge", "Café Sicilia", "Clare Hall",
        "Crowne Plaza Hotel", "Express by Holiday Inn", "Rainbow Vegetarian Café", "Raja Indian Cuisine", "Ranch",
        "The Bakers", "The Portland Arms", "The Rice Boat", "The Six Bells", "The Sorrento", "Yippee Noodle Bar",
    ),
}  # fmt: skip

#: The slots in the order in which the data writes them.
SLOTS: tuple[str, ...] = tuple(VALUES)
OPEN_SLOTS: tuple[str, ...] = ("name", "food", "near")

_PAIR = re.compile(r"\s*([A-Za-z ]+?)\s*\[([^\[\]]*)\]\s*(,|$)")
_MAX_VALUE_CHARACTERS = 60


def parse_mr(text: str) -> MR:
    """Read ``"name[The Vaults], food[French]"`` into ``{"name": "The Vaults", "food": "French"}``.

    Slots are matched without regard to case, values of closed slots too; the order is kept.
    Raises :class:`ModtfError` where the text is not an MR, naming the place and what is possible there.
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
                f"the MR does not parse at {rest!r}; write slot[value] pairs separated by commas, such as name[The Vaults], food[French]"
            )
        slot = _known(match[1], SLOTS, f"slot {match[1]!r} is unknown; the slots are {', '.join(SLOTS)}")
        if slot in mr:
            raise ModtfError(f"slot {slot!r} is given twice ({mr[slot]!r} and {match[2]!r}); keep one")
        mr[slot] = match[2].strip()
        position = match.end()
    return check_mr(mr)


def check_mr(mr: MR) -> MR:
    """The same MR with values spelled as in the data; raises :class:`ModtfError` for what the task does not know."""
    checked: MR = {}
    for slot, value in mr.items():
        if slot not in VALUES:
            raise ModtfError(f"slot {slot!r} is unknown; the slots are {', '.join(SLOTS)}")
        if not value:
            raise ModtfError(f"slot {slot!r} has no value; write one, or leave the slot out")
        if len(value) > _MAX_VALUE_CHARACTERS:
            raise ModtfError(
                f"the value of {slot!r} has {len(value)} characters; at most {_MAX_VALUE_CHARACTERS} are possible"
            )
        if set(value) & set("[]"):
            raise ModtfError(f"the value of {slot!r} holds a bracket ({value!r}); leave it out")
        if slot in OPEN_SLOTS:
            checked[slot] = value
        else:
            checked[slot] = _known(
                value, VALUES[slot], f"{slot}[{value}] is unknown; possible are {', '.join(VALUES[slot])}"
            )
    if "name" not in checked:
        raise ModtfError("the MR has no name; begin with for example name[The Vaults]")
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
    """Draw a random valid MR of ``slots`` slots (3 to 8 as in the test data where not given); it always has a name."""
    if slots is None:
        slots = rng.randint(3, 8)
    if not 1 <= slots <= len(SLOTS):
        raise ModtfError(f"an MR of {slots} slots was asked for; 1 to {len(SLOTS)} are possible")
    chosen = {"name", *rng.sample(SLOTS[1:], slots - 1)}
    return {slot: rng.choice(VALUES[slot]) for slot in SLOTS if slot in chosen}


@dataclass(frozen=True)
class Example:
    """One MR and all texts that people wrote for it."""

    mr: MR
    references: tuple[str, ...]


def read_folder(folder: str | Path, split: str) -> list[Example]:
    """Read one split of a folder of E2E CSV files, grouped by MR in the order of first appearance.

    ``split`` is a file's name without its ending: ``train-cleaned``, ``dev``, ``test`` ... Columns ``mr`` and ``ref``;
    ``.csv`` and ``.csv.gz`` are read. Raises :class:`ModtfError` where the file or its columns are missing.
    """
    folder = Path(folder)
    candidates = [folder / f"{split}.csv", folder / f"{split}.csv.gz"]
    for path in candidates:
        if path.is_file():
            break
    else:
        found = sorted(p.name for p in folder.glob("*.csv*")) if folder.is_dir() else []
        raise ModtfError(
            f"no {split}.csv or {split}.csv.gz in {folder}; found {', '.join(found) or 'no CSV files'}. "
            "Give the folder of the E2E data (MODTF_E2E_DIR, or the command's --data)"
        )
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="") as file
        ):
            return group_rows(csv.DictReader(file), source=str(path))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ModtfError(f"{path} cannot be read as CSV in UTF-8: {error}; copy it again") from error


def read_hub(split: str) -> list[Example]:
    """Read one split from the hub's copies of the E2E data, through ``datasets``: ``train-cleaned``, ``test`` ... as for :func:`read_folder`.

    ``dev`` is named ``validation`` there. The parquet conversions are read, since `datasets` runs no loading scripts. Raises
    :class:`ModtfError` where the hub cannot be reached or has no such split.
    """
    import datasets

    name = "tuetschek/e2e_nlg_cleaned" if split.endswith("-cleaned") else "tuetschek/e2e_nlg"
    part = split.removesuffix("-cleaned")
    try:
        rows = datasets.load_dataset(
            name, revision="refs/convert/parquet", split="validation" if part == "dev" else part
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModtfError(
            f"{split} could not be read from {name} on the hub: {error}. Give a folder of the E2E data instead"
        ) from error
    return group_rows(rows, source=f"{name} ({part})")


def read_data(data: str | Path, split: str) -> list[Example]:
    """:func:`read_hub` where ``data`` is ``"hub"``, else :func:`read_folder`."""
    return read_hub(split) if str(data) == "hub" else read_folder(data, split)


def _one_value_a_slot(mr_text: str) -> bool:
    slots = [match[1] for match in _PAIR.finditer(mr_text)]
    return len(slots) == len(set(slots)) and "name" in slots


def group_rows(rows: Iterable[dict], source: str) -> list[Example]:
    """Group ``{mr, ref}`` rows by MR; see :func:`read_folder`.

    The cleaned release holds rows whose MR says a slot twice with two values (4 %) or has no name (0.1 %):
    they are left out, since an MR here has one value a slot and a name.
    """
    grouped: dict[str, list[str]] = {}
    mrs: dict[str, MR] = {}
    for row in rows:
        mr_text = row.get("mr") or row.get("meaning_representation")
        reference = row.get("ref") or row.get("human_reference") or row.get("target")
        if not mr_text or not reference:
            raise ModtfError(
                f"{source} has a row without an MR or a text (columns {', '.join(map(str, row))}); the columns mr and ref are needed"
            )
        if not _one_value_a_slot(mr_text):
            continue
        mr = parse_mr(mr_text)
        key = write_mr(mr)
        mrs[key] = mr
        grouped.setdefault(key, []).append(reference.strip())
    if not grouped:
        raise ModtfError(f"{source} has no rows")
    return [Example(mrs[key], tuple(references)) for key, references in grouped.items()]
