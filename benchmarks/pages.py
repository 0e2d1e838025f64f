"""Tables in Markdown, and their places in README, docs and model cards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modtf.errors import ModtfError


def insert(page: Path, command: str, text: str) -> None:
    """Put what a command made between its markers in a page; a page without them stays as it is."""
    start, end = f"<!-- table: {command} -->\n", "<!-- end of table -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, ended, after = rest.partition(end)
    if found and not ended:
        raise ModtfError(f"{page} has no {end} after {start.strip()}; put it back behind the table")
    if found:
        page.write_text(before + start + text + end + after, encoding="utf-8")


def grid(lines: Sequence[dict[str, str]]) -> str:
    """A table with a line for each record; the first one names the columns."""
    rows = [list(lines[0]), *(list(line.values()) for line in lines)]
    head, *body = (f"| {' | '.join(cells)} |" for cells in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])
