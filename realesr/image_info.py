"""Facts about an image, and what each file format can hold. No pixels, no files."""

from dataclasses import dataclass
from typing import Literal

OutputFormat = Literal["png", "jpeg", "tiff", "webp", "avif"]


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """Everything about an image but its pixels, as they come out of a reader or go into a writer."""

    width_px: int
    height_px: int
    bits: Literal[8, 16]
    """Bits a channel, from the file's type, never from its values."""
    is_grey: bool
    """One colour channel, not three."""
    has_alpha: bool
    format: str
    """Name of the file format that the image came from: "jpeg", "png", ..."""
    icc: bytes | None = None
    """Profile of the pixel values; none means sRGB, or its grey."""
    exif: bytes | None = None
    """EXIF block, beginning with the TIFF header; orientation applied already and set to 1."""
    xmp: bytes | None = None
    pixels_per_mm: tuple[float, float] | None = None
    """Resolution across and down, where the file states one."""

    @property
    def channels(self) -> int:
        """Number of channels: colour, then alpha."""
        return (1 if self.is_grey else 3) + self.has_alpha
