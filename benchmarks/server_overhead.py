"""Measures what a POST costs beside the same call in this process: sockets, upload, queue, processes, download."""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from server_child import COMPACT, serving

from realesr import FileOptions, NetworkOptions, Upscaler

FORMATS = ("jpeg", "png")
MOST_SHARE = 0.05
MOST_MS = 50.0
"""A POST may take so much longer than the call, and no more than this."""


def overhead_rows(photo: Path, runs: int, engine: str, threads: int | None, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield, for each format of the result, the medians of both ways, which take turns.

    Args:
        photo: image that is enlarged.
        runs: turns that are counted; one before them is not.
        engine: of both ways; likewise `threads`.
        folder: empty folder for files.
    """
    content, result = photo.read_bytes(), folder / "result"
    threads_given = () if threads is None else ("--threads", str(threads))
    network = NetworkOptions(model=COMPACT, engine=engine, threads=threads)
    with serving(folder, "--engine", engine, *threads_given) as server, Upscaler.from_options(network) as upscaler:
        for format in FORMATS:
            file = FileOptions(format=format, overwrite=True)

            def post(format: str = format) -> bytes:
                answer = server.send("/v1/images/upscale", content, photo.name, model=COMPACT, format=format)
                assert answer.status == 200, answer.error
                return answer.body

            def call(file: FileOptions = file) -> bytes:
                upscaler.upscale_file(photo, result, file=file)
                return result.read_bytes()

            assert post() == call(), "the server's result is another one"
            yield {"format": format, **_compared(post, call, runs), "runs": runs}


def _compared(post: Callable[[], bytes], call: Callable[[], bytes], runs: int) -> dict[str, Any]:
    """Return medians in ms, and how much longer a POST takes."""
    posts: list[float] = []
    calls: list[float] = []
    for turn in range(runs):
        for way, times in ((post, posts), (call, calls)) if turn % 2 else ((call, calls), (post, posts)):
            began = time.perf_counter()
            way()
            times.append((time.perf_counter() - began) * 1e3)
    post_ms, call_ms = statistics.median(posts), statistics.median(calls)
    return {
        "call_ms": call_ms,
        "post_ms": post_ms,
        "more_ms": post_ms - call_ms,
        "more_percent": 100 * (post_ms / call_ms - 1),
        "median_of_differences_ms": statistics.median(
            posted - called for posted, called in zip(posts, calls, strict=True)
        ),
        "holds": post_ms - call_ms <= MOST_MS and post_ms / call_ms - 1 <= MOST_SHARE,
    }
