"""Scores of files: read as they are shown."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import skimage.data
from PIL import Image

from realesr.errors import InputError, UsageError
from realesr.scores.niqe import niqe
from realesr.scores.photos import read_srgb, score_file
from realesr.scores.reference import psnr_y, ssim_y

PHOTO = skimage.data.chelsea()[:200, :240]


def saved(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return saved(tmp_path / "photo.png", PHOTO)


def test_without_a_reference_there_is_niqe_alone(photo: Path) -> None:
    scores = score_file(photo)
    assert (scores.width_px, scores.height_px) == (240, 200)
    assert scores.niqe == niqe(PHOTO)
    assert (scores.psnr_y_db, scores.ssim_y, scores.lpips, scores.notices) == (None, None, None, ())


def test_with_a_reference_there_are_psnr_and_ssim_too(photo: Path, tmp_path: Path) -> None:
    soft = np.asarray(Image.fromarray(PHOTO).resize((60, 50)).resize((240, 200)))
    scores = score_file(saved(tmp_path / "soft.png", soft), photo, border_px=2)
    assert scores.niqe == niqe(soft)
    assert scores.psnr_y_db == psnr_y(soft, PHOTO, border_px=2)
    assert scores.ssim_y == ssim_y(soft, PHOTO, border_px=2)


def test_lpips_is_called_with_both_images(photo: Path, tmp_path: Path) -> None:
    class Fake:
        def distance(self, image: np.ndarray, reference: np.ndarray) -> float:
            return float(image.mean() - reference.mean())

    dark = saved(tmp_path / "dark.png", PHOTO // 2)
    scores = score_file(dark, photo, lpips=Fake())  # type: ignore[arg-type]
    assert scores.lpips == pytest.approx((PHOTO // 2).mean() - PHOTO.mean())


def test_an_image_too_small_for_niqe_has_the_other_scores(tmp_path: Path) -> None:
    small = saved(tmp_path / "small.png", PHOTO[:64, :64])
    scores = score_file(small, small)
    assert scores.niqe is None
    assert scores.psnr_y_db == float("inf")
    assert scores.ssim_y == pytest.approx(1)
    assert scores.notices == (
        "small.png: NIQE is left out: got an image of 64 x 64 px, expected at least 192 px a side: "
        "NIQE needs 2 patches of 96 px each way",
    )
    with pytest.raises(InputError, match="192 px a side"):
        score_file(small)


def test_sizes_that_differ_are_refused(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a reference of 240 x 200 px"):
        score_file(saved(tmp_path / "cut.png", PHOTO[1:]), photo)


def test_options_that_make_no_sense_are_refused(photo: Path) -> None:
    with pytest.raises(UsageError, match="border of -1 px"):
        score_file(photo, photo, border_px=-1)
    with pytest.raises(UsageError, match="without a reference"):
        score_file(photo, lpips=object())  # type: ignore[arg-type]


def test_images_are_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path / "turned.png", np.rot90(PHOTO).copy(), exif=exif)
    np.testing.assert_array_equal(read_srgb(turned)[0], PHOTO)


def test_16_bit_is_rounded_to_8(tmp_path: Path) -> None:
    values = PHOTO.astype(np.uint16) * 257 + 100
    image = pyvips.Image.new_from_memory(np.minimum(values, 65535), 240, 200, 3, "ushort")
    image.copy(interpretation="rgb16").write_to_file(str(tmp_path / "deep.png"))
    np.testing.assert_array_equal(read_srgb(tmp_path / "deep.png")[0], PHOTO)


def test_grey_becomes_three_channels(tmp_path: Path) -> None:
    image, _ = read_srgb(saved(tmp_path / "grey.png", PHOTO[:, :, 0]))
    np.testing.assert_array_equal(image, np.stack([PHOTO[:, :, 0]] * 3, axis=2))


def test_transparency_is_left_out_with_a_notice(tmp_path: Path) -> None:
    alpha = np.full((200, 240, 1), 90, np.uint8)
    image, notices = read_srgb(saved(tmp_path / "logo.png", np.concatenate((PHOTO, alpha), axis=2)))
    np.testing.assert_array_equal(image, PHOTO)
    assert notices == ("logo.png: transparency is left out: the colours are scored as if the image were opaque",)


def test_colours_are_those_of_srgb(tmp_path: Path) -> None:
    """The same photo in Display P3: other values, the same colours, but for rounding."""
    image = pyvips.Image.new_from_memory(PHOTO.copy(), 240, 200, 3, "uchar").copy(interpretation="srgb")
    image.icc_transform("p3", input_profile="srgb").write_to_file(str(tmp_path / "wide.png"))
    with Image.open(tmp_path / "wide.png") as wide:
        assert np.abs(np.asarray(wide).astype(int) - PHOTO).max() > 8
    assert np.abs(read_srgb(tmp_path / "wide.png")[0].astype(int) - PHOTO).max() <= 2
