"""Scores of texts against references, for any task: BLEU, chrF2, ROUGE-L. All are in percent; higher is better."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modtf.errors import ModtfError


def check_lengths(**lists: Sequence[object]) -> None:
    """Raise :class:`ModtfError` unless all lists have the same length and are not empty."""
    lengths = {name: len(values) for name, values in lists.items()}
    if not all(lengths.values()):
        empty = ", ".join(name for name, length in lengths.items() if not length)
        raise ModtfError(f"nothing to score: no {empty} given; give at least one of each")
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ModtfError(
            f"the lists differ in length ({given}); give one text per input, and one list of references per text"
        )


def check_references(texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raise :class:`ModtfError` unless each text has a list of at least one reference."""
    check_lengths(texts=texts, references=references)
    for index, of_text in enumerate(references):
        if isinstance(of_text, str):
            raise ModtfError(
                f"the references of text {index} are one string; give a list of strings, even for one reference"
            )
        if not of_text:
            raise ModtfError(f"text {index} has no reference; give at least one, or leave the text out")


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]], lowercase: bool = False) -> float:
    """Corpus BLEU against all references of each text (``references[i]`` belong to ``texts[i]``).

    Computed by ``sacrebleu`` with its standard tokenizer (13a). Raises :class:`ModtfError` for empty or unequal lists.
    """
    check_references(texts, references)
    import sacrebleu

    return sacrebleu.corpus_bleu(list(texts), _columns(references), lowercase=lowercase).score


def chrf(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus chrF2 against all references of each text, computed by ``sacrebleu`` with its defaults.

    Raises :class:`ModtfError` for empty or unequal lists.
    """
    check_references(texts, references)
    import sacrebleu

    return sacrebleu.corpus_chrf(list(texts), _columns(references)).score


def sentence_chrf(text: str, other: str) -> float:
    """chrF2 of one text against another, in percent; 100 if they are the same, even if both are empty."""
    if text == other:
        return 100.0
    import sacrebleu

    return sacrebleu.sentence_chrf(text, [other]).score


def _columns(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """In sacrebleu's order: the first reference of every text, then the second ...; None where a text has fewer."""
    most = max(map(len, references))
    return [[of_text[i] if i < len(of_text) else None for of_text in references] for i in range(most)]


def rouge_l(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The best ROUGE-L F-measure among a text's references, averaged over texts; ``rouge-score``, without stemming.

    Raises :class:`ModtfError` for empty or unequal lists.
    """
    check_references(texts, references)
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    best = [
        max(scorer.score(reference, text)["rougeL"].fmeasure for reference in of_text)
        for text, of_text in zip(texts, references, strict=True)
    ]
    return 100 * sum(best) / len(best)


def likeness(text: str, other: str) -> float:
    """ROUGE-L of two texts in any script: by words, and by characters in Chinese, Japanese and Korean; in percent."""
    if text == other:
        return 100.0
    from rouge_score.rouge_scorer import RougeScorer

    return 100 * RougeScorer(["rougeL"], tokenizer=_AnyScript()).score(other, text)["rougeL"].fmeasure


class _AnyScript:
    """Words and CJK characters; rouge-score's own tokenizer drops everything except a to z and digits."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(
            r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+", text.lower()
        )
