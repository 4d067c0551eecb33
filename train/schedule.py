"""Schedules the learning rates and the weight of the adversarial loss: what they are at each iteration.

All follow from the iteration alone, so that a run that was resumed goes on with the same.
"""

import math

import torch

from realesr.train.stage_options import StageOptions


def learning_rate_at(base: float, iteration: int, options: StageOptions) -> float:
    """Return the learning rate of the step that follows after `iteration` have been done."""
    rise = min(1.0, (iteration + 1) / options.warm_up) if options.warm_up else 1.0
    if options.schedule == "cosine":
        return rise * _cosine(base, iteration, options)
    passed = sum(iteration >= milestone for milestone in options.milestones)
    return base * options.gamma**passed * rise


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give all of an optimiser's parameters this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def gan_weight(iteration: int, options: StageOptions) -> float:
    """Return the weight of the adversarial loss once `iteration` have been done; it rises after the warm-up."""
    since = iteration - options.d_warm_up
    return options.gan * (min(1.0, (since + 1) / options.gan_ramp) if options.gan_ramp else 1.0)


def _cosine(base: float, iteration: int, options: StageOptions) -> float:
    """Return `base` until the warm-up is over, then half a cosine down to the least at the end of the stage.

    Source: Loshchilov and Hutter 2017, "SGDR", arXiv 1608.03983, equation 5, without restarts.
    """
    since, length = iteration - options.warm_up, max(1, options.iterations - options.warm_up)
    progress = min(max(since / length, 0.0), 1.0)
    least = options.min_learning_rate
    return least + (base - least) * (1 + math.cos(math.pi * progress)) / 2
