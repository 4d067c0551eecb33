"""ONNX files of every form that an export can have, run by the engine and by the tiled runtime."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from PIL import Image

from realesr.api import Upscaler
from realesr.engine import NearestEngine, SizeRule
from realesr.engines import model_facts, open_engine
from realesr.errors import BadShape, ModelError, NotFinite, OutOfMemory, UsageError
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.graph_options import GraphOptions
from realesr.models.onnx_graph import graph_bytes
from realesr.models.rrdb import RRDB
from realesr.models.weights import Weights
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.tiled import enlarge_bands
from realesr.runtime.tiling import Tiling
from tests.engines.small_models import small_model, write_nearest
from tests.runtime.fakes import FaultyEngine

COMPACT = Compact(scale=2, features=8, convs=1)
UNSHUFFLED = RRDB(scale=2, features=8, blocks=1, growth=4)


def exported(folder: Path, architecture: Architecture = COMPACT, **options: object) -> Path:
    path = folder / "exported.onnx"
    path.write_bytes(graph_bytes(small_model(architecture), GraphOptions(**options)))  # type: ignore[arg-type]
    return path


def picture(height: int, width: int, count: int = 1) -> NDArray[np.float32]:
    levels = np.random.default_rng(0).integers(0, 256, (count, 3, height, width))
    return (levels / 255).astype(np.float32)


def test_a_file_of_half_precision_says_so_and_takes_no_other(tmp_path: Path) -> None:
    path = exported(tmp_path, precision="fp16")
    with open_engine(path) as engine, open_engine(path, precision="fp16") as asked:
        assert (engine.spec.precision, asked.spec.precision) == ("fp16", "fp16")
    with pytest.raises(UsageError, match=r"got precision fp32 for exported\.onnx, which has its own, fp16"):
        open_engine(path, precision="fp32")


def test_an_image_of_16_bits_goes_through_a_file_of_half_precision(tmp_path: Path) -> None:
    with Upscaler(exported(tmp_path, precision="fp16")) as upscaler:
        assert upscaler.upscale(np.full((9, 7, 3), 40_000, np.uint16)).shape == (18, 14, 3)


def test_values_that_are_not_finite_in_a_file_of_half_precision_are_an_error(tmp_path: Path) -> None:
    weights = small_model(COMPACT)
    weights.state["body.0.weight"] *= 1e6
    path = tmp_path / "coarse.onnx"
    path.write_bytes(graph_bytes(weights, GraphOptions(precision="fp16")))
    with Upscaler(path) as upscaler, pytest.raises(NotFinite, match="no picture even in fp16"):
        upscaler.upscale(np.full((8, 8, 3), 99, np.uint8))


def test_a_file_of_integers_gives_what_the_same_network_of_floats_gives(tmp_path: Path) -> None:
    batch = picture(9, 14, count=3)
    with (
        open_engine(exported(tmp_path, uint8=True)) as engine,
        open_engine(small_model(COMPACT), engine="onnxruntime") as floats,
    ):
        assert (engine.spec.io_dtype, floats.spec.io_dtype) == ("uint8", "float32")
        assert engine.spec.scale == 2
        got, expected = engine.run(batch), floats.run(batch).clip(0, 1)
    assert got.dtype == np.float32
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(got, expected, atol=0.51 / 255)


def test_a_foreign_file_of_integers_is_tried_in_integers(tmp_path: Path) -> None:
    path = write_nearest(tmp_path / "x.onnx", dtype=TensorProto.UINT8, scale=3)
    assert model_facts(path).scale == 3
    batch = picture(4, 5)
    with open_engine(path) as engine:
        np.testing.assert_allclose(engine.run(batch), batch.repeat(3, 2).repeat(3, 3), atol=1e-6)


def test_a_notice_says_that_integers_lose_levels_of_16_bits(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 30_000, np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / "plain.png")
    with Upscaler(exported(tmp_path, uint8=True)) as upscaler:
        deep, plain = (upscaler.upscale_file(tmp_path / name) for name in ("deep.png", "plain.png"))
    assert "the image has 16 bits and this network takes 8: finer levels are lost" in " ".join(deep.notices)
    assert plain.notices == ()


def test_an_array_of_16_bits_is_not_put_through_integers(tmp_path: Path) -> None:
    with Upscaler(exported(tmp_path, uint8=True)) as upscaler:
        with pytest.raises(UsageError, match=r"got uint16 values and a network of 8 bits"):
            upscaler.upscale(np.zeros((8, 8, 3), np.uint16))
        assert upscaler.upscale(np.zeros((8, 8, 3), np.uint8)).shape == (16, 16, 3)


@pytest.mark.parametrize("architecture", [COMPACT, UNSHUFFLED], ids=str)
def test_a_file_of_a_fixed_shape_takes_that_shape_only_and_fills_its_batch(
    tmp_path: Path, architecture: Architecture
) -> None:
    path = exported(tmp_path, architecture, shape_nhw=(3, 8, 12))
    with open_engine(path) as engine, open_engine(small_model(architecture), engine="onnxruntime") as whole:
        assert engine.spec.size.fixed_px == (8, 12)
        assert (engine.spec.max_batch, engine.spec.best_batch) == (3, 3)
        for count in (1, 2, 3):
            batch = picture(8, 12, count)
            np.testing.assert_allclose(engine.run(batch), whole.run(batch), atol=1e-5)
        with pytest.raises(BadShape, match="got 8 x 12 px, expected 12 x 8 px: this network takes nothing else"):
            engine.run(picture(12, 8))


def test_a_foreign_file_of_a_fixed_shape_is_tried_in_that_shape(tmp_path: Path) -> None:
    path = write_nearest(tmp_path / "x.onnx", shape=(1, 3, 6, 10), scale=3)
    assert model_facts(path).scale == 3
    with open_engine(path) as engine:
        assert engine.spec.size == SizeRule(fixed_px=(6, 10))


@pytest.mark.parametrize(("height", "width"), [(16, 24), (40, 24), (41, 57), (100, 61), (9, 60), (3, 2)])
def test_images_of_any_size_go_through_a_file_of_a_fixed_shape(tmp_path: Path, height: int, width: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)
    with (
        Upscaler(exported(tmp_path, shape_nhw=(2, 16, 24))) as fixed,
        Upscaler(exported(tmp_path)) as whole,
    ):
        got, expected = fixed.upscale(image), whole.upscale(image)
    assert got.shape == expected.shape
    # Beyond an image that is smaller than the shape, its border is repeated: up to 3 px inside, the result differs.
    inner = np.s_[: height * 2 - 6 * (height < 16), : width * 2 - 6 * (width < 24)]
    np.testing.assert_allclose(got[inner].astype(int), expected[inner].astype(int), atol=1)


def test_a_fixed_shape_of_multiples_of_two_keeps_to_them(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (37, 43, 3)).astype(np.uint8)
    with Upscaler(exported(tmp_path, UNSHUFFLED, shape_nhw=(1, 16, 18))) as fixed:
        assert fixed.upscale(image).shape == (74, 86, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"tile_px": 64},
            r"exported.onnx takes only tiles of 24 x 16 px .* and a tile of 64 px, expected a tile of 10 px, or none",
        ),
        ({"overlap_px": 8}, "got an overlap of 8 px, expected a smaller one, or a network that takes all sizes"),
        ({"tta": True}, "the mean over flips and transposes turns tiles, but the network takes only 24 x 16 px"),
    ],
)
def test_what_does_not_fit_a_fixed_shape_is_one_line(tmp_path: Path, options: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Upscaler(exported(tmp_path, shape_nhw=(1, 16, 24)), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_the_tile_that_a_fixed_shape_gives_may_be_asked_for(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    path = exported(tmp_path, shape_nhw=(1, 40, 40))
    with Upscaler(path) as fixed, Upscaler(path, tile_px=34, overlap_px=3) as asked:
        assert np.array_equal(fixed.upscale(image), asked.upscale(image))


def test_no_memory_for_a_fixed_shape_is_an_error_that_says_so() -> None:
    inner = NearestEngine(size=SizeRule(fixed_px=(40, 40)))
    network = EnginePool(
        FaultyEngine(inner, lambda *_: OutOfMemory("full")), tiling=Tiling(tile_px=40, overlap_px=4, blend=False)
    )
    with pytest.raises(OutOfMemory, match="tile of 40 x 40 px, and this network takes no other"):
        list(enlarge_bands([np.zeros((3, 40, 40), np.float32)], network, height_px=40, width_px=40))


@pytest.mark.parametrize("size", [0, 10, 300])
def test_a_truncated_file_is_one_line(tmp_path: Path, size: int) -> None:
    path = exported(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"exported\.onnx cannot be opened as an ONNX network") as caught:
        Upscaler(path)
    assert "\n" not in str(caught.value)


def test_a_zero_network_through_integers_repeats_pixels_to_the_last_level(tmp_path: Path) -> None:
    state = {key: np.zeros(shape, np.float32) for key, shape in COMPACT.shapes.items()}
    path = tmp_path / "zero.onnx"
    path.write_bytes(graph_bytes(Weights("zero", COMPACT, state, ""), GraphOptions(uint8=True, shape_nhw=(1, 20, 20))))
    image = np.arange(256 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)
    with Upscaler(path) as upscaler:
        assert np.array_equal(upscaler.upscale(image), image.repeat(2, 0).repeat(2, 1))
    assert onnx.load(path).graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
