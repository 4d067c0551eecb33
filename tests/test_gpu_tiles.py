"""What benchmarks/gpu_tiles.py works out, and all of its code on the CPU in small; its figures need a GPU."""

import importlib
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realesr.engines.pytorch.engine import open_torch
from realesr.errors import MissingDependency, UsageError
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.networks import build_with
from tests.engines.small_models import small_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def imported(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A benchmark's file; they are scripts of one folder, not a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


@pytest.fixture
def gpu_tiles(monkeypatch: pytest.MonkeyPatch) -> Any:
    return imported("gpu_tiles", monkeypatch)


@pytest.fixture
def gpu_peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    return imported("gpu_peers", monkeypatch)


@pytest.fixture
def gpu_timing(monkeypatch: pytest.MonkeyPatch) -> Any:
    return imported("gpu_timing", monkeypatch)


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    return imported("report", monkeypatch)


@pytest.fixture
def bench_host(monkeypatch: pytest.MonkeyPatch) -> Any:
    return imported("bench_host", monkeypatch)


def test_least_traffic_counts_each_convolution_on_its_own_grid(gpu_tiles: Any) -> None:
    compact = Compact(scale=4, features=8, convs=2)
    channels = (3 + 8) + 2 * (8 + 8) + (8 + 48)
    assert gpu_tiles.least_bytes_per_px(compact) == 2 * channels
    rrdb = RRDB(scale=4, features=8, blocks=1, growth=4)
    dense = sum(8 + 4 * i + 4 for i in range(4)) + (8 + 4 * 4 + 8)
    channels = (3 + 8) + 3 * dense + 16 + 4 * 16 + 16 * 16 + 16 * 16 + 16 * (8 + 3)
    assert gpu_tiles.least_bytes_per_px(rrdb) == 2 * channels


def test_the_peers_way_computes_the_same_network_over_all_tiles(gpu_peers: Any) -> None:
    weights = small_model(Compact(scale=2, features=8, convs=1))
    photo = np.random.default_rng(0).integers(0, 256, (37, 52, 3), np.uint8)
    levels = gpu_peers.enlarge_as_peers(build_with(weights).eval().half(), photo, scale=2, tile_px=16)
    with open_torch(weights, device="cpu", precision="fp32") as exact:
        planes = np.ascontiguousarray(photo.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        expected = exact.run(planes)[0].clip(0, 1).transpose(1, 2, 0) * 255
    assert levels.shape == (74, 104, 3) and levels.dtype == np.uint8
    assert np.abs(levels.astype(np.float32) - expected).max() < 2  # half precision; a pixel left out would be 0


def test_the_peers_tiles_read_ten_px_more_on_every_side_within_the_image(gpu_peers: Any) -> None:
    rows = list(gpu_peers.peers_tiles(900, 400, 10))
    assert [(tile.start, tile.stop) for tile in rows] == [(0, 410), (390, 810), (790, 900)]
    assert [(tile.first, tile.last) for tile in rows] == [(0, 400), (400, 800), (800, 900)]


def test_rows_are_compared_with_the_fastest_peers_way_of_the_same_network(gpu_tiles: Any) -> None:
    def one(what: str, model: str, speed: float | None) -> dict[str, Any]:
        head = {"what": what, "model": model}
        return {**head, "failed": "no"} if speed is None else {**head, "input_mp_s": speed}

    done = [one("peers", "a", 2.0), one("peers", "a", 2.5), one("peers", "a", None), one("upscale", "a", 99.0)]
    assert gpu_tiles.times_peers(one("upscale", "a", 5.0), done, "input_mp_s") == 2.0
    assert gpu_tiles.times_peers(one("peers", "a", 2.0), done, "input_mp_s") == 0.8
    assert gpu_tiles.times_peers(one("upscale", "b", 5.0), done, "input_mp_s") is None
    assert gpu_tiles.times_peers(one("upscale", "a", None), done, "input_mp_s") is None


def test_options_that_gained_are_tried_together(gpu_tiles: Any) -> None:
    taken = [({}, 10.0), ({"join": "device"}, 6.0), ({"mode": "graphs"}, 9.9), ({"benchmark": "0"}, 11.0)]
    taken += [({"join": "device", "streams": "2"}, 6.1), ({"kernels": "triton"}, 4.0)]
    assert gpu_tiles.together(taken) == [
        {"kernels": "triton", "join": "device"},
        {"kernels": "triton", "join": "device", "mode": "graphs"},
    ]
    assert gpu_tiles.together([({}, 10.0), ({"join": "device"}, 6.0), ({"benchmark": "0"}, 11.0)]) == []
    assert gpu_tiles.together([({"join": "device"}, 6.0), ({"mode": "graphs"}, 5.0)]) == []  # the default failed


def measured_with(gpu_tiles: Any, problem: Exception) -> dict[str, Any]:
    """Row of a way that stops with this problem."""

    def stopped(*_: Any) -> dict[str, Any]:
        raise problem

    case = gpu_tiles.Case(what="engine", model="m", tile_px=32, step=stopped)
    row: dict[str, Any] = gpu_tiles.measured(case, left_s=1.0)
    return row


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (RuntimeError("no kernel\nimage"), {"failed": "RuntimeError: no kernel image"}),
        (UsageError("no such option"), {"skipped": "no such option"}),
        (MissingDependency("no Triton"), {"skipped": "no Triton"}),
    ],
)
def test_a_row_that_stops_says_why(gpu_tiles: Any, problem: Exception, expected: dict[str, str]) -> None:
    row = measured_with(gpu_tiles, problem)
    assert row == {"what": "engine", "model": "m", "tile_px": 32, "options": "", **expected}


def test_a_row_is_not_begun_with_less_time_than_it_needs(gpu_tiles: Any) -> None:
    case = gpu_tiles.Case(what="engine", model="m", needs_s=60.0, step=lambda: {"whole_s": 1.0})
    assert gpu_tiles.measured(case, left_s=59.0)["skipped"] == "59 s were left, and it takes 60 s"
    assert gpu_tiles.measured(case, left_s=61.0)["whole_s"] == 1.0


@pytest.mark.long
def test_the_rehearsal_measures_every_way_in_order_of_importance(gpu_tiles: Any) -> None:
    rows = list(gpu_tiles.rows("cpu", 60.0, small=True))
    assert [row for row in rows if "failed" in row] == []
    json.dumps(rows)  # they can be written as they are
    first = [row["what"] for row in rows].index
    assert first("limits") < first("peers") < first("upscale") < first("engine")
    upscale = {row["options"]: row for row in rows if row["what"] == "upscale"}
    assert {"", "join=host", "streams=2", "mode=graphs", "kernels=triton", "mode=compile"} <= set(upscale)
    assert "whole_s" in upscale[""] and upscale[""]["times_peers"] > 0
    assert upscale[""]["psnr_to_peers_db"] > 30  # another way of the same network, in 8 bits and as JPEG
    assert "whole_s" in upscale["join=host"] and upscale["join=host"]["times_peers_array"] > 0
    assert upscale["join=host"]["computed_per_px"] > 1  # several tiles were joined
    assert "CUDA" in upscale["mode=graphs"]["skipped"]
    assert "takes 120 s" in upscale["mode=compile"]["skipped"]
    engine = [row for row in rows if row["what"] == "engine" and "skipped" not in row]
    assert {row["model"] for row in engine} == {"large", "fast"}
    assert all(row["whole_s"] > 0 and row["gpu_s"] > 0 and row["matrix_percent"] > 0 for row in engine)


def test_rows_come_one_by_one_and_stop_at_the_time(gpu_tiles: Any) -> None:
    ticks = count(0, 100)
    rows: Iterator[dict[str, Any]] = gpu_tiles.rows("cpu", 250.0, small=True, clock=lambda: float(next(ticks)))
    assert next(rows)["what"] == "limits"
    assert "whole_s" in next(rows)
    later = list(rows)
    assert all("skipped" in row for row in later[1:])
    assert {"upscale", "engine"} <= {row["what"] for row in later}


@pytest.mark.long
def test_the_rehearsal_of_the_profile(gpu_tiles: Any) -> None:
    rows = list(gpu_tiles.profile("cpu", small=True))
    assert [row for row in rows if "failed" in row] == []
    json.dumps(rows)
    threads = [row for row in rows if row["what"] == "threads"]
    assert [row["threads"] for row in threads] == [2, 1]
    assert all(row["first_s"] > 0 and row["second_s"] > 0 for row in threads)
    tile = next(row for row in rows if row["what"] == "profile of a tile")
    kernels = [row for row in rows if row["what"] == "kernel"]
    assert 1 <= len(kernels) <= 12
    assert tile["launches"] >= sum(row["count"] for row in kernels)
    assert tile["kernels_ms"] * 1.001 >= sum(row["ms"] for row in kernels) > 0
    photo = next(row for row in rows if row["what"] == "profile of a photo")
    assert "unless a GPU does the work" in photo["skipped"]  # its threads are seen by CUDA's profiler alone


def test_time_between_kernels_is_what_none_ran_in(gpu_timing: Any) -> None:
    spans = [
        gpu_timing.Span(name, start, stop)
        for name, start, stop in (("b", 5.0, 8.0), ("a", 0.0, 10.0), ("a", 30.0, 40.0), ("c", 38.0, 50.0))
    ]
    assert gpu_timing.busy_us(spans) == 10.0 + 20.0
    summary, kernels = gpu_timing.summed(spans, top=2)
    assert (summary["launches"], summary["busy_ms"], summary["kernels_ms"]) == (4, 0.03, 0.035)
    assert summary["gap_percent"] == pytest.approx(40.0)
    assert [(row["name"], row["count"], row["ms"]) for row in kernels] == [("a", 2, 0.02), ("c", 1, 0.012)]


def test_figures_of_a_gpu_are_kept_when_the_run_ends_early(
    monkeypatch: pytest.MonkeyPatch, gpu_tiles: Any, tmp_path: Path
) -> None:
    def ended(_device: str, _seconds: float) -> Iterator[dict[str, Any]]:
        yield {"what": "limits"}
        yield {"what": "peers"}
        raise KeyboardInterrupt

    bench_tiles = imported("bench_tiles", monkeypatch)
    monkeypatch.setattr(bench_tiles, "nvidia_gpus", lambda: ("a GPU",))
    monkeypatch.setattr(gpu_tiles, "rows", ended)
    with pytest.raises(KeyboardInterrupt):
        bench_tiles.measure_gpu(600.0, tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name.endswith("-tiles-gpu.json")
    assert [row["what"] for row in json.loads(path.read_text())["rows"]] == ["limits", "peers"]


def test_pixels_computed_twice_from_the_plan(bench_host: Any) -> None:
    before, *after = (row["computed_per_px"] for row in bench_host.computed_rows())
    assert 1.55 < before < 1.65
    assert len(after) == 2 and max(after) <= 1.15


def test_host_ways_give_every_byte_of_the_image(bench_host: Any) -> None:
    rows = bench_host.host_rows(1, 300, 320)
    assert [row["runs"] for row in rows] == [1, 1, 1]
    assert all(row["ms_per_output_mp"] > 0 for row in rows)


def test_a_file_of_results_is_whole_after_every_row(report: Any, tmp_path: Path) -> None:
    for number in (1, 2):
        path = report.save("tiles-gpu", [{"number": n} for n in range(number)], folder=tmp_path / "new", quiet=True)
        assert [row["number"] for row in json.loads(path.read_text())["rows"]] == list(range(number))
    assert [file.name for file in (tmp_path / "new").iterdir()] == [path.name]
