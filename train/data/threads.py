"""Works on many files at once in threads: decoding and encoding happen in C, outside Python's lock."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[tuple[T, R]]:
    """Yield every item with what `work` makes of it, in order.

    An exception, Ctrl-C included, ends it once what has been begun is done; the rest is not begun.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="realesr-data")
    try:
        yield from zip(items, pool.map(work, items), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
