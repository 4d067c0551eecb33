import itertools

import numpy as np
import pytest
import torch
from scipy import fft, ndimage
from torch import nn

from realesr.errors import UsageError
from realesr.train.losses import (
    MS_SSIM_LEAST,
    PerceptualLoss,
    artefact_loss,
    colour_loss,
    fft_loss,
    gan_loss,
    l1,
    laplacian_loss,
    ms_ssim_loss,
    mse,
)


def images(seed, *, batch=2, height=40, width=36):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_l1_is_the_mean_absolute_error_in_float32():
    a, b = images(0), images(1)
    expected = np.abs(a.double().numpy() - b.double().numpy()).mean()
    assert float(l1(a, b)) == pytest.approx(expected, rel=1e-6)
    assert l1(a.bfloat16(), b).dtype == torch.float32


def test_mse_is_the_mean_squared_error_in_float32():
    a, b = images(0), images(1)
    expected = ((a.double().numpy() - b.double().numpy()) ** 2).mean()
    assert float(mse(a, b)) == pytest.approx(expected, rel=1e-6)
    assert mse(a.bfloat16(), b).dtype == torch.float32


def pyramid(plane, bands):
    """Return the Laplacian pyramid of a plane in float64, by SciPy; the last is what is left."""
    taps, found = np.array([1, 4, 6, 4, 1]) / 16, []

    def smooth(values):
        return ndimage.correlate1d(ndimage.correlate1d(values, taps, 0, mode="mirror"), taps, 1, mode="mirror")

    for _ in range(bands):
        smaller = smooth(plane)[::2, ::2]
        spread = np.zeros_like(plane)
        spread[::2, ::2] = smaller
        found.append(plane - 4 * smooth(spread))
        plane = smaller
    return [*found, plane]


@pytest.mark.parametrize(("height", "width"), [(40, 36), (37, 21), (16, 16), (9, 9)])
def test_the_laplacian_loss_is_the_sum_of_the_bands_errors(height, width):
    sr, hr = images(0, height=height, width=width), images(1, height=height, width=width)
    planes = zip(sr.double().flatten(0, 1).numpy(), hr.double().flatten(0, 1).numpy(), strict=True)
    errors = [[np.abs(a - b).mean() for a, b in zip(pyramid(p, 3), pyramid(q, 3), strict=True)] for p, q in planes]
    assert float(laplacian_loss(sr, hr)) == pytest.approx(np.mean(errors, axis=0).sum(), rel=1e-5)


def test_the_laplacian_loss_of_flat_images_is_their_difference():
    flat = torch.full((1, 3, 40, 36), 0.25)
    assert float(laplacian_loss(flat + 0.1, flat)) == pytest.approx(0.1, rel=1e-5)
    assert float(laplacian_loss(flat, flat)) == 0


def test_the_laplacian_loss_sees_details_beside_a_larger_error_where_l1_is_blind():
    flat, stripes = torch.full((1, 3, 64, 64), 0.5), 0.03 * (1 - torch.arange(64) // 2 % 2 * 2)
    brighter = flat + 0.1
    assert float(l1(brighter + stripes, flat)) == pytest.approx(float(l1(brighter, flat)), rel=1e-5)
    assert float(laplacian_loss(brighter + stripes, flat)) > float(laplacian_loss(brighter, flat)) + 0.03


@pytest.mark.parametrize(("height", "width"), [(40, 36), (31, 17)])
def test_the_fft_loss_is_the_mean_error_of_real_and_imaginary_parts(height, width):
    sr, hr = images(0, height=height, width=width), images(1, height=height, width=width)
    a, b = (fft.fft2(each.double().numpy()) / np.sqrt(height * width) for each in (sr, hr))
    expected = np.mean([np.abs(a.real - b.real), np.abs(a.imag - b.imag)])
    assert float(fft_loss(sr, hr)) == pytest.approx(expected, rel=1e-5)


def test_the_fft_loss_of_noise_does_not_depend_on_the_size():
    small, large = (fft_loss(*(images(seed, height=side, width=side) for seed in (0, 1))) for side in (64, 256))
    assert float(small) == pytest.approx(float(large), rel=0.03)


@pytest.mark.parametrize("loss", [laplacian_loss, fft_loss])
def test_where_a_detail_lies_matters(loss):
    there = torch.zeros(1, 3, 32, 32)
    there[..., 8, 8] = 1
    assert float(loss(there.roll(5, dims=3), there)) > 0.5 * float(loss(torch.zeros_like(there), there))


def similarity(a, b, *, with_luminance):
    """Return the mean of contrast times structure (and luminance) of two planes, by SciPy."""
    at = np.arange(-5, 6)
    window = np.exp(-(at**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(plane):
        whole = ndimage.correlate1d(ndimage.correlate1d(plane, window, 0), window, 1)
        return whole[5:-5, 5:-5]

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, both = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    value = (2 * both + 0.03**2) / (var_a + var_b + 0.03**2)
    if with_luminance:
        value = value * (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    return value.mean()


def ms_ssim(a, b):
    """Return the multi-scale SSIM of two planes, with the weights of Wang et al. 2003."""
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            rows, columns = (side // 2 * 2 for side in a.shape)
            a, b = (each[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3)) for each in (a, b))
        product *= max(similarity(a, b, with_luminance=scale == 4), MS_SSIM_LEAST) ** weight
    return product


@pytest.mark.parametrize(("height", "width"), [(176, 192), (201, 179)])
def test_the_ms_ssim_loss_is_that_of_the_paper(height, width):
    hr = smooth_images(0, height=height, width=width)
    for strength in (0.01, 0.1, 0.5):
        sr = (hr + strength * torch.randn(hr.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
        planes = zip(sr.double().flatten(0, 1).numpy(), hr.double().flatten(0, 1).numpy(), strict=True)
        expected = 1 - np.mean([ms_ssim(a, b) for a, b in planes])
        assert float(ms_ssim_loss(sr, hr)) == pytest.approx(expected, abs=2e-5)


def smooth_images(seed, *, batch=2, height=176, width=176):
    coarse = torch.rand(batch, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def test_the_ms_ssim_loss_is_nothing_for_equal_images_and_1_for_opposite_ones():
    hr = smooth_images(0)
    assert float(ms_ssim_loss(hr, hr)) == pytest.approx(0, abs=1e-6)
    noise = torch.rand(1, 3, 176, 176, generator=torch.Generator().manual_seed(0))
    inverse = (1 - noise).requires_grad_(True)
    loss = ms_ssim_loss(inverse, noise)
    loss.backward()
    assert 0.99 < float(loss.detach()) <= 1
    assert inverse.grad.isfinite().all()


def test_the_ms_ssim_loss_takes_no_crop_that_has_no_five_scales():
    with pytest.raises(UsageError, match="got images of 200 x 175 px, expected 176 px or more a side for MS-SSIM"):
        ms_ssim_loss(images(0, height=175, width=200), images(1, height=175, width=200))


@pytest.mark.parametrize("loss", [laplacian_loss, fft_loss, ms_ssim_loss])
def test_losses_have_gradients_that_lead_to_the_truth(loss):
    hr = smooth_images(0, batch=1)
    sr = (hr + 0.1 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(1))).requires_grad_(True)
    before = loss(sr, hr)
    before.backward()
    assert sr.grad.isfinite().all()
    step = 0.02 * sr.grad / sr.grad.abs().mean()
    assert loss(sr.detach() - step, hr) < before
    sr.grad = None
    loss(hr.clone().requires_grad_(True), hr).backward()


@pytest.mark.parametrize("loss", [laplacian_loss, fft_loss, ms_ssim_loss])
def test_losses_are_in_float32_under_autocast(loss):
    sr, hr = images(0, height=176, width=176), images(1, height=176, width=176)
    expected = loss(sr, hr)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(sr, hr), expected)
    for own, other in itertools.product((sr, sr.bfloat16()), (hr, hr.bfloat16())):
        assert loss(own, other).dtype == torch.float32


@pytest.mark.parametrize("real", [True, False])
def test_the_adversarial_loss_is_the_mean_cross_entropy(real):
    logits = torch.randn(2, 1, 9, 7, generator=torch.Generator().manual_seed(0)) * 3
    share = 1 / (1 + np.exp(-logits.double().numpy()))
    expected = -np.log(share if real else 1 - share).mean()
    assert float(gan_loss(logits, real)) == pytest.approx(expected, rel=1e-6)
    assert gan_loss(logits.bfloat16(), real).dtype == torch.float32


def test_the_adversarial_loss_is_finite_for_any_logit():
    logits = torch.tensor([-1e4, 1e4])
    assert float(gan_loss(logits, real=True)) == 5000
    assert float(gan_loss(logits, real=False)) == 5000


def test_the_colour_loss_compares_means_of_squares():
    a, b = images(0, height=48, width=32), images(1, height=48, width=32)
    means = [each.double().numpy().reshape(2, 3, 3, 16, 2, 16).mean(axis=(3, 5)) for each in (a, b)]
    assert float(colour_loss(a, b)) == pytest.approx(np.abs(means[0] - means[1]).mean(), rel=1e-5)


def test_the_colour_loss_is_blind_to_texture():
    flat = torch.full((1, 3, 32, 32), 0.5)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    texture = flat + 0.2 * (1 - 2 * ((rows + columns) % 2))
    assert float(colour_loss(texture, flat)) == pytest.approx(0, abs=1e-6)
    assert float(colour_loss(texture + 0.1, flat)) == pytest.approx(0.1, rel=1e-5)


def test_the_colour_loss_takes_images_smaller_than_a_square():
    a, b = images(0, height=9, width=5), images(1, height=9, width=5)
    expected = (a.mean(dim=(2, 3)) - b.mean(dim=(2, 3))).abs().mean()
    torch.testing.assert_close(colour_loss(a, b), expected)


def artefact_map(sr, mean_sr, hr):
    """Compute the weights once more, pixel by pixel in float64."""
    sr, mean_sr, hr = (each.double().numpy() for each in (sr, mean_sr, hr))
    residual, of_mean = np.abs(hr - sr).sum(axis=1), np.abs(hr - mean_sr).sum(axis=1)
    weights = np.zeros_like(residual)
    for image, error in enumerate(residual):
        padded = np.pad(error, 3, mode="reflect")
        for row, column in np.ndindex(error.shape):
            if error[row, column] >= of_mean[image, row, column]:
                weights[image, row, column] = np.var(padded[row : row + 7, column : column + 7], ddof=1)
        weights[image] *= np.var(error, ddof=1) ** 0.2
    return weights[:, None]


def test_the_artefact_loss_counts_errors_by_their_local_variance_where_the_mean_is_better():
    sr, mean_sr, hr = images(0, height=15, width=13), images(1, height=15, width=13), images(2, height=15, width=13)
    weights = artefact_map(sr, mean_sr, hr)
    assert 0.2 < (weights > 0).mean() < 0.8
    expected = (weights * np.abs(sr.double().numpy() - hr.double().numpy())).mean()
    assert float(artefact_loss(sr, mean_sr, hr)) == pytest.approx(expected, rel=1e-4)


def test_the_artefact_loss_takes_its_map_as_given():
    sr, mean_sr, hr = images(0, height=12, width=12), images(1, height=12, width=12), images(2, height=12, width=12)
    sr.requires_grad_(True)
    artefact_loss(sr, mean_sr, hr).backward()
    weights = torch.from_numpy(artefact_map(sr.detach(), mean_sr, hr)).float()
    torch.testing.assert_close(sr.grad, weights * (sr.detach() - hr).sign() / hr.numel(), rtol=1e-3, atol=1e-9)


def test_the_artefact_loss_of_an_image_without_error_has_a_finite_gradient():
    hr = images(0)
    sr = hr.clone().requires_grad_(True)
    loss = artefact_loss(sr, hr, hr)
    loss.backward()
    assert float(loss.detach()) == 0
    assert sr.grad.isfinite().all()


class FiveFeatures(nn.Module):
    """Stands for VGG19: five views of an image, scaled."""

    def forward(self, image):
        return [image * factor for factor in (1, 2, 3, 4, 5)]


def test_the_perceptual_loss_weighs_the_layers_as_the_paper_does():
    sr, hr = images(0).requires_grad_(True), images(1).requires_grad_(True)
    loss = PerceptualLoss(FiveFeatures())(sr, hr)
    error = float((sr - hr).abs().mean().detach())
    assert float(loss.detach()) == pytest.approx(error * (0.1 * 1 + 0.1 * 2 + 3 + 4 + 5), rel=1e-5)
    loss.backward()
    assert sr.grad.abs().sum() > 0
    assert hr.grad is None


def test_the_perceptual_loss_is_float32_whatever_the_features_are():
    with torch.autocast("cpu", torch.bfloat16):
        loss = PerceptualLoss(nn.Sequential(nn.Conv2d(3, 3, 1), FiveFeatures()))(images(0), images(1))
    assert loss.dtype == torch.float32
