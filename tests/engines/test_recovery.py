"""The tiled runtime over every engine: out of memory costs no pixel, and a tile that is not finite is done again."""

from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
from numpy.typing import NDArray

from realesr.engine import Engine, NearestEngine
from realesr.errors import OutOfMemory
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.rows import Band
from realesr.runtime.tiled import enlarge_bands, plan_for
from realesr.runtime.tiling import Tiling
from tests.engines.test_contract import ENGINES, GPU_ENGINES, ON_GPUS
from tests.runtime.fakes import FaultyEngine

OVERLAP_PX = 40
"""Wider than the receptive radius of every network here, so that tiles and parts of them change nothing."""


@pytest.fixture(params=[*ENGINES, *ON_GPUS], scope="module")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with (ENGINES | GPU_ENGINES)[request.param](tmp_path_factory.mktemp("engine")) as engine:
        yield engine


def photo(height: int, width: int) -> Band:
    return np.random.default_rng(0).random((3, height, width), np.float32)


def enlarged(image: Band, network: EnginePool) -> Band:
    return np.concatenate(
        list(enlarge_bands([image], network, height_px=image.shape[1], width_px=image.shape[2])), axis=1
    )


def network(engine: Engine, open_fp32: Callable[[str], Engine] | None = None, tile_px: int = 40) -> EnginePool:
    return EnginePool(engine, tiling=Tiling(tile_px=tile_px, overlap_px=OVERLAP_PX, blend=False), open_fp32=open_fp32)


def tolerance(engine: Engine) -> float:
    """What sums in another order, as another shape of tiles brings them, may change."""
    return {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-1}[engine.spec.precision]


def full_from(start: int) -> Callable[[int, NDArray[np.float32]], OutOfMemory | None]:
    """A device on which no larger tile than 64 x 64 px fits, from one call on."""

    def fault(call: int, batch: NDArray[np.float32]) -> OutOfMemory | None:
        too_large = batch.shape[2] * batch.shape[3] > 64 * 64
        return OutOfMemory("full") if call >= start and too_large else None

    return fault


def test_out_of_memory_in_any_row_of_tiles_costs_no_pixel(engine: Engine) -> None:
    image = photo(120, 64)
    expected = enlarged(image, network(engine, tile_px=1000))
    rows = len(plan_for(network(engine), 120, 64).rows.tiles)
    for start in (0, rows // 2, rows - 1):
        faulty = network(FaultyEngine(engine, full_from(start), precision=engine.spec.precision))
        np.testing.assert_allclose(enlarged(image, faulty), expected, atol=tolerance(engine), err_msg=f"row {start}")
        assert faulty.notices, "the fault was never met"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_tile_that_is_not_finite_is_done_again_in_float32(engine: Engine, value: float) -> None:
    """The engine gives one tile with a value that is no number; the float32 engine's tile stands in its place."""
    image = photo(150, 24)

    def fault(call: int, batch: NDArray[np.float32]) -> NDArray[np.float32] | None:
        if call != 1:
            return None
        output = engine.run(batch)
        output[0, 2, 0, 0] = value
        return output

    scale, opened = engine.spec.scale, []

    def open_fp32(device: str) -> Engine:
        opened.append(device)
        return NearestEngine(scale, size=engine.spec.size, max_batch=engine.spec.max_batch)

    faulty = FaultyEngine(engine, fault, precision="fp16")
    with closing(network(faulty, open_fp32)) as net:
        plan = plan_for(net, 150, 24)
        result = enlarged(image, net)
        row = plan.rows.tiles[1]
    assert opened == [engine.spec.device], "the tile must be done again where it was done first"
    assert np.isfinite(result).all()
    top, bottom = max(row.first, 1), min(row.last, 150)
    repeated = image[:, top:bottom].repeat(scale, 1).repeat(scale, 2)
    np.testing.assert_array_equal(result[:, top * scale : bottom * scale], repeated)
    assert net.notices == ["values were not finite in fp16: such tiles were done again in fp32"]
