"""Keeps the running mean of a network's weights, which is validated, saved and used."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Ema:
    """An exponential moving average of a module's parameters; buffers are copied.

    Source: BasicSR, basicsr/models/base_model.py, model_ema.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        """The mean itself."""
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Set the mean to decay * mean + (1 - decay) * module."""
        mean = [each.detach() for each in self.module.parameters()]
        torch._foreach_lerp_(mean, [each.detach() for each in module.parameters()], 1 - self.decay)
        for own, other in zip(self.module.buffers(), module.buffers(), strict=True):
            own.copy_(other)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors by the module's own names."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a mean that was saved."""
        self.module.load_state_dict(state)
