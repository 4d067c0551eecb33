"""Enlarges one file into another: decoding, network and encoding run side by side, in bounded memory."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from realesr import __version__
from realesr.errors import OutputError
from realesr.images.info import ImageInfo, OutputFormat
from realesr.images.metadata.provenance import Provenance, xmp_with_provenance
from realesr.images.output_format import PREVIEW_ENDING
from realesr.machine import memory, processor
from realesr.machine.cgroup import usable_cores
from realesr.machine.whole_file import file_sha256
from realesr.models.facts import ModelFacts
from realesr.options import FileOptions, ImageOptions, Region
from realesr.progress import AmountCallback
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.kept_rows import KeptRows
from realesr.runtime.memory_plan import check_memory, encoder_bytes
from realesr.runtime.pipeline import (
    EnlargeJob,
    Rows,
    bands_for_rows,
    check_target_size,
    planes_from_rows,
    rows_from_bands,
    sizes_for,
)
from realesr.runtime.preview import NetworkTime, Preview, RegionReader, cut_rows, preview_of, whole_seconds
from realesr.runtime.rows import ROWS_A_CHUNK, prefetch
from realesr.runtime.stage_times import StageTimes, TimedItems
from realesr.runtime.tiling import architecture_of

if TYPE_CHECKING:
    from realesr.images.reader import ImageReader


_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class UpscaleResult:
    """Facts about one file that was enlarged."""

    source: Path
    target: Path
    input_px: tuple[int, int]
    """Width and height. Likewise `output_px`."""
    output_px: tuple[int, int]
    model: str
    engine: str
    device: str
    """Device that the engine ran on; several are separated by commas."""
    precision: str
    passes: int
    """Passes through the network, one after the other."""
    tile_px: int
    overlap_px: int
    seconds: float
    """Wall time from opening the input to the finished output."""
    peak_bytes: int
    """Peak memory of this process since it started."""
    notices: tuple[str, ...]
    """Notices for the user, one line each."""
    chosen_because: str = ""
    """Why this engine and device were chosen automatically; empty where the user named both."""
    region: Region | None = None
    """The only part of the image that was enlarged, as a preview."""
    whole_seconds: float | None = None
    """Of a preview, how long the network would take for the whole image, as far as the region tells."""


def upscale_file(
    source: Path,
    target: Path | None,
    *,
    pool_for: Callable[[int], EnginePool],
    facts: ModelFacts,
    identity: Callable[[], Mapping[str, object]],
    image: ImageOptions,
    file: FileOptions,
    on_progress: AmountCallback | None,
) -> UpscaleResult:
    """Enlarge one file. Limits of the output are checked before the first tile; the target appears when it is complete.

    Args:
        source: the image file.
        target: path of the output; None for `<stem>_x4.<suffix>` or `<stem>_3840px.<suffix>` beside the source.
        pool_for: returns the open engines for images of a depth in bits.
        facts: about the network.
        identity: returns all that tells the network and its options from others.
        image: how the pixels are enlarged.
        file: how files are read and written.
        on_progress: called with pixels of network input done and in all, from a thread of its own.

    Raises:
        InputError: the source cannot be read.
        LargeEnough: the source has the size that `image` asks for, or a larger one that is not to shrink.
        UsageError: the source would be enlarged more than 16 times for that size, or the region is none of it.
        OutputExists: the target exists and may not be overwritten.
        OutputError: the target cannot be written or cannot hold the image.
        OutOfMemory: the image does not fit in the memory that is free, or the engine had none left.
        EngineError: the engine failed.
    """
    from realesr.images.reader import open_with

    started = time.monotonic()
    with open_with(source, file) as whole:
        check_target_size(whole.info, image, str(source))
        plan = _plan(source, target, whole, pool_for(whole.info.bits), facts, image, file)
        job, output = plan.job, plan.output
        before = len(job.pool.notices)
        check = partial(
            check_memory, job, architecture_of(facts), encoder_bytes(output.info, output.format), str(source)
        )
        check()
        times, network_time = StageTimes(), NetworkTime(on_progress)
        rows: Iterator[Rows] = times.stage("decoding", _decoded_rows(plan.reader))
        rows = itertools.chain([next(rows)], rows)
        check()  # again, for by now what is decoded whole takes its memory
        with _kept_rows(output, job, file, lambda: {**identity(), **_identity(source, job, file)}) as kept:
            enlarged = _enlarged_rows(rows, replace(job, kept=kept), network_time, times)
            with times.step("encoding"):
                parts = cut_rows(enlarged, plan.preview) if plan.preview else enlarged
                _enlarge_into(output, file, times.waiting("encoding", parts))
    _log.info("%s: %s, side by side", source, times.in_words())
    notices = (
        *plan.reader.notices,
        *_lost_levels(job.info, job.pool),
        *output.notices,
        *job.pool.notices[before:],
        *(kept.notices if kept else []),
    )
    result = _result(source, plan, facts, seconds=time.monotonic() - started, notices=notices)
    if plan.preview is None:
        return result
    whole_job = replace(job, info=whole.info, options=image)
    whole_time_s = whole_seconds(network_time.seconds, job, whole_job)
    return replace(result, region=file.region, input_px=plan.preview.input_px, whole_seconds=whole_time_s)


def _result(
    source: Path, plan: "_Plan", facts: ModelFacts, *, seconds: float, notices: tuple[str, ...]
) -> UpscaleResult:
    """Return the facts about a file that was enlarged."""
    info, pool, output = plan.job.info, plan.job.pool, plan.output
    return UpscaleResult(
        source=source,
        target=output.path,
        input_px=(info.width_px, info.height_px),
        output_px=(output.info.width_px, output.info.height_px),
        model=facts.name,
        engine=pool.spec.name,
        device=pool.devices,
        precision=pool.spec.precision,
        passes=plan.job.sizes.passes,
        tile_px=pool.tiling.tile_px,
        overlap_px=pool.tiling.overlap_px,
        seconds=seconds,
        peak_bytes=memory.peak_bytes(),
        notices=notices,
        chosen_because=pool.chosen_because,
    )


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How one file is enlarged, decided before the first tile."""

    reader: "ImageReader | RegionReader"
    job: EnlargeJob
    output: "_Output"
    preview: Preview | None
    """Where only a region is enlarged."""


def _plan(
    source: Path,
    target: Path | None,
    whole: "ImageReader",
    pool: EnginePool,
    facts: ModelFacts,
    image: ImageOptions,
    file: FileOptions,
) -> _Plan:
    """Decide what is read, enlarged and written, and check that it can be; raises what `upscale_file` does."""
    preview = None if file.region is None else preview_of(whole, file.region, image, pool, source)
    reader, options = (preview.reader, preview.options) if preview else (whole, image)
    sizes = sizes_for(reader.info, pool.spec.scale, options)
    output = _plan_output(
        source,
        target,
        reader,
        file,
        ending=(image.ending or f"x{pool.spec.scale}") + (PREVIEW_ENDING if preview else ""),
        size=preview.size if preview else sizes.output,
        pixels_per_mm=image.size.pixels_per_mm if image.size else None,
    )
    if file.provenance and not file.strip and pool.spec.name != "nearest" and sizes.passes:
        output = _with_provenance(output, facts.name, sizes.output[1] / reader.info.width_px)
    job = EnlargeJob(info=reader.info, pool=pool, options=options, constant_alpha=output.constant_alpha)
    return _Plan(reader=reader, job=job, output=output, preview=preview)


@dataclass(frozen=True, kw_only=True)
class _Output:
    """The output of one file, checked before the first tile."""

    path: Path
    format: OutputFormat
    info: ImageInfo
    constant_alpha: float | None
    """Alpha in [0, 1] that all pixels of the input share; None where it varies or there is no alpha."""
    notices: tuple[str, ...]


def _plan_output(
    source: Path,
    target: Path | None,
    reader: "ImageReader | RegionReader",
    file: FileOptions,
    *,
    ending: str,
    size: tuple[int, int],
    pixels_per_mm: tuple[float, float] | None,
) -> _Output:
    """Decide the output's path, format and facts, and check that it can be written; `size` is height and width in px.

    Raises:
        OutputExists: the target exists and may not be overwritten.
        OutputError: the target cannot be written or cannot hold the image.
    """
    from realesr.images.metadata.output_metadata import stripped_info
    from realesr.images.output_format import check_output, check_target, output_format, output_path

    fmt = output_format(reader.info.format, target, file.format)
    path = target or output_path(source, ending, fmt)
    check_target(source, path, overwrite=file.overwrite)
    level = reader.constant_alpha() if reader.info.has_alpha else None
    largest = 2**reader.info.bits - 1
    known = stripped_info(reader.info) if file.strip else reader.info
    info, notices = _output_info(known, size, fmt, opaque=level == largest, pixels_per_mm=pixels_per_mm)
    return _Output(
        path=path,
        format=fmt,
        info=info,
        constant_alpha=None if level is None else level / largest,
        notices=(*notices, *check_output(path, info, fmt)),
    )


def _with_provenance(output: _Output, network: str, scale: float) -> _Output:
    """Return the output with XMP that tells which network enlarged it, and by what factor."""
    provenance = Provenance(software=f"realesr {__version__}", network=network, scale=scale)
    xmp, notices = xmp_with_provenance(output.info.xmp, provenance, output.format)
    return replace(output, info=replace(output.info, xmp=xmp), notices=(*output.notices, *notices))


@contextmanager
def _kept_rows(
    output: _Output, job: EnlargeJob, file: FileOptions, identity: Callable[[], Mapping[str, object]]
) -> Iterator[KeptRows | None]:
    """Keep finished rows while the block runs, where that is wanted; delete them where it has done all it can."""
    if not file.resume:
        yield None
        return
    kept = KeptRows(output.path, identity)
    try:
        yield kept
    except OutputError:  # perhaps for want of room on the disk
        kept.discard()
        raise
    except BaseException:
        kept.close()
        raise
    kept.discard()


def _identity(source: Path, job: EnlargeJob, file: FileOptions) -> dict[str, object]:
    """Return all that the pixels of an image depend on besides the network and its options."""
    spec, info = job.pool.spec, job.info
    return {
        "source": file_sha256(source),
        "page": file.page,
        "region": file.region,
        "allow_damaged": file.allow_damaged,
        "bits": info.bits,
        "is_grey": info.is_grey,
        "image": asdict(job.options),
        "engine": [spec.name, spec.precision, spec.device, _version_of(spec.name)],
        "realesr": __version__,
        "processor": [processor.name(), usable_cores()],
    }


def _version_of(package: str) -> str:
    """Return the version of a package, empty where none of that name is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _enlarge_into(output: _Output, file: FileOptions, enlarged: TimedItems[Rows]) -> None:
    """Write the rows as they come, without an alpha channel that the output does not have."""
    from realesr.images.writer import open_writer

    with (
        open_writer(output.path, output.info, output.format, quality=file.quality) as writer,
        closing(enlarged) as parts,
    ):
        for rows in parts:
            writer.write_rows(rows[:, :, : output.info.channels])


def _lost_levels(info: ImageInfo, pool: EnginePool) -> list[str]:
    """Return the notice for an image of 16 bits and a network of 256 levels; an empty list for any other pair."""
    if info.bits == 8 or pool.spec.io_dtype != "uint8":
        return []
    return ["the image has 16 bits and this network takes 8: finer levels are lost; a float32 network keeps them"]


def _output_info(
    info: ImageInfo,
    output: tuple[int, int],
    fmt: OutputFormat,
    *,
    opaque: bool,
    pixels_per_mm: tuple[float, float] | None,
) -> tuple[ImageInfo, tuple[str, ...]]:
    """Return the facts of the output, and notices of metadata that are left out because they became false.

    An opaque alpha channel is left out where the format cannot hold it.
    """
    from realesr.images.metadata.output_metadata import enlarged_info

    height, width = output
    enlarged, notices = enlarged_info(info, width, height, fmt, pixels_per_mm=pixels_per_mm)
    drop_alpha = opaque and fmt == "jpeg"
    return replace(enlarged, has_alpha=info.has_alpha and not drop_alpha), notices


def _decoded_rows(reader: "ImageReader | RegionReader") -> Iterator[Rows]:
    """Yield the image's rows from top to bottom."""
    while len(rows := reader.read_rows(ROWS_A_CHUNK)):
        yield rows


def _enlarged_rows(
    decoded: Iterator[Rows], job: EnlargeJob, on_progress: AmountCallback | None, times: StageTimes
) -> Generator[Rows]:
    """Yield the enlarged rows while decoding and the network run ahead, each in a thread of its own.

    Closing this generator ends the network at its next call of progress, not only at the end of a row of tiles.
    """
    closed = threading.Event()
    job = replace(job, on_pixels=_counter(job.work_px, on_progress, closed))
    with closing(prefetch(decoded)) as rows:
        planes = planes_from_rows(times.waiting("network", rows), job.info.bits)
        with closing(prefetch(times.stage("network", bands_for_rows(planes, job)), depth=1)) as bands:
            try:
                yield from rows_from_bands(bands, job.info.bits)
            finally:
                closed.set()


class _ClosedError(Exception):
    """Raised in the network's thread to end it: its result is not needed any more."""


def _counter(total_px: int, on_progress: AmountCallback | None, closed: threading.Event) -> Callable[[int], None]:
    """Return a function that adds up pixels and calls `on_progress`; it raises _ClosedError once `closed` is set."""
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
