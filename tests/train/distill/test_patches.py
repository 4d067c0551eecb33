"""Checks the patches that a teacher is asked: degraded and native ones, the same wherever a run begins."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from realesr.train.degrade.degradation import Degradation
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL
from realesr.train.distill.patches import PatchOptions, patches

OPTIONS = PatchOptions(degrade=CORRECTED, scale=4, patch_px=8, read_px=48, native=0.25, sharpened=False, seed=0)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        Image.effect_noise((12, 12), 90).convert("RGB").resize((56, 50), Image.Resampling.BICUBIC).save(path)
    return paths


def test_a_share_of_them_are_pixels_of_the_image_as_they_are(images: list[Path]) -> None:
    inputs = next(patches(images, OPTIONS, size=16))
    assert inputs.lr.shape == (16, 3, 8, 8)
    assert inputs.lr.dtype == torch.uint8
    assert ["native" in record for record in inputs.records] == [False] * 12 + [True] * 4
    assert all(len(Degradation.from_json(record["degradation"])) == 1 for record in inputs.records[:12])
    plain = [
        (place, record) for place, record in enumerate(inputs.records) if record.get("native", {}).get("shrunk") == 1
    ]
    assert plain
    for place, record in plain:
        with Image.open(record["image"]) as image:
            whole = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        wanted = inputs.lr[place].numpy()
        windows = np.lib.stride_tricks.sliding_window_view(whole, (3, 8, 8))[0]
        assert (windows == wanted).all(axis=(2, 3, 4)).any()


def test_half_of_the_native_ones_are_shrunk(images: list[Path]) -> None:
    inputs = next(patches(images, dataclasses.replace(OPTIONS, native=1.0), size=64))
    shrunk = sum(record["native"]["shrunk"] == 2 for record in inputs.records)
    assert 20 <= shrunk <= 44
    too_small = dataclasses.replace(OPTIONS, native=1.0, read_px=12)
    assert {record["native"]["shrunk"] for record in next(patches(images, too_small, size=8)).records} == {1}


def test_the_same_patches_come_wherever_a_run_begins(images: list[Path]) -> None:
    stream = patches(images, OPTIONS, size=8)
    whole = [next(stream) for _ in range(3)]
    again = next(patches(images, OPTIONS, size=8, first=2))
    assert torch.equal(again.lr, whole[2].lr)
    assert again.records == whole[2].records
    assert not torch.equal(whole[0].lr, whole[1].lr)


def test_held_out_patches_are_others(images: list[Path]) -> None:
    learned, held = (next(patches(images[:1], OPTIONS, size=8, held_out=held)) for held in (False, True))
    assert not torch.equal(learned.lr, held.lr)


def test_the_faithful_degradation_does_not_give_all_of_them_one_size(images: list[Path]) -> None:
    inputs = next(patches(images, dataclasses.replace(OPTIONS, degrade=FAITHFUL, native=0.0), size=32))
    sizes = {str(record["degradation"]["samples"][0]["shared"]) for record in inputs.records}
    assert len(sizes) == 4


def test_an_unreadable_image_is_told(images: list[Path]) -> None:
    images[1].write_bytes(b"no image")
    inputs = next(patches(images, OPTIONS, size=8, max_failures=3))
    assert list(inputs.failures) == [str(images[1])]
    assert str(images[1]) not in {record["image"] for record in inputs.records}
