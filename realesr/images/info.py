"""Facts about an image: size, depth, channels, profile, metadata. Knows no pixels and no files."""

from dataclasses import dataclass
from typing import Literal

OutputFormat = Literal["png", "jpeg", "tiff", "webp", "avif"]


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """Facts about an image, as a reader finds them and a writer needs them; never its pixels."""

    width_px: int
    height_px: int
    bits: Literal[8, 16]
    """Bits per channel, from the type of the file's samples, never from their values."""
    is_grey: bool
    """Whether there is one colour channel, not three."""
    has_alpha: bool
    format: str
    """Name of the file format that the image came from: "jpeg", "png", ..."""
    icc: bytes | None = None
    """ICC profile of the pixel values; None means sRGB, or grey with sRGB's curve."""
    exif: bytes | None = None
    """EXIF block, beginning with the TIFF header; the orientation has been applied and is set to 1."""
    xmp: bytes | None = None
    """XMP packet; the orientation in it is set to 1."""
    pixels_per_mm: tuple[float, float] | None = None
    """Resolution across and down, where the file states one."""

    @property
    def channels(self) -> int:
        """Return the number of channels: colour, then alpha."""
        return (1 if self.is_grey else 3) + self.has_alpha
