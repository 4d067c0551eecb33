"""Strips of every kind of layer through engine torch: the same values as of the whole image."""

from collections.abc import Iterator

import pytest
import torch

from realesr.engines.pytorch.layers import LayerNetwork
from realesr.engines.pytorch.strips import TorchStripRun
from realesr.models.architecture import Architecture
from realesr.runtime.strips import first_rows_px
from tests.engines.pytorch.layered_networks import LAYERED, TWO_STAGES
from tests.models.small_networks import SMALL, small_weights

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads wait for one another far longer than these results take to compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def in_strips(network: LayerNetwork, image: torch.Tensor, heights: list[int]) -> torch.Tensor:
    """Return the result of strips of these heights, the last of which goes on to the end."""
    run = TorchStripRun(network, device=CPU, stream=None, dtype=image.dtype, rows_px=max(heights[1:], default=1))
    parts, top = [], 0
    for height in [*heights, image.shape[2]]:
        if top < image.shape[2]:
            strip = image[:, :, top : top + height].contiguous(memory_format=torch.channels_last)
            top += height
            parts.append(run.advance(strip, is_last=top >= image.shape[2]))
    return torch.cat(parts, 2)


@pytest.mark.parametrize("architecture", [*SMALL, *LAYERED], ids=lambda each: each.title)
@pytest.mark.parametrize("rows", [1, 5])
def test_strips_equal_the_whole_image(architecture: Architecture, rows: int) -> None:
    multiple, first = architecture.multiple_of, first_rows_px(architecture)
    network = LayerNetwork(small_weights(architecture)).double()
    generator = torch.Generator().manual_seed(rows)
    image = torch.rand((1, 3, first + 6 * multiple, 3 * multiple), generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        whole = network(image)
        for heights in ([first, *[rows * multiple] * 6], [first + multiple], [image.shape[2]]):
            got = in_strips(network, image, heights)
            torch.testing.assert_close(got, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("architecture", [SMALL[0], TWO_STAGES], ids=lambda each: each.title)
def test_an_image_lower_than_the_receptive_radius_is_one_strip(architecture: Architecture) -> None:
    network = LayerNetwork(small_weights(architecture)).double()
    image = torch.rand((1, 3, 1, 5), dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(in_strips(network, image, []), network(image), rtol=0, atol=1e-12)


def test_a_strip_leaves_no_memory_behind_but_its_states() -> None:
    """States are copies: a view would keep all rows of the strip."""
    network = LayerNetwork(small_weights(SMALL[0]))
    run = TorchStripRun(network, device=CPU, stream=None, dtype=torch.float32, rows_px=4)
    with torch.inference_mode():
        run.advance(torch.rand(1, 3, first_rows_px(SMALL[0]) + 20, 6), is_last=False)
    for stage in run._stages:
        for state in stage._states.values():
            assert state.untyped_storage().nbytes() == state.numel() * state.element_size()
