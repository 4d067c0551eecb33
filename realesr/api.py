"""The Python API: `upscale` for one image, `Upscaler` to keep a network open for many images or files."""

import math
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from realesr import file_job, pixels
from realesr.engine import Engine, EngineSpec, NearestEngine, SizeRule
from realesr.errors import RealesrError, UsageError
from realesr.file_job import Progress, UpscaleResult
from realesr.memory import (
    SHARE_OF_FREE_MEMORY,
    StripBudget,
    free_bytes,
    one_piece_px_for,
    strip_budget,
    tile_px_for,
)
from realesr.options import FileOptions, ImageOptions, NetworkOptions
from realesr.pipeline import Job, enlarge, enlarge_to_rows
from realesr.tiled import Network, Tiling

if TYPE_CHECKING:
    from PIL import Image

    from realesr.engines import ModelFacts
    from realesr.weights import Weights

ImageLike = TypeVar("ImageLike", "Image.Image", NDArray[Any])

BLEND_OVERLAP_PX = 32
"""Overlap of networks whose receptive radius is too large to be exact; in pixels of the network's own grid."""
EXACT_OVERLAP_PX = 128
"""Overlap at which x4plus differs from the untiled result by at most one 8-bit level (benchmarks/bench_seams.py)."""
BAND_BYTES = 200_000_000
"""Most that the result of one row of tiles takes where the tile was not asked for; up to three are held at once."""
GPU_BAND_BYTES = 800_000_000
"""The same where tiles lie in a GPU's memory: 1,024 rows of a photo 4,000 px wide."""
CHEAP_RADIUS_PX = 40
"""Up to this receptive radius tiles overlap by all of it, and are exact."""


def upscale(
    image: ImageLike,
    model: str | Path = "realesrgan-x4plus",
    scale: float | None = None,
    *,
    alpha: Literal["network", "lanczos"] = "network",
    denoise: float | None = None,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
) -> ImageLike:
    """Enlarge one image in memory; see `Upscaler.upscale`. For many images keep an `Upscaler` open instead.

    Example:
        >>> import numpy as np
        >>> upscale(np.zeros((20, 30, 3), np.uint8), scale=2.5, engine="nearest").shape
        (50, 75, 3)
    """
    with Upscaler(
        model,
        denoise=denoise,
        engine=engine,
        device=device,
        precision=precision,
        threads=threads,
        options=options,
    ) as upscaler:
        return upscaler.upscale(image, scale, alpha=alpha)


class Upscaler:
    """An open network for many images. Safe to use from several threads; tiles of one image after the other.

    Args:
        model: name in the zoo, or a path to .onnx, .safetensors, .pth or ncnn files.
        denoise: 0 (keep noise) to 1 (remove most), for networks with a partner to blend with.
        engine: "auto", or a name of `realesr.engines.ENGINE_NAMES`.
        device: "auto", "cpu", "cuda", "cuda:1", ...: what the engine offers; "cuda:0,1" shares the tiles out.
        precision: "auto", "fp32", "fp16" or "bf16".
        threads: CPU threads; none takes every core that this process may use.
        options: switches of one engine by name, such as {"mode": "graphs"} of torch; 'realesr doctor' lists them.
        tta: mean over eight flips and transposes; eight times slower.
        tile_px: side of the part of an image that one tile answers for; none follows the free memory.
        overlap_px: what a tile reads beyond that on each side; none follows the network.
        exact: overlap so wide that the result differs from the untiled one by at most one 8-bit level.
        on_download: called with bytes done and bytes in all while weights are fetched.

    Raises:
        UsageError: an option makes no sense.
        ModelError: the network is unknown, damaged or of no known architecture.
        EngineError: the engine cannot run here.
        MissingDependency: the engine's package is not installed.

    Example:
        >>> import numpy as np
        >>> with Upscaler(engine="nearest") as upscaler:
        ...     large = upscaler.upscale(np.zeros((20, 30, 3), np.uint8))
        >>> large.shape
        (80, 120, 3)
    """

    def __init__(
        self,
        model: str | Path = "realesrgan-x4plus",
        *,
        denoise: float | None = None,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        options: Mapping[str, str] | None = None,
        tta: bool = False,
        tile_px: int | None = None,
        overlap_px: int | None = None,
        exact: bool = False,
        on_download: Progress | None = None,
    ) -> None:
        self.options = NetworkOptions(
            model=str(model),
            denoise=denoise,
            engine=engine,
            device=device,
            precision=precision,
            threads=threads,
            options=dict(options or {}),
            tta=tta,
            tile_px=tile_px,
            overlap_px=overlap_px,
            exact=exact,
        )
        self._devices = self.options.devices
        self._model, self._facts = _load_model(self.options, on_download)
        self._networks: dict[str, Network] = {}
        self._opening = threading.Lock()
        self.network_for(bits=8)

    @property
    def scale(self) -> int:
        """Output pixels per input pixel and side of the network itself."""
        return int(self._facts.scale)

    @property
    def choice(self) -> str:
        """Which engine runs where, and why, in one line; empty where both were asked for."""
        network = self.network_for(bits=8)
        spec = network.spec
        if not spec.chosen_because:
            return ""
        return f"{spec.name} {spec.precision} on {network.devices}: {spec.chosen_because}"

    def upscale(
        self, image: ImageLike, scale: float | None = None, *, alpha: Literal["network", "lanczos"] = "network"
    ) -> ImageLike:
        """Enlarge an image in memory.

        Args:
            image: a PIL image, or an array (height, width[, channels]) with 1 to 4 channels (grey or RGB, then alpha),
                uint8, uint16 or floats in [0, 1]. A PIL image comes back upright.
            scale: output pixels per input pixel and side, 1 to 16; none takes the network's own.
            alpha: how an alpha channel is enlarged: "network" or "lanczos".

        Returns:
            The same kind, type and channels, each side round(side * scale) px long. PIL's palettes, 1-bit and CMYK
            images come back as RGB or grey.

        Raises:
            UsageError: a scale or a way of enlarging alpha that there is not.
            InputError: an array or a mode that is no image.
            EngineError: the engine failed.
        """
        options = ImageOptions(scale=scale, alpha=alpha)
        if not isinstance(image, np.ndarray):
            array = pixels.array_from_pil(image)
            return pixels.pil_from_array(self._upscale_array(array, options), image)
        return self._upscale_array(image, options)

    def _upscale_array(self, array: NDArray[Any], options: ImageOptions) -> NDArray[Any]:
        planes, info = pixels.planes_from_array(array)
        network = self.network_for(bits=info.bits)
        if info.bits == 16 and network.spec.values == "uint8":
            raise UsageError(
                f"got {array.dtype} values and a network of 8 bits: expected uint8, or a network that takes float32"
            )
        constant = None
        if info.has_alpha and planes[-1].min() == planes[-1].max():
            constant = float(planes[-1, 0, 0])
        job = Job(info=info, network=network, options=options, constant_alpha=constant)
        if array.dtype.kind == "f":
            return pixels.array_from_planes(np.concatenate(list(enlarge(iter([planes]), job)), axis=1), array)
        rows = np.concatenate(list(enlarge_to_rows(iter([planes]), job)))
        return rows[:, :, 0] if array.ndim == 2 else rows

    def upscale_file(
        self,
        source: Path,
        target: Path | None = None,
        *,
        image: ImageOptions | None = None,
        file: FileOptions | None = None,
        on_progress: Progress | None = None,
    ) -> UpscaleResult:
        """Enlarge a file into another, in bounded memory; see `file_job.upscale_file`.

        Args:
            source: the image file.
            target: where the result goes; none is `<stem>_x4.<suffix>` beside the source.
            image: what is done to the pixels.
            file: how files are read and written.
            on_progress: called with the pixels done and the pixels in all, from a thread of its own.

        Raises:
            InputError: the source cannot be read.
            OutputExists: the target is there and `file.overwrite` is false.
            OutputError: the target cannot be written or cannot hold the image.
            EngineError: the engine failed.
        """
        return file_job.upscale_file(
            source,
            target,
            network_for=lambda bits: self.network_for(bits=bits),
            model=self._facts.name,
            image=image or ImageOptions(),
            file=file or FileOptions(),
            on_progress=on_progress,
        )

    def close(self) -> None:
        """Free the network."""
        for network in self._networks.values():
            network.close()
        self._networks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def network_for(self, *, bits: int) -> Network:
        """The open network for images of this depth: 16 bit takes float32 unless a precision was asked for."""
        precision = self.options.precision
        if bits == 16 and precision == "auto" and not isinstance(self._model, Path):  # a file has its own
            precision = "fp32"
        with self._opening:
            if precision not in self._networks:
                self._networks[precision] = self._open_network(precision)
            return self._networks[precision]

    def _open_network(self, precision: str) -> Network:
        first = self._open_engine(precision, self._devices[0], self.options.engine)
        for network in self._networks.values():
            if network.spec.precision == first.spec.precision:
                first.close()
                return network
        engines = [first]
        try:
            for device in self._devices[1:]:
                engines.append(self._open_engine(precision, device, first.spec.name))
        except RealesrError:
            for engine in engines:
                engine.close()
            raise
        open_fp32 = None
        if first.spec.precision != "fp32" and not isinstance(self._model, Path):
            open_fp32 = partial(self._open_engine, "fp32", engine_name=first.spec.name)
        return Network(*engines, tiling=tiling_for(self._facts, self.options, first.spec), open_fp32=open_fp32)

    def _open_engine(self, precision: str, device: str, engine_name: str) -> Engine:
        from realesr.engines import open_engine
        from realesr.engines.engine_options import checked_options
        from realesr.tta import SelfEnsembleEngine

        options = self.options
        engine: Engine
        if self._model is None:
            checked_options("nearest", options.options, {})
            engine = NearestEngine(self._facts.scale)
        else:
            engine = open_engine(
                self._model,
                engine=engine_name,
                device=device,
                precision=precision,
                threads=options.threads,
                options=options.options,
                engine_file=self._engine_file,
            )
        return SelfEnsembleEngine(engine) if options.tta else engine

    def _engine_file(self, device: str, precision: str, may_build: bool) -> Path:
        """The network as a TensorRT engine, for tiles of every size that it will be given."""
        from realesr.export.engine_cache import cached_engine
        from realesr.memory import SMALLEST_TILE_PX

        assert self._model is not None
        read_px = (self.options.tile_px or SMALLEST_TILE_PX) + 2 * overlap_for(self._facts, self.options)
        return cached_engine(self._model, device=device, precision=precision, read_px=read_px, may_build=may_build)


def overlap_for(facts: "ModelFacts", options: NetworkOptions) -> int:
    """What tiles of this network read beyond what they answer for: what was asked for, else what it needs."""
    radius = math.inf if facts.radius_px is None else facts.radius_px
    if options.overlap_px is not None:
        return options.overlap_px
    if options.exact or radius <= CHEAP_RADIUS_PX:
        return int(min(radius, EXACT_OVERLAP_PX * facts.multiple_of))
    return BLEND_OVERLAP_PX * facts.multiple_of


def tiling_for(facts: "ModelFacts", options: NetworkOptions, spec: EngineSpec) -> Tiling:
    """How images are cut for this network: what was asked for, else what it needs and the free memory allows."""
    radius = math.inf if facts.radius_px is None else facts.radius_px
    overlap = overlap_for(facts, options)
    if spec.size.fixed_px is not None:
        return _fixed_tiling(options, spec.size, overlap, radius)
    blend = overlap < radius
    room = (spec.size.maximum_px or math.inf) - 2 * overlap
    if (options.tile_px or 1) > room:
        raise UsageError(
            f"{Path(options.model).name} takes tiles of at most {spec.size.maximum_px} px with all that they overlap: "
            f"got an overlap of {overlap} px"
            + (f" and --tile {options.tile_px}" if options.tile_px else "")
            + ", expected less"
        )
    if options.tile_px is not None:
        return Tiling(tile_px=options.tile_px, overlap_px=overlap, blend=blend)
    free = free_bytes()
    read = tile_px_for(facts.architecture, spec.name, free, spec.precision, spec.device_free_bytes)
    read = min(read, spec.best_tile_px or read)
    tile_px = int(min(max(read - 2 * overlap, read // 2), room))
    return Tiling(
        tile_px=tile_px,
        overlap_px=overlap,
        blend=blend,
        band_bytes=band_bytes_for(spec, free),
        one_piece_px=_one_piece_px(facts, options, spec, free),
        strips=_strip_budget(facts, options, spec, free),
    )


def band_bytes_for(spec: EngineSpec, free: int) -> int:
    """Most that the result of one row of tiles takes: more where a GPU's large tiles would be cut down by it."""
    if spec.device_free_bytes is None:
        return BAND_BYTES
    held = 12 if spec.joins_tiles else 3  # of three rows of tiles; joined on the GPU they come as uint8, a quarter
    return int(max(BAND_BYTES, min(GPU_BAND_BYTES, free * SHARE_OF_FREE_MEMORY / held)))


def _one_piece_px(facts: "ModelFacts", options: NetworkOptions, spec: EngineSpec, free: int) -> int:
    """Area up to which images are not cut; 0 where strips do as well, or where 'realesr tune' has measured tiles."""
    is_measured = spec.first_rows_px is not None or spec.best_tile_px is not None
    if facts.architecture is None or is_measured or not _is_open(options, spec):
        return 0
    return one_piece_px_for(facts.architecture, spec.name, free, spec.precision)


def _strip_budget(facts: "ModelFacts", options: NetworkOptions, spec: EngineSpec, free: int) -> StripBudget | None:
    """What strips may take; none where tiles were asked for, or are all there is."""
    architecture = facts.architecture
    if architecture is None or spec.first_rows_px is None or not _is_open(options, spec):
        return None
    halo = min(architecture.radius_px, EXACT_OVERLAP_PX * architecture.multiple_of)
    return strip_budget(architecture, spec.name, free, halo, spec.precision, is_exact=options.exact)


def _is_open(options: NetworkOptions, spec: EngineSpec) -> bool:
    """Whether there is a choice but tiles: nobody asked for them, and not on GPUs, where nothing else was measured."""
    return options.overlap_px is None and spec.device == "cpu" and len(options.devices) == 1


def _fixed_tiling(options: NetworkOptions, size: SizeRule, overlap: int, radius: float) -> Tiling:
    """The same for a file that takes one size: what was not asked for makes room."""
    assert size.fixed_px is not None
    side = min(size.fixed_px)
    if options.overlap_px is None and not options.exact:
        overlap = min(overlap, side // 4 // size.multiple_of * size.multiple_of)
    room = side - 2 * overlap
    if room < 1 or options.tile_px not in (None, room):
        height, width = size.fixed_px
        raise UsageError(
            f"{Path(options.model).name} takes only tiles of {width} x {height} px with all that they overlap: got an "
            f"overlap of {overlap} px"
            + (f" and --tile {options.tile_px}" if options.tile_px else "")
            + ", expected "
            + (f"--tile {room}, or none" if room >= 1 else "a smaller one, or a network that takes all sizes")
        )
    return Tiling(tile_px=max(size.fixed_px) - 2 * overlap, overlap_px=overlap, blend=overlap < radius)


def _load_model(options: NetworkOptions, on_download: Progress | None) -> tuple["Weights | Path | None", "ModelFacts"]:
    from realesr.engines import model_facts
    from realesr.zoo import ZOO, load_model

    if options.engine == "nearest" and options.model in ZOO:
        return None, model_facts(ZOO[options.model])  # a dry run needs no weights
    model = load_model(options.model, denoise=options.denoise, progress=on_download)
    return model, model_facts(model)
