"""The self-test of `realesr doctor`: every engine runs a small network whose right answer numpy works out by itself.

The network has the shape of realesr-animevideov3 and fixed random weights, so nothing is fetched, and its speed can be
compared with what the README says of that network.
"""

import hashlib
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr.errors import EngineError, RealesrError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from realesr.engines import EngineFacts
    from realesr.weights import Weights

SIDE_PX = 32
TIMED_SECONDS = 0.1
"""Least time for which an engine is run to take its speed; the median of the runs counts."""

LEAST_PSNR_DB = {"fp32": 80.0, "fp16": 45.0, "bf16": 30.0}
"""Below, an engine's result is called wrong. Seen on CPUs: 135, 74 and 56."""

WORKS = "works"


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """What came of running one engine on one device in one precision."""

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


class Trial:
    """The network, what it is given, and the right answer; made once for all engines."""

    def __init__(self) -> None:
        import numpy as np

        self.weights = random_network()
        self.batch = np.random.default_rng(1).random((1, 3, SIDE_PX, SIDE_PX), np.float32)
        self.answer = right_answer(self.weights, self.batch[0])[None]

    def checked(self, facts: "EngineFacts") -> dict[str, Any]:
        """An engine's facts, and what came of each of its devices and precisions, as JSON knows it."""
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
        """Open an engine and run it; a broken driver may raise anything, and is told as the state."""
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
        """For TensorRT: built the first time, which may take a minute, and then kept."""
        from realesr.export.engine_cache import cached_engine

        return cached_engine(
            self.weights, device=device, precision=precision, read_px=SIDE_PX, may_build=may_build, limit_seconds=120
        )


def judged(max_error: float, psnr_db: float, precision: str) -> str:
    """ "works", or how wrong the result is."""
    if psnr_db >= LEAST_PSNR_DB[precision]:  # never true of NaN
        return WORKS
    return (
        f"runs, but its result is wrong by {max_error:.2g} of full scale "
        f"({psnr_db:.0f} dB, expected {LEAST_PSNR_DB[precision]:.0f} or more in {precision})"
    )


def random_network() -> "Weights":
    """A Compact network with fixed random weights that keep the spread of values from layer to layer.

    Source of the spread: He et al., "Delving Deep into Rectifiers", ICCV 2015, equation 15.
    """
    import numpy as np

    from realesr.architectures import Compact
    from realesr.weights import Weights

    architecture = Compact(scale=4, features=64, convs=16)
    generator = np.random.default_rng(0)
    state = {}
    for name, shape in architecture.shapes.items():
        if len(shape) == 4:
            spread = math.sqrt(2 / (1 + _SLOPE**2) / math.prod(shape[1:]))
            state[name] = generator.normal(0, spread, shape).astype(np.float32)
        else:
            is_slope = name.endswith(".weight")
            state[name] = np.full(shape, _SLOPE if is_slope else 0.01, np.float32)
    last = f"body.{2 * architecture.convs + 2}.weight"
    state[last] *= np.float32(0.1)  # real networks add little to the enlarged input, too
    digest = hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()
    return Weights("self-test", architecture, state, digest)


_SLOPE = 0.2


def right_answer(weights: "Weights", image: "NDArray[np.float32]") -> "NDArray[np.float64]":
    """(3, h, w) -> (3, 4 h, 4 w) float64: the network of `random_network`, step by step.

    Source: Real-ESRGAN, realesrgan/archs/srvgg_arch.py.
    """
    import numpy as np

    scale, convs = weights.architecture.scale, weights.architecture.convs  # type: ignore[union-attr]
    x = image.astype(np.float64)
    for layer in range(convs + 2):
        name = f"body.{2 * layer}"
        x = _conv(x, weights.state[f"{name}.weight"], weights.state[f"{name}.bias"])
        if layer <= convs:
            slopes = weights.state[f"body.{2 * layer + 1}.weight"][:, None, None]
            x = np.where(x > 0, x, x * slopes)
    height, width = image.shape[1:]
    x = x.reshape(3, scale, scale, height, width).transpose(0, 3, 1, 4, 2)
    return x.reshape(3, height * scale, width * scale) + image.repeat(scale, axis=1).repeat(scale, axis=2)


def _conv(
    x: "NDArray[np.float64]", weight: "NDArray[np.float32]", bias: "NDArray[np.float32]"
) -> "NDArray[np.float64]":
    import numpy as np

    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(x.shape[0] * 9, -1)
    result = weight.reshape(weight.shape[0], -1).astype(np.float64) @ columns
    return result.reshape(-1, *x.shape[1:]) + bias[:, None, None]


def _median_seconds(step: Any) -> float:
    times: list[float] = []
    while sum(times) < TIMED_SECONDS:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def _state_of(device: str, tests: list[SelfTest]) -> str:
    """ "works" where any precision does, else the first trouble."""
    states = [test.state for test in tests if test.device == device]
    return WORKS if WORKS in states else states[0]
