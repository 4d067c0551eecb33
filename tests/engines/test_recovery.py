"""The tiled runtime over every engine: out of memory costs no pixel, and a tile that is not finite is done again."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

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

Open = Callable[[], Engine]


@pytest.fixture(params=[*ENGINES, *ON_GPUS])
def open_one(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a new engine of one kind at each call."""
    return lambda: (ENGINES | GPU_ENGINES)[request.param](tmp_path)


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


@pytest.mark.parametrize("failing_row", ["first", "middle", "last"])
def test_out_of_memory_in_any_row_of_tiles_costs_no_pixel(open_one: Open, failing_row: str) -> None:
    image = photo(176, 64)
    with open_one() as plain, closing(network(plain, tile_px=1000)) as whole:
        expected = enlarged(image, whole)
    inner = open_one()
    rows = len(plan_for(network(inner), 176, 64).rows.tiles)
    start = {"first": 0, "middle": rows // 2, "last": rows - 1}[failing_row]

    def fault(call: int, batch: NDArray[np.float32]) -> OutOfMemory | None:
        too_large = batch.shape[2] * batch.shape[3] > 64 * 64
        return OutOfMemory("full") if call >= start and too_large else None

    with closing(network(inner)) as whole_engine:
        faulty = FaultyEngine(inner, fault, precision=inner.spec.precision)
        faulty_network = network(faulty)
        np.testing.assert_allclose(enlarged(image, faulty_network), expected, atol=tolerance(inner))
        assert faulty_network.notices, "the fault was never met"
        assert whole_engine.spec == inner.spec


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_tile_that_is_not_finite_is_done_again_in_float32(open_one: Open, value: float) -> None:
    """The engine gives one tile with a value that is no number; the float32 engine's tile stands in its place."""
    image = photo(150, 24)
    inner = open_one()

    def fault(call: int, batch: NDArray[np.float32]) -> NDArray[np.float32] | None:
        if call != 1:
            return None
        output = inner.run(batch)
        output[0, 2, 0, 0] = value
        return output

    scale, opened = inner.spec.scale, []

    def open_fp32(device: str) -> Engine:
        opened.append(device)
        return NearestEngine(scale, size=inner.spec.size, max_batch=inner.spec.max_batch)

    faulty = FaultyEngine(inner, fault, precision="fp16")
    with closing(network(faulty, open_fp32)) as net:
        plan = plan_for(net, 150, 24)
        result = enlarged(image, net)
        row = plan.rows.tiles[1]
    inner.close()
    assert opened == [inner.spec.device], "the tile must be done again where it was done first"
    assert np.isfinite(result).all()
    top, bottom = max(row.first, 1), min(row.last, 150)
    repeated = image[:, top:bottom].repeat(scale, 1).repeat(scale, 2)
    np.testing.assert_array_equal(result[:, top * scale : bottom * scale], repeated)
    assert net.notices == ["values were not finite in fp16: such tiles were done again in fp32"]
