"""Proves that a file computes what its network does: on pictures, against a reference, with stated tolerances."""

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
"""(N, 3, H, W) float32 RGB in [0, 1]."""
RunBatch = Callable[[Batch], Batch]
"""Enlarges a batch."""

MakePictures = Callable[[int, int, int, int], Batch]
"""Takes a count, height and width in px, and a seed; gives pictures."""

_PICTURES: dict[str, MakePictures] = {"photo": photo, "made photo": made_photo, "noise": noise}

LEVELS = 255
"""Differences are given in 8-bit levels: a network's values in [0, 1] times this."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Limits that the difference on every picture has to keep to."""

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
    """One batch of pictures with the reference's result."""

    picture: str
    batch: Batch
    expected: Batch


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """Differences found on one case."""

    picture: str
    """ "photo", "made photo" or "noise"."""
    shape: tuple[int, ...]
    """Shape of the input: (N, 3, H, W)."""
    max_levels: float
    p999_levels: float
    """99.9th percentile of the differences."""
    mean_levels: float
    psnr_db: float
    """Infinite where nothing differs; not a number where a value is not finite."""

    @property
    def record(self) -> dict[str, Any]:
        """Return the figures for JSON, which has no infinity."""
        figures = {key: None if isinstance(value, float) and not math.isfinite(value) else value
                   for key, value in asdict(self).items()}  # fmt: skip
        return figures | {"shape": list(self.shape), "equal": self.max_levels == 0}


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Results of one file against one reference."""

    of: str
    """The comparison in words: what with what."""
    tolerance: Tolerance
    rows: tuple[CaseResult, ...]

    @property
    def holds(self) -> bool:
        """Return whether every result keeps to the tolerance."""
        return all(keeps(result, self.tolerance) for result in self.rows)

    @property
    def worst(self) -> CaseResult:
        """Return the result of the lowest PSNR; one that is not a number counts as the lowest."""
        return min(self.rows, key=lambda result: -math.inf if math.isnan(result.psnr_db) else result.psnr_db)

    @property
    def record(self) -> dict[str, Any]:
        """Return the proof for JSON."""
        limits = {key: value for key, value in asdict(self.tolerance).items() if math.isfinite(value)}
        return {"of": self.of, "tolerance": limits, "rows": [result.record for result in self.rows]}


def keeps(result: CaseResult, tolerance: Tolerance) -> bool:
    """Return whether a result keeps to a tolerance; one that is not a number never does."""
    return result.max_levels <= tolerance.max_levels and result.psnr_db >= tolerance.min_psnr_db


def make_cases(reference: RunBatch, *, multiple_of: int, shape_nhw: tuple[int, int, int] | None = None) -> list[Case]:
    """Make pictures of several sizes, odd ones and batches of two among them, or of the one shape that is taken."""
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


def measure(case: Case, run: RunBatch) -> CaseResult:
    """Run a case, and compare the result with the expected one."""
    got = run(case.batch)
    difference = np.abs(got.astype(np.float64) - case.expected)
    peak = max(1.0, float(np.abs(case.expected).max()))
    mean_square = float(np.mean((difference / peak) ** 2))
    return CaseResult(
        picture=case.picture,
        shape=case.batch.shape,
        max_levels=float(difference.max()) * LEVELS / peak,
        p999_levels=float(np.quantile(difference, 0.999)) * LEVELS / peak,
        mean_levels=float(difference.mean()) * LEVELS / peak,
        psnr_db=psnr_db(mean_square) if math.isfinite(mean_square) else math.nan,
    )


def prove(of: str, cases: Sequence[Case], run: RunBatch, tolerance: Tolerance) -> Proof:
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
