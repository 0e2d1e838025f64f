"""Distillation losses, as pure functions of tensors. All are means, so batch size and depth do not change their scale.

The paper distils attention maps and hidden states; that these are mean squared errors, how they are scaled, and the logits' loss
are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


def logits_loss(
    student: torch.Tensor, teacher: torch.Tensor, keep: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Kullback-Leibler divergence KL(teacher ‖ student) a token, times temperature² (Hinton, Vinyals, Dean, 2015, section 2).

    ``student`` and ``teacher`` are logits (batch, target, vocabulary); ``keep`` (batch, target) is true where a token counts.
    """
    log_student = functional.log_softmax(student[keep].float() / temperature, dim=-1)
    log_teacher = functional.log_softmax(teacher[keep].float() / temperature, dim=-1)
    return functional.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean") * temperature**2


def hidden_loss(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], keep: torch.Tensor) -> torch.Tensor:
    """Mean squared error between hidden states, relative to the teacher's mean square; mean over the pairs.

    Both sequences hold (batch, length, d_model) states, the student's after each layer of its path and the teacher's after the
    last original layer that it stands for. ``keep`` (batch, length) is true where a token counts.
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

    Maps are (batch, heads, query, key); ``keep`` (batch, query) is true where a query counts. A squared error instead of KL, which
    is infinite where dropout has set a probability to zero.
    """
    losses = [
        (s.float() - t.float()).square().sum(-1).transpose(1, 2)[keep].mean()
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(losses).mean()
