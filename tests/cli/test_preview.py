"""`--preview` and `--region`: one part of each photo, as it would be in the whole, and the time for all of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.errors import UsageError
from realesr.images.crop import Region
from realesr.options import FileOptions

from .conftest import Command, FakeUpscaler, write

NEAREST = ("--engine", "nearest", "-m", "realesrgan-x4plus")


def detailed(height: int = 400, width: int = 600, at: tuple[int, int] = (304, 96)) -> NDArray[np.uint8]:
    """A flat photo with stripes of 64 px a side; `at` is their left and top."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    left, top = at
    pixels[top : top + 64, left : left + 64] = np.where(np.arange(64) // 4 % 2, 230, 20)[:, None]
    return pixels


def save(path: Path, pixels: NDArray[np.uint8], **options: Any) -> NDArray[np.uint8]:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def load(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def repeated(pixels: NDArray[np.uint8], region: Region, scale: int = 4) -> NDArray[np.uint8]:
    left, top, width, height = region
    return pixels[top : top + height, left : left + width].repeat(scale, axis=0).repeat(scale, axis=1)


def test_a_preview_is_the_part_with_the_most_detail(realesr: Command, folder: Path) -> None:
    pixels = save(folder / "photo.png", detailed())
    result = realesr("upscale", "photo.png", "--preview", "--json", *NEAREST)
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert record["target"] == "photo_x4_preview.png"
    left, top, width, height = record["region"]
    assert (width, height) == (256, 256)
    assert left <= 304 and left + 256 >= 368 and top <= 96 and top + 256 >= 160
    assert (record["input_px"], record["output_px"]) == ([256, 256], [1024, 1024])
    np.testing.assert_array_equal(load(folder / "photo_x4_preview.png"), repeated(pixels, Region(*record["region"])))


def test_the_path_goes_to_stdout_and_the_time_of_the_whole_to_stderr(realesr: Command, folder: Path) -> None:
    save(folder / "photo.png", detailed())
    result = realesr("upscale", "photo.png", "--preview", *NEAREST)
    assert result.stdout == "photo_x4_preview.png\n"
    summary, whole = result.stderr.splitlines()
    assert summary.startswith("photo.png  256 x 256 -> 1024 x 1024  realesrgan-x4plus, nearest fp32 on cpu, 1 pass")
    assert whole.startswith("photo.png: the whole image takes ")


def test_a_long_whole_names_a_faster_network_with_its_time(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a.jpg")
    fake.whole_seconds = 7800.0
    monkeypatch.setattr("realesr.cli.upscaling.run.with_region", lambda file, _: file)
    last = realesr("upscale", "a.jpg", "--preview").stderr.splitlines()[-1]
    assert last == (
        "a.jpg: the whole image takes about 2 h 10 min; -m realesr-general-x4v3 takes about 9 min "
        "(it comes with realesr)"
    )


def test_a_region_is_counted_in_pixels_of_the_upright_image(realesr: Command, folder: Path) -> None:
    pixels = detailed(60, 90, at=(10, 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    save(folder / "photo.png", np.ascontiguousarray(np.rot90(pixels)), exif=exif)
    assert realesr("upscale", "photo.png", "--region", "10,5,32,40", *NEAREST).exit_code == 0
    np.testing.assert_array_equal(load(folder / "photo_x4_preview.png"), repeated(pixels, Region(10, 5, 32, 40)))


def test_a_folder_gets_a_preview_of_each_and_no_manifest(realesr: Command, folder: Path) -> None:
    save(folder / "in/a.png", detailed())
    save(folder / "in/deep/b.png", detailed(100, 90, at=(0, 0)))
    result = realesr("upscale", "in", "--recursive", "--preview", "-o", "out", *NEAREST)
    assert result.stdout == "out/a_x4_preview.png\nout/deep/b_x4_preview.png\n"
    assert load(folder / "out/deep/b_x4_preview.png").shape == (400, 360, 3)
    assert not list(folder.rglob("*manifest*"))
    assert realesr("upscale", "in", "--preview", *NEAREST).stdout == "in/a_x4_preview.png\n"
    assert not list(folder.rglob("*manifest*"))


def test_a_preview_is_no_input_of_a_later_run_and_does_not_stand_for_the_whole(realesr: Command, folder: Path) -> None:
    save(folder / "in/a.png", detailed(80, 90, at=(0, 0)))
    assert realesr("upscale", "in", "--preview", *NEAREST).exit_code == 0
    assert realesr("upscale", "in", *NEAREST).stdout == "in/a_x4.png\n"
    assert realesr("upscale", "in/a.png", "in/a_x4_preview.png", "-s", 2, *NEAREST).stdout == "in/a_x2.png\n"


def test_one_that_is_there_is_skipped(realesr: Command, folder: Path) -> None:
    save(folder / "a.png", detailed(80, 90, at=(0, 0)))
    realesr("upscale", "a.png", "--preview", *NEAREST)
    assert "a_x4_preview.png exists: skipped" in realesr("upscale", "a.png", "--preview", *NEAREST).stderr
    assert realesr("upscale", "a.png", "--preview", "--overwrite", *NEAREST).stdout == "a_x4_preview.png\n"


@pytest.mark.parametrize(
    ("words", "name", "side_px"),
    [
        (("-s", 2.5), "photo_x2.5_preview.png", 80),
        (("--long-side", 1800), "photo_1800px_preview.png", 96),
        (("--name", "{stem}-{scale}"), "photo-x4_preview.png", 128),
        (("--format", "webp"), "photo_x4_preview.webp", 128),
        (("-o", "here.png"), "here.png", 128),
    ],
)
def test_it_is_scaled_and_named_as_the_whole_would_be(
    realesr: Command, folder: Path, words: tuple[object, ...], name: str, side_px: int
) -> None:
    save(folder / "photo.png", detailed())
    result = realesr("upscale", "photo.png", "--region", "300,100,32,32", *words, *NEAREST)
    assert result.stdout == f"{name}\n"
    assert load(folder / name).shape == (side_px, side_px, 3)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("569,0,32,32", "region 569,0,32,32, which is not within photo.png of 600 x 400 px; --region sets it"),
        ("0,390,1,11", "which is not within photo.png"),
        ("0,0,0,32", "got region 0,0,0,32, expected left and top of 0 px or more, and width and height of 1 px"),
        ("-1,0,32,32", "got region -1,0,32,32, expected left and top of 0 px or more"),
        ("0,0,1025,1", "expected a width and a height of 1 to 1,024 px; --region sets it"),
        ("0,0,32", "got --region 0,0,32, expected left,top,width,height"),
        ("a,b,c,d", "got --region a,b,c,d, expected left,top,width,height"),
    ],
)
def test_a_region_that_is_none_of_the_photo_is_wrong_usage_and_nothing_is_written(
    realesr: Command, folder: Path, region: str, message: str
) -> None:
    save(folder / "photo.png", detailed())
    result = realesr("upscale", "photo.png", f"--region={region}", "-o", "out/", *NEAREST)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


def test_a_region_outside_of_one_of_many_is_refused_before_any_is_done(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    save(folder / "a.png", detailed())
    save(folder / "b.png", detailed(80, 100, at=(0, 0)))
    (folder / "c.png").write_bytes(b"no image")
    result = realesr("upscale", ".", "--region", "100,50,64,64")
    assert result.exit_code == 2
    assert "not within b.png of 100 x 80 px" in result.stderr
    assert not fake.opened


def test_one_that_cannot_be_read_does_not_stop_the_others(realesr: Command, folder: Path) -> None:
    save(folder / "a.png", detailed())
    (folder / "b.png").write_bytes(b"no image")
    for words in (("--preview",), ("--region", "0,0,16,16", "--overwrite")):
        result = realesr("upscale", "a.png", "b.png", *words, *NEAREST)
        assert (result.exit_code, result.stdout) == (1, "a_x4_preview.png\n")
        assert "error: b.png" in result.stderr


@pytest.mark.parametrize("word", ["--preview", "--region=0,0,16,16"])
def test_an_input_is_never_replaced_by_its_preview(
    realesr: Command, fake: FakeUpscaler, folder: Path, word: str
) -> None:
    save(folder / "a.png", detailed())
    result = realesr("upscale", "a.png", "--in-place", "--no-backup", word)
    assert result.exit_code == 2
    assert f"got --in-place and {word.partition('=')[0]}, which contradict each other" in result.stderr


def test_metadata_about_the_whole_image_is_left_out_and_its_colours_are_kept(realesr: Command, folder: Path) -> None:
    from PIL.ImageCms import ImageCmsProfile, createProfile

    exif = Image.Exif()
    exif[0x010E], exif[0x0132] = "a street", "2026:11:27 12:00:00"
    profile = ImageCmsProfile(createProfile("sRGB")).tobytes()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>faces</a></x:xmpmeta>'
    save(folder / "a.jpg", detailed(), exif=exif, xmp=xmp, icc_profile=profile, dpi=(200, 200))
    realesr("upscale", "a.jpg", "--preview", *NEAREST)
    with Image.open(folder / "a_x4_preview.jpg") as preview:
        assert not dict(preview.getexif()).keys() & {0x010E, 0x0132}
        assert b"faces" not in preview.info.get("xmp", b"")
        assert preview.info["icc_profile"]
        assert preview.info["dpi"] == (200, 200)


def test_regions_of_the_api_are_checked_when_they_are_stated() -> None:
    with pytest.raises(UsageError, match=r"got region 0,0,16,0, expected left and top of 0 px or more"):
        FileOptions(region=(0, 0, 16, 0))


def test_help_shows_both(realesr: Command) -> None:
    text = realesr("upscale", "--help").output
    assert "realesr upscale photo.jpg --preview" in text
    assert "realesr upscale photo.jpg --region 400,300,256,256" in text


def test_reports_do_not_speak_of_a_whole_where_there_is_no_preview(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "a.jpg")
    assert "whole image" not in realesr("upscale", "a.jpg").stderr
