"""Plans which pages and pictures `realesr compare` writes, and writes them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from realesr.cli.files import FOLDS_CASE, Found
from realesr.errors import UsageError

if TYPE_CHECKING:
    from realesr.comparing import Comparison

ENDING = "_compare"
"""What the stem of a page's name ends in, unless it is named."""


@dataclass(frozen=True)
class Target:
    """A photo, and the page that is written for it."""

    source: Path
    page: Path

    @property
    def sheet(self) -> Path:
        """Return the path of the picture."""
        return self.page.with_suffix(".png")


def output_folder(text: str | None, *, many: bool) -> Path | None:
    """Return the folder that `-o` names; None where it names one file, or nothing.

    Raises:
        UsageError: it names one file for many photos, or a file that is no .html.
    """
    if text is None:
        return None
    path = Path(text)
    if os.path.isdir(path) or text.endswith(("/", os.sep)) or not path.suffix:
        return path
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"got -o {text}, expected a folder (end it with /) or a file that ends in .html")
    if many:
        raise UsageError(f"got -o {text}, which names one file, for many photos: name a folder (end it with /)")
    return None


def without_sheets(found: Sequence[Found]) -> list[Found]:
    """Return images without the pictures that an earlier run wrote beside its pages."""
    return [
        image for image in found if not (image.path.stem.endswith(ENDING) and image.path.with_suffix(".html").exists())
    ]


def targets_for(found: Sequence[Found], file: Path | None, folder: Path | None) -> list[Target]:
    """Return the page of each photo; photos of one name (photo.jpg, photo.png) keep their suffix in it.

    Raises:
        UsageError: a page or a picture would be written over a photo, or two over one another.
    """
    targets = list(_named_targets(found, folder)) if file is None else [Target(image.path, file) for image in found]
    photos = {_key(target.source): target.source for target in targets}
    writers: dict[str, Path] = {}
    for target in targets:
        if _key(target.sheet) in photos:
            raise UsageError(f"{target.sheet} would be written over the photo of that name: choose another -o")
        first = writers.setdefault(_key(target.page), target.source)
        if first is not target.source:
            raise UsageError(f"{first} and {target.source} would both be written to {target.page}: rename one of them")
    return targets


def _named_targets(found: Sequence[Found], folder: Path | None) -> Iterator[Target]:
    """Yield the page of each photo by its name, below `folder` or beside it."""
    places = [image.path.parent if folder is None else folder / image.below for image in found]
    short = [place / f"{image.path.stem}{ENDING}.html" for place, image in zip(places, found, strict=True)]
    uses = Counter(map(_key, short))
    for place, page, image in zip(places, short, found, strict=True):
        long = place / f"{image.path.stem}_{image.path.suffix.removeprefix('.')}{ENDING}.html"
        yield Target(image.path, page if uses[_key(page)] == 1 else long)


def _key(path: Path) -> str:
    """Return a text that is equal for two paths of one file, as far as their names tell."""
    text = os.path.abspath(path)
    return text.casefold() if FOLDS_CASE else text


def write(comparison: "Comparison", target: Target, missing: Sequence[str]) -> None:
    """Write the picture and the page, each whole or not at all.

    Raises:
        OutputError: one cannot be written.
    """
    from realesr.machine.whole_file import not_written, write_whole

    from .page import page
    from .sheet import sheet

    for path, content in (
        (target.sheet, sheet(comparison)),
        (target.page, page(comparison, missing).encode("utf-8")),
    ):
        try:
            write_whole(path, content)
        except OSError as error:
            raise not_written(path, error, "give another -o") from error
