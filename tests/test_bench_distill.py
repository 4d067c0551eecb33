"""What benchmarks/bench_distill.py computes, on a few patches and a made-up log."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from realesr.models.compact import Compact
from tests.models.small_networks import small_state

ROOT = Path(__file__).parents[1]

pytest.importorskip("torch")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("bench_distill")


def test_a_cache_is_read_in_the_memory_of_a_few_batches(bench: Any) -> None:
    (row,) = bench.memory(640)
    assert row["patches"] == 640
    assert row["more_mb"] < 0.5 * row["on_disk_mb"]


def test_the_laplacian_is_in_levels(bench: Any) -> None:
    image = np.zeros((1, 3, 5, 5), np.uint8)
    assert bench.laplacian_levels(image) == 0
    image[0, :, 2, 2] = 90  # seen once as 4 x 90, and from its four neighbours as 90
    assert bench.laplacian_levels(image) == pytest.approx(8 * 90 / 9)


def test_patches_are_the_same_for_the_same_photos(bench: Any, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"  # smaller than what is read: it is mirrored
    Image.effect_noise((60, 50), 90).convert("RGB").resize((300, 280)).save(photo)
    lr, hr = bench.degraded_patches([photo], 2)
    assert (lr.shape, hr.shape) == ((2, 3, 64, 64), (2, 3, 256, 256))
    assert all(np.array_equal(a, b) for a, b in zip((lr, hr), bench.degraded_patches([photo], 2), strict=True))


def test_the_curve_goes_through_both_stages(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.report, "RESULTS", tmp_path)
    (tmp_path / "stage_a").mkdir()
    for folder, psnrs in ((tmp_path / "stage_a", (30.0, 33.0)), (tmp_path, (32.5,))):
        lines = [{"kind": "losses", "iteration": 5, "l1": 0.1}]
        for number, psnr in enumerate(psnrs, start=1):
            lines.append({"kind": "validation", "iteration": 10 * number, "psnr": psnr, "bicubic_psnr": 27.0})
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = bench.curve(tmp_path)
    assert [(row["stage"], row["passed"], row["to_teacher_db"]) for row in rows] == [
        ("stage A", 10, 30.0),
        ("stage A", 20, 33.0),
        ("stage B", 30, 32.5),
    ]
    assert [path.suffix for path in tmp_path.glob("*-distill-curve.*")] == [".png"]


def test_the_table_has_teacher_bicubic_and_networks(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.report, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "TILE_PX", 32)
    photo = tmp_path / "photo.png"
    Image.effect_noise((60, 50), 90).convert("RGB").resize((300, 280)).save(photo)
    names = []
    for name in ("teacher", "student"):
        path = tmp_path / f"{name}.safetensors"
        save_file(small_state(Compact(scale=4, features=4, convs=1)), path)
        names.append(str(path))
    rows = bench.table([photo], [], names[1:], names[0], 2)
    assert [row["who"] for row in rows] == [names[0], "bicubic", names[1]]
    assert (rows[0]["to_teacher_db"], rows[0]["laplacian_share"]) == (100, 1)
    assert all(row["niqe"] is None for row in rows)
    assert [path.suffix for path in tmp_path.glob("*-distill.*")] == [".jpg"]
