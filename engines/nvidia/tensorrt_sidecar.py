"""The JSON beside a TensorRT engine, `<engine>.json`: what it is, from what and for what it was built, and its proof.

An engine says nothing about the network that it holds, and loading one that was made for another GPU or version can end
the process; so no engine is loaded without this file, nor with one that does not fit.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realesr.engine import IoDtype, Precision
from realesr.engines.nvidia.cuda_memory import GpuFacts
from realesr.engines.nvidia.tensorrt_library import Library
from realesr.errors import ModelError, UsageError
from realesr.machine.tables import read_record
from realesr.models.facts import ModelFacts

Shape = tuple[int, int, int, int]

SUFFIX = ".engine"
_FORMAT = 1

_RANGES = (("scale", 1, 16), ("multiple_of", 1, 64), ("radius_px", 0, 100_000))
_LARGEST_SIDE_PX, _LARGEST_BATCH = 65_536, 1024
"""What is believed of the file: beyond every network and engine that there is, below what would take all memory."""
_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ShapeProfile:
    """Input sizes that an engine takes. TensorRT tunes for the middle one; the smallest batch is always 1."""

    min_hw: tuple[int, int]
    """Height and width, in input px."""
    opt_hw: tuple[int, int]
    max_hw: tuple[int, int]
    opt_batch: int = 1
    """Images of a batch that run at once; the next ones are copied meanwhile."""
    max_batch: int = 1

    def __post_init__(self) -> None:
        for axis in (0, 1):
            sides = (self.min_hw[axis], self.opt_hw[axis], self.max_hw[axis])
            if not 1 <= sides[0] <= sides[1] <= sides[2]:
                raise UsageError(f"got the sides {sides}, expected smallest <= best <= largest, from 1 px")
        if not 1 <= self.opt_batch <= self.max_batch:
            raise UsageError(f"got batches of {self.opt_batch} and {self.max_batch}, expected 1 <= best <= largest")

    @property
    def shapes(self) -> tuple[Shape, Shape, Shape]:
        """Return the smallest, best and largest (N, 3, H, W)."""
        return (1, 3, *self.min_hw), (self.opt_batch, 3, *self.opt_hw), (self.max_batch, 3, *self.max_hw)

    @property
    def is_fixed(self) -> bool:
        """Return whether there is one height and width only."""
        return self.min_hw == self.max_hw


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Description of one engine."""

    name: str
    """Name of the network."""
    scale: int
    multiple_of: int
    radius_px: int | None
    architecture: str
    """As `realesr.models.recognition.text_from_architecture` writes it; empty for a network that is none of ours."""
    precision: Precision
    values: IoDtype
    """Type of input and output: "uint8" where the network converts them itself."""
    profile: ShapeProfile
    weights_sha256: str
    """Empty where the ONNX file does not tell."""
    onnx_sha256: str
    engine_sha256: str
    engine_bytes: int
    library: Library
    library_version: str
    realesr_version: str
    gpu: GpuFacts | None
    """The GPU that it was built on, and for; None where it was built ahead of time."""
    targets: tuple[str, ...]
    """Compute capabilities that it was built for ahead of time; none for the library's own choice."""
    build_seconds: float
    layers: int
    """Layers of the finished engine where it could be opened here, else of the network that the builder was given."""
    layers_of: str
    """Whose layers were counted: "engine" or "network"."""
    proof: dict[str, Any] | str
    """Figures against ONNX Runtime on the CPU, or why there are none, in words."""

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            number = getattr(self, name)
            if number is not None and not least <= number <= most:
                raise UsageError(f"got {name} {number}, expected {least} to {most}")
        if max(self.profile.max_hw) > _LARGEST_SIDE_PX or self.profile.max_batch > _LARGEST_BATCH:
            raise UsageError(f"got inputs of {self.profile.shapes[2]}, expected at most {_LARGEST_SIDE_PX} px a side")

    @property
    def facts(self) -> ModelFacts:
        """Return the facts that planning tiles needs."""
        from realesr.models.recognition import architecture_from_text

        return ModelFacts(
            name=self.name,
            scale=self.scale,
            radius_px=self.radius_px,
            multiple_of=self.multiple_of,
            architecture=architecture_from_text(self.architecture),
        )


def sidecar_path(artefact: Path) -> Path:
    """Return the path of the JSON beside a file: `x.engine` -> `x.engine.json`, `x.onnx` -> `x.onnx.json`."""
    return artefact.with_name(f"{artefact.name}.json")


def text_from_sidecar(sidecar: Sidecar) -> str:
    """Return the JSON that `read_sidecar` reads."""
    return json.dumps({"format": _FORMAT, **dataclasses.asdict(sidecar)}, indent=1) + "\n"


def read_sidecar(engine: Path) -> Sidecar:
    """Read the file beside an engine; the engine itself is not looked at.

    Raises:
        ModelError: there is no engine, or no sidecar that this version can read.
    """
    if not engine.is_file():
        raise ModelError(f"{engine} does not exist: check the path")
    path = sidecar_path(engine)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        return _sidecar_from_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{engine} has no {path.name} beside it, which says what it is: keep both files together, or build the "
            "engine again by exporting the network to TensorRT"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError, UsageError) as error:  # RecursionError: nested lists
        message = " ".join(str(error).split())[:120]
        raise ModelError(
            f"{path} is no description of an engine that this version knows ({message}): build the engine again by "
            "exporting the network to TensorRT"
        ) from error


def _sidecar_from_text(text: str) -> Sidecar:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("it holds no object")
    if fields.pop("format") != _FORMAT:
        raise ValueError("it is of another version")
    return read_record(Sidecar, fields, "it")
