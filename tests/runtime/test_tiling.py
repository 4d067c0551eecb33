"""Checks how images are cut: as the network needs, as requested, and as the memory allows."""

from dataclasses import replace
from typing import Any

import pytest

from realesr.engine import Engine, EngineSpec, NearestEngine
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.facts import ModelFacts
from realesr.models.rrdb import RRDB
from realesr.options import NetworkOptions
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.tiled import plan_for
from realesr.runtime.tiling import tiling_for
from tests.engines.priced_engines import GpuEngine, priced_engine


@pytest.mark.parametrize(
    ("radius", "multiple", "asked", "overlap", "blend"),
    [
        (18, 1, {}, 18, False),
        (34, 1, {}, 34, False),
        (349, 1, {}, 32, True),
        (697, 2, {}, 64, True),
        (94, 1, {"exact": True}, 94, False),
        (349, 1, {"exact": True}, 128, True),
        (697, 2, {"exact": True}, 256, True),
        (None, 1, {}, 32, True),
        (18, 1, {"overlap_px": 4}, 4, True),
        (18, 1, {"overlap_px": 40}, 40, False),
    ],
)
def test_overlap_follows_the_network(
    radius: int | None, multiple: int, asked: dict[str, Any], overlap: int, blend: bool
) -> None:
    facts = ModelFacts(name="n", scale=4, radius_px=radius, multiple_of=multiple, architecture=None)
    tiling = tiling_for(facts, NetworkOptions(tile_px=100, **asked), NearestEngine())
    assert (tiling.tile_px, tiling.overlap_px, tiling.blend) == (100, overlap, blend)


SPEC = NearestEngine().spec


@pytest.mark.parametrize(
    ("architecture", "asked", "spec", "tuned_tile_px", "is_whole"),
    [
        (RRDB(scale=4), {}, SPEC, None, True),
        (RRDB(scale=4), {"exact": True}, SPEC, None, True),
        (Compact(scale=4), {}, SPEC, None, False),
        (None, {}, SPEC, None, False),
        (RRDB(scale=4), {"tile_px": 100}, SPEC, None, False),
        (RRDB(scale=4), {"overlap_px": 10}, SPEC, None, False),
        (RRDB(scale=4), {"device": "cuda:0,1"}, SPEC, None, False),
        (RRDB(scale=4), {}, replace(SPEC, device="cuda:0"), None, False),
        (RRDB(scale=4), {}, replace(SPEC, first_rows_px=3), None, False),
        (RRDB(scale=4), {}, SPEC, 128, False),
    ],
)
def test_images_are_not_cut_where_nothing_speaks_for_tiles(
    architecture: Architecture | None,
    asked: dict[str, Any],
    spec: EngineSpec,
    tuned_tile_px: int | None,
    is_whole: bool,
) -> None:
    facts = ModelFacts(name="n", scale=4, radius_px=349, multiple_of=1, architecture=architecture)
    engine = NearestEngine()
    engine.spec = spec
    tiling = tiling_for(facts, NetworkOptions(**asked), engine, tuned_tile_px=tuned_tile_px)
    assert (tiling.max_untiled_area_px > 1_000_000) == is_whole
    assert (tiling.max_untiled_area_px == 0) != is_whole


@pytest.mark.parametrize(
    ("gpu_gb", "joins_tiles", "most"),
    [(16, True, 1.15), (16, False, 1.15), (80, True, 1.15), (8, True, 1.3), (None, False, 1.7)],
)
def test_pixels_computed_for_each_pixel_of_a_photo_of_12_mp(gpu_gb: int | None, joins_tiles: bool, most: float) -> None:
    facts = ModelFacts(name="n", scale=4, radius_px=349, multiple_of=1, architecture=RRDB(scale=4))
    engine: Engine = priced_engine("onnxruntime", RRDB(scale=4))
    if gpu_gb is not None:
        engine = GpuEngine("fp16", gpu_gb * 10**9, joins_tiles=joins_tiles)
    tiling = tiling_for(facts, NetworkOptions(), engine)
    plan = plan_for(EnginePool(engine, tiling=tiling), 3000, 4000)
    height, width = plan.tile_shape
    assert most - 0.15 < len(plan) * height * width / (3000 * 4000) <= most
