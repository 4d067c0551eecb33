"""Which images there are: folders with all below them, images, lists. Everything that is missing is told at once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from realesr.errors import InputError
from realesr.image_kinds import IMAGE_SUFFIXES

Pair = tuple[Path, Path]
"""(HR, LR)."""

_SHOWN = 5


def find_training_images(paths: Sequence[Path]) -> list[Path]:
    """All images, sorted, each once.

    Args:
        paths: folders, searched with all below them; images; and .txt files that name one image a line, relative to the
            list's folder. Of a line only what is before the first comma or space counts, as in BasicSR's lists of meta
            information, unless the whole line is a file.

    Raises:
        InputError: images are missing, or there are none; the first are named.
    """
    found: dict[Path, None] = {}
    missing: list[Path] = []
    for path in (each.expanduser() for each in paths):
        if path.is_dir():
            found.update(dict.fromkeys(_images_below(path)))
        elif path.suffix.lower() == ".txt" and path.is_file():
            found.update(dict.fromkeys(_listed(path)))
        else:
            found[path] = None
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise InputError(f"{_named(missing)} {'does' if len(missing) == 1 else 'do'} not exist: check the paths")
    if not found:
        raise InputError(f"{_named(list(paths))}: found no images, expected .jpg, .png, .tif and the like below it")
    return sorted(found)


def find_pairs(gt: Sequence[Path], lq: Sequence[Path]) -> list[Pair]:
    """Large and small images that belong together: those of one name, without suffix and folder.

    Raises:
        InputError: a name is on one side only, or twice on one side.
    """
    large, small = (_by_stem(find_training_images(paths)) for paths in (gt, lq))
    alone = [path for stem, path in [*large.items(), *small.items()] if stem not in large or stem not in small]
    if alone:
        raise InputError(f"{_named(alone)} without a partner of that name: expected as many large images as small ones")
    return [(large[stem], small[stem]) for stem in large]


def _images_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file():
            yield path


def _listed(path: Path) -> Iterator[Path]:
    for line in path.read_text("utf-8").splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        whole = path.parent / text
        yield whole if whole.is_file() else path.parent / text.split(",")[0].split()[0]


def _by_stem(images: Sequence[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for image in images:
        if image.stem in by_stem:
            raise InputError(f"{by_stem[image.stem]} and {image} have one name: expected it once, to find its partner")
        by_stem[image.stem] = image
    return by_stem


def _named(paths: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in paths[:_SHOWN])
    return shown if len(paths) <= _SHOWN else f"{shown} and {len(paths) - _SHOWN} more"
