"""What a way of running a network looks like from outside, and the smallest one: `NearestEngine`."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from realesr.errors import BadShape, EngineError

if TYPE_CHECKING:
    from realesr.strips import Strips
    from realesr.tile_rows import TileRows
    from realesr.tiles import TilePlan

Precision = Literal["fp32", "fp16", "bf16"]
Values = Literal["float32", "uint8"]

MAX_BATCH = 8
"""Of engines that know no limit of their own. An assumption: more tiles at once only take more memory."""


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """Heights and widths that an engine takes, in input pixels."""

    minimum_px: int = 1
    """Smallest side; a multiple of `multiple_of`."""
    multiple_of: int = 1
    """Every side is a multiple of this: 2 or 4 for networks that begin with a pixel-unshuffle."""
    fixed_px: tuple[int, int] | None = None
    """The one height and width that is taken, for files of a fixed shape; a multiple of `multiple_of`."""
    maximum_px: int | None = None
    """Largest side, where there is one."""

    def fits(self, height_px: int, width_px: int) -> bool:
        """Whether an image of this size may be given to the engine."""
        if self.fixed_px is not None:
            return (height_px, width_px) == self.fixed_px
        if self.maximum_px is not None and max(height_px, width_px) > self.maximum_px:
            return False
        return all(side >= self.minimum_px and side % self.multiple_of == 0 for side in (height_px, width_px))


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """Facts about an open engine."""

    name: str
    """Name as in `--engine`."""
    scale: int
    """Output pixels per input pixel and side."""
    precision: Precision
    """Arithmetic of the network's body; `run` takes and gives float32 in any case."""
    values: Values = "float32"
    """What the network itself takes and gives: a "uint8" one has only the 256 levels of images of 8 bits."""
    device: str
    """Where it runs: "cpu", "cuda:0", ..."""
    size: SizeRule = SizeRule()
    max_batch: int = 1
    """Largest N that `run` takes."""
    best_batch: int = 1
    """N that is fastest, at most `max_batch`."""
    first_rows_px: int | None = None
    """Fewest rows of an image's first strip; none where the engine has no strips."""
    best_tile_px: int | None = None
    """Side of the tile that 'realesr tune' found to be the fastest, with what it overlaps; none without it."""
    joins_tiles: bool = False
    """Whether `open_tile_rows` works: the engine joins the tiles of an image in its device's memory."""
    device_free_bytes: int | None = None
    """Free memory of the device when the network was open; none where that is the host's."""
    chosen_because: str = ""
    """Why the automatic choice took this engine and device; empty where both were asked for."""


OnShare = Callable[[float], None]
"""Called with the share of a run that is done, from 0 to 1, never less than before. What it raises ends the run."""


def not_told(_share: float) -> None:
    """For a run that nobody watches."""


class Engine(Protocol):
    """One open network on one device. Not thread-safe; `with` closes it."""

    @property
    def spec(self) -> EngineSpec:
        """Facts about this engine; they do not change while it is open."""
        ...

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a batch.

        Args:
            batch: (N, 3, h, w) float32 RGB in [0, 1], C-contiguous, N <= spec.max_batch.

        Returns:
            (N, 3, h * scale, w * scale) float32 RGB, not clamped, owned by the caller.

        Raises:
            OutOfMemory: the batch does not fit; the engine stays usable for a smaller one.
            BadShape: the batch breaks `spec.size` or `spec.max_batch`.
        """
        ...

    def run_watched(self, batch: NDArray[np.float32], on_share: OnShare) -> NDArray[np.float32]:
        """The same as `run`; an engine that knows how far it is tells so, from the thread that calls this."""
        ...

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> "Strips":
        """Begin an image that is enlarged strip by strip, where `spec.first_rows_px` says that this can be done.

        Args:
            width_px: width of the image. Likewise `height_px`. Several images may be under way at once.
            rows_px: rows that will be given at a time. Many more come to the network's last layers at once with the
                image's last rows: those get them in portions of about this.

        Raises:
            BadShape: the size breaks `spec.size`.
            OutOfMemory: not even the beginning fits.
            EngineError: the engine has no strips.
        """
        ...

    def open_tile_rows(self, plan: "TilePlan", *, eight_bit: bool) -> "TileRows":
        """Begin an image whose tiles are joined by the engine, where `spec.joins_tiles` says that this can be done.

        Args:
            plan: how the image is cut.
            eight_bit: whether the result is wanted clamped and rounded to uint8, not as float32.

        Raises:
            EngineError: the engine does not join tiles.
        """
        ...

    def close(self) -> None:
        """Free the network; closing twice is allowed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_batch(batch: NDArray[np.float32], spec: EngineSpec) -> None:
    """Raise BadShape, in the words that every engine uses, where `batch` is not what `Engine.run` takes."""
    if batch.ndim != 4 or batch.shape[1] != 3 or batch.dtype != np.float32:
        raise BadShape(f"engine {spec.name} got {batch.dtype} {batch.shape}, expected float32 (N, 3, height, width)")
    count, _, height, width = batch.shape
    if not 1 <= count <= spec.max_batch:
        raise BadShape(f"engine {spec.name} got a batch of {count}, expected 1 to {spec.max_batch}")
    if not spec.size.fits(height, width):
        if spec.size.fixed_px is not None:
            raise BadShape(
                f"engine {spec.name} got {width} x {height} px, expected {spec.size.fixed_px[1]} x "
                f"{spec.size.fixed_px[0]} px: this network takes nothing else"
            )
        raise BadShape(
            f"engine {spec.name} got {width} x {height} px, expected sides of at least {spec.size.minimum_px} px "
            + (f"and at most {spec.size.maximum_px} px " if spec.size.maximum_px is not None else "")
            + f"that are multiples of {spec.size.multiple_of}"
        )


class EngineBase:
    """`with` for engines: leaving the block closes them. No strips and nothing told of a run, unless they have it."""

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a batch; see `Engine.run`. Every engine has its own."""
        raise NotImplementedError

    def run_watched(self, batch: NDArray[np.float32], on_share: OnShare) -> NDArray[np.float32]:
        """The same as `run`; see `Engine.run_watched`."""
        return self.run(batch)

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> "Strips":
        """Refuse; see `Engine.open_strips`."""
        raise EngineError(f"{type(self).__name__} has no strips for {width_px} x {height_px} px: expected tiles")

    def open_tile_rows(self, plan: "TilePlan", *, eight_bit: bool) -> "TileRows":
        """Refuse; see `Engine.open_tile_rows`."""
        raise EngineError(f"{type(self).__name__} does not join the tiles of an image: expected single tiles")

    def close(self) -> None:
        """Nothing to free."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NearestEngine(EngineBase):
    """Repeats every pixel: for tests, dry runs, and to time everything but the network."""

    def __init__(self, scale: int = 4, size: SizeRule | None = None, max_batch: int = 1) -> None:
        self.spec = EngineSpec(
            name="nearest",
            scale=scale,
            precision="fp32",
            device="cpu",
            size=size or SizeRule(),
            max_batch=max_batch,
            best_batch=max_batch,
        )

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enlarge a batch by repeating pixels; see `Engine.run`."""
        check_batch(batch, self.spec)
        return batch.repeat(self.spec.scale, axis=2).repeat(self.spec.scale, axis=3)
