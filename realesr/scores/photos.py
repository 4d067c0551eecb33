"""Scores files: reads a photo and its reference as they are shown, sRGB of 8 bit, and computes what was asked for."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError, UsageError
from realesr.images.display import displayed
from realesr.images.reader import open_image
from realesr.scores.niqe import niqe
from realesr.scores.reference import BORDER_PX, check_same_size, psnr_y, ssim_y

if TYPE_CHECKING:
    from realesr.scores.lpips import Lpips

_ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one image; None where one was not asked for, or cannot be computed as a notice says."""

    width_px: int
    height_px: int
    niqe: float | None
    """Without a reference, the lower the better; see `realesr.scores.niqe`."""
    psnr_y_db: float | None = None
    """Infinite where the image is equal to its reference."""
    ssim_y: float | None = None
    """1 where the image is equal to its reference."""
    lpips: float | None = None
    """The lower the better, 0 where the image is equal to its reference."""
    notices: tuple[str, ...] = ()
    """What was converted or left out, one line each."""


def score_file(
    path: Path, reference: Path | None = None, *, border_px: int = BORDER_PX, lpips: "Lpips | None" = None
) -> Scores:
    """Score an image file: NIQE alone, or with a reference PSNR and SSIM on Y, and LPIPS where that is given, too.

    Both are read upright and converted to sRGB of 8 bit; transparency is left out, with a notice. Beside other scores
    NIQE is left out, with a notice, where the image is too small or flat for it.

    Args:
        path: the image.
        reference: an image of the same size, which it ought to look like.
        border_px: left out at each side for PSNR and SSIM; NIQE and LPIPS are of the whole image.
        lpips: what `realesr.scores.lpips.open_lpips` returns.

    Raises:
        InputError: a file cannot be read, the sizes differ, or the image is too small.
        UsageError: the border is negative, or there is no reference for LPIPS.
    """
    if border_px < 0:
        raise UsageError(f"got a border of {border_px} px, expected 0 or more")
    if reference is None and lpips is not None:
        raise UsageError("got LPIPS without a reference: name the image to compare with")
    image, notices = read_srgb(path)
    height, width = image.shape[:2]
    if reference is None:
        return Scores(width_px=width, height_px=height, niqe=niqe(image), notices=notices)
    truth, notices_of_truth = read_srgb(reference)
    check_same_size(image, truth)
    scores = Scores(
        width_px=width,
        height_px=height,
        niqe=None,
        psnr_y_db=psnr_y(image, truth, border_px=border_px),
        ssim_y=ssim_y(image, truth, border_px=border_px),
        lpips=None if lpips is None else lpips.distance(image, truth),
        notices=(*notices, *notices_of_truth),
    )
    try:
        return replace(scores, niqe=niqe(image))
    except InputError as error:
        return replace(scores, notices=(*scores.notices, f"{path.name}: NIQE is left out: {error}"))


def read_srgb(path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Read a whole image file as it is shown: upright, sRGB of 8 bit, without transparency.

    Returns:
        (H, W, 3) uint8, and notices of what was converted or left out.

    Raises:
        InputError: it cannot be read.
    """
    with open_image(path) as reader:
        info = reader.info
        opaque = replace(info, has_alpha=False)
        image = np.empty((info.height_px, info.width_px, 3), np.uint8)
        for top in range(0, info.height_px, _ROWS_AT_ONCE):
            rows = reader.read_rows(_ROWS_AT_ONCE)
            image[top : top + len(rows)] = displayed(rows[:, :, : opaque.channels], opaque, square_px=1)
        notices = reader.notices
    if info.has_alpha:
        notices += ("transparency is left out: the colours are scored as if the image were opaque",)
    return image, tuple(f"{path.name}: {notice}" for notice in notices)
