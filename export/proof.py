"""Does a file compute what it shall? Measured on pictures against a reference, with stated tolerances."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engines.fidelity import psnr_db
from realesr.errors import ExportError
from realesr.export.pictures import made_photo, noise, photo

Batch = NDArray[np.float32]
Run = Callable[[Batch], Batch]

MakePictures = Callable[[int, int, int, int], Batch]
"""Count, height, width and seed -> pictures."""

_PICTURES: dict[str, MakePictures] = {"photo": photo, "made photo": made_photo, "noise": noise}

LEVELS = 255
"""Differences are told in 8-bit levels: a network's values in [0, 1] times this."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What is near enough, of every picture."""

    max_levels: float
    """Largest difference of one value."""
    min_psnr_db: float
    """Peak signal-to-noise ratio; the peak is 1, or the reference's largest value if that is more."""


FP32_TOLERANCE = Tolerance(max_levels=0.03, min_psnr_db=90)
"""Another order of the same sums, as other engines take it, moves the released networks by up to 0.005 levels, at
120 dB or more (benchmarks/bench_precision.py)."""
FP16_TOLERANCE = Tolerance(max_levels=math.inf, min_psnr_db=60)
UINT8_TOLERANCE = Tolerance(max_levels=1, min_psnr_db=60)
"""Against the same graph of floats, rounded outside it: values that lie half-way between levels may go either way."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One batch of pictures with what the reference makes of it."""

    picture: str
    batch: Batch
    expected: Batch


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case of a proof."""

    picture: str
    """ "photo", "made photo" or "noise"."""
    shape: tuple[int, ...]
    """Of the input: (N, 3, H, W)."""
    max_levels: float
    p999_levels: float
    """What 99.9 % of the values are within."""
    mean_levels: float
    psnr_db: float
    """Infinite where nothing differs; not a number where a value is not finite."""

    @property
    def record(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        figures = {key: None if isinstance(value, float) and not math.isfinite(value) else value
                   for key, value in asdict(self).items()}  # fmt: skip
        return figures | {"shape": list(self.shape), "equal": self.max_levels == 0}


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Figures of one file against one reference."""

    of: str
    """What was compared with what, in words."""
    tolerance: Tolerance
    rows: tuple[Row, ...]

    @property
    def holds(self) -> bool:
        """Whether every row keeps to the tolerance."""
        return all(keeps(row, self.tolerance) for row in self.rows)

    @property
    def worst(self) -> Row:
        """The row of the lowest PSNR; one that is not finite before all."""
        return min(self.rows, key=lambda row: -math.inf if math.isnan(row.psnr_db) else row.psnr_db)

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        limits = {key: value for key, value in asdict(self.tolerance).items() if math.isfinite(value)}
        return {"of": self.of, "tolerance": limits, "rows": [row.record for row in self.rows]}


def keeps(row: Row, tolerance: Tolerance) -> bool:
    """Whether a row keeps to a tolerance; no comparison with a value that is not a number holds."""
    return row.max_levels <= tolerance.max_levels and row.psnr_db >= tolerance.min_psnr_db


def make_cases(reference: Run, *, multiple_of: int, shape_nhw: tuple[int, int, int] | None = None) -> list[Case]:
    """Pictures of several sizes, odd ones and batches of two among them, or of the one shape that is taken."""
    m = multiple_of
    sizes = [
        ("photo", 1, 64 * m, 56 * m),
        ("photo", 2, 33 * m, 45 * m),
        ("made photo", 1, 48 * m, 48 * m),
        ("made photo", 1, 7 * m, 3 * m),
        ("noise", 1, 40 * m, 48 * m),
        ("noise", 2, 17 * m, 31 * m),
    ]
    if shape_nhw is not None:
        sizes = [(name, *shape_nhw) for name in _PICTURES]
    batches = [(name, _PICTURES[name](n, h, w, seed)) for seed, (name, n, h, w) in enumerate(sizes)]
    return [Case(picture=name, batch=batch, expected=reference(batch)) for name, batch in batches]


def measure(case: Case, run: Run) -> Row:
    """One row: what `run` makes of the case, against what is expected."""
    got = run(case.batch)
    difference = np.abs(got.astype(np.float64) - case.expected)
    peak = max(1.0, float(np.abs(case.expected).max()))
    mean_square = float(np.mean((difference / peak) ** 2))
    return Row(
        picture=case.picture,
        shape=case.batch.shape,
        max_levels=float(difference.max()) * LEVELS / peak,
        p999_levels=float(np.quantile(difference, 0.999)) * LEVELS / peak,
        mean_levels=float(difference.mean()) * LEVELS / peak,
        psnr_db=psnr_db(mean_square) if math.isfinite(mean_square) else math.nan,
    )


def prove(of: str, cases: Sequence[Case], run: Run, tolerance: Tolerance) -> Proof:
    """Measure every case."""
    return Proof(of=of, tolerance=tolerance, rows=tuple(measure(case, run) for case in cases))


def check_proof(proof: Proof) -> None:
    """Raise ExportError, in one line, where a proof does not hold."""
    if not proof.holds:
        worst, limits = proof.worst, proof.tolerance
        limit = "" if math.isinf(limits.max_levels) else f" and at most {limits.max_levels:g} levels"
        raise ExportError(
            f"{proof.of}: got {worst.psnr_db:.1f} dB and {worst.max_levels:.3g} of 255 levels on {worst.picture} "
            f"{worst.shape}, expected at least {limits.min_psnr_db:g} dB{limit}; nothing was written"
        )
