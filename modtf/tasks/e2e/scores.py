"""Scores of texts written for MRs: BLEU and ROUGE-L against references, slot error rate against the MRs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modtf.errors import ModtfError
from modtf.tasks import scores
from modtf.tasks.e2e.mrs import MR
from modtf.tasks.e2e.slots import check
from modtf.tasks.scores import check_lengths, rouge_l


@dataclass(frozen=True)
class Scores:
    """Three scores in percent: for ``bleu`` and ``rouge_l`` higher is better, for ``ser`` (slot error rate) lower."""

    bleu: float
    ser: float
    rouge_l: float


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU without regard to case, as in published results; see :func:`modtf.tasks.scores.bleu`."""
    return scores.bleu(texts, references, lowercase=True)


def slot_error_rate(mrs: Sequence[MR], texts: Sequence[str]) -> float:
    """Missed, wrong, repeated and added slots of all texts, in percent of the slots in the MRs.

    See :func:`modtf.tasks.e2e.slots.check`. May exceed 100 if texts add many slots. Raises :class:`ModtfError` for
    empty or unequal lists, and for MRs without slots.
    """
    check_lengths(mrs=mrs, texts=texts)
    slots = sum(map(len, mrs))
    if not slots:
        raise ModtfError("the MRs have no slots; give at least a name")
    return 100 * sum(check(mr, text).errors for mr, text in zip(mrs, texts, strict=True)) / slots


def score(mrs: Sequence[MR], texts: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """All three scores of ``texts``, written for ``mrs``; ``references[i]`` are the references of ``texts[i]``."""
    check_lengths(mrs=mrs, texts=texts, references=references)
    return Scores(bleu=bleu(texts, references), ser=slot_error_rate(mrs, texts), rouge_l=rouge_l(texts, references))
