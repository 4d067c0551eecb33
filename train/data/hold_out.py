"""Holds images out from training, to validate on them, and says where they are too few to tell much."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

HELD_OUT = 8
"""Images that recipes hold out where they do not say otherwise."""

FEWEST_TELLING = 5
"""Images below which a mean score says more about the images than about the network (an assumption)."""


def hold_out(images: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Split images into those to train on and those to validate on; see `held_out_count`.

    Which are held out follows from their names alone, so that a folder that has grown holds out most of the same. A
    single image has to serve for both.

    Returns:
        Both lists, in the order of `images`.
    """
    if len(images) == 1:
        return list(images), list(images)
    by_hash = sorted(images, key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
    held = set(by_hash[: held_out_count(len(images), count)])
    return [path for path in images if path not in held], [path for path in images if path in held]


def held_out_count(images: int, wanted: int) -> int:
    """Return how many of so many images are held out: `wanted`, but at most a tenth.

    Of fewer than fifty a tenth would be fewer than five: then it is five, but at most a quarter, and at least one.
    """
    if images == 0:
        return 0
    return min(wanted, max(images // 10, min(FEWEST_TELLING, images // 4), 1))


def held_out_warning(held_out: int, crops: int) -> str | None:
    """Return a line that says how little the scores tell, or None where enough images are held out.

    Args:
        held_out: images or pairs that are validated on; 0 for none, which is no cause for a warning.
        crops: crops that are cut from them.
    """
    if not 0 < held_out < FEWEST_TELLING:
        return None
    source = "one image" if held_out == 1 else f"{held_out} images"
    return (
        f"all {max(held_out, crops)} validation crops come from {source}: scores of fewer than {FEWEST_TELLING} images "
        "say little about others"
    )
