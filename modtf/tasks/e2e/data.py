"""The E2E data, from a folder of CSV files or from the copies on the hub."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterable
from pathlib import Path

from modtf.errors import ModtfError
from modtf.tasks.e2e.mrs import parse_mr, write_mr
from modtf.tasks.examples import Example, group_pairs

#: The name of each slot of an MR.
_SLOT = re.compile(r"\s*([A-Za-z ]+?)\s*\[[^\[\]]*\]\s*(?:,|$)")


def read_folder(folder: str | Path, split: str) -> list[Example]:
    """Read one split from a folder of E2E CSV files: an example for each MR, in the order of first appearance.

    ``split`` is the name of a ``.csv`` or ``.csv.gz`` file without its ending: ``train-cleaned``, ``dev``, ``test`` ...
    Its columns are ``mr`` and ``ref``. Raises :class:`ModtfError` if the file or its columns are missing.
    """
    folder = Path(folder)
    plain, packed = folder / f"{split}.csv", folder / f"{split}.csv.gz"
    if not plain.is_file() and not packed.is_file():
        found = ", ".join(sorted(file.name for file in folder.glob("*.csv*"))) or "no CSV files"
        raise ModtfError(
            f"no {split}.csv or {split}.csv.gz in {folder}; found {found}. "
            "Give the folder of the E2E data (MODTF_E2E_DIR, or the command's --data)"
        )
    path = plain if plain.is_file() else packed
    open_text = open if path == plain else gzip.open
    try:
        with open_text(path, "rt", encoding="utf-8", newline="") as file:
            return group_rows(csv.DictReader(file), source=str(path))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ModtfError(f"{path} cannot be read as CSV in UTF-8: {error}; copy it again") from error


def read_hub(split: str) -> list[Example]:
    """Read one split from the copies of the E2E data on the hub; names of splits are those of :func:`read_folder`.

    ``dev`` is called ``validation`` there. This reads the Parquet conversions, since ``datasets`` runs no loading
    scripts. Raises :class:`ModtfError` if the hub cannot be reached or has no such split.
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
    """:func:`read_hub` if ``data`` is ``"hub"``, else :func:`read_folder`."""
    return read_hub(split) if str(data) == "hub" else read_folder(data, split)


def group_rows(rows: Iterable[dict], source: str) -> list[Example]:
    """Group ``{mr, ref}`` rows by MR; see :func:`read_folder`.

    Rows of the cleaned release whose MR gives a slot twice (4 %) or has no name (0.1 %) are left out: here, an MR has a
    name and one value per slot.
    """
    pairs: list[tuple[str, str]] = []
    for row in rows:
        mr = row.get("mr") or row.get("meaning_representation")
        reference = row.get("ref") or row.get("human_reference") or row.get("target")
        if not mr or not reference:
            columns = ", ".join(map(str, row))
            raise ModtfError(
                f"{source} has a row without an MR or a text (columns {columns}); the columns mr and ref are needed"
            )
        slots = _SLOT.findall(mr)
        if len(slots) == len(set(slots)) and "name" in slots:
            pairs.append((write_mr(parse_mr(mr)), reference.strip()))
    if not pairs:
        raise ModtfError(f"{source} has no rows")
    return group_pairs(pairs)
