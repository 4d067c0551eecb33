"""Checks the checks of images, with each fault made on purpose by Pillow."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image

from realesr.errors import UsageError
from realesr.train.data.check import Checked, CheckOptions, check_image, check_images, near_duplicates
from realesr.train.data.jpeg_quality import quality_of_file, quality_of_table
from realesr.train.data.threads import in_threads
from tests.images.image_files import photo

OPTIONS = CheckOptions(crop_px=64, least_quality=75)


def scene(height: int, width: int, seed: int) -> Image.Image:
    """Return soft shapes that differ from seed to seed over the whole image."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noise = np.random.default_rng(seed).normal(0, 3, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def faults(paths: list[Path], options: CheckOptions = OPTIONS, threads: int = 2) -> dict[str, str | None]:
    return {found.path.name: found.fault for found in check_images(paths, options, threads=threads)}


def test_every_fault_is_found_and_good_images_have_none(tmp_path: Path) -> None:
    scene(100, 120, 1).save(tmp_path / "good.png")
    scene(200, 240, 2).save(tmp_path / "good.jpg", quality=90)
    scene(100, 120, 3).save(tmp_path / "squeezed.jpg", quality=40)
    scene(63, 500, 4).save(tmp_path / "thin.png")
    scene(100, 120, 1).save(tmp_path / "good_again.tif")
    scene(200, 240, 2).resize((120, 100), Image.Resampling.LANCZOS).save(tmp_path / "good_smaller.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "good.png").read_bytes()[:5000])
    (tmp_path / "half.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:1500])
    (tmp_path / "text.png").write_text("no image")
    assert faults(sorted(tmp_path.iterdir())) == {
        "good.png": None,
        "good.jpg": None,
        "squeezed.jpg": "compressed",
        "thin.png": "tiny",
        "good_again.tif": "duplicate",
        "good_smaller.png": "near duplicate",
        "half.png": "unreadable",
        "half.jpg": "unreadable",
        "text.png": "unreadable",
    }


def test_what_is_said_names_sizes_qualities_and_originals(tmp_path: Path) -> None:
    scene(100, 120, 1).save(tmp_path / "a.png")
    scene(100, 120, 1).save(tmp_path / "b.png")
    scene(100, 120, 2).save(tmp_path / "c.jpg", quality=40)
    scene(30, 120, 3).save(tmp_path / "d.png")
    (tmp_path / "e.png").touch()
    details = [found.detail for found in check_images(sorted(tmp_path.iterdir()), OPTIONS, threads=1)]
    assert details[:4] == [
        "",
        f"the same pixels as {tmp_path / 'a.png'}",
        "JPEG quality 40, below 75",
        "120 x 30 px, smaller than the crop of 64 px",
    ]
    assert details[4].startswith(f"{tmp_path / 'e.png'} is empty")


def test_results_do_not_depend_on_threads_and_come_in_order(tmp_path: Path) -> None:
    paths = []
    for number in range(9):
        paths.append(tmp_path / f"{number}.png")
        scene(70, 80, number // 2).save(paths[-1])
    one, four = (check_images(paths, OPTIONS, threads=threads) for threads in (1, 4))
    assert [found.to_json() for found in one] == [found.to_json() for found in four]
    assert [found.path for found in one] == paths
    assert [found.fault for found in one] == [None, "duplicate"] * 4 + [None]


def test_every_image_is_told_when_it_is_done(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        scene(70, 80, 0).save(path)
    told: list[Path] = []
    check_images(paths, OPTIONS, threads=2, on_image=told.append)
    assert told == paths


def test_of_images_that_look_alike_the_best_one_stays(tmp_path: Path) -> None:
    scene(200, 240, 1).save(tmp_path / "large.jpg", quality=30)
    scene(100, 120, 1).save(tmp_path / "middle.png")
    scene(100, 120, 1).save(tmp_path / "middle.jpg", quality=90)
    expected = {"middle.png": None, "large.jpg": "near duplicate", "middle.jpg": "near duplicate"}
    assert faults([tmp_path / name for name in ("large.jpg", "middle.jpg", "middle.png")]) == expected


def test_plain_images_are_not_taken_for_copies_of_each_other(tmp_path: Path) -> None:
    for seed in (1, 2):
        noise = np.random.default_rng(seed).normal(200, 4, (80, 80, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / f"sky{seed}.png")
    assert set(faults(sorted(tmp_path.iterdir())).values()) == {"flat"}


def test_facts_are_those_of_the_file(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (70, 90)).astype(np.uint16)
    pyvips.Image.new_from_array(values).copy(interpretation="grey16").pngsave(str(tmp_path / "deep.png"))
    found = check_image(tmp_path / "deep.png", replace(OPTIONS, least_structure=0, least_sharpness=0, most_noise=255))
    assert (found.width_px, found.height_px, found.bits, found.channels) == (90, 70, 16, 1)
    assert (found.fault, found.jpeg_quality, found.pixels) == (None, None, 6300)
    record = json.loads(json.dumps(found.to_json()))
    assert record["path"] == str(tmp_path / "deep.png")
    assert "thumbnail" not in record


def test_the_hash_is_of_the_pixels_and_of_the_size(tmp_path: Path) -> None:
    pixels = photo(64, 128)
    Image.fromarray(pixels).save(tmp_path / "a.png", compress_level=1)
    Image.fromarray(pixels).save(tmp_path / "b.png", compress_level=9)
    Image.fromarray(pixels.reshape(128, 64, 3)).save(tmp_path / "c.png")
    a, b, c = (check_image(tmp_path / f"{name}.png", OPTIONS).pixel_hash for name in "abc")
    assert a == b != c
    assert a == hashlib.blake2b(b"(128, 64, 3, 8)" + pixels.tobytes(), digest_size=16).hexdigest()


@pytest.mark.parametrize(("height", "width"), [(8, 9), (64, 72), (99, 205), (600, 300)])
def test_thumbnails_are_means_of_areas(tmp_path: Path, height: int, width: int) -> None:
    scene(height, width, 5).save(tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png")).astype(float)
    rows = [height * cell // 8 for cell in range(9)]
    columns = [width * cell // 9 for cell in range(10)]
    expected = [[pixels[rows[y] : rows[y + 1], columns[x] : columns[x + 1]].mean() for x in range(9)] for y in range(8)]
    thumbnail = check_image(tmp_path / "a.png", CheckOptions(crop_px=1)).thumbnail
    assert thumbnail is not None
    np.testing.assert_allclose(thumbnail, expected, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (50, 8)])
def test_images_below_a_thumbnail_have_none(tmp_path: Path, height: int, width: int) -> None:
    Image.fromarray(photo(height, width)).save(tmp_path / "a.png")
    found = check_image(tmp_path / "a.png", CheckOptions(crop_px=1))
    assert (found.fault, found.thumbnail) == (None, None)


def test_alpha_counts_for_the_hash_but_not_for_the_look(tmp_path: Path) -> None:
    image = scene(80, 90, 1)
    image.save(tmp_path / "a.png")
    image.putalpha(100)
    image.save(tmp_path / "b.png")
    assert faults(sorted(tmp_path.iterdir())) == {"a.png": None, "b.png": "near duplicate"}


def test_near_duplicates_of_one_image_have_the_same_original() -> None:
    base = np.random.default_rng(0).uniform(0, 255, (8, 9)).astype(np.float32)
    other = np.random.default_rng(1).uniform(0, 255, (8, 9)).astype(np.float32)
    brighter = base + 40  # the same hash, another picture
    assert near_duplicates([base, other, base + 1, brighter, base - 1, other]) == {2: 0, 4: 0, 5: 1}
    assert near_duplicates([]) == {}


def test_crops_are_counted_beside_one_another() -> None:
    assert Checked(path=Path(), width_px=1000, height_px=799).crops(400) == 2
    assert Checked(path=Path(), width_px=100, height_px=1200).crops(400) == 3


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 51, 75, 90, 95, 99, 100])
def test_the_quality_is_that_which_the_file_was_saved_with(tmp_path: Path, quality: int) -> None:
    scene(64, 64, 1).save(tmp_path / "a.jpg", quality=quality)
    assert quality_of_file(tmp_path / "a.jpg") == quality
    scene(64, 64, 1).convert("L").save(tmp_path / "grey.jpg", quality=quality, progressive=True)
    assert quality_of_file(tmp_path / "grey.jpg") == quality


def test_tables_of_other_programs_get_the_nearest_quality() -> None:
    """Try a table flatter than libjpeg's, and about as strong as at quality 85 to 95."""
    assert 80 <= quality_of_table(np.full((8, 8), 10)) <= 95


def test_jpeg_data_under_another_name_is_judged_as_well(tmp_path: Path) -> None:
    scene(100, 120, 1).save(tmp_path / "a.png", "JPEG", quality=20)
    assert check_image(tmp_path / "a.png", OPTIONS).fault == "compressed"


@pytest.mark.parametrize(
    "options",
    [
        {"crop_px": 0},
        {"least_quality": 101},
        {"least_quality": -1},
        {"least_structure": 5},
        {"least_sharpness": -0.1},
        {"most_noise": 256},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        CheckOptions(**options)


def test_after_an_error_in_one_thread_no_more_is_begun() -> None:
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise OSError("full")
        return number

    with pytest.raises(OSError, match="full"):
        list(in_threads(work, range(10_000), 2))
    assert len(begun) < 10_000
