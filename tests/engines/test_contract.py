"""What `realesr.engine.Engine` promises, asked of every engine."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from realesr.engine import Engine, NearestEngine, SizeRule
from realesr.engines import ENGINE_NAMES, open_engine
from realesr.errors import BadShape
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.runtime.tta import SelfEnsembleEngine
from tests.engines.small_models import small_model, write_nearest

COMPACT = Compact(scale=4, features=8, convs=2)
RRDB_X4 = RRDB(scale=4, features=8, blocks=1, growth=4)
RRDB_X2 = RRDB(scale=2, features=8, blocks=1, growth=4)

CPU_ENGINES = ("onnxruntime", "openvino", "ncnn", "torch", "winograd")

Open = Callable[[], Engine]


def opened(architecture: Architecture, engine: str, precision: str, device: str = "cpu") -> Engine:
    return open_engine(small_model(architecture), engine=engine, device=device, precision=precision, threads=1)


def opened_torch(architecture: Architecture, precision: str, mode: Literal["eager", "compile", "graphs"]) -> Engine:
    from realesr.engines.pytorch.engine import open_torch

    return open_torch(small_model(architecture), device="cuda", precision=precision, options={"mode": mode})


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "nearest": lambda _: NearestEngine(scale=3),
    "nearest in batches": lambda _: NearestEngine(scale=2, max_batch=3),
    "nearest of multiples": lambda _: NearestEngine(scale=2, size=SizeRule(minimum_px=8, multiple_of=4)),
    "tta": lambda _: SelfEnsembleEngine(NearestEngine(scale=2, max_batch=2)),
    "tta of onnxruntime": lambda _: SelfEnsembleEngine(opened(COMPACT, "onnxruntime", "fp32")),
    "onnxruntime compact": lambda _: opened(COMPACT, "onnxruntime", "fp32"),
    "onnxruntime compact fp16": lambda _: opened(COMPACT, "onnxruntime", "fp16"),
    "onnxruntime rrdb": lambda _: opened(RRDB_X4, "onnxruntime", "fp32"),
    "onnxruntime rrdb x2": lambda _: opened(RRDB_X2, "onnxruntime", "fp32"),
    "onnxruntime file": lambda folder: open_engine(write_nearest(folder / "foreign.onnx"), device="cpu"),
    "onnxruntime file of multiples": lambda folder: open_engine(
        write_nearest(folder / "foreign.onnx", unshuffle=4), device="cpu"
    ),
    "openvino compact": lambda _: opened(COMPACT, "openvino", "fp32"),
    "openvino rrdb": lambda _: opened(RRDB_X4, "openvino", "fp32"),
    "openvino rrdb x2": lambda _: opened(RRDB_X2, "openvino", "fp32"),
    "openvino file": lambda folder: open_engine(write_nearest(folder / "foreign.onnx"), engine="openvino"),
    "ncnn compact": lambda _: opened(COMPACT, "ncnn", "fp32"),
    "ncnn rrdb": lambda _: opened(RRDB_X4, "ncnn", "fp32"),
    "ncnn rrdb x2": lambda _: opened(RRDB_X2, "ncnn", "fp32"),
    "winograd compact": lambda _: opened(COMPACT, "winograd", "fp32"),
    "winograd rrdb": lambda _: opened(RRDB_X4, "winograd", "fp32"),
    "winograd rrdb x2": lambda _: opened(RRDB_X2, "winograd", "fp32"),
    "torch compact": lambda _: opened(COMPACT, "torch", "fp32"),
    "torch compact fp16": lambda _: opened(COMPACT, "torch", "fp16"),
    "torch compact bf16": lambda _: opened(COMPACT, "torch", "bf16"),
    "torch rrdb": lambda _: opened(RRDB_X4, "torch", "fp32"),
    "torch rrdb x2": lambda _: opened(RRDB_X2, "torch", "fp32"),
}


GPU_ENGINES: dict[str, Callable[[Path], Engine]] = {
    "torch compact fp32 on cuda": lambda _: opened(COMPACT, "torch", "fp32", "cuda"),
    "torch compact fp16 on cuda": lambda _: opened(COMPACT, "torch", "fp16", "cuda"),
    "torch rrdb bf16 on cuda": lambda _: opened(RRDB_X4, "torch", "bf16", "cuda"),
    "torch rrdb fp16 as a graph": lambda _: opened_torch(RRDB_X4, "fp16", "graphs"),
    "torch rrdb x2 fp32 as a graph": lambda _: opened_torch(RRDB_X2, "fp32", "graphs"),
    "onnxruntime compact fp32 on cuda": lambda _: opened_onnxruntime_cuda(COMPACT, "fp32"),
    "onnxruntime rrdb fp16 on cuda": lambda _: opened_onnxruntime_cuda(RRDB_X4, "fp16"),
    "onnxruntime rrdb x2 fp32 on cuda": lambda _: opened_onnxruntime_cuda(RRDB_X2, "fp32"),
}


def opened_onnxruntime_cuda(architecture: Architecture, precision: str) -> Engine:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    return opened(architecture, "onnxruntime", precision, "cuda")


ON_GPUS = [pytest.param(name, marks=pytest.mark.cuda) for name in GPU_ENGINES]


@pytest.fixture(params=[*ENGINES, *ON_GPUS], scope="module")
def open_one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Opens a new engine of one kind at each call."""
    folder = tmp_path_factory.mktemp("engine")
    return lambda: (ENGINES | GPU_ENGINES)[request.param](folder)


@pytest.fixture(scope="module")
def engine(open_one: Open) -> Iterator[Engine]:
    """One engine of each kind for all tests: what any of them leaves behind, the others would meet."""
    with open_one() as engine:
        yield engine


def picture(engine: Engine, height: int = 1, width: int = 1, count: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """Random pixels, of `height` x `width` units that the engine takes."""
    rule = engine.spec.size
    unit = -(-rule.minimum_px // rule.multiple_of) * rule.multiple_of
    sides = (height * unit, width * unit)
    return np.random.default_rng(seed).random((count, 3, *sides), dtype=np.float32)


def test_a_watched_run_gives_the_same_and_tells_shares_in_order(engine: Engine) -> None:
    batch = picture(engine, 9, 16)
    shares: list[float] = []
    watched = engine.run(batch, shares.append)
    np.testing.assert_allclose(watched, engine.run(batch), atol=1e-6)
    assert shares == sorted(shares)
    assert all(0 < share <= 1 for share in shares)


def test_what_a_watcher_raises_ends_the_run_and_the_engine_goes_on(engine: Engine) -> None:
    batch = picture(engine, 9, 16)
    before = engine.run(batch)

    def stop(_share: float) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):  # not all engines tell
        engine.run(picture(engine, 9, 16, seed=1), stop)
    np.testing.assert_allclose(engine.run(batch), before, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (5, 3), (8, 8), (9, 16)])
def test_output_has_the_scaled_shape_for_every_size_and_batch(engine: Engine, height: int, width: int) -> None:
    for count in range(1, engine.spec.max_batch + 1):
        batch = picture(engine, height, width, count)
        output = engine.run(batch)
        scale = engine.spec.scale
        assert output.shape == (count, 3, batch.shape[2] * scale, batch.shape[3] * scale)
        assert output.dtype == np.float32
        assert output.flags.c_contiguous
        assert np.isfinite(output).all()


def tolerance(engine: Engine) -> float:
    """A GPU may take another algorithm for another batch, which rounds differently."""
    if engine.spec.device == "cpu":
        return 1e-5
    return {"fp32": 1e-5, "fp16": 5e-3, "bf16": 5e-2}[engine.spec.precision]


def test_each_image_of_a_batch_is_enlarged_as_if_alone(engine: Engine) -> None:
    batch = picture(engine, 5, 4, engine.spec.max_batch)
    together = engine.run(batch)
    for index in range(len(batch)):
        alone = engine.run(np.ascontiguousarray(batch[index : index + 1]))
        np.testing.assert_allclose(together[index], alone[0], atol=tolerance(engine))


def test_the_result_belongs_to_the_caller(open_one: Open) -> None:
    engine = open_one()
    batch = picture(engine, 4, 4)
    first = engine.run(batch)
    kept = first.copy()
    second = engine.run(picture(engine, 4, 4, seed=1))
    assert np.array_equal(first, kept), "a later run changed it"
    first[:] = -1
    assert not np.shares_memory(first, second)
    assert np.array_equal(engine.run(batch), kept), "writing into it changed the engine"
    engine.close()
    assert np.array_equal(first, np.full_like(first, -1)), "closing changed it"


def test_the_input_is_not_changed_and_may_be_read_only(engine: Engine) -> None:
    batch = picture(engine, 4, 4)
    kept = batch.copy()
    batch.flags.writeable = False
    output = engine.run(batch)
    output += 1
    assert np.array_equal(batch, kept)


def test_the_same_input_gives_the_same_output(engine: Engine) -> None:
    batch = picture(engine, 6, 5)
    assert np.array_equal(engine.run(batch), engine.run(batch))


def wrong_batches(engine: Engine) -> dict[str, NDArray[np.float32]]:
    good = picture(engine, 2, 2)
    wrong = {
        "dtype": good.astype(np.float64),
        "bytes": (good * 255).astype(np.uint8),
        "channels": np.zeros((1, 4, 8, 8), np.float32),
        "dimensions": good[0],
        "batch": picture(engine, 2, 2, engine.spec.max_batch + 1),
        "no image": good[:0],
        "no height": good[:, :, :0],
    }
    if engine.spec.size.multiple_of > 1:
        side = good.shape[2]
        wrong["multiple"] = np.zeros((1, 3, side, side + 1), np.float32)
    if engine.spec.size.minimum_px > 1:
        wrong["minimum"] = good[:, :, : engine.spec.size.minimum_px - 1]
    return wrong


def test_a_wrong_batch_is_refused_in_one_line_and_the_engine_goes_on(engine: Engine) -> None:
    good = picture(engine, 2, 2)
    before = engine.run(good)
    for name, batch in wrong_batches(engine).items():
        with pytest.raises(BadShape, match=r"^engine \w+ got .*expected") as caught:
            engine.run(batch)
        assert "\n" not in str(caught.value), name
    assert np.array_equal(engine.run(good), before)


def test_closing_twice_is_allowed(open_one: Open) -> None:
    engine = open_one()
    engine.close()
    engine.close()
    with open_one() as another:
        another.run(picture(another))
        another.close()


def test_two_engines_of_one_kind_do_not_disturb_each_other(open_one: Open) -> None:
    with open_one() as first, open_one() as second:
        batch = picture(first, 4, 4)
        expected = first.run(batch)
        assert np.array_equal(second.run(batch), expected)
        first.close()
        assert np.array_equal(second.run(batch), expected)


def test_the_spec_makes_sense_and_stays(engine: Engine) -> None:
    spec = engine.spec
    assert spec.name in ENGINE_NAMES
    assert spec.scale >= 1
    assert spec.precision in ("fp32", "fp16", "bf16")
    assert spec.device in ("cpu", "cuda:0")
    assert spec.max_batch >= 1
    assert spec.size.minimum_px % spec.size.multiple_of == 0
    engine.run(picture(engine))
    assert engine.spec == spec


@pytest.mark.parametrize("architecture", [COMPACT, RRDB_X4, RRDB_X2, Compact(scale=2, features=8, activation="relu")])
@pytest.mark.parametrize("other", CPU_ENGINES[1:])
def test_engines_agree(architecture: Architecture, other: str) -> None:
    batch = np.random.default_rng(3).random((1, 3, 12, 20), dtype=np.float32)
    outputs = [opened(architecture, name, "fp32").run(batch) for name in (CPU_ENGINES[0], other)]
    assert np.ptp(outputs[0]) > 0.1, "a flat output proves nothing"
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-4)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.01), ("bf16", 0.1)])
def test_lower_precisions_of_torch_are_near_but_not_the_same(precision: str, tolerance: float) -> None:
    batch = np.random.default_rng(4).random((1, 3, 16, 16), dtype=np.float32)
    exact = opened(COMPACT, "torch", "fp32").run(batch)
    coarse = opened(COMPACT, "torch", precision).run(batch)
    assert not np.array_equal(exact, coarse)
    np.testing.assert_allclose(coarse, exact, atol=tolerance)


@pytest.mark.weights
@pytest.mark.parametrize("name", ["realesr-animevideov3", "realesrgan-x4plus"])
def test_engines_agree_on_the_official_weights(name: str) -> None:
    from realesr.models.zoo import load_model

    weights = load_model(name)
    side = 16 if name == "realesrgan-x4plus" else 32
    ramp = np.linspace(0, 1, side, dtype=np.float32)
    noise = np.random.default_rng(5).random((1, 3, side, side), dtype=np.float32)
    batch = ((ramp[None, None, :, None] + ramp + noise) / 3).astype(np.float32)
    outputs = [open_engine(weights, engine=engine, precision="fp32", threads=1).run(batch) for engine in CPU_ENGINES]
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], atol=1e-4)
