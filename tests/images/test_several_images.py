"""Files with more than one image."""

from pathlib import Path

import pytest
from PIL import Image

from realesr.images.kinds import find_kind
from realesr.images.several_images import holds_several_images


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "avif", "jpg"])
def test_one_image_is_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"one.{suffix}"
    Image.effect_noise((8, 6), 50).convert("RGB").save(path)
    assert not holds_several_images(path, find_kind(path))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "avif", "gif"])
def test_pages_and_frames_are_several(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"several.{suffix}"
    image = Image.effect_noise((8, 6), 50).convert("RGB")
    image.save(path, save_all=True, append_images=[image.rotate(180)])
    assert holds_several_images(path, find_kind(path))
