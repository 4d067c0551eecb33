"""Estimates what one image takes of this computer's memory, and refuses one that does not fit before its first tile.

How an image is cut never follows the free memory, so that the same command gives the same pixels. What does not fit is
refused here, with the largest tile that would.
"""

from dataclasses import replace

from realesr.errors import OutOfMemory
from realesr.images.info import ImageInfo, OutputFormat
from realesr.machine.memory import free_bytes
from realesr.models.architecture import Architecture
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.pipeline import EnlargeJob
from realesr.runtime.resize import LANCZOS_SUPPORT_PX
from realesr.runtime.rows import ROWS_A_CHUNK
from realesr.runtime.strength import waiting_rows
from realesr.runtime.strip_bands import strip_layout_for
from realesr.runtime.tile_size import TILE_STEP_PX
from realesr.runtime.tiled import tile_plan
from realesr.runtime.tiling import Tiling

RESERVE_BYTES = 48_000_000
"""For threads, buffers of the codecs, and libraries that are loaded on the way. With it, every run under a limit of
addresses from 260 to 980 MB ended with the right image or in one line (benchmarks/bench_faults.py --only memory)."""
HELD_BANDS = 4
"""Bands of the result at once: one each in the network, in the queue behind it and before the encoder, and a copy."""
BAND_VALUE_BYTES = 4


ENCODER_ROWS = 1800
"""Rows that libvips and the pipe to it hold while a PNG, JPEG or TIFF is written: growth of the peak of resident memory
with the width, from 1,024 to 4,096 px."""
ENCODER_BYTES_PER_PX = {("webp", False): 11, ("webp", True): 45, ("avif", False): 37, ("avif", True): 56}
"""Format, and whether there is alpha -> bytes for each pixel of the result, which these encoders hold as a whole.

Growth of the peak of resident memory while 16 MP (4 MP with alpha) of noise over soft shapes were written; like
ENCODER_ROWS measured on 2026-11-27 with libvips 8.18.7.
"""


def check_memory(job: EnlargeJob, architecture: Architecture, output_bytes: float, name: str) -> None:
    """Raise OutOfMemory where an image takes more than is free.

    Args:
        job: the image and the network.
        architecture: of the network, or one that needs as much.
        output_bytes: memory of the encoder, or of the result where that is kept whole.
        name: name of the image, for the message.
    """
    needed, free = needed_bytes(job, job.pool.tiling, architecture) + output_bytes, free_bytes()
    if needed <= free:
        return
    info, fitting_px = job.info, _fitting_tile_px(job, architecture, free - output_bytes)
    raise OutOfMemory(
        f"{name}: {info.width_px:,} x {info.height_px:,} px take about {_amount(needed)} of memory in engine "
        f"{job.pool.spec.name}, and {_amount(free)} are free: close other programs, or take "
        + (f"tiles of {fitting_px} px, which fit" if fitting_px else "a smaller image or network: no tiles fit"),
        option="tile_px" if fitting_px else None,
    )


def needed_bytes(job: EnlargeJob, tiling: Tiling, architecture: Architecture) -> float:
    """Return what the network and the bands round it take beside what is held once the network is open."""
    sizes, scale = job.sizes, job.pool.spec.scale
    passes = [_pass_bytes(job.pool, tiling, architecture, *sizes.before_pass(i, scale)) for i in range(sizes.passes)]
    streams = 2 if job.varying_alpha else 1
    return RESERVE_BYTES + streams * sum(passes) + _mixing_bytes(job) + _resampling_bytes(job)


def _mixing_bytes(job: EnlargeJob) -> float:
    """Return the memory of rows that wait to be mixed; 0 where all or nothing of the network is wanted."""
    if job.options.strength == 1 or not job.sizes.passes:
        return 0
    (height, width), (to_height, to_width) = job.sizes.input, job.sizes.output
    rows = waiting_rows(max(to_height / height, to_width / width))
    return (1 if job.info.is_grey else 3) * BAND_VALUE_BYTES * rows * to_width


def _resampling_bytes(job: EnlargeJob) -> float:
    """Return the memory of the rows that Lanczos alone reads and gives; 0 where the network has a part."""
    if job.sizes.passes:
        return 0
    (height, width), (to_height, to_width) = job.sizes.input, job.sizes.output
    window_rows = 3 * (2 * ROWS_A_CHUNK + 2 * LANCZOS_SUPPORT_PX * max(height / to_height, 1.0))
    band_rows = HELD_BANDS * ROWS_A_CHUNK
    values = (2 * ROWS_A_CHUNK + band_rows) * width + window_rows * min(width, to_width) + band_rows * to_width
    return job.info.channels * BAND_VALUE_BYTES * values


def _pass_bytes(pool: EnginePool, tiling: Tiling, architecture: Architecture, height_px: int, width_px: int) -> float:
    """Return the memory of the largest piece of an image, and of the bands round it, for one pass of the network."""
    layout = strip_layout_for(pool, height_px, width_px) if tiling.strips else None
    if layout is not None and tiling.strips is not None:
        rows_px, columns = layout.rows_px, layout.columns
        engine_bytes = tiling.strips.bytes_for(rows_px, columns.tile_px, len(columns.tiles))
    else:
        rows_px, read_px = tile_plan(pool.spec, tiling, height_px, width_px).tile_shape
        engine_bytes = pool.spec.best_batch * pool.engine.bytes_for(architecture, rows_px, read_px)
    if pool.spec.device_bytes is not None:
        engine_bytes = 0  # in the device's own memory
    input_bytes = 3 * BAND_VALUE_BYTES * rows_px * width_px
    return engine_bytes + (2 + HELD_BANDS * pool.spec.scale**2) * input_bytes


def _fitting_tile_px(job: EnlargeJob, architecture: Architecture, free: float) -> int | None:
    """Return the side of the largest tile with which an image fits in `free` bytes, or None."""
    tiling = replace(job.pool.tiling, max_untiled_area_px=0, strips=None, band_bytes=None)
    sides = range(tiling.tile_px // TILE_STEP_PX * TILE_STEP_PX, 0, -TILE_STEP_PX)
    fits = (side for side in sides if needed_bytes(job, replace(tiling, tile_px=side), architecture) <= free)
    return next(fits, None) if job.pool.spec.size.fixed_px is None else None


def encoder_bytes(info: ImageInfo, fmt: OutputFormat) -> float:
    """Return the memory that writing an image takes."""
    rows_bytes = ENCODER_ROWS * info.width_px * info.channels * info.bits // 8
    return rows_bytes + ENCODER_BYTES_PER_PX.get((fmt, info.has_alpha), 0) * info.width_px * info.height_px


def _amount(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.0f} MB"
