"""Notebook 7: its data have the faults that the page speaks of, and its checks name what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import modtf
from modtf.commands.training import parse_kit
from modtf.course import own_model as course
from modtf.tasks.reading import Columns, read_split

OPTIONS = "--model my-bart --data tickets --source-column question --target-column answer"
CHECKS: list[tuple[Callable[[Any], None], Any, list[tuple[Any, str]]]] = [
    (
        partial(course.check_options, parse=parse_kit),
        f'{OPTIONS} --source-prefix "reply: " --max-source-length 300',
        [
            (None, "write a text"),
            (f"{OPTIONS} --source-prefix reply: --max-source-length 300", "would read 'reply:How"),
            (f'{OPTIONS} --source-prefix "reply: "', "cut to 512"),
            ("--model my-bart --data tickets", "the columns 'source' and 'target'"),
        ],
    ),
    (
        course.check_memory_gb,
        course.memory_gb,
        [
            (lambda original, banks: None, "nothing back"),
            (lambda original, banks: 4 * 4 * (original + banks) / 1e9, "only its weights"),
            (lambda original, banks: 4 * (original + 3 * banks) / 1e9, "moments 8"),
            (lambda original, banks: 4 * (original + 4 * banks) / 2**30, "is 4 GB"),
        ],
    ),
    (
        course.check_careful_kit,
        lambda original: modtf.modularize(original, granularities=(2, 4), decoder_granularities=(2,)),
        [
            (lambda original: original, "a ModularModel is wanted"),
            (lambda original: modtf.modularize(original), "the smallest decoder has 2"),
            (lambda original: modtf.modularize(original, (4,), decoder_granularities=(2,)), "more lengths"),
        ],
    ),
]


@pytest.mark.parametrize(("check", "solution", "faults"), CHECKS, ids=["options", "memory_gb", "careful_kit"])
def test_checks_name_the_fault(check: Callable[[Any], None], solution: Any, faults: list[tuple[Any, str]]) -> None:
    check(solution)
    for given, words in faults:
        with pytest.raises(AssertionError, match=words):
            check(given)


def test_data_have_the_faults_that_the_page_speaks_of(tmp_path: Path) -> None:
    course.write_data(tmp_path / "data")
    rows = {
        split: read_split(str(tmp_path / "data"), split, Columns("mr", "text")) for split in ("train", "dev", "test")
    }
    assert [len(rows[split].examples) for split in ("dev", "test")] == [100, 200]
    train = (tmp_path / "data" / "train.jsonl").read_bytes().splitlines()
    assert (rows["train"].empty, rows["train"].not_utf8, len(train)) == (1, 1, rows["train"].rows)
    texts = [text for example in rows["train"].examples for text in example.references]
    assert sum(len(text) > 2000 for text in texts) == 1  # the pasted one


def test_memory_of_known_models() -> None:
    rows = {(row["model"], row["kit"]): row for row in course.memory_table(course.memory_gb)}
    whole = rows["T5-base", "2, 3, 4, 6"]
    assert whole["original (M)"] == 223 and 4 < whole["GB"] < 6
    assert rows["T5-base", "2"]["GB"] < rows["T5-base", "(fine-tuning)"]["GB"] < rows["T5-base", "2, 3, 6"]["GB"]


def test_figure_of_before_and_after_has_title_and_words() -> None:
    row = {"strategy": "size_first", "ratio": 2.0, "layers": "3-3", "bleu_kept": 5.0}
    figure = course.before_and_after_figure([row], [row | {"bleu_kept": 90.0}])
    assert figure.layout.title.text and "90 % after" in figure.layout.meta["alt"]


def test_weights_that_a_kit_and_separate_models_hold(tmp_path: Path) -> None:
    modular = modtf.modularize(course.small_model("t5", 6, 6), tokenizer=modtf.load("pocket").tokenizer)
    modular.save_pretrained(tmp_path / "kit", copy_original=True)
    original, banks = (
        sum(weight.nbytes for weight in weights.values()) / 1e6
        for weights in (modular.original_weights(), modular.bank_weights())
    )
    kit, separate = course.weights_held(tmp_path / "kit", (2, 3)).splitlines()
    assert f"kit: {original + banks:.1f} MB, {original + banks:.1f} MB on disk" in kit
    assert kit.endswith(f"the original: {original:.1f} MB")
    two, three = (4e-6 * modular.assemble(ratio=ratio).num_parameters() for ratio in (2, 3))
    assert separate == f"2x, 3x as separate models: {two:.1f} + {three:.1f} = {two + three:.1f} MB"
