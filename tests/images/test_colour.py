"""Which colours a network gets: decisions by profile, and conversions against Pillow's LittleCMS."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from realesr.images.colour import has_photo_curves, is_srgb, plan_colour, profile_space
from realesr.images.reader import open_image

from .image_files import (
    ADOBE_PRIMARIES,
    P3_PRIMARIES,
    PROPHOTO_PRIMARIES,
    SRGB_PRIMARIES,
    grey_profile,
    libvips_profile,
    photo,
    profile,
    rgb_profile,
)

PILLOW_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE = {
    "adobe": rgb_profile(ADOBE_PRIMARIES, 2.2),
    "p3": libvips_profile("p3"),
    "p3 gamma": rgb_profile(P3_PRIMARIES, 2.2),
    "prophoto": rgb_profile(PROPHOTO_PRIMARIES, 1.8, white=(0.3457, 0.3585)),
}


def read(path: Path) -> NDArray[np.generic]:
    with open_image(path) as reader:
        return reader.read_rows(reader.info.height_px)


def converted_by_pillow(image: Image.Image, icc: bytes, flags: int = 0) -> NDArray[np.uint8]:
    result = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags(flags) | ImageCms.Flags.NOOPTIMIZE,
    )
    assert result is not None
    return np.asarray(result)


@pytest.mark.parametrize("name", WIDE)
def test_wide_gamut_photos_stay_in_their_own_space(name: str, tmp_path: Path) -> None:
    pixels = photo(20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=WIDE[name])
    with open_image(tmp_path / "a.png") as reader:
        assert reader.info.icc == WIDE[name]
        assert reader.notices == ()
        np.testing.assert_array_equal(reader.read_rows(20), pixels)


@pytest.mark.parametrize("icc", [PILLOW_SRGB, libvips_profile("srgb")], ids=["pillow", "libvips"])
def test_srgb_is_known_as_such(icc: bytes) -> None:
    assert is_srgb(icc)
    assert has_photo_curves(icc)


@pytest.mark.parametrize("icc", [*WIDE.values(), rgb_profile(SRGB_PRIMARIES, 1.0), libvips_profile("cmyk")])
def test_other_profiles_are_not_taken_for_srgb(icc: bytes) -> None:
    assert not is_srgb(icc)


def test_linear_rgb_is_converted_to_srgb(tmp_path: Path) -> None:
    icc = rgb_profile(SRGB_PRIMARIES, 1.0)
    image = Image.fromarray(photo(20, 30))
    image.save(tmp_path / "a.tif", icc_profile=icc)
    with open_image(tmp_path / "a.tif") as reader:
        assert reader.info.icc is not None
        assert is_srgb(reader.info.icc)
        assert "converted to sRGB" in reader.notices[0]
        rows = reader.read_rows(20)
    assert np.abs(rows.astype(int) - converted_by_pillow(image, icc)).max() <= 1


def test_linear_16_bit_rgb_keeps_its_depth_and_its_alpha(tmp_path: Path) -> None:
    import pyvips

    values = np.random.default_rng(0).integers(0, 65536, (9, 7, 4)).astype(np.uint16)
    image = pyvips.Image.new_from_array(values).copy(interpretation="rgb16")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", rgb_profile(SRGB_PRIMARIES, 1.0))
    image.pngsave(str(tmp_path / "a.png"))
    with open_image(tmp_path / "a.png") as reader:
        assert reader.info.bits == 16
        rows = reader.read_rows(9)
    linear = values[..., :3] / 65535
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(rows[..., :3] / 65535 - expected).max() < 0.002
    np.testing.assert_array_equal(rows[..., 3], values[..., 3])


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.2])
def test_grey_profiles_stay_with_grey(gamma: float, tmp_path: Path) -> None:
    Image.fromarray(photo(9, 8, 1)[:, :, 0]).save(tmp_path / "a.png", icc_profile=grey_profile(gamma))
    with open_image(tmp_path / "a.png") as reader:
        assert (reader.info.is_grey, reader.info.icc, reader.notices) == (True, grey_profile(gamma), ())


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("own", [True, False])
def test_cmyk_comes_out_as_pillow_converts_it(suffix: str, own: bool, tmp_path: Path) -> None:
    icc = libvips_profile("cmyk")
    image = Image.fromarray(photo(24, 32)).convert("CMYK")
    image.save(tmp_path / f"a.{suffix}", icc_profile=icc if own else None, quality=100)
    with open_image(tmp_path / f"a.{suffix}") as reader:
        assert reader.info.icc is not None
        assert is_srgb(reader.info.icc)
        assert reader.info.channels == 3
        assert ("its own profile" if own else "generic") in reader.notices[0]
        rows = reader.read_rows(24)
    stored = Image.open(tmp_path / f"a.{suffix}")
    expected = converted_by_pillow(stored, icc, flags=ImageCms.Flags.BLACKPOINTCOMPENSATION)
    assert np.abs(rows.astype(int) - expected).max() <= 2


def test_lab_comes_out_as_pillow_converts_it(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(photo(20, 30)), srgb, lab, outputMode="LAB")
    assert image is not None
    image.save(tmp_path / "a.tif")
    expected = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB", flags=ImageCms.Flags.NOOPTIMIZE)
    with open_image(tmp_path / "a.tif") as reader:
        assert (reader.info.bits, reader.info.channels) == (8, 3)
        assert reader.notices == ("Lab was converted to sRGB",)
        rows = reader.read_rows(20)
    assert np.abs(rows.astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize(
    "icc",
    [
        b"not a profile",
        WIDE["adobe"][:200],
        WIDE["adobe"][:128] + b"\0\0\0\1rXYZ\xff\xff\xff\xff\0\0\0\x14",
        profile(b"RGB ", {}),
        b"\0" * 500,
    ],
    ids=["text", "cut", "offset outside", "no tags", "zeros"],
)
def test_damaged_profiles_are_dropped_with_a_notice(icc: bytes, tmp_path: Path) -> None:
    pixels = photo(9, 8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", icc_profile=icc, quality=100)
    with open_image(tmp_path / "a.jpg") as reader:
        assert reader.info.icc is None
        assert "damaged and was dropped" in reader.notices[0]
        assert reader.read_rows(9).shape == (9, 8, 3)


def test_profiles_for_another_kind_of_image_are_dropped_with_a_notice(tmp_path: Path) -> None:
    Image.fromarray(photo(9, 8)).save(tmp_path / "rgb.tif", icc_profile=grey_profile(2.2))
    Image.fromarray(photo(9, 8, 1)[:, :, 0]).save(tmp_path / "grey.tif", icc_profile=WIDE["adobe"])
    for name, kind in (("rgb.tif", "GREY"), ("grey.tif", "RGB")):
        with open_image(tmp_path / name) as reader:
            assert reader.info.icc is None
            assert reader.notices == (
                f"the colour profile is for {kind} images and was dropped; colours are treated as sRGB",
            )


def test_look_up_table_profiles_are_converted() -> None:
    icc = profile(b"RGB ", {b"A2B0": b"mft1" + b"\0" * 60})
    assert profile_space(icc) == "rgb"
    assert plan_colour("rgb", icc).treatment == "convert to sRGB"


def test_every_cut_of_a_profile_is_decided_without_an_exception() -> None:
    for icc in (WIDE["adobe"], WIDE["p3"], grey_profile(1.8)):
        for end in range(len(icc)):
            assert plan_colour("rgb", icc[:end]).treatment == "drop profile"
            has_photo_curves(icc[:end])
            is_srgb(icc[:end])


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4])
def test_curves_without_real_values_are_decided_without_an_exception(kind: int, tmp_path: Path) -> None:
    numbers = (-0.5, -2.0, -0.5, 1.0, -1.0, 0.0, 0.0)[: (1, 3, 4, 5, 7)[kind]]
    curve = b"para\0\0\0\0" + struct.pack(f">HH{len(numbers)}i", kind, 0, *(round(n * 65536) for n in numbers))
    columns = {name: b"XYZ \0\0\0\0" + struct.pack(">3i", 20000, 20000, 20000) for name in (b"rXYZ", b"gXYZ", b"bXYZ")}
    icc = profile(b"RGB ", columns | {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")})
    assert not is_srgb(icc)
    Image.fromarray(photo(9, 8)).save(tmp_path / "a.png", icc_profile=icc)
    with open_image(tmp_path / "a.png") as reader:
        assert reader.notices
        assert reader.read_rows(9).shape == (9, 8, 3)
