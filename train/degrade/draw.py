"""Draws every random number of a degradation. No pixels are touched, and no tensor is made."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from realesr.errors import UsageError
from realesr.train.degrade.degradation import (
    Codec,
    CodecDraw,
    Degradation,
    Family,
    H264Draw,
    KernelDraw,
    MotionDraw,
    NoiseDraw,
    OversharpenDraw,
    ResizeDraw,
    SampleDraw,
    SharedDraw,
    StageDraw,
    Subsampling,
)
from realesr.train.degrade.recipe import DegradeRecipe, DegradeStage, Range

FAMILIES: tuple[Family, ...] = (
    "gaussian",
    "gaussian_aniso",
    "generalised",
    "generalised_aniso",
    "plateau",
    "plateau_aniso",
)
"""Families of kernels in the order of DegradeStage.families."""

SUBSAMPLINGS: tuple[Subsampling, ...] = ("4:2:0", "4:2:2", "4:4:4")
"""Chroma subsamplings in the order of DegradeRecipe.subsampling."""

_LATER = 2**63
"""Added to the seed of the steps after the final ones: they have dice of their own, so that switching one of them on
changes no other number."""


def draw(
    recipe: DegradeRecipe,
    n: int,
    generator: torch.Generator,
    *,
    hr_px: tuple[int, int],
    scale: int,
    crop_px: int | None = None,
) -> Degradation:
    """Draw the degradation of n samples.

    Args:
        recipe: ranges and probabilities.
        n: samples; 0 or more.
        generator: on the CPU; one number is taken from it, whatever n and the recipe are.
        hr_px: height and width of the images to degrade, at least `scale` each.
        scale: of the network; the LR size is hr_px // scale.
        crop_px: side in HR px of the crops to draw, a multiple of `scale` that fits into the images; none are drawn
            without.

    Raises:
        UsageError: sizes that do not fit together.
    """
    _check_sizes(hr_px, scale, crop_px)
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    painter = _Draws(recipe, _Dice(seed), _Dice(seed + _LATER), hr_px, scale, crop_px)
    size = recipe.group or max(n, 1)
    samples = [sample for start in range(0, n, size) for sample in painter.group(min(size, n - start))]
    return Degradation(
        arithmetic=recipe.arithmetic,
        scale=scale,
        hr_px=hr_px,
        photons=recipe.photons,
        crop_px=crop_px,
        samples=tuple(samples),
    )


def _check_sizes(hr_px: tuple[int, int], scale: int, crop_px: int | None) -> None:
    if scale < 1 or min(hr_px) < scale:
        raise UsageError(
            f"got images of {hr_px[1]} x {hr_px[0]} px and scale {scale}, expected {scale} px or more a side"
        )
    if crop_px is None:
        return
    most = min(hr_px) // scale * scale
    if crop_px % scale or not scale <= crop_px <= most:
        raise UsageError(
            f"got crop_px = {crop_px}, expected a multiple of {scale} up to {most}, the side of the images"
        )


class _Dice:
    """A random generator that uses `random.Random.random` alone, whose sequence Python promises never to change."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def uniform(self, bounds: Range) -> float:
        low, high = bounds
        return low + (high - low) * self._random()

    def below(self, count: int) -> int:
        """Return a whole number in [0, count)."""
        return min(int(self._random() * count), count - 1)

    def seed(self) -> int:
        """Return a whole number in [0, 2**62)."""
        return self.below(2**31) << 31 | self.below(2**31)

    def one_of(self, values: Sequence[Any]) -> Any:
        return values[self.below(len(values))]

    def weighted(self, values: Sequence[Any], weights: Sequence[float]) -> Any:
        point = self._random() * sum(weights)
        for value, weight in zip(values, weights, strict=True):
            point -= weight
            if point < 0:
                return value
        return next(value for value, weight in zip(reversed(values), reversed(weights), strict=True) if weight)


@dataclass(frozen=True, kw_only=True)
class _BatchwiseDraws:
    """Draws that the reference makes once a batch though samples could differ in them (realesrgan_model.py, feed_data).

    Pairs are for the first and the second stage.
    """

    blurs: tuple[bool, bool]
    gaussian: tuple[bool, bool]
    grey_seeds: tuple[int, int]
    crop_yx: tuple[int, int] | None


class _Draws:
    """Draws the degradations of one batch."""

    def __init__(
        self,
        recipe: DegradeRecipe,
        dice: _Dice,
        later_dice: _Dice,
        hr_px: tuple[int, int],
        scale: int,
        crop_px: int | None,
    ) -> None:
        self._recipe, self._dice, self._later_dice = recipe, dice, later_dice
        self._hr_px, self._scale, self._crop_px = hr_px, scale, crop_px
        self._lr_px = (hr_px[0] // scale, hr_px[1] // scale)

    def group(self, count: int) -> list[SampleDraw]:
        """Return samples that share sizes and order of steps, and in the faithful arithmetic batchwise draws."""
        shared = self._shared()
        if self._recipe.arithmetic == "corrected":
            return [self._sample(shared, self._batchwise()) for _ in range(count)]
        batchwise = self._batchwise()
        return [self._sample(shared, batchwise) for _ in range(count)]

    def _batchwise(self) -> "_BatchwiseDraws":
        recipe, dice = self._recipe, self._dice
        return _BatchwiseDraws(
            blurs=(dice.chance(recipe.first.blur), dice.chance(recipe.second.blur)),
            gaussian=(dice.chance(recipe.first.gaussian), dice.chance(recipe.second.gaussian)),
            grey_seeds=(dice.seed(), dice.seed()),
            crop_yx=self._crop(),
        )

    def _shared(self) -> SharedDraw:
        recipe = self._recipe
        return SharedDraw(
            first_resize=self._resize(recipe.first, self._hr_px),
            second_resize=self._resize(recipe.second, self._lr_px),
            final_resize=self._sized(self._lr_px, 1.0),
            codec_first=self._dice.chance(recipe.jpeg_first),
        )

    def _sample(self, shared: SharedDraw, batchwise: "_BatchwiseDraws") -> SampleDraw:
        recipe, dice = self._recipe, self._dice
        motion, oversharpen, h264 = self._later_steps()
        return SampleDraw(
            shared=shared,
            first=self._stage(recipe.first, batchwise, 0),
            second=self._stage(recipe.second, batchwise, 1),
            final_sinc=self._final_sinc() if dice.chance(recipe.final_sinc) else None,
            motion=motion,
            oversharpen=oversharpen,
            h264=h264,
            crop_yx=batchwise.crop_yx,
        )

    def _stage(self, stage: DegradeStage, batchwise: "_BatchwiseDraws", number: int) -> StageDraw:
        dice = self._dice
        return StageDraw(
            blur=self._kernel(stage) if batchwise.blurs[number] else None,
            noise=self._noise(stage, batchwise, number) if dice.chance(stage.noise) else None,
            codec=self._codec(stage, is_last=number == 1) if dice.chance(stage.jpeg) else None,
        )

    def _resize(self, stage: DegradeStage, size: tuple[int, int]) -> ResizeDraw:
        dice = self._dice
        direction = dice.weighted(("up", "down", "keep"), stage.resize)
        factor = 1.0 if direction == "keep" else dice.uniform(stage.up if direction == "up" else stage.down)
        return self._sized(size, factor)

    def _sized(self, size: tuple[int, int], factor: float) -> ResizeDraw:
        height_px, width_px = (max(1, math.floor(side * factor)) for side in size)
        mode = self._dice.one_of(self._recipe.modes)
        return ResizeDraw(mode=mode, height_px=height_px, width_px=width_px, factor=factor)

    def _kernel(self, stage: DegradeStage) -> KernelDraw:
        """Draw a kernel. Source: realesrgan_dataset.py; basicsr/data/degradations.py, random_mixed_kernels."""
        dice, side_px = self._dice, self._dice.one_of(self._recipe.kernel_px)
        if dice.chance(stage.sinc):
            bounds = self._recipe.small_sinc_cutoff if side_px < 13 else self._recipe.sinc_cutoff
            return KernelDraw(family="sinc", side_px=side_px, cutoff=dice.uniform(bounds))
        family = dice.weighted(FAMILIES, stage.families)
        sigma_x = sigma_y = dice.uniform(stage.sigma_px)
        theta = beta = 0.0
        if family.endswith("_aniso"):
            sigma_y, theta = dice.uniform(stage.sigma_px), dice.uniform((-math.pi, math.pi))
        if not family.startswith("gaussian"):
            beta = self._beta(stage.beta_plateau if family.startswith("plateau") else stage.beta_generalised)
        return KernelDraw(family=family, side_px=side_px, sigma_x=sigma_x, sigma_y=sigma_y, theta=theta, beta=beta)

    def _beta(self, bounds: Range) -> float:
        low, high = bounds
        middle = min(max(1.0, low), high)
        return self._dice.uniform((low, middle) if self._dice.chance(0.5) else (middle, high))

    def _final_sinc(self) -> KernelDraw:
        side_px = self._dice.one_of(self._recipe.kernel_px)
        return KernelDraw(family="sinc", side_px=side_px, cutoff=self._dice.uniform(self._recipe.small_sinc_cutoff))

    def _later_steps(self) -> tuple[MotionDraw | None, OversharpenDraw | None, H264Draw | None]:
        """Draw the steps after the final ones: as many numbers whether they are on or off."""
        recipe, dice = self._recipe, self._later_dice
        has_motion, has_halos, has_h264 = (
            dice.chance(probability) for probability in (recipe.motion_blur, recipe.oversharpen, recipe.h264)
        )
        motion = MotionDraw(length_px=dice.uniform(recipe.motion_px), angle=dice.uniform((0, math.pi)))
        oversharpen = OversharpenDraw(
            amount=dice.uniform(recipe.oversharpen_amount), sigma_px=dice.uniform(recipe.oversharpen_sigma_px)
        )
        h264 = H264Draw(crf=dice.uniform(recipe.h264_crf))
        return motion if has_motion else None, oversharpen if has_halos else None, h264 if has_h264 else None

    def _noise(self, stage: DegradeStage, batchwise: "_BatchwiseDraws", number: int) -> NoiseDraw:
        dice, gaussian = self._dice, batchwise.gaussian[number]
        grey, own_seed = dice.chance(stage.grey), dice.seed()
        shares_field = self._recipe.arithmetic == "faithful" and gaussian and grey
        return NoiseDraw(
            kind="gaussian" if gaussian else "poisson",
            strength=dice.uniform(stage.gaussian_levels if gaussian else stage.poisson_scale),
            grey=grey,
            seed=batchwise.grey_seeds[number] if shares_field else own_seed,
        )

    def _codec(self, stage: DegradeStage, *, is_last: bool) -> CodecDraw:
        recipe, dice = self._recipe, self._dice
        weights = (1 - recipe.webp - recipe.avif, recipe.webp, recipe.avif) if is_last else (1.0, 0.0, 0.0)
        codec: Codec = dice.weighted(("jpeg", "webp", "avif"), weights)
        bounds = {"jpeg": stage.jpeg_quality, "webp": recipe.webp_quality, "avif": recipe.avif_quality}[codec]
        if recipe.arithmetic == "faithful":
            return CodecDraw(codec=codec, quality=dice.uniform(bounds), subsampling="4:2:0")
        low, high = math.ceil(bounds[0]), math.floor(bounds[1])
        quality = float(low + dice.below(max(high - low, 0) + 1))
        return CodecDraw(codec=codec, quality=quality, subsampling=dice.weighted(SUBSAMPLINGS, recipe.subsampling))

    def _crop(self) -> tuple[int, int] | None:
        if self._crop_px is None:
            return None
        side_px = self._crop_px // self._scale
        top, left = (self._dice.below(side - side_px + 1) for side in self._lr_px)
        return top, left
