from dataclasses import asdict
from typing import Any

import pytest

from realesr.errors import UsageError
from realesr.options import FileOptions, ImageOptions, NetworkOptions


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        (NetworkOptions, {"denoise": 1.5}, "denoise 1.5, expected a number from 0 to 1"),
        (NetworkOptions, {"precision": "int8"}, "precision int8"),
        (NetworkOptions, {"threads": 0}, "threads 0"),
        (NetworkOptions, {"tile_px": 8}, "tile_px 8, expected at least 16 px"),
        (NetworkOptions, {"overlap_px": -1}, "overlap_px -1"),
        (NetworkOptions, {"overlap_px": 8, "exact": True}, "got exact and overlap_px 8"),
        (NetworkOptions, {"options": {"streams": 2}}, "got the option streams=2 of type int, expected text"),
        (NetworkOptions, {"options": {2: "streams"}}, "got the option 2=streams"),
        (ImageOptions, {"scale": 0.9}, "scale 0.9, expected a number from 1 to 16"),
        (ImageOptions, {"scale": float("nan")}, "scale nan"),
        (ImageOptions, {"alpha": "bicubic"}, "alpha bicubic"),
        (FileOptions, {"quality": 101}, "quality 101, expected 1 to 100"),
        (FileOptions, {"page": -1}, "page -1"),
        (FileOptions, {"max_pixels": 0}, "max_pixels 0"),
    ],
)
def test_values_out_of_range_say_what_is_in_range(options: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        options(**values)
    assert caught.value.option in values
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", ("auto",)),
        ("cpu", ("cpu",)),
        ("CUDA", ("cuda",)),
        ("cuda:0,1", ("cuda:0", "cuda:1")),
        ("cuda:1, 0", ("cuda:1", "cuda:0")),
        ("cuda:0,cuda:2", ("cuda:0", "cuda:2")),
        ("cuda:0,1,webgpu", ("cuda:0", "cuda:1", "webgpu")),
    ],
)
def test_lists_of_devices(text: str, expected: tuple[str, ...]) -> None:
    assert NetworkOptions(device=text).devices == expected


@pytest.mark.parametrize("text", ["", ",", "cuda:0,", "0,1", "1", "cuda:0,,1", "auto,cpu", "cuda:0,auto"])
def test_a_bad_list_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="expected one name, or several like cuda:0,1"):
        NetworkOptions(device=text)


def test_a_device_named_twice_is_an_error() -> None:
    with pytest.raises(UsageError, match="which has cuda:0 twice"):
        NetworkOptions(device="cuda:0,0")


def test_options_of_the_engine_survive_being_taken_apart() -> None:
    assert NetworkOptions().options == {}
    options = NetworkOptions(engine="torch", options={"mode": "graphs"})
    again = NetworkOptions(**asdict(options))
    assert again == options
    assert again.options == {"mode": "graphs"}
    assert hash(again) == hash(options)
    assert again != NetworkOptions(engine="torch")
