"""Recognises image descriptions that programs write about the structure of their file, and read back.

They state sizes, planes and pages. In a file of another size and of one page they are false, and their programs fail on
it.

Source of the forms: tifffile's documentation of its flavours; the programs' own files.
"""

import re

_BEGINNINGS = (
    b"ImageJ=",
    b"SCANIMAGE",
    b"state.configPath",  # ScanImage 3
    b"shape=",  # tifffile before 2018
    b"Aperio ",
    b"MetaMorph",
    b"[Acquisition Parameters]",  # Olympus FluoView
)
_CONTENTS = (
    b"<OME ",
    b"<OME>",
    b":OME ",
    b"www.openmicroscopy.org/Schemas/OME",
    b"scanimage.SI",
    b"SI.VERSION_",
    b"Aperio Image Library",
    b"www.leica-microsystems.com/scn",
    b"www.vips.ecs.soton.ac.uk",
    b"PerkinElmer-QPI-ImageDescription",
    b"DPUfsImport",  # Philips
    b"<MetaData><prop",
    b"<PlaneInfo>",
    b"<iScan",
    b'"Micro-Manager',
    b"<ImageFormat>",
)
_SHAPED = re.compile(rb"""\s*\{\s*["']shape["']\s*:""")
_NUMBER = re.compile(rb"[0-9]++")
_SEARCHED_BYTES = 2**20


def describes_structure(description: bytes, size_px: tuple[int, int]) -> bool:
    """Return whether a description is about the structure of a file of an image of `size_px`, width and height.

    Known forms are; so is any XML or JSON that states both width and height.
    """
    text = description.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(_BEGINNINGS) or _SHAPED.match(text) or any(part in text for part in _CONTENTS):
        return True
    if not text.startswith((b"<", b"{", b"[")):
        return False
    stated = {match[0] for match in _NUMBER.finditer(text, 0, _SEARCHED_BYTES)}
    return all(str(pixels).encode() in stated for pixels in size_px)
