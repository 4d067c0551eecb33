"""`--strength`: how much of the network's detail a photo gets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr import FileOptions, ImageOptions, Upscaler
from realesr import upscale as upscale_image
from realesr.runtime.resize import resize_bands
from tests.images.image_files import photo
from tests.runtime.fakes import BoxBlurEngine

from .conftest import Command, FakeUpscaler, write

NEAREST = ("--engine", "nearest", "-m", "realesrgan-x4plus")


def load(path: Path) -> NDArray[Any]:
    return np.asarray(Image.open(path))


def lanczos(pixels: NDArray[np.uint8], scale: int = 4) -> NDArray[np.uint8]:
    """Enlarge by our own resize, all rows at once."""
    planes = (pixels / np.float32(255)).transpose(2, 0, 1).astype(np.float32)
    _, height, width = planes.shape
    bands = resize_bands(
        [planes], height_px=height, width_px=width, to_height_px=height * scale, to_width_px=width * scale
    )
    result = np.concatenate(list(bands), axis=1).clip(0, 1)
    rounded: NDArray[np.uint8] = np.rint(result * 255).astype(np.uint8)
    return rounded.transpose(1, 2, 0)


def test_strengths_go_from_lanczos_to_the_network(realesr: Command, folder: Path) -> None:
    pixels = photo(30, 40)
    Image.fromarray(pixels).save(folder / "a.png")
    for strength in (0, 0.5, 1):
        result = realesr("upscale", "a.png", "--strength", strength, "-o", f"{strength}.png", "--json", *NEAREST)
        assert result.exit_code == 0
        assert json.loads(result.stdout)["passes"] == (1 if strength else 0)
    own, mixed, network = (load(folder / f"{strength}.png").astype(int) for strength in (0, 0.5, 1))
    np.testing.assert_array_equal(own, lanczos(pixels))
    np.testing.assert_array_equal(network, pixels.repeat(4, axis=0).repeat(4, axis=1))
    assert np.abs(mixed - (own + network) / 2).max() < 8
    assert np.abs(mixed - own).mean() > 0.5


def test_a_folder_gets_the_same_strength(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "in/a.jpg", "in/b.png")
    realesr("upscale", "in", "--strength", 0.25)
    assert [image.strength for _, _, image, _ in fake.asked] == [0.25, 0.25]


@pytest.mark.parametrize("strength", ["-0.1", "1.5", "nan"])
def test_a_strength_that_is_no_share_is_wrong_usage(
    realesr: Command, fake: FakeUpscaler, folder: Path, strength: str
) -> None:
    write(folder, "a.jpg")
    result = realesr("upscale", "a.jpg", f"--strength={strength}")
    assert result.exit_code == 2
    message = f"error: got strength {strength}, expected a number from 0 to 1; --strength sets it\n"
    assert result.stderr == message
    assert not fake.opened


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pictures_and_files_of_every_kind_give_the_same(folder: Path, mode: str, strength: float) -> None:
    image = Image.fromarray(photo(20, 30, 4)).convert(mode)
    image.save(folder / "a.png")
    with Upscaler("realesrgan-x4plus", engine="nearest") as upscaler:
        upscaler.upscale_file(folder / "a.png", folder / "b.png", image=ImageOptions(scale=3, strength=strength))
        expected = upscaler.upscale(image, 3, strength=strength)
    np.testing.assert_array_equal(load(folder / "b.png"), np.asarray(expected))
    plain = upscale_image(image, "realesrgan-x4plus", 3, strength=strength, engine="nearest")
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(expected))


def test_16_bits_keep_their_levels(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), np.uint16)
    with Upscaler("realesrgan-x4plus", engine="nearest") as upscaler:
        for strength in (0.0, 0.5):
            assert len(np.unique(upscaler.upscale(pixels, strength=strength))) > 5000


def test_it_goes_on_from_kept_rows_with_the_same_pixels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realesr.runtime.kept_rows.WORTH_SECONDS", 0.0)
    monkeypatch.setattr("realesr.runtime.kept_rows.CHECKPOINT_SECONDS", 0.0)
    Image.fromarray(photo(300, 40)).save(folder / "a.png")
    options: dict[str, Any] = {"image": ImageOptions(strength=0.5), "file": FileOptions(resume=True, overwrite=True)}

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise RuntimeError("killed")

    with Upscaler("realesrgan-x4plus", engine="nearest", tile_px=16) as upscaler:
        upscaler.upscale_file(folder / "a.png", folder / "whole.png", **options)
        with pytest.raises(RuntimeError, match="killed"):
            upscaler.upscale_file(folder / "a.png", folder / "b.png", on_progress=stop, **options)
        result = upscaler.upscale_file(folder / "a.png", folder / "b.png", **options)
    assert any("gone on behind" in notice for notice in result.notices)
    np.testing.assert_array_equal(load(folder / "b.png"), load(folder / "whole.png"))


def test_rows_of_another_strength_are_not_gone_on_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realesr.runtime.kept_rows.WORTH_SECONDS", 0.0)
    monkeypatch.setattr("realesr.runtime.kept_rows.CHECKPOINT_SECONDS", 0.0)
    Image.fromarray(photo(300, 40)).save(folder / "a.png")
    file = FileOptions(resume=True)

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise RuntimeError("killed")

    with Upscaler("realesrgan-x4plus", engine="nearest", tile_px=16) as upscaler:
        with pytest.raises(RuntimeError, match="killed"):
            upscaler.upscale_file(folder / "a.png", folder / "b.png", file=file, on_progress=stop)
        image = ImageOptions(strength=0.5)
        result = upscaler.upscale_file(folder / "a.png", folder / "b.png", image=image, file=file)
    assert not any("gone on behind" in notice for notice in result.notices)


def test_self_ensembles_are_mixed_likewise() -> None:
    pixels = photo(20, 30)
    with Upscaler("realesrgan-x4plus", engine="nearest") as plain:
        expected = plain.upscale(pixels, strength=0.5)
    with Upscaler("realesrgan-x4plus", engine="nearest", tta=True) as ensemble:
        np.testing.assert_array_equal(ensemble.upscale(pixels, strength=0.5), expected)


def test_cleaning_at_half_strength_without_enlarging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The photo itself is what the network's result is mixed with."""
    monkeypatch.setattr("realesr.api.NearestEngine", lambda scale: BoxBlurEngine(scale, radius_px=1))
    pixels = photo(100, 110)
    with Upscaler("realesrgan-x4plus", engine="nearest") as upscaler:
        none, half = (upscaler.upscale(pixels, 1, strength=strength) for strength in (0, 0.5))
        blurred = upscaler.upscale(pixels, 1)
    np.testing.assert_array_equal(none, pixels)
    inner = slice(32, -32)  # this network darkens borders, which the photo's own tones correct beside them, too
    np.testing.assert_allclose(half[inner, inner], (pixels / 2 + blurred / 2)[inner, inner], atol=2)
