"""Compares crops with the whole image as Pillow decodes it, and padding with numpy; pairs stay aligned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image

from realesr.errors import InputError
from realesr.train.data.crops import crops_in_turn, read_crop, read_crop_pair, reflect_padded, symmetric_padded
from tests.images.image_files import photo

SEEDS = range(12)


def saved(folder: Path, name: str, pixels: NDArray[np.uint8], **options: Any) -> Path:
    Image.fromarray(pixels if pixels.shape[-1] != 1 else pixels[:, :, 0]).save(folder / name, **options)
    return folder / name


def find(crop: NDArray[np.uint8], whole: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return where a (3, h, w) crop lies in an (H, W, 3) image."""
    height, width = crop.shape[1:]
    rows = np.lib.stride_tricks.sliding_window_view(whole, (height, width), axis=(0, 1))
    return [(int(y), int(x)) for y, x in np.argwhere((rows == crop).all(axis=(2, 3, 4)))]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.jpg", {"quality": 90}),
        ("progressive.jpg", {"progressive": True}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.bmp", {}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_a_crop_is_a_part_of_the_image_in_its_full_resolution(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    path = saved(tmp_path, name, photo(50, 61), **options)
    whole = np.asarray(Image.open(path).convert("RGB"))
    places = set()
    for seed in SEEDS:
        crop = read_crop(path, 32, seed=seed)
        assert crop.pixels.shape == (3, 32, 32)
        assert crop.pixels.dtype == np.uint8
        assert not crop.padded
        (place,) = find(crop.pixels, whole)
        places.add(place)
    assert len(places) > len(SEEDS) // 2


def test_a_tiled_tiff_is_cut_like_any_other(tmp_path: Path) -> None:
    pixels = photo(80, 100)
    image = pyvips.Image.new_from_array(pixels)
    image.tiffsave(str(tmp_path / "t.tif"), tile=True, tile_width=16, tile_height=16, compression="deflate")
    for seed in SEEDS:
        assert len(find(read_crop(tmp_path / "t.tif", 24, seed=seed).pixels, pixels)) == 1


def test_the_seed_alone_decides(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.png", photo(80, 90))
    for seed in SEEDS:
        first, second = (read_crop(path, 32, seed=seed, flip=True, rotate=True).pixels for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.flags.c_contiguous


def test_every_place_is_reached_and_the_edges_as_often_as_others(tmp_path: Path) -> None:
    ramp = np.arange(20, dtype=np.uint8)[:, None, None] * 10 + np.arange(4, dtype=np.uint8)[None, :, None]
    path = saved(tmp_path, "a.png", np.repeat(ramp, 3, axis=2))
    corners = [int(read_crop(path, 2, seed=seed).pixels[0, 0, 0]) for seed in range(760)]
    tops, lefts = (np.bincount([divmod(corner, 10)[axis] for corner in corners]) for axis in (0, 1))
    assert (len(tops), len(lefts)) == (19, 3)
    # 40 and 253 expected; five standard deviations.
    assert np.abs(tops - 40).max() < 32
    assert np.abs(lefts - 760 / 3).max() < 66


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (40, 40, 3)).astype(np.uint16)
    pyvips.Image.new_from_array(values).copy(interpretation="rgb16").pngsave(str(tmp_path / "a.png"))
    crop = read_crop(tmp_path / "a.png", 40, seed=0).pixels
    assert crop.dtype == np.float32
    np.testing.assert_array_equal(np.rint(crop.astype(np.float64) * 65535), values.transpose(2, 0, 1))


def test_grey_comes_in_all_channels_and_alpha_is_left_out(tmp_path: Path) -> None:
    grey = saved(tmp_path, "grey.png", photo(40, 40, 1))
    np.testing.assert_array_equal(read_crop(grey, 40, seed=0).pixels, [np.asarray(Image.open(grey))] * 3)
    clear = photo(40, 40, 4)
    clear[:20, :, 3] = 0
    crop = read_crop(saved(tmp_path, "clear.png", clear), 40, seed=0).pixels
    np.testing.assert_array_equal(crop, clear[:, :, :3].transpose(2, 0, 1))
    both = saved(tmp_path, "both.png", photo(40, 40, 2))
    np.testing.assert_array_equal(read_crop(both, 40, seed=0).pixels, [np.asarray(Image.open(both))[:, :, 0]] * 3)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_photos_are_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    path = saved(tmp_path, "a.jpg", photo(40, 56), exif=exif, quality=95)
    from PIL import ImageOps

    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert len(find(read_crop(path, 32, seed=3).pixels, upright)) == 1


def test_cmyk_is_read_in_the_networks_colours(tmp_path: Path) -> None:
    Image.fromarray(photo(40, 40, 4), "CMYK").save(tmp_path / "a.jpg")
    crop = read_crop(tmp_path / "a.jpg", 32, seed=0)
    assert crop.pixels.shape == (3, 32, 32)
    assert crop.pixels.dtype == np.uint8


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (2, 3), (20, 31), (31, 40), (32, 32)])
def test_small_images_are_mirrored_at_the_bottom_and_right(tmp_path: Path, height: int, width: int) -> None:
    pixels = photo(height, width)
    path = saved(tmp_path, "a.png", pixels)
    crop = read_crop(path, 32, seed=0)
    assert crop.padded == (min(height, width) < 32)
    assert crop.pixels.shape == (3, 32, 32)
    if max(height, width) <= 32:
        np.testing.assert_array_equal(crop.pixels, by_hand(pixels, 32).transpose(2, 0, 1))


def by_hand(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Pad by the definition of reflect-101: a walk to and fro that does not stay at the ends."""

    def walk(count: int) -> list[int]:
        period = max(1, 2 * (count - 1))
        return [min(place % period, period - place % period) if count > 1 else 0 for place in range(side_px)]

    return pixels[np.ix_(walk(pixels.shape[0]), walk(pixels.shape[1]))]


def test_padding_keeps_what_is_there_and_its_type() -> None:
    for dtype in (np.uint8, np.float32):
        pixels = np.arange(3 * 4 * 5).reshape(3, 4, 5).astype(dtype)
        for pad in (reflect_padded, symmetric_padded):
            padded = pad(pixels, 9)
            assert padded.dtype == dtype
            np.testing.assert_array_equal(padded[:, :4, :5], pixels)
        np.testing.assert_array_equal(reflect_padded(pixels, 9)[:, 0, 5:], pixels[:, 0, [3, 2, 1, 0]])
        np.testing.assert_array_equal(symmetric_padded(pixels, 9)[:, 0, 5:], pixels[:, 0, [4, 3, 2, 1]])


def test_flips_are_even_and_happen_only_where_asked(tmp_path: Path) -> None:
    pixels = photo(8, 8)
    path = saved(tmp_path, "a.png", pixels)
    planes = pixels.transpose(2, 0, 1)
    across, down = planes[:, :, ::-1], planes[:, ::-1]
    versions = {
        (True, False): [planes, across],
        (True, True): [f(p) for p in (planes, across, down, across[:, ::-1]) for f in (np.asarray, turned)],
        (False, False): [planes],
    }
    for (flip, rotate), expected in versions.items():
        counts = [0] * len(expected)
        for seed in range(160):
            crop = read_crop(path, 8, seed=seed, flip=flip, rotate=rotate).pixels
            counts[[np.array_equal(crop, version) for version in expected].index(True)] += 1
        even = 160 / len(expected)
        assert all(abs(count - even) < 5 * even**0.5 for count in counts)


def turned(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return planes.transpose(0, 2, 1)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(40, 52), (9, 30), (5, 3), (1, 1)])
def test_both_images_of_a_pair_show_the_same_place(tmp_path: Path, scale: int, height: int, width: int) -> None:
    small = photo(height, width)
    lr_path = saved(tmp_path, "lr.png", small)
    hr_path = saved(tmp_path, "hr.png", small.repeat(scale, axis=0).repeat(scale, axis=1))
    for seed in SEEDS:
        hr, lr = read_crop_pair(hr_path, lr_path, 16 * scale, scale=scale, seed=seed, flip=True, rotate=True)
        assert lr.pixels.shape == (3, 16, 16)
        assert hr.padded == lr.padded == (min(height, width) < 16)
        np.testing.assert_array_equal(hr.pixels, lr.pixels.repeat(scale, axis=1).repeat(scale, axis=2))


def test_a_pair_may_mix_depths(tmp_path: Path) -> None:
    lr_path = saved(tmp_path, "lr.png", photo(20, 20))
    values = np.asarray(Image.open(lr_path)).repeat(2, axis=0).repeat(2, axis=1).astype(np.uint16) * 257
    pyvips.Image.new_from_array(values).copy(interpretation="rgb16").pngsave(str(tmp_path / "hr.png"))
    hr, lr = read_crop_pair(tmp_path / "hr.png", lr_path, 32, scale=2, seed=1)
    assert hr.pixels.dtype == np.float32
    assert lr.pixels.dtype == np.uint8
    np.testing.assert_array_equal(np.rint(hr.pixels[:, ::2, ::2] * 255), lr.pixels)


def test_a_wrong_scale_names_both_files_and_sizes(tmp_path: Path) -> None:
    hr, lr = saved(tmp_path, "hr.png", photo(40, 62)), saved(tmp_path, "lr.png", photo(10, 15))
    words = r"hr\.png is 62 x 40 px and \S*lr\.png is 15 x 10 px: expected the first to be 4 times the second"
    with pytest.raises(InputError, match=words):
        read_crop_pair(hr, lr, 16, scale=4, seed=0)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    whole = saved(tmp_path, "whole.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    for name in ("half.png", "text.png", "empty.png", "gone.png"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")) as raised:
            read_crop(tmp_path / name, 64, seed=0)
        assert "\n" not in str(raised.value)


def test_crops_come_from_one_image_after_the_other_and_skip_what_cannot_be_read(tmp_path: Path) -> None:
    images = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(images):
        Image.fromarray(photo(40, 50, seed=number)).save(path)
    whole = list(crops_in_turn(images, 7, 32, seed=5))
    assert [path for path, _ in whole] == [images[number % 3] for number in range(7)]
    assert np.array_equal(whole[4][1].pixels, read_crop(images[1], 32, seed=9).pixels)

    images[1].write_bytes(images[1].read_bytes()[:200])
    told: dict[str, str] = {}
    rest = list(crops_in_turn(images, 7, 32, seed=5, on_failure=told.__setitem__))
    assert [path for path, _ in rest] == [images[number] for number in (0, 2, 2, 0, 2, 2, 0)]
    for number in (0, 2, 3, 5, 6):
        assert np.array_equal(rest[number][1].pixels, whole[number][1].pixels)
    assert list(told) == [str(images[1])] and "1.png" in told[str(images[1])]
    with pytest.raises(InputError, match=r"1\.png"):
        list(crops_in_turn(images, 7, 32, seed=5))
    with pytest.raises(InputError, match=r"no image is left that can be read \(.*1\.png.*; .*gone\.png"):
        list(crops_in_turn([images[1], tmp_path / "gone.png"], 7, 32, seed=5, on_failure=told.__setitem__))
