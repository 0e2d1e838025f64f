"""Scores of many samples of the same inputs, and the intervals of their differences (paired bootstrap)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import sacrebleu

from modtf.tasks import E2E, Example, Task
from modtf.tasks.e2e import check, parse_mr

#: Bootstrap samples: draws of as many inputs, with replacement.
DRAWS = 2000


def drawn_scores(
    task: Task, examples: Sequence[Example], texts: Sequence[str], draws: int = DRAWS
) -> dict[str, np.ndarray]:
    """Scores (1 + draws,) of the texts: of all inputs, then of each sample. BLEU, and SER where the task has slots."""
    inputs = len(examples)
    rows = np.concatenate([np.arange(inputs)[None], draws_of(inputs, draws)])
    pairs = list(zip(texts, examples, strict=True))
    slots = task is E2E
    counts = np.array([bleu_counts(text, tuple(example.references), lowercase=slots) for text, example in pairs])
    scores = {"bleu": bleu_of(counts[rows].sum(1))}
    if slots:
        wrong, asked = np.array([slot_errors(text, example.source) for text, example in pairs]).T
        scores["ser"] = 100 * wrong[rows].sum(1) / asked[rows].sum(1)
    return scores


def differences(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float | list[float]]:
    """Of each score, ours less theirs, and the 95 % interval of that."""
    made: dict[str, float | list[float]] = {}
    for name, values in ours.items():
        difference = values - theirs[name]
        made[name] = round(float(difference[0]), 2)
        made[f"{name}_interval"] = np.percentile(difference[1:], [2.5, 97.5]).round(2).tolist()
    return made


def draws_of(inputs: int, draws: int = DRAWS) -> np.ndarray:
    """Indices (draws, inputs), the same each time."""
    return np.random.default_rng(0).integers(inputs, size=(draws, inputs))


@cache  # many students write the same texts, and a report scores each several times
def bleu_counts(text: str, references: tuple[str, ...], lowercase: bool = False) -> tuple[int, ...]:
    """The ten numbers of one text that BLEU sums over all texts.

    These are the matched and all n-grams (n from 1 to 4), and the lengths of the text and of the nearest reference.
    """
    one = sacrebleu.sentence_bleu(text, list(references), lowercase=lowercase)
    return (*one.counts, *one.totals, one.sys_len, one.ref_len)


@cache
def slot_errors(text: str, source: str) -> tuple[int, int]:
    """Of one text, its slot errors and the slots that the source asks for."""
    mr = parse_mr(source)
    return check(mr, text).errors, len(mr)


def bleu_of(sums: np.ndarray) -> np.ndarray:
    """BLEU from sums (draws, 10) of :func:`bleu_counts`."""
    matched, ngrams, length, reference_length = sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9]
    with np.errstate(divide="ignore"):  # where no n-gram of a length matches, BLEU is 0
        precisions = matched / np.maximum(ngrams, 1)
        return 100 * np.exp(np.minimum(0, 1 - reference_length / length) + np.log(precisions).mean(1))
