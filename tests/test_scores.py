"""BLEU, slot error rate and ROUGE-L: what they must be on small cases, and the published figures of two systems."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modtf.errors import ModtfError
from modtf.tasks import scores as generic
from modtf.tasks.e2e.data import read_folder
from modtf.tasks.e2e.mrs import MR, parse_mr, write_mr
from modtf.tasks.e2e.scores import Scores, bleu, score, slot_error_rate
from modtf.tasks.scores import chrf, likeness, rouge_l

E2E = Path(os.environ.get("MODTF_E2E_DIR") or Path(__file__).parents[1] / ".." / "shared" / "e2e")
needs_e2e = pytest.mark.skipif(not E2E.is_dir(), reason=f"needs the E2E data: none in {E2E}; set MODTF_E2E_DIR")

MRS: list[MR] = [{"name": "The Mill", "eatType": "pub"}, {"name": "Zizzi", "area": "riverside"}]
TEXTS = ["The Mill is a pub.", "Zizzi is by the river."]
REFERENCES = [["The Mill is a pub.", "A pub: The Mill."], ["Zizzi is by the river."]]


def test_perfect_texts_score_perfectly() -> None:
    scores = score(MRS, TEXTS, REFERENCES)
    assert scores == Scores(bleu=pytest.approx(100), ser=0, rouge_l=pytest.approx(100))


def test_case_does_not_count_and_any_reference_will_do() -> None:
    shouted = [text.upper() for text in TEXTS]
    padded = [["Something else altogether here.", *of_text] for of_text in REFERENCES]
    assert bleu(shouted, padded) == pytest.approx(100)
    assert rouge_l(shouted, padded) == pytest.approx(100)


def test_case_counts_for_other_tasks_and_any_reference_will_do() -> None:
    """A translation in capitals is not as good; E2E's figures are without case because the published ones are."""
    shouted = [text.upper() for text in TEXTS]
    padded = [["Something else altogether here.", *of_text] for of_text in REFERENCES]
    for score_of in (generic.bleu, chrf):
        assert score_of(TEXTS, padded) == pytest.approx(100)
        assert score_of(shouted, padded) < 50


def test_slot_error_rate_counts_each_kind_once() -> None:
    # 4 slots; "city centre" is wrong, the price is added: 2 errors
    assert slot_error_rate(MRS, ["The Mill is a cheap pub.", "Zizzi is in the city centre."]) == pytest.approx(50)
    assert slot_error_rate(MRS, ["", ""]) == pytest.approx(100)


def test_rouge_l_is_the_mean_of_the_best() -> None:
    # longest common subsequence 2 of 4 and 2 words: F = 2 / 3; the second text is right
    assert rouge_l(["a b", "c d"], [["a x b y", "z"], ["c d"]]) == pytest.approx(100 * (2 / 3 + 1) / 2)


@settings(deadline=None)
@given(st.permutations(range(4)))
def test_order_does_not_matter(order: list[int]) -> None:
    texts = ["the mill is a pub by the river", "zizzi serves food", "a b c d e", "nothing here at all"]
    references = [
        ["the mill is a pub on the river", "a pub"],
        ["zizzi serves french food"],
        ["a b c d f", "g", "h"],
        ["something there"],
    ]
    shuffled = [texts[i] for i in order], [references[i] for i in order]
    assert bleu(*shuffled) == pytest.approx(bleu(texts, references))
    assert rouge_l(*shuffled) == pytest.approx(rouge_l(texts, references))
    assert chrf(*shuffled) == pytest.approx(chrf(texts, references))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bleu([], []), "no texts, references given"),
        (lambda: rouge_l(["a"], []), "no references given"),
        (lambda: chrf(["a"], [[]]), "text 0 has no reference"),
        (lambda: generic.bleu(["a"], ["a"]), "are one string"),
        (lambda: bleu(["a", "b"], [["a"]]), "2 texts, 1 references"),
        (lambda: bleu(["a"], [[]]), "text 0 has no reference"),
        (lambda: rouge_l(["a"], ["a"]), "are one string"),
        (lambda: slot_error_rate([], []), "no mrs, texts given"),
        (lambda: slot_error_rate(MRS, ["one"]), "2 mrs, 1 texts"),
        (lambda: slot_error_rate([{}], ["one"]), "no slots"),
        (lambda: score(MRS, TEXTS, REFERENCES[:1]), "2 mrs, 2 texts, 1 references"),
    ],
)
def test_bad_input_is_explained(call, message: str) -> None:
    with pytest.raises(ModtfError, match=message):
        call()


@needs_e2e
@pytest.mark.parametrize(("system", "published"), [("tgen", 65.93), ("slug", 66.19)])
def test_published_bleu(system: str, published: float) -> None:
    references = {example.source: example.references for example in read_folder(E2E, "test")}
    with (E2E / "system-outputs" / f"{system}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found = bleu([row["output"] for row in rows], [references[write_mr(parse_mr(row["MR"]))] for row in rows])
    assert round(found, 2) == published


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("", "", 100),
        ("a b", "", 0),
        ("Ein Café", "ein café", 100),
        ("кот и пёс", "кот и кит", 200 / 3),
        ("我是猫", "我是狗", 200 / 3),
    ],
)
def test_likeness_in_any_script(text: str, other: str, expected: float) -> None:
    assert likeness(text, other) == pytest.approx(expected)
