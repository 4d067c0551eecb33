"""The protocol of engines, which are ways of running a network, and the smallest engine: `NearestEngine`."""

from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from realesr.errors import BadShape, EngineError
from realesr.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from realesr.models.architecture import Architecture
    from realesr.runtime.strips import Strips
    from realesr.runtime.tile_rows import TileRows
    from realesr.runtime.tiles import TilePlan

__all__ = [
    "MAX_BATCH",
    "Engine",
    "EngineBase",
    "EngineSpec",
    "IoDtype",
    "NearestEngine",
    "PieceSizes",
    "Precision",
    "ProgressCallback",
    "SizeRule",
    "TileJoiningEngine",
    "check_batch",
    "no_progress",
]

Precision = Literal["fp32", "fp16", "bf16"]
IoDtype = Literal["float32", "uint8"]

MAX_BATCH = 8
"""Largest batch of engines without a limit of their own. Assumption: larger ones only take more memory."""


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """Heights and widths that an engine takes, in input pixels."""

    minimum_px: int = 1
    """Smallest side; a multiple of `multiple_of`."""
    multiple_of: int = 1
    """Every side is a multiple of this: 2 or 4 for networks that begin with a pixel-unshuffle."""
    fixed_px: tuple[int, int] | None = None
    """Only height and width that fit, for files of a fixed shape; multiples of `multiple_of`."""
    maximum_px: int | None = None
    """Largest side, where there is one."""

    def fits(self, height_px: int, width_px: int) -> bool:
        """Return whether the engine takes an image of this size."""
        if self.fixed_px is not None:
            return (height_px, width_px) == self.fixed_px
        if self.maximum_px is not None and max(height_px, width_px) > self.maximum_px:
            return False
        return all(side >= self.minimum_px and side % self.multiple_of == 0 for side in (height_px, width_px))


@dataclass(frozen=True, kw_only=True)
class PieceSizes:
    """Sizes of tiles and strips at which an engine is fastest, as measured; in pixels of the network's own grid.

    That is the grid of its first convolution: the image's, or a coarser one behind a pixel-unshuffle.
    """

    largest_tile_px: int = 512
    """Side of a tile with all that it overlaps; larger ones take more memory and gain nothing."""
    largest_strip_px: int = 65_536
    """Rows times columns of a strip."""
    smallest_strip_rows: int = 16
    """Fewest rows of a strip: convolutions read two rows again with every strip."""
    largest_strip_rows: int = 64
    """Most rows of a strip: more gain no speed, and bands of the result take memory as well."""
    strip_rows_step: int = 4
    """Strips have the fewest rows, or multiples of so many more."""
    strips_limit_bytes: float | None = None
    """Most memory for strips of the fewest rows; None for what any piece may take."""
    strip_state_bytes: float | None = None
    """What strips keep for each column between them; None for the rows that each layer of the description needs."""
    smallest_image_in_strips_px: int = 0
    """Height times width of an image; smaller ones are faster in tiles."""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """Facts about an open engine."""

    name: str
    """Name as in `--engine`."""
    scale: int
    """Output pixels per input pixel and side."""
    precision: Precision
    """Arithmetic of the network's body; `run` takes and gives float32 in any case."""
    io_dtype: IoDtype = "float32"
    """Dtype of the network's own input and output: a "uint8" network has only the 256 levels of 8-bit images."""
    device: str
    """Device that it runs on: "cpu", "cuda:0", ..."""
    size: SizeRule = SizeRule()
    pieces: PieceSizes = PieceSizes()
    max_batch: int = 1
    """Largest N that `run` takes."""
    best_batch: int = 1
    """N that is fastest, at most `max_batch`."""
    first_rows_px: int | None = None
    """Fewest rows of an image's first strip; none where the engine has no strips."""
    joins_tiles: bool = False
    """Whether it is a `TileJoiningEngine`: it joins the tiles of an image in its device's memory."""
    device_bytes: int | None = None
    """Memory of the device, whether it is free or not; none where that is the host's."""


class Engine(Protocol):
    """One open network on one device. Not thread-safe; `with` closes it."""

    @property
    def spec(self) -> EngineSpec:
        """Return the facts about this engine, which do not change while it is open."""
        ...

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Enlarge a batch.

        Args:
            batch: (N, 3, h, w) float32 RGB in [0, 1], C-contiguous, N <= spec.max_batch.
            on_progress: called now and then from the calling thread by an engine that knows how far it is.

        Returns:
            (N, 3, h * scale, w * scale) float32 RGB, not clamped, owned by the caller.

        Raises:
            OutOfMemory: the batch does not fit; the engine stays usable for a smaller one.
            BadShape: the batch breaks `spec.size` or `spec.max_batch`.
        """
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

    def bytes_for(
        self, architecture: "Architecture", height_px: int, width_px: int, *, in_strips: bool = False
    ) -> float:
        """Return the memory that the engine takes to enlarge a piece of an image, beside the weights, as measured.

        Args:
            architecture: of the network, or of one like it where the file does not tell.
            height_px: height of a tile, or of every strip but the first, which is higher by the receptive radius.
            width_px: width of the tile or of the strip.
            in_strips: whether the piece is a strip: its states from strip to strip are counted too.
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
    """Raise BadShape, with the same message for every engine, where `Engine.run` does not take `batch`."""
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


class TileJoiningEngine(Engine, Protocol):
    """An engine that joins the tiles of an image in its device's memory, where `spec.joins_tiles` says so."""

    def open_tile_rows(self, plan: "TilePlan", *, eight_bit: bool) -> "TileRows":
        """Begin an image.

        Args:
            plan: how the image is cut.
            eight_bit: whether the result is wanted clamped and rounded to uint8, not as float32.
        """
        ...


class EngineBase:
    """A base for engines: `with` closes them, and there are no strips unless they have them."""

    spec: EngineSpec

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> "Strips":
        """Raise EngineError; see `Engine.open_strips`."""
        raise EngineError(f"{type(self).__name__} has no strips for {width_px} x {height_px} px: expected tiles")

    def bytes_for(
        self, architecture: "Architecture", height_px: int, width_px: int, *, in_strips: bool = False
    ) -> float:
        """Return the size of the result, the estimate for engines that were not measured; see `Engine.bytes_for`."""
        return 3.0 * 4 * height_px * width_px * self.spec.scale**2

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

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

    def run(self, batch: NDArray[np.float32], on_progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """Enlarge a batch by repeating pixels; see `Engine.run`."""
        check_batch(batch, self.spec)
        return batch.repeat(self.spec.scale, axis=2).repeat(self.spec.scale, axis=3)
