import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import realesr
from realesr.errors import LargeEnough, UsageError
from realesr.options import ImageOptions
from realesr.target_size import LABEL, TargetSize

SIZES: dict[str, dict[str, Any]] = {
    "3840px": {"long_side_px": 3840},
    "2160p": {"short_side_px": 2160},
    "1200w": {"width_px": 1200},
    "800h": {"height_px": 800},
    "1200x800px": {"width_px": 1200, "height_px": 800},
    "24mp": {"megapixels": 24},
    "0.5mp": {"megapixels": 0.5},
    "30x20cm300": {"print_mm": (300, 200)},
    "297x210mm254": {"print_mm": (297, 210), "dpi": 254},
    "8x10in150": {"print_mm": (203.2, 254), "dpi": 150},
}


@pytest.mark.parametrize(
    ("size", "image", "output"),
    [
        ({"long_side_px": 3840}, (800, 600), (3840, 2880)),
        ({"long_side_px": 3840}, (600, 800), (2880, 3840)),
        ({"long_side_px": 1000}, (333, 111), (1000, 333)),
        ({"long_side_px": 15}, (10, 5), (15, 8)),  # 7.5 is rounded up
        ({"long_side_px": 100}, (1000, 1), (100, 1)),
        ({"short_side_px": 2160}, (800, 600), (2880, 2160)),
        ({"short_side_px": 2160}, (600, 800), (2160, 2880)),
        ({"short_side_px": 50}, (20, 20), (50, 50)),
        ({"width_px": 1200}, (800, 600), (1200, 900)),
        ({"width_px": 1200}, (600, 800), (1200, 1600)),
        ({"height_px": 1200}, (800, 600), (1600, 1200)),
        ({"width_px": 1200, "height_px": 1200}, (800, 600), (1200, 900)),
        ({"width_px": 1200, "height_px": 1200}, (600, 800), (900, 1200)),
        ({"width_px": 1920, "height_px": 1080}, (16, 9), (1920, 1080)),
        ({"megapixels": 24}, (600, 400), (6000, 4000)),
        ({"megapixels": 1}, (333, 777), (655, 1528)),
        ({"print_mm": (300, 200)}, (300, 200), (3543, 2362)),
        ({"print_mm": (300, 200)}, (200, 300), (2362, 3543)),
        ({"print_mm": (200, 300)}, (300, 200), (3543, 2362)),
        ({"print_mm": (254, 254), "dpi": 100}, (40, 30), (1000, 750)),
        ({"print_mm": (254, 127), "dpi": 100}, (10, 10), (500, 500)),
    ],
)
def test_the_side_that_is_asked_for_is_met_and_the_ratio_kept(
    size: dict[str, Any], image: tuple[int, int], output: tuple[int, int]
) -> None:
    assert TargetSize(**size).output_px(*image) == output


@given(st.sampled_from(list(SIZES)), st.integers(1, 5000), st.integers(1, 5000))
def test_an_image_of_the_asked_size_has_it(label: str, width: int, height: int) -> None:
    size = TargetSize(**SIZES[label])
    output = size.output_px(width, height)
    assert min(output) >= 1
    assert size.is_met_by(*output, shrink=False)
    if min(output) > 1:
        assert math.isclose(output[0] / output[1], width / height, rel_tol=0.51 * (1 / output[0] + 1 / output[1]))


def test_an_image_that_is_large_enough_stays_unless_it_may_shrink() -> None:
    size = TargetSize(long_side_px=3840)
    assert not size.is_met_by(3839, 2000, shrink=False)
    for width, shrink, is_met in [(3840, False, True), (4000, False, True), (3840, True, True), (4000, True, False)]:
        assert size.is_met_by(width, 2000, shrink=shrink) == is_met


def test_width_and_height_are_met_by_an_image_that_exceeds_one_of_them() -> None:
    """It already does not fit inside: enlarging would not make it fit."""
    size = TargetSize(width_px=1200, height_px=800)
    assert size.is_met_by(1300, 100, shrink=False)
    assert not size.is_met_by(1100, 100, shrink=False)


@pytest.mark.parametrize(
    ("text", "print_mm", "dpi"),
    [
        ("30x20cm@300", (300, 200), 300),
        ("30x20cm", (300, 200), None),
        ("29.7X21cm@150.5", (297, 210), 150.5),
        ("8x10in", (203.2, 254), None),
        (" 297x210MM@72 ", (297, 210), 72),
    ],
)
def test_a_print_is_read_from_text(text: str, print_mm: tuple[float, float], dpi: float | None) -> None:
    size = TargetSize.from_print(text)
    assert size.print_mm == pytest.approx(print_mm)
    assert size.dpi == dpi


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got print , expected two sides"),
        ("30x20", "got print 30x20, expected two sides, mm, cm or in, and perhaps dots per inch"),
        ("30cm", "got print 30cm"),
        ("30x20km@300", "got print 30x20km@300"),
        ("30x20cm@", "got print 30x20cm@"),
        ("-30x20cm", "got print -30x20cm"),
        ("nanx20cm", "got print nanx20cm"),
        ("30,5x20cm", "got print 30,5x20cm"),
        ("0x20cm", "got a print with a side of 0 mm, expected 1 to 100000"),
        ("30x20cm@0", "got a print at 0 dpi, expected 1 to 10000"),
        ("30x20cm@99999", "got a print at 99999 dpi"),
        ("99999999x20cm", "got a print with a side of 1e"),
        ("9999x20cm@10000", "which is 39366142 px wide, expected at most 10000000"),
    ],
)
def test_a_print_that_is_none_says_what_one_looks_like(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TargetSize.from_print(text)
    assert message in str(caught.value)
    assert caught.value.option == "print_mm"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({}, "got no size, expected one of long_side_px"),
        ({"long_side_px": 0}, "got long_side_px 0, expected a whole number from 1 to 10000000"),
        ({"short_side_px": -5}, "got short_side_px -5"),
        ({"width_px": 10**9}, "got width_px 1000000000"),
        ({"height_px": 2.5}, "got height_px 2.5"),
        ({"megapixels": 0}, "got 0 megapixels, expected 0.0001 to 100000"),
        ({"megapixels": math.nan}, "got nan megapixels"),
        ({"megapixels": math.inf}, "got inf megapixels"),
        ({"print_mm": (math.nan, 100)}, "got a print with a side of nan mm"),
        ({"dpi": 300}, "got no size"),
        ({"dpi": 300, "width_px": 5}, "got 300 dpi without a print"),
        ({"long_side_px": 5, "megapixels": 1}, "got long side and megapixels, expected one size"),
        ({"width_px": 5, "height_px": 5, "short_side_px": 5}, "got short side and width and height, expected one size"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(size: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TargetSize(**size)
    assert message in str(caught.value)
    assert "--" not in str(caught.value)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    size = TargetSize(width_px=np.int32(40), height_px=np.uint8(30))  # type: ignore[arg-type]
    assert size.output_px(100_000, 50_000) == (40, 20)
    assert size.label == "40x30px"


@pytest.mark.parametrize("label", SIZES)
def test_names_of_outputs_end_in_the_size(label: str) -> None:
    size = TargetSize(**SIZES[label])
    assert size.label == label
    assert LABEL.fullmatch(label)
    assert ImageOptions(size=size).ending == label
    assert "e" not in size.label


def test_only_a_print_has_a_resolution() -> None:
    assert TargetSize.from_print("30x20cm@254").pixels_per_mm == pytest.approx((10, 10))
    assert TargetSize(width_px=3).pixels_per_mm is None


def test_a_size_takes_the_place_of_a_scale() -> None:
    size = realesr.TargetSize(megapixels=2)
    assert asdict(ImageOptions(size=size, shrink=True))["size"]["megapixels"] == 2
    with pytest.raises(UsageError, match=r"got scale 2 and 2 megapixels: expected one of them"):
        ImageOptions(scale=2, size=size)
    with pytest.raises(UsageError, match="got shrink without a size"):
        ImageOptions(shrink=True)


def test_images_in_memory_come_to_the_size_that_is_asked_for() -> None:
    array = np.zeros((20, 30, 3), np.uint8)
    with realesr.Upscaler(engine="nearest") as upscaler:
        size = TargetSize(long_side_px=100)
        assert upscaler.upscale(array, size=size).shape == (67, 100, 3)
        assert upscaler.upscale(array.astype(np.float32), size=size).shape == (67, 100, 3)
        assert upscaler.upscale(Image.fromarray(array), size=size).size == (100, 67)
        assert upscaler.upscale(array[..., 0], size=TargetSize(height_px=10), shrink=True).shape == (10, 15)
    assert realesr.upscale(array, size=TargetSize(width_px=40), engine="nearest").shape == (27, 40, 3)


def test_an_image_in_memory_that_is_large_enough_is_returned_itself() -> None:
    array, photo = np.zeros((20, 30, 3), np.uint8), Image.new("RGB", (30, 20))
    with realesr.Upscaler(engine="nearest") as upscaler:
        for size in (TargetSize(long_side_px=30), TargetSize(long_side_px=10)):
            assert upscaler.upscale(array, size=size) is array
            assert upscaler.upscale(photo, size=size) is photo
        with pytest.raises(UsageError, match=r"the image is 30 x 20 px, and .* 16\.7 times, expected at most 16"):
            upscaler.upscale(array, size=TargetSize(long_side_px=500))


def test_a_file_that_is_large_enough_is_an_error_of_its_own(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    size = TargetSize(short_side_px=20)
    with realesr.Upscaler(engine="nearest") as upscaler:
        for shrink in (False, True):
            with pytest.raises(LargeEnough, match=r"a\.png is 30 x 20 px, large enough for a short side of 20 px"):
                upscaler.upscale_file(tmp_path / "a.png", image=ImageOptions(size=size, shrink=shrink))
        result = upscaler.upscale_file(tmp_path / "a.png", image=ImageOptions(size=TargetSize(short_side_px=30)))
    assert result.target == tmp_path / "a_30p.png"
    assert (result.output_px, result.passes) == ((45, 30), 1)
    assert len(list(tmp_path.iterdir())) == 2
