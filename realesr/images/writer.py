"""Writes bands of rows to a file that is complete or does not exist at all.

    write_rows -> RowSource -> libvips, in a thread: encodes -> temporary file -> renamed

The temporary file lies beside the target, so that renaming is one step. An exception anywhere leaves none of the two.
WebP and AVIF encoders keep the whole image in memory; the others a few rows.

Colour: the profile of `info` is written with the values as they are, but WebP and AVIF have no grey, so that grey with
a profile becomes sRGB there.
"""

import contextlib
import os
import secrets
import threading
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from realesr.errors import OutputError, UsageError
from realesr.images.depth import rounded_to_8_bit
from realesr.images.file_target import FileTarget
from realesr.images.info import ImageInfo, OutputFormat
from realesr.images.libvips import EncoderTurn, own_messages, own_settings, pyvips, vips_message
from realesr.images.metadata.chunks import exif_chunk, exif_segment, jfif_segment, xmp_chunk, xmp_segment
from realesr.images.metadata.exif import append_to_tiff, with_resolution, without_missing
from realesr.images.metadata.exif_in_avif import add_exif_to_avif
from realesr.images.metadata.exif_in_webp import add_exif_to_webp
from realesr.images.output_format import DEFAULT_QUALITY
from realesr.images.row_source import RowSource
from realesr.machine.held_file import HeldFile, remove_abandoned
from realesr.machine.leaving import native_call

_SAVERS = {
    "png": "pngsave_target",
    "jpeg": "jpegsave_target",
    "tiff": "tiffsave_target",
    "webp": "webpsave_target",
    "avif": "heifsave_target",
}
_KEEP_XMP, _KEEP_ICC = 2, 8  # libvips' VipsForeignKeep
_INSERTED_AT = {"png": 33, "jpeg": 2}
"""Bytes at the start of a file that nothing may come before: PNG's signature and IHDR, JPEG's SOI."""
_CLASSIC_TIFF_BYTES = 3_900_000_000
_PIXELS_PER_MM = 72 / 25.4
"""Resolution where the input states none: libvips always writes one to PNG and TIFF, and 72 dpi is the usual filler."""


def open_writer(path: Path, info: ImageInfo, fmt: OutputFormat, *, quality: int | None = None) -> "ImageWriter":
    """Open a writer for an image; an existing file is replaced when the new one is complete.

    Args:
        path: path of the file.
        info: facts of the output: its size, the depth of the rows, and the metadata to write.
        fmt: format of the file; see `output_format.output_format`.
        quality: 1 to 100 for JPEG (95 by default), WebP (90) and AVIF (80); WebP and AVIF are lossy at 100 too.

    Raises:
        UsageError: the quality is outside 1 to 100, or the format is PNG or TIFF, which are lossless.
    """
    if quality is not None and fmt not in DEFAULT_QUALITY:
        raise UsageError(f"got quality {quality} for {fmt.upper()}, which is lossless: leave it out", option="quality")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is outside 1 to 100", option="quality")
    info = replace(info, exif=_exif_to_write(info, fmt))
    return ImageWriter(path, info, fmt, _save_options(info, fmt, quality))


_PARTIAL_FILES = ".realesr-*.image.part"
_tidied_folders: set[Path] = set()
"""Folders from which this process has removed what killed ones have left."""


class ImageWriter:
    """A file that is being written. Use it in `with`: leaving the block without an exception completes the file."""

    def __init__(self, path: Path, info: ImageInfo, fmt: OutputFormat, options: dict[str, Any]) -> None:
        self._path, self._info, self._format, self._options = path, info, fmt, options
        self._partial = path.with_name(f".realesr-{secrets.token_hex(6)}.image.part")
        self._held: HeldFile | None = None
        self._encoded = info if fmt in ("png", "tiff") else replace(info, bits=8)
        self._turn = EncoderTurn()
        self._source = RowSource(self._encoded, self._turn.take)
        self._rows_written = 0
        self._error: Exception | None = None
        self._wanted = True  # not after an exception, not even one while waiting for the encoder
        self._thread = threading.Thread(target=self._encode, name="realesr-encode", daemon=True)

    def write_rows(self, rows: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
        """Append rows, waiting while the encoder is behind. The array may be changed afterwards.

        Args:
            rows: (rows, width, channels), uint8 or uint16 as `info.bits` says, full range.

        Raises:
            OutputError: the file cannot be written.
        """
        info = self._info
        expected = (info.width_px, info.channels)
        if rows.ndim != 3 or rows.shape[1:] != expected or rows.dtype.itemsize * 8 != info.bits:
            raise ValueError(f"got rows {rows.shape} {rows.dtype}, expected (rows, {expected}) of {info.bits} bit")
        if self._rows_written + len(rows) > info.height_px:
            raise ValueError(f"got row {self._rows_written + len(rows)} of an image of {info.height_px}")
        self._rows_written += len(rows)
        if not self._source.write(rows if self._encoded.bits == info.bits else rounded_to_8_bit(rows)):
            self._raise_error()

    def __enter__(self) -> Self:
        folder = self._partial.parent.absolute()
        if folder not in _tidied_folders:
            _tidied_folders.add(folder)
            remove_abandoned(folder, _PARTIAL_FILES)
        try:
            self._held = HeldFile(self._partial)
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written ({error.strerror}); nothing was left there") from error
        try:
            self._thread.start()
        except BaseException:  # a signal, after which `__exit__` is not called
            self._source.end()
            self._wanted = False
            self._remove_partial()
            self._held.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.end()
        self._wanted = error is None
        try:
            self._thread.join()
            if error is None:
                self._complete()
        finally:
            self._wanted = False
            self._remove_partial()
            if self._held is not None:
                self._held.release()

    def _complete(self) -> None:
        """Move the complete file into its place; raise OutputError where it cannot be completed."""
        if self._rows_written < self._info.height_px:
            raise ValueError(f"got {self._rows_written} rows of an image of {self._info.height_px}")
        if self._error is not None:
            self._raise_error()
        try:
            self._add_exif()
            with self._partial.open("r+b") as file:
                os.fsync(file.fileno())
            os.replace(self._partial, self._path)
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written ({error.strerror}); nothing was left there") from error
        except ValueError as error:
            raise OutputError(f"{self._path}: EXIF cannot be added ({error}); write without metadata") from error

    def _raise_error(self) -> None:
        """Raise the encoder's error as OutputError."""
        error = self._error
        reason = "the encoder stopped" if error is None else vips_message(error)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
        raise OutputError(f"{self._path} cannot be written ({reason}); nothing was left there") from error

    def _encode(self) -> None:
        """Encode all rows into the temporary file; runs in the encoder's thread."""
        try:
            with (
                native_call(),
                own_settings(),
                FileTarget(self._partial, **self._inserted(), before_failure=self._give_up) as target,
            ):
                try:
                    image = self._source.open()
                    with own_messages():  # pyvips clears libvips' messages whenever a method is looked up
                        image, keep = _with_metadata(image, self._info, self._format)
                        save = getattr(image, _SAVERS[self._format])
                    save(target.open(), keep=keep, **self._options)
                except pyvips.Error as error:
                    self._error = target.error or error
            self._error = self._error or target.error
        except Exception as error:  # raised again by the thread that writes
            self._error = error
        finally:
            self._turn.end()
            self._source.stop_reading()
            if not self._wanted:
                self._remove_partial()

    def _give_up(self) -> None:
        """End the rows, and let libvips fail while nobody reads; it might wait for rows otherwise."""
        self._source.end()
        self._turn.take()

    def _inserted(self) -> dict[str, Any]:
        """Return the metadata that go into the file while libvips writes it, and their place, for `FileTarget`."""
        info = self._info
        if self._format not in _INSERTED_AT:
            return {}
        if self._format == "jpeg":
            parts = [exif_segment(info.exif)] if info.exif else []
            resolution = info.pixels_per_mm
            if resolution and not (any(parts) and with_resolution(info.exif, resolution) == info.exif):
                parts.insert(0, jfif_segment(resolution))
            parts += [xmp_segment(info.xmp)] if info.xmp else []
        else:
            parts = [exif_chunk(info.exif)] if info.exif else []
            parts += [xmp_chunk(info.xmp)] if info.xmp else []
        return {"inserted": b"".join(parts), "at": _INSERTED_AT[self._format]}

    def _add_exif(self) -> None:
        """Add the EXIF block to a complete file of a format where that goes behind the image."""
        exif = self._info.exif
        if exif is None:
            return
        if self._format == "tiff":
            append_to_tiff(self._partial, exif)
        elif self._format == "webp":
            add_exif_to_webp(self._partial, exif, self._info.width_px, self._info.height_px)
        elif self._format == "avif":
            add_exif_to_avif(self._partial, exif)

    def _remove_partial(self) -> None:
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)


def _save_options(info: ImageInfo, fmt: OutputFormat, quality: int | None) -> dict[str, Any]:
    """Return the options of libvips' saver, chosen so that encoding stays far cheaper than the network.

    Measured on a photo of 31 MB raw, enlarged by Lanczos, in MB of rows a second of one core and as a share of the raw
    size: TIFF 50 and 0.52, JPEG 260 and 0.14, WebP 20 and 0.05, AVIF effort 1 with full chroma 4 and 0.05 (effort 4: 1
    and 0.03). On photos enlarged by x4plus and by animevideov3, PNG level 2 with the filter Average has 68 and 0.38, 93
    and 0.34; Paeth 54 and 0.39, 55 and 0.36; Up 69 and 0.39, 89 and 0.36; level 1 with Average 121 and 0.53.
    JPEG has full chroma from quality 90, half below, as libvips does it.
    """
    if fmt == "png":
        return {"compression": 2, "filter": "avg"}
    if fmt == "tiff":
        raw_bytes = info.width_px * info.height_px * info.channels * info.bits // 8
        return {
            "compression": "deflate",
            "level": 2,
            "predictor": "horizontal",
            "bigtiff": raw_bytes > _CLASSIC_TIFF_BYTES,
        }
    quality = DEFAULT_QUALITY[fmt] if quality is None else quality
    if fmt == "avif":
        return {"Q": quality, "compression": "av1", "bitdepth": 8, "effort": 1, "subsample_mode": "off"}
    return {"Q": quality}


def _with_metadata(image: Any, info: ImageInfo, fmt: OutputFormat) -> tuple[Any, int]:
    """Return the image with the metadata of its file, and libvips' flags of the parts that it shall write."""
    image = image.copy(xres=_PIXELS_PER_MM, yres=_PIXELS_PER_MM)
    keep = 0
    if info.icc is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", info.icc)
        keep |= _KEEP_ICC
        if info.is_grey and fmt in ("webp", "avif"):
            image = image.icc_transform("srgb", embedded=True, intent="relative", depth=8)
    if info.xmp is not None and fmt not in _INSERTED_AT:  # see `realesr.images.metadata.chunks`
        image.set_type(pyvips.GValue.blob_type, "xmp-data", info.xmp)
        keep |= _KEEP_XMP
    if info.pixels_per_mm is not None:
        across, down = info.pixels_per_mm
        image = image.copy(xres=across, yres=down)
        image.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
    return image, keep


def _exif_to_write(info: ImageInfo, fmt: OutputFormat) -> bytes | None:
    """Return the EXIF block for the file, from its TIFF header on; None where there is none, or a damaged one.

    WebP and AVIF have no other place for the resolution, and JPEG has none for one that is no whole number per inch.
    """
    exif = without_missing(info.exif) if info.exif else None  # damaged EXIF must not end a long job
    resolution = info.pixels_per_mm
    if resolution is None or fmt in ("png", "tiff") or (fmt == "jpeg" and jfif_segment(resolution)):
        return exif
    return with_resolution(exif, resolution)
