"""Opens GIF files."""

from pathlib import Path
from typing import Any

import numpy as np

from realesr.errors import InputError
from realesr.images.decoded import (
    Decoded,
    ReadOptions,
    check_memory,
    check_page,
    field,
    image_from_array,
    load_upright,
)
from realesr.images.file_source import FileSource
from realesr.images.formats.by_pillow import pillow_errors
from realesr.images.formats.gif_blocks import read_gif_blocks
from realesr.images.formats.grey_palette import can_be_grey, grey_profile_of

_PX_BYTES = 14
"""Memory for a pixel of the canvas, besides the file: 6 for one frame, 13.5 where frames restore what was before."""


def open_gif(path: Path, options: ReadOptions) -> Decoded:
    """Open a frame of a GIF file, the first by default. It is grey where the colour tables behind it are.

    Raises:
        InputError: too large, or there is no such frame.
        pyvips.Error: damaged.
    """
    blocks = read_gif_blocks(path)
    for size in (
        blocks.canvas_px,
        *(place[2:] for place in blocks.places),
    ):  # libvips takes memory for the canvas first
        options.check_size(path, *size)
    width_px, height_px = blocks.canvas_px
    needed = width_px * height_px * _PX_BYTES + 2 * path.stat().st_size
    check_memory(path, width_px, height_px, needed, "GIF", "save it as PNG or TIFF first")
    with FileSource(path) as source:
        header = source.load("gifload")
    frames = field(header, "n-pages") or 1
    check_page(path, options.page, frames)
    damage = _check_pixels(path, options)
    image, source = load_upright(path, "gifload", 1, options, **({"page": options.page} if options.page else {}))
    page = options.page or 0
    is_grey_palette = blocks.has_grey_frames(page) and image.bands > 2 and can_be_grey(blocks.icc)
    is_grey = image.bands < 3 or is_grey_palette
    colour = image.extract_band(0, n=1 if is_grey else 3)
    alpha = image[image.bands - 1] if image.bands in (2, 4) else _coverage(image, blocks.places[: page + 1])
    return Decoded(
        image=colour if alpha is None else colour.bandjoin(alpha),
        space="grey" if is_grey else "rgb",
        has_alpha=alpha is not None,
        bits=8,
        icc=grey_profile_of(blocks.icc) if is_grey_palette else blocks.icc,
        xmp=blocks.xmp,
        notices=(*frames_notice(frames, options), *damage),
        sources=(source,),
    )


def _check_pixels(path: Path, options: ReadOptions) -> tuple[str, ...]:
    """Raise InputError where the frame has lost pixels; return a notice instead where that is allowed.

    libvips takes a frame whose data end early for a whole one. Pillow does not.
    """
    from PIL.GifImagePlugin import GifImageFile
    from PIL.Image import DecompressionBombError

    try:
        with pillow_errors(path), GifImageFile(path) as image:
            image.seek(options.page or 0)
            image.load()
    except DecompressionBombError:  # larger than Pillow reads, which does not tell whether it is whole
        return ()
    except InputError as error:
        if not options.allow_damaged:
            raise InputError(str(error), option="allow_damaged") from error
        return ("the file has lost pixels, which were left empty",)
    return ()


def _coverage(image: Any, places: list[tuple[int, int, int, int]]) -> Any:
    """Return alpha that is 0 where no frame is; None where frames cover the canvas.

    libvips leaves these pixels black where no frame has a transparent colour.
    """
    if not places or any(
        not left and not top and width >= image.width and height >= image.height for left, top, width, height in places
    ):
        return None
    alpha = np.zeros((image.height, image.width, 1), np.uint8)
    for left, top, width, height in places:
        alpha[top : top + height, left : left + width] = 255
    return None if alpha.all() else image_from_array(alpha)


def frames_notice(frames: int, options: ReadOptions) -> tuple[str, ...]:
    """Return a notice where the first of several frames is read because nobody asked for one."""
    is_cut = frames > 1 and options.page is None
    return (f"the animation has {frames} frames; only the first was read",) if is_cut else ()
