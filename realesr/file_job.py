"""One file into another: decoding, network and encoding run side by side, in bounded memory."""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from realesr import memory
from realesr.errors import OutputError, OutputExists
from realesr.image_info import ImageInfo, OutputFormat
from realesr.options import FileOptions, ImageOptions
from realesr.pipeline import Job, Rows, bands_for_rows, plan_sizes, planes_from_rows, rows_from_bands
from realesr.rows import ROWS_A_CHUNK, ahead
from realesr.tiled import Network

if TYPE_CHECKING:
    from realesr.image_reader import ImageReader

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all: pixels, or bytes for a download."""


@dataclass(frozen=True, kw_only=True)
class UpscaleResult:
    """What was done to one file."""

    source: Path
    target: Path
    input_px: tuple[int, int]
    """Width and height. Likewise `output_px`."""
    output_px: tuple[int, int]
    model: str
    engine: str
    device: str
    """Where the engine ran; several with commas between them."""
    precision: str
    passes: int
    """How often the network ran, one after the other."""
    tile_px: int
    overlap_px: int
    seconds: float
    """Wall time from opening the input to the finished output."""
    peak_bytes: int
    """Largest memory that this process has held since it started."""
    notices: tuple[str, ...]
    """What the user should know, one line each."""
    chosen_because: str = ""
    """Why the automatic choice took this engine and device; empty where both were asked for."""


def upscale_file(
    source: Path,
    target: Path | None,
    *,
    network_for: Callable[[int], Network],
    model: str,
    image: ImageOptions,
    file: FileOptions,
    on_progress: Progress | None,
) -> UpscaleResult:
    """Enlarge one file; `network_for(bits)` gives the open network for images of that depth.

    Limits of the output are checked before the first tile. The target appears under its name only when it is whole.
    """
    from realesr.image_reader import open_image
    from realesr.image_writer import check_output, open_writer, output_format

    started = time.monotonic()
    with open_image(source, page=file.page, max_pixels=file.max_pixels) as reader:
        network = network_for(reader.info.bits)
        scale = image.scale or float(network.spec.scale)
        sizes = plan_sizes(reader.info.height_px, reader.info.width_px, network.spec.scale, image.scale)
        fmt = output_format(reader.info, target, file.format)
        target = target or default_target(source, scale, fmt)
        _check_target(source, target, file.overwrite)
        alpha = reader.constant_alpha() if reader.info.has_alpha else None
        written = _output_info(reader.info, sizes.output, fmt, opaque=alpha == 2**reader.info.bits - 1)
        notices = [*reader.notices, *_lost_levels(reader.info, network), *check_output(target, written, fmt)]
        job = Job(
            info=reader.info,
            network=network,
            options=image,
            constant_alpha=None if alpha is None else alpha / (2**reader.info.bits - 1),
        )
        before = len(network.notices)
        with (
            open_writer(target, written, fmt, quality=file.quality, strip=file.strip) as writer,
            closing(_enlarged_rows(reader, job, on_progress)) as parts,
        ):
            for rows in parts:
                writer.write_rows(rows[:, :, : written.channels])
    return UpscaleResult(
        source=source,
        target=target,
        input_px=(reader.info.width_px, reader.info.height_px),
        output_px=(written.width_px, written.height_px),
        model=model,
        engine=network.spec.name,
        device=network.devices,
        precision=network.spec.precision,
        passes=sizes.passes,
        tile_px=network.tiling.tile_px,
        overlap_px=network.tiling.overlap_px,
        seconds=time.monotonic() - started,
        peak_bytes=memory.peak_bytes(),
        notices=(*notices, *network.notices[before:]),
        chosen_because=network.spec.chosen_because,
    )


def default_target(source: Path, scale: float, fmt: OutputFormat) -> Path:
    """`<stem>_x4.<suffix>` beside the source; the source's own suffix where it names the format."""
    from realesr.image_writer import suffix_for

    return source.with_name(f"{source.stem}_x{scale:g}{suffix_for(fmt, source)}")


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if target.exists() and os.path.samefile(source, target):
        raise OutputError(f"{target}: the output would replace the input; give another --output")
    if target.exists() and not overwrite:
        raise OutputExists(f"{target} is there already; --overwrite replaces it")


def _lost_levels(info: ImageInfo, network: Network) -> list[str]:
    """What is said where a network of 256 levels enlarges an image that may have more."""
    if info.bits == 8 or network.spec.values != "uint8":
        return []
    return ["the image has 16 bits and this network takes 8: finer levels are lost; a float32 network keeps them"]


def _output_info(info: ImageInfo, output: tuple[int, int], fmt: OutputFormat, *, opaque: bool) -> ImageInfo:
    """Facts of the output; a wholly opaque alpha channel is left out where the format has none."""
    height, width = output
    drop_alpha = opaque and fmt == "jpeg"
    return replace(info, height_px=height, width_px=width, has_alpha=info.has_alpha and not drop_alpha)


def _enlarged_rows(reader: "ImageReader", job: Job, on_progress: Progress | None) -> Generator[Rows]:
    """Decoding and the network each run in a thread of their own, ahead of whoever takes these rows.

    Closing this generator ends the network when it next tells how far it is, not only at the end of a row of tiles.
    """
    closed = threading.Event()

    def decoded() -> Iterator[Rows]:
        while len(rows := reader.read_rows(ROWS_A_CHUNK)):
            yield rows

    job = replace(job, on_pixels=_counter(job.work_px, on_progress, closed))
    with closing(ahead(decoded())) as rows:
        planes = planes_from_rows(rows, job.info.bits)
        with closing(ahead(bands_for_rows(planes, job), depth=1)) as bands:
            try:
                yield from rows_from_bands(bands, job.info.bits)
            finally:
                closed.set()


class _ClosedError(Exception):
    """Ends the thread of the network; nobody waits for its result any more."""


def _counter(total_px: int, on_progress: Progress | None, closed: threading.Event) -> Callable[[int], None]:
    done_px = 0

    def count(pixels: int) -> None:
        nonlocal done_px
        if closed.is_set():
            raise _ClosedError
        done_px += pixels
        if on_progress is not None:
            on_progress(done_px, total_px)

    count(0)
    return count
