"""Draws a picture of what a recipe makes of a photo: degraded versions, with their parameters under each."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from realesr.errors import InputError, UsageError
from realesr.images.reader import open_image
from realesr.train.degrade.apply import apply
from realesr.train.degrade.codecs import check_codecs
from realesr.train.degrade.degradation import CodecDraw, Degradation, KernelDraw, NoiseDraw, ResizeDraw, SampleDraw
from realesr.train.degrade.draw import draw
from realesr.train.degrade.filters import sharpen
from realesr.train.degrade.recipe import DegradeRecipe

SIDE_PX = 400
"""Side of the part of a photo that is degraded: what training reads of each image."""

_TEXT_PX, _LINE_PX, _GAP_PX, _LEAST_CELL_PX = 13, 17, 12, 300


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A part of a photo, and how it is degraded."""

    hr: Tensor
    """(3, H, W) float32 RGB in [0, 1]."""
    corner_yx: tuple[int, int]
    """Top left corner of the part in the photo."""
    degradation: Degradation
    sharpened: bool = True
    """Whether the part is sharpened before it is degraded."""

    def degraded(self) -> Tensor:
        """Return the degraded images that a network would get, (N, 3, H // scale, W // scale)."""
        hr = sharpen(self.hr[None]) if self.sharpened else self.hr[None]
        return apply(hr.repeat(len(self.degradation), 1, 1, 1), self.degradation)

    def picture(self) -> Image.Image:
        """Draw the original, then every degraded version enlarged by repeating pixels, each with its parameters."""
        scale = self.degradation.scale
        large = self.degraded().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        _, height, width = self.hr.shape
        cells = [(_as_image(self.hr), [f"original, {width} x {height} px"])]
        for number, (pixels, sample) in enumerate(zip(large, self.degradation, strict=True), start=1):
            cells.append((_as_image(pixels), [f"{number} of {len(large)}", *described(sample)]))
        return _sheet(cells)

    def to_json(self) -> dict[str, Any]:
        """Return what `replayed` needs beside the photo."""
        return {
            "corner_yx": list(self.corner_yx),
            "pixels_sha256": _hash(self.hr),
            "sharpened": self.sharpened,
            "degradation": self.degradation.to_json(),
        }


def previewed(
    photo: Path, recipe: DegradeRecipe, *, count: int, scale: int, seed: int, sharpened: bool = True
) -> Preview:
    """Draw `count` degradations of the middle of a photo.

    Raises:
        InputError: the photo cannot be read.
        UsageError: it is smaller than `scale`, or `count` below 1.
        MissingDependency: a codec of the recipe is not installed.
    """
    if count < 1 or not 1 <= scale <= 16:
        raise UsageError(f"got {count} versions and the scale {scale}, expected 1 or more, and 1 to 16")
    height_px, width_px = _size_of(photo)
    size = tuple(min(side, SIDE_PX) // scale * scale for side in (height_px, width_px))
    if min(size) == 0:
        raise UsageError(f"{photo} is {width_px} x {height_px} px, expected {scale} px or more a side at scale {scale}")
    hr_px = (size[0], size[1])
    corner_yx = ((height_px - hr_px[0]) // 2, (width_px - hr_px[1]) // 2)
    check_codecs(recipe)
    alone = dataclasses.replace(recipe, group=1)  # nothing is shared: few versions shall show much
    degradation = draw(alone, count, torch.Generator().manual_seed(seed), hr_px=hr_px, scale=scale)
    hr = _read_part(photo, corner_yx, hr_px)
    return Preview(hr=hr, corner_yx=corner_yx, degradation=degradation, sharpened=sharpened)


def replayed(photo: Path, record: Mapping[str, Any]) -> Preview:
    """Return the preview that `Preview.to_json` was called on: its picture has the same pixels.

    Raises:
        InputError: the photo cannot be read, is another one, or the record is damaged.
    """
    try:
        top, left = (int(value) for value in record["corner_yx"])
        degradation, expected = Degradation.from_json(record["degradation"]), record["pixels_sha256"]
        sharpened = bool(record.get("sharpened", True))  # older records do not say so: all were
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError("got a record without corner_yx, pixels_sha256 and degradation: make it anew") from None
    height_px, width_px = _size_of(photo)
    if top < 0 or left < 0 or top + degradation.hr_px[0] > height_px or left + degradation.hr_px[1] > width_px:
        raise InputError(
            f"{photo} is {width_px} x {height_px} px, too small for the part in the record: another photo?"
        )
    hr = _read_part(photo, (top, left), degradation.hr_px)
    if _hash(hr) != expected:
        raise InputError(f"{photo} has other pixels than the photo that the record was made of: give that one")
    return Preview(hr=hr, corner_yx=(top, left), degradation=degradation, sharpened=sharpened)


def described(sample: SampleDraw) -> list[str]:
    """Return a sample's parameters in words, in the order in which they are used, one step a line."""
    first, second, shared = sample.first, sample.second, sample.shared
    lines = [
        _blur_words(first.blur),
        _resize_words(shared.first_resize),
        _noise_words(first.noise),
        _codec_words(first.codec),
        _blur_words(second.blur),
        _resize_words(shared.second_resize),
        _noise_words(second.noise),
    ]
    sinc = sample.final_sinc
    last = [_resize_words(shared.final_resize), "no sinc" if sinc is None else _blur_words(sinc)]
    codec = [_codec_words(second.codec)]
    return lines + (codec + last if shared.codec_first else last + codec) + _later_words(sample)


def _later_words(sample: SampleDraw) -> list[str]:
    """Return the steps after the final ones, which most recipes have not: those that are not drawn take no line."""
    lines = []
    if sample.motion is not None:
        lines.append(f"motion {sample.motion.length_px:.1f} px, {math.degrees(sample.motion.angle):.0f} deg")
    if sample.oversharpen is not None:
        lines.append(f"sharpened x {sample.oversharpen.amount:.2f}, sigma {sample.oversharpen.sigma_px:.2f}")
    if sample.h264 is not None:
        lines.append(f"H.264, crf {sample.h264.crf:.1f}")
    return lines


def _blur_words(kernel: KernelDraw | None) -> str:
    if kernel is None:
        return "no blur"
    if kernel.family == "sinc":
        return f"sinc {kernel.side_px} px, cut-off {kernel.cutoff / math.pi:.2f} pi"
    family = kernel.family.removesuffix("_aniso").replace("gaussian", "Gaussian")
    words = f"blur {family} {kernel.side_px} px, sigma {kernel.sigma_x:.2f}"
    if kernel.family.endswith("_aniso"):
        words += f" x {kernel.sigma_y:.2f}, {math.degrees(kernel.theta):.0f} deg"
    return words + (f", beta {kernel.beta:.2f}" if kernel.beta else "")


def _resize_words(draw: ResizeDraw) -> str:
    return f"resize {draw.mode} to {draw.width_px} x {draw.height_px}"


def _noise_words(noise: NoiseDraw | None) -> str:
    if noise is None:
        return "no noise"
    strength = f"Gaussian {noise.strength:.1f}/255" if noise.kind == "gaussian" else f"Poisson x {noise.strength:.2f}"
    return f"noise {strength}, {'grey' if noise.grey else 'colour'}"


def _codec_words(draw: CodecDraw | None) -> str:
    if draw is None:
        return "no JPEG"
    if draw.codec != "jpeg":
        return f"{'WebP' if draw.codec == 'webp' else 'AVIF'} {draw.quality:.0f}"
    return f"JPEG {draw.quality:.4g}, {draw.subsampling}"


def _sheet(cells: list[tuple[Image.Image, list[str]]]) -> Image.Image:
    """Arrange cells in about as many rows as columns."""
    columns = math.ceil(math.sqrt(len(cells)))
    cell_width = max(cells[0][0].width, _LEAST_CELL_PX) + _GAP_PX
    cell_height = cells[0][0].height + max(len(lines) for _, lines in cells) * _LINE_PX + 2 * _GAP_PX
    size = (columns * cell_width + _GAP_PX, -(-len(cells) // columns) * cell_height + _GAP_PX)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_TEXT_PX)
    for (image, lines), (left, top) in zip(cells, _corners(columns, cell_width, cell_height), strict=False):
        sheet.paste(image, (left, top))
        for number, line in enumerate(lines):
            pen.text((left, top + image.height + 4 + number * _LINE_PX), line, fill="black", font=font)
    return sheet


def _corners(columns: int, cell_width: int, cell_height: int) -> Iterator[tuple[int, int]]:
    """Yield left and top of one cell after the other, without end."""
    number = 0
    while True:
        row, column = divmod(number, columns)
        yield column * cell_width + _GAP_PX, row * cell_height + _GAP_PX
        number += 1


def _size_of(photo: Path) -> tuple[int, int]:
    with open_image(photo) as reader:
        return reader.info.height_px, reader.info.width_px


def _read_part(photo: Path, corner_yx: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Read a part of a photo: (3, H, W) float32 in [0, 1]; grey is in all channels, alpha is left out."""
    top, left = corner_yx
    with open_image(photo) as reader:
        for start in range(0, top, 256):
            reader.read_rows(min(256, top - start))
        rows = reader.read_rows(size[0])[:, left : left + size[1]]
        full = np.float32(65535 if reader.info.bits == 16 else 255)
    colour = rows[..., :3] if rows.shape[2] >= 3 else rows[..., :1].repeat(3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(colour.transpose(2, 0, 1), np.float32) / full)


def _hash(pixels: Tensor) -> str:
    return hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()


def _as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
