"""Checks which options of a stage go together, and which truth they make a stage learn."""

import pytest

from realesr.errors import UsageError
from realesr.train.stage_options import LOSSES, StageOptions


def options(**more):
    return StageOptions(**{"iterations": 10, "crop_px": 192, **more})


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"optimizer": "adamw"}, r"optimizer = adamw and weight_decay = 0, expected adamw with a decay above 0"),
        ({"weight_decay": 0.01}, r"optimizer = adam and weight_decay = 0\.01, expected .* or adam without"),
        ({"optimizer": "adamw", "weight_decay": -1.0}, r"weight_decay = -1\.0, expected 0 or more, below 1"),
        (
            {"schedule": "cosine", "milestones": (5,)},
            r"schedule = cosine and 1 milestones, expected milestones = \[\] or mul",
        ),
        ({"min_learning_rate": 1e-6}, "min_learning_rate = 1e-06 without schedule = cosine"),
        ({"schedule": "cosine", "min_learning_rate": 1e-3}, "min_learning_rate = 0.001, expected at most .* 0.0002"),
        ({"schedule": "cosine", "min_learning_rate": 1.5e-4, "gan": 0.1}, "expected at most the learning rate, 0.0001"),
        ({"ms_ssim": 0.5, "crop_px": 168}, "ms_ssim = 0.5 and crop_px = 168, expected crops of 176 px or more"),
        ({"gan_adaptive": True}, r"gan_adaptive = true and gan = 0, expected gan above 0, or gan_adaptive = false"),
        ({"gan_details": True}, r"gan_details = true and gan = 0, expected gan above 0, or gan_details = false"),
        ({"gan_adaptive": True, "gan": 0.5, "l1": 0.0}, "gan_adaptive = true and no other loss above 0, expected one"),
        ({"fft": -1.0}, r"fft = -1\.0, expected 0 to 1"),
        ({"l1": 0.0}, "no loss above 0, expected l1, mse, laplacian, fft, ms_ssim, artefact, perceptual, gan or col"),
    ],
)
def test_what_does_not_go_together_is_told(more, problem):
    with pytest.raises(UsageError, match=problem):
        options(**more)


@pytest.mark.parametrize("loss", LOSSES)
def test_any_loss_will_do(loss):
    assert getattr(options(**{"l1": 0.0, loss: 0.5}), loss) == 0.5


@pytest.mark.parametrize("loss", ["l1", "mse", "laplacian", "fft", "ms_ssim", "artefact"])
@pytest.mark.parametrize("sharp", [True, False])
def test_pixel_losses_decide_which_truth_is_learned(loss, sharp):
    stage = options(**{"l1": 0.0, loss: 0.5}, perceptual=1.0, perceptual_sharp=not sharp, l1_sharp=sharp)
    assert stage.learns_sharp == sharp
    assert stage.needs_sharp


@pytest.mark.parametrize(
    ("more", "learns_sharp", "needs_sharp"),
    [
        ({}, True, True),
        ({"l1_sharp": False}, False, False),
        ({"l1": 0.0, "colour": 1.0}, False, False),
        ({"l1": 0.0, "perceptual": 1.0}, True, True),
        ({"l1": 0.0, "gan": 0.1}, False, False),
        ({"l1": 0.0, "gan": 0.1, "gan_sharp": True}, True, True),
        ({"l1": 0.0, "perceptual": 1.0, "perceptual_sharp": False, "gan": 0.1, "gan_sharp": True}, False, True),
    ],
)
def test_which_truth_is_learned_follows_from_the_losses(more, learns_sharp, needs_sharp):
    stage = options(**more)
    assert (stage.learns_sharp, stage.needs_sharp) == (learns_sharp, needs_sharp)
