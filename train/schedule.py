"""Schedules the learning rates and the weight of the adversarial loss: what they are at each iteration."""

import torch

from realesr.train.stage_options import StageOptions


def learning_rate_at(base: float, iteration: int, options: StageOptions) -> float:
    """Return the learning rate of the step that follows after `iteration` have been done."""
    passed = sum(iteration >= milestone for milestone in options.milestones)
    rise = min(1.0, (iteration + 1) / options.warm_up) if options.warm_up else 1.0
    return base * options.gamma**passed * rise


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give all of an optimiser's parameters this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def gan_weight(iteration: int, options: StageOptions) -> float:
    """Return the weight of the adversarial loss once `iteration` have been done; it rises after the warm-up."""
    since = iteration - options.d_warm_up
    return options.gan * (min(1.0, (since + 1) / options.gan_ramp) if options.gan_ramp else 1.0)
