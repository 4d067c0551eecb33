import numpy as np
import pytest
import torch
from torch import nn

from realesr.train.losses import PerceptualLoss, artefact_loss, colour_loss, gan_loss, l1, mse


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
