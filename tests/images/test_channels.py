"""Which channels of an image are colour and which is alpha."""

from typing import Any

import numpy as np
import pytest
import pyvips

from realesr.images.channels import colour_and_alpha, colour_space


def image_of(channels: int, interpretation: str) -> Any:
    """Make an image whose channel number i holds the value i."""
    pixels = np.broadcast_to(np.arange(channels, dtype=np.uint8), (2, 3, channels))
    return pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation=interpretation)


@pytest.mark.parametrize(
    ("channels", "interpretation", "space", "alpha", "notices"),
    [
        (1, "b-w", "grey", None, []),
        (2, "b-w", "grey", 1, []),
        (3, "srgb", "rgb", None, []),
        (4, "srgb", "rgb", 3, []),
        (5, "srgb", "rgb", 3, ["1 channel beyond colour and alpha dropped"]),
        (6, "srgb", "rgb", 3, ["2 channels beyond colour and alpha dropped"]),
        (4, "cmyk", "cmyk", None, []),
        (5, "cmyk", "cmyk", 4, []),
        (3, "lab", "lab", None, []),
        (4, "lab", "lab", None, ["Lab's alpha channel was dropped"]),
    ],
)
def test_alpha_is_the_first_channel_after_the_colours(
    channels: int, interpretation: str, space: str, alpha: int | None, notices: list[str]
) -> None:
    image = image_of(channels, interpretation)
    found = colour_space(image)
    assert found == space
    colour, opacity, messages = colour_and_alpha(image, found)
    assert colour.numpy().reshape(2, 3, -1)[0, 0].tolist() == list(range(colour.bands))
    assert (None if opacity is None else int(opacity.numpy()[0, 0])) == alpha
    assert messages == notices
