"""Examples of a task, and the JSON Lines files that hold them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from modtf.errors import ModtfError

T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """One input of the model and its reference texts."""

    source: str
    references: tuple[str, ...]


def group_pairs(pairs: Iterable[tuple[str, str]]) -> list[Example]:
    """One example for each source, in the order of first appearance."""
    grouped: dict[str, list[str]] = {}
    for source, target in pairs:
        grouped.setdefault(source, []).append(target)
    return [Example(source, tuple(targets)) for source, targets in grouped.items()]


def without_faults(examples: Iterable[Example], faultless: Callable[[str, str], bool]) -> list[Example]:
    """The examples without the references that have faults; those that have no others are left out."""
    kept = [
        (example.source, tuple(text for text in example.references if faultless(example.source, text)))
        for example in examples
    ]
    return [Example(source, references) for source, references in kept if references]


def spread(items: Sequence[T], number: int) -> list[T]:
    """``number`` of the items, or all if there are fewer, evenly spaced over the list, since neighbours are alike."""
    count = min(number, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def read_pairs(path: str | Path) -> list[Example]:
    """Read JSON Lines of ``{"source": ..., "target": ...}``, grouped by source.

    Raises :class:`ModtfError` if the file cannot be read, has other keys, or has no rows.
    """
    pairs: list[tuple[str, str]] = []
    try:
        with Path(path).open(encoding="utf-8") as lines:  # str.splitlines would also split at a U+2028 inside a text
            for number, line in enumerate(lines, start=1):
                match json.loads(line):
                    case {"source": str(source), "target": str(target)}:
                        pairs.append((source, target))
                    case _:
                        raise ModtfError(
                            f'{path}, line {number}: write {{"source": "...", "target": "..."}}, two strings'
                        )
    except ModtfError:
        raise
    except (OSError, ValueError) as error:
        raise ModtfError(f"{path} cannot be read as JSON Lines in UTF-8: {error}") from error
    if not pairs:
        raise ModtfError(f"{path} has no rows")
    return group_pairs(pairs)


def write_pairs(pairs: Iterable[tuple[str, str]], path: str | Path) -> None:
    """Write the file that :func:`read_pairs` reads; raises :class:`ModtfError` if the disk is full."""
    lines = [json.dumps({"source": source, "target": target}, ensure_ascii=False) for source, target in pairs]
    try:
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        Path(path).unlink(missing_ok=True)
        raise ModtfError(
            f"{path} could not be written: {error.strerror}; run the same command again when there is room"
        ) from error
