"""Examples of a task: an input and the texts that answer it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from modtf.errors import ModtfError


@dataclass(frozen=True)
class Example:
    """One input of the model, and all texts that answer it."""

    source: str
    references: tuple[str, ...]


def group_pairs(pairs: Iterable[tuple[str, str]]) -> list[Example]:
    """One example for each source, in the order of first appearance."""
    grouped: dict[str, list[str]] = {}
    for source, target in pairs:
        grouped.setdefault(source, []).append(target)
    return [Example(source, tuple(targets)) for source, targets in grouped.items()]


def read_pairs(path: str | Path) -> list[Example]:
    """Read JSON Lines of ``{"source": ..., "target": ...}``, grouped by source.

    Raises :class:`ModtfError` where the file cannot be read, names other columns, or holds no rows.
    """
    pairs: list[tuple[str, str]] = []
    try:
        with Path(path).open(encoding="utf-8") as lines:  # str.splitlines would also split at U+2028, within a text
            for number, line in enumerate(lines, start=1):
                row = json.loads(line)
                source, target = (
                    (row.get(name) for name in ("source", "target")) if isinstance(row, dict) else (None, None)
                )
                if not (isinstance(source, str) and isinstance(target, str)):
                    raise ModtfError(
                        f'{path}, line {number}: write {{"source": "...", "target": "..."}}, both of them texts'
                    )
                pairs.append((source, target))
    except ModtfError:
        raise
    except (OSError, ValueError) as error:
        raise ModtfError(f"{path} cannot be read as JSON Lines in UTF-8: {error}") from error
    if not pairs:
        raise ModtfError(f"{path} has no rows")
    return group_pairs(pairs)


def write_pairs(pairs: Iterable[tuple[str, str]], path: str | Path) -> None:
    """Write what :func:`read_pairs` reads."""
    lines = [json.dumps({"source": source, "target": target}, ensure_ascii=False) for source, target in pairs]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
