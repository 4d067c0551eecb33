"""Checks motion blur, oversharpening and H.264: what they compute, and that they change no other number."""

import dataclasses
import hashlib
import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from realesr.errors import MissingDependency, UsageError
from realesr.train.checkpoint import checkpoints
from realesr.train.degrade.apply import apply
from realesr.train.degrade.codecs import check_codecs, recompress_h264
from realesr.train.degrade.degradation import Degradation, MotionDraw, OversharpenDraw
from realesr.train.degrade.draw import draw
from realesr.train.degrade.kernels import motion_kernels, unsharp_kernels
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL, DegradeRecipe
from realesr.train.request import Request
from realesr.train.trainer import train

LATER = ("motion", "oversharpen", "h264")

needs_av = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs PyAV: pip install av")


def drawn(recipe: DegradeRecipe, n: int = 8, seed: int = 3) -> Degradation:
    sizes: dict[str, Any] = {"hr_px": (400, 400), "scale": 4, "crop_px": 256}
    return draw(recipe, n, torch.Generator().manual_seed(seed), **sizes)


def as_version_1(degradation: Degradation) -> dict[str, Any]:
    """The record as it was before there were later steps."""
    record: dict[str, Any] = json.loads(json.dumps({**degradation.to_json(), "version": 1}))
    for sample in record["samples"]:
        for step in LATER:
            assert sample.pop(step) is None
    return record


def with_values(value: Any, changes: dict[str, Any]) -> Any:
    return dataclasses.replace(value, **changes)


def noise(n: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("recipe", "sha256"),
    [
        (CORRECTED, "2e8daad88e08a05da3bd73fbbeebb9392cb37f73397cf5d695232b92c9b27b27"),
        (FAITHFUL, "3644ae0ad6e0d1c61a958880379c744c51c8b284fcdf26974c6d49206387b569"),
    ],
)
def test_without_later_steps_the_numbers_are_those_of_earlier_versions(recipe: DegradeRecipe, sha256: str) -> None:
    text = json.dumps(as_version_1(drawn(recipe)), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == sha256


def test_a_later_step_changes_no_other_number() -> None:
    names = {"motion_blur": "motion", "oversharpen": "oversharpen", "h264": "h264"}
    plain = drawn(CORRECTED)
    everything = drawn(with_values(CORRECTED, dict.fromkeys(names, 1.0)))
    for option, step in names.items():
        alone = drawn(with_values(CORRECTED, {option: 1.0}))
        for before, sample, full in zip(plain, alone, everything, strict=True):
            assert getattr(sample, step) == getattr(full, step) is not None
            assert with_values(sample, {step: None}) == before


def test_later_steps_come_as_often_and_as_strong_as_the_recipe_says() -> None:
    recipe = dataclasses.replace(
        CORRECTED, motion_blur=0.25, motion_px=(3.0, 5.0), oversharpen=0.5, h264=0.75, h264_crf=(30.0, 31.0)
    )
    samples = drawn(recipe, 4000)
    shares = [sum(getattr(sample, step) is not None for sample in samples) / 4000 for step in LATER]
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.03)
    motions = [sample.motion for sample in samples if sample.motion]
    assert all(3 <= motion.length_px <= 5 and 0 <= motion.angle < math.pi for motion in motions)
    assert np.std([motion.angle for motion in motions]) == pytest.approx(math.pi / math.sqrt(12), rel=0.05)
    assert all(30 <= sample.h264.crf <= 31 for sample in samples if sample.h264)


def test_parameters_of_version_1_are_read_and_do_the_same() -> None:
    degradation = drawn(CORRECTED, 2)
    assert Degradation.from_json(as_version_1(degradation)) == degradation


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"motion_blur": 2.0}, "motion_blur = 2.0, expected a probability"),
        ({"motion_px": (1.0, 30.0)}, "at most 20"),
        ({"oversharpen_sigma_px": (0.0, 1.0)}, "more than 0"),
        ({"h264_crf": (0.0, 52.0)}, "at most 51"),
    ],
)
def test_ranges_of_later_steps_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        DegradeRecipe(**options)


def test_motion_along_an_axis_is_a_box_of_its_length() -> None:
    along_rows, along_columns, none, still = motion_kernels(
        [
            MotionDraw(length_px=4, angle=0),
            MotionDraw(length_px=4, angle=math.pi / 2),
            None,
            MotionDraw(length_px=0, angle=1),
        ]
    )
    line = [0.125, 0.25, 0.25, 0.25, 0.125]  # a box of 4 px, seen through a bilinear pixel
    assert along_rows[10, 8:13].tolist() == pytest.approx(line, abs=1e-4)
    assert along_rows[10].sum().item() == pytest.approx(1, abs=1e-6)
    assert torch.allclose(along_columns, along_rows.T, atol=1e-6)
    for unit in (none, still):
        assert unit[10, 10] == unit.sum() == 1


@pytest.mark.parametrize("angle", [0.3, 1.2, 2.6])
def test_motion_has_the_moments_of_a_line(angle: float) -> None:
    length = 9.0
    kernel = motion_kernels([MotionDraw(length_px=length, angle=angle)])[0].double().numpy()
    y, x = np.mgrid[-10:11, -10:11]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    assert (kernel * along).sum() == pytest.approx(0, abs=1e-6)
    pixel = 1 / 6  # variance of a bilinear pixel, about as large in every direction
    assert (kernel * along**2).sum() == pytest.approx(length**2 / 12 + pixel, rel=0.02)
    assert (kernel * across**2).sum() == pytest.approx(pixel, abs=0.06)


def test_oversharpening_is_the_unsharp_mask_of_scipy() -> None:
    image = noise(1, 40, 40)[0, 0].double().numpy()
    kernel = unsharp_kernels([OversharpenDraw(amount=1.5, sigma_px=1.2)])[0].double().numpy()
    blurred = ndimage.gaussian_filter(image, 1.2, mode="mirror", radius=10)
    expected = image + 1.5 * (image - blurred)
    assert np.abs(ndimage.correlate(image, kernel, mode="mirror") - expected).max() < 1e-5


def test_later_steps_blur_and_sharpen_what_comes_before_them() -> None:
    hr = noise(1, 128, 128)
    plain = drawn_for(CORRECTED, hr)
    lr = apply(hr, plain)[0, 0].numpy()
    moved = apply(hr, drawn_for(dataclasses.replace(CORRECTED, motion_blur=1.0, motion_px=(9.0, 9.0)), hr))[0, 0]
    sharp = apply(hr, drawn_for(dataclasses.replace(CORRECTED, oversharpen=1.0), hr))[0, 0]
    assert np.abs(ndimage.laplace(moved.numpy())).mean() < 0.7 * np.abs(ndimage.laplace(lr)).mean()
    assert np.abs(ndimage.laplace(sharp.numpy())).mean() > 1.3 * np.abs(ndimage.laplace(lr)).mean()


def drawn_for(recipe: DegradeRecipe, hr: torch.Tensor) -> Degradation:
    return draw(recipe, len(hr), torch.Generator().manual_seed(1), hr_px=(hr.shape[2], hr.shape[3]), scale=4)


@pytest.mark.parametrize("h264", [0.0, pytest.param(0.5, marks=needs_av)])
def test_a_sample_alone_gets_the_same_pixels_as_in_its_batch(h264: float) -> None:
    recipe = dataclasses.replace(CORRECTED, motion_blur=0.5, oversharpen=0.5, h264=h264)
    hr = noise(6, 64, 64)
    degradation = drawn_for(recipe, hr)
    assert {sample.motion is None for sample in degradation} == {True, False}
    whole = apply(hr, degradation)
    for at in range(6):
        assert torch.equal(apply(hr[at : at + 1], degradation[at : at + 1])[0], whole[at])


@needs_av
@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 33), (64, 48)])
def test_h264_keeps_sizes_and_gives_the_same_pixels_again(height: int, width: int) -> None:
    image = noise(1, height, width)[0]
    once = recompress_h264(image, 30.0)
    assert once.shape == image.shape
    assert torch.equal(once, recompress_h264(image, 30.0))
    assert torch.equal((once * 255).round() / 255, once)


@needs_av
def test_h264_loses_more_at_a_higher_rate_factor_and_keeps_colours() -> None:
    grey = noise(1, 9, 9).mean(1, keepdim=True).expand(1, 3, 9, 9)
    smooth = torch.nn.functional.interpolate(grey, size=(72, 72), mode="bicubic").clamp(0, 1)[0]
    errors = [float((recompress_h264(smooth, crf) - smooth).abs().mean() * 255) for crf in (15.0, 30.0, 45.0)]
    assert errors == sorted(errors)
    assert errors[0] < 3
    for colour in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.2, 0.4, 0.6)):
        flat = torch.tensor(colour)[:, None, None].expand(3, 32, 32)
        assert (recompress_h264(flat, 20.0) - flat).abs().max() < 4 / 255


def test_h264_without_pyav_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependency, match="pip install av"):
        recompress_h264(noise(1, 8, 8)[0], 23.0)
    with pytest.raises(MissingDependency, match=r"degrade\.h264 = 0"):
        check_codecs(dataclasses.replace(CORRECTED, h264=0.1))
    check_codecs(CORRECTED)


def test_training_that_would_need_pyav_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    Image.new("RGB", (160, 160)).save(tmp_path / "photo.png")
    changes = ["degrade.h264=1e-6", "validation.every=0", "data.workers=0"]
    request = Request(
        stage="stage1", out=tmp_path / "run", data=[tmp_path / "photo.png"], recipe="tiny_cpu", changes=changes
    )
    with pytest.raises(MissingDependency, match="pip install av"):
        train(request, say=lambda _: None, show=lambda _: None)
    assert not checkpoints(tmp_path / "run")
