"""The optimizer of the bundled models: Muon for matrices, AdamW for everything else."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from modtf.training.machine import fast_bf16


class Muon(torch.optim.Muon):
    """``torch.optim.Muon``, made fit for CPUs: there its products take a third of a training step of the translator.

    The iteration runs in float32 where bfloat16 was slow when the training began, and several processes with the same
    gradients (DDP) share the matrices out.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        for group in self.param_groups:
            group["bf16"] = fast_bf16()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("bf16", fast_bf16())  # of a checkpoint that does not say it yet

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            updates = [self._momentum(matrix, group["momentum"]) for matrix in matrices]
            for matrix, update in zip(matrices, _orthogonalized(updates, group), strict=True):
                size = 0.2 * math.sqrt(max(matrix.shape))  # as large as AdamW's update (Liu et al., 2025)
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * size)

    def _momentum(self, matrix: nn.Parameter, momentum: float) -> torch.Tensor:
        """Nesterov's momentum, which becomes the update of the matrix."""
        gradient = matrix.grad
        assert gradient is not None
        buffer = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def _orthogonalized(updates: list[torch.Tensor], group: dict[str, Any]) -> list[torch.Tensor]:
    """For each matrix about the orthogonal one next to it; each process computes its share."""
    if not updates or not dist.is_initialized() or dist.get_world_size() == 1:
        return _together(updates, group)
    rank, count = dist.get_rank(), dist.get_world_size()
    shares = [torch.zeros_like(update) for update in updates]
    shares[rank::count] = _together(updates[rank::count], group)
    flat = torch.cat([share.flatten() for share in shares])
    dist.all_reduce(flat)
    parts = flat.split([update.numel() for update in updates])
    return [part.view_as(update) for part, update in zip(parts, updates, strict=True)]


def _together(updates: list[torch.Tensor], group: dict[str, Any]) -> list[torch.Tensor]:
    """:func:`_newton_schulz` of each matrix.

    A GPU takes all matrices of one shape at once: one at a time it would mostly wait for the next. A CPU is a quarter
    slower so.
    """
    if not updates or updates[0].device.type == "cpu":
        return [_newton_schulz(update, group) for update in updates]
    made = list(updates)
    for shape in {update.shape for update in updates}:
        places = [i for i, update in enumerate(updates) if update.shape == shape]
        for i, matrix in zip(places, _newton_schulz(torch.stack([updates[i] for i in places]), group), strict=True):
            made[i] = matrix
    return made


def _newton_schulz(update: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """The matrix, or each of (matrices, rows, columns), with all its singular values near 1, of the update's type.

    The iteration is that of Jordan et al. (2024).
    """
    if update.size(-2) > update.size(-1):
        return _newton_schulz(update.mT, group).mT  # the smaller of the two Gram matrices
    a, b, c = group["ns_coefficients"]
    x = update.to(torch.bfloat16 if group["bf16"] else torch.float32)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=group["eps"])
    product = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = product(x, product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(update.dtype)


class MuonWithAdamW(torch.optim.Optimizer):
    """:class:`Muon` for the matrices of the layers, AdamW for everything else (embeddings, norms, biases).

    Muon takes matrices only, hence two optimizers behind one interface. ``lr`` and ``weight_decay`` are Muon's, whose
    updates are scaled to the size of AdamW's; ``adamw_lr`` is the learning rate of AdamW.
    """

    def __init__(self, model: nn.Module, lr: float, adamw_lr: float, weight_decay: float = 0.0) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in embeddings]
        rest = [p for p in trained if p.ndim != 2 or id(p) in embeddings]
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(Muon(matrices, lr=lr, weight_decay=weight_decay))
        if rest:
            self.parts.append(torch.optim.AdamW(rest, lr=adamw_lr, betas=(0.9, 0.98), weight_decay=0.0))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        # A scheduler writes learning rates into these groups; they must be the parts' own, not copies.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
