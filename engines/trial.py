"""Measures on this machine which engine, precision, number of threads and tile run one network the fastest."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from realesr.architectures import Compact
from realesr.cgroup import usable_cores
from realesr.engine import EngineSpec, Precision
from realesr.engines import open_engine
from realesr.engines.choice import ROWS, Machine, machine_here
from realesr.engines.fidelity import NEAR_ENOUGH_DB, psnr_db
from realesr.errors import RealesrError
from realesr.memory import SMALLEST_TILE_PX, TILE_STEP_PX, free_bytes, tile_px_for
from realesr.tuning import Answer, Setting
from realesr.weights import Weights

WORK_MAC = 70e9
"""Multiply-accumulates of the first tile: about a second on two cores."""
WORTH = 0.97
"""Another number of threads, or another tile, has to take less than this share of the time."""
TOO_SLOW = 1.5
"""A setting whose first run takes this many times the best one's time is not run again."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting, measured."""

    setting: Setting
    us_per_px: float | None = None
    """Microseconds for each pixel that a tile answers for, the best of the runs; none where it failed."""
    psnr_db: float | None = None
    """To the float32 result of the same engine; none for float32 itself."""
    problem: str = ""
    """Why it failed, in one line."""

    @property
    def is_near_enough(self) -> bool:
        """Whether the automatic choice may take it."""
        return self.us_per_px is not None and (self.psnr_db is None or self.psnr_db >= NEAR_ENOUGH_DB)


def trials(
    weights: Weights, *, overlap_px: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Trial]:
    """Measure one setting after the other: every engine, then threads and tiles of the fastest.

    Args:
        weights: the network.
        overlap_px: what its tiles read beyond what they answer for, on each side.
        seconds: after these no setting is begun.
        clock: tells seconds.
    """
    end = clock() + seconds
    bench = _Bench(weights, overlap_px, clock)
    for setting in settings(machine_here(with_unmeasured=True), bench.first_tile_px):
        if clock() < end:
            yield bench.measure(setting)
    best = fastest(bench.done)
    if best is None:
        return
    if best.device == "cpu" and usable_cores() > 1 and clock() < end:
        yield bench.measure(replace(best, threads=usable_cores() // 2))
        best = fastest(bench.done) or best
    for tile_px in larger_tiles(bench.first_tile_px, bench.largest_tile_px(best)):
        if clock() + bench.expected_seconds(best, tile_px) < end:
            yield bench.measure(replace(best, tile_px=tile_px))


def answer_from(measured: Iterable[Trial]) -> Answer | None:
    """What is kept of them; None where no engine works."""
    done = list(measured)
    best = fastest(done)
    exact = fastest([trial for trial in done if trial.setting.precision == "fp32"])
    if best is None or exact is None:
        return None
    return Answer(best=_open_to_larger_tiles(best, done), fp32=_open_to_larger_tiles(exact, done))


def _open_to_larger_tiles(setting: Setting, done: list[Trial]) -> Setting:
    """Its tile only where a larger one was tried: those overlap less, so what was not tried is the better guess."""
    assert setting.tile_px is not None
    others = (trial.setting for trial in done if _name(trial.setting) == _name(setting))
    is_largest = all((other.tile_px or 0) <= setting.tile_px for other in others)
    return replace(setting, tile_px=None) if is_largest else setting


def fastest(measured: list[Trial]) -> Setting | None:
    """The fastest of those that are near enough; the earlier one where the gain is not worth it."""
    best: Trial | None = None
    for trial in measured:
        if trial.us_per_px is None or not trial.is_near_enough:
            continue
        is_variant = best is not None and _name(best.setting) == _name(trial.setting)
        needed = WORTH if is_variant else 1.0
        if best is None or best.us_per_px is None or trial.us_per_px < best.us_per_px * needed:
            best = trial
    return None if best is None else best.setting


def settings(machine: Machine, tile_px: int) -> list[Setting]:
    """Every engine on every device that is offered, in float32 first. TensorRT is left out: it builds for minutes."""
    found: dict[Setting, None] = {}
    for row in ROWS:
        if (row.engine, row.device) not in machine.offered or row.engine == "tensorrt" or row.device == "vulkan":
            continue
        lower: Precision = "fp16" if row.device != "cpu" else "bf16"
        precisions: tuple[Precision, ...] = ("fp32", lower)
        for precision in precisions:
            if precision in row.precisions and (precision != "bf16" or machine.has_fast_bf16):
                found[Setting(engine=row.engine, device=row.device, precision=precision, tile_px=tile_px)] = None
    return sorted(found, key=lambda setting: setting.precision != "fp32")


def larger_tiles(first_px: int, largest_px: int) -> list[int]:
    """Up to three more sides, the largest among them."""
    steps = np.linspace(first_px, largest_px, 4)[1:] // TILE_STEP_PX * TILE_STEP_PX
    return sorted({int(side) for side in steps if side > first_px})


class _Bench:
    """The network, a picture, and what has been measured."""

    def __init__(self, weights: Weights, overlap_px: int, clock: Callable[[], float]) -> None:
        self._weights = weights
        self._overlap_px = overlap_px
        self._clock = clock
        self._exact: dict[tuple[str, str], NDArray[np.float32]] = {}
        self._run_seconds: dict[Setting, float] = {}
        side = int((WORK_MAC / weights.architecture.mac_per_px) ** 0.5)
        least = max(SMALLEST_TILE_PX, 2 * overlap_px + TILE_STEP_PX)
        self.first_tile_px = max(side, least) // TILE_STEP_PX * TILE_STEP_PX
        self.done: list[Trial] = []

    def measure(self, setting: Setting) -> Trial:
        """Open, run, close; a fault is a result too."""
        try:
            trial = self._measured(setting)
        except RealesrError as error:
            trial = Trial(setting=setting, problem=str(error))
        self.done.append(trial)
        return trial

    def largest_tile_px(self, setting: Setting) -> int:
        return tile_px_for(self._weights.architecture, setting.engine, free_bytes(), setting.precision)

    def expected_seconds(self, setting: Setting, tile_px: int) -> float:
        """Of the three runs of a setting that was measured, with another tile."""
        assert setting.tile_px is not None
        return 3 * self._run_seconds[setting] * (tile_px / setting.tile_px) ** 2

    def _measured(self, setting: Setting) -> Trial:
        assert setting.tile_px is not None
        picture = photo_like(setting.tile_px)
        with open_engine(
            self._weights,
            engine=setting.engine,
            device=setting.device,
            precision=setting.precision,
            threads=setting.threads,
        ) as engine:
            output = engine.run(picture)
            million_px = self._answered_px(setting.tile_px, engine.spec) / 1e6
            seconds = self._seconds(engine.run, picture)
            if seconds / million_px < TOO_SLOW * self._best_us_per_px():
                seconds = min(seconds, self._seconds(engine.run, picture))
        self._run_seconds[setting] = seconds
        return Trial(setting=setting, us_per_px=seconds / million_px, psnr_db=self._psnr_db(setting, output))

    def _seconds(self, run: Callable[[NDArray[np.float32]], object], picture: NDArray[np.float32]) -> float:
        start = self._clock()
        run(picture)
        return self._clock() - start

    def _answered_px(self, tile_px: int, spec: EngineSpec) -> int:
        """Pixels of a tile that no other tile answers for; compact networks go in strips where an engine has them."""
        goes_in_strips = spec.first_rows_px is not None and isinstance(self._weights.architecture, Compact)
        return int(tile_px**2 if goes_in_strips else (tile_px - 2 * self._overlap_px) ** 2)

    def _best_us_per_px(self) -> float:
        return min((trial.us_per_px for trial in self.done if trial.us_per_px is not None), default=float("inf"))

    def _psnr_db(self, setting: Setting, output: NDArray[np.float32]) -> float | None:
        """Of the first tile alone, for which there is a float32 result of the same engine."""
        place = setting.engine, setting.device
        if setting.precision == "fp32":
            self._exact.setdefault(place, output)
            return None
        exact = self._exact.get(place)
        if exact is None or exact.shape != output.shape:
            return next((trial.psnr_db for trial in self.done if _name(trial.setting) == _name(setting)), 0.0)
        error = float(np.mean((exact.clip(0, 1) - output.clip(0, 1)) ** 2, dtype=np.float64))
        return psnr_db(error)


def photo_like(side_px: int) -> NDArray[np.float32]:
    """(1, 3, side, side) in [0, 1]: random waves whose strength falls with their frequency, as in photos.

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
