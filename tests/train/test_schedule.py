"""Checks learning rates and the weight of the adversarial loss, iteration by iteration."""

import pytest

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


def test_the_adversarial_weight_rises_after_the_warm_up():
    steps = options(gan=0.1, gan_ramp=4, d_warm_up=10)
    weights = [gan_weight(iteration, steps) for iteration in (10, 11, 12, 13, 14, 500)]
    assert weights == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert gan_weight(0, options(gan=0.1)) == 0.1
