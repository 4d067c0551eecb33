"""How benchmarks/bench_peers.py chooses, counts and names; its figures are no test's business."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realesr.models.compact import Compact
from realesr.models.onnx_graph import onnx_bytes
from realesr.models.weights import Weights

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench_peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_peers")


@pytest.fixture
def peer_scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peer_scripts")


def row(bench_peers: Any, name: str, peer: str, *seconds: float, **more: Any) -> Any:
    return bench_peers.Row(name, peer, [], seconds=list(seconds), cpu_seconds=list(seconds), **more)


def test_only_the_fastest_ways_of_a_contest_go_on_after_the_first_turn(bench_peers: Any) -> None:
    rows = [
        row(bench_peers, "whole", "openvino", 10.0, contest="f32"),
        row(bench_peers, "tiles", "openvino", 10.9, contest="f32"),
        row(bench_peers, "slow", "openvino", 11.1, contest="f32"),
        row(bench_peers, "other precision", "openvino", 30.0, contest="bf16"),
        row(bench_peers, "not there", "openvino", contest="bf16", skipped="no bf16"),
        row(bench_peers, "no contest", "ncnn", 99.0),
    ]
    bench_peers.leave_out_slower(rows)
    assert {each.name: each.skipped for each in rows if each.skipped} == {
        "slow": "slower in the first turn: 11.1 s, the fastest 10.0",
        "not there": "no bf16",
    }


def test_a_contest_of_which_nothing_runs_leaves_nothing_out(bench_peers: Any) -> None:
    rows = [row(bench_peers, "bf16", "openvino", contest="bf16", skipped="no bf16")]
    bench_peers.leave_out_slower(rows)
    assert rows[0].skipped == "no bf16"


def test_ratios_are_to_the_best_row_of_each_peer_and_name_it(bench_peers: Any) -> None:
    rows = [
        row(bench_peers, bench_peers.OURS, "", 2.0),
        row(bench_peers, "ncnn, whole", "ncnn", 5.0, 7.0, 6.0),
        row(bench_peers, "openvino f32", "openvino", 4.0),
        row(bench_peers, "openvino bf16", "openvino", 3.0, skipped="slower"),
        row(bench_peers, "torch", "pytorch", skipped="not installed"),
    ]
    found = {each["peer"]: each for each in bench_peers.ratios(rows, {"ncnn": 2.5, "openvino": 2.5, "pytorch": 2.0})}
    assert {peer: each["times_as_fast"] for peer, each in found.items()} == {
        "ncnn": 3.0,
        "openvino": 2.0,
        "pytorch": 0.0,
        "the best": 2.0,
    }
    assert [found[peer]["reached"] for peer in found] == ["yes", "no", "skipped: not reached", ""]
    assert found["the best"]["its best"] == "openvino f32"


def test_cpu_time_has_that_of_the_children_of_a_row(bench_peers: Any, tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.4: pass"
    waits = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    measured = bench_peers.Row("waits", "", [sys.executable, "-c", waits, "-o"])
    bench_peers.run_once(measured, tmp_path / "out.png")
    assert not measured.skipped
    assert measured.cpu_seconds[0] > 0.4
    assert len(measured.seconds) == 1


def test_a_row_that_fails_is_skipped_with_its_last_words(bench_peers: Any, tmp_path: Path) -> None:
    failing = bench_peers.Row("fails", "", [sys.executable, "-c", "raise SystemExit('no such library')", "-o"])
    bench_peers.run_once(failing, tmp_path / "out.png")
    assert (failing.skipped, failing.seconds, failing.cpu_seconds) == ("no such library", [], [])
    assert bench_peers.record(failing, (8, 8), {})["cpu_s"] == 0


def test_children_keep_their_bytecode(bench_peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    environment = bench_peers.child_environment()
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["ONEDNN_MAX_CPU_ISA"] == "AVX2"


@pytest.mark.parametrize(
    ("flags", "ending"),
    [
        ({"avx2", "fma"}, "avx2"),
        ({"avx2", "fma", "avx512f", "avx512_bf16"}, "avx512"),
        ({"avx2", "avx512f", "amx_tile", "amx_bf16"}, "amx"),
        (set(), "arm64"),
    ],
)
def test_results_are_named_after_the_simd_instructions(
    bench_peers: Any, monkeypatch: pytest.MonkeyPatch, flags: set[str], ending: str
) -> None:
    monkeypatch.setattr(bench_peers.processor, "flags", lambda: frozenset(flags))
    monkeypatch.setattr(bench_peers.platform, "machine", lambda: "ARM64")
    assert bench_peers.result_name("span-x4", (8, 9), "") == f"peers-span-x4-8x9-{ending}"
    assert bench_peers.result_name("span-x4", (8, 9), "AVX2") == f"peers-span-x4-8x9-{ending}-avx2"


def test_openvino_has_its_ways_in_either_precision_and_whole_images_where_memory_allows(bench_peers: Any) -> None:
    for is_large, count in ((False, 6), (True, 2)):
        rows = bench_peers.rows_for("realesrgan-x4plus", is_large=is_large, folder=Path("f"), photo=Path("p"))
        ways = [each for each in rows if each.peer == "openvino"]
        assert [each.contest for each in ways] == ["openvino f32"] * count + ["openvino bf16"] * count
        assert any("whole image" in each.name for each in ways) != is_large


@pytest.mark.parametrize("tile_px", [3, 8, 11, 30, 64])
def test_tiles_of_one_shape_give_each_pixel_once_and_read_enough_around_it(peer_scripts: Any, tile_px: int) -> None:
    pad = peer_scripts.PAD_PX
    for length in range(1, 65):
        read_px, spans = peer_scripts.spans_of_one_length(length, tile_px)
        assert [px for span in spans for px in range(span.first, span.last)] == list(range(length))
        for span in spans:
            assert 0 <= span.start <= max(span.first - pad, 0)
            assert min(span.last + pad, length) <= span.start + read_px <= length


@pytest.mark.parametrize("hint", ["LATENCY", "THROUGHPUT"])
def test_openvino_enlarges_as_onnx_runtime_does_whole_and_in_tiles_that_overlap_far_enough(
    peer_scripts: Any, tmp_path: Path, hint: str
) -> None:
    pytest.importorskip("openvino")
    architecture = Compact(scale=4, features=4, convs=2)  # it sees 4 px, less than tiles overlap
    generator = np.random.default_rng(0)
    state = {key: generator.normal(0, 0.2, shape).astype(np.float32) for key, shape in architecture.shapes.items()}
    (tmp_path / "net.onnx").write_bytes(onnx_bytes(Weights("small", architecture, state, "0" * 64)))
    picture = generator.random((1, 3, 33, 50), np.float32)
    expected = peer_scripts.onnxruntime_run(tmp_path)(picture)
    for tile_px in (0, 16):
        found = peer_scripts.openvino_enlarged(tmp_path, picture, tile_px, precision="f32", hint=hint)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_pictures_are_compared_in_levels(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.full((16, 24, 3), 100, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "reference.png")
    pixels[5] += 4
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    command = [sys.executable, str(BENCHMARKS / "peer_pictures.py"), "compare", "picture.png", "reference.png"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert '"max_levels": 4.0' in answer.stdout
    assert '"seam_levels": 4.0' in answer.stdout
