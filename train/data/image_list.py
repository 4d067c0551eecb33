"""Finds the images that folders, paths and lists name, and reports all that are missing at once."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from realesr.errors import InputError
from realesr.images.kinds import IMAGE_SUFFIXES
from realesr.machine.whole_file import not_written, write_whole

LIST_SUFFIX = ".txt"

_SHOWN = 5


def find_training_images(paths: Sequence[Path], *, root: Path | None = None) -> list[Path]:
    """Return all images, sorted, each once.

    Args:
        paths: folders, searched with all below them, links to folders included, but nothing hidden; images; and .txt
            files that name one image a line. Of a line only what is before the first comma or space counts, as in
            BasicSR's lists of meta information, unless the whole line is a file; lines that begin with # are left out.
        root: folder that the lists' names are relative to; each list's own by default.

    Raises:
        InputError: images that were named are missing, a list cannot be read, or there are none; the first are named.
            What a folder has that is no file, such as a link to nothing, is returned: who reads it tells what it is.
    """
    found: dict[str, Path] = {}
    named_ones: list[Path] = []
    for path in (each.expanduser() for each in paths):
        images = list(_images_at(path, root))
        named_ones += [] if path.is_dir() else images
        for image in images:
            found.setdefault(os.path.abspath(image), image)
    check_all_there(list(dict.fromkeys(named_ones)))
    if not found:
        raise InputError(f"{named(list(paths))}: found no images, expected .jpg, .png, .tif and the like below it")
    return sorted(found.values())


def names_below(images: Sequence[Path], paths: Sequence[Path], *, root: Path | None = None) -> list[Path]:
    """Return the path of each image below the folder that it was found in; its name alone where it lies elsewhere.

    Args:
        images: what `find_training_images` found.
        paths: what it was given: folders, images, lists.
        root: likewise.
    """
    folders = [root or path.parent if path.suffix.lower() == LIST_SUFFIX else path for path in paths]
    roots = [os.path.abspath(folder.expanduser()) for folder in folders]
    return [_below(Path(os.path.abspath(image)), roots) for image in images]


def write_image_list(path: Path, images: Sequence[Path]) -> None:
    """Write a list that `find_training_images` reads: names relative to its folder where they lie below, else whole.

    Raises:
        OutputError: it cannot be written.
    """
    folder = Path(os.path.abspath(path)).parent
    lines = []
    for image in images:
        whole = Path(os.path.abspath(image))
        name = whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else str(whole)
        lines.append(f"./{name}" if name.startswith("#") else name)
    try:
        write_whole(path, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise not_written(path, error, "free some space, or choose another place") from error


def named(paths: Sequence[Path], shown: int = _SHOWN) -> str:
    """Return the first few paths by name, and how many more there are."""
    text = ", ".join(str(path) for path in paths[:shown])
    return text if len(paths) <= shown else f"{text} and {len(paths) - shown} more"


def _images_at(path: Path, root: Path | None) -> Iterator[Path]:
    if path.is_dir():
        yield from _images_below(path)
    elif path.suffix.lower() == LIST_SUFFIX and path.is_file():
        folder = path.parent if root is None else root.expanduser()
        yield from (_named_by(line, folder) for line in listed_lines(path))
    else:
        yield path


def _images_below(folder: Path) -> Iterator[Path]:
    entered = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_search):
        real = os.path.realpath(here)
        if real in entered:  # a link back to where we come from, or a second one to the same folder
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(here, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield path


def _cannot_search(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be searched ({error.strerror}): check its permissions") from error


def listed_lines(path: Path) -> list[str]:
    """Return the lines of a list that are neither empty nor comments.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text in UTF-8: expected a list with one image a line") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): expected a list of images") from error
    return [line for line in lines if line and not line.startswith("#")]


def _named_by(line: str, folder: Path) -> Path:
    whole = folder / line
    if whole.is_file():
        return whole
    words = line.split(",")[0].split()
    return folder / words[0] if words else whole


def check_all_there(images: Sequence[Path]) -> None:
    """Check that all files exist.

    Raises:
        InputError: some do not; the first are named.
    """
    missing = [image for image in images if not image.is_file()]
    if missing:
        count = f"{len(missing)} of {len(images)} images: " if len(images) > 1 else ""
        raise InputError(f"{count}{named(missing)} {'does' if len(missing) == 1 else 'do'} not exist: check the paths")


def _below(image: Path, roots: Sequence[str]) -> Path:
    for root in roots:
        if image.is_relative_to(root) and image != Path(root):
            return image.relative_to(root)
    return Path(image.name)
