"""Makes what a browser shows of an image of any size: a small JPEG file, or tiles, in bounded memory.

Tiles come from a pyramid: the image at 100 %, 50 %, 25 % ... as tiled JPEG in a TIFF file, made at the first tile.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from realesr.errors import InputError, OutputError, RealesrError
from realesr.images.display import displayed
from realesr.images.libvips import own_settings, pyvips, vips_message
from realesr.images.reader import ImageReader, open_image
from realesr.images.row_source import RowSource
from realesr.machine.leaving import native_call
from realesr.machine.whole_file import whole_file
from realesr.runtime.resize import LANCZOS_SUPPORT_PX

from .tile_grid import TILE_PX

SQUARE_PX = 8
"""Side of the squares of the checkerboard behind what is transparent."""
ROWS_AT_ONCE = 64
"""A multiple of two squares, so that the checkerboard goes on from one to the next."""
DISPLAY_QUALITY = 88
PYRAMID_QUALITY = 95
TILE_QUALITY = 92
"""Of JPEG files: a tile is looked at closely, and has its colours at full resolution."""


def write_display(source: Path, target: Path, most_px: int) -> None:
    """Write an image as a JPEG file of sRGB whose sides are at most `most_px` long; a smaller one keeps its size.

    Raises:
        InputError: the image cannot be read.
        OutputError: the file cannot be written.
    """
    with _screen_image(source) as image, whole_file(target, durable=False) as part:
        small = image.thumbnail_image(most_px, height=most_px, size="down")
        small.jpegsave(str(part), Q=DISPLAY_QUALITY, optimize_coding=True, keep="none")


def write_pyramid(source: Path, target: Path) -> None:
    """Write an image as a pyramid of tiles of sRGB, each level half as large as the one above; raises as above."""
    with _screen_image(source) as image, whole_file(target, durable=False) as part:
        if max(image.width, image.height) <= TILE_PX:  # libvips does not read tiles far larger than the image
            image.tiffsave(str(part), compression="deflate", keep="none")
            return
        image.tiffsave(
            str(part),
            tile=True,
            tile_width=TILE_PX,
            tile_height=TILE_PX,
            pyramid=True,
            compression="jpeg",
            Q=PYRAMID_QUALITY,
            bigtiff=True,
            keep="none",
        )


def write_tile(pyramid: Path, target: Path, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    """Write one tile of a pyramid's image, resized to `size` by Lanczos, as a JPEG file.

    Args:
        pyramid: what `write_pyramid` has written.
        target: path of the tile.
        size: width and height in px that the whole image is shown at.
        box: left, top, right and bottom of the tile in it.

    Raises:
        OutputError: the tile cannot be written.
    """
    from PIL import Image

    with native_call(), own_settings():
        image = _nearest_level(pyramid, size)
        across, down = image.width / size[0], image.height / size[1]
        part = box[0] * across, box[1] * down, box[2] * across, box[3] * down
        left, top, right, bottom = _with_margin(part, max(across, down), image.width, image.height)
        area = image.crop(left, top, right - left, bottom - top).numpy()
    within = (part[0] - left, part[1] - top, part[2] - left, part[3] - top)
    tile = Image.fromarray(np.ascontiguousarray(area))
    tile = tile.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.LANCZOS, box=within)
    with whole_file(target, durable=False) as file, file.open("wb") as stream:
        tile.save(stream, "JPEG", quality=TILE_QUALITY, subsampling=0)


def _nearest_level(pyramid: Path, size: tuple[int, int]) -> Any:
    """Return the smallest level of a pyramid that is no smaller than `size`, or else the largest, as pyvips image."""
    whole = pyvips.Image.tiffload(str(pyramid))
    pages = int(whole.get("n-pages"))
    halvings = max(0, math.floor(math.log2(max(1.0, whole.width / size[0]) + 1e-9)))
    return pyvips.Image.tiffload(str(pyramid), page=min(halvings, pages - 1)) if halvings else whole


def _with_margin(
    part: tuple[float, float, float, float], step: float, width_px: int, height_px: int
) -> tuple[int, int, int, int]:
    """Return the whole pixels that Lanczos' filter reads for a part of an image, at `step` pixels per pixel of it."""
    margin = LANCZOS_SUPPORT_PX * max(1.0, step) + 1
    return (
        max(0, math.floor(part[0] - margin)),
        max(0, math.floor(part[1] - margin)),
        min(width_px, math.ceil(part[2] + margin)),
        min(height_px, math.ceil(part[3] + margin)),
    )


@contextmanager
def _screen_image(source: Path) -> Iterator[Any]:
    """Yield an image as a screen shows it, as a pyvips image of sRGB that is read once, from the first row on."""
    with open_image(source) as reader:
        info = replace(reader.info, bits=8, is_grey=False, has_alpha=False)
        rows = RowSource(info)
        failures: list[Exception] = []
        thread = threading.Thread(target=_write_rows, args=(reader, rows, failures), daemon=True)
        thread.start()
        try:
            with native_call():
                yield rows.open()
        except pyvips.Error as error:
            if failures:
                raise failures[0] from error
            raise OutputError(
                f"the server's files cannot be written ({vips_message(error)}): free some space"
            ) from error
        finally:
            rows.stop_reading()
            thread.join()


def _write_rows(reader: ImageReader, rows: RowSource, failures: list[Exception]) -> None:
    """Write all rows of an image, as a screen shows them, for libvips to read; runs in a thread of its own."""
    try:
        while len(read := reader.read_rows(ROWS_AT_ONCE)):
            if not rows.write(displayed(read, reader.info, square_px=SQUARE_PX)):
                return
    except RealesrError as error:
        failures.append(error)
    except Exception as error:
        failures.append(InputError(f"the image cannot be shown ({type(error).__name__}: {error})"))
    finally:
        rows.end()
