"""Prepares images for training: smaller versions of each, all cut into squares that are quick to read.

    image --versions--> original, T0, T1, ... --windows--> name_s001.png, nameT0_s001.png, ...

Files are written beside their place and renamed, so that what is there is whole: a run that was stopped goes on. Each
image is held as a whole, once a thread. Source: Real-ESRGAN, scripts/generate_multiscale_DF2K.py and
scripts/extract_subimages.py, with the sizes of docs/Training.md.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import InputError, UsageError
from realesr.images.colour import is_srgb
from realesr.images.info import ImageInfo
from realesr.images.libvips import pyvips
from realesr.images.reader import open_image
from realesr.machine.whole_file import not_written, write_whole
from realesr.train.data.image_list import names_below
from realesr.train.data.threads import in_threads

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W, C), C is 1 or 3."""

Window = tuple[int, int, int, int]
"""Top, left, height, width, in px."""

SETTINGS_FILE = "prepared.json"
"""File in the output folder with the options that it was made with."""

_PNG_LEVEL = 3
_FORMS = {
    (1, 1): ("uchar", "b-w"),
    (1, 3): ("uchar", "srgb"),
    (2, 1): ("ushort", "grey16"),
    (2, 3): ("ushort", "rgb16"),
}
"""Bytes a value, channels -> names in libvips."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Which versions and squares are made of each image."""

    factors: tuple[float, ...] = (0.75, 0.5, 1 / 3)
    """Factors of the smaller versions T0, T1, ...; above 0 and below 1 (paper: these three)."""
    shortest_px: int = 400
    """Shortest side of one more version; 0 for none (paper: 400)."""
    original: bool = True
    """Whether the original is written too."""
    crop_px: int = 400
    """Side of the squares that all versions are cut into; 0 leaves them whole (paper: 400)."""
    step_px: int = 200
    """Step from square to square; the last one of each row and column lies at the image's edge (paper: 200)."""

    def __post_init__(self) -> None:
        if any(not 0 < factor < 1 for factor in self.factors):
            raise UsageError(f"got the factors {self.factors}, expected numbers between 0 and 1: larger adds nothing")
        if self.shortest_px < 0 or self.crop_px < 0:
            raise UsageError(f"got {min(self.shortest_px, self.crop_px)} px, expected 1 or more, or 0 for none")
        if self.crop_px and not 1 <= self.step_px <= self.crop_px:
            raise UsageError(f"got a step of {self.step_px} px, expected 1 to the crop's {self.crop_px} px")
        if not (self.original or self.factors or self.shortest_px):
            raise UsageError("got no version to write: expected the original, a factor or a shortest side")


@dataclass(frozen=True)
class Source:
    """An image, and how its files are named."""

    path: Path
    stem: Path
    """Path of its files, relative to the output folder, without suffix."""


@dataclass(frozen=True)
class Version:
    """One size of an image."""

    name: str
    """Appended to the image's name: "", "T0", ..."""
    width_px: int
    height_px: int


@dataclass(kw_only=True)
class Prepared:
    """The files that were written of one image, or of several."""

    written: int = 0
    """Files that were written."""
    kept: int = 0
    """Files that were there already."""
    too_small: list[Path] = field(default_factory=list)
    """Images without any version that a square fits into."""
    small_versions: int = 0
    """Versions of other images that were left out for their size."""
    failed: list[InputError] = field(default_factory=list)
    """Errors of images that cannot be read; nothing was written of them."""

    def add(self, other: "Prepared") -> None:
        """Add the counts of another image."""
        self.written += other.written
        self.kept += other.kept
        self.too_small += other.too_small
        self.small_versions += other.small_versions
        self.failed += other.failed


def prepare_images(
    sources: Sequence[Source],
    out: Path,
    options: PrepareOptions,
    *,
    threads: int,
    on_image: Callable[[Path], None] | None = None,
) -> Prepared:
    """Write all versions of all images as PNG; 16 bit stays 16 bit, grey stays grey, transparency is left out.

    Args:
        sources: the images; see `named_sources`.
        out: folder, made where it is missing; files that are there are kept.
        options: what is made.
        threads: images that are worked on at once.
        on_image: is called with each image that is done.

    Raises:
        UsageError: the folder was made with other options, or files of two images would have one name.
        OutputError: a file cannot be written. What was written before stays.
    """
    _check_names(sources, options)
    _check_settings(out, options)
    total = Prepared()
    for source, prepared in in_threads(lambda source: _prepared(source, out, options), sources, threads):
        total.add(prepared)
        if on_image is not None:
            on_image(source.path)
    return total


def named_sources(images: Sequence[Path], paths: Sequence[Path], *, root: Path | None = None) -> list[Source]:
    """Return the images with names for their files, which mirror the folders below those that were searched.

    Images of one name and folder (a.jpg, a.png) keep their suffix in it (a_jpg, a_png).

    Args:
        images: what `find_training_images` found.
        paths: what it was given: folders, images, lists.
        root: likewise.

    Raises:
        UsageError: two images would still have one name.
    """
    below = names_below(images, paths, root=root)
    uses = Counter(_key(path.with_suffix("")) for path in below)
    sources: dict[str, Source] = {}
    for image, path in zip(images, below, strict=True):
        is_alone = uses[_key(path.with_suffix(""))] == 1
        stem = path.with_suffix("") if is_alone else path.with_name(f"{path.stem}_{path.suffix.lstrip('.')}")
        first = sources.setdefault(_key(stem), Source(image, stem))
        if first.path is not image:
            raise UsageError(f"{first.path} and {image} would get one name: rename one, or prepare them apart")
    return list(sources.values())


def _prepared(source: Source, out: Path, options: PrepareOptions) -> Prepared:
    try:
        return prepare_image(source, out, options)
    except InputError as error:
        return Prepared(failed=[error])


def prepare_image(source: Source, out: Path, options: PrepareOptions) -> Prepared:
    """Write what is missing of one image. See `prepare_images`.

    Raises:
        InputError: it cannot be read.
        OutputError: a file cannot be written.
    """
    with open_image(source.path) as reader:
        info = reader.info
        fitting, small = versions(info.width_px, info.height_px, options)
        prepared = Prepared(small_versions=small if fitting else 0, too_small=[] if fitting else [source.path])
        planned = {version: list(_files(source, out, version, options)) for version in fitting}
        missing = [path for files in planned.values() for path, _ in files if not _is_there(path)]
        prepared.kept = sum(map(len, planned.values())) - len(missing)
        if not missing:
            return prepared
        rows = reader.read_rows(info.height_px)
    pixels = rows[:, :, : 1 if info.is_grey else 3]
    for version, files in planned.items():
        if all(_is_there(path) for path, _ in files):
            continue
        sized = resized(pixels, version.width_px, version.height_px)
        for path, (top, left, height, width) in files:
            if not _is_there(path):
                write_png(path, sized[top : top + height, left : left + width], info)
                prepared.written += 1
    return prepared


def versions(width_px: int, height_px: int, options: PrepareOptions) -> tuple[list[Version], int]:
    """Return the versions to write, and how many others were smaller than a square or larger than the original.

    Sizes are truncated, as in the source.
    """
    sizes = [("", width_px, height_px)] if options.original else []
    for number, factor in enumerate(options.factors):
        sizes.append((f"T{number}", int(width_px * factor), int(height_px * factor)))
    shortest, side = options.shortest_px, min(width_px, height_px)
    if shortest:
        long_px = int(shortest * (max(width_px, height_px) / side))
        size = (shortest, long_px) if width_px < height_px else (long_px, shortest)
        # The source enlarges images that are smaller than this, and writes others again that have the size already.
        sizes.append((f"T{len(options.factors)}", *(size if side > shortest else (0, 0))))
    least = max(1, options.crop_px)
    fitting = [Version(*size) for size in sizes if min(size[1:]) >= least]
    return fitting, len(sizes) - len(fitting)


def windows(width_px: int, height_px: int, crop_px: int, step_px: int) -> list[Window]:
    """Return squares that cover an image, row by row; the last of each row and column lies at the edge."""
    return [
        (top, left, crop_px, crop_px)
        for top in _starts(height_px, crop_px, step_px)
        for left in _starts(width_px, crop_px, step_px)
    ]


def resized(pixels: Pixels, width_px: int, height_px: int) -> Pixels:
    """Resize an image by Pillow's Lanczos filter; return the same one where it has that size.

    Args:
        pixels: (H, W, C), uint8 or uint16.
        width_px: wanted.
        height_px: wanted.
    """
    from PIL import Image

    if pixels.shape[:2] == (height_px, width_px):
        return pixels
    planes = []
    for channel in range(pixels.shape[2]):
        plane = np.ascontiguousarray(pixels[:, :, channel])
        # Pillow filters 16 bit as floats only.
        image = Image.fromarray(plane if plane.dtype == np.uint8 else plane.astype(np.float32))
        small = np.asarray(image.resize((width_px, height_px), Image.Resampling.LANCZOS))
        planes.append(small if plane.dtype == np.uint8 else np.rint(small).clip(0, 65535).astype(np.uint16))
    return np.stack(planes, axis=2)


def write_png(path: Path, pixels: Pixels, info: ImageInfo) -> None:
    """Write a PNG file that is whole or not there; a profile that is not sRGB goes with it.

    Raises:
        OutputError: it cannot be written.
    """
    height, width, channels = pixels.shape
    form, interpretation = _FORMS[pixels.dtype.itemsize, channels]
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(pixels), width, height, channels, form)
    image = image.copy(interpretation=interpretation)
    keep = "none"
    if info.icc is not None and not is_srgb(info.icc):
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", info.icc)
        keep = "icc"
    data = image.pngsave_buffer(compression=_PNG_LEVEL, filter="paeth", keep=keep)
    _write(path, data)


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content, durable=False)  # thousands of files, which `_is_there` looks at before they are used
    except OSError as error:
        raise not_written(path, error, "free some space, or choose another place") from error


def _check_names(sources: Sequence[Source], options: PrepareOptions) -> None:
    by_name = {_key(source.stem): source for source in sources}
    for source in sources:
        for number in range(len(options.factors) + 1):
            other = by_name.get(_key(source.stem) + f"t{number}")
            if other is not None:
                raise UsageError(
                    f"{other.path} has the name that a smaller version of {source.path} gets: rename one of them"
                )


def _check_settings(out: Path, options: PrepareOptions) -> None:
    """Write the options of the folder into it, or raise where it was made with others."""
    path = out / SETTINGS_FILE
    wanted = json.loads(json.dumps(asdict(options)))
    if not path.exists():
        _write(path, (json.dumps(wanted, indent=1) + "\n").encode())
        return
    try:
        found: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): give another output folder") from error
    if found != wanted:
        raise UsageError(f"{out} was made with other options ({path}): use the same, or another output folder")


def _key(path: Path) -> str:
    """Return a text that is equal for paths that a disk which ignores case takes for one file."""
    return str(path).casefold()


def _files(source: Source, out: Path, version: Version, options: PrepareOptions) -> Iterator[tuple[Path, Window]]:
    stem = out / source.stem.with_name(f"{source.stem.name}{version.name}")
    if not options.crop_px:
        yield stem.with_name(f"{stem.name}.png"), (0, 0, version.height_px, version.width_px)
        return
    cuts = windows(version.width_px, version.height_px, options.crop_px, options.step_px)
    for number, window in enumerate(cuts, start=1):
        yield stem.with_name(f"{stem.name}_s{number:03d}.png"), window


def _starts(side_px: int, crop_px: int, step_px: int) -> list[int]:
    starts = list(range(0, side_px - crop_px + 1, step_px))
    return starts if starts[-1] == side_px - crop_px else [*starts, side_px - crop_px]


def _is_there(path: Path) -> bool:
    """Return whether a file is there and not empty, which is what a power failure may leave."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
