"""Finds the reference of each image that is scored: by its name, and by its folder below the one that was named."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from realesr.errors import InputError

from .files import Failures, Found, find_images, source_of, source_stems


@dataclass(frozen=True)
class Pair:
    """An image and what it is compared with."""

    image: Path
    reference: Path | None = None
    """None where there is nothing to compare with."""


@dataclass(frozen=True)
class Pairing:
    """The images with their references."""

    pairs: Sequence[Pair]
    failures: Failures
    """Images without a reference, and references that cannot be read, each with its reason."""
    unused: Sequence[Path] = ()
    """References that no image is compared with."""


def pair_with_references(found: Sequence[Found], reference: Path | None, *, recursive: bool) -> Pairing:
    """Return each image with its reference.

    A reference that is a file is that of all images. In a folder it has the image's stem, or what stands before an
    ending of an output, such as _x4, and lies in the same folder below the named one as the image below its own.

    Args:
        found: the images.
        reference: a file or a folder; None for no comparison.
        recursive: whether references lie in folders of the folder, too.
    """
    if reference is None or not reference.is_dir():
        return Pairing([Pair(image.path, reference) for image in found], [])
    references, failures = find_images([reference], recursive=recursive, with_outputs=True)
    folders = _by_folder_and_stem(references)
    pairs: list[Pair] = []
    for image in found:
        try:
            pairs.append(Pair(image.path, _reference_of(image, reference, folders.get(image.below, {}))))
        except InputError as error:
            failures.append((image.path, error))
    used = {pair.reference for pair in pairs}
    return Pairing(pairs, failures, [each.path for each in references if each.path not in used])


Stems = dict[str, list[Path]]
"""Beginning of an output's name -> references that it may be the output of."""


def _by_folder_and_stem(references: Iterable[Found]) -> dict[Path, Stems]:
    """Return the references of each folder by the stems that their images may have."""
    folders: dict[Path, Stems] = {}
    for reference in references:
        stems = folders.setdefault(reference.below, {})
        for stem in source_stems([reference.path.name]):
            stems.setdefault(stem, []).append(reference.path)
    return folders


def _reference_of(image: Found, root: Path, stems: Stems) -> Path:
    """Return the reference of an image; raise InputError where there is none, or more than one."""
    name = image.path.name
    source = source_of(name, {stem: stem for stem in stems})
    for stem in (image.path.stem, source):
        others = [] if stem is None else [path for path in stems.get(stem, ()) if not _is_same(path, image.path)]
        chosen = [path for path in others if path.name == name] or others
        if len(chosen) > 1:
            names = " and ".join(path.name for path in chosen)
            raise InputError(f"{name} has more than one reference ({names}): name the one, or move the others away")
        if chosen:
            return chosen[0]
    stem = image.path.stem if source is None else source
    raise InputError(
        f"{name} has no reference: expected {stem}.png or another image of that name in {root / image.below}"
    )


def _is_same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)
