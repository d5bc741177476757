"""Exponential moving average of weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """Average with warm-up: after n updates the decay is min(decay, (1 + n) / (10 + n)) (thesis section 4.3.3).

    Args:
        module: whose parameters are averaged; buffers are copied as they are.
        decay: final decay, 0..1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.average = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights of ``module`` after an optimiser step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average: list[Tensor] = list(self.average.parameters())
        current = [theirs.detach().to(mine.dtype) for theirs, mine in zip(module.parameters(), average, strict=True)]
        torch._foreach_lerp_(average, current, 1 - decay)
        for mine, theirs in zip(self.average.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)

    def state(self) -> dict[str, Any]:
        """Everything a resumed training needs."""
        return {"updates": self.updates, "average": self.average.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.updates = state["updates"]
        self.average.load_state_dict(state["average"])
