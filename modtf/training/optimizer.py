"""The optimizer of the bundled models: Muon for matrices, AdamW for everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """``torch.optim.Muon`` for the matrices of the layers, AdamW for everything else (embeddings, norms, biases).

    Muon takes matrices only, hence two optimizers behind one interface. ``lr`` and ``weight_decay`` are Muon's, whose
    updates are scaled to the size of AdamW's (``match_rms_adamw``); ``adamw_lr`` is the learning rate of AdamW.
    """

    def __init__(self, model: nn.Module, lr: float, adamw_lr: float, weight_decay: float = 0.0) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in embeddings]
        rest = [p for p in trained if p.ndim != 2 or id(p) in embeddings]
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(
                torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
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
