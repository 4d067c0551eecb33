"""The self-test of `realesr doctor`: every engine runs a small network, and numpy computes the right answer.

The network has the shape of realesr-animevideov3 and fixed random weights, so nothing is fetched, and its speed can be
compared with the one that the README has for that network.
"""

import hashlib
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr.errors import EngineError, RealesrError

if TYPE_CHECKING:
    from realesr.engines import EngineFacts
    from realesr.models.weights import Weights

SIDE_PX = 32
TIMED_SECONDS = 0.1
"""Least time for which an engine's speed is measured; the median of the runs counts."""

LEAST_PSNR_DB = {"fp32": 80.0, "fp16": 45.0, "bf16": 30.0}
"""Precision -> PSNR below which an engine's result counts as wrong. Measured on CPUs: 135, 74 and 56."""

WORKS = "works"

SHAPED_LIKE = "realesr-animevideov3"
_SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """The result of one engine on one device in one precision."""

    device: str
    precision: str
    state: str
    """ "works", or why not, in one line."""
    max_error: float | None = None
    """Largest difference to float32, of full scale; None where it did not run."""
    psnr_db: float | None = None
    """The same as a peak signal-to-noise ratio; None also where there is no difference."""
    us_per_px: float | None = None
    """Microseconds for one input pixel."""


class ReferenceRun:
    """The network, its input and the right answer; computed once for all engines."""

    def __init__(self) -> None:
        import numpy as np

        from realesr.models.reference import reference_answer

        self.weights = random_network()
        self.batch = np.random.default_rng(1).random((1, 3, SIDE_PX, SIDE_PX), np.float32)
        self.answer = reference_answer(self.weights.architecture, self.weights.state, self.batch[0])[None]

    def checked(self, facts: "EngineFacts") -> dict[str, Any]:
        """Test an engine on each of its devices in each precision; return its facts and results in types of JSON."""
        tests = [
            self.tested(facts.name, device, precision) for device in facts.devices for precision in facts.precisions
        ]
        return {
            "name": facts.name,
            "version": facts.version,
            "devices": {device: _state_of(device, tests) for device in facts.devices},
            "precisions": facts.precisions,
            "options": facts.options,
            "self_tests": [asdict(test) for test in tests],
            "notes": facts.notes,
            "problem": facts.problem or None,
        }

    def tested(self, engine: str, device: str, precision: str) -> SelfTest:
        """Open an engine and run it; an error becomes the state. A broken driver may raise anything."""
        try:
            return self._tested(engine, device, precision)
        except Exception as problem:
            kind = "" if isinstance(problem, RealesrError) else f"{type(problem).__name__}: "
            return SelfTest(device=device, precision=precision, state=kind + " ".join(str(problem).split()))

    def _tested(self, engine: str, device: str, precision: str) -> SelfTest:
        import numpy as np

        from realesr.engines import open_engine
        from realesr.engines.fidelity import psnr_db

        scale = self.weights.architecture.scale
        repeated = self.batch.repeat(scale, axis=2).repeat(scale, axis=3)
        expected = repeated.astype(np.float64) if engine == "nearest" else self.answer  # it knows no network
        with open_engine(
            self.weights, engine=engine, device=device, precision=precision, engine_file=self._engine_file
        ) as opened:
            output = opened.run(self.batch)
            if output.shape != expected.shape:
                raise EngineError(f"runs, but gives {output.shape} for {self.batch.shape}, expected {expected.shape}")
            seconds = _median_seconds(lambda: opened.run(self.batch))
        error = np.abs(output.astype(np.float64) - expected)
        psnr = psnr_db(float((error**2).mean()))
        return SelfTest(
            device=device,
            precision=precision,
            state=judged(float(error.max()), psnr, precision),
            max_error=float(error.max()),
            psnr_db=psnr if error.any() else None,
            us_per_px=seconds * 1e6 / SIDE_PX**2,
        )

    def _engine_file(self, device: str, precision: str, may_build: bool) -> Path:
        """Return the network as a TensorRT engine, built the first time, which may take a minute, and then cached."""
        from realesr.export.engine_cache import cached_engine

        return cached_engine(
            self.weights, device=device, precision=precision, read_px=SIDE_PX, may_build=may_build, limit_seconds=120
        )


def judged(max_error: float, psnr_db: float, precision: str) -> str:
    """Return "works", or how wrong the result is."""
    if psnr_db >= LEAST_PSNR_DB[precision]:  # never true of NaN
        return WORKS
    return (
        f"runs, but its result is wrong by {max_error:.2g} of full scale "
        f"({psnr_db:.0f} dB, expected {LEAST_PSNR_DB[precision]:.0f} or more in {precision})"
    )


def random_network() -> "Weights":
    """Return a network of SHAPED_LIKE's shape with fixed random weights that keep the spread of values.

    Source of the spread: He et al., "Delving Deep into Rectifiers", ICCV 2015, equation 15.
    """
    import numpy as np

    from realesr.models.weights import Weights
    from realesr.models.zoo import ZOO

    architecture = ZOO[SHAPED_LIKE].architecture
    generator = np.random.default_rng(0)
    state = {}
    for name, shape in architecture.shapes.items():
        if len(shape) == 4:
            spread = math.sqrt(2 / (1 + _SLOPE**2) / math.prod(shape[1:]))
            state[name] = generator.normal(0, spread, shape).astype(np.float32)
        else:
            is_slope = name.endswith(".weight")
            state[name] = np.full(shape, _SLOPE if is_slope else 0.01, np.float32)
    last = f"{architecture.convolutions[-1].name}.weight"
    state[last] *= np.float32(0.1)  # real networks add little to the enlarged input, too
    digest = hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()
    return Weights("self-test", architecture, state, digest)


def _median_seconds(step: Any) -> float:
    """Return the median time of a step, in seconds."""
    times: list[float] = []
    while sum(times) < TIMED_SECONDS:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def _state_of(device: str, tests: list[SelfTest]) -> str:
    """Return "works" where any precision does on this device, else the first problem."""
    states = [test.state for test in tests if test.device == device]
    return WORKS if WORKS in states else states[0]
