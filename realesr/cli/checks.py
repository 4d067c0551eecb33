"""Trials for `realesr doctor`: does an engine run here, and is a file format written and read?"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr.errors import EngineError, MissingDependency, RealesrError
from realesr.image_info import OutputFormat
from realesr.output_format import SUFFIXES, suffix_for

if TYPE_CHECKING:
    from realesr.engines import EngineFacts

WORKS = "works"

READ_ONLY = {"gif": ".gif", "bmp": ".bmp", "ppm": ".ppm", "heic": ".heic"}
"""Formats that are read and never written, each with its suffix."""


def attempt(step: Callable[[], None]) -> str:
    """What came of a step: "works", or why not. A broken driver or codec may raise anything."""
    try:
        step()
    except Exception as problem:
        kind = "" if isinstance(problem, RealesrError) else f"{type(problem).__name__}: "
        return kind + " ".join(str(problem).split())
    return WORKS


def checked_engine(facts: "EngineFacts") -> dict[str, Any]:
    """An engine's facts, and what came of running a tiny network on each of its devices."""
    return {
        "name": facts.name,
        "version": facts.version,
        "devices": {device: attempt(partial(run_tiny_network, facts.name, device)) for device in facts.devices},
        "precisions": facts.precisions,
        "problem": facts.problem or None,
    }


def run_tiny_network(engine: str, device: str) -> None:
    """Open the engine and enlarge 8 x 8 pixels.

    A Compact network whose weights are all zero repeats its input's pixels, so the right answer is known.

    Raises:
        EngineError: the answer is wrong; or whatever the engine raises.
    """
    import numpy as np

    from realesr.architectures import Compact
    from realesr.engines import open_engine
    from realesr.weights import Weights

    architecture = Compact(scale=2, features=4, convs=1)
    state = {name: np.zeros(shape, np.float32) for name, shape in architecture.shapes.items()}
    batch = np.linspace(0, 1, 3 * 8 * 8, dtype=np.float32).reshape(1, 3, 8, 8)
    weights = Weights("doctor", architecture, state, "0" * 64)
    with open_engine(weights, engine=engine, device=device, precision="fp32") as opened:
        error = float(np.abs(opened.run(batch) - batch.repeat(2, axis=2).repeat(2, axis=3)).max())
    if not error < 1e-3:
        raise EngineError(f"runs, but its result is wrong by {error:.2g} of full scale")


def checked_formats() -> dict[str, dict[str, str]]:
    """For each file format what came of writing and of reading a tiny image."""
    results: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(SUFFIXES.values()):
            path = Path(folder) / f"check{suffix_for(name, Path())}"
            results[name] = {
                "write": attempt(partial(write_tiny_image, path, name)),
                "read": attempt(partial(read, path)),
            }
        for kind, suffix in READ_ONLY.items():
            path = Path(folder) / f"check{suffix}"
            made = attempt(partial(make_with_pillow, path))
            results[kind] = {"read": attempt(partial(read, path)) if made == WORKS else made}
    return results


def write_tiny_image(path: Path, name: OutputFormat) -> None:
    """Write 8 x 8 grey pixels as `realesr upscale` writes files."""
    import numpy as np

    from realesr.image_info import ImageInfo
    from realesr.image_writer import open_writer

    info = ImageInfo(width_px=8, height_px=8, bits=8, is_grey=False, has_alpha=False, format=name)
    with open_writer(path, info, name) as writer:
        writer.write_rows(np.full((8, 8, 3), 128, np.uint8))


def make_with_pillow(path: Path) -> None:
    """Write a black image in a format that realesr itself does not write.

    Raises:
        MissingDependency: HEIC without its package.
    """
    from PIL import Image

    if path.suffix == READ_ONLY["heic"]:
        try:
            import pillow_heif
        except ModuleNotFoundError:
            raise MissingDependency("needs a package: pip install pillow-heif") from None
        pillow_heif.register_heif_opener()
    Image.new("RGB", (64, 64)).save(path)


def read(path: Path) -> None:
    """Read an image's first rows."""
    from realesr.image_reader import open_image

    with open_image(path) as reader:
        reader.read_rows(8)
