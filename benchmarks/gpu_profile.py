"""Profiles x4plus on a GPU: kernels of a tile and of a photo, and the cost of a second thread."""

import math
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gpu_bench import JPEG_QUALITY, Bench, Case, Options, bench_for, measured
from gpu_timing import Row, profiled, whole_seconds

from realesr.engines.pytorch.engine import open_torch
from realesr.engines.trial import photo_like
from realesr.options import FileOptions


def profile(device: str, *, small: bool = False) -> Iterator[Row]:
    """Profile x4plus: the cost of a second thread, then kernels of a tile and of a photo.

    Yields:
        "threads": seconds of two images of one size that two threads, or one, give to an open network one after the
        other. A thread that cuDNN searches in again takes as long for the second as for the first.
        "profile of a tile" and "profile of a photo": time in kernels, their number, and the share of the time in which
        none ran; after each its twelve kernels that took the most ("kernel").
    """
    with tempfile.TemporaryDirectory() as folder:
        bench = bench_for(device, Path(folder), small=small)
        model = next(iter(bench.models))
        tile_px = bench.tile_sides[model][0]
        for threads in (2, 1):
            case = Case(what="threads", model=model, tile_px=tile_px, step=partial(_threads, bench, threads, tile_px))
            yield measured(case, left_s=math.inf)
        yield from _kernels(bench, "profile of a tile", {}, _tile_step, tile_px=tile_px)
        yield from _kernels(bench, "profile of a photo", {}, _photo_step)
        yield from _kernels(bench, "profile of a tile", {"kernels": "triton"}, _tile_step, tile_px=tile_px)


Step = Callable[[], Any]


def _kernels(
    bench: Bench,
    what: str,
    options: Options,
    opened: Callable[[Bench, Options], AbstractContextManager[Step]],
    tile_px: int | None = None,
) -> Iterator[Row]:
    """Profile a step that `opened` gives; yield the sum, then its kernels."""
    kernels: list[Row] = []

    def step() -> Row:
        with opened(bench, options) as run:
            summary, found = profiled(run, bench.device)
        kernels.extend(found)
        return summary

    model = next(iter(bench.models))
    row = measured(Case(what=what, model=model, tile_px=tile_px, options=options, step=step), left_s=math.inf)
    yield row
    yield from ({"what": "kernel", "of": what, "options": row["options"], **kernel} for kernel in kernels)


@contextmanager
def _tile_step(bench: Bench, options: Options) -> Iterator[Step]:
    model = next(iter(bench.models))
    pixels = photo_like(bench.tile_sides[model][0])
    with open_torch(bench.weights(model), device=bench.device, precision=bench.precision, options=options) as engine:
        yield lambda: engine.run(pixels)


@contextmanager
def _photo_step(bench: Bench, options: Options) -> Iterator[Step]:
    file = FileOptions(overwrite=True, quality=JPEG_QUALITY)
    with bench.upscaler(next(iter(bench.models)), options) as upscaler:
        yield lambda: upscaler.upscale_file(bench.photo, bench.target, file=file)


def _threads(bench: Bench, threads: int, side_px: int) -> Row:
    """Time two images, each from a new thread or both from one."""
    picture = (photo_like(side_px)[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)
    with bench.upscaler(next(iter(bench.models)), {}) as upscaler:
        step = partial(whole_seconds, partial(upscaler.upscale, picture))
        if threads == 1:
            with ThreadPoolExecutor(1) as pool:
                first_s, second_s = pool.submit(step).result(), pool.submit(step).result()
        else:
            with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
                first_s, second_s = pool.submit(step).result(), other.submit(step).result()
    return {"threads": threads, "first_s": first_s, "second_s": second_s}
