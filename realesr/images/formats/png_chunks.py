"""Reads the chunks of a PNG file that say what its pixels mean, and its metadata; never its pixels.

Source of the layout: PNG specification, third edition, 5 (chunks), 11 (each of them). EXIF and XMP in text chunks named
"Raw profile type ..." are ImageMagick's (coders/png.c), from before there was eXIf; ExifTool writes them, too.
"""

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from realesr.errors import InputError
from realesr.images.formats.grey_palette import is_grey_table

_GREY, _PALETTE, _GREY_ALPHA = 0, 3, 4  # colour types of IHDR
_SIGNATURE_BYTES = 8
_MOST_CHUNKS = 2_000_000
_MOST_BYTES = 1 << 25
_NEEDED = (b"IHDR", b"PLTE", b"tRNS")
_KEPT = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", b"pHYs", b"acTL")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_RAW_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")
_XMP, _RAW_XMP = b"XML:com.adobe.xmp", b"Raw profile type xmp"
_EXIF_MARK, _XMP_MARK = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


@dataclass
class PngChunks:
    """What the chunks of a file hold."""

    found: dict[bytes, bytes] = field(default_factory=dict)
    """Data of the first chunk of each name that is kept."""
    exif: bytes | None = None
    """EXIF block from its TIFF header on."""
    xmp: bytes | None = None
    pixel_bytes: int = 0
    """Compressed bytes of pixels, in IDAT chunks, that the file has."""
    ends: bool = False
    """Whether the last chunk, IEND, is there."""
    notices: list[str] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """Return the bits of a sample: 1, 2, 4, 8 or 16."""
        return self.found[b"IHDR"][8]

    @property
    def is_interlaced(self) -> bool:
        """Return whether the pixels come in several passes."""
        return self.found[b"IHDR"][12] != 0

    @property
    def has_grey_pixels(self) -> bool:
        """Return whether every pixel is grey because of how it is stored: by its type, or by a palette of greys."""
        kind = self.found[b"IHDR"][9]
        return kind in (_GREY, _GREY_ALPHA) or (kind == _PALETTE and is_grey_table(self.found.get(b"PLTE", b"")))


def read_png_chunks(path: Path) -> PngChunks:
    """Read the chunks before and after the pixels.

    Raises:
        InputError: damaged where pixels cannot be understood without, or a PNG of Apple's own kind.
    """
    chunks = PngChunks()
    with path.open("rb") as file:
        file_bytes = file.seek(0, 2)
        file.seek(_SIGNATURE_BYTES)
        for _ in range(_MOST_CHUNKS):
            head = file.read(8)
            if len(head) < 8:
                break
            length, name = struct.unpack(">I4s", head)
            if name == b"IEND":
                chunks.ends = True
                break
            if name == b"IDAT":
                chunks.pixel_bytes += min(length, file_bytes - file.tell())
            _read_chunk(path, file, length, name, chunks)
        else:
            raise InputError(f"{path} is damaged: it has more than {_MOST_CHUNKS:,} chunks; get a whole copy")
    if b"IHDR" not in chunks.found:
        raise InputError(f"{path} is damaged: it has no IHDR chunk; get a whole copy")
    return chunks


def _read_chunk(path: Path, file: BinaryIO, length: int, name: bytes, chunks: PngChunks) -> None:
    """Read a chunk whose data begin at the position of `file`, or skip it; leave the position behind it."""
    if name == b"CgBI":
        raise InputError(
            f"{path} is a PNG of Apple's own kind (CgBI, from an iOS app), which is not read: "
            "open it on a Mac and save it again"
        )
    begin = file.tell()
    is_wanted = (name in (*_NEEDED, *_KEPT) and name not in chunks.found) or name in _TEXTS
    if name in _TEXTS and not file.read(min(length, 80)).startswith((_XMP, _RAW_XMP, *_RAW_EXIF)):
        is_wanted = False
    if is_wanted:
        file.seek(begin)
        _keep(path, name, _checked_data(file, length, name), chunks)
    file.seek(begin + length + 4)


def _checked_data(file: BinaryIO, length: int, name: bytes) -> bytes | None:
    """Return a chunk's data, or None where they are cut off, changed, or larger than any that make sense."""
    if length > _MOST_BYTES:
        return None
    data, crc = file.read(length), file.read(4)
    return data if len(crc) == 4 and int.from_bytes(crc, "big") == zlib.crc32(name + data) else None


def _keep(path: Path, name: bytes, data: bytes | None, chunks: PngChunks) -> None:
    """Keep what a chunk says; raise InputError where it is damaged and the pixels mean nothing without."""
    if data is not None and name == b"IHDR" and len(data) != 13:
        data = None
    if data is None and name in _NEEDED:
        raise InputError(f"{path} is damaged: its {name.decode()} chunk was cut or changed; get a whole copy")
    is_read = data is not None and (_keep_text(name, data, chunks) if name in _TEXTS else True)
    if not is_read:
        chunks.notices.append(f"the {name.decode()} chunk is damaged and was left out")
    elif data is not None and name not in _TEXTS:
        chunks.found[name] = data
        if name == b"eXIf":
            chunks.exif = data.removeprefix(_EXIF_MARK) or None


def _keep_text(name: bytes, data: bytes, chunks: PngChunks) -> bool:
    """Keep EXIF or XMP of a text chunk, unless there is some; return False where it is damaged."""
    keyword, text = _text(name, data)
    if text is not None and keyword != _XMP:
        text = _raw_profile(text)
    if text is None:
        return False
    if keyword in (_XMP, _RAW_XMP) or text.startswith(_XMP_MARK):
        chunks.xmp = chunks.xmp or text.removeprefix(_XMP_MARK)
    elif keyword in _RAW_EXIF:
        chunks.exif = chunks.exif or text.removeprefix(_EXIF_MARK) or None
    return True


def _text(name: bytes, data: bytes) -> tuple[bytes, bytes | None]:
    """Return keyword and text of a text chunk; None as text where it is damaged. Source: 11.3.3."""
    keyword, _, rest = data.partition(b"\0")
    if name == b"tEXt":
        return keyword, rest
    if name == b"zTXt":
        return keyword, inflated(rest[1:])
    is_compressed = rest[:1] == b"\1"
    text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return keyword, inflated(text) if is_compressed else text


def _raw_profile(text: bytes) -> bytes | None:
    """Return the bytes that a text of a name, their number, and hexadecimal digits stands for; None where damaged."""
    words = text.split(maxsplit=2)
    if len(words) < 3 or not words[1].isdigit() or len(words[1]) > 9:
        return None
    try:
        data = bytes.fromhex(words[2].decode("ascii"))
    except ValueError:
        return None
    return data if len(data) == int(words[1]) else None


def inflated(data: bytes) -> bytes | None:
    """Return decompressed data; None where they are damaged, or too large to make sense."""
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(data, _MOST_BYTES)
    except zlib.error:
        return None
    return result if stream.eof else None
