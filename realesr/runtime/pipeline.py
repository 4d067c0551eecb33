"""Turns decoded rows into rows to encode: colour and alpha through the network, to the requested size.

decoded rows -> planes in [0, 1] -+-> colour: bleed -> network, once or more -> Lanczos -> grey again -+-> mix -+-> rows
                                  |             +----> Lanczos, where less of the network is wanted ---+        |
                                  +-> alpha:  network or Lanczos, or one constant ------------------------------+
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import LargeEnough, UsageError
from realesr.images.info import ImageInfo
from realesr.options import MAX_SCALE, ImageOptions
from realesr.runtime.alpha import bleed_bands, limit_bands
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.kept_rows import KeptRows
from realesr.runtime.resize import resize_bands
from realesr.runtime.rows import Band, FinishedBand, RowWindow, in_chunks, rounded_to_levels
from realesr.runtime.strength import mixed_bands
from realesr.runtime.strip_bands import enlarge_rows
from realesr.runtime.tiled import enlarge_to_levels, plan_for
from realesr.target_size import TargetSize

Rows = NDArray[np.uint8] | NDArray[np.uint16]

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in grey. Source: ITU-R BT.601."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes (height, width) in px on the way through one image."""

    input: tuple[int, int]
    passes: int
    """Number of times that the network runs, one after the other."""
    output: tuple[int, int]

    def before_pass(self, index: int, network_scale: int) -> tuple[int, int]:
        """Return the size (height, width) in px of the input of pass `index`."""
        factor = network_scale**index
        return self.input[0] * factor, self.input[1] * factor


def plan_sizes(
    height_px: int, width_px: int, network_scale: int, scale: float | None, size: TargetSize | None = None
) -> Sizes:
    """Return the number of passes through the network and the size of the result.

    The number of passes is the one whose scale is nearest to what is asked, as a ratio; the fewer where two are as
    near, and none where no side grows to a `size`.
    """
    if size is not None:
        to_width_px, to_height_px = size.output_px(width_px, height_px)
        output = (to_height_px, to_width_px)
        scale = max(output) / max(height_px, width_px)
    else:
        scale = float(network_scale) if scale is None else scale
        output = (max(1, math.floor(height_px * scale + 0.5)), max(1, math.floor(width_px * scale + 0.5)))
    if size is not None and output[0] <= height_px and output[1] <= width_px:
        passes = 0
    elif network_scale == 1:
        passes = 1
    else:
        half_way = 0.5 + 1e-9  # a tie takes the fewer passes
        passes = max(1, math.floor(math.log(scale, network_scale) + 1 - half_way))
    return Sizes(input=(height_px, width_px), passes=passes, output=output)


def check_target_size(info: ImageInfo, options: ImageOptions, name: str) -> None:
    """Raise where an image has the size that is asked for, or cannot come to it; `name` is for the message.

    Raises:
        LargeEnough: it is as large already, or larger and not to be shrunk.
        UsageError: it would be enlarged by more than MAX_SCALE.
    """
    size, width, height = options.size, info.width_px, info.height_px
    if size is None:
        return
    if size.is_met_by(width, height, shrink=options.shrink):
        raise LargeEnough(
            f"{name} is {width} x {height} px, large enough for {size.in_words}",
            option=None if options.shrink else "shrink",
        )
    output = size.output_px(width, height)
    scale = max(output) / max(width, height)
    if scale > MAX_SCALE:
        raise UsageError(
            f"{name} is {width} x {height} px, and {size.in_words} would enlarge it {math.ceil(10 * scale) / 10:.1f} "
            f"times, expected at most {MAX_SCALE:g}: choose a smaller size",
        )


def sizes_for(info: ImageInfo, network_scale: int, options: ImageOptions) -> Sizes:
    """Return the sizes on the way of one image; without a pass of the network where nothing of it is wanted."""
    sizes = plan_sizes(info.height_px, info.width_px, network_scale, options.scale, options.size)
    return sizes if options.strength > 0 else replace(sizes, passes=0)


@dataclass(frozen=True, kw_only=True)
class EnlargeJob:
    """One image on its way through one network."""

    info: ImageInfo
    """Facts about the input."""
    pool: EnginePool
    options: ImageOptions
    constant_alpha: float | None = None
    """The one value in [0, 1] that alpha has everywhere; none where it varies."""
    on_pixels: Callable[[int], None] | None = None
    """Called with the input pixels that were finished since; `work_px` in all."""
    kept: KeptRows | None = None
    """Rows that an earlier run has finished, and where those of this one go; none where none are kept."""

    @property
    def sizes(self) -> Sizes:
        """Return the sizes on the way."""
        return sizes_for(self.info, self.pool.spec.scale, self.options)

    @property
    def varying_alpha(self) -> bool:
        """Return whether there is an alpha channel that has to be enlarged."""
        return self.info.has_alpha and self.constant_alpha is None

    @property
    def ends_with_network(self) -> bool:
        """Return whether nothing is left to be done to what one pass of the network gives but rounding to 8 bits."""
        sizes, info = self.sizes, self.info
        is_plain = info.bits == 8 and not info.is_grey and not info.has_alpha and self.options.strength == 1
        return is_plain and sizes.passes == 1 and sizes.before_pass(1, self.pool.spec.scale) == sizes.output

    @property
    def work_px(self) -> int:
        """Return the pixels that the network reads over all passes, overlaps not counted."""
        scale, sizes = self.pool.spec.scale, self.sizes
        plans = [plan_for(self.pool, *sizes.before_pass(i, scale)) for i in range(sizes.passes)]
        area = sum(plan.rows.length_px * plan.columns.length_px for plan in plans)
        return area * (2 if self.varying_alpha and self.options.alpha == "network" else 1)


def enlarge(planes: Iterator[Band], job: EnlargeJob) -> Iterator[Band]:
    """Enlarge an image to the requested size.

    Args:
        planes: (channels, rows, width) float32 in [0, 1], top to bottom; colour, then alpha, as in `job.info`.
        job: what is done to them.

    Yields:
        (channels, rows, output width) float32, not clamped; the same channels.
    """
    if not job.info.has_alpha:
        return _enlarge_colour(planes, job)
    if job.constant_alpha is not None:
        colour = (part[:-1] for part in planes)
        value = np.float32(job.constant_alpha)
        return (np.concatenate([band, np.full_like(band[:1], value)]) for band in _enlarge_colour(colour, job))
    first, second = itertools.tee(planes)
    colour_bands = _enlarge_colour(bleed_bands(first, height_px=job.info.height_px), job)
    alpha_bands = _enlarge_alpha((part[-1:] for part in second), job)
    return _stack(colour_bands, alpha_bands, height_px=job.sizes.output[0])


def enlarge_to_rows(planes: Iterator[Band], job: EnlargeJob) -> Iterator[Rows]:
    """Enlarge an image to the requested size, clamped and rounded to levels; see `enlarge`.

    Yields:
        (rows, output width, channels) uint8 or uint16, as `job.info.bits` says.
    """
    return rows_from_bands(bands_for_rows(planes, job), job.info.bits)


def bands_for_rows(planes: Iterator[Band], job: EnlargeJob) -> Iterator[Band | FinishedBand]:
    """Enlarge an image to bands for `rows_from_bands`: already rounded to levels where the engine can do that.

    It can where it joins tiles and nothing is left to be done to what the network gives.
    """
    height, width = job.sizes.input
    if job.pool.joins_tiles and job.ends_with_network:
        return enlarge_to_levels(planes, job.pool, height_px=height, width_px=width, on_pixels=job.on_pixels)
    return enlarge(planes, job)


def _enlarge_colour(colour: Iterator[Band], job: EnlargeJob) -> Iterator[Band]:
    sizes, strength = job.sizes, job.options.strength
    if not sizes.passes:
        return _resize(colour, sizes.input, sizes.output)
    if strength == 1:
        return _enlarge_colour_by_network(colour, job)
    source, own = itertools.tee(colour)
    network, lanczos = _enlarge_colour_by_network(source, job), _resize(own, sizes.input, sizes.output)
    return mixed_bands(network, lanczos, strength=strength, size=sizes.input, to_size=sizes.output)


def _enlarge_colour_by_network(colour: Iterator[Band], job: EnlargeJob) -> Iterator[Band]:
    if not job.info.is_grey:
        return _enlarge_rgb(colour, job, "colour")
    rgb = _enlarge_rgb((np.repeat(band, 3, axis=0) for band in colour), job, "colour")
    return (np.tensordot(LUMA_WEIGHTS, band, axes=1)[None] for band in rgb)


def _enlarge_alpha(alpha: Iterator[Band], job: EnlargeJob) -> Iterator[Band]:
    sizes = job.sizes
    if job.options.alpha == "lanczos" or not sizes.passes:
        return _resize(alpha, sizes.input, sizes.output)
    source, kept = itertools.tee(alpha)
    rgb = _enlarge_rgb((np.repeat(band, 3, axis=0) for band in source), job, "alpha")
    enlarged = (band.mean(axis=0, keepdims=True) for band in rgb)
    return limit_bands(enlarged, kept, size=sizes.input, to_size=sizes.output)


def _enlarge_rgb(bands: Iterator[Any], job: EnlargeJob, name: str) -> Iterator[Any]:
    """Run the network over RGB bands as often as needed, then resize; `name` is that of the channels, for `job.kept`.

    Bands are float32 but where `job.ends_with_network`: what is kept then comes as levels.
    """
    scale, sizes = job.pool.spec.scale, job.sizes
    for index in range(sizes.passes):
        height, width = sizes.before_pass(index, scale)
        if index:
            bands = map(_clamped, bands)
        kept = job.kept.stream(f"{name}{index}", as_levels=job.ends_with_network) if job.kept else None
        bands = enlarge_rows(bands, job.pool, height_px=height, width_px=width, on_pixels=job.on_pixels, kept=kept)
    return _resize(bands, sizes.before_pass(sizes.passes, scale), sizes.output)


def _resize(bands: Iterator[Band], size: tuple[int, int], to_size: tuple[int, int]) -> Iterator[Band]:
    return resize_bands(bands, height_px=size[0], width_px=size[1], to_height_px=to_size[0], to_width_px=to_size[1])


def _clamped(band: Band) -> Band:
    return band.clip(0, 1)


def _stack(colour: Iterator[Band], alpha: Iterator[Band], *, height_px: int) -> Iterator[Band]:
    """Join the channels of two streams of bands, whose bands differ in rows."""
    colour_window, alpha_window = RowWindow(colour), RowWindow(alpha)
    for start, stop in in_chunks(height_px):
        yield np.concatenate([colour_window.rows(start, stop), alpha_window.rows(start, stop)])


def planes_from_rows(rows: Iterable[Rows], bits: int) -> Iterator[Band]:
    """Convert (rows, width, channels) integers of `bits` bits to (channels, rows, width) float32 in [0, 1]."""
    for part in rows:
        planes = np.ascontiguousarray(part.transpose(2, 0, 1), np.float32)
        yield np.divide(planes, np.float32(2**bits - 1), out=planes)


def rows_from_bands(bands: Iterable[Band | FinishedBand], bits: int) -> Iterator[Rows]:
    """Convert (channels, rows, width) float32 to (rows, width, channels) uint8 or uint16, clamped and rounded.

    Bands that are levels already only have their axes turned.
    """
    for band in bands:
        for start, stop in in_chunks(band.shape[1]):
            yield _quantise(band[:, start:stop], bits)


def _quantise(band: Band | FinishedBand, bits: int) -> Rows:
    """Clamp and round a band plane by plane, which is four times as fast as transposing the whole band."""
    if band.dtype == np.uint8:
        return np.ascontiguousarray(band.transpose(1, 2, 0), np.uint8)
    channels, height, width = band.shape
    rows = np.empty((height, width, channels), np.uint8 if bits == 8 else np.uint16)
    for channel, plane in enumerate(band):
        rows[:, :, channel] = rounded_to_levels(plane, bits)
    return rows
