"""The setup of the GPU benchmarks: networks, photo, tiles and time limits, and how one row is measured."""

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from gpu_peers import PEERS_TILE_PX
from gpu_timing import Row
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

from realesr.api import Upscaler
from realesr.engine import Precision
from realesr.engines.trial import photo_like
from realesr.errors import MissingDependency, UsageError
from realesr.models.architecture import Architecture
from realesr.models.weights import Weights
from realesr.models.zoo import ZOO, load_model

Options = Mapping[str, str]
"""Options of engine torch."""

JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row that is to be measured."""

    what: str
    model: str
    step: Callable[[], Row]
    """Function that measures the row."""
    tile_px: int | None = None
    options: Options = field(default_factory=dict)
    needs_s: float = 0.0
    """Least time left with which it is begun."""


def measured(case: Case, *, left_s: float) -> Row:
    """Measure a row, or say why it cannot be had; nothing is left on the GPU."""
    head = {"what": case.what, "model": case.model, "tile_px": case.tile_px, "options": option_text(case.options)}
    if left_s < case.needs_s or left_s <= 0:
        return {**head, "skipped": f"{max(left_s, 0):.0f} s were left, and it takes {case.needs_s:.0f} s"}
    try:
        return {**head, **case.step()}
    except (UsageError, MissingDependency) as error:  # this machine, or this device, does not have it
        return {**head, "skipped": str(error)}
    except Exception as error:
        return {**head, "failed": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def option_text(options: Options) -> str:
    """Write options as the command line takes them; nothing for the defaults."""
    return " ".join(f"{key}={value}" for key, value in options.items())


@dataclass(kw_only=True)
class Bench:
    """The networks, photo, tiles and durations of a benchmark."""

    device: str
    models: dict[str, str]
    """Name in the rows -> what `Upscaler` takes. The first is the large network."""
    photo: Path
    peers_tile_px: int
    tile_px: int | None
    """Tile size that `Upscaler` gets; None leaves the choice to it. `overlap_px` works the same."""
    overlap_px: int | None
    tile_sides: dict[str, tuple[int, ...]]
    row_seconds: float
    """Least time of the runs that a median is taken of."""
    target: Path
    top: Row = field(default_factory=dict)
    """The limits, once they are measured."""
    taken: list[tuple[str, Options, float | None]] = field(default_factory=list)
    """Model, options and seconds of the photo, for each row so far."""
    peers_picture: NDArray[np.float32] | None = None
    outputs: dict[tuple[str, int], NDArray[np.float32]] = field(default_factory=dict)
    """Results of the engine with its defaults, which those of other options are compared with."""
    _weights: dict[str, Weights] = field(default_factory=dict)

    @property
    def precision(self) -> Precision:
        """Return the precision: half on a GPU; few CPUs compute in it."""
        return "fp16" if self.device.startswith("cuda") else "fp32"

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision as a torch dtype."""
        return torch.float16 if self.precision == "fp16" else torch.float32

    def upscaler(self, name: str, options: Options) -> Upscaler:
        """Open one of the networks for photos."""
        return Upscaler(
            self.models[name],
            engine="torch",
            device=self.device,
            precision=self.precision,
            options=options,
            tile_px=self.tile_px,
            overlap_px=self.overlap_px,
        )

    def weights(self, name: str) -> Weights:
        """Load one of the networks, once."""
        if name not in self._weights:
            weights = load_model(self.models[name])
            assert isinstance(weights, Weights)  # neither a name of the zoo nor a .safetensors file is run as it is
            self._weights[name] = weights
        return self._weights[name]


def bench_for(device: str, folder: Path, *, small: bool) -> Bench:
    """Write the photo, and small networks for a rehearsal, into a folder.

    Args:
        device: "cuda", or "cpu".
        folder: a temporary one.
        small: networks, photo and tiles that a CPU does in seconds.
    """
    large, fast = ("large", "fast") if small else ("realesrgan-x4plus", "realesr-animevideov3")
    models = {large: large, fast: fast}
    if small:
        models = {
            large: random_network(
                small_architecture("realesrgan-x4plus", blocks=1, growth=4), folder / "large.safetensors"
            ),
            fast: random_network(small_architecture("realesr-animevideov3", convs=2), folder / "fast.safetensors"),
        }
    height, width = (32, 48) if small else (1536, 2048)
    photo = folder / "photo.jpg"
    picture = photo_like(max(height, width))[0, :, :height, :width].transpose(1, 2, 0)
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(photo, quality=JPEG_QUALITY)
    return Bench(
        device=device,
        models=models,
        photo=photo,
        peers_tile_px=24 if small else PEERS_TILE_PX,
        tile_px=16 if small else None,
        overlap_px=4 if small else None,
        tile_sides={large: (24,), fast: (24,)} if small else {large: (576, 1024, 288), fast: (576, 1024)},
        row_seconds=0.01 if small else 1.0,
        target=folder / "large.jpg",
    )


def small_architecture(like: str, **numbers: int) -> Architecture:
    """Return a network of 8 features that is built like one of the zoo."""
    return replace(ZOO[like].architecture, features=8, **numbers)  # type: ignore[type-var]


def random_network(architecture: Architecture, path: Path) -> str:
    """Write a network that keeps values near those of its input; return its path."""
    generator = np.random.default_rng(0)
    state = {
        key: (generator.normal(size=shape) * (0.5 * math.prod(shape[1:]) ** -0.5)).astype(np.float32)
        for key, shape in architecture.shapes.items()
    }
    save_file(state, path)
    return str(path)
