"""What benchmarks/gpu_tiles.py works out; its figures need a GPU and are no test's business."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realesr.architectures import RRDB, Compact
from realesr.engines.torch_engine import open_torch
from tests.engines.small_models import small_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu_tiles(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_tiles")


def test_least_traffic_counts_each_convolution_on_its_own_grid(gpu_tiles: Any) -> None:
    compact = small_model(Compact(scale=4, features=8, convs=2))
    channels = (3 + 8) + 2 * (8 + 8) + (8 + 48)
    assert gpu_tiles.least_bytes_per_px(compact) == 2 * channels
    rrdb = small_model(RRDB(scale=4, features=8, blocks=1, growth=4))
    dense = sum(8 + 4 * i + 4 for i in range(4)) + (8 + 4 * 4 + 8)
    channels = (3 + 8) + 3 * dense + 16 + 4 * 16 + 16 * 16 + 16 * 16 + 16 * (8 + 3)
    assert gpu_tiles.least_bytes_per_px(rrdb) == 2 * channels


def test_rows_are_compared_with_the_peers_way_of_the_same_tile(gpu_tiles: Any) -> None:
    def one(way: str, tile_px: int, speed: float | None) -> dict[str, Any]:
        head = {"model": "m", "tile_px": tile_px, "batch": 1, "way": way}
        return {**head, "failed": "no"} if speed is None else {**head, "input_mp_s": speed}

    rows = [
        one(gpu_tiles.PEERS, 256, 2.0),
        one("fast", 256, 5.0),
        one("broken", 256, None),
        one("fast", 512, 5.0),
        one(gpu_tiles.PEERS, 128, None),
        one("fast", 128, 5.0),
    ]
    assert [row["times_peers"] for row in gpu_tiles.with_ratios(rows)] == [1.0, 2.5, None, None, None, None]


def test_the_peers_way_computes_the_same_network(gpu_tiles: Any) -> None:
    weights = small_model(Compact(scale=2, features=8, convs=1))
    batch = np.random.default_rng(0).random((2, 3, 9, 8), dtype=np.float32)
    with gpu_tiles.PeersEngine(weights, "cpu") as peers, open_torch(weights, device="cpu") as exact:
        np.testing.assert_allclose(peers.run(batch), exact.run(batch), atol=0.02)


def test_a_row_that_fails_says_why_and_the_others_go_on(gpu_tiles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_a_process(name: str, *values: Any) -> dict[str, Any]:
        if name == "limits":
            return {"fp16_tflop_s": 1.0, "copy_gb_s": 1.0}
        return {"failed": "no TensorRT"} if values[3] == "tensorrt" else {"input_mp_s": 3.0}

    monkeypatch.setattr(gpu_tiles, "in_a_process", in_a_process)
    _, rows = gpu_tiles.measured("cuda", 1, [("realesr-animevideov3", 32, 1)])
    assert [row["way"] for row in rows] == list(gpu_tiles.WAYS)
    assert [row["way"] for row in rows if "failed" in row] == ["tensorrt"]
    assert {row["times_peers"] for row in rows} == {1.0, None}
