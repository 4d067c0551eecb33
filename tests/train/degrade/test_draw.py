"""Checks the distributions of draws: chi-square over twenty thousand samples, without touching an image."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch
from scipy import stats

from realesr.errors import UsageError
from realesr.train.degrade.degradation import Degradation, SampleDraw
from realesr.train.degrade.draw import draw
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL, DegradeRecipe, DegradeStage

LEAST_P = 1e-4
ONE_BY_ONE = dataclasses.replace(CORRECTED, group=1)
FAITHFUL_ONE_BY_ONE = dataclasses.replace(FAITHFUL, group=1)
SIDES = (7, 9, 11, 13, 15, 17, 19, 21)
FAMILIES = {
    "gaussian": 0.405,
    "gaussian_aniso": 0.225,
    "generalised": 0.108,
    "generalised_aniso": 0.027,
    "plateau": 0.108,
    "plateau_aniso": 0.027,
    "sinc": 0.1,
}


def drawn(recipe: DegradeRecipe, n: int, seed: int = 0, **sizes: Any) -> Degradation:
    wanted: dict[str, Any] = {"hr_px": (400, 400), "scale": 4, "crop_px": 256} | sizes
    return draw(recipe, n, torch.Generator().manual_seed(seed), **wanted)


@functools.cache
def many(recipe: DegradeRecipe = ONE_BY_ONE) -> Degradation:
    """Draw samples that are each a group of its own, so that all are independent."""
    return drawn(recipe, 20_000, 1)


def check_counts(values: Iterable[Any], expected: Mapping[Any, float]) -> None:
    """Assert that values come as often as expected."""
    counts = Counter(values)
    assert set(counts) <= set(expected)
    total = sum(counts.values())
    result = stats.chisquare([counts[key] for key in expected], [total * share for share in expected.values()])
    assert result.pvalue > LEAST_P, counts


def check_uniform(values: Sequence[float], low: float, high: float) -> None:
    """Assert that values fill the range evenly, by twenty bins."""
    assert low <= min(values)
    assert max(values) <= high
    check_counts((min(int((value - low) / (high - low) * 20), 19) for value in values), dict.fromkeys(range(20), 0.05))


@pytest.mark.parametrize("recipe", [ONE_BY_ONE, FAITHFUL_ONE_BY_ONE])
def test_gates_and_kinds_come_as_often_as_in_the_paper(recipe: DegradeRecipe) -> None:
    samples = many(recipe)
    gates: list[tuple[Callable[[SampleDraw], bool], float]] = [
        (lambda s: s.second.blur is not None, 0.8),
        (lambda s: s.final_sinc is not None, 0.8),
        (lambda s: s.shared.codec_first, 0.5),
        (lambda s: s.first.noise is not None and s.first.noise.kind == "gaussian", 0.5),
        (lambda s: s.second.noise is not None and s.second.noise.kind == "gaussian", 0.5),
        (lambda s: s.first.noise is not None and s.first.noise.grey, 0.4),
        (lambda s: s.second.noise is not None and s.second.noise.grey, 0.4),
    ]
    for gate, share in gates:
        check_counts(map(gate, samples), {True: share, False: 1 - share})
    for sample in samples:
        assert sample.first.blur and sample.first.noise and sample.first.codec
        assert sample.second.noise and sample.second.codec


@pytest.mark.parametrize(("stage", "up", "keep"), [("first", 0.2, 0.1), ("second", 0.3, 0.3)])
def test_up_down_and_keep(stage: str, up: float, keep: float) -> None:
    resizes = [getattr(sample.shared, f"{stage}_resize") for sample in many()]
    ways = {1: up, 0: keep, -1: 1 - up - keep}
    check_counts(((resize.factor > 1) - (resize.factor < 1) for resize in resizes), ways)
    ups = [resize.factor for resize in resizes if resize.factor > 1]
    downs = [resize.factor for resize in resizes if resize.factor < 1]
    check_uniform(ups, 1, 1.5 if stage == "first" else 1.2)
    check_uniform(downs, 0.15 if stage == "first" else 0.3, 1)
    side = 400 if stage == "first" else 100
    assert all(resize.height_px == resize.width_px == math.floor(side * resize.factor) for resize in resizes)


def test_interpolations_are_as_likely() -> None:
    for name in ("first_resize", "second_resize", "final_resize"):
        modes = (getattr(sample.shared, name).mode for sample in many())
        check_counts(modes, dict.fromkeys(("area", "bilinear", "bicubic"), 1 / 3))
    assert {(s.shared.final_resize.height_px, s.shared.final_resize.width_px) for s in many()} == {(100, 100)}


@pytest.mark.parametrize(("stage", "sigma"), [("first", 3.0), ("second", 1.5)])
def test_kernels(stage: str, sigma: float) -> None:
    kernels = [blur for sample in many() if (blur := getattr(sample, stage).blur) is not None]
    check_counts((kernel.family for kernel in kernels), FAMILIES)
    check_counts((kernel.side_px for kernel in kernels), dict.fromkeys(SIDES, 1 / 8))
    check_uniform([kernel.sigma_x for kernel in kernels if kernel.family != "sinc"], 0.2, sigma)
    turned = [kernel for kernel in kernels if kernel.family.endswith("_aniso")]
    check_uniform([kernel.sigma_y for kernel in turned], 0.2, sigma)
    check_uniform([kernel.theta for kernel in turned], -math.pi, math.pi)
    round_ones = [kernel for kernel in kernels if not kernel.family.endswith("_aniso")]
    assert all(kernel.sigma_x == kernel.sigma_y and kernel.theta == 0 for kernel in round_ones)


def test_exponents_are_below_and_above_one_as_often_and_half_of_the_plateaus_have_one() -> None:
    kernels = [sample.first.blur for sample in many() if sample.first.blur is not None]
    generalised = [kernel.beta for kernel in kernels if kernel.family.startswith("generalised")]
    check_counts((beta < 1 for beta in generalised), {True: 0.5, False: 0.5})
    check_uniform([beta for beta in generalised if beta < 1], 0.5, 1)
    check_uniform([beta for beta in generalised if beta > 1], 1, 4)
    plateau = [kernel.beta for kernel in kernels if kernel.family.startswith("plateau")]
    check_counts((beta == 1 for beta in plateau), {True: 0.5, False: 0.5})
    check_uniform([beta for beta in plateau if beta > 1], 1, 2)


def test_cut_offs_depend_on_the_side_but_for_the_final_sinc() -> None:
    sincs = [s.first.blur for s in many() if s.first.blur is not None and s.first.blur.family == "sinc"]
    check_uniform([sinc.cutoff for sinc in sincs if sinc.side_px < 13], math.pi / 3, math.pi)
    check_uniform([sinc.cutoff for sinc in sincs if sinc.side_px >= 13], math.pi / 5, math.pi)
    final = [sample.final_sinc for sample in many() if sample.final_sinc is not None]
    check_counts((sinc.side_px for sinc in final), dict.fromkeys(SIDES, 1 / 8))
    check_uniform([sinc.cutoff for sinc in final], math.pi / 3, math.pi)


@pytest.mark.parametrize(("stage", "levels", "scale"), [("first", 30, 3.0), ("second", 25, 2.5)])
def test_strengths_of_noise(stage: str, levels: float, scale: float) -> None:
    noises = [getattr(sample, stage).noise for sample in many()]
    check_uniform([noise.strength for noise in noises if noise.kind == "gaussian"], 1, levels)
    check_uniform([noise.strength for noise in noises if noise.kind == "poisson"], 0.05, scale)
    assert len({noise.seed for noise in noises}) == len(noises)


def test_qualities_are_whole_and_chroma_varies_but_not_in_the_faithful_arithmetic() -> None:
    for stage in ("first", "second"):
        codecs = [getattr(sample, stage).codec for sample in many()]
        check_counts((codec.quality for codec in codecs), dict.fromkeys(map(float, range(30, 96)), 1 / 66))
        check_counts((codec.subsampling for codec in codecs), {"4:2:0": 0.7, "4:2:2": 0.15, "4:4:4": 0.15})
        codecs = [getattr(sample, stage).codec for sample in many(FAITHFUL_ONE_BY_ONE)]
        check_uniform([codec.quality for codec in codecs], 30, 95)
        assert {codec.subsampling for codec in codecs} == {"4:2:0"}


def test_crops_lie_everywhere_and_fit() -> None:
    for axis in (0, 1):
        corners = [sample.crop_yx[axis] for sample in many() if sample.crop_yx is not None]
        check_counts(corners, dict.fromkeys(range(37), 1 / 37))


def test_other_codecs_take_the_place_of_the_last_jpeg_only() -> None:
    recipe = dataclasses.replace(ONE_BY_ONE, webp=0.3, avif=0.2, webp_quality=(10, 20))
    samples = drawn(recipe, 4000)
    check_counts((s.second.codec.codec for s in samples if s.second.codec), {"jpeg": 0.5, "webp": 0.3, "avif": 0.2})
    assert {sample.first.codec.codec for sample in samples if sample.first.codec} == {"jpeg"}
    qualities = [s.second.codec.quality for s in samples if s.second.codec and s.second.codec.codec == "webp"]
    assert (min(qualities), max(qualities)) == (10, 20)


def test_corrected_samples_share_with_their_group_only_what_makes_their_size() -> None:
    samples = drawn(CORRECTED, 400)
    groups = [samples[start : start + 4] for start in range(0, 400, 4)]
    assert all(len({sample.shared for sample in group}) == 1 for group in groups)
    assert len({group[0].shared for group in groups}) == 100
    assert len({sample.first for sample in samples}) == 400
    noises = [{sample.first.noise.kind for sample in group if sample.first.noise} for group in groups]
    assert any(len(kinds) == 2 for kinds in noises)
    assert len({sample.crop_yx for sample in samples}) > 300


def test_faithful_samples_share_what_the_reference_draws_once_a_batch() -> None:
    for seed in range(10):
        batch = drawn(FAITHFUL, 12, seed)
        assert len({sample.shared for sample in batch}) == 1
        assert len({sample.crop_yx for sample in batch}) == 1
        assert len({sample.second.blur is None for sample in batch}) == 1
        for noises in ([s.first.noise for s in batch], [s.second.noise for s in batch]):
            assert len({noise.kind for noise in noises if noise}) == 1
            grey = {noise.seed for noise in noises if noise and noise.grey and noise.kind == "gaussian"}
            assert len(grey) <= 1
            assert len({noise.strength for noise in noises if noise}) == 12


def test_the_same_generator_draws_the_same_and_one_number_of_it_is_used() -> None:
    generator = torch.Generator().manual_seed(4)
    first = draw(CORRECTED, 8, generator, hr_px=(400, 400), scale=4)
    after = torch.randint(1000, (), generator=generator)
    assert first == drawn(CORRECTED, 8, 4, crop_px=None)
    generator.manual_seed(4)
    draw(FAITHFUL, 3, generator, hr_px=(64, 32), scale=2)
    assert torch.equal(torch.randint(1000, (), generator=generator), after)
    assert first != drawn(CORRECTED, 8, 5, crop_px=None)


@pytest.mark.parametrize(
    "sizes",
    [{"hr_px": (3, 400)}, {"crop_px": 404}, {"crop_px": 255}, {"crop_px": 0}, {"scale": 0}],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        drawn(CORRECTED, 2, **sizes)


def test_small_and_oblong_images_and_no_samples_can_be_drawn_for() -> None:
    for sample in drawn(CORRECTED, 100, hr_px=(4, 9), crop_px=4):
        assert sample.shared.first_resize.height_px >= 1
        assert (sample.shared.final_resize.height_px, sample.shared.final_resize.width_px) == (1, 2)
    assert len(drawn(FAITHFUL, 0)) == 0


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (DegradeStage, {"blur": 1.2}),
        (DegradeStage, {"resize": (0.0, 0.0, 0.0)}),
        (DegradeStage, {"sigma_px": (0.0, 1.0)}),
        (DegradeStage, {"jpeg_quality": (95.0, 30.0)}),
        (DegradeStage, {"down": (math.nan, 1.0)}),
        (DegradeRecipe, {"group": -1}),
        (DegradeRecipe, {"kernel_px": (8,)}),
        (DegradeRecipe, {"kernel_px": (23,)}),
        (DegradeRecipe, {"modes": ()}),
        (DegradeRecipe, {"webp": 0.6, "avif": 0.6}),
        (DegradeRecipe, {"photons": 0.0}),
        (DegradeRecipe, {"pool": -1}),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_with_what_would(kind: type, values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"{next(iter(values))}.*expected|expected.*{next(iter(values))}"):
        kind(**values)
