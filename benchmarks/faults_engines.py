"""Injects values that are no numbers, and want of memory, into every engine: at the first, a middle and the last piece.

    python benchmarks/faults_engines.py --child     runs the case that each line of stdin describes (JSON)

The pieces are tiles, and strips where an engine has them. Right is a result that everywhere is within one level of 255
of the undisturbed one, of the engine's precision or of float32, with a notice of what happened.
"""

import itertools
import json
import random
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from faults_children import AnsweringChild, answer_lines
from faults_verdicts import RIGHT, WRONG, Tally
from numpy.typing import NDArray

from realesr.engine import Engine, EngineBase, ProgressCallback
from realesr.errors import OutOfMemory, RealesrError
from realesr.runtime.engine_pool import EnginePool
from realesr.runtime.strip_bands import enlarge_rows
from realesr.runtime.tiling import Tiling

TRIALS = 1000
"""More than there are cases: all of them."""
ENGINES = {
    "winograd": ("fp32",),
    "onnxruntime": ("fp32", "fp16"),
    "openvino": ("fp32",),
    "ncnn": ("fp32",),
    "torch": ("fp32", "fp16", "bf16"),
}
"""Engine -> its precisions on a CPU."""
NETWORKS = ("compact", "rrdb")
FAULTS = ("NaN", "infinity", "out of memory once", "out of memory from then on")
PLACES = ("first", "middle", "last")
WAYS = ("tiles", "strips")
_HEIGHT_PX, _WIDTH_PX, _TILE_PX, _OVERLAP_PX, _STRIP_ROWS = 176, 64, 40, 40, 48
"""The overlap is wider than the receptive radius of these networks: how an image is cut changes nothing."""
_LARGEST_PX_LATER = 64 * 64
_LEVEL = 1 / 255

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault in one engine."""

    engine: str
    precision: str
    network: str
    way: str
    fault: str
    place: str


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Run every case, or `trials` of them, in a child process."""
    cases = [
        Case(engine=engine, precision=precision, network=network, way=way, fault=fault, place=place)
        for engine, precisions in ENGINES.items()
        for precision in precisions
        for network, way, fault, place in itertools.product(NETWORKS, WAYS, FAULTS, PLACES)
    ]
    random.Random(seed).shuffle(cases)
    wanted = sorted(cases[:trials], key=lambda case: list(asdict(case).values()))
    child = AnsweringChild(Path(__file__))
    try:
        for case in wanted:
            verdict, text = child.ask(json.dumps(asdict(case)))
            if verdict == "skipped":
                tally.skipped[f"{case.engine} {case.precision}, {case.network}, {case.way}"] = text
            else:
                subject = f"{case.engine}, {case.fault.split(' once')[0].split(' from')[0]}, {case.way}"
                tally.add(subject, verdict, f"{json.dumps(asdict(case))}: {text}")
    finally:
        child.close()


class FaultyEngine(EngineBase):
    """Another engine, one of whose pieces comes to harm."""

    def __init__(self, inner: Engine, case: Case, at: int | None) -> None:
        self.spec = inner.spec
        self.pieces = 0
        self.done = 0
        self._inner, self._case, self._at = inner, case, at

    def run(self, batch: Array, on_progress: ProgressCallback | None = None) -> Array:
        """Enlarge a batch, which may be the one that fails; see `Engine.run`."""
        if self._case.way == "strips":
            return self._inner.run(batch, on_progress)
        is_large = batch.shape[2] * batch.shape[3] > _LARGEST_PX_LATER
        return self.harmed(lambda: self._inner.run(batch, on_progress), is_large=is_large)

    def open_strips(self, width_px: int, height_px: int, *, rows_px: int) -> Any:
        """Begin an image whose strips may fail; see `Engine.open_strips`."""
        strips = self._inner.open_strips(width_px, height_px, rows_px=rows_px)
        return SimpleNamespace(push=lambda rows: self.harmed(lambda: strips.push(rows)), finish=strips.finish)

    def harmed(self, enlarged: Any, *, is_large: bool = True) -> Array:
        """Return a piece's result, or what the case makes of it."""
        number, fault = self.pieces, self._case.fault
        self.pieces += 1
        is_due = self._at is not None and number >= self._at and not self.done
        lasts = fault.endswith("on") and self.done and is_large
        if fault.startswith("out of memory") and (is_due or lasts):
            self.done += 1
            raise OutOfMemory("injected")
        result: Array = enlarged()
        if not fault.startswith("out of memory") and is_due and result.size:
            self.done += 1
            result = result.copy()
            result.reshape(-1)[result.size // 2] = np.nan if fault == "NaN" else np.inf
        return result


@cache
def opened(engine: str, precision: str, network: str) -> Engine:
    """Open a small network with random weights."""
    from realesr.engines import open_engine
    from realesr.models.compact import Compact
    from realesr.models.rrdb import RRDB
    from realesr.models.weights import Weights

    compact, rrdb = Compact(scale=4, features=8, convs=2), RRDB(scale=4, features=8, blocks=1, growth=4)
    architecture = compact if network == "compact" else rrdb
    dice = np.random.default_rng(0)
    state = {
        key: (dice.normal(size=shape) * (np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2)).astype(np.float32)
        for key, shape in architecture.shapes.items()
    }
    weights = Weights(name=f"faults-{network}", architecture=architecture, state=state, sha256="0" * 64)
    return open_engine(weights, engine=engine, device="cpu", precision=precision, threads=1)


def enlarged(engine: Engine, case: Case) -> tuple[Array, list[str]]:
    """Enlarge a photo of noise in tiles or strips; return the result and the notices."""
    image = np.random.default_rng(0).random((3, _HEIGHT_PX, _WIDTH_PX), np.float32)
    strips: Any = None
    if case.way == "strips":
        size = SimpleNamespace(rows_px=_STRIP_ROWS, columns_px=1000)
        strips = SimpleNamespace(halo_px=_OVERLAP_PX, size_for=lambda height_px, width_px: size)
    tiling = Tiling(tile_px=_TILE_PX, overlap_px=_OVERLAP_PX, blend=False, strips=strips)

    def open_fp32(device: str) -> Engine:
        return _Shared(opened(case.engine, "fp32", case.network))

    is_fp32 = engine.spec.precision == "fp32"
    with closing(EnginePool(_Shared(engine), tiling=tiling, open_fp32=None if is_fp32 else open_fp32)) as pool:
        bands = enlarge_rows([image], pool, height_px=_HEIGHT_PX, width_px=_WIDTH_PX)
        return np.concatenate(list(bands), axis=1), list(pool.notices)


class _Shared(EngineBase):
    """An engine that a pool must not close, for the next case takes it again."""

    def __init__(self, inner: Engine) -> None:
        self.spec, self.run, self.open_strips = inner.spec, inner.run, inner.open_strips  # type: ignore[method-assign]


@cache
def undisturbed(engine: str, precision: str, network: str, way: str) -> tuple[Array, int]:
    """Return the result without faults, and the number of pieces."""
    case = Case(engine=engine, precision=precision, network=network, way=way, fault="NaN", place="first")
    counting = FaultyEngine(opened(engine, precision, network), case, None)
    return enlarged(counting, case)[0], counting.pieces


def _judge(line: str) -> tuple[str, str]:
    case = Case(**json.loads(line))
    try:
        engine = opened(case.engine, case.precision, case.network)
    except RealesrError as error:
        return "skipped", str(error)
    if case.way == "strips" and engine.spec.first_rows_px is None:
        return "skipped", "the engine has no strips for this network"
    expected, count = undisturbed(case.engine, case.precision, case.network, case.way)
    in_fp32, _ = undisturbed(case.engine, "fp32", case.network, case.way)
    if count < 3:
        return WRONG, f"only {count} pieces: no middle"
    faulty = FaultyEngine(engine, case, {"first": 0, "middle": count // 2, "last": count - 1}[case.place])
    result, notices = enlarged(faulty, case)
    if not faulty.done:
        return WRONG, "the fault was never met"
    worst = float(np.minimum(np.abs(result - expected), np.abs(result - in_fp32)).max())
    if not worst <= _LEVEL:
        return WRONG, f"differs by {worst * 255:.1f} levels"
    if not notices or not all(notice.isprintable() for notice in notices):
        return WRONG, f"no notice, or none that can be read: {notices}"
    return RIGHT, ""


if __name__ == "__main__":
    answer_lines(_judge)
