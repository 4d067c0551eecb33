"""Tells images that are grey by their palette."""

from realesr.images.colour import is_srgb, profile_space


def is_grey_table(table: bytes) -> bool:
    """Return whether every entry of a palette, three bytes each, is grey."""
    return table[0::3] == table[1::3] == table[2::3]


def can_be_grey(icc: bytes | None) -> bool:
    """Return whether pixels of a grey palette can be kept as grey alone, for which `grey_profile_of` has the profile.

    A palette has a profile for RGB, which grey cannot carry: only sRGB's means the same as none.
    """
    return icc is None or profile_space(icc) != "rgb" or is_srgb(icc)


def grey_profile_of(icc: bytes | None) -> bytes | None:
    """Return the profile for the greys of a palette whose image `can_be_grey`: none where it is sRGB's."""
    return None if icc is not None and profile_space(icc) == "rgb" else icc
