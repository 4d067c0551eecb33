"""Names what a file is that holds no image that is read, by its first bytes; for messages only."""

_BY_SIGNATURE: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"II\xbc", "JPEG XR"),
    (0, b"8BPS\0\1", "a Photoshop document (PSD)"),
    (0, b"8BPS\0\2", "a large Photoshop document (PSB)"),
    (0, b"gimp xcf", "a GIMP document (XCF)"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript (EPS)"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"v/1\1", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"qoif", "QOI"),
    (0, b"FLIF", "FLIF"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"DDS ", "a DirectDraw surface (DDS)"),
    (0, b"\xabKTX ", "a KTX texture"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    *((0, start + bytes(5), "TGA") for start in (b"\0\0\2", b"\0\0\3", b"\0\0\x0a", b"\0\0\x0b")),
    (0, b"\0\1\1\0\0", "TGA"),
    (0, b"\0\1\x09\0\0", "TGA"),
    (0, b"\0\0\2\0", "a cursor (CUR)"),
    (0, b"icns", "a macOS icon (ICNS)"),
    (0, b"farbfeld", "farbfeld"),
    (0, b"\x01\xda\0", "SGI RGB"),
    (0, b"\x01\xda\1", "SGI RGB"),
    (0, b"\x59\xa6\x6a\x95", "Sun raster"),
    (0, b"\n\5\1\x08", "PCX"),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile (WMF)"),
    (40, b" EMF", "a Windows metafile (EMF)"),
    (14, b"BM", "an array of OS/2 bitmaps"),
    (8, b"ILBM", "IFF ILBM"),
    (0, b"SDPX", "DPX"),
    (0, b"XPDS", "DPX"),
    (0, b"SIMPLE  =", "FITS"),
    (128, b"DICM", "DICOM"),
    (0, b"/* XPM */", "XPM"),
    (0, b"\x8aMNG\r\n\x1a\n", "MNG"),
    (0, b"\x8bJNG\r\n\x1a\n", "JNG"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (8, b"AVI ", "a video (AVI)"),
    (8, b"WAVE", "sound (WAV)"),
    (0, b"FLV\1", "a video (FLV)"),
    (0, b"OggS", "Ogg"),
    (0, b"\0\0\1\xba", "a video (MPEG)"),
    (0, b"\0\0\1\xb3", "a video (MPEG)"),
    (0, b"ID3", "sound (MP3)"),
    (0, b"PK\3\4", "an archive (ZIP): unpack it first"),
    (0, b"\x1f\x8b", "compressed (gzip): unpack it first"),
    (0, b"BZh", "compressed (bzip2): unpack it first"),
    (0, b"\xfd7zXZ\0", "compressed (xz): unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed (Zstandard): unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "an archive (7z): unpack it first"),
    (0, b"Rar!\x1a\7", "an archive (RAR): unpack it first"),
    (257, b"ustar", "an archive (tar): unpack it first"),
    (0, b"\0\5\x16\7", "what macOS keeps beside a file (AppleDouble): enlarge the file without ._ before its name"),
    (0, b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS: `git lfs pull` fetches the file"),
    (0, b"/annex/objects/", "a pointer of git-annex: `git annex get` fetches the file"),
)
"""Offset, bytes there, and name. Sources: each format's specification; the list of file(1) for those without one."""

_RAW_SIGNATURES: tuple[tuple[int, bytes], ...] = (
    (4, b"ftypcrx "),  # CR3
    (8, b"CR\2"),  # CR2, a TIFF
    (6, b"HEAPCCDR"),  # CRW
    (0, b"FUJIFILMCCD-RAW"),  # RAF
    (0, b"IIRO"),  # ORF
    (0, b"IIRS"),
    (0, b"MMOR"),
    (0, b"IIU\0"),  # RW2
    (0, b"FOVb"),  # X3F
    (0, b"\0MRM"),  # MRW
)
"""Offset and bytes of cameras' raw files that more than the name tells from TIFF."""

_RAW = "a camera's raw file: develop it to TIFF or JPEG first"

_VIDEO_BRANDS = (b"qt  ", b"iso", b"mp4", b"avc", b"M4V", b"M4A", b"3gp", b"3g2", b"dash", b"MSNV", b"f4v")
_HEIF_BRANDS = (b"mif", b"msf", b"jpeg", b"j2k", b"vvi", b"evb", b"avci", b"avcs", b"miaf", b"unif")

_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<meta", b"<title")


def name_of(head: bytes) -> str | None:
    """Return what a file is that begins with `head`, such as "JPEG XL", with advice after a colon; None if not known.

    The more of the file is in `head`, the more kinds are known: 1024 bytes do for all.
    """
    if is_camera_raw(head):
        return _RAW
    for offset, signature, name in _BY_SIGNATURE:
        if head.startswith(signature, offset):
            return name
    if head[4:8] == b"ftyp":
        return _name_by_brand(head[8:12])
    return _name_of_text(head)


def is_camera_raw(head: bytes) -> bool:
    """Return whether `head` begins a camera's raw file; those that only TIFF tags tell from TIFF are not known."""
    return any(head.startswith(signature, offset) for offset, signature in _RAW_SIGNATURES)


def is_text(head: bytes) -> bool:
    """Return whether bytes are text in UTF-8 or ASCII; a character that is cut off at the end does not matter."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if not head or error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(char.isprintable() or char in "\n\r\t\f\ufeff" for char in text)


def _name_by_brand(brand: bytes) -> str:
    """Return the name of an ISO media file of this major brand. Source: ISO/IEC 14496-12, 4.3; mp4ra.org."""
    if brand.startswith(_HEIF_BRANDS):
        return "HEIF with images in neither HEVC nor AV1"
    if brand.startswith(_VIDEO_BRANDS):
        return "a video (MP4 or QuickTime)"
    return f"a media file of the brand {brand.decode('ascii', 'replace')!r}"


def _name_of_text(head: bytes) -> str | None:
    """Return the name of a file in a language of marks; None for any other, text as well."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in start and start.startswith((b"<svg", b"<?xml", b"<!")):
        return "a drawing (SVG)"
    if start.startswith(_HTML) or (start.startswith((b"<!--", b"<?xml")) and any(mark in start for mark in _HTML)):
        return "a web page (HTML): download the image itself"
    return "XML" if start.startswith(b"<?xml") else None
