"""Every kind of layer in engine winograd: whole images, strips and portions, against the plain computation."""

import platform

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realesr.engines import open_chosen_engine, open_engine
from realesr.engines.choice import MEASURED_PROCESSORS
from realesr.engines.winograd import engine as winograd_engine
from realesr.engines.winograd import kernel as winograd_kernel
from realesr.engines.winograd import network as winograd_network
from realesr.engines.winograd.engine import WinogradEngine, open_winograd
from realesr.errors import EngineError
from realesr.models.architecture import Architecture
from realesr.models.layers import Convolution
from realesr.models.reference import reference_answer
from realesr.models.rrdb import RRDB
from realesr.models.weights import Weights
from realesr.networks import build_with
from tests.engines.winograd.artificial import ARTIFICIAL, SPAN_LIKE, Artificial, conv
from tests.models.small_networks import SMALL, small_state

if not winograd_kernel.is_usable():
    pytest.skip("winograd.c was not compiled here, or not for this processor", allow_module_level=True)

TOLERANCE = 5e-5
"""Of values up to 10: a few roundings of float32, each of which the transforms enlarge."""

EVERY: list[Architecture] = [*ARTIFICIAL, *SMALL]


def weights_of(architecture: Architecture) -> Weights:
    return Weights("artificial", architecture, small_state(architecture), "0" * 64)


def opened(architecture: Architecture, threads: int = 2) -> WinogradEngine:
    return open_winograd(weights_of(architecture), threads=threads)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 3, height, width), dtype=np.float32)


def expected(architecture: Architecture, batch: np.ndarray) -> np.ndarray:
    result = reference_answer(architecture, weights_of(architecture).state, batch[0])[None]
    assert batch.size < 200 or np.ptp(result) > 0.1, "a flat output proves nothing"
    return result


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("architecture", EVERY, ids=str)
def test_whole_images_are_what_their_layers_say(architecture: Architecture, threads: int) -> None:
    batch = picture(24, 36)
    with opened(architecture, threads) as engine:
        np.testing.assert_allclose(engine.run(batch), expected(architecture, batch), atol=TOLERANCE)


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_the_torch_modules_give_the_same(architecture: Architecture) -> None:
    weights, batch = weights_of(architecture), picture(20, 28)
    with torch.inference_mode(), opened(architecture) as engine:
        of_module = build_with(weights).eval()(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(engine.run(batch), of_module, atol=TOLERANCE)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 12), architecture=st.sampled_from(ARTIFICIAL))
def test_small_images_are_what_their_layers_say(height: int, width: int, architecture: Architecture) -> None:
    multiple = architecture.multiple_of
    batch = picture(height * multiple, width * multiple, seed=height)
    with opened(architecture) as engine:
        np.testing.assert_allclose(engine.run(batch), expected(architecture, batch), atol=TOLERANCE)


def test_all_have_strips_but_one_whose_rows_need_not_be_whole_blocks() -> None:
    (without,) = (one for one in ARTIFICIAL if opened(one).spec.first_rows_px is None)
    assert str(without) == "pixels unshuffled, and again behind a convolution"
    with opened(without) as engine, pytest.raises(EngineError, match=r"no strips .*expected tiles"):
        engine.open_strips(8, 8, rows_px=8)


WITH_STRIPS = [one for one in EVERY if opened(one).spec.first_rows_px is not None]


@settings(max_examples=120, deadline=None)
@given(
    architecture=st.sampled_from(WITH_STRIPS),
    height=st.integers(1, 60),
    width=st.integers(1, 9),
    heights=st.lists(st.integers(1, 30), max_size=6),
)
def test_strips_are_what_the_whole_image_is(
    architecture: Architecture, height: int, width: int, heights: list[int]
) -> None:
    multiple = architecture.multiple_of
    image = picture(height * multiple, width * multiple, seed=height)[0]
    with opened(architecture) as engine:
        strips, parts, top = engine.open_strips(image.shape[2], image.shape[1], rows_px=8), [], 0
        for rows in [*heights, image.shape[1]]:
            if top < image.shape[1]:
                parts.append(strips.push(image[:, top : top + rows]))
                top += rows
        strips.finish()
        got = np.concatenate(parts, axis=1)
        np.testing.assert_allclose(got, engine.run(image[None])[0], atol=TOLERANCE)


@pytest.mark.parametrize("scale", [1, 2, 4])
@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 200), strip=st.integers(1, 70), width=st.integers(1, 9))
def test_strips_with_a_sum_far_behind_are_what_the_whole_image_is(
    scale: int, height: int, strip: int, width: int
) -> None:
    """Of x1 rows of all channels wait for it; of x2 and x4 those of the image, and a convolution is done again."""
    architecture = RRDB(scale=scale, features=48, blocks=2, growth=16)
    height, width = (-(-length // architecture.multiple_of) * architecture.multiple_of for length in (height, width))
    image = picture(height, width, seed=height)[0]
    with opened(architecture) as engine:
        strips = engine.open_strips(width, height, rows_px=strip)
        got = np.concatenate([strips.push(image[:, top : top + strip]) for top in range(0, height, strip)], axis=1)
        np.testing.assert_allclose(got, engine.run(image[None])[0], atol=TOLERANCE)


@pytest.mark.parametrize("architecture", EVERY, ids=str)
@pytest.mark.parametrize("portion_px", [1, 300])
def test_portions_of_the_tail_do_not_show_even_in_the_last_bit(
    monkeypatch: pytest.MonkeyPatch, architecture: Architecture, portion_px: int
) -> None:
    batch = picture(36, 20)
    with opened(architecture) as engine:
        whole = engine.run(batch)
        monkeypatch.setattr(winograd_network, "PORTION_PX", portion_px)
        assert np.array_equal(engine.run(batch), whole)


@pytest.mark.parametrize("architecture", ARTIFICIAL, ids=str)
def test_nothing_is_left_of_an_image_before(architecture: Architecture) -> None:
    """After one that is no picture, and whose tiles cover as much."""
    with opened(architecture) as used, opened(architecture) as fresh:
        for height, width in ((12, 8), (8, 12), (4, 12), (12, 12)):
            used.run(picture(12, 12) * np.float32("nan"))
            assert np.array_equal(used.run(picture(height, width)), fresh.run(picture(height, width)))


def test_the_kernels_exponential_is_right_for_all_values() -> None:
    """Of the whole range: through SiLU and sigmoid of a convolution that only repeats its input."""
    for kind in ("sigmoid", "silu"):
        network = Artificial(kind, (conv("same", "input", 3, 3, kind, kernel=1, groups=3),))
        state = {"same.weight": np.ones((3, 1, 1, 1), np.float32), "same.bias": np.zeros(3, np.float32)}
        values = np.concatenate([np.linspace(-200, 200, 2399), [0]]).astype(np.float32).reshape(1, 3, 20, 40)
        with open_winograd(Weights("same", network, state, "0" * 64)) as engine:
            got = engine.run(values)
        np.testing.assert_allclose(got, reference_answer(network, state, values[0])[None], atol=2e-5, rtol=3e-6)


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (
            conv("first", "input", 3, 12, kernel=5),
            r"the convolution first with a kernel of 5 x 5, expected 3 x 3 or 1 x 1; engines onnxruntime",
        ),
        (
            conv("first", "input", 3, 12, groups=3),
            r"the convolution first in 3 groups, expected one; engines onnxruntime",
        ),
    ],
)
def test_what_the_kernel_cannot_do_is_refused_at_once_and_the_automatic_choice_goes_on(
    monkeypatch: pytest.MonkeyPatch, first: Convolution, words: str
) -> None:
    network = Artificial("refused", (first, conv("image", "first", 12, 3)))
    with pytest.raises(EngineError, match=words):
        open_winograd(weights_of(network))
    if platform.machine() in MEASURED_PROCESSORS:
        chosen = open_chosen_engine(weights_of(network), device="cpu")
        with chosen.engine:
            assert "winograd on cpu did not start" in chosen.chosen_because
    monkeypatch.setattr(winograd_engine, "proven_kernel", lambda: pytest.fail("it is refused before"))
    with pytest.raises(EngineError, match=words):
        open_engine(weights_of(network), engine="winograd")


def test_a_span_needs_no_map_that_is_not_read() -> None:
    """Every convolution but the joined ones takes its activation, sum and gate along: x, c1 and c2 take turns."""
    with opened(SPAN_LIKE) as engine:
        network = engine._network
        assert network is not None
        schedule = network.stages[0].schedule
    convolutions = [layer for layer in SPAN_LIKE.layers if isinstance(layer, Convolution)]
    assert len(schedule.operations) == len(convolutions) + 1
    assert len({place.buffer for place in schedule.places.values()}) <= 8
