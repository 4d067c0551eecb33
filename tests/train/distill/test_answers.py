"""Checks the answers on the disk: what is written is read, place by place, and damage is named."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realesr.errors import InputError, OutputError
from realesr.train.distill.answers import SHARD, Answers

PX, SCALE = 4, 2


def noise(count: int, px: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(count, 3, px, px), dtype=np.uint8)


def filled(folder: Path, shards: int = 2) -> Answers:
    kept = Answers(folder=folder, patch_px=PX, scale=SCALE)
    for number in range(shards):
        lr, large = noise(SHARD, PX, number), noise(SHARD, PX * SCALE, 100 + number)
        kept.write(number, lr, large, [{"image": f"{place}.png"} for place in range(SHARD)])
    return kept


def read(kept: Answers, patch: int) -> tuple[np.ndarray, np.ndarray]:
    small, large = np.empty((3, PX, PX), np.uint8), np.empty((3, PX * SCALE, PX * SCALE), np.uint8)
    kept.read(patch, small, large)
    return small, large


def test_every_patch_is_read_from_its_place(tmp_path: Path) -> None:
    kept = filled(tmp_path)
    assert kept.whole_shards() == 2
    for patch in (0, 1, SHARD - 1, SHARD, 2 * SHARD - 1):
        shard, place = divmod(patch, SHARD)
        small, large = read(kept, patch)
        assert np.array_equal(small, noise(SHARD, PX, shard)[place])
        assert np.array_equal(large, noise(SHARD, PX * SCALE, 100 + shard)[place])


def test_numpy_reads_the_files_too_and_each_patch_has_a_line(tmp_path: Path) -> None:
    filled(tmp_path)
    assert np.array_equal(np.load(tmp_path / "000001" / "lr.npy"), noise(SHARD, PX, 1))
    assert len((tmp_path / "000001" / "patches.jsonl").read_text().splitlines()) == SHARD
    assert Answers(folder=tmp_path, patch_px=PX, scale=SCALE).shard_bytes() == SHARD * 3 * (16 + 64)


def test_shards_count_up_to_the_first_gap(tmp_path: Path) -> None:
    kept = filled(tmp_path, 3)
    (tmp_path / "000001").rename(tmp_path / "elsewhere")
    assert kept.whole_shards() == 1


def test_patches_that_are_held_out_come_back_with_the_names_of_their_images(tmp_path: Path) -> None:
    kept = Answers(folder=tmp_path, patch_px=PX, scale=SCALE)
    lr, large = noise(5, PX), noise(5, PX * SCALE)
    kept.write(None, lr, large, [{"image": f"photos/{place}.png"} for place in range(5)])
    found = kept.held_out()
    assert np.array_equal(found[0], lr) and np.array_equal(found[1], large)
    assert found[2] == ["0", "1", "2", "3", "4"]


def test_damage_is_named_and_what_to_do(tmp_path: Path) -> None:
    kept = filled(tmp_path)
    with pytest.raises(InputError, match="000007 lacks patches or is damaged: delete it"):
        read(kept, 7 * SHARD)
    path = tmp_path / "000000" / "answers.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="000000 lacks patches or is damaged"):
        read(kept, 3)
    with pytest.raises(InputError, match="held_out lacks patches"):
        kept.held_out()


def test_a_full_disk_leaves_no_half_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = filled(tmp_path, 1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        filled(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000"]
    assert kept.whole_shards() == 1


def test_reading_takes_the_memory_of_one_patch(tmp_path: Path) -> None:
    kept = filled(tmp_path, 8)
    tracemalloc.start()
    small, large = np.empty((3, PX, PX), np.uint8), np.empty((3, PX * SCALE, PX * SCALE), np.uint8)
    for patch in range(8 * SHARD):
        kept.read(patch, small, large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < kept.shard_bytes()
