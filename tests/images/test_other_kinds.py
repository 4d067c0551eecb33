"""Whole files that hold no image that is read are told as what they are, and never as damaged."""

import gzip
import io
import os
import socket
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from realesr.errors import InputError
from realesr.images.kinds import find_kind
from realesr.images.other_kinds import is_text


def pillow(name: str, mode: str = "RGB") -> bytes:
    """Return a file that Pillow writes."""
    stream = io.BytesIO()
    Image.new(mode, (32, 32), 100).save(stream, name)
    return stream.getvalue()


def box(name: bytes, data: bytes) -> bytes:
    return (8 + len(data)).to_bytes(4, "big") + name + data


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("photo.jpg", b"x" * 100)
    return stream.getvalue()


FILES: dict[str, tuple[bytes, str]] = {
    "jxl container": (b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl "), "is JPEG XL, which is not read"),
    "jxl": (b"\xff\x0a\x7f\x50\x01" + bytes(50), "is JPEG XL"),
    "jpeg 2000": (pillow("JPEG2000"), "is JPEG 2000"),
    "jpeg 2000 stream": (b"\xff\x4f\xff\x51" + bytes(60), "is JPEG 2000"),
    "psd": (b"8BPS\0\1" + bytes(30), r"is a Photoshop document \(PSD\)"),
    "psb": (b"8BPS\0\2" + bytes(30), r"is a large Photoshop document \(PSB\)"),
    "pdf": (pillow("PDF"), "is PDF"),
    "eps": (pillow("EPS"), "is PostScript"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9"></svg>', "is a drawing"),
    "svg behind a head": (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- made -->\n<svg></svg>', "is a drawing"),
    "ico": (pillow("ICO", "RGBA"), "is an icon"),
    "icns": (pillow("ICNS", "RGBA"), "is a macOS icon"),
    "tga": (pillow("TGA"), "is TGA"),
    "grey tga": (pillow("TGA", "L"), "is TGA"),
    "pcx": (pillow("PCX"), "is PCX"),
    "sgi": (pillow("SGI"), "is SGI"),
    "dds": (pillow("DDS"), "is a DirectDraw surface"),
    "mp4": (box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41") + bytes(60), "is a video"),
    "mov": (box(b"ftyp", b"qt  \0\0\2\0qt  ") + bytes(60), "is a video"),
    "cr3": (box(b"ftyp", b"crx \0\0\0\1crx isom") + bytes(60), "is a camera's raw file, which .* develop it"),
    "cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "is a camera's raw file"),
    "raf": (b"FUJIFILMCCD-RAW 0201" + bytes(60), "is a camera's raw file"),
    "heif of avc": (box(b"ftyp", b"avci\0\0\0\0mif1avci") + bytes(60), "is HEIF with images in neither"),
    "webm": (b"\x1aE\xdf\xa3" + bytes(60), "is a video"),
    "djvu": (b"AT&TFORM" + bytes(60), "is DjVu"),
    "exr": (b"v/1\1\2\0\0\0" + bytes(60), "is OpenEXR"),
    "hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n", "is Radiance HDR"),
    "qoi": (b"qoif\0\0\0\1" + bytes(60), "is QOI"),
    "flif": (b"FLIF\x31" + bytes(60), "is FLIF"),
    "xcf": (b"gimp xcf v011\0" + bytes(60), "is a GIMP document"),
    "zip": (zipped(), "is an archive .*: unpack it first"),
    "gzip": (gzip.compress(b"photo"), "is compressed .*: unpack it first"),
    "web page": (b"\n<!DOCTYPE html>\n<html><head><title>404", r"is a web page \(HTML\), .*download the image itself"),
    "web page in capitals": (b"<HTML><BODY>Moved</BODY>", r"is a web page \(HTML\)"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is XML"),
    "json": (b'{"error": "not found"}', """is not an image: it begins with '{"error": "not f'"""),
    "text": ("naïve\nwords".encode(), r"is not an image: it begins with 'naïve\\nwords'"),
    "text that begins like BMP": (b"BMW, the car, has a photo", "is not an image: it begins with 'BMW, the car, ha'"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a pointer of Git LFS"),
    "zeros": (bytes(5000), "is not an image: it begins with the bytes 00 00"),
    "unknown": (b"\x93\x94\x95\x96" * 9, "is not an image: it begins with the bytes 93 94 95 96"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_told_by_name(name: str, tmp_path: Path) -> None:
    data, words = FILES[name]
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        find_kind(path)
    assert "damaged" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("JPEG", "jpeg"),
        ("PNG", "png"),
        ("TIFF", "tiff"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("AVIF", "avif"),
    ],
)
def test_images_that_are_read_keep_their_kinds(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(pillow(name))
    assert find_kind(tmp_path / "photo") == kind


def test_a_raw_file_that_is_a_tiff_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "photo.NEF").write_bytes(pillow("TIFF"))
    with pytest.raises(InputError, match="is a camera's raw file: develop it"):
        find_kind(tmp_path / "photo.NEF")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", False),
        (b"words\n", True),
        ("ä".encode()[:1], False),
        (b"a" * 9 + "ä".encode()[:1], True),
        (b"a\0b", False),
    ],
)
def test_text_is_told_from_other_bytes_even_where_a_character_is_cut(head: bytes, expected: bool) -> None:
    assert is_text(head) is expected


@pytest.mark.skipif(sys.platform == "win32", reason="no such files")
def test_what_is_no_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dead.jpg").symlink_to("gone.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path may have 108 bytes
        try:
            listener.bind("socket.jpg")
        finally:
            os.chdir(here)
    expected = {
        tmp_path / "pipe.jpg": "is a pipe: expected an image file",
        tmp_path / "socket.jpg": "is a socket",
        Path("/dev/zero"): "is a device",
        tmp_path / "dead.jpg": "is a link to gone.jpg, which does not exist",
        tmp_path / "loop.jpg": "cannot be read: ",
        tmp_path / "missing.jpg": "does not exist",
        tmp_path: "is a folder",
        tmp_path / ("x" * 300): "cannot be read: File name too long",
        tmp_path / "null\0.jpg": "cannot be read: embedded null",
    }
    for path, words in expected.items():
        with pytest.raises(InputError, match=words):
            find_kind(path)
