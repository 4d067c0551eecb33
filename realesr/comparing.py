"""Puts a region of a photo through several networks, with their time and a score: which one suits this photo?

source --region_of--> Region --read_crop--> Crop --each network--> ComparedNetwork --> Comparison
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from realesr.api import Upscaler
from realesr.errors import EngineError, InputError, MissingDependency, ModelError, RealesrError, UsageError
from realesr.images.crop import Crop, Region, checked_region, part_of, read_crop
from realesr.images.detail import most_detailed_region
from realesr.images.display import displayed
from realesr.images.reader import open_with
from realesr.models.pulled import find_pulled, pulled_networks
from realesr.models.zoo import ZOO, find_file, near_names
from realesr.options import FileOptions
from realesr.progress import MessageCallback

CONTEXT_PX = 64
"""Most that networks see around the region: what tiles see of their neighbours in an enlargement of the whole photo."""
_SQUARE_PX = 8
"""Side of the squares behind transparency, in pixels of the photo."""
_FIRST_PX = 64
"""Side of the part that a network enlarges first, unmeasured: its first run takes longer than the others."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedNetwork:
    """What one network made of the region."""

    name: str
    """As it was asked for: a name in the zoo or a path."""
    scale: int
    """Output pixels per input pixel and side."""
    licence: str | None
    """SPDX expression; None where none is known, as for a file."""
    engine: str
    """Engine, precision and device that ran it: "winograd fp32 on cpu"."""
    pixels: Pixels
    """(region height * scale, region width * scale, 3) uint8 sRGB, what is transparent over a checkerboard."""
    seconds: float
    """Measured: the region with the pixels around it that the network saw, once the network was warm."""
    photo_seconds: float
    """Estimate for the whole photo: `seconds` by the ratio of the areas."""
    niqe: float | None = None
    """NIQE, the lower the better; None where it cannot be computed, and a notice says why.

    All are scored at the largest scale of the comparison, since scores at two sizes say nothing about one another: a
    smaller result is enlarged by Lanczos-3 first.
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """A region of a photo, and what each network made of it."""

    source: Path
    photo_px: tuple[int, int]
    """Width and height of the upright photo."""
    region: Region
    original: Pixels
    """(region height, region width, 3) uint8 sRGB, what is transparent over a checkerboard."""
    lanczos: Pixels
    """`original` enlarged by Lanczos-3 to the largest scale of the networks, (height, width, 3) uint8."""
    lanczos_niqe: float | None
    networks: tuple[ComparedNetwork, ...]
    """In the order in which they were asked for, or in that of `networks_on_disk`."""
    notices: tuple[str, ...]
    """What the file or a score is lacking, one line each."""
    failed: tuple[tuple[str, str], ...] = ()
    """Networks that gave nothing: their names, and why."""

    @property
    def scale(self) -> int:
        """Return the largest scale of the networks."""
        return max(network.scale for network in self.networks)


def compare(
    source: str | Path,
    models: Sequence[str | Path] | None = None,
    region: tuple[int, int, int, int] | None = None,
    *,
    file: FileOptions | None = None,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    on_start: MessageCallback | None = None,
) -> Comparison:
    """Enlarge one region of a photo by several networks, one after the other.

    A network that fails does not stop the others: `Comparison.failed` has it.

    Args:
        source: the image file.
        models: names in the zoo, which are fetched where they are not on disk, names of pulled networks, or paths; None
            is `networks_on_disk()`.
        region: left, top, width and height in pixels of the upright photo, at most 1,024 px a side. None is the most
            detailed 256 px; see `realesr.images.detail`.
        file: how the file is read: `page`, `max_pixels` and `allow_damaged`.
        engine: as in `Upscaler`; likewise `device`, `precision` and `threads`.
        on_start: called with each network's name before it is opened.

    Raises:
        UsageError: the region is none of this photo, there is no network or one twice, or an option makes no sense.
        InputError: the photo cannot be read.
        ModelError: a network is unknown; or all cannot be had, are damaged or of no known architecture.
        EngineError: an engine cannot run any of them here, or failed with all.

    Example:
        >>> comparison = compare("photo.jpg", ["realesrgan-x4plus", "realesr-general-x4v3"])  # doctest: +SKIP
        >>> {network.name: round(network.photo_seconds) for network in comparison.networks}  # doctest: +SKIP
        {'realesrgan-x4plus': 120, 'realesr-general-x4v3': 8}
    """
    source, file = Path(source), file or FileOptions()
    names = checked_names(networks_on_disk() if models is None else models)
    crop = read_crop(source, region_of(source, region, file), CONTEXT_PX, file)
    results: list[ComparedNetwork] = []
    errors: list[tuple[str, RealesrError]] = []
    for name in names:
        if on_start is not None:
            on_start(name)
        try:
            with Upscaler(name, engine=engine, device=device, precision=precision, threads=threads) as upscaler:
                results.append(_enlarged(crop, name, upscaler))
        except (ModelError, EngineError, MissingDependency) as error:
            errors.append((name, error))
    if not results:
        raise errors[0][1]
    return replace(_compared(source, crop, results), failed=tuple((name, str(error)) for name, error in errors))


def networks_on_disk() -> list[str]:
    """Return the names of the networks that need no download: those of the zoo in its order, then pulled ones."""
    released = [name for name, entry in ZOO.items() if find_file(entry) is not None]
    return released + [network.name for network in pulled_networks()]


def checked_names(models: Sequence[str | Path]) -> list[str]:
    """Return the networks' names as text.

    Raises:
        UsageError: there is none, or one twice.
        ModelError: one is neither in the zoo, nor pulled, nor a path.
    """
    names = [str(model) for model in models]
    if not names:
        raise UsageError("got no network to compare: name one, and it is fetched", option="model")
    for name in names:
        if not name or names.count(name) > 1:
            raise UsageError(f"got the networks {', '.join(names)}: expected each once, by a name or a path")
        if name not in ZOO and find_pulled(name) is None and not Path(name).expanduser().exists():
            near = ", ".join(near_names(name))
            raise ModelError(f"no network is called {name}, and no such file is there: did you mean {near}?")
    return names


def region_of(source: Path, region: tuple[int, int, int, int] | None, file: FileOptions) -> Region:
    """Return the region of a photo that is compared: the most detailed one, or the one that is given, once checked.

    Raises:
        UsageError: the region is none of this photo; see `realesr.images.crop.checked_region`.
        InputError: the photo cannot be read.
    """
    with open_with(source, file) as reader:
        return most_detailed_region(reader) if region is None else checked_region(region, source, reader.info)


def _enlarged(crop: Crop, name: str, upscaler: Upscaler) -> ComparedNetwork:
    """Return what an open network makes of the region, seen as in the whole photo."""
    pool = upscaler.pool_for(bits=crop.info.bits)
    seen = crop.region.widened(pool.tiling.overlap_px, crop.place)
    pixels = part_of(crop.pixels, crop.place, seen)
    upscaler.upscale(pixels[:_FIRST_PX, :_FIRST_PX])
    start = perf_counter()
    enlarged = upscaler.upscale(pixels)
    seconds = perf_counter() - start
    scale = upscaler.scale
    of_region = part_of(enlarged, seen, crop.region, scale)
    return ComparedNetwork(
        name=name,
        scale=scale,
        licence=_licence(name),
        engine=f"{pool.spec.name} {pool.spec.precision} on {pool.devices}",
        pixels=displayed(of_region, crop.info, square_px=_SQUARE_PX * scale),
        seconds=seconds,
        photo_seconds=seconds * crop.info.width_px * crop.info.height_px / (seen.width_px * seen.height_px),
    )


def _licence(name: str) -> str | None:
    """Return the licence of a released or pulled network, or None where none is known."""
    if name in ZOO:
        return ZOO[name].licence
    pulled = find_pulled(name)
    return None if pulled is None else pulled.licence or None


def _compared(source: Path, crop: Crop, results: Sequence[ComparedNetwork]) -> Comparison:
    """Return the networks' results, scored, beside the original and what Lanczos makes of it."""
    original = displayed(part_of(crop.pixels, crop.place, crop.region), crop.info, square_px=_SQUARE_PX)
    scale = max(result.scale for result in results)
    size = crop.region.height_px * scale, crop.region.width_px * scale
    lanczos = _by_lanczos(original, size)
    notices: tuple[str, ...] = crop.notices
    scores: list[float | None] = [None] * (1 + len(results))
    if crop.has_holes:
        notices += ("transparent pixels are shown over a checkerboard, which NIQE would score: there is no score",)
    else:
        scores = [_niqe(pixels) for pixels in (lanczos, *(_by_lanczos(result.pixels, size) for result in results))]
        if None in scores:
            notices += ("the region is too small or too flat for NIQE: a score is missing",)
    return Comparison(
        source=source,
        photo_px=(crop.info.width_px, crop.info.height_px),
        region=crop.region,
        original=original,
        lanczos=lanczos,
        lanczos_niqe=scores[0],
        networks=tuple(replace(result, niqe=score) for result, score in zip(results, scores[1:], strict=True)),
        notices=notices,
    )


def _niqe(pixels: Pixels) -> float | None:
    """Return NIQE, or None where the image is too small or too flat for it."""
    from realesr.scores.niqe import niqe

    try:
        return niqe(pixels)
    except InputError:
        return None


def _by_lanczos(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return pixels resampled to (height, width) by Pillow's Lanczos-3; as they are where they have that size."""
    from PIL import Image

    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.LANCZOS))
