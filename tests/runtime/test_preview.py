"""A region alone has the pixels that it has in the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from realesr import FileOptions, ImageOptions, TargetSize, Upscaler
from realesr.engine import EngineBase, EngineSpec, ProgressCallback, check_batch
from realesr.errors import LargeEnough, UsageError
from tests.images.image_files import photo
from tests.runtime.fakes import BoxBlurEngine
from tests.runtime.test_pipeline import noise


@pytest.fixture(scope="module")
def upscaler() -> Any:
    """A network that sees 3 px around each pixel, in tiles that overlap by more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("realesr.api.NearestEngine", lambda scale: BoxBlurEngine(scale, radius_px=3))
        with Upscaler("realesrgan-x4plus", engine="nearest", overlap_px=8) as opened:
            yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("previews")
    Image.fromarray(photo(70, 90)).save(place / "a.png")
    return place


@settings(max_examples=25, deadline=None)
@given(
    box=st.tuples(st.integers(0, 80), st.integers(0, 60), st.integers(1, 90), st.integers(1, 70)),
    scale=st.sampled_from([None, 1, 2.5, 3.3, 6]),
)
def test_a_region_has_the_pixels_of_the_whole(
    upscaler: Upscaler, folder: Path, box: tuple[int, int, int, int], scale: float | None
) -> None:
    left, top, width, height = box
    region = left, top, min(width, 90 - left), min(height, 70 - top)
    image = ImageOptions(scale=scale)
    whole, part = folder / f"whole{scale}.png", folder / "part.png"
    if not whole.exists():
        upscaler.upscale_file(folder / "a.png", whole, image=image)
    result = upscaler.upscale_file(folder / "a.png", part, image=image, file=FileOptions(overwrite=True, region=region))
    factor = scale or 4
    found = np.asarray(Image.open(part)).astype(int)
    assert np.abs(np.array(found.shape[:2]) - np.array(region[:1:-1]) * factor).max() <= 1
    first_row, first_column = (int(start * factor + 0.5) for start in (top, left))
    expected = np.asarray(Image.open(whole)).astype(int)[first_row:, first_column:][: len(found), : found.shape[1]]
    found = found[: len(expected), : expected.shape[1]]
    np.testing.assert_allclose(found, expected, atol=1)
    assert result.region == region
    assert result.input_px == region[2:]


class ContrastEngine(EngineBase):
    """Repeats the square of every pixel: a network that shifts broad tones, each place by another amount."""

    def __init__(self, scale: int = 4) -> None:
        self.spec = EngineSpec(name="contrast", scale=scale, precision="fp32", device="cpu")

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        check_batch(batch, self.spec)
        return np.square(batch).repeat(self.spec.scale, axis=2).repeat(self.spec.scale, axis=3)


@pytest.mark.parametrize("strength", [0.5, 0.9])
def test_with_less_of_the_network_a_region_has_the_broad_tones_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strength: float
) -> None:
    monkeypatch.setattr("realesr.api.NearestEngine", ContrastEngine)
    pixels = noise(12, 15, 3).repeat(13, axis=0).repeat(14, axis=1)
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(pixels).save(source)
    image = ImageOptions(strength=strength)
    with Upscaler("realesrgan-x4plus", engine="nearest", overlap_px=8) as upscaler:
        upscaler.upscale_file(source, target, image=image)
        whole = np.asarray(Image.open(target)).astype(int)
        for left, top, width, height in [(61, 47, 50, 40), (0, 0, 30, 30), (170, 120, 40, 36), (101, 0, 9, 156)]:
            file = FileOptions(overwrite=True, region=(left, top, width, height))
            upscaler.upscale_file(source, target, image=image, file=file)
            part = np.asarray(Image.open(target)).astype(int)
            expected = whole[4 * top : 4 * (top + height), 4 * left : 4 * (left + width)]
            np.testing.assert_allclose(part, expected, atol=4)  # cells end between pixels of the photo


def test_the_time_of_the_whole_follows_from_the_pixels_that_the_network_reads(
    upscaler: Upscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realesr.runtime.file_job.NetworkTime", FixedTime)
    result = upscaler.upscale_file(folder / "a.png", folder / "b.png", file=FileOptions(region=(8, 8, 29, 19)))
    assert result.whole_seconds == pytest.approx(2.0 * 70 * 90 / (45 * 35))
    assert result.target == folder / "b.png"
    assert upscaler.upscale_file(folder / "a.png", folder / "c.png").whole_seconds is None


class FixedTime:
    """Stands for a network that takes two seconds."""

    seconds = 2.0

    def __init__(self, on_progress: object) -> None:
        pass

    def __call__(self, done_px: int, total_px: int) -> None:
        pass


def test_without_a_run_of_the_network_there_is_no_time(upscaler: Upscaler, folder: Path) -> None:
    image, file = ImageOptions(strength=0), FileOptions(region=(8, 8, 29, 19), overwrite=True)
    assert upscaler.upscale_file(folder / "a.png", folder / "d.png", image=image, file=file).whole_seconds is None


def test_the_name_of_a_preview_says_so(upscaler: Upscaler, folder: Path) -> None:
    file = FileOptions(region=(0, 0, 9, 9))
    assert upscaler.upscale_file(folder / "a.png", file=file).target == folder / "a_x4_preview.png"
    image = ImageOptions(size=TargetSize(long_side_px=180))
    found = upscaler.upscale_file(folder / "a.png", image=image, file=file)
    assert found.target == folder / "a_180px_preview.png"
    assert found.output_px == (18, 18)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_and_transparent_images_have_previews(upscaler: Upscaler, tmp_path: Path, channels: int) -> None:
    pixels = photo(40, 50, channels)
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(tmp_path / "a.png")
    upscaler.upscale_file(tmp_path / "a.png", tmp_path / "whole.png")
    upscaler.upscale_file(tmp_path / "a.png", tmp_path / "part.png", file=FileOptions(region=(20, 15, 16, 12)))
    whole, part = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("whole.png", "part.png"))
    np.testing.assert_allclose(part, whole[60:108, 80:144], atol=1)


def test_what_the_whole_would_refuse_is_refused(upscaler: Upscaler, folder: Path) -> None:
    file = FileOptions(region=(0, 0, 9, 9), overwrite=True)
    with pytest.raises(UsageError, match="which is not within"):
        upscaler.upscale_file(folder / "a.png", file=FileOptions(region=(85, 0, 9, 9)))
    with pytest.raises(LargeEnough):
        upscaler.upscale_file(folder / "a.png", image=ImageOptions(size=TargetSize(long_side_px=60)), file=file)
    with pytest.raises(UsageError, match="would become smaller"):
        upscaler.upscale_file(
            folder / "a.png", image=ImageOptions(size=TargetSize(long_side_px=60), shrink=True), file=file
        )
