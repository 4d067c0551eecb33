"""Checks learning rates and the weight of the adversarial loss, iteration by iteration."""

import warnings

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from realesr.train.schedule import gan_weight, learning_rate_at
from realesr.train.stage_options import StageOptions


def options(**more):
    return StageOptions(**{"iterations": 10, "batch": 2, "crop_px": 32, **more})


def test_the_learning_rate_falls_at_the_milestones():
    steps = options(milestones=(4, 8), gamma=0.1)
    rates = [learning_rate_at(2e-4, iteration, steps) for iteration in (0, 3, 4, 7, 8, 100)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-5, 2e-5, 2e-6, 2e-6])


def test_the_learning_rate_rises_from_nothing_and_never_is_nothing():
    steps = options(warm_up=4, milestones=(2,), gamma=0.5)
    assert [learning_rate_at(1.0, iteration, steps) for iteration in range(6)] == [0.25, 0.5, 0.375, 0.5, 0.5, 0.5]
    assert learning_rate_at(1.0, 0, options()) == 1


def rates_of(scheduler, optimiser, count):
    """Return the learning rates that PyTorch's scheduler gives."""
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns of a deprecated argument that it gives itself
        for _ in range(count):
            rates.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            scheduler.step()
    return rates


def test_the_cosine_is_that_of_pytorch():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-4)
    expected = rates_of(CosineAnnealingLR(optimiser, T_max=50, eta_min=1e-6), optimiser, 51)
    steps = options(iterations=50, schedule="cosine", learning_rate=2e-4, min_learning_rate=1e-6)
    assert [learning_rate_at(2e-4, iteration, steps) for iteration in range(51)] == pytest.approx(expected, rel=1e-9)
    assert learning_rate_at(2e-4, 500, steps) == pytest.approx(1e-6)


def test_the_cosine_begins_where_the_warm_up_ends():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rise = LinearLR(optimiser, start_factor=1 / 5, total_iters=4)
    fall = CosineAnnealingLR(optimiser, T_max=20)
    scheduler = SequentialLR(optimiser, [rise, fall], milestones=[5])
    steps = options(iterations=25, warm_up=5, schedule="cosine")
    found = [learning_rate_at(1.0, iteration, steps) for iteration in range(25)]
    assert found == pytest.approx(rates_of(scheduler, optimiser, 25), rel=1e-9)
    assert max(found) == found[4] == found[5] == 1


def test_a_warm_up_as_long_as_the_stage_has_no_cosine():
    steps = options(iterations=8, warm_up=50, schedule="cosine")
    assert [learning_rate_at(1.0, iteration, steps) for iteration in (0, 7)] == [0.02, 0.16]


def test_the_adversarial_weight_rises_after_the_warm_up():
    steps = options(gan=0.1, gan_ramp=4, d_warm_up=10)
    weights = [gan_weight(iteration, steps) for iteration in (10, 11, 12, 13, 14, 500)]
    assert weights == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert gan_weight(0, options(gan=0.1)) == 0.1
