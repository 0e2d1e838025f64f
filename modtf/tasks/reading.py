"""Examples of one's own: JSON Lines, CSV, TSV or Parquet, also compressed, or a data set of the hub; read by datasets."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from modtf.errors import ModtfError
from modtf.tasks.examples import Example, group_pairs

#: How datasets reads a file, by its extension. Quotation marks mean something in CSV only.
_UTF8 = {"encoding": "utf-8-sig", "encoding_errors": "replace"}
_TEXTS = {"keep_default_na": False}
_READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jsonl": ("json", _UTF8),
    ".json": ("json", _UTF8),
    ".csv": ("csv", _UTF8 | _TEXTS),
    ".tsv": ("csv", _UTF8 | _TEXTS | {"sep": "\t", "quoting": 3}),
    ".parquet": ("parquet", {}),
}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
#: Other names of a split.
_ALSO = {"dev": ("validation", "valid", "val"), "validation": ("dev", "valid", "val")}
#: Rows among which one is drawn, where not all are wanted: all of a data set that is not larger.
_BUFFER = 100_000
#: What a byte that is not UTF-8 becomes.
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Columns:
    """Where examples of one's own lie: in which columns, and in which configuration of a hub data set."""

    source: str = "source"
    target: str = "target"
    configuration: str | None = None


@dataclass
class Read:
    """What was read from one split, and what was left out."""

    examples: list[Example]
    rows: int = 0
    empty: int = 0
    not_utf8: int = 0

    def __str__(self) -> str:
        kept = self.rows - self.empty - self.not_utf8
        words = f"{kept:,} rows with {len(self.examples):,} different sources"
        left_out = [
            f"{number:,} {why}" for number, why in ((self.empty, "empty"), (self.not_utf8, "not UTF-8")) if number
        ]
        return f"{words}; left out: {', '.join(left_out)}" if left_out else words


def read_split(data: str | Path, split: str, columns: Columns | None = None, most: int | None = None) -> Read:
    """Read the examples of a split, or ``most`` of its rows; a file may be larger than memory.

    Those are drawn from its first rows, 100,000 more than are wanted: all of a file that is not longer. Shuffle a longer
    one that is sorted.

    ``data`` is a file, a folder with files ``{split}.jsonl`` (``.csv``, ``.tsv``, ``.parquet``, each also ``.gz``), or
    the name of a data set on the hub. Rows with an empty source or target, or with bytes that are not UTF-8, are left
    out and counted. Raises :class:`ModtfError` where nothing can be read, or a column is missing.
    """
    columns = columns or Columns()
    where, rows = _rows(data, split, columns, shuffled=most is not None)
    read, pairs = Read([]), []
    try:
        for row in rows:
            if read.rows == most:
                break
            read.rows += 1
            source, target = (_text(row, name, where, read.rows) for name in (columns.source, columns.target))
            if not (source.strip() and target.strip()):
                read.empty += 1
            elif _REPLACEMENT in source + target:
                read.not_utf8 += 1
            else:
                pairs.append((source, target))
    except ModtfError:
        raise
    except Exception as error:  # what the readers of each format raise, and that of a network
        reason = " ".join(str(error.__cause__ or error).split())
        raise ModtfError(f"{where} cannot be read: {reason}") from error
    if not pairs:
        raise ModtfError(f"{where} has no rows to use: {read.empty:,} are empty, {read.not_utf8:,} not UTF-8")
    read.examples = group_pairs(pairs)
    return read


@dataclass
class Cut:
    """Examples whose texts fit, and how many sources and targets had to be cut."""

    examples: list[Example]
    sources: int = 0
    targets: int = 0


def cut_to(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, source_tokens: int, target_tokens: int | None
) -> Cut:
    """Cut longer texts to so many tokens, those that the tokenizer adds included; the end of a text is lost.

    Without ``target_tokens`` targets stay whole, as what texts are scored against must.
    """
    cut, kept = Cut([]), {}
    sources = list(dict.fromkeys(example.source for example in examples))
    targets = list(dict.fromkeys(text for example in examples for text in example.references))
    for name, texts, most in (("text", sources, source_tokens), ("text_target", targets, target_tokens)):
        shorter = texts if most is None else _cut(texts, tokenizer, name, most)
        kept[name] = dict(zip(texts, shorter, strict=True))
    for example in examples:
        source, references = kept["text"][example.source], tuple(kept["text_target"][t] for t in example.references)
        cut.sources += source != example.source
        cut.targets += sum(new != old for new, old in zip(references, example.references, strict=True))
        cut.examples.append(Example(source, references))
    return cut


def _cut(texts: list[str], tokenizer: PreTrainedTokenizerBase, name: str, most: int) -> list[str]:
    def length(text: str) -> int:
        return len(tokenizer(**{name: text}, verbose=False)["input_ids"])

    ids = tokenizer(**{name: texts}, verbose=False)["input_ids"]
    kept = []
    for text, of_text in zip(texts, ids, strict=True):
        shorter, budget = text, most
        # The end of a text may have other tokens than the same words within it: less, until it fits.
        while (len(of_text) if shorter is text else length(shorter)) > most and budget > 0:
            shorter, budget = _beginning(text, tokenizer, name, budget), budget - 1
        kept.append(shorter)
    return kept


def _beginning(text: str, tokenizer: PreTrainedTokenizerBase, name: str, tokens: int) -> str:
    """What the first tokens of a text stand for, as it is written there."""
    given: dict[str, Any] = {name: text, "truncation": True, "max_length": tokens}
    if not tokenizer.is_fast:
        return tokenizer.decode(tokenizer(**given)["input_ids"], skip_special_tokens=True)
    places = tokenizer(**given, return_offsets_mapping=True)["offset_mapping"]
    return text[: max((end for _, end in places), default=0)]


def _text(row: dict[str, Any], name: str, where: str, number: int) -> str:
    if name not in row:
        raise ModtfError(
            f"{where} has no column {name!r}; it has {', '.join(map(repr, row))}: name them, "
            "--source-column and --target-column"
        )
    value = row[name]
    if value is None:  # an empty field
        return ""
    if not isinstance(value, str):
        raise ModtfError(f"{where}, row {number}: {name!r} is {value!r:.60}, not a text")
    return value


def _rows(data: str | Path, split: str, columns: Columns, shuffled: bool) -> tuple[str, Iterator[dict[str, Any]]]:
    """The name of what is read, for error messages, and its rows as they stream in; the same order each time."""
    import datasets

    path = Path(data)
    if path.exists():
        file = find_split(path, split) if path.is_dir() else path
        if _extension(file) not in _READERS:
            raise ModtfError(f"{file} is of a kind that is not known; give one of {', '.join(_READERS)}, also .gz")
        reader, options = _READERS[_extension(file)]
        where, arguments = str(file), {"path": reader, "data_files": str(file), "split": "train", **options}
        if reader == "csv":
            arguments["converters"] = {columns.source: str, columns.target: str}  # 007 is a text, too
    else:
        where = f"{data} ({split})"  # of the hub, where a dev split is called validation
        arguments = {
            "path": str(data),
            "name": columns.configuration,
            "split": "validation" if split == "dev" else split,
        }
    try:
        if path.exists() and reader == "csv":
            arguments.setdefault("sep", _separator(file, columns))
        rows = datasets.load_dataset(**arguments, streaming=True)
        if shuffled and rows.column_names and {columns.source, columns.target} <= set(rows.column_names):
            rows = rows.select_columns([columns.source, columns.target])
        return where, iter(rows.shuffle(seed=0, buffer_size=_BUFFER) if shuffled else rows)
    except Exception as error:  # a damaged file; a name that is not on the hub either, no network, no such split
        reason = " ".join(str(error).split()) or "it is empty"
        of_hub = "is no file or folder here, and cannot be read from the hub"
        raise ModtfError(f"{where} {'cannot be read' if path.exists() else of_hub}: {reason}") from error


def _separator(file: Path, columns: Columns) -> str:
    """What separates the columns in the first line: some programs write semicolons, where a comma is a decimal point."""
    if file.suffix == ".zst":
        return ","
    opener: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(file.suffix, open)
    with opener(file, "rt", encoding="utf-8-sig", errors="replace") as lines:
        header = lines.readline()
    for separator in ",;\t":
        if {columns.source, columns.target} <= set(next(csv.reader([header], delimiter=separator), ())):
            return separator
    return max(",;\t", key=header.count)


def find_split(folder: Path, split: str) -> Path:
    """The file of a split; raises :class:`ModtfError` where there is none, or more than one."""
    for name in (split, *_ALSO.get(split, ())):
        found = sorted(
            file for file in folder.iterdir() if file.name.split(".")[0] == name and _extension(file) in _READERS
        )
        if len(found) > 1:
            raise ModtfError(
                f"{folder} has {' and '.join(file.name for file in found)}; leave one, or give the file itself"
            )
        if found:
            return found[0]
    here = ", ".join(sorted(file.name for file in folder.iterdir() if _extension(file) in _READERS))
    raise ModtfError(f"{folder} has no {split}.jsonl, .csv, .tsv or .parquet; it has {here or 'none of that kind'}")


def _extension(file: Path) -> str:
    name = file.name
    for compressed in _COMPRESSED:
        name = name.removesuffix(compressed)
    return Path(name).suffix
