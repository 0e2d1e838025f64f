"""Examples of one's own, in every format; what is left out is counted, and what is wrong is said."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from datasets.packaged_modules.csv.csv import CsvConfig

from modtf.errors import ModtfError
from modtf.tasks.examples import Example
from modtf.tasks.reading import Columns, Read, cut_to, read_split

ROWS = [
    {"de": 'Er sagte: "Ja", und ging.', "en": 'He said "yes", and left.', "id": 1},
    {"de": "Käse, bitte\u2028!", "en": "Cheese, please!", "id": 2},
    {"de": "NA", "en": "null", "id": 3},
    {"de": "NA", "en": "007", "id": 4},
]
GERMAN = Columns("de", "en")
EXPECTED = [
    Example('Er sagte: "Ja", und ging.', ('He said "yes", and left.',)),
    Example("Käse, bitte\u2028!", ("Cheese, please!",)),
    Example("NA", ("null", "007")),
]


def jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")


def csv(path: Path) -> None:
    Dataset.from_list(ROWS).to_csv(path, index=False)


def tsv(path: Path) -> None:
    lines = ["de\ten\tid", *("\t".join(map(str, row.values())) for row in ROWS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def parquet(path: Path) -> None:
    Dataset.from_list(ROWS).to_parquet(path)


WRITERS: dict[str, Callable[[Path], None]] = {"jsonl": jsonl, "csv": csv, "tsv": tsv, "parquet": parquet}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_examples(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"train.{kind}"
    WRITERS[kind](path)
    for data in (path, tmp_path, str(path)):
        read = read_split(data, "train", GERMAN)
        assert read == Read(EXPECTED, rows=4)
    assert str(read) == "4 rows with 3 different sources"
    some = read_split(path, "train", GERMAN, most=2)
    assert some.rows == 2 and some == read_split(path, "train", GERMAN, most=2), "the same ones each time"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed(kind: str, ending: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    plain = tmp_path / f"plain.{kind}"
    WRITERS[kind](plain)
    (tmp_path / f"dev.{kind}.{ending}").write_bytes(compress(plain.read_bytes()))
    assert read_split(tmp_path, "dev", GERMAN).examples == EXPECTED
    assert read_split(tmp_path, "validation", GERMAN).examples == EXPECTED, "another name of the same split"


def test_what_separates_columns(tmp_path: Path) -> None:
    for name, write in (
        ("train.csv", Path.write_bytes),
        ("dev.csv.gz", lambda path, text: path.write_bytes(gzip.compress(text))),
    ):
        write(tmp_path / name, '\ufeff"source";target\n"a, b";1,5\n'.encode())
    for split in ("train", "dev"):
        assert read_split(tmp_path, split).examples == [Example("a, b", ("1,5",))]
    (tmp_path / "test.csv").write_text("source;target\na;b\na;b;c\n")
    with pytest.raises(ModtfError, match=r"test.csv cannot be read"):
        read_split(tmp_path, "test")
    for name, text in (
        ("a.csv", "source\ttarget\na, b\t1;5\n"),
        ("b.csv", '"target","source","t;e;x;t"\n1;5,"a, b",\n'),
    ):
        (tmp_path / name).write_text(text)
        assert read_split(tmp_path / name, "test").examples == [Example("a, b", ("1;5",))]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_a_byte_order_mark_is_no_part_of_a_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"train.{kind}"
    WRITERS[kind](path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_split(path, "train", GERMAN).examples == EXPECTED


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_rows_that_are_left_out_are_counted(kind: str, tmp_path: Path) -> None:
    lines = {
        "jsonl": [b'{"source": "a", "target": "b"}', b'{"source": "", "target": "b"}', b'{"source": "a", "target": "  "}',
                  b'{"source": "a", "target": null}', '{"source": "Käse", "target": "c"}'.encode("latin-1"),
                  b'{"source": "c", "target": "d"}'],
        "csv": [b"source,target", b"a,b", b",b", b'a,"  "', b"a,", "Käse,c".encode("latin-1"), b"c,d"],
        "tsv": [b"source\ttarget", b"a\tb", b"\tb", b"a\t  ", b"a\t", "Käse\tc".encode("latin-1"), b"c\td"],
    }[kind]  # fmt: skip
    if kind != "jsonl" and "encoding_errors" not in CsvConfig().pd_read_csv_kwargs:
        pytest.skip("this datasets does not hand encoding_errors to this pandas, so such a file is refused")
    path = tmp_path / f"train.{kind}"
    path.write_bytes(b"\n".join(lines) + b"\n")
    read = read_split(path, "train")
    assert read == Read([Example("a", ("b",)), Example("c", ("d",))], rows=6, empty=3, not_utf8=1)
    assert str(read) == "2 rows with 2 different sources; left out: 3 empty, 1 not UTF-8"


BAD = {
    "no such column": ("train.jsonl", b'{"in": "a", "out": "b"}\n', r"has no column 'source'; it has 'in', 'out'"),
    "no header": ("train.csv", b"a,b\nc,d\n", r"has no column 'source'; it has 'a', 'b'"),
    "no text": ("train.jsonl", b'{"source": ["a"], "target": "b"}\n', r"row 1: 'source' is \['a'\], not a text"),
    "a number": ("train.jsonl", b'{"source": 5, "target": "b"}\n', r"row 1: 'source' is 5, not a text"),
    "cut off": ("train.jsonl", b'{"source": "a", "target": "b"}\n{"source": "c", "tar', r"cannot be read: "),
    "too many fields": ("train.csv", b"source,target\na,b\nc,d,e\n", r"cannot be read: .*line 3"),
    "nothing": ("train.jsonl", b"", r"train.jsonl (cannot be read: it is empty|has no rows to use)"),
    "only a header": ("train.csv", b"source,target\n", r"no rows to use: 0 are empty"),
    "only empty ones": ("train.csv", b"source,target\n,\n,\n", r"no rows to use: 2 are empty"),
    "no Parquet": ("train.parquet", b"PAR1 no", r"train.parquet cannot be read: Parquet file size is"),
    "no gzip": ("train.jsonl.gz", b'{"source": "a", "target": "b"}\n', r"train.jsonl.gz cannot be read: Not a gzipped file"),
    "another kind": ("train.xlsx", b"PK", r"no train.jsonl, .csv, .tsv or .parquet; it has none of that kind"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_words_for_what_cannot_be_read(case: str, tmp_path: Path) -> None:
    name, content, words = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModtfError, match=words):
        read_split(tmp_path, "train")


def test_words_for_a_split_that_is_not_there(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl")
    csv(tmp_path / "train.csv")
    with pytest.raises(ModtfError, match=r"has train.csv and train.jsonl; leave one"):
        read_split(tmp_path, "train", GERMAN)
    with pytest.raises(ModtfError, match=r"has no test.jsonl, .csv, .tsv or .parquet; it has train.csv, train.jsonl"):
        read_split(tmp_path, "test", GERMAN)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModtfError, match=r"notes.txt is of a kind that is not known; give one of .jsonl"):
        read_split(tmp_path / "notes.txt", "train", GERMAN)
    with pytest.raises(
        ModtfError, match=r"nobody/nothing \(train\) is no file or folder here, and cannot be read from the hub"
    ):
        read_split("nobody/nothing", "train")


def test_a_folder_as_the_hub_gives_it(tmp_path: Path) -> None:
    """`load_dataset` reads a folder of Parquet as it does a data set of the hub, split by split."""
    for split in ("train", "validation"):
        parquet(tmp_path / f"{split}.parquet")
    assert read_split(tmp_path, "dev", GERMAN).examples == EXPECTED


def test_some_rows_are_drawn_from_all_over_the_file(tmp_path: Path) -> None:
    rows = [json.dumps({"source": f"s{number}", "target": "t"}) for number in range(1000)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    drawn = [int(example.source[1:]) for example in read_split(tmp_path, "train", most=100).examples]
    assert len(drawn) == 100 and 350 < sum(drawn) / 100 < 650
    every = read_split(tmp_path, "train", most=5000)
    assert every.rows == 1000 == len({example.source for example in every.examples})


def test_long_texts_are_cut_and_counted(tokenizer: Any) -> None:
    long = " ".join(["The Mill is a cheap pub near Café Adriatic."] * 9)
    examples = [Example(long, ("short", long)), Example("short", ("short",)), Example("a " + long, (long,))]
    cut = cut_to(examples, tokenizer, 20, 12)
    assert (cut.sources, cut.targets) == (2, 2) and len(cut.examples) == 3
    assert cut.examples[1] == examples[1] and cut.examples[0].references[0] == "short"
    for example in cut.examples:
        assert len(tokenizer(example.source)["input_ids"]) <= 20
        assert all(len(tokenizer(text_target=text)["input_ids"]) <= 12 for text in example.references)
    assert len(tokenizer(cut.examples[0].source)["input_ids"]) >= 18 and long.startswith(cut.examples[0].source)
    assert cut_to(examples, tokenizer, 512, 512).examples == examples
