"""Holds everything that training changes: networks, their mean, optimisers, and the count of iterations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from realesr.errors import ModelError
from realesr.train.ema import Ema
from realesr.train.stage_options import StageOptions


@dataclass(kw_only=True)
class TrainState:
    """The state of a run between two iterations. The modules may be wrapped for many processes once they are here."""

    generator: nn.Module
    discriminator: nn.Module | None
    ema: Ema
    """Running mean of the generator's weights."""
    g_optimiser: torch.optim.Adam
    d_optimiser: torch.optim.Adam | None
    iteration: int = 0
    """Iterations that have been done."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and texts, which torch.load reads with `weights_only`."""
        return {
            "iteration": self.iteration,
            "generator": unwrapped(self.generator).state_dict(),
            "ema": self.ema.state_dict(),
            "g_optimiser": self.g_optimiser.state_dict(),
            "discriminator": None if self.discriminator is None else unwrapped(self.discriminator).state_dict(),
            "d_optimiser": None if self.d_optimiser is None else self.d_optimiser.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ModelError: it is of other networks; the first difference is named.
        """
        if (state["discriminator"] is None) != (self.discriminator is None):
            raise ModelError(
                "the checkpoint and the recipe differ in whether there is a discriminator: they are of two stages"
            )
        _load(unwrapped(self.generator), state["generator"], "generator")
        _load(self.ema.module, state["ema"], "generator's mean")
        self.g_optimiser.load_state_dict(state["g_optimiser"])
        if self.discriminator is not None and self.d_optimiser is not None:
            _load(unwrapped(self.discriminator), state["discriminator"], "discriminator")
            self.d_optimiser.load_state_dict(state["d_optimiser"])
        self.iteration = int(state["iteration"])


def make_state(
    generator: nn.Module, discriminator: nn.Module | None, options: StageOptions, device: torch.device
) -> TrainState:
    """Put networks on a device, and make what training needs besides."""
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    generator = generator.to(device, memory_format=layout).train()  # type: ignore[call-overload]
    d_optimiser = None
    if discriminator is not None:
        discriminator = discriminator.to(device, memory_format=layout).train()  # type: ignore[call-overload]
        d_optimiser = _adam(discriminator, options.d_learning_rate, options)
    return TrainState(
        generator=generator,
        discriminator=discriminator,
        ema=Ema(generator, options.ema_decay),
        g_optimiser=_adam(generator, options.learning_rate, options),
        d_optimiser=d_optimiser,
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module without the wrapper for many processes, where it has one."""
    inner: nn.Module = getattr(module, "module", module)
    return inner


def _adam(module: nn.Module, rate: float, options: StageOptions) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=rate, betas=(options.beta1, options.beta2))


def _load(module: nn.Module, state: Mapping[str, Any], name: str) -> None:
    own = module.state_dict()
    for key in {**own, **state}:
        ours, theirs = (list(each[key].shape) if key in each else "nothing" for each in (own, state))
        if ours != theirs:
            raise ModelError(f"the checkpoint's {name} has {theirs} as {key}, expected {ours}: it is another network")
    module.load_state_dict(state)
