"""Checks the whole degradation: deterministic, sample by sample, and sound for all kinds of images."""

import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from realesr.errors import UsageError
from realesr.train.degrade import codecs
from realesr.train.degrade.apply import apply, crop_pair
from realesr.train.degrade.degradation import CodecDraw, Degradation, NoiseDraw, ResizeDraw, SharedDraw, StageDraw
from realesr.train.degrade.draw import draw
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL, DegradeRecipe
from tests.train.waiting import waiting_is_an_error

RECIPES = [CORRECTED, FAITHFUL]


def drawn(recipe: DegradeRecipe, n: int, size: tuple[int, int] = (96, 96), seed: int = 0, **more: Any) -> Degradation:
    return draw(recipe, n, torch.Generator().manual_seed(seed), hr_px=size, scale=4, **more)


def photo(n: int, size: tuple[int, int] = (96, 96)) -> torch.Tensor:
    """Return smooth shapes with edges, other ones in each image."""
    noise = np.random.default_rng(6).random((n, 3, *size))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 3, 3))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.from_numpy(np.where(smooth > 0.5, smooth, smooth / 2).astype(np.float32))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("seed", range(4))
def test_the_same_pixels_come_again_also_from_json(recipe: DegradeRecipe, seed: int) -> None:
    hr, degradation = photo(6), drawn(recipe, 6, seed=seed)
    again = Degradation.from_json(json.loads(json.dumps(degradation.to_json())))
    first = apply(hr, degradation)
    assert torch.equal(first, apply(hr, degradation))
    assert torch.equal(first, apply(hr, again))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("seed", range(4))
def test_slices_give_the_pixels_of_their_samples(recipe: DegradeRecipe, seed: int) -> None:
    hr, degradation = photo(7), drawn(recipe, 7, seed=seed)
    whole = apply(hr, degradation)
    parts = [apply(hr[a:b], degradation[a:b]) for a, b in ((0, 1), (1, 3), (3, 6), (6, 7))]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("recipe", RECIPES)
def test_lr_has_its_size_and_is_of_8_bits(recipe: DegradeRecipe) -> None:
    hr = photo(4, (100, 75))
    before = hr.clone()
    lr = apply(hr.requires_grad_(), drawn(recipe, 4, (100, 75)))
    assert lr.shape == (4, 3, 25, 18)
    assert lr.dtype == torch.float32
    assert not lr.requires_grad
    assert torch.equal(lr, (lr * 255).round() / 255)
    assert float(lr.min()) >= 0
    assert float(lr.max()) <= 1
    assert torch.equal(hr.detach(), before)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [(4, 4), (5, 64), (16, 9), (64, 40)])
@pytest.mark.parametrize("level", [0.0, 1.0, 0.3])
def test_black_white_and_tiny_images_stay_sound(recipe: DegradeRecipe, size: tuple[int, int], level: float) -> None:
    for seed in range(3):
        lr = apply(torch.full((3, 3, *size), level), drawn(recipe, 3, size, seed))
        assert lr.shape == (3, 3, size[0] // 4, size[1] // 4)
        assert bool(torch.isfinite(lr).all())
        assert float(lr.min()) >= 0
        assert float(lr.max()) <= 1


def test_a_line_of_one_pixel_survives_every_step() -> None:
    line = torch.zeros(8, 3, 64, 64)
    line[:, :, 32] = 1
    lr = apply(line, drawn(CORRECTED, 8, (64, 64)))
    assert bool(torch.isfinite(lr).all())


def bare(degradation: Degradation) -> Degradation:
    """Return the same sizes and modes without noise, blur and JPEG."""
    nothing = StageDraw(blur=None, noise=None, codec=None)
    samples = [dataclasses.replace(s, first=nothing, second=nothing, final_sinc=None) for s in degradation]
    return dataclasses.replace(degradation, samples=tuple(samples))


def shift(lr: torch.Tensor, truth: torch.Tensor) -> float:
    """Return how many LR px the right part of an image is shifted to the right: a least-squares fit of row sums."""
    slope = torch.gradient(truth, dim=-1)[0]
    right = slice(int(truth.shape[-1] * 0.75), truth.shape[-1] - 4)
    difference, slope = (truth - lr)[..., 4:-4, right], slope[..., 4:-4, right]
    return float((difference * slope).sum() / (slope * slope).sum())


def test_lr_lies_where_hr_lies_and_not_so_in_the_reference() -> None:
    """Apply the three resizes alone to a smooth image: the shift is under a tenth of an LR px at the right."""
    smooth = torch.from_numpy(
        ndimage.gaussian_filter(np.random.default_rng(8).random((1, 3, 400, 400)), (0, 0, 16, 16)).astype(np.float32)
    )
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    truth = torch.nn.functional.avg_pool2d(smooth, 4)
    shifts = {}
    for recipe in RECIPES:
        degradation = bare(drawn(dataclasses.replace(recipe, group=1), 24, (400, 400), seed=2))
        found = [shift(apply(smooth, degradation[at : at + 1]), truth) for at in range(24)]
        shifts[recipe.arithmetic] = max(map(abs, found))
    assert shifts["corrected"] < 0.1
    assert shifts["faithful"] > 0.2


def steps(order: str) -> Degradation:
    """Return one sample with one JPEG of bad quality, and a final resize to a quarter of the size."""
    full, quarter = (ResizeDraw(mode="bilinear", height_px=px, width_px=px, factor=1.0) for px in (64, 16))
    shared = SharedDraw(first_resize=full, second_resize=full, final_resize=quarter, codec_first=order == "codec first")
    nothing = StageDraw(blur=None, noise=None, codec=None)
    last = dataclasses.replace(nothing, codec=CodecDraw(codec="jpeg", quality=5.0, subsampling="4:4:4"))
    base = drawn(CORRECTED, 1, (64, 64))
    sample = dataclasses.replace(base[0], shared=shared, first=nothing, second=last, final_sinc=None)
    return dataclasses.replace(base, samples=(sample,))


@pytest.mark.parametrize("order", ["codec first", "codec last"])
def test_the_order_of_the_last_steps_is_as_drawn(order: str) -> None:
    """Compare with libjpeg; bilinear to a quarter is the mean of the middle four of sixteen pixels."""
    hr = (photo(1, (64, 64)) * 255).round() / 255
    pixels = (hr[0] * 255).round().byte().permute(1, 2, 0).numpy()

    def coded(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=5, subsampling=0)
        return np.asarray(Image.open(file))

    def shrunk(image: np.ndarray) -> Any:
        middle = image.astype(np.float64).reshape(16, 4, 16, 4, 3)[:, 1:3, :, 1:3]
        return np.rint(middle.mean((1, 3))).astype(np.uint8)

    expected = shrunk(coded(pixels)) if order == "codec first" else coded(shrunk(pixels))
    made = (apply(hr, steps(order))[0] * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(made - expected).mean() < 0.6


def test_one_grey_field_serves_the_batch_in_the_faithful_arithmetic_alone() -> None:
    flat = torch.full((8, 3, 96, 96), 0.5)
    found = {}
    for recipe in RECIPES:
        always_grey = dataclasses.replace(recipe.second, gaussian=1.0, grey=1.0, gaussian_levels=(10.0, 20.0))
        degradation = drawn(dataclasses.replace(recipe, group=0, second=always_grey), 8)
        only_noise = []
        for sample in degradation:
            stage = StageDraw(blur=None, noise=sample.second.noise, codec=None)
            nothing = StageDraw(blur=None, noise=None, codec=None)
            only_noise.append(dataclasses.replace(sample, first=nothing, second=stage, final_sinc=None))
        lr = apply(flat, dataclasses.replace(degradation, samples=tuple(only_noise)))
        found[recipe.arithmetic] = abs(np.corrcoef(lr[0].flatten(), lr[1].flatten())[0, 1])
    assert found["faithful"] > 0.9
    assert found["corrected"] < 0.3


def test_crops_are_partners_and_lie_where_they_were_drawn() -> None:
    """Give each pixel of the LR its own place as its value, and each of the HR that of its LR pixel."""
    degradation = drawn(CORRECTED, 5, (64, 48), crop_px=32)
    place = torch.arange(16 * 12, dtype=torch.float32).view(1, 1, 16, 12).repeat(5, 3, 1, 1)
    lr, hr = crop_pair(place, place.repeat_interleave(4, 2).repeat_interleave(4, 3), degradation, 32)
    assert lr.shape == (5, 3, 8, 8)
    assert torch.equal(lr.repeat_interleave(4, 2).repeat_interleave(4, 3), hr)
    for sample, crop in zip(degradation, lr, strict=True):
        assert sample.crop_yx is not None
        assert float(crop[0, 0, 0]) == sample.crop_yx[0] * 12 + sample.crop_yx[1]


def test_what_does_not_fit_the_draw_is_refused() -> None:
    degradation = drawn(CORRECTED, 2, crop_px=64)
    for hr in (photo(3), photo(2, (96, 92)), photo(2).double(), photo(2)[:, :1]):
        with pytest.raises(UsageError, match="expected"):
            apply(hr, degradation)
    lr = apply(photo(2), degradation)
    with pytest.raises(UsageError, match="give draw the same crop_px"):
        crop_pair(lr, photo(2), degradation, 32)
    with pytest.raises(UsageError, match="give draw the same crop_px"):
        crop_pair(lr, photo(2), drawn(CORRECTED, 2), 64)


def test_an_empty_batch_gives_an_empty_one() -> None:
    degradation = drawn(CORRECTED, 4, crop_px=64)[2:2]
    lr = apply(torch.empty(0, 3, 96, 96), degradation)
    assert lr.shape == (0, 3, 24, 24)
    assert crop_pair(lr, torch.empty(0, 3, 96, 96), degradation, 64)[0].shape == (0, 3, 16, 16)


@pytest.mark.parametrize("codec", ["webp", "avif"])
def test_other_codecs_are_those_of_pillow_and_reach_only_their_samples(codec: Any) -> None:
    pytest.importorskip("PIL.features").check(codec) or pytest.skip(f"this Pillow has no {codec}")
    chances = {"webp": 0.0, "avif": 0.0} | {codec: 0.5}
    degradation = drawn(dataclasses.replace(CORRECTED, **chances), 8, seed=3)
    names = [sample.second.codec.codec for sample in degradation if sample.second.codec]
    assert {"jpeg", codec} == set(names)
    whole = apply(photo(8), degradation)
    assert torch.equal(whole[2:5], apply(photo(8)[2:5], degradation[2:5]))
    image = photo(1)[0]
    coded = codecs.recompress(image, codec, 20)
    assert 0 < float((coded - image).abs().mean()) < 0.1
    assert torch.equal(coded, (coded * 255).round() / 255)


def test_settings_of_the_networks_arithmetic_change_nothing_and_are_put_back() -> None:
    hr, degradation = photo(4), drawn(CORRECTED, 4)
    plain = apply(hr, degradation)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(plain, apply(hr, degradation))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("recipe", RECIPES)
def test_python_never_asks_for_the_value_of_a_pixel(recipe: DegradeRecipe) -> None:
    """Run on the device `meta`, which has no values: whatever needed one, or a shape that depends on one, would fail.

    Noise is left out, since that device has no random numbers; its own test is below.
    """
    degradation = drawn(recipe, 8)
    quiet = [
        dataclasses.replace(
            sample,
            first=dataclasses.replace(sample.first, noise=None),
            second=dataclasses.replace(sample.second, noise=None),
        )
        for sample in degradation
    ]
    lr = apply(torch.empty(8, 3, 96, 96, device="meta"), dataclasses.replace(degradation, samples=tuple(quiet)))
    assert lr.shape == (8, 3, 24, 24)


@pytest.mark.parametrize("arithmetic", ["corrected", "faithful"])
def test_noise_never_asks_for_the_value_of_a_pixel(arithmetic: Any) -> None:
    """Make every operation fail that would send a value to the host."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from realesr.train.degrade.noise import add_noise

    class NoHost(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            assert not any(word in str(func) for word in ("_local_scalar_dense", "unique", "nonzero", "equal"))
            return func(*args, **(kwargs or {}))

    draws = [
        NoiseDraw(kind=kind, strength=2.0, grey=grey, seed=seed)  # type: ignore[arg-type]
        for seed, (kind, grey) in enumerate(
            [("gaussian", True), ("gaussian", False), ("poisson", True), ("poisson", False)]
        )
    ]
    with NoHost():
        add_noise(photo(4), draws, arithmetic=arithmetic, photons=256)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_gpu_is_never_waited_for(recipe: DegradeRecipe) -> None:
    hr, degradation = photo(8).cuda(), drawn(recipe, 8, crop_px=64)
    apply(hr, degradation)  # constants are moved once
    with waiting_is_an_error():
        lr = apply(hr, degradation)
        crop_pair(lr, hr, degradation, 64)
    assert torch.equal(lr, apply(hr, degradation))
