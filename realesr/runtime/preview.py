"""Enlarges one region of a photo as it would be in the whole: with the pixels around it, which are cut off again.

reader --RegionReader--> rows of the region and its surroundings --network--> rows --cut_rows--> rows of the region
"""

import math
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from realesr.errors import UsageError
from realesr.images.info import ImageInfo
from realesr.options import MAX_SCALE, ImageOptions, Region
from realesr.progress import AmountCallback
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.pipeline import EnlargeJob, Rows, sizes_for
from realesr.runtime.strength import whole_cells

if TYPE_CHECKING:
    from realesr.images import crop
    from realesr.images.reader import ImageReader

EDGES_TRIED = 16
"""Places of each edge of a region that are tried, pixel by pixel, until it falls on a whole output pixel."""
CELLS_TRIED = 4
"""Likewise where edges are those of cells."""


class RegionReader:
    """A part of an open image that is read like an image of its own.

    Its facts have neither EXIF nor XMP: much in them is about the whole image, such as places of faces.
    """

    def __init__(self, reader: "ImageReader", region: Region) -> None:
        self._reader = reader
        self._left_px, self._top_px, width_px, height_px = region
        self._read_px = 0
        self.info: ImageInfo = replace(reader.info, width_px=width_px, height_px=height_px, exif=None, xmp=None)

    @property
    def notices(self) -> tuple[str, ...]:
        """Return the notices for the user, one line each."""
        return self._reader.notices

    def read_rows(self, rows: int) -> Rows:
        """Read the next rows; see `ImageReader.read_rows`."""
        count = max(0, min(rows, self.info.height_px - self._read_px))
        area = self._reader.read_area(self._left_px, self._top_px + self._read_px, self.info.width_px, count)
        self._read_px += count
        return area

    def constant_alpha(self) -> int | None:
        """Return the alpha value that all pixels of the whole image share; see `ImageReader.constant_alpha`."""
        return self._reader.constant_alpha()


@dataclass(frozen=True, kw_only=True)
class Preview:
    """One region on its way through the network."""

    reader: RegionReader
    """Reads the region and its surroundings."""
    options: ImageOptions
    """Those of the whole image, with its scale."""
    top_px: int
    """First row of the region in what the network gives, in output pixels. Likewise `left_px`."""
    left_px: int
    size: tuple[int, int]
    """Height and width of the enlarged region in px."""
    input_px: tuple[int, int]
    """Width and height of the region in px of the photo."""


def preview_of(reader: "ImageReader", region: Region, options: ImageOptions, pool: EnginePool, name: Path) -> Preview:
    """Return how a region is enlarged.

    Args:
        reader: the photo, of which no row has been read.
        region: the region, in px of the upright photo.
        options: how the whole photo would be enlarged.
        pool: the network, whose tiles read so much of their neighbours.
        name: path of the photo, for messages.

    Raises:
        UsageError: the region is none of this photo, or the photo would become smaller.
    """
    from realesr.images import crop

    info = reader.info
    inner = crop.checked_region(region, name, info)
    outer = inner.widened(pool.tiling.overlap_px, crop.Region(0, 0, info.width_px, info.height_px))
    sizes = sizes_for(info, pool.spec.scale, options)
    scale = max(sizes.output) / max(sizes.input) if options.size else options.scale or float(pool.spec.scale)
    if not 1 <= scale <= MAX_SCALE:
        raise UsageError(f"{name} would become smaller, expected a size that enlarges it: of it there is no preview")
    outer = _on_grids(outer, info, scale, options.strength)
    top, bottom = _enlarged_span(inner.top_px - outer.top_px, inner.height_px, scale)
    left, right = _enlarged_span(inner.left_px - outer.left_px, inner.width_px, scale)
    return Preview(
        reader=RegionReader(reader, outer),
        options=replace(options, scale=scale, size=None, shrink=False),
        top_px=top,
        left_px=left,
        size=(bottom - top, right - left),
        input_px=(inner.width_px, inner.height_px),
    )


def _on_grids(region: "crop.Region", info: ImageInfo, scale: float, strength: float) -> "crop.Region":
    """Return a region widened until its edges fall on whole output pixels, as nearly as a few more px allow.

    Resampled alone it then has the pixels that it has in the whole image, not some that lie between them. Where low
    frequencies are mixed, its edges are those of cells of their grid, too; see `realesr.runtime.strength`.
    """

    def off_grid(edge_px: int, length_px: int) -> float:
        return 0.0 if edge_px == length_px else abs(edge_px * scale - round(edge_px * scale))

    def widened(start_px: int, stop_px: int, length_px: int) -> tuple[int, int]:
        starts: Sequence[int] = range(start_px, max(-1, start_px - EDGES_TRIED), -1)
        stops: Sequence[int] = range(stop_px, min(length_px + 1, stop_px + EDGES_TRIED))
        if 0 < strength < 1:
            starts, stops = (edges[:CELLS_TRIED] for edges in whole_cells(start_px, stop_px, length_px))
        start, stop = (min(edges, key=lambda edge: off_grid(edge, length_px)) for edges in (starts, stops))
        return start, stop

    left, right = widened(region.left_px, region.left_px + region.width_px, info.width_px)
    top, bottom = widened(region.top_px, region.top_px + region.height_px, info.height_px)
    return region._replace(left_px=left, top_px=top, width_px=right - left, height_px=bottom - top)


def _enlarged_span(start_px: int, length_px: int, scale: float) -> tuple[int, int]:
    """Return where a span begins and ends in output pixels, rounded as the output's size is."""
    return math.floor(start_px * scale + 0.5), math.floor((start_px + length_px) * scale + 0.5)


def cut_rows(rows: Generator[Rows], preview: Preview) -> Generator[Rows]:
    """Yield the rows of the enlarged region out of those with its surroundings."""
    height, width = preview.size
    first = -preview.top_px  # row of the region that comes next
    with closing(rows) as parts:
        for part in parts:
            start, stop = max(0, -first), min(len(part), height - first)
            if start < stop:
                yield part[start:stop, preview.left_px : preview.left_px + width]
            first += len(part)


class NetworkTime:
    """A progress callback that measures how long the network takes, and hands on what it is told."""

    def __init__(self, on_progress: AmountCallback | None) -> None:
        self._on_progress = on_progress
        self._started = 0.0
        self.seconds = 0.0
        """From the start of the network to its last pixel so far."""

    def __call__(self, done_px: int, total_px: int) -> None:
        """See `AmountCallback`."""
        if done_px:
            self.seconds = time.monotonic() - self._started
        if self._on_progress is not None:
            self._on_progress(done_px, total_px)
        if not done_px:
            self._started = time.monotonic()


def whole_seconds(seconds: float, job: EnlargeJob, whole: EnlargeJob) -> float | None:
    """Return the time that the network takes for a whole image, from that for a part; None where it does not run."""
    return seconds * whole.work_px / job.work_px if job.work_px else None
