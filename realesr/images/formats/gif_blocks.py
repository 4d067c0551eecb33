"""Reads the colour tables and the metadata of a GIF file; never its pixels.

Source of the layout: GIF89a specification, 15 to 27. XMP: XMP specification, part 3, 1.1.2. Profile: ICC.1:2022, annex
B.6 of ICC.1:2004-10 (application extension "ICCRGBG1012").
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from realesr.images.formats.grey_palette import is_grey_table

_MOST_BLOCKS = 1_000_000
_MOST_BYTES = 1 << 25
_XMP_NAME, _ICC_NAME = b"XMP DataXMP", b"ICCRGBG1012"
_XMP_TRAILER = b"\1\xff\xfe\xfd"


@dataclass
class GifBlocks:
    """What the blocks of a file hold."""

    canvas_px: tuple[int, int] = (0, 0)
    """Width and height."""
    frame_is_grey: list[bool] = field(default_factory=list)
    """Whether the colour table of each frame has greys alone."""
    places: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Left, top, width and height of each frame on the canvas, in px."""
    icc: bytes | None = None
    xmp: bytes | None = None

    def has_grey_frames(self, page: int) -> bool:
        """Return whether frame `page`, and all frames that it is drawn over, are grey."""
        return len(self.frame_is_grey) > page and all(self.frame_is_grey[: page + 1])


def read_gif_blocks(path: Path) -> GifBlocks:
    """Read the blocks up to the file's end, or up to one that is damaged."""
    blocks = GifBlocks()
    with path.open("rb") as file:
        head = file.read(13)
        if len(head) < 13:
            return blocks
        blocks.canvas_px = struct.unpack("<HH", head[6:10])
        global_table = _colour_table(file, head[10:11])
        budget = [_MOST_BLOCKS]
        while budget[0] > 0 and (kind := file.read(1)) in (b"!", b","):
            if kind == b",":
                descriptor = file.read(9)
                local_table = _colour_table(file, descriptor[8:9])
                if len(descriptor) < 9:
                    break
                blocks.places.append(struct.unpack("<4H", descriptor[:8]))
                table = global_table if local_table is None else local_table
                blocks.frame_is_grey.append(table is not None and is_grey_table(table))
                file.read(1)  # code size of LZW
                _sub_blocks(file, budget)
            else:
                _read_extension(file, blocks, budget)
    return blocks


def _colour_table(file: BinaryIO, flags: bytes) -> bytes | None:
    """Return the table of R, G, B that follows where `flags` say that one does; else None."""
    if not flags or not flags[0] & 0x80:
        return None
    return file.read(3 << ((flags[0] & 7) + 1))


def _read_extension(file: BinaryIO, blocks: GifBlocks, budget: list[int]) -> None:
    """Read an extension whose label is next; keep a profile and XMP."""
    label = file.read(1)
    if label != b"\xff":
        _sub_blocks(file, budget)
        return
    name = file.read(int.from_bytes(file.read(1), "big"))
    if name == _ICC_NAME:
        blocks.icc = blocks.icc or _sub_blocks(file, budget)[0] or None
    elif name == _XMP_NAME:  # no sub-blocks: plain text, whose trailer leads every reader of sub-blocks to its end
        text = _sub_blocks(file, budget)[1].partition(_XMP_TRAILER)[0]
        blocks.xmp = blocks.xmp or text or None
    else:
        _sub_blocks(file, budget)


def _sub_blocks(file: BinaryIO, budget: list[int]) -> tuple[bytes, bytes]:
    """Read sub-blocks up to the empty one, and count them off `budget[0]`.

    Returns:
        Their data, and the same with the lengths between them, as the file has them; both end after 32 MB.
    """
    data, stored = bytearray(), bytearray()
    while (length := file.read(1)) not in (b"", b"\0") and budget[0] > 0:
        budget[0] -= 1
        part = file.read(length[0])
        if len(stored) < _MOST_BYTES:
            data += part
            stored += length + part
    return bytes(data), bytes(stored)
