"""Scores of texts written for MRs: BLEU and ROUGE-L against references, slot error rate against the MRs themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from modtf.errors import ModtfError
from modtf.tasks.e2e import MR
from modtf.tasks.slots import check


@dataclass(frozen=True)
class Scores:
    """The three scores, each in percent; ``bleu`` and ``rouge_l`` are better high, ``ser`` (slot error rate) low."""

    bleu: float
    ser: float
    rouge_l: float


def _check_lengths(**lists: Sequence[object]) -> None:
    lengths = {name: len(values) for name, values in lists.items()}
    if not all(lengths.values()):
        empty = ", ".join(name for name, length in lengths.items() if not length)
        raise ModtfError(f"nothing to score: no {empty} given; give at least one of each")
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ModtfError(
            f"the lists differ in length ({given}); give one text an MR, and one list of references a text"
        )


def _check_references(texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    _check_lengths(texts=texts, references=references)
    for index, of_text in enumerate(references):
        if isinstance(of_text, str):
            raise ModtfError(
                f"the references of text {index} are one string; give a list of strings, even for one reference"
            )
        if not of_text:
            raise ModtfError(f"text {index} has no reference; give at least one, or leave the text out")


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU in percent, without case, against all references of each text (``references[i]`` belong to ``texts[i]``).

    Computed by ``sacrebleu`` with ``lowercase=True`` and its standard tokens, as the published figures are.
    Raises :class:`ModtfError` for empty or unequal lists.
    """
    _check_references(texts, references)
    import sacrebleu

    # sacrebleu wants one list for the first reference of all texts, one for the second ...; None where a text has fewer.
    most = max(map(len, references))
    columns = [[of_text[i] if i < len(of_text) else None for of_text in references] for i in range(most)]
    return sacrebleu.corpus_bleu(list(texts), columns, lowercase=True).score


def slot_error_rate(mrs: Sequence[MR], texts: Sequence[str]) -> float:
    """Missed, wrong, repeated and added slots of all texts, in percent of the slots in the MRs; see :func:`modtf.tasks.slots.check`.

    May exceed 100 where texts add much. Raises :class:`ModtfError` for empty or unequal lists, or MRs without slots.
    """
    _check_lengths(mrs=mrs, texts=texts)
    slots = sum(map(len, mrs))
    if not slots:
        raise ModtfError("the MRs have no slots; give at least a name")
    return 100 * sum(check(mr, text).errors for mr, text in zip(mrs, texts, strict=True)) / slots


def rouge_l(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over texts of the best ROUGE-L F-measure among a text's references, in percent, by ``rouge-score`` without stemming.

    Raises :class:`ModtfError` for empty or unequal lists.
    """
    _check_references(texts, references)
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    best = [
        max(scorer.score(reference, text)["rougeL"].fmeasure for reference in of_text)
        for text, of_text in zip(texts, references, strict=True)
    ]
    return 100 * sum(best) / len(best)


def likeness(text: str, other: str) -> float:
    """ROUGE-L of two texts in percent, in any script: words of letters and digits, and Chinese, Japanese and Korean signs one by one."""
    if text == other:
        return 100.0
    from rouge_score.rouge_scorer import RougeScorer

    return 100 * RougeScorer(["rougeL"], tokenizer=_AnyScript()).score(other, text)["rougeL"].fmeasure


class _AnyScript:
    """rouge-score's own tokenizer drops everything but a to z and digits."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(
            r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+", text.lower()
        )


def score(mrs: Sequence[MR], texts: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """All three scores of ``texts``, written for ``mrs``, against their ``references``; see the single functions."""
    _check_lengths(mrs=mrs, texts=texts, references=references)
    return Scores(bleu=bleu(texts, references), ser=slot_error_rate(mrs, texts), rouge_l=rouge_l(texts, references))
