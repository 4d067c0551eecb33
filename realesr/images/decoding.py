"""Opens a file as its codec's image, upright, with what the file says about it; no pixel is decoded yet.

libvips decodes JPEG, PNG and TIFF row by row, on demand. Decoded whole, because the codec or the order of the rows
leaves no choice: JPEG in several scans (progressive), interlaced PNG, WebP, AVIF, HEIC, GIF (its canvas), BMP, PNM;
TIFF whose samples share bytes, whose chroma is subsampled or whose tiles have unusual sizes; and files whose EXIF
orientation turns them. Their openers compare what that takes with the free memory first (`check_memory`).
"""

from collections.abc import Callable
from pathlib import Path

from realesr.errors import InputError
from realesr.images.decoded import Decoded, ReadOptions
from realesr.images.formats.bmp import open_bmp
from realesr.images.formats.gif import open_gif
from realesr.images.formats.heif import open_avif, open_heic
from realesr.images.formats.jpeg import open_jpeg
from realesr.images.formats.png import open_png
from realesr.images.formats.pnm import open_pnm
from realesr.images.formats.tiff import open_tiff
from realesr.images.formats.webp import open_webp
from realesr.images.kinds import ImageKind
from realesr.images.libvips import own_messages, pyvips, vips_message

_OPENERS: dict[ImageKind, Callable[[Path, ReadOptions], Decoded]] = {
    "jpeg": open_jpeg,
    "png": open_png,
    "tiff": open_tiff,
    "webp": open_webp,
    "avif": open_avif,
    "gif": open_gif,
    "bmp": open_bmp,
    "ppm": open_pnm,
    "heic": open_heic,
}


def decode(path: Path, kind: ImageKind, options: ReadOptions) -> Decoded:
    """Open the file at `path`, which holds an image of kind `kind`.

    Raises:
        InputError: the file is damaged, too large, too large for the free memory, has no such page, or is in a form
            that is not read.
    """
    try:
        with own_messages(path):
            return _OPENERS[kind](path, options)
    except pyvips.Error as error:
        raise InputError(
            f"{path} is damaged, or no {kind.upper()} ({vips_message(error)}); get a whole copy"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
