"""Opens WebP files, which are decoded whole.

Source of the layout: RFC 9649, 2 (RIFF container, extended file format).
"""

import struct
from pathlib import Path

from realesr.images.decoded import (
    Decoded,
    ReadOptions,
    check_memory,
    check_page,
    field,
    load_upright,
    turned_resolution,
)
from realesr.images.file_source import FileSource
from realesr.images.formats.gif import frames_notice
from realesr.images.metadata.exif import orientation, pixels_per_mm

_METADATA = (b"ICCP", b"EXIF", b"XMP ")
_MOST_CHUNKS = 1_000_000
_MOST_BYTES = 1 << 25
_PX_BYTES = 9
_FILE_COPIES = 5
"""Memory in bytes for a pixel of the canvas, turned or not, and in files' sizes for the file, which libvips holds as a
whole: 6.9 bytes per pixel were measured for smooth lossy images, 8.9 for lossless alpha, 18.3 for noise of 2 bytes
per pixel in the file."""


def open_webp(path: Path, options: ReadOptions) -> Decoded:
    """Open a frame of a WebP file, the first by default.

    Raises:
        InputError: too large, or there is no such frame.
        pyvips.Error: damaged.
    """
    with FileSource(path) as source:
        header = source.load("webpload")
    frames = field(header, "n-pages") or 1
    check_page(path, options.page, frames)
    chunks, damage = _metadata_chunks(path)
    exif = chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0") or None
    turn = orientation(exif) if exif else 1
    image, source = load_upright(path, "webpload", turn, options, **({"page": options.page} if options.page else {}))
    needed = image.width * image.height * _PX_BYTES + _FILE_COPIES * path.stat().st_size
    check_memory(path, image.width, image.height, needed, "WebP", "save it as PNG or TIFF first")
    return Decoded(
        image=image,
        space="rgb",
        has_alpha=image.bands == 4,
        bits=8,
        icc=chunks.get(b"ICCP"),
        exif=exif,
        xmp=chunks.get(b"XMP "),
        pixels_per_mm=turned_resolution(pixels_per_mm(exif) if exif else None, turn),
        was_turned=turn > 1,
        notices=(*frames_notice(frames, options), *damage),
        sources=(source,),
    )


def _metadata_chunks(path: Path) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    """Return the data of the first chunk of each kind of metadata, by its name, and notices of those too large."""
    found: dict[bytes, bytes] = {}
    notices: list[str] = []
    with path.open("rb") as file:
        end = 8 + int.from_bytes(file.read(8)[4:], "little")
        file.seek(12)
        for _ in range(_MOST_CHUNKS):
            head = file.read(8)
            begin = file.tell()
            if len(head) < 8 or begin > end:
                break
            name, length = struct.unpack("<4sI", head)
            if name in _METADATA and name not in found and length:
                data = file.read(min(length, _MOST_BYTES))
                if len(data) == length:
                    found[name] = data
                else:
                    notices.append(
                        f"the {name.decode().strip()} chunk of {length:,} bytes is too large and was left out"
                    )
            file.seek(begin + length + length % 2)
    return found, tuple(notices)
