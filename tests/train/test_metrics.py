import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from realesr.errors import InputError
from realesr.train.metrics import colour_drift, psnr, ssim
from realesr.train.validation import ValidationSet, validate


def pair(seed, *, height=45, width=38, batch=3):
    """Return smooth images and their noisy selves."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 6, 5, generator=random)
    truth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noise = torch.randn(truth.shape, generator=random) * torch.tensor([0.02, 0.05, 0.1])[:batch, None, None, None]
    return (truth + noise).clamp(0, 1), truth


def inner(image, border_px, luma):
    """Return (H, W, C) float64, as scikit-image takes it."""
    pixels = image.double().permute(1, 2, 0).numpy()
    pixels = pixels[border_px : pixels.shape[0] - border_px, border_px : pixels.shape[1] - border_px]
    return rgb2ycbcr(pixels)[..., :1] / 255 if luma else pixels


CASES = pytest.mark.parametrize(("border_px", "luma"), [(0, False), (4, False), (0, True), (7, True)])


@CASES
def test_psnr_is_that_of_scikit_image(border_px, luma):
    images, truth = pair(0)
    expected = [
        peak_signal_noise_ratio(inner(b, border_px, luma), inner(a, border_px, luma), data_range=1)
        for a, b in zip(images, truth, strict=True)
    ]
    scores = psnr(images, truth, border_px=border_px, luma=luma)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-12)


@CASES
def test_ssim_is_that_of_scikit_image(border_px, luma):
    images, truth = pair(1)
    expected = [
        structural_similarity(
            inner(b, border_px, luma),
            inner(a, border_px, luma),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=-1,
        )
        for a, b in zip(images, truth, strict=True)
    ]
    scores = ssim(images, truth, border_px=border_px, luma=luma)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-9)


def test_an_image_equals_itself():
    _, truth = pair(2)
    assert psnr(truth, truth).tolist() == [float("inf")] * 3
    np.testing.assert_allclose(ssim(truth, truth).numpy(), 1, rtol=1e-12)
    assert float(colour_drift(truth, truth)) == 0


def test_too_small_an_image_is_told_in_one_line():
    small = torch.zeros(1, 3, 18, 30)
    with pytest.raises(InputError, match="got an image of 30 x 18 px to score, expected at least 19 px a side"):
        ssim(small, small, border_px=4)
    with pytest.raises(InputError, match="expected at least 19 px"):
        psnr(small, small, border_px=9)
    assert ssim(torch.zeros(1, 3, 19, 19), torch.zeros(1, 3, 19, 19), border_px=4).tolist() == [1]


def test_colour_drift_is_in_levels_and_blind_to_texture():
    truth = torch.full((1, 3, 64, 96), 0.5)
    redder = truth.clone()
    redder[:, 0] += 3 / 255
    assert float(colour_drift(redder, truth)) == pytest.approx(1, rel=1e-5)
    stripes = truth.clone()
    stripes[..., ::2] += 0.2
    stripes[..., 1::2] -= 0.2
    assert float(colour_drift(stripes, truth)) == pytest.approx(0, abs=1e-4)


def test_colour_drift_does_not_cancel_between_places():
    truth = torch.full((1, 3, 64, 64), 0.5)
    split = truth.clone()
    split[..., :32] += 2 / 255
    split[..., 32:] -= 2 / 255
    assert float(colour_drift(split, truth)) == pytest.approx(2, rel=1e-5)


class Halving(torch.nn.Module):
    def forward(self, lr):
        return lr / 2


@pytest.mark.parametrize("count", [1, 3])
def test_the_mean_of_a_validation_is_that_of_its_images(count):
    inputs, truth = (each[:count].mul(255).round().div(255) for each in pair(3))
    images = (inputs / 2).mul(255).round().div(255)
    scores, _ = validate(
        Halving(),
        ValidationSet(lr=tuple(inputs), hr=tuple(truth), names=("",) * count),
        torch.device("cpu"),
    )
    each = [
        peak_signal_noise_ratio(inner(b, 4, False), inner(a, 4, False), data_range=1)
        for a, b in zip(images, truth, strict=True)
    ]
    assert scores.psnr == pytest.approx(sum(each) / count, rel=1e-6)
    assert scores.ssim == pytest.approx(float(ssim(images, truth, border_px=4).mean()), rel=1e-6)
    assert scores.colour_drift == pytest.approx(float(colour_drift(images, inputs)), rel=1e-6)
    assert scores.colour_drift > 50
