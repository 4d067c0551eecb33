"""The most detailed region of a photo."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realesr.images.crop import Region
from realesr.images.detail import most_detailed_region, patch_detail
from realesr.images.reader import open_image


def region_of(path: Path, pixels: np.ndarray, side_px: int = 64) -> Region:
    Image.fromarray(pixels).save(path)
    with open_image(path) as reader:
        return most_detailed_region(reader, side_px)


def strands(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.asarray(15 * np.sign(np.sin(x / 5 + y / 9)))


def test_detail_is_chosen_before_stronger_noise(tmp_path: Path) -> None:
    levels = np.full((256, 384), 120.0)
    levels[:, :192] += np.random.default_rng(0).normal(0, 30, (256, 192))
    levels[128:, 256:] += strands(128, 128)
    left, top, width, height = region_of(tmp_path / "photo.png", levels.clip(0, 255).astype(np.uint8))
    assert (width, height) == (64, 64)
    assert left >= 256 - 8
    assert top >= 128 - 8


def test_white_noise_is_no_detail() -> None:
    noise = np.random.default_rng(0).normal(120, 30, (256, 256)).astype(np.float32)
    assert (patch_detail(noise) > 0).mean() < 0.1
    assert patch_detail(noise).mean() < patch_detail((120 + strands(256, 256)).astype(np.float32)).mean() / 10


def test_q_of_a_ramp_is_that_of_its_one_direction() -> None:
    """Gradients of 3 across alone: s1 is 3 times the root of the 64 px, s2 is 0."""
    ramp = np.tile(np.arange(16, dtype=np.float32) * 3, (8, 1))
    assert patch_detail(ramp) == pytest.approx(np.full((1, 2), 24.0))


def test_a_flat_photo_is_shown_from_its_middle(tmp_path: Path) -> None:
    assert region_of(tmp_path / "flat.png", np.full((320, 640), 90, np.uint8)) == (288, 128, 64, 64)


@pytest.mark.parametrize("size", [(1, 3), (15, 40), (70, 90)])
def test_a_region_is_never_larger_than_the_photo(size: tuple[int, int], tmp_path: Path) -> None:
    height, width = size
    region = region_of(tmp_path / "small.png", np.zeros((height, width), np.uint8))
    assert (region.width_px, region.height_px) == (min(width, 64), min(height, 64))
    assert region.left_px + region.width_px <= width
    assert region.top_px + region.height_px <= height


def test_the_last_columns_and_rows_can_be_chosen(tmp_path: Path) -> None:
    levels = np.full((156, 220), 120.0)
    levels[100:, 160:] += strands(56, 60)
    left, top, width, height = region_of(tmp_path / "corner.png", levels.astype(np.uint8))
    assert (left + width, top + height) == (220, 156)


def test_colour_below_what_is_transparent_is_no_detail(tmp_path: Path) -> None:
    pixels = np.full((128, 256, 4), 255, np.uint8)
    pixels[:, :, :3] = 120
    pixels[:, :128, :3] += strands(128, 128).astype(np.int8).view(np.uint8)[:, :, None]
    pixels[:, :128, 3] = 0
    pixels[32:96, 176:240, :3] += (strands(64, 64) / 5).astype(np.int8).view(np.uint8)[:, :, None]
    assert region_of(tmp_path / "holes.png", pixels).left_px >= 96
