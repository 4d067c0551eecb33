"""Makes small, whole image files of every format that is read, by Pillow, tifffile, pillow-heif and libvips."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

HEIGHT_PX, WIDTH_PX = 20, 24
"""Multiples of 4 and small: what counts is the number of files."""


def photo(height: int = HEIGHT_PX, width: int = WIDTH_PX, channels: int = 3) -> NDArray[np.uint8]:
    """Return (H, W, C) uint8: soft shapes in colour, with a little noise."""
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / (7 + 3 * c) + c) + np.cos(y / (5 + 2 * c)) for c in range(channels)]
    noise = np.random.default_rng(0).normal(0, 3, (height, width, channels))
    return np.clip(128 + 50 * np.stack(waves, axis=2) + noise, 0, 255).astype(np.uint8)


def whole_files() -> dict[str, bytes]:
    """Return name with suffix -> content of about sixty files."""
    return {name: data for make in (_jpegs, _pngs, _tiffs, _webps, _avifs_and_heics, _others) for name, data in make()}


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as Pillow writes it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _image(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(photo()).convert(mode)


def _with_alpha() -> Image.Image:
    image = _image("RGBA")
    image.putalpha(Image.fromarray(photo(channels=1)[:, :, 0]))
    return image


def _exif(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x011A] = "Maker", orientation, 300.0
    exif.get_ifd(0x8769)[0x9003] = "2021:05:04 10:11:12"
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def _icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


_XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" tiff:ImageWidth="24"/></rdf:RDF>
</x:xmpmeta>"""


def _jpegs() -> Iterator[tuple[str, bytes]]:
    image = _image()
    yield "plain.jpg", saved(image, "JPEG", quality=80)
    yield "fine.jpg", saved(image, "JPEG", quality=97, subsampling=0, optimize=True)
    yield "progressive.jpg", saved(image, "JPEG", quality=85, progressive=True)
    yield "grey.jpg", saved(_image("L"), "JPEG")
    yield "cmyk.jpg", saved(_image("CMYK"), "JPEG")
    yield "restarts.jpg", saved(image, "JPEG", restart_marker_blocks=1)
    yield "metadata.jpg", saved(image, "JPEG", exif=_exif(6), icc_profile=_icc(), xmp=_XMP, dpi=(300, 300))


def _pngs() -> Iterator[tuple[str, bytes]]:
    vips = pyvips.Image.new_from_array(photo())
    deep = pyvips.Image.new_from_array(photo().astype(np.uint16) * 257)
    yield "plain.png", saved(_image(), "PNG")
    yield "alpha.png", saved(_with_alpha(), "PNG")
    yield "palette.png", saved(_image("P"), "PNG", transparency=3)
    yield "bits.png", saved(_image("1"), "PNG")
    yield "grey-alpha.png", saved(_with_alpha().convert("LA"), "PNG")
    yield "metadata.png", saved(_image(), "PNG", exif=_exif(3), icc_profile=_icc(), dpi=(72, 72))
    yield "interlaced.png", bytes(vips.write_to_buffer(".png", interlace=True))
    yield "deep.png", bytes(deep.copy(interpretation="rgb16").write_to_buffer(".png"))


def _tiffs() -> Iterator[tuple[str, bytes]]:
    for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        yield f"{kind}.tif", saved(_image(), "TIFF", compression=kind)
    yield "bits.tif", saved(_image("1"), "TIFF", compression="group4")
    yield "palette.tif", saved(_image("P"), "TIFF")
    yield "cmyk.tif", saved(_image("CMYK"), "TIFF")
    yield "lab.tif", saved(_image("LAB"), "TIFF")
    yield "metadata.tif", saved(_image(), "TIFF", exif=Image.Exif(), icc_profile=_icc(), dpi=(300, 300))
    yield "pages.tif", saved(_image(), "TIFF", save_all=True, append_images=[_image("L")])
    deep = photo().astype(np.uint16) * 257
    yield "deep.tif", _tifffile(deep, photometric="rgb", predictor=True, compression="zlib")
    yield "tiles.tif", _tifffile(photo(), photometric="rgb", tile=(16, 16))
    yield "planes.tif", _tifffile(photo().transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    yield "big.tif", _tifffile(photo(), photometric="rgb", bigtiff=True)
    yield "motorola.tif", _tifffile(photo(channels=1)[:, :, 0], byteorder=">", photometric="miniswhite")
    yield "alpha.tif", _tifffile(photo(channels=4), photometric="rgb", extrasamples=["unassalpha"])
    yield "float.tif", _tifffile((photo() / 255).astype(np.float32), photometric="rgb")


def _tifffile(array: NDArray[Any], byteorder: Any = "<", bigtiff: bool = False, **options: Any) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, byteorder=byteorder, bigtiff=bigtiff) as writer:
        writer.write(array, **options)
    return file.getvalue()


def _webps() -> Iterator[tuple[str, bytes]]:
    yield "lossy.webp", saved(_image(), "WEBP", quality=80)
    yield "lossless.webp", saved(_image(), "WEBP", lossless=True)
    yield "alpha.webp", saved(_with_alpha(), "WEBP")
    yield "animated.webp", saved(_image(), "WEBP", save_all=True, append_images=[_image().rotate(180)])
    yield "metadata.webp", saved(_image(), "WEBP", exif=_exif(8), icc_profile=_icc(), xmp=_XMP)


def _avifs_and_heics() -> Iterator[tuple[str, bytes]]:
    yield "plain.avif", saved(_image(), "AVIF")
    yield "alpha.avif", saved(_with_alpha(), "AVIF")
    yield "metadata.avif", saved(_image(), "AVIF", exif=_exif(6), icc_profile=_icc())
    try:
        import pillow_heif
    except ModuleNotFoundError:
        return
    pillow_heif.register_heif_opener()
    large = Image.fromarray(photo(64, 64))  # the smallest that encoders of HEIC take
    yield "plain.heic", saved(large, "HEIF", quality=80)
    yield "alpha.heic", saved(large.convert("RGBA"), "HEIF", quality=80)
    yield "metadata.heic", saved(large, "HEIF", exif=_exif(6), icc_profile=_icc())


def _others() -> Iterator[tuple[str, bytes]]:
    yield "plain.gif", saved(_image("P"), "GIF")
    yield "animated.gif", saved(_image("P"), "GIF", save_all=True, append_images=[_image("L")], transparency=2)
    for mode in ("RGB", "P", "1", "L"):
        yield f"{mode}.bmp", saved(_image(mode), "BMP")
    yield "alpha.bmp", saved(_with_alpha(), "BMP")
    yield "plain.ppm", saved(_image(), "PPM")
    yield "grey.pgm", saved(_image("L"), "PPM")
    yield "bits.pbm", saved(_image("1"), "PPM")
    yield "deep.ppm", f"P6 {WIDTH_PX} {HEIGHT_PX} 65535\n".encode() + photo().repeat(2, axis=2).tobytes()
    text = "\n".join(" ".join(str(value) for value in row) for row in photo().reshape(HEIGHT_PX, -1))
    yield "text.ppm", f"P3\n# a comment\n{WIDTH_PX} {HEIGHT_PX}\n255\n{text}\n".encode()
    head = f"P7\nWIDTH {WIDTH_PX}\nHEIGHT {HEIGHT_PX}\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    yield "alpha.pam", head.encode() + photo(channels=4).tobytes()


def read_again(path: str | Path) -> pyvips.Image:
    """Return an image file's pixels in memory, read from the disk even where a file of this name was read before.

    Raises:
        pyvips.Error: it cannot be read, or has lost rows.
    """
    return pyvips.Image.new_from_file(str(path), fail_on="error", revalidate=True).copy_memory()
