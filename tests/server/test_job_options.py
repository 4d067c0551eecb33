"""The text fields of a request become options, or are refused in words."""

import pytest

from realesr.errors import UsageError
from realesr.server.job_options import FIELDS, JobOptions
from realesr.target_size import TargetSize


def test_no_field_is_the_default() -> None:
    assert JobOptions.from_fields({}) == JobOptions()
    assert JobOptions.from_fields(dict.fromkeys(FIELDS, " ")) == JobOptions()


def test_fields_become_options() -> None:
    fields = {"model": "realesr-general-x4v3", "scale": "2.5", "strength": ".5", "format": "JPEG", "quality": "90"}
    assert JobOptions.from_fields(fields) == JobOptions(
        model="realesr-general-x4v3", scale=2.5, strength=0.5, format="jpeg", quality=90
    )


def test_a_quotient_is_taken_with_all_its_digits() -> None:
    assert JobOptions.from_fields({"scale": str(10 / 3)}).scale == 10 / 3


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"long_side": "3840"}, TargetSize(long_side_px=3840)),
        ({"short_side": "2160"}, TargetSize(short_side_px=2160)),
        ({"width": "800", "height": "600"}, TargetSize(width_px=800, height_px=600)),
        ({"height": "600"}, TargetSize(height_px=600)),
        ({"megapixels": "24.5"}, TargetSize(megapixels=24.5)),
    ],
)
def test_a_size_is_one_of_the_command_lines(fields: dict[str, str], size: TargetSize) -> None:
    assert JobOptions.from_fields(fields).size == size


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "a/b"},
        {"model": "../weights.pth"},
        {"model": "/etc/passwd"},
        {"model": ".hidden"},
        {"model": "a\\b"},
        {"model": "a\0b"},
        {"model": "https://example.org/net.pth"},
        {"model": "x" * 101},
        {"scale": "0.5"},
        {"scale": "17"},
        {"scale": "nan"},
        {"scale": "inf"},
        {"scale": "1e1"},
        {"scale": "1_0"},
        {"scale": "two"},
        {"scale": "\u0664"},
        {"scale": "2", "long_side": "3840"},
        {"long_side": "0"},
        {"long_side": "12.5"},
        {"long_side": "9" * 5000},
        {"long_side": "3840", "width": "100"},
        {"megapixels": "-1"},
        {"strength": "1.1"},
        {"format": "gif"},
        {"format": "../png"},
        {"quality": "0"},
        {"quality": "101"},
        {"quality": "90", "format": "png"},
        {"target": "/tmp/x"},
        {"overwrite": "1"},
    ],
)
def test_what_makes_no_sense_is_refused_in_one_short_line(fields: dict[str, str]) -> None:
    with pytest.raises(UsageError) as error:
        JobOptions.from_fields(fields)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "options",
    [
        JobOptions(),
        JobOptions(model="net", scale=3.0, strength=0.25, format="webp", quality=80),
        JobOptions(size=TargetSize(width_px=800, height_px=600)),
        JobOptions(size=TargetSize(megapixels=1.5), format="png"),
    ],
)
def test_options_come_back_from_json(options: JobOptions) -> None:
    assert JobOptions.from_json(options.to_json()) == options
