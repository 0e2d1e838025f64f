"""BLEU of many samples of the same texts: each text's counts once, then sums of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sacrebleu

#: Bootstrap samples: draws of as many inputs, with replacement.
DRAWS = 2000


def draws_of(inputs: int) -> np.ndarray:
    """Indices (draws, inputs), the same each time."""
    return np.random.default_rng(0).integers(inputs, size=(DRAWS, inputs))


def bleu_counts(text: str, references: Sequence[str], lowercase: bool = False) -> list[int]:
    """The ten numbers of one text that BLEU sums over all texts.

    These are the matched and all n-grams (n from 1 to 4), and the lengths of the text and of the nearest reference.
    """
    one = sacrebleu.sentence_bleu(text, list(references), lowercase=lowercase)
    return [*one.counts, *one.totals, one.sys_len, one.ref_len]


def bleu_of(sums: np.ndarray) -> np.ndarray:
    """BLEU from sums (draws, 10) of :func:`bleu_counts`."""
    matched, ngrams, length, reference_length = sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9]
    with np.errstate(divide="ignore"):  # where no n-gram of a length matches, BLEU is 0
        precisions = matched / np.maximum(ngrams, 1)
        return 100 * np.exp(np.minimum(0, 1 - reference_length / length) + np.log(precisions).mean(1))
