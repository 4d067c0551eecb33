"""Measures on this machine which engine, precision, options, threads and tile run one network the fastest."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from realesr.engine import Engine, EngineSpec, Precision
from realesr.engines import open_engine
from realesr.engines.choice import ROWS, Machine, machine_here
from realesr.engines.dense_blocks import find_dense_blocks
from realesr.engines.fidelity import NEAR_ENOUGH_DB, psnr_db
from realesr.engines.tuning import Answer, Setting
from realesr.errors import RealesrError
from realesr.images.info import ImageInfo
from realesr.machine.cgroup import usable_cores
from realesr.models.architecture import Architecture
from realesr.models.weights import Weights
from realesr.options import ImageOptions
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.pipeline import EnlargeJob, enlarge_to_rows
from realesr.runtime.tile_size import SMALLEST_TILE_PX, TILE_STEP_PX, tile_px_for
from realesr.runtime.tiling import Tiling

CPU_TILE_MACS = 70e9
"""Multiply-accumulates of the first tile on a CPU: about a second on two cores."""
GPU_TILE_MACS = 6e12
"""The same on a GPU: 576 px of realesrgan-x4plus, 15 ms of an H100's fp16 rate (400e12 MAC/s). Its 1,450 kernels take
several milliseconds to launch, and with a CPU's tile of 96 px nothing else would be measured."""
FIRST_GPU_TILE_SECONDS = 1.0
"""Longest time for the first tile of a slower GPU, estimated from a tile of a CPU's size."""
TILES_A_SIDE = 2
"""Tiles on each side of the picture that GPUs are timed with, through the tiled runtime as a photo of 8 bits: joining
and rounding a tile takes the host some 5 ms, a quarter of an H100's estimated time, unless the engine does that."""
OPTIONS_TRIED: Mapping[tuple[str, str], tuple[Mapping[str, str], ...]] = {
    ("torch", "cuda"): ({"mode": "graphs"},),
    ("onnxruntime", "cuda"): ({"prefer_nhwc": "1"},),
}
"""Options that an engine on a device is tried with, beside its defaults. Torch's mode=compile is left out: it compiles
for a minute, and again for every shape of tiles."""
WORTH = 0.97
"""Other options, another number of threads, or another tile, have to take less than this share of the time."""
TOO_SLOW = 1.5
"""A setting whose first run takes this many times the best one's time is not run again."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting, measured."""

    setting: Setting
    us_per_px: float | None = None
    """Microseconds for each pixel that a tile answers for, the best of the runs; none where it failed."""
    psnr_db: float | None = None
    """PSNR to the float32 result of the same engine; none for float32 itself."""
    problem: str = ""
    """Reason why it failed, in one line; empty where it did not."""

    @property
    def is_near_enough(self) -> bool:
        """Return whether the automatic choice may take it."""
        return self.us_per_px is not None and (self.psnr_db is None or self.psnr_db >= NEAR_ENOUGH_DB)


def trials(
    weights: Weights, *, overlap_px: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Trial]:
    """Measure one setting after the other: every engine, then further options, threads and tiles of the fastest.

    Args:
        weights: the network.
        overlap_px: what its tiles read beyond what they answer for, on each side.
        seconds: after these no setting is begun.
        clock: tells seconds.
    """
    end = clock() + seconds
    bench = _Bench(weights, overlap_px, clock)
    for setting in settings(machine_here(with_unmeasured=True)):
        if clock() < end:
            yield bench.measure(setting)
    best = fastest(bench.done)
    if best is None:
        return
    for options in further_options(best, weights.architecture):
        if clock() < end:
            yield bench.measure(replace(best, options={**best.options, **options}))
            best = fastest(bench.done) or best
    if best.device == "cpu" and usable_cores() > 1 and clock() < end:
        yield bench.measure(replace(best, threads=usable_cores() // 2))
        best = fastest(bench.done) or best
    for tile_px in bench.larger_tiles(best):
        if clock() + bench.expected_seconds(best, tile_px) < end:
            yield bench.measure(replace(best, tile_px=tile_px))


def answer_from(measured: Iterable[Trial]) -> Answer | None:
    """Return the answer that the measurements give; None where no engine works."""
    done = list(measured)
    best = fastest(done)
    exact = fastest([trial for trial in done if trial.setting.precision == "fp32"])
    if best is None or exact is None:
        return None
    return Answer(best=_open_to_larger_tiles(best, done), fp32=_open_to_larger_tiles(exact, done))


def _open_to_larger_tiles(setting: Setting, done: list[Trial]) -> Setting:
    """Drop a setting's tile where no larger one was tried: larger ones overlap less, and are the better guess."""
    assert setting.tile_px is not None
    others = (trial.setting for trial in done if _name(trial.setting) == _name(setting))
    is_largest = all((other.tile_px or 0) <= setting.tile_px for other in others)
    return replace(setting, tile_px=None) if is_largest else setting


def fastest(measured: list[Trial]) -> Setting | None:
    """Return the fastest of those that are near enough; the earlier one where the gain is not worth it."""
    best: Trial | None = None
    for trial in measured:
        if trial.us_per_px is None or not trial.is_near_enough:
            continue
        is_variant = best is not None and _name(best.setting) == _name(trial.setting)
        needed = WORTH if is_variant else 1.0
        if best is None or best.us_per_px is None or trial.us_per_px < best.us_per_px * needed:
            best = trial
    return None if best is None else best.setting


def settings(machine: Machine) -> list[Setting]:
    """Return every engine on every device that is offered, with its options, in float32 first.

    TensorRT is left out: it builds for minutes. No tile is given: how large it may be, only an open engine knows.
    """
    found: dict[Setting, None] = {}
    for row in ROWS:
        if (row.engine, row.device) not in machine.offered or row.engine == "tensorrt" or row.device == "vulkan":
            continue
        lower: Precision = "fp16" if row.device != "cpu" else "bf16"
        precisions: tuple[Precision, ...] = ("fp32", lower)
        for precision in precisions:
            if precision not in row.precisions or (precision == "bf16" and not machine.has_fast_bf16):
                continue
            for options in ({}, *OPTIONS_TRIED.get((row.engine, row.device), ())):
                found[Setting(engine=row.engine, device=row.device, precision=precision, options=options)] = None
    return sorted(found, key=lambda setting: setting.precision != "fp32")


def further_options(best: Setting, architecture: Architecture) -> list[dict[str, str]]:
    """Return options that may make the fastest setting faster; each is tried on top of those that were worth it."""
    if (best.engine, best.device) != ("torch", "cuda"):
        return []
    has_kernels = bool(find_dense_blocks(architecture.layers)) and best.precision == "fp16"
    kernels = [{"kernels": "triton"}] if has_kernels else []
    return [*kernels, {"streams": "2"}]


def larger_tiles(first_px: int, largest_px: int) -> list[int]:
    """Return up to three more sides, the largest among them."""
    steps = np.linspace(first_px, largest_px, 4)[1:] // TILE_STEP_PX * TILE_STEP_PX
    return sorted({int(side) for side in steps if side > first_px})


class _Bench:
    """The network, a picture, and what has been measured."""

    def __init__(self, weights: Weights, overlap_px: int, clock: Callable[[], float]) -> None:
        self._weights = weights
        self._overlap_px = overlap_px
        self._clock = clock
        self._exact: dict[tuple[str, str], NDArray[np.float32]] = {}
        self._first_tile_px: dict[tuple[str, str], int] = {}
        self._largest_px: dict[Setting, int] = {}
        self._run_seconds: dict[Setting, float] = {}
        self.done: list[Trial] = []

    def measure(self, setting: Setting) -> Trial:
        """Measure a setting; a failure is a result too. Without a tile, this engine and device's first one is run."""
        try:
            trial = self._measured(setting)
        except RealesrError as error:
            trial = Trial(setting=setting, problem=str(error))
        self.done.append(trial)
        return trial

    def larger_tiles(self, setting: Setting) -> list[int]:
        """Return the sides that a setting, which was measured, is to be tried with."""
        assert setting.tile_px is not None
        return larger_tiles(setting.tile_px, self._largest_px[setting])

    def _largest_tile_px(self, engine: Engine) -> int:
        """Return the side that `upscale` would take."""
        return tile_px_for(self._weights.architecture, engine)

    def expected_seconds(self, setting: Setting, tile_px: int) -> float:
        """Return the expected time of three runs of a setting that was measured, with another tile."""
        assert setting.tile_px is not None
        return 3 * self._run_seconds[setting] * (tile_px / setting.tile_px) ** 2

    def _measured(self, setting: Setting) -> Trial:
        with open_engine(
            self._weights,
            engine=setting.engine,
            device=setting.device,
            precision=setting.precision,
            threads=setting.threads,
            options=setting.options,
        ) as engine:
            tile_px = setting.tile_px or self._first_tile_px_of(setting, engine)
            setting = replace(setting, tile_px=tile_px)
            tile = photo_like(tile_px)
            output = engine.run(tile)
            million_px = self._answered_px(tile_px, engine.spec) / 1e6
            run: Callable[[], object] = partial(engine.run, tile)
            if engine.spec.device != "cpu":
                run, million_px = self._tiled_run(engine, tile_px), million_px * TILES_A_SIDE**2
                run()  # joining has its first time too
            seconds = self._seconds(run)
            if seconds / million_px < TOO_SLOW * self._best_us_per_px():
                seconds = min(seconds, self._seconds(run))
            self._largest_px[setting] = self._largest_tile_px(engine)
        self._run_seconds[setting] = seconds
        return Trial(setting=setting, us_per_px=seconds / million_px, psnr_db=self._psnr_db(setting, output))

    def _seconds(self, run: Callable[[], object]) -> float:
        start = self._clock()
        run()
        return self._clock() - start

    def _first_tile_px_of(self, setting: Setting, engine: Engine) -> int:
        """Return the first side on a device: the same in all precisions, whose results are compared."""
        place = setting.engine, setting.device
        if place not in self._first_tile_px:
            is_cpu = engine.spec.device == "cpu"
            self._first_tile_px[place] = self._side_px(CPU_TILE_MACS) if is_cpu else self._first_gpu_tile_px(engine)
        return self._first_tile_px[place]

    def _first_gpu_tile_px(self, engine: Engine) -> int:
        small = photo_like(self._side_px(CPU_TILE_MACS))
        engine.run(small)
        seconds = self._seconds(partial(engine.run, small))
        macs = self._weights.architecture.macs_per_px * small.shape[3] ** 2
        fast_enough = macs * FIRST_GPU_TILE_SECONDS / max(seconds, 1e-6)
        return self._side_px(min(GPU_TILE_MACS, fast_enough), self._largest_tile_px(engine))

    def _side_px(self, macs: float, largest_px: float = float("inf")) -> int:
        """Return the side of a tile of so many multiply-accumulates; at least what leaves something beside overlap."""
        side = min((macs / self._weights.architecture.macs_per_px) ** 0.5, largest_px)
        least = max(SMALLEST_TILE_PX, 2 * self._overlap_px + TILE_STEP_PX)
        return int(max(side, least)) // TILE_STEP_PX * TILE_STEP_PX

    def _tiled_run(self, engine: Engine, tile_px: int) -> Callable[[], None]:
        """Return a function that takes TILES_A_SIDE x TILES_A_SIDE tiles through the runtime, to rows of uint8."""
        overlap_px = self._overlap_px
        side = tile_px + (TILES_A_SIDE - 1) * (tile_px - 2 * overlap_px)
        picture = photo_like(side)[0]
        pool = EnginePool(engine, tiling=Tiling(tile_px=tile_px - 2 * overlap_px, overlap_px=overlap_px, blend=True))
        info = ImageInfo(width_px=side, height_px=side, bits=8, is_grey=False, has_alpha=False, format="array")
        job = EnlargeJob(info=info, pool=pool, options=ImageOptions())

        def run() -> None:
            for _ in enlarge_to_rows(iter([picture]), job):
                pass

        return run

    def _answered_px(self, tile_px: int, spec: EngineSpec) -> int:
        """Return the pixels of a tile that no other tile answers for; all of them where images go in strips."""
        has_strips = spec.first_rows_px is not None and spec.device == "cpu"
        goes_in_strips = has_strips and not self._weights.architecture.has_enlarged_convolutions
        return int(tile_px**2 if goes_in_strips else (tile_px - 2 * self._overlap_px) ** 2)

    def _best_us_per_px(self) -> float:
        return min((trial.us_per_px for trial in self.done if trial.us_per_px is not None), default=float("inf"))

    def _psnr_db(self, setting: Setting, output: NDArray[np.float32]) -> float | None:
        """Return the PSNR of the first tile, the only one with a float32 result of the same engine."""
        place = setting.engine, setting.device
        if setting.precision == "fp32":
            self._exact.setdefault(place, output)
            return None
        exact = self._exact.get(place)
        if exact is None or exact.shape != output.shape:
            others = (trial for trial in self.done if _name(trial.setting) == _name(setting))
            return next((trial.psnr_db for trial in others if trial.setting.options == setting.options), 0.0)
        error = float(np.mean((exact.clip(0, 1) - output.clip(0, 1)) ** 2, dtype=np.float64))
        return psnr_db(error)


def photo_like(side_px: int) -> NDArray[np.float32]:
    """Make random waves whose amplitude falls with their frequency, as in photos: (1, 3, side, side) in [0, 1].

    Source of the fall by 1 / frequency: Field, "Relations between the statistics of natural images and the response
    properties of cortical cells", 1987.
    """
    generator = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(side_px), np.fft.fftfreq(side_px)))
    frequency[0, 0] = np.inf  # no mean: it is set below
    waves = generator.normal(size=(3, *frequency.shape)) + 1j * generator.normal(size=(3, *frequency.shape))
    picture = np.fft.irfft2(waves / frequency, s=(side_px, side_px))
    picture = 0.5 + 0.18 * picture / picture.std()
    return np.ascontiguousarray(picture.clip(0, 1), np.float32)[None]


def _name(setting: Setting) -> tuple[str, str, str]:
    return setting.engine, setting.device, setting.precision
