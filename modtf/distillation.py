"""The losses, as pure functions of tensors. All are means, so neither batch size nor depth changes their scale.

The paper distils attention maps and hidden states. That these are mean squared errors, how they are scaled, and the
loss on the logits are our choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional

#: Logits that a loss takes at once on CPUs: 8 MB in float32, which caches hold and malloc keeps once it is free.
_PIECE = 2**21


def labels_loss(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with the labels, the mean over all tokens that count.

    ``student`` are logits (batch, target, vocabulary), ``labels`` token ids (batch, target), -100 where none counts.
    """
    pieces = _pieces(student.flatten(0, 1), labels.flatten())
    losses = [functional.cross_entropy(s.float(), of_s, ignore_index=-100, reduction="sum") for s, of_s in pieces]
    return torch.stack(losses).sum() / (labels != -100).sum()


def logits_loss(
    student: torch.Tensor, teacher: torch.Tensor, keep: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Kullback-Leibler divergence KL(teacher ‖ student) per token, times temperature².

    The square keeps the scale of the gradients at any temperature (Hinton, Vinyals, Dean, 2015, section 2).
    ``student`` and ``teacher`` are logits (batch, target, vocabulary); ``keep`` (batch, target) is true where a token
    counts.
    """
    student, teacher = student[keep], teacher[keep]
    losses = [divergence(s, t, temperature) for s, t in _pieces(student, teacher)]
    return torch.stack(losses).sum() / len(student) * temperature**2


def _pieces(logits: torch.Tensor, others: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits (tokens, vocabulary) and what else the tokens have, for as many tokens at once as caches hold."""
    size = max(1, _PIECE // logits.shape[-1] if logits.device.type == "cpu" else len(logits))
    return zip(logits.split(size), others.split(size), strict=True)


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """KL(teacher ‖ student) as the cross-entropy with the teacher's probabilities less their entropy, summed over tokens.

    Both are logits (tokens, vocabulary).
    """
    probabilities = functional.softmax(teacher.float() / temperature, dim=-1)
    cross_entropy = functional.cross_entropy(student.float() / temperature, probabilities, reduction="sum")
    return cross_entropy - torch.special.entr(probabilities).sum()


def hidden_loss(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], keep: torch.Tensor) -> torch.Tensor:
    """Mean squared error between hidden states, relative to the teacher's mean square; mean over the pairs.

    Both sequences hold states (batch, length, d_model): the student's after each layer of its path, the teacher's after
    the last original layer which that layer stands for. ``keep`` (batch, length) is true where a token counts.
    """
    losses = []
    for s, t in zip(student, teacher, strict=True):
        s, t = s[keep].float(), t[keep].float()
        losses.append(((s - t).square().mean(-1) / t.square().mean(-1).clamp_min(1e-6)).mean())
    return torch.stack(losses).mean()


def attention_loss(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], keep: torch.Tensor
) -> torch.Tensor:
    """Squared distance between attention maps, summed over the keys; mean over queries, heads and pairs.

    Maps are (batch, heads, query, key); ``keep`` (batch, query) is true where a query counts. A squared error rather
    than a KL divergence, which is infinite where dropout has set a probability to zero.
    """
    losses = [
        (s.float() - t.float()).square().sum(-1).transpose(1, 2)[keep].mean()
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(losses).mean()
