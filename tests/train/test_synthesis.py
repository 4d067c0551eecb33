"""Checks what becomes a pair: where the truth is sharpened, and who shares the sizes of a degradation."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from realesr.train.data.loader import Batch
from realesr.train.data.pair_pool import PairPool
from realesr.train.degrade.apply import apply
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL
from realesr.train.distributed import World
from realesr.train.stage_options import StageOptions
from realesr.train.synthesis import make_pairs

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, device=CPU)
READ_PX, CROP_PX, SCALE = 96, 32, 4


def options(**more):
    return StageOptions(**{"iterations": 10, "batch": 2, "crop_px": CROP_PX, **more})


def photos(count, seed=0):
    """Return images with edges, in bytes."""
    random, side = torch.Generator().manual_seed(seed), READ_PX // 8
    coarse = torch.randint(0, 256, (count, 3, side, side), generator=random, dtype=torch.uint8)
    return coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)


def batch_of(images, pairs=None):
    hr, lr = pairs or (None, None)
    return Batch(hr=images, pair_hr=hr, pair_lr=lr, paths=[""] * len(images), padded=0)


def make(images, recipe=CORRECTED, *, stage=None, world=ALONE, iteration=0, pool=None, pairs=None):
    return make_pairs(
        batch_of(images, pairs),
        recipe,
        options=stage or options(),
        seed=7,
        iteration=iteration,
        world=world,
        scale=SCALE,
        pool=pool,
    )


def usm(image):
    """Return (3, H, W) in [0, 1] sharpened as BasicSR's USMSharp(50) does, by SciPy in float64."""
    at = np.arange(51) - 25
    window = np.exp(-(at**2) / (2 * 8.0**2))
    window /= window.sum()

    def blurred(planes):
        return ndimage.correlate1d(ndimage.correlate1d(planes, window, 1, mode="mirror"), window, 2, mode="mirror")

    rest = image - blurred(image)
    mask = blurred((np.abs(rest) * 255 > 10).astype(np.float64))
    return mask * np.clip(image + 0.5 * rest, 0, 1) + (1 - mask) * image


def crop_of(image, sample):
    top, left = (SCALE * place for place in sample.crop_yx)
    return image[:, top : top + CROP_PX, left : left + CROP_PX]


@pytest.mark.parametrize("recipe", [CORRECTED, FAITHFUL])
def test_the_truth_of_stage_1_is_cut_out_of_the_sharpened_image(recipe):
    images = photos(4)
    pairs = make(images, recipe)
    for number, sample in enumerate(pairs.drawn):
        image = images[number].double().numpy() / 255
        np.testing.assert_allclose(pairs.sharp[number].numpy(), crop_of(usm(image), sample), atol=0.5 / 255)
        assert np.abs(usm(crop_of(image, sample)) - crop_of(usm(image), sample)).max() > 8 / 255
    assert torch.equal(pairs.hr, pairs.sharp)


def test_the_truth_of_stage_2_is_sharpened_after_it_was_cut_out():
    images = photos(4)
    pairs = make(images, stage=options(gan=0.1))
    for number, sample in enumerate(pairs.drawn):
        crop = crop_of(images[number].double().numpy() / 255, sample)
        np.testing.assert_allclose(pairs.hr[number].numpy(), crop, atol=1e-6)
        np.testing.assert_allclose(pairs.sharp[number].numpy(), usm(crop), atol=0.5 / 255)


def test_the_pool_of_stage_1_has_sharpened_truths():
    pool, whole = PairPool(4, eight_bit=False), []
    for iteration in range(3):
        images = photos(4, iteration)
        own = make(images, iteration=iteration)
        mixed = make(images, iteration=iteration, pool=pool)
        whole += list(own.sharp)
        assert all(any(torch.equal(truth, each) for each in whole) for truth in mixed.sharp)


@pytest.mark.parametrize("stage", [options(l1_sharp=False), options(l1_sharp=False, gan=0.1)])
def test_nothing_is_sharpened_where_no_loss_looks_at_it(stage):
    images = photos(2)
    pairs = make(images, stage=stage)
    for number, sample in enumerate(pairs.drawn):
        crop = crop_of(images[number].float() / 255, sample)
        assert torch.equal(pairs.hr[number], crop)
        assert torch.equal(pairs.sharp[number], crop)


@pytest.mark.parametrize(("stage", "plain"), [(options(), False), (options(gan=0.1), True)])
def test_given_pairs_are_sharpened_as_the_others(stage, plain):
    truth = photos(1)[:, :, :CROP_PX, :CROP_PX]
    small = truth[:, :, ::SCALE, ::SCALE]
    pairs = make(photos(2), stage=stage, pairs=(truth, small))
    image = truth[0].double().numpy() / 255
    np.testing.assert_allclose(pairs.sharp[2].numpy(), usm(image), atol=0.5 / 255)
    np.testing.assert_allclose(pairs.hr[2].numpy(), image if plain else usm(image), atol=0.5 / 255)
    assert torch.equal(pairs.lr[2], small[0].float() / 255)


def parts(recipe, iteration=0, count=4):
    """Return what each of two processes makes of its half of a batch."""
    images = photos(2 * count)
    worlds = [World(rank=rank, size=2, device=CPU) for rank in range(2)]
    return [make(images[world.rank * count :][:count], recipe, world=world, iteration=iteration) for world in worlds]


def test_each_process_of_a_faithful_run_has_one_plan_of_sizes():
    plans = []
    for iteration in range(5):
        first, second = parts(FAITHFUL, iteration)
        for own in (first.drawn, second.drawn):
            assert len({sample.shared for sample in own}) == 1
            assert len({(sample.first.noise.kind, sample.crop_yx) for sample in own}) == 1
        plans.append((first.drawn[0].shared, second.drawn[0].shared))
    assert all(own != other for own, other in plans)


def test_where_groups_are_small_two_processes_make_what_one_makes():
    recipe = dataclasses.replace(CORRECTED, group=3)
    whole = make(photos(8), recipe)
    first, second = parts(recipe)
    assert torch.equal(torch.cat([first.lr, second.lr]), whole.lr)
    assert torch.equal(torch.cat([first.sharp, second.sharp]), whole.sharp)
    assert first.drawn.samples + second.drawn.samples == whole.drawn.samples


def test_a_degradation_that_was_recorded_gives_the_pair_again():
    images = photos(4)
    pairs = make(images, FAITHFUL)
    sharp = torch.stack([torch.from_numpy(usm(each.double().numpy() / 255)).float() for each in images])
    again = apply(sharp, pairs.drawn)
    side = CROP_PX // SCALE
    for own, small, sample in zip(pairs.lr, again, pairs.drawn, strict=True):
        top, left = sample.crop_yx
        assert (own - small[:, top : top + side, left : left + side]).abs().mean() < 1 / 255
