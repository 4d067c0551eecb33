"""Finds out which small image belongs to which large one, by their names; what could be paired otherwise is refused."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from realesr.errors import InputError
from realesr.train.data.image_list import (
    LIST_SUFFIX,
    check_all_there,
    find_training_images,
    listed_lines,
    named,
    names_below,
)

Pair = tuple[Path, Path]
"""(HR, LR)."""

_SMALL = re.compile(r"(?<=.)(?:[_-]?x\d{1,2}(?:[mdw]\d?)?|[_-](?:lr|lq)(?:[_-]?x?\d{1,2})?)$", re.IGNORECASE)
"""What data sets append to the names of small images: DIV2K, Flickr2K and the benchmarks of EDSR 0001x4 (and 0001x4m,
0001x4d, 0001x4w for harder degradations), DRealSR 0001_x4, RealSR 0001_LR4, Set5 as published by Huang et al. 0001_LR,
others 0001_lq."""
_LARGE = re.compile(r"(?<=.)[_-](?:hr|gt|hq|x1)$", re.IGNORECASE)
"""What they append to the names of large ones: RealSR and Huang et al. 0001_HR, DRealSR 0001_x1, others 0001_gt."""

_EXPECTED = (
    "expected the same names in both, or small ones with x4, _x4, _LR, _LR4 or _lq behind the name and large ones with "
    "_HR or _GT, or a list with a pair a line"
)


def find_pairs(gt: Sequence[Path], lq: Sequence[Path]) -> list[Pair]:
    """Return the pairs of large and small images that belong together by their names.

    Where both are the same .txt, it names a pair a line, "large, small", as BasicSR's lists for pairs do. Else names
    count without format, with the folders below the given ones where both sides have the same folders, and without
    folders where not. They are equal, or differ in what data sets append: the small ones x4, _x4, -x4, _LR, _LR4,
    _LRx4, _lq and the like, the large ones _HR, _GT, _HQ or _x1. Where both sides are the same folder, the images with
    what is appended to small ones are the small ones.

    Raises:
        InputError: an image has no partner, or more than one might be it; they are named. Or a list's line has no two
            names.
    """
    if len(gt) == 1 and list(gt) == list(lq) and gt[0].suffix.lower() == LIST_SUFFIX:
        return _listed_pairs(gt[0].expanduser())
    large, small = _told_apart(find_training_images(gt), find_training_images(lq))
    large_by_name, small_by_name = _by_name(large, gt, small, lq)
    return _matched(large_by_name, small_by_name)


def _told_apart(large: list[Path], small: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the large and the small images; of one folder that holds both, those with a small one's suffix are small.

    Raises:
        InputError: an image would be on both sides.
    """
    both = sorted(set(large) & set(small))
    if not both:
        return large, small
    if large == small:
        large = [image for image in both if not _SMALL.search(image.stem)]
        small = [image for image in both if _SMALL.search(image.stem)]
        if large and small:
            return large, small
    raise InputError(f"{named(both)} is given as large and as small: expected other images, or lists of them")


def _by_name(
    large: Sequence[Path], gt: Sequence[Path], small: Sequence[Path], lq: Sequence[Path]
) -> tuple[dict[Path, Path], dict[Path, Path]]:
    """Map names to the images of each side: with folders where both sides have the same ones, else without."""
    large_names, small_names = (
        [name.with_suffix("") for name in names_below(images, paths)] for images, paths in ((large, gt), (small, lq))
    )
    if {name.parent for name in large_names} != {name.parent for name in small_names}:
        large_names, small_names = ([Path(name.name) for name in names] for names in (large_names, small_names))
    return _unique(large_names, large), _unique(small_names, small)


def _unique(names: Iterable[Path], images: Iterable[Path]) -> dict[Path, Path]:
    by_name: dict[Path, Path] = {}
    for name, image in zip(names, images, strict=True):
        if by_name.setdefault(name, image) is not image:
            raise InputError(
                f"{by_name[name]} and {image} have one name: expected it once, to find its partner, or the same "
                "folders on both sides"
            )
    return by_name


def _matched(large: Mapping[Path, Path], small: Mapping[Path, Path]) -> list[Pair]:
    """Pair images by their names; no image may have two partners.

    Equal names decide only where all are equal: of 0001 and 0001x2 on one side, and 0001x2 and 0001x4 on the other,
    those of one name are no pair.
    """
    if large.keys() == small.keys():
        return [(large[name], small[name]) for name in large]
    to_small = _partners(large, small, _LARGE, _SMALL)
    to_large = _partners(small, large, _SMALL, _LARGE)
    for partners, own, other in ((to_small, large, small), (to_large, small, large)):
        for name, found in partners.items():
            if len(found) > 1:
                several = named([other[each] for each in found])
                raise InputError(f"{several} may each be the partner of {own[name]}: {_EXPECTED}")
    alone = [large[name] for name, found in to_small.items() if not found]
    alone += [small[name] for name, found in to_large.items() if not found]
    if alone:
        raise InputError(f"{named(alone)} without a partner of that name: {_EXPECTED}")
    return [(large[name], small[found[0]]) for name, found in to_small.items()]


def _partners(
    names: Iterable[Path], others: Mapping[Path, Path], suffix: re.Pattern[str], other_suffix: re.Pattern[str]
) -> dict[Path, list[Path]]:
    """Return for each name the others that are equal to it, or are so without what is appended to either."""
    by_base = defaultdict(list)
    for other in others:
        by_base[_base(other, other_suffix)].append(other)
    return {
        name: list(dict.fromkeys([*([name] if name in others else []), *by_base.get(_base(name, suffix), [])]))
        for name in names
    }


def _base(name: Path, suffix: re.Pattern[str]) -> Path:
    return name.with_name(suffix.sub("", name.name))


def _listed_pairs(path: Path) -> list[Pair]:
    pairs = []
    for line in listed_lines(path):
        large, comma, small = (part.strip() for part in line.partition(","))
        if not (large and comma and small):
            raise InputError(f"{path} has the line {line!r}: expected a pair like 'sharp/1.png, small/1.png'")
        pairs.append((path.parent / large, path.parent / small))
    if not pairs:
        raise InputError(f"{path} names no pairs: expected lines like 'sharp/1.png, small/1.png'")
    check_all_there([image for pair in pairs for image in pair])
    return sorted(dict.fromkeys(pairs))
