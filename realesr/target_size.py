"""The size that an output shall have: pixels of a side, megapixels, or a print; and the pixels that come of it."""

import math
import re
from dataclasses import dataclass
from numbers import Integral
from typing import Self

from realesr.errors import UsageError

MOST_SIDE_PX = 10_000_000
"""Longest side that can be asked for: far above any image that could be written."""
MEGAPIXELS = (0.0001, 100_000.0)
PRINT_MM = (1.0, 100_000.0)
PRINT_DPI = (1.0, 10_000.0)
"""Least and most that can be asked for; likewise the two above."""
USUAL_DPI = 300.0
"""Pixels per inch of a print where none are given."""
MM_PER_UNIT = {"mm": 1.0, "cm": 10.0, "in": 25.4}

LABEL = re.compile(r"\d+(x\d+)?px|\d+[pwh]|[\d.]+mp|[\d.]+x[\d.]+(cm|mm|in)[\d.]+")
"""What `TargetSize.label` looks like."""

_PRINT = re.compile(
    r"(?P<width>\d+(?:\.\d+)?)x(?P<height>\d+(?:\.\d+)?)(?P<unit>mm|cm|in)(?:@(?P<dpi>\d+(?:\.\d+)?))?", re.ASCII
)


@dataclass(frozen=True, kw_only=True)
class TargetSize:
    """A size to enlarge images to; their aspect ratio stays. One field is given, or `width_px` and `height_px`.

    Raises:
        UsageError: no size, several, one that is out of range, or dots per inch without a print.

    Example:
        >>> TargetSize(long_side_px=3840).output_px(800, 600)
        (3840, 2880)
    """

    long_side_px: int | None = None
    """Length of the longer side. Likewise `short_side_px`."""
    short_side_px: int | None = None
    width_px: int | None = None
    """Width of the upright image; with `height_px` the image fits inside both."""
    height_px: int | None = None
    megapixels: float | None = None
    """Area in millions of pixels."""
    print_mm: tuple[float, float] | None = None
    """Sides of a print in mm, which the image fits inside; the longer one lies along the image's longer side."""
    dpi: float | None = None
    """Pixels per inch of the print; None is 300."""

    @classmethod
    def from_print(cls, text: str) -> Self:
        """Return the size of a print that a text such as "30x20cm@300", "8x10in" or "297x210mm" states.

        Raises:
            UsageError: the text is none, or a number in it is out of range.
        """
        match = _PRINT.fullmatch(text.strip().lower())
        if match is None:
            raise UsageError(
                f"got print {text}, expected two sides, mm, cm or in, and perhaps dots per inch, such as 30x20cm@300",
                option="print_mm",
            )
        unit_mm = MM_PER_UNIT[match["unit"]]
        return cls(
            print_mm=(float(match["width"]) * unit_mm, float(match["height"]) * unit_mm),
            dpi=None if match["dpi"] is None else float(match["dpi"]),
        )

    def __post_init__(self) -> None:
        self._check_one_is_given()
        for name in ("long_side_px", "short_side_px", "width_px", "height_px"):
            side_px = getattr(self, name)
            if side_px is not None and not (isinstance(side_px, Integral) and 1 <= int(side_px) <= MOST_SIDE_PX):
                raise UsageError(f"got {name} {side_px}, expected a whole number from 1 to {MOST_SIDE_PX}", option=name)
            if side_px is not None:  # numbers of numpy would overflow in products
                object.__setattr__(self, name, int(side_px))
        if self.megapixels is not None:
            _check_range("{:g} megapixels", self.megapixels, MEGAPIXELS, "megapixels")
        if self.print_mm is not None:
            for side_mm in self.print_mm:
                _check_range("a print with a side of {:g} mm", side_mm, PRINT_MM, "print_mm")
            _check_range("a print at {:g} dpi", self._print_dpi, PRINT_DPI, "print_mm")
            if max(self._print_px) > MOST_SIDE_PX:
                raise UsageError(
                    f"got {self.in_words}, which is {max(self._print_px)} px wide, expected at most {MOST_SIDE_PX}",
                    option="print_mm",
                )
        elif self.dpi is not None:
            raise UsageError(f"got {self.dpi:g} dpi without a print: name the print's sides", option="print_mm")

    def _check_one_is_given(self) -> None:
        """Raise UsageError where there is no size, or more than one."""
        names = ("long_side_px", "short_side_px", "width_px", "height_px", "megapixels", "print_mm")
        given = [name for name in names if getattr(self, name) is not None]
        if not given:
            raise UsageError(f"got no size, expected one of {', '.join(names)}")
        if len(given) > 1 and given != ["width_px", "height_px"]:
            words = " and ".join(name.removesuffix("_px").removesuffix("_mm").replace("_", " ") for name in given)
            raise UsageError(f"got {words}, expected one size, or width and height together")

    @property
    def _print_dpi(self) -> float:
        return USUAL_DPI if self.dpi is None else self.dpi

    @property
    def _print_px(self) -> tuple[int, int]:
        """Return the sides of the print in pixels, at least 1."""
        first, second = (max(1, math.floor(side / 25.4 * self._print_dpi + 0.5)) for side in self.print_mm or ())
        return first, second

    @property
    def pixels_per_mm(self) -> tuple[float, float] | None:
        """Return the resolution across and down that the file of a print states; None for the other sizes."""
        return None if self.print_mm is None else (self._print_dpi / 25.4,) * 2

    @property
    def label(self) -> str:
        """Return the size as names of files have it: 3840px, 2160p (short side), 1200w, 800h, 24mp, 30x20cm300."""
        if self.long_side_px is not None:
            return f"{self.long_side_px}px"
        if self.short_side_px is not None:
            return f"{self.short_side_px}p"
        if self.megapixels is not None:
            return f"{_number(self.megapixels)}mp"
        if self.print_mm is not None:
            return f"{self._print_sides('')}{_number(self._print_dpi)}"
        if self.width_px is not None and self.height_px is not None:
            return f"{self.width_px}x{self.height_px}px"
        return f"{self.height_px}h" if self.width_px is None else f"{self.width_px}w"

    @property
    def in_words(self) -> str:
        """Return the size in words: "a long side of 3840 px", "a print of 30x20 cm at 300 dpi"."""
        if self.long_side_px is not None:
            return f"a long side of {self.long_side_px} px"
        if self.short_side_px is not None:
            return f"a short side of {self.short_side_px} px"
        if self.megapixels is not None:
            return f"{_number(self.megapixels)} megapixels"
        if self.print_mm is not None:
            return f"a print of {self._print_sides(' ')} at {_number(self._print_dpi)} dpi"
        if self.width_px is not None and self.height_px is not None:
            return f"{self.width_px} x {self.height_px} px"
        return f"a height of {self.height_px} px" if self.width_px is None else f"a width of {self.width_px} px"

    def _print_sides(self, space: str) -> str:
        """Return the print's sides in the unit that takes the fewest digits, as they were most likely asked for."""
        texts = (
            "x".join(_number(side / unit_mm) for side in self.print_mm or ()) + space + unit
            for unit, unit_mm in MM_PER_UNIT.items()
        )
        return min(texts, key=len)

    def output_px(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Return the width and height in px that an upright image of these sides comes to, each at least 1.

        The side that was asked for is met exactly; the other one, and both for megapixels, are rounded, half up.
        """
        if self.megapixels is not None:
            return _with_area(width_px, height_px, self.megapixels * 1e6)
        box_width, box_height = self._box_px(is_portrait=height_px > width_px)
        if box_width is not None and (box_height is None or box_width * height_px <= box_height * width_px):
            return box_width, _divided(height_px * box_width, width_px)
        assert box_height is not None
        return _divided(width_px * box_height, height_px), box_height

    def _box_px(self, *, is_portrait: bool) -> tuple[int | None, int | None]:
        """Return the width and height in px that the image fits inside; None where a side is free."""
        if self.print_mm is not None:
            short, long = sorted(self._print_px)
            return (short, long) if is_portrait else (long, short)
        if self.long_side_px is not None:
            return (None, self.long_side_px) if is_portrait else (self.long_side_px, None)
        if self.short_side_px is not None:
            return (self.short_side_px, None) if is_portrait else (None, self.short_side_px)
        return self.width_px, self.height_px

    def is_met_by(self, width_px: int, height_px: int, *, shrink: bool) -> bool:
        """Return whether an image stays as it is: it is as large as asked, or larger and not to `shrink`."""
        width, height = self.output_px(width_px, height_px)
        if shrink:
            return (width, height) == (width_px, height_px)
        return width <= width_px and height <= height_px


def _check_range(what: str, value: float, least_most: tuple[float, float], option: str) -> None:
    """Raise UsageError where a number is out of its range; `what` has a place for it."""
    least, most = least_most
    if not least <= value <= most:
        raise UsageError(f"got {what.format(value)}, expected {_number(least)} to {_number(most)}", option=option)


def _with_area(width_px: int, height_px: int, area_px: float) -> tuple[int, int]:
    """Return sides of the same ratio whose product is nearest to `area_px`; the same sides where rounding decides.

    Sides that were rounded for an area are off it by half a row and half a column at most: such an image has it.
    """
    if abs(width_px * height_px - area_px) <= (width_px + height_px) / 2:
        return width_px, height_px
    factor = math.sqrt(area_px / (width_px * height_px))
    return max(1, math.floor(width_px * factor + 0.5)), max(1, math.floor(height_px * factor + 0.5))


def _divided(dividend: int, divisor: int) -> int:
    """Return a quotient rounded half up, at least 1."""
    return max(1, (2 * dividend + divisor) // (2 * divisor))


def _number(value: float) -> str:
    """Return a number without needless digits: 24.0 -> "24"."""
    return f"{value:.4f}".rstrip("0").rstrip(".")
