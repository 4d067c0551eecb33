"""NIQE against BasicSR's, and what it can and cannot see."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

from realesr.errors import InputError
from realesr.scores import niqe as module
from realesr.scores.luma import rounded_luma
from realesr.scores.niqe import niqe
from realesr.scores.reference import psnr_y

# calculate_niqe(image, crop_border=0) of BasicSR 1.4.2 (basicsr/metrics/niqe.py, with its imresize and parameters), for
# scikit-image's photos; grey ones as three equal channels. Run on 2026-11-27 with numpy 2.4, scipy 1.17, torch 2.13.
BASICSR = {
    "astronaut": 3.064948,
    "camera": 3.155216,
    "chelsea": 2.625524,
    "coffee": 4.115242,
    "coins": 3.635945,
    "immunohistochemistry": 3.295424,
    "moon": 8.529654,
}


@pytest.mark.parametrize("name", BASICSR)
def test_the_score_is_that_of_basicsr(name):
    assert niqe(getattr(skimage.data, name)()) == pytest.approx(BASICSR[name], abs=0.002)


def test_grey_counts_as_three_equal_channels():
    grey = skimage.data.camera()[:200, :250]
    assert niqe(grey) == niqe(np.stack([grey] * 3, axis=2))


def test_what_no_whole_patch_covers_is_not_scored():
    photo = skimage.data.chelsea()
    assert niqe(photo) == niqe(photo[:288, :384])


def test_the_second_scale_is_antialiased_bicubic():
    """Pillow's BICUBIC has the same kernel, a = -1/2, stretched likewise; only at edges it is not mirrored."""
    plane = skimage.data.camera()[:192, :288]
    expected = np.asarray(Image.fromarray(plane.astype(np.float32)).resize((144, 96), Image.Resampling.BICUBIC))
    halved = module._halved(plane)
    assert halved.shape == (96, 144)
    np.testing.assert_allclose(halved[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-3)


def test_edges_are_mirrored_at_the_second_scale():
    plane = skimage.data.camera()[:192, :192]
    mirrored = np.pad(plane, 96, mode="symmetric")
    np.testing.assert_array_equal(module._halved(plane), module._halved(mirrored)[48:-48, 48:-48])


def test_flat_patches_do_not_count_as_texture():
    """Rounding errors in an even sky would be scored, as they are by implementations in double precision."""
    photo = skimage.data.chelsea()[:288, :288]
    sky = np.full((96, 288, 3), 255, np.uint8)
    features = module._plane_features(rounded_luma(np.concatenate((sky, photo))), 96)
    assert np.isnan(features[:2]).any(axis=1).all()
    assert not np.isnan(features[3:]).any()


@pytest.mark.parametrize("shape", [(191, 300, 3), (300, 191)])
def test_images_of_fewer_than_two_patches_each_way_are_refused(shape):
    with pytest.raises(InputError, match=f"of {shape[1]} x {shape[0]} px, expected at least 192 px a side"):
        niqe(np.zeros(shape, np.uint8))


def test_two_patches_each_way_are_enough():
    assert 0 < niqe(skimage.data.chelsea()[:192, :192]) < 20


def test_flat_images_are_refused():
    with pytest.raises(InputError, match="texture in 0 of 4 patches"):
        niqe(np.full((200, 200, 3), 90, np.uint8))


@pytest.mark.parametrize("image", [np.zeros((200, 200, 4), np.uint8), np.zeros((200, 200, 3), np.float32)])
def test_other_arrays_are_refused(image):
    with pytest.raises(InputError, match=r"expected .* of uint8"):
        niqe(image)


def test_grain_lowers_the_score_and_spoils_the_photo():
    """What docs/scores.md says about grain, as an example."""
    photo = skimage.data.astronaut()
    enlarged = (
        Image.fromarray(photo).resize((128, 128), Image.Resampling.BICUBIC).resize((512, 512), Image.Resampling.BICUBIC)
    )
    plain = np.asarray(enlarged)
    noise = np.random.default_rng(0).normal(0, 1, (516, 516))
    soft = sum(noise[y : y + 512, x : x + 512] for y in range(3) for x in range(3))
    grainy = (plain + (4 * soft / soft.std())[:, :, None]).round().clip(0, 255).astype(np.uint8)
    assert niqe(grainy) < niqe(plain) - 1.5
    assert psnr_y(grainy, photo) < psnr_y(plain, photo)
