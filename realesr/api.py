"""The Python API: `upscale` for one image, `Upscaler` to keep a network open for many images or files."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from realesr.engine import Engine, NearestEngine
from realesr.errors import LargeEnough, OutputError, RealesrError, UsageError
from realesr.images import arrays as pixels
from realesr.machine.forking import check_not_forked
from realesr.machine.private_folder import private_folder
from realesr.machine.whole_file import file_sha256
from realesr.options import FileOptions, ImageOptions, NetworkOptions
from realesr.progress import AmountCallback
from realesr.runtime import file_job
from realesr.runtime.default_network import with_network
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.file_job import UpscaleResult
from realesr.runtime.memory_plan import check_memory
from realesr.runtime.pipeline import EnlargeJob, check_target_size, enlarge, enlarge_to_rows
from realesr.runtime.speed import seconds_per_px
from realesr.runtime.tiling import architecture_of, overlap_for, tiling_for
from realesr.target_size import TargetSize

if TYPE_CHECKING:
    from PIL import Image

    from realesr.engines import ChosenEngine
    from realesr.models.facts import ModelFacts
    from realesr.models.weights import Weights

_log = logging.getLogger(__name__)

ImageLike = TypeVar("ImageLike", "Image.Image", NDArray[Any])


def upscale(
    image: ImageLike,
    model: str | Path | None = None,
    scale: float | None = None,
    *,
    size: TargetSize | None = None,
    shrink: bool = False,
    alpha: Literal["network", "lanczos"] = "network",
    strength: float = 1.0,
    denoise: float | None = None,
    denoise_with: str | Path | None = None,
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
        denoise_with=denoise_with,
        engine=engine,
        device=device,
        precision=precision,
        threads=threads,
        options=options,
    ) as upscaler:
        return upscaler.upscale(image, scale, size=size, shrink=shrink, alpha=alpha, strength=strength)


class Upscaler:
    """An open network for many images. Safe to use from several threads; tiles of one image after the other.

    Args:
        model: name in the zoo, or a path to .onnx, .safetensors, .pth or ncnn files. None is realesrgan-x4plus where it
            is on disk or can be fetched, else realesr-general-x4v3, which comes with the package: `substitution` and
            the log then say so.
        denoise: 0 (keep noise) to 1 (remove most), for networks with a partner to blend with.
        denoise_with: name or path of the partner, another network of the same architecture, scale and size; by default
            the one that was released with the network.
        engine: "auto", or a name of `realesr.engines.ENGINE_NAMES`.
        device: "auto", "cpu", "cuda", "cuda:1", ...: what the engine offers; "cuda:0,1" shares the tiles out.
        precision: "auto", "fp32", "fp16" or "bf16".
        threads: CPU threads; none takes every core that this process may use.
        options: switches of one engine by name, such as {"mode": "graphs"} of torch; 'realesr doctor' lists them.
        tta: mean over eight flips and transposes; eight times slower.
        tile_px: side of the part of an image that one tile answers for; none follows the network.
        overlap_px: margin that a tile reads beyond that on each side; none follows the network.
        exact: overlap so wide that the result differs from the untiled one by at most one 8-bit level.
        on_download: called with bytes done and bytes in all while weights are fetched.

    Attributes:
        options: the options, with the name of the network that runs.
        substitution: one line where another network stands in for the default one; else empty. The notices of every
            file's result begin with it. Whoever has called `with_network` before may set it.

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
        model: str | Path | None = None,
        *,
        denoise: float | None = None,
        denoise_with: str | Path | None = None,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        options: Mapping[str, str] | None = None,
        tta: bool = False,
        tile_px: int | None = None,
        overlap_px: int | None = None,
        exact: bool = False,
        on_download: AmountCallback | None = None,
    ) -> None:
        network = NetworkOptions(
            model=None if model is None else str(model),
            denoise=denoise,
            denoise_with=None if denoise_with is None else str(denoise_with),
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
        self._open(network, on_download)
        if self.substitution:
            _log.warning(self.substitution)

    @classmethod
    def from_options(
        cls,
        options: NetworkOptions,
        on_download: AmountCallback | None = None,
        *,
        model: "Weights | Path | None" = None,
    ) -> Self:
        """Open the network that `options` describes; raises what the class does, and leaves `substitution` unlogged.

        Args:
            options: the network, and how it runs.
            on_download: called with bytes done and bytes in all while weights are fetched.
            model: what `realesr.models.zoo.load_model` has returned for `options`; without it, it is loaded here.
        """
        upscaler = cls.__new__(cls)
        upscaler._open(options, on_download, model)
        return upscaler

    def _open(
        self, options: NetworkOptions, on_download: AmountCallback | None, model: "Weights | Path | None" = None
    ) -> None:
        """Load the network and open its first engine."""
        options, self.substitution = with_network(options, on_download)
        self.options = options
        self._devices = options.devices
        self._model, self._facts = _load_model(options, on_download, model)
        self._pools: dict[str, EnginePool] = {}
        self._opening = threading.Lock()
        self._is_closed = False
        self.pool_for(bits=8)

    @property
    def scale(self) -> int:
        """Return the network's own scale: output pixels per input pixel and side."""
        return int(self._facts.scale)

    @property
    def choice(self) -> str:
        """Return the engine, its device and the reason for them in one line; empty where both were asked for."""
        pool = self.pool_for(bits=8)
        spec = pool.spec
        if not pool.chosen_because:
            return ""
        return f"{spec.name} {spec.precision} on {pool.devices}: {pool.chosen_because}"

    @cached_property
    def seconds_per_px(self) -> float | None:
        """Return how long the network takes for one pixel of its input, measured at the first call; None on a GPU.

        The measurement takes as long as an image of 64 x 64 px, or two where that is quick; expect an error of a third.
        """
        return seconds_per_px(self.pool_for(bits=8))

    def upscale(
        self,
        image: ImageLike,
        scale: float | None = None,
        *,
        size: TargetSize | None = None,
        shrink: bool = False,
        alpha: Literal["network", "lanczos"] = "network",
        strength: float = 1.0,
    ) -> ImageLike:
        """Enlarge an image in memory.

        Args:
            image: a PIL image, or an array (height, width[, channels]) with 1 to 4 channels (grey or RGB, then alpha),
                uint8, uint16 or floats in [0, 1]. A PIL image comes back upright.
            scale: output pixels per input pixel and side, 1 to 16; none follows from `size`, or is the network's own.
            size: size of the result, in the place of a scale. An image that is as large already is returned itself.
            shrink: resample an image that is larger than `size` down to it.
            alpha: how an alpha channel is enlarged: "network" or "lanczos".
            strength: share of the network's detail, 0 to 1: the rest is Lanczos, and below 0.9 the broad tones are
                those of the image itself; with 0 the network does not run. See `realesr.runtime.strength`.

        Returns:
            The same kind, type and channels, each side round(side * scale) px long, or as `size` says. PIL's palettes,
            1-bit, Lab and CMYK images come back as RGB or grey, those with a transparent colour with an alpha channel.

        Raises:
            UsageError: the scale is out of range, also one that follows from `size`; both are given, or shrink without
                a size; or the way of enlarging alpha is unknown.
            InputError: neither an image nor an array, an array or a mode that is no image, or floats outside [0, 1].
            EngineError: the engine failed.
        """
        options = ImageOptions(scale=scale, size=size, shrink=shrink, alpha=alpha, strength=strength)
        try:
            if isinstance(image, np.ndarray):
                return self._upscale_array(np.asarray(image), options)
            array, info = pixels.pixels_from_pil(image)
            enlarged = self._upscale_array(array, options)
        except LargeEnough:
            return image
        return pixels.pil_from_array(enlarged, info, size.pixels_per_mm if size else None)

    def _upscale_array(self, array: NDArray[Any], options: ImageOptions) -> NDArray[Any]:
        planes, info = pixels.planes_from_array(array)
        check_target_size(info, options, "the image")
        pool = self.pool_for(bits=info.bits)
        if info.bits == 16 and pool.spec.io_dtype == "uint8":
            raise UsageError(
                f"got {array.dtype} values and a network of 8 bits: expected uint8, or a network that takes float32"
            )
        constant = None
        if info.has_alpha and planes[-1].min() == planes[-1].max():
            constant = float(planes[-1, 0, 0])
        job = EnlargeJob(info=info, pool=pool, options=options, constant_alpha=constant)
        check_memory(job, architecture_of(self._facts), _result_bytes(array, job), "an image")
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
        on_progress: AmountCallback | None = None,
    ) -> UpscaleResult:
        """Enlarge a file into another, in bounded memory; see `file_job.upscale_file`.

        Args:
            source: the image file.
            target: where the result goes; none is `<stem>_x4.<suffix>` or `<stem>_3840px.<suffix>` beside the source.
            image: what is done to the pixels.
            file: how files are read and written.
            on_progress: called with the pixels done and the pixels in all, from a thread of its own.

        Raises:
            InputError: the source cannot be read.
            LargeEnough: the source has the size that `image` asks for, or a larger one that is not to shrink.
            OutputExists: the target is there and `file.overwrite` is false.
            OutputError: the target cannot be written or cannot hold the image.
            EngineError: the engine failed.
        """
        result = file_job.upscale_file(
            source,
            target,
            pool_for=lambda bits: self.pool_for(bits=bits),
            facts=self._facts,
            identity=self._identity,
            image=image or ImageOptions(),
            file=file or FileOptions(),
            on_progress=on_progress,
        )
        return replace(result, notices=(self.substitution, *result.notices)) if self.substitution else result

    def upscale_bytes(
        self,
        data: bytes,
        *,
        format: str | None = None,
        image: ImageOptions | None = None,
        file: FileOptions | None = None,
    ) -> bytes:
        """Enlarge an image file that is held in memory; see `upscale_file`, of which this makes temporary files.

        Args:
            data: the bytes of an image file.
            format: "png", "jpeg", "tiff", "webp" or "avif"; none takes that of `file`, else the input's where it can be
                written, else PNG.
            image: what is done to the pixels.
            file: how the bytes are read and written.

        Returns:
            The bytes of the enlarged image's file. Notices about it go to the log.

        Raises:
            InputError: the bytes are no image that can be read.
            LargeEnough: the image has the size that is asked for, or a larger one that is not to shrink.
            OutputError: the format cannot hold the image, or there is no room for temporary files.
            EngineError: the engine failed.
        """
        options = replace(file or FileOptions(), resume=False)
        with private_folder("realesr-bytes-") as folder:
            source, target = folder / "source", folder / "target"
            try:
                source.write_bytes(data)
                options = options if format is None else replace(options, format=format)
                result = self.upscale_file(source, target, image=image, file=options)
                enlarged = target.read_bytes()
            except RealesrError as error:
                reason = str(error).replace(str(source), "the image's file").replace(str(target), "the output")
                raise type(error)(reason, option=error.option) from error
            except OSError as error:
                raise OutputError(f"temporary files cannot be written ({error.strerror}): set TMPDIR") from error
        for notice in result.notices:
            _log.info("%s", notice)
        return enlarged

    def _identity(self) -> dict[str, object]:
        """Return what tells this network and its options from others: the hash of its weights or of its file."""
        model, options = self._model, self.options
        sha256 = file_sha256(model) if isinstance(model, Path) else model.sha256 if model else ""
        return {"network": sha256, "engine_options": dict(options.options), "tta": options.tta}

    def close(self) -> None:
        """Free the network; closing twice is allowed."""
        self._is_closed = True
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pool_for(self, *, bits: int) -> EnginePool:
        """Return the open network for images of this depth: 16 bit takes float32 unless a precision was asked for.

        Raises:
            UsageError: the Upscaler is closed.
            EngineError: the engine cannot run here, or this process was forked from one that had opened a network.
        """
        if self._is_closed:
            raise UsageError("this Upscaler is closed: open another one")
        check_not_forked()
        precision = self.options.precision
        if bits == 16 and precision == "auto" and not isinstance(self._model, Path):  # a file has its own
            precision = "fp32"
        with self._opening:
            if precision not in self._pools:
                self._pools[precision] = self._open_pool(precision)
            return self._pools[precision]

    def _open_pool(self, precision: str) -> EnginePool:
        first = self._open_engine(precision, self._devices[0], self.options.engine)
        for pool in self._pools.values():
            if pool.spec.precision == first.engine.spec.precision:
                first.engine.close()
                return pool
        engines, name = [first.engine], first.engine.spec.name
        try:
            for device in self._devices[1:]:
                engines.append(self._open_engine(precision, device, name).engine)
        except RealesrError:
            for engine in engines:
                engine.close()
            raise
        open_fp32 = None
        if first.engine.spec.precision != "fp32" and not isinstance(self._model, Path):
            open_fp32 = partial(self._open_fp32, engine_name=name)
        pool = EnginePool(
            *engines,
            tiling=tiling_for(self._facts, self.options, first.engine, tuned_tile_px=first.tuned_tile_px),
            open_fp32=open_fp32,
            chosen_because=first.chosen_because,
        )
        spec = pool.spec
        _log.info("%s: %s %s on %s, %s", self._facts.name, name, spec.precision, pool.devices, pool.tiling.in_words)
        return pool

    def _open_fp32(self, device: str, engine_name: str) -> Engine:
        return self._open_engine("fp32", device, engine_name).engine

    def _open_engine(self, precision: str, device: str, engine_name: str) -> "ChosenEngine":
        from realesr.engines import ChosenEngine, open_chosen_engine
        from realesr.engines.engine_options import checked_options
        from realesr.runtime.tta import SelfEnsembleEngine

        options = self.options
        if self._model is None:
            checked_options("nearest", options.options, {})
            chosen = ChosenEngine(engine=NearestEngine(self._facts.scale))
        else:
            chosen = open_chosen_engine(
                self._model,
                engine=engine_name,
                device=device,
                precision=precision,
                threads=options.threads,
                options=options.options,
                engine_file=self._engine_file,
            )
        return replace(chosen, engine=SelfEnsembleEngine(chosen.engine)) if options.tta else chosen

    def _engine_file(self, device: str, precision: str, may_build: bool) -> Path:
        """Return the network as a TensorRT engine's file, for tiles of every size that it will be given."""
        from realesr.export.engine_cache import cached_engine
        from realesr.runtime.tile_size import SMALLEST_TILE_PX

        assert self._model is not None
        read_px = (self.options.tile_px or SMALLEST_TILE_PX) + 2 * overlap_for(self._facts, self.options)
        return cached_engine(self._model, device=device, precision=precision, read_px=read_px, may_build=may_build)


def _result_bytes(array: NDArray[Any], job: EnlargeJob) -> float:
    """Return the memory of the result of an image in memory: its bands, and all of them joined."""
    height, width = job.sizes.output
    return 2.0 * height * width * job.info.channels * array.dtype.itemsize


def _load_model(
    options: NetworkOptions, on_download: AmountCallback | None, model: "Weights | Path | None"
) -> tuple["Weights | Path | None", "ModelFacts"]:
    from realesr.engines import model_facts
    from realesr.models.zoo import ZOO, load_model

    assert options.model is not None  # `with_network` has named one
    if options.engine == "nearest" and options.model in ZOO:
        return None, model_facts(ZOO[options.model])  # a dry run needs no weights
    if model is None:
        model = load_model(
            options.model, denoise=options.denoise, denoise_with=options.denoise_with, on_progress=on_download
        )
    return model, model_facts(model)
