"""Checks batches of answered patches: the same after a resume and for any number of processes, always aligned."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realesr.errors import InputError
from realesr.train.distill.answers import SHARD, Answers
from realesr.train.distill.patch_batches import AnsweredPatches, all_patches, cut_of, cut_out, patch_batches

PX, SCALE = 6, 2


def patches(folder: Path, **values: Any) -> AnsweredPatches:
    """Two shards whose answers are their patches with repeated pixels."""
    kept = Answers(folder=folder, patch_px=PX, scale=SCALE)
    for number in range(2):
        lr = np.random.default_rng(number).integers(256, size=(SHARD, 3, PX, PX), dtype=np.uint8)
        kept.write(number, lr, lr.repeat(SCALE, 2).repeat(SCALE, 3), [{}] * SHARD)
    wanted = {"count": 2 * SHARD, "crop_px": PX * SCALE, "flip": True, "rotate": True} | values
    return AnsweredPatches(answers=kept, **wanted)


def batches(source: AnsweredPatches, count: int, **values: Any) -> list[Any]:
    wanted = {"seed": 0, "first_iteration": 0, "batch": 4} | values
    return list(islice(patch_batches(source, **wanted), count))


@pytest.mark.parametrize("crop_px", [12, 8])
def test_a_patch_and_its_answer_are_cut_and_turned_alike(tmp_path: Path, crop_px: int) -> None:
    for batch in batches(patches(tmp_path, crop_px=crop_px), 20):
        assert batch.pair_lr.shape == (4, 3, crop_px // 2, crop_px // 2)
        assert batch.pair_hr.dtype == torch.uint8
        large = batch.pair_lr.repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert torch.equal(large, batch.pair_hr)
        assert len(batch.hr) == 0


def test_an_epoch_has_every_patch_once(tmp_path: Path) -> None:
    source = patches(tmp_path)
    seen = [path for batch in batches(source, 2 * SHARD // 4) for path in batch.paths]
    assert len(set(seen)) == len(seen) == 2 * SHARD


def test_all_turns_come(tmp_path: Path) -> None:
    source = patches(tmp_path, count=1)
    seen = {batch.pair_lr[place].numpy().tobytes() for batch in batches(source, 20) for place in range(4)}
    assert len(seen) == 8
    plain = patches(tmp_path / "plain", count=1, flip=False, rotate=False)
    assert len({batch.pair_lr[place].numpy().tobytes() for batch in batches(plain, 5) for place in range(4)}) == 1


def test_a_resume_sees_the_batches_that_were_left(tmp_path: Path) -> None:
    source = patches(tmp_path)
    whole, rest = batches(source, 6), batches(source, 2, first_iteration=4)
    for before, after in zip(whole[4:], rest, strict=True):
        assert before.paths == after.paths
        assert torch.equal(before.pair_hr, after.pair_hr)


def test_two_processes_see_what_one_with_twice_the_batch_does(tmp_path: Path) -> None:
    source = patches(tmp_path)
    alone = batches(source, 3, batch=8)
    parts = [batches(source, 3, batch=4, rank=rank, world=2) for rank in range(2)]
    for batch, *halves in zip(alone, *parts, strict=True):
        assert torch.equal(batch.pair_lr, torch.cat([half.pair_lr for half in halves]))


def test_missing_answers_are_told_at_once_and_a_damaged_patch_where_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has answers to 128 patches, expected 192"):
        patches(tmp_path, count=3 * SHARD)
    source = patches(tmp_path)
    (tmp_path / "000001" / "answers.npy").unlink()
    with pytest.raises(InputError, match="000001 lacks patches"):
        batches(source, 2 * SHARD // 4)


@pytest.mark.parametrize("crop_px", [12, 8])
def test_patches_in_memory_are_cut_as_those_on_the_disk(tmp_path: Path, crop_px: int) -> None:
    source = patches(tmp_path, crop_px=crop_px)
    kept = all_patches(source, torch.device("cpu"))
    for number, batch in enumerate(batches(source, 8)):
        cuts = [cut_of(sample, source, 0) for sample in range(4 * number, 4 * number + 4)]
        lr, hr = cut_out(*kept, cuts, source)
        assert torch.equal(lr, batch.pair_lr)
        assert torch.equal(hr, batch.pair_hr)


@pytest.mark.cuda
def test_batches_of_a_gpu_are_those_of_the_cpu(tmp_path: Path) -> None:
    source = patches(tmp_path)
    there = batches(source, 4, device=torch.device("cuda"))
    for batch, expected in zip(there, batches(source, 4), strict=True):
        assert batch.pair_lr.is_cuda
        assert torch.equal(batch.pair_lr.cpu(), expected.pair_lr)
        assert torch.equal(batch.pair_hr.cpu(), expected.pair_hr)
