"""Compares filters with SciPy and OpenCV, and sharpening with the two-dimensional kernel of the reference."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.signal import windows

from realesr.train.degrade.filters import filter_batch, reflect_pad, sharpen


def images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).random(shape, np.float32))


def by_scipy(image: torch.Tensor, kernel: Any) -> np.ndarray:
    return np.stack([ndimage.correlate(plane.double().numpy(), np.asarray(kernel), mode="mirror") for plane in image])


@pytest.mark.parametrize("size", [(40, 33), (21, 64), (12, 11)])
def test_each_image_is_correlated_with_its_own_kernel(size: tuple[int, int]) -> None:
    batch, kernels = images(3, 3, *size), images(3, 21, 21) / 220
    filtered = filter_batch(batch, kernels)
    for image, kernel, one in zip(batch, kernels, filtered, strict=True):
        np.testing.assert_allclose(one.numpy(), by_scipy(image, kernel.double()), atol=2e-6)


def test_it_is_opencvs_filter_with_a_kernel_that_is_not_symmetric() -> None:
    cv2 = pytest.importorskip("cv2")
    batch, kernels = images(1, 3, 40, 33), images(1, 21, 21) / 220
    for plane, one in zip(batch[0], filter_batch(batch, kernels)[0], strict=True):
        expected = cv2.filter2D(plane.numpy(), -1, kernels[0].numpy(), borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(one.numpy(), expected, atol=2e-6)


def test_a_batch_gives_exactly_what_its_images_give_alone() -> None:
    batch, kernels = images(4, 3, 50, 47), images(4, 21, 21) / 220
    alone = torch.cat([filter_batch(batch[at : at + 1], kernels[at : at + 1]) for at in range(4)])
    assert torch.equal(filter_batch(batch, kernels), alone)


def test_a_constant_image_stays_constant_and_an_impulse_changes_nothing() -> None:
    flat = torch.full((1, 3, 30, 30), 0.7)
    kernel = images(1, 21, 21)
    np.testing.assert_allclose(filter_batch(flat, kernel / kernel.sum()).numpy(), 0.7, atol=1e-6)
    impulse = torch.zeros(1, 21, 21)
    impulse[0, 10, 10] = 1
    batch = images(1, 3, 30, 30)
    assert torch.equal(filter_batch(batch, impulse), batch)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 30), (5, 3), (40, 40)])
def test_edges_are_mirrored_also_where_the_image_is_smaller_than_the_border(size: tuple[int, int]) -> None:
    batch = images(2, 3, *size)
    expected = np.pad(batch.numpy(), ((0, 0), (0, 0), (10, 10), (10, 10)), mode="reflect")
    assert np.array_equal(reflect_pad(batch, 10).numpy(), expected)


@pytest.mark.parametrize("size", [(80, 61), (30, 30)])
def test_sharpening_is_that_of_the_reference(size: tuple[int, int]) -> None:
    """Compare with a two-dimensional Gaussian of standard deviation 8, which is OpenCV's for 51 px."""
    batch = images(2, 3, *size)
    batch[:, :, :, : size[1] // 2] *= 0.2
    kernel = np.outer(windows.gaussian(51, 8.0), windows.gaussian(51, 8.0))
    kernel /= kernel.sum()
    for image, sharp in zip(batch, sharpen(batch), strict=True):
        rest = image.numpy() - by_scipy(image, kernel)
        mask = by_scipy(torch.from_numpy((np.abs(rest) * 255 > 10).astype(np.float32)), kernel)
        expected = mask * np.clip(image.numpy() + 0.5 * rest, 0, 1) + (1 - mask) * image.numpy()
        assert (
            np.quantile(np.abs(sharp.numpy() - expected), 0.999) < 2e-3
        )  # a pixel at the threshold may fall either way
        assert np.abs(sharp.numpy() - expected).mean() < 1e-5


def test_sharpening_leaves_flat_and_tiny_images_alone_and_stays_in_range() -> None:
    for size in ((60, 60), (1, 1), (3, 40)):
        flat = torch.full((1, 3, *size), 0.4)
        np.testing.assert_allclose(sharpen(flat).numpy(), 0.4, atol=1e-6)
    edges = (images(1, 3, 64, 64) > 0.5).float()
    assert float(sharpen(edges).min()) >= 0
    assert float(sharpen(edges).max()) <= 1
    assert sharpen(torch.empty(0, 3, 8, 8)).shape == (0, 3, 8, 8)
