"""Checks degradations as values: slices, JSON, and the errors of damaged JSON."""

import dataclasses
import json
from typing import Any

import pytest
import torch

from realesr.errors import InputError
from realesr.train.degrade.degradation import Degradation
from realesr.train.degrade.draw import draw
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL, DegradeRecipe


def drawn(recipe: DegradeRecipe = CORRECTED, n: int = 6, crop_px: int | None = 32) -> Degradation:
    return draw(recipe, n, torch.Generator().manual_seed(0), hr_px=(64, 48), scale=4, crop_px=crop_px)


def test_it_has_a_length_items_and_slices() -> None:
    whole = drawn()
    part = whole[2:5]
    assert (len(whole), len(part)) == (6, 3)
    assert part[0] is whole[2]
    assert list(part) == list(whole)[2:5]
    assert dataclasses.replace(part, samples=()) == dataclasses.replace(whole, samples=())
    assert whole[0:2].samples + whole[2:6].samples == whole.samples
    assert whole.lr_px == (16, 12)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        drawn().scale = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "recipe", [CORRECTED, FAITHFUL, dataclasses.replace(CORRECTED, webp=0.5, avif=0.5), DegradeRecipe(group=1)]
)
@pytest.mark.parametrize("crop_px", [None, 32])
def test_json_gives_it_back_to_the_last_bit(recipe: DegradeRecipe, crop_px: int | None) -> None:
    degradation = drawn(recipe, 20, crop_px)
    again = Degradation.from_json(json.loads(json.dumps(degradation.to_json())))
    assert again == degradation
    assert hash(again) == hash(degradation)


def damaged(change: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(drawn(n=1).to_json()))
    change(record)
    return record


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(version=3), "version 3, expected 2"),
        (lambda r: r.pop("version"), "version None, expected 2"),
        (lambda r: r.pop("scale"), "the file lacks scale, expected a whole number"),
        (lambda r: r.update(more=1), "more = 1 is no key here"),
        (lambda r: r["samples"][0]["first"]["blur"].pop("theta"), r"samples\[0\].first.blur lacks theta"),
        (lambda r: r.update(scale="4"), "scale = '4'"),
        (lambda r: r.update(arithmetic="other"), "arithmetic = 'other'"),
        (lambda r: r["samples"][0]["first"]["noise"].update(seed=1.5), "seed = 1.5"),
        (lambda r: r["samples"][0]["first"]["noise"].update(grey=1), "grey = 1"),
        (lambda r: r["samples"][0].update(crop_yx=[1]), "crop_yx"),
        (lambda r: r["samples"][0]["first"].update(blur=[]), "blur"),
    ],
)
def test_damaged_parameters_are_named(change: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Degradation.from_json(damaged(change))
