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
        _load_optimiser(self.g_optimiser, state["g_optimiser"])
        if self.discriminator is not None and self.d_optimiser is not None:
            _load(unwrapped(self.discriminator), state["discriminator"], "discriminator")
            _load_optimiser(self.d_optimiser, state["d_optimiser"])
        self.iteration = int(state["iteration"])

    @property
    def steps(self) -> tuple[int, ...]:
        """Return how many steps each optimiser has taken. Adam counts them on the CPU: nothing waits for a GPU."""
        optimisers = [self.g_optimiser] + ([] if self.d_optimiser is None else [self.d_optimiser])
        memories: list[dict[str, Any]] = [next(iter(each.state.values()), {}) for each in optimisers]
        return tuple(int(memory.get("step", 0)) for memory in memories)


def make_state(
    generator: nn.Module, discriminator: nn.Module | None, options: StageOptions, device: torch.device
) -> TrainState:
    """Put networks on a device, and make what training needs besides."""
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    generator = generator.to(device, memory_format=layout).train()  # type: ignore[call-overload]
    d_optimiser = None
    if discriminator is not None:
        discriminator = discriminator.to(device, memory_format=layout).train()  # type: ignore[call-overload]
        d_optimiser = _optimiser(discriminator, options.d_learning_rate, options)
    return TrainState(
        generator=generator,
        discriminator=discriminator,
        ema=Ema(generator, options.ema_decay),
        g_optimiser=_optimiser(generator, options.learning_rate, options),
        d_optimiser=d_optimiser,
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module without the wrapper for many processes, where it has one."""
    inner: nn.Module = getattr(module, "module", module)
    return inner


def _optimiser(module: nn.Module, rate: float, options: StageOptions) -> torch.optim.Adam:
    """Return Adam, or AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), which is a kind of it in PyTorch."""
    betas = (options.beta1, options.beta2)
    if options.optimizer == "adam":
        return torch.optim.Adam(module.parameters(), lr=rate, betas=betas)
    # Decay would pull the slopes of PReLU towards ReLU: He et al. 2015, arXiv 1502.01852, section 2.1.
    decayed, others = ([each for each in module.parameters() if (each.ndim > 1) == wanted] for wanted in (True, False))
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=betas)


def _load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore what an optimiser remembers of its gradients; its options stay its own, for they may have changed."""
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]
    optimiser.load_state_dict(dict(state))
    for group, own in zip(optimiser.param_groups, options, strict=True):
        group.update(own)


def _load(module: nn.Module, state: Mapping[str, Any], name: str) -> None:
    own = module.state_dict()
    for key in {**own, **state}:
        ours, theirs = (list(each[key].shape) if key in each else "nothing" for each in (own, state))
        if ours != theirs:
            raise ModelError(f"the checkpoint's {name} has {theirs} as {key}, expected {ours}: it is another network")
    module.load_state_dict(state)
