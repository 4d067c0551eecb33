"""Profiles made of code points and of gamma: through LittleCMS and libvips, against formulas and libvips' profiles."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image, ImageCms

from realesr.images.colour import has_photo_curves, is_srgb, plan_colour, profile_space
from realesr.images.profile_making import cicp_is_known, cicp_name, cicp_profile, gamma_profile
from realesr.images.reader import open_image

from .image_files import libvips_profile

PRIMARIES = (1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22)
TRANSFERS = (4, 5, 7, 8, 9, 10, 13, 16, 17, 18)
CAMERAS = (1, 6, 11, 12, 14, 15)
ADOBE = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def to_srgb(values: NDArray[np.uint8], icc: bytes) -> Any:
    """Values (N, 3) in sRGB by LittleCMS, relative colorimetric."""
    result = ImageCms.profileToProfile(
        Image.fromarray(values[None]),
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.NOOPTIMIZE,
    )
    assert result is not None
    return np.asarray(result)[0]


def to_srgb_16(values: NDArray[np.uint16], icc: bytes) -> Any:
    """Values (N, C) in sRGB by libvips."""
    channels = values.shape[1]
    image = pyvips.Image.new_from_array(values[None]).copy(interpretation="rgb16" if channels == 3 else "grey16")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return image.icc_transform("srgb", embedded=True, depth=16, intent="relative").numpy()[0]


def srgb_curve(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def made(primaries: int, transfer: int, **options: bool) -> bytes:
    icc = cicp_profile(primaries, transfer, **options)
    assert icc is not None
    return icc


@pytest.mark.parametrize("primaries", PRIMARIES)
@pytest.mark.parametrize("transfer", TRANSFERS)
def test_white_is_white_and_black_black_to_both_colour_engines(primaries: int, transfer: int) -> None:
    icc = cicp_profile(primaries, transfer)
    if icc is None:
        assert (primaries, transfer) == (1, 13)
        return
    assert profile_space(icc) == "rgb"
    np.testing.assert_array_equal(to_srgb(np.array([[0] * 3, [255] * 3], np.uint8), icc), [[0] * 3, [255] * 3])
    wide = to_srgb_16(np.array([[0] * 3, [65535] * 3], np.uint16), icc)
    np.testing.assert_array_equal(wide, [[0] * 3, [65535] * 3])


def test_display_p3_is_as_libvips_has_it() -> None:
    values = np.random.default_rng(0).integers(0, 256, (500, 3)).astype(np.uint8)
    difference = to_srgb(values, made(12, 13)).astype(int) - to_srgb(values, libvips_profile("p3"))
    assert np.abs(difference).mean() < 0.1  # libvips' profile has another rounding of blue, which shows near black
    profile: Any = ImageCms.ImageCmsProfile(io.BytesIO(made(12, 13))).profile
    assert profile.profile_description == "Display P3"
    # Red of Display P3 adapted to D50; source: SMPTE EG 432-1 through Bradford, as in Apple's Display P3 profile.
    np.testing.assert_allclose(profile.red_colorant[0], (0.5151, 0.2412, -0.0011), atol=5e-4)
    np.testing.assert_allclose(profile.green_colorant[0], (0.2920, 0.6922, 0.0419), atol=5e-4)
    np.testing.assert_allclose(profile.blue_colorant[0], (0.1571, 0.0666, 0.7841), atol=5e-4)
    np.testing.assert_allclose(profile.media_white_point[0], (0.9642, 1.0, 0.8249), atol=5e-4)


@pytest.mark.parametrize("transfer", [*CAMERAS, 2, 13])
def test_curves_of_cameras_and_unspecified_ones_are_srgbs(transfer: int) -> None:
    assert cicp_profile(1, transfer) is None
    assert cicp_profile(2, transfer) is None
    assert cicp_profile(9, transfer, is_grey=True) is None
    wide = made(9, transfer)
    assert has_photo_curves(wide)
    assert not is_srgb(wide)
    assert cicp_is_known(2, transfer)


@pytest.mark.parametrize(("primaries", "transfer"), [(0, 13), (3, 13), (13, 13), (1, 0), (1, 3), (1, 19), (999, 255)])
def test_numbers_that_h273_does_not_know_make_no_profile(primaries: int, transfer: int) -> None:
    assert cicp_profile(primaries, transfer) is None
    assert not cicp_is_known(primaries, transfer)
    assert cicp_name(primaries, transfer)


def test_the_cicp_tag_is_in_rgb_profiles_only() -> None:
    assert b"cicp\0\0\0\0" + bytes((9, 16, 0, 1)) in made(9, 16)
    assert b"cicp" not in made(9, 16, is_grey=True)
    assert profile_space(made(9, 16, is_grey=True)) == "grey"


def pq_signal(cd_m2: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse EOTF of ITU-R BT.2100-2, table 4."""
    y = (cd_m2 / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def read_16(values: NDArray[np.uint16], icc: bytes, folder: Path) -> Any:
    """Values (N, C) as the reader hands them on, from a PNG file."""
    channels = values.shape[1]
    image = pyvips.Image.new_from_array(values[None]).copy(interpretation="rgb16" if channels == 3 else "grey16")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    image.pngsave(str(folder / "a.png"))
    with open_image(folder / "a.png") as reader:
        assert reader.notices[0].startswith("HDR ")
        assert reader.info.is_grey == (channels == 1)
        return reader.read_rows(1)[0]


@pytest.mark.parametrize("is_grey", [True, False])
def test_pq_has_reference_white_as_white_and_clips_above(is_grey: bool, tmp_path: Path) -> None:
    light = np.array([0.5, 5.0, 26.0, 100.0, 203.0, 1000.0, 10_000.0])
    codes = np.rint(65535 * pq_signal(light)).astype(np.uint16)
    result = read_16(np.repeat(codes[:, None], 1 if is_grey else 3, 1), made(9, 16, is_grey=is_grey), tmp_path)
    np.testing.assert_allclose(result[:, -1] / 65535, srgb_curve(light / 203), atol=2e-3)
    assert (result[-2:] == 65535).all()


@pytest.mark.parametrize("is_grey", [True, False])
def test_hlg_has_three_quarters_as_white_and_clips_above(is_grey: bool, tmp_path: Path) -> None:
    codes = np.array([[0], [32768], [round(0.75 * 65535)], [60000]], np.uint16)
    result = read_16(np.repeat(codes, 1 if is_grey else 3, 1), made(9, 18, is_grey=is_grey), tmp_path)[:, -1] / 65535
    # Half of the signal is a twelfth of the scene's light, three quarters 0.26496 (BT.2100-2, table 5); gamma 1.2.
    expected = srgb_curve(np.array([0, (1 / 12 / 0.26496) ** 1.2, 1, 1]))
    np.testing.assert_allclose(result, expected, atol=2e-3)


def test_colours_in_pq_come_out_as_their_light_says(tmp_path: Path) -> None:
    light = np.random.default_rng(0).random((300, 3)) * 203
    codes = np.rint(65535 * pq_signal(light)).astype(np.uint16)
    # BT.2020 to BT.709, linear; source: ITU-R BT.2087-0, annex 2.
    matrix = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
    result = read_16(codes, made(9, 16), tmp_path) / 65535
    np.testing.assert_allclose(result, srgb_curve(light / 203 @ matrix.T), atol=2e-3)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_converted_with_a_notice_that_names_it(transfer: int, name: str) -> None:
    plan = plan_colour("rgb", made(9, transfer))
    assert plan.treatment == "convert to sRGB"
    assert plan.through_own
    assert plan.notice == (
        f"HDR ({name}, BT.2020) was converted to sRGB; what is brighter than white was clipped"
    )  # fmt: skip
    grey = plan_colour("grey", made(9, transfer, is_grey=True))
    assert (grey.treatment, grey.through_own) == ("convert to sRGB", True)
    assert grey.notice is not None and grey.notice.startswith("HDR grey was converted to sRGB")


@pytest.mark.parametrize("gamma", [0.45455, 1.0, 1.8, 2.2, 2.6])
def test_a_gamma_profile_decodes_with_its_exponent(gamma: float) -> None:
    icc, grey = gamma_profile(gamma, None, is_grey=False), gamma_profile(gamma, None, is_grey=True)
    assert icc is not None and grey is not None
    codes = np.linspace(0, 65535, 33).round().astype(np.uint16)
    expected = srgb_curve((codes / 65535) ** gamma)
    for profile, channels in ((icc, 3), (grey, 1)):
        result = to_srgb_16(np.repeat(codes[:, None], channels, 1), profile)
        np.testing.assert_allclose(result[:, 1] / 65535, expected, atol=2e-3)


def test_primaries_of_a_gamma_profile_are_those_given() -> None:
    icc = gamma_profile(2.19921875, ADOBE, is_grey=False)
    assert icc is not None
    profile: Any = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile
    # Source: Adobe RGB (1998) Color Image Encoding, 4.3.5.1, the values of the ICC profile.
    np.testing.assert_allclose(profile.red_colorant[0], (0.60974, 0.31111, 0.01947), atol=5e-4)
    np.testing.assert_allclose(profile.green_colorant[0], (0.20528, 0.62567, 0.06087), atol=5e-4)
    np.testing.assert_allclose(profile.blue_colorant[0], (0.14919, 0.06322, 0.74457), atol=5e-4)


@pytest.mark.parametrize(
    "chromaticities",
    [
        (0.0,) * 8,
        (0.3127, 0.3290),
        (0.3127, 0.0, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
        (0.3127, 0.3290, 0.64, 0.33, 0.64, 0.33, 0.15, 0.06),
        (0.3127, 0.3290, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3),
        (21474.0,) * 8,
        (float("nan"),) * 8,
    ],
)
def test_numbers_that_are_no_colours_make_no_profile(chromaticities: tuple[float, ...]) -> None:
    assert gamma_profile(2.2, chromaticities, is_grey=False) is None


@pytest.mark.parametrize("gamma", [0.0, -1.0, 1e9, float("nan"), float("inf")])
def test_impossible_exponents_make_no_profile(gamma: float) -> None:
    assert gamma_profile(gamma, None, is_grey=True) is None
