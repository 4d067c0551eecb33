"""Checks that a run is scored against what its stage learns, beside bicubic interpolation, and by LPIPS if wanted."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from realesr.errors import InputError, ModelError
from realesr.train import validation
from realesr.train.degrade.draw import draw
from realesr.train.degrade.filters import sharpen
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL
from realesr.train.recipe import ValidationOptions
from realesr.train.stage_options import StageOptions
from realesr.train.validation import (
    Scores,
    ValidationSet,
    bicubic_scores,
    comparison_rows,
    degraded_set,
    given_set,
    grid_picture,
    scores_line,
    validate,
)

CPU = torch.device("cpu")
OPTIONS = ValidationOptions(crops=3, crop_px=64)
SHARP, PLAIN = StageOptions(iterations=1), StageOptions(iterations=1, l1_sharp=False)


def photo(seed, side=80):
    """Return (side, side, 3) bytes with edges and texture."""
    random = np.random.default_rng(seed)
    coarse = random.integers(30, 226, (side // 16, side // 16, 3)).repeat(16, 0).repeat(16, 1)
    return np.clip(coarse + random.integers(-20, 21, coarse.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / f"{seed}.png" for seed in range(2)]
    for seed, path in enumerate(made):
        Image.fromarray(photo(seed)).save(path)
    return made


@pytest.fixture
def pairs(tmp_path, paths):
    """Return paths of given pairs, (HR, LR)."""
    small = tmp_path / "small"
    small.mkdir()
    for path in paths:
        with Image.open(path) as image:
            image.resize((40, 40), Image.Resampling.BICUBIC).save(small / path.name)
    return [(path, small / path.name) for path in paths]


class Answers(torch.nn.Module):
    """Stands for a network that knows all answers."""

    def __init__(self, lr, hr):
        super().__init__()
        self.known = {small.numpy().tobytes(): large for small, large in zip(lr, hr, strict=True)}

    def forward(self, lr):
        return torch.stack([self.known[small.numpy().tobytes()] for small in lr])


def perfect(found, stage, plain):
    """Return a network that answers with what a stage's losses call the truth."""
    truth = [sharpen(image[None])[0] if stage.learns_sharp else image for image in plain]
    return Answers(found.lr, truth)


@pytest.mark.parametrize("stage", [SHARP, PLAIN])
def test_a_network_that_has_learned_all_gets_the_highest_scores(paths, stage):
    found = degraded_set(paths, CORRECTED, OPTIONS, stage=stage, scale=2)
    plain = degraded_set(paths, CORRECTED, OPTIONS, stage=PLAIN, scale=2).hr
    scores, _ = validate(perfect(found, stage, plain), found, CPU)
    assert scores.psnr == 100
    assert scores.ssim == pytest.approx(1)


@pytest.mark.parametrize("stage", [SHARP, PLAIN])
def test_given_pairs_are_scored_against_what_the_stage_learns(pairs, stage):
    found = given_set(pairs, OPTIONS, stage=stage, scale=2)
    plain = [torch.from_numpy(photo(seed)).permute(2, 0, 1) / 255 for seed in range(2)]
    assert validate(perfect(found, stage, plain), found, CPU)[0].psnr == 100
    assert torch.equal(found.lr[0], given_set(pairs, OPTIONS, stage=PLAIN, scale=2).lr[0])


def test_photos_are_sharpened_before_they_are_degraded_where_the_stage_does_so(paths):
    sharp, plain = (degraded_set(paths, CORRECTED, OPTIONS, stage=stage, scale=2) for stage in (SHARP, PLAIN))
    assert not torch.equal(sharp.lr[0], plain.lr[0])
    other_truth = StageOptions(iterations=1, l1=0.0, perceptual=1.0, perceptual_sharp=False)
    mixed = degraded_set(paths, CORRECTED, OPTIONS, stage=other_truth, scale=2)
    assert torch.equal(mixed.lr[0], sharp.lr[0])
    assert torch.equal(mixed.hr[0], plain.hr[0])


def test_the_crops_of_a_faithful_validation_are_degraded_each_in_its_own_way(paths):
    drawn = []

    def kept(*args, **more):
        drawn.append(draw(*args, **more))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "draw", kept)
        degraded_set(paths, FAITHFUL, OPTIONS, stage=SHARP, scale=2)
    assert len({sample.shared for sample in drawn[0]}) == OPTIONS.crops


def test_an_output_that_equals_a_flat_truth_leaves_the_mean_finite():
    flat, noise = torch.full((3, 32, 32), 0.2), torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = ValidationSet(lr=(flat[:, ::2, ::2], noise[:, ::2, ::2]), hr=(flat, noise), names=("", ""))
    scores = bicubic_scores(found)
    assert math.isfinite(scores.psnr)
    assert 50 < scores.psnr < 60


def test_the_baseline_is_pillows_bicubic_interpolation(paths):
    found = degraded_set(paths, CORRECTED, OPTIONS, stage=SHARP, scale=2)
    expected = []
    for lr in found.lr:
        small = Image.fromarray((lr * 255).round().byte().permute(1, 2, 0).numpy())
        large = torch.from_numpy(np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC)).copy())
        expected.append(large.permute(2, 0, 1) / 255)
    scores, _ = validate(Answers(found.lr, expected), found, CPU)
    assert bicubic_scores(found).psnr == pytest.approx(scores.psnr, abs=0.01)
    assert bicubic_scores(found).ssim == pytest.approx(scores.ssim, abs=1e-3)
    assert bicubic_scores(found).lpips is None


def test_the_line_names_the_network_and_what_it_has_to_beat():
    own, bicubic = (Scores(psnr=psnr, ssim=0.5, colour_drift=1.0) for psnr in (27.314, 26))
    expected = "PSNR 27.31 dB (best; bicubic 26.00), SSIM 0.5000 (bicubic 0.5000), colours off by 1.00 levels"
    assert scores_line(own, bicubic, is_best=True) == expected
    own, bicubic = (Scores(psnr=20.0, ssim=0.5, colour_drift=1.0, lpips=value) for value in (0.25, 0.5))
    assert ", LPIPS 0.2500 (bicubic 0.5000), colours" in scores_line(own, bicubic, is_best=False)
    assert "best" not in scores_line(own, bicubic, is_best=False)


def made_weights():
    """Return AlexNet and the linear layers of LPIPS, random, by the names of their files."""
    random = np.random.default_rng(18)
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    backbone, linear = {}, {}
    for layer, (index, shape) in enumerate(shapes.items()):
        scale = math.sqrt(2 / math.prod(shape[1:]))
        backbone[f"features.{index}.weight"] = torch.from_numpy(random.standard_normal(shape, np.float32) * scale)
        backbone[f"features.{index}.bias"] = torch.zeros(shape[0])
        linear[f"lin{layer}.model.1.weight"] = torch.ones(1, shape[0], 1, 1)
    return {"alexnet.pth": backbone, "alex.pth": linear}


def test_lpips_is_computed_where_its_weights_are_given(paths, tmp_path):
    for name, tensors in made_weights().items():
        torch.save(tensors, tmp_path / name)
    options = ValidationOptions(crops=2, crop_px=64, lpips=(str(tmp_path / "alex.pth"), str(tmp_path / "alexnet.pth")))
    found = degraded_set(paths, CORRECTED, options, stage=SHARP, scale=2)
    bicubic = bicubic_scores(found)
    assert bicubic.lpips is not None
    assert bicubic.lpips > 0.01
    assert bicubic.as_dict()["lpips"] == bicubic.lpips
    large = [functional.interpolate(lr[None], scale_factor=2, mode="bicubic", antialias=True)[0] for lr in found.lr]
    assert validate(Answers(found.lr, large), found, CPU)[0].lpips == pytest.approx(bicubic.lpips, rel=1e-6)
    assert validate(Answers(found.lr, found.hr), found, CPU)[0].lpips == pytest.approx(0, abs=1e-6)


def test_weights_of_lpips_that_are_missing_are_told_at_once(paths):
    options = ValidationOptions(crops=2, crop_px=64, lpips=("nowhere.pth",))
    with pytest.raises(ModelError, match=r"nowhere\.pth cannot be read"):
        degraded_set(paths, CORRECTED, options, stage=SHARP, scale=2)


def test_pairs_that_cannot_be_used_are_left_out_and_told(tmp_path, pairs):
    tiny = [tmp_path / "large.png", tmp_path / "tiny.png"]
    for path, side in zip(tiny, (16, 8), strict=True):
        Image.fromarray(photo(0)[:side, :side]).save(path)
    unfit = (pairs[0][0], tiny[1])
    told: dict[str, str] = {}
    tell = told.__setitem__
    found = given_set([tuple(tiny), unfit, *pairs], OPTIONS, stage=SHARP, scale=2, on_failure=tell)
    assert list(found.names) == [hr.stem for hr, _ in pairs]
    assert list(told) == [f"{tiny[0]} and {tiny[1]}", f"{unfit[0]} and {unfit[1]}"]
    assert "large.png is 16 x 16 px: expected 19 px a side, to be scored" in told[f"{tiny[0]} and {tiny[1]}"]
    with pytest.raises(InputError, match=r"no image is left that can be read \(.*large\.png is 16 x 16 px"):
        given_set([tuple(tiny)], OPTIONS, stage=SHARP, scale=2, on_failure=tell)


def test_pairs_too_small_for_a_score_are_told_by_name(tmp_path):
    paths = [tmp_path / "large.png", tmp_path / "small.png"]
    for path, side in zip(paths, (16, 8), strict=True):
        Image.fromarray(photo(0)[:side, :side]).save(path)
    with pytest.raises(InputError, match=r"large\.png is 16 x 16 px: expected 19 px a side, to be scored"):
        given_set([tuple(paths)], OPTIONS, stage=SHARP, scale=2)


def test_pictures_show_input_bicubic_network_and_truth_of_the_first_pairs():
    sizes, random = ((8, 12), (10, 6), (8, 8)), torch.Generator().manual_seed(0)
    lr = tuple(torch.randint(80, 176, (3, *size), generator=random) / 255 for size in sizes)
    hr = tuple(torch.randint(0, 256, (3, 4 * high, 4 * wide), generator=random) / 255 for high, wide in sizes)
    enlarged = [1 - image for image in hr]
    rows = comparison_rows(ValidationSet(lr=lr, hr=hr, names=("",) * 3), enlarged, 2)
    assert [row.shape for row in rows] == [(32, 4 * 48, 3), (40, 4 * 24, 3)]
    assert all(row.dtype == np.uint8 for row in rows)
    nearest, bicubic, network, truth = np.split(rows[0], 4, axis=1)
    small = (lr[0] * 255).byte().permute(1, 2, 0).numpy()
    assert np.array_equal(nearest, small.repeat(4, 0).repeat(4, 1))
    pillow = np.asarray(Image.fromarray(small).resize((48, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(pillow - bicubic).max() <= 1
    assert np.array_equal(truth, (hr[0] * 255).byte().permute(1, 2, 0).numpy())
    assert np.array_equal(network, 255 - truth)
    picture = np.asarray(grid_picture(rows))
    assert picture.shape == (72, 192, 3)
    assert not picture[32:, 96:].any()
