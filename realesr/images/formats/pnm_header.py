"""Reads the headers of PBM, PGM, PPM and PAM files.

Source of the layouts: netpbm's pbm(5), pgm(5), ppm(5) and pam(5).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from realesr.errors import InputError

_MOST_HEADER_BYTES = 1 << 20
_MOST_DIGITS = 10
_WHITESPACE = b" \t\n\v\f\r"
_CHANNELS = {b"BLACKANDWHITE": 1, b"GRAYSCALE": 1, b"RGB": 3}
_CHANNELS |= {kind + b"_ALPHA": channels + 1 for kind, channels in _CHANNELS.items()}


@dataclass(frozen=True, kw_only=True)
class PnmHeader:
    """Facts about the first image of a file."""

    width_px: int
    height_px: int
    channels: int
    """1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)."""
    largest: int
    """Value of white, 1 to 65535."""
    offset: int
    """Position of the first value in the file."""
    is_text: bool
    """Whether values are decimal numbers, not bytes."""
    is_bitmap: bool
    """Whether it is PBM: one bit for each pixel, 1 is black."""

    @property
    def values(self) -> int:
        """Return the number of values."""
        return self.width_px * self.height_px * self.channels

    @property
    def sample_bytes(self) -> int:
        """Return the bytes of one value that is not text."""
        return 1 if self.largest <= 255 else 2

    @property
    def bits(self) -> Literal[8, 16]:
        """Return the depth that holds all values."""
        return 8 if self.largest <= 255 else 16


def read_pnm_header(path: Path, file: BinaryIO) -> PnmHeader:
    """Read the header at the beginning of an open file.

    Raises:
        InputError: damaged, a PFM file, or a PAM file of a tuple type that is no image.
    """
    head = file.read(_MOST_HEADER_BYTES)
    magic = head[:2]
    if magic in (b"PF", b"Pf"):
        raise InputError(f"{path} is a PFM file (floating point), which is not read: convert it to TIFF or PNG")
    header = _read_pam(path, head) if magic == b"P7" else _read_numbers(path, head)
    if not header.width_px or not header.height_px or not 1 <= header.largest <= 65535:
        raise InputError(
            f"{path} is damaged: it states {header.width_px} x {header.height_px} px of values up to "
            f"{header.largest}, expected at least 1 x 1 px of values up to 1 to 65535; get a whole copy"
        )
    return header


def _read_numbers(path: Path, head: bytes) -> PnmHeader:
    """Read the header of P1 to P6: width, height and, but for PBM, the largest value."""
    is_bitmap = head[1:2] in (b"1", b"4")
    at, numbers = 2, []
    for name in ("width", "height") if is_bitmap else ("width", "height", "largest value"):
        word, at = _next_word(head, at)
        numbers.append(_number(path, name, word))
    return PnmHeader(
        width_px=numbers[0],
        height_px=numbers[1],
        channels=3 if head[1:2] in (b"3", b"6") else 1,
        largest=1 if is_bitmap else numbers[2],
        offset=at,
        is_text=head[1:2] in (b"1", b"2", b"3"),
        is_bitmap=is_bitmap,
    )


def _next_word(head: bytes, at: int) -> tuple[bytes, int]:
    """Return the next word of a header and the position behind the one whitespace character that ends it.

    A comment, from "#" to the end of its line, counts as that end of line, wherever it stands.
    """
    word = bytearray()
    while at < len(head):
        byte = head[at]
        if byte == ord("#"):
            ends = [end for end in (head.find(b"\n", at), head.find(b"\r", at)) if end >= 0]
            at = min(ends, default=len(head) - 1)
            byte = ord("\n")
        at += 1
        if byte not in _WHITESPACE:
            word.append(byte)
        if len(word) > _MOST_DIGITS or (word and byte in _WHITESPACE):
            break
    return bytes(word), at


def _number(path: Path, name: str, word: bytes) -> int:
    """Return the number that a header's word is; raise InputError where it is none, or one of too many digits."""
    if not word.isdigit() or len(word) > _MOST_DIGITS:
        shown = word[:16].decode("ascii", "backslashreplace")
        raise InputError(f"{path} is damaged: its header has {shown!r} as {name}, expected a number; get a whole copy")
    return int(word)


def _read_pam(path: Path, head: bytes) -> PnmHeader:
    """Read the header of P7: lines of a name and a value up to ENDHDR; lines of one name without a value are empty."""
    if not head.startswith((b"P7\n", b"P7\r\n")):
        raise InputError(f"{path} is a thumbnail of XV (P7 without PAM's header), which is not read")
    found: dict[bytes, bytes] = {}
    at = head.index(b"\n") + 1
    while (end := head.find(b"\n", at)) >= 0:
        name, _, value = head[at:end].strip(_WHITESPACE).replace(b"\t", b" ").partition(b" ")
        at = end + 1
        if name == b"ENDHDR":
            return _pam_header(path, found, at)
        if name == b"TUPLTYPE" and name in found and len(found[name]) < 256:
            found[name] += b" " + value.strip()
        elif name and not name.startswith(b"#"):
            found[name] = value.strip()
        if len(found) > 100:
            break
    raise InputError(f"{path} is damaged: its PAM header has no ENDHDR; get a whole copy")


def _pam_header(path: Path, found: dict[bytes, bytes], offset: int) -> PnmHeader:
    """Return the facts of a PAM header's lines; raise InputError where the tuples are no pixels that are known."""
    names = (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL")
    width, height, depth, largest = (_number(path, name.decode(), found.get(name, b"")) for name in names)
    kind = found.get(b"TUPLTYPE", b"")
    if _CHANNELS.get(kind) != depth:
        shown = kind[:40].decode("ascii", "backslashreplace")
        expected = ", ".join(f"{name.decode()} ({channels})" for name, channels in _CHANNELS.items())
        raise InputError(
            f"{path} is a PAM file of tuple type {shown!r} and depth {depth}, which is not read: expected {expected}"
        )
    return PnmHeader(
        width_px=width,
        height_px=height,
        channels=depth,
        largest=largest,
        offset=offset,
        is_text=False,
        is_bitmap=False,
    )
