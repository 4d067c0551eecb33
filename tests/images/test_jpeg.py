"""JPEG files as they are: whole ones with odd bytes, damaged ones, and the metadata in their segments."""

import io
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image, ImageOps

from realesr.errors import InputError
from realesr.images.reader import open_image

from .image_files import XMP, exif_block, libvips_profile

END = b"\xff\xd9"


def picture(height: int = 160, width: int = 200) -> NDArray[np.uint8]:
    """Return a picture with detail in every block, so that lost data change pixels."""
    noise = np.random.default_rng(0).integers(-20, 20, (height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([128 + 80 * np.sin(x / 9 + y / 31), y * 255 / height, 128 + 80 * np.cos((x - y) / 17)], 2)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8] | None = None, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture() if pixels is None else pixels).convert(mode).save(file, "JPEG", quality=85, **options)
    return file.getvalue()


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def find(data: bytes, marker: int) -> int:
    """Return the offset of the first segment of a kind."""
    at = 2
    while data[at + 1] != marker:
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return at


def scan_start(data: bytes) -> int:
    at = find(data, 0xDA)
    return at + 2 + int(struct.unpack_from(">H", data, at + 2)[0])


def read(data: bytes, folder: Path, **options: Any) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    (folder / "a.jpg").write_bytes(data)
    with open_image(folder / "a.jpg", **options) as reader:
        bands = []
        while len(rows := reader.read_rows(24)):
            bands.append(rows)
        return np.concatenate(bands), reader.notices


def by_pillow(data: bytes) -> NDArray[np.generic]:
    return np.atleast_3d(np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def is_near(pixels: NDArray[np.generic], expected: NDArray[np.generic]) -> bool:
    return pixels.shape == expected.shape and int(np.abs(pixels.astype(int) - expected).max()) <= 2


def with_height_after_scan(data: bytes) -> bytes:
    at = find(data, 0xC0) + 5
    return data[:at] + b"\0\0" + data[at + 2 : -2] + segment(0xDC, data[at : at + 2]) + END


def with_parameters(data: bytes) -> bytes:
    at = scan_start(data)
    return data[: at - 3] + b"\0\0\0" + data[at:]


def with_jfif_version(data: bytes) -> bytes:
    return data.replace(b"JFIF\0\1\1", b"JFIF\0\2\7")


def between_segments(data: bytes) -> bytes:
    at = find(data, 0xDB)
    return data[:at] + b"\0\1\2\xff\0abc" + data[at:]


def before_markers(data: bytes) -> bytes:
    at = find(data, 0xDB)
    return data[:at] + b"\xff" * 9 + data[at:-2] + b"\xff" * 30 + END


WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "fill bytes before markers": before_markers,
    "a byte before the end marker": lambda d: d[:-2] + b"\x17" + END,
    "zeros before the end marker": lambda d: d[:-2] + bytes(700) + END,
    "a restart marker before the end marker": lambda d: d[:-2] + b"\xff\xd3" + END,
    "zeros after the end marker": lambda d: d + bytes(5000),
    "a second image after the end marker": lambda d: d + jpeg(picture(64, 64)),
    "a video after the end marker": lambda d: d + b"\0\0\0\x18ftypmp42" + np.random.default_rng(1).bytes(9000),
    "bytes between segments": between_segments,
    "the first marker twice": lambda d: b"\xff\xd8" + d,
    "a JFIF version of later": with_jfif_version,
    "large application segments": lambda d: d[:2] + segment(0xE7, b"\xff\xd9" * 32_000) * 20 + d[2:],
    "a thumbnail in an application segment": lambda d: d[:2] + segment(0xE1, jpeg(picture(16, 16))) + d[2:],
    "an unknown segment": lambda d: d[:2] + segment(0xF2, b"abc\xff\xda") + d[2:],
}


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_with_odd_bytes_are_read(name: str, progressive: bool, tmp_path: Path) -> None:
    plain = jpeg(progressive=progressive)
    pixels, notices = read(WHOLE[name](plain), tmp_path)
    assert is_near(pixels, by_pillow(plain))
    assert notices == ()


@pytest.mark.parametrize("change", [with_parameters, with_height_after_scan])
def test_scan_parameters_and_the_height_may_be_unusual(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    plain = jpeg()
    pixels, notices = read(change(plain), tmp_path)
    assert is_near(pixels, by_pillow(plain))
    assert notices == ()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("tail", [b"", bytes(4096), b"\xff"])
def test_a_missing_end_marker_is_a_notice(tail: bytes, progressive: bool, tmp_path: Path) -> None:
    plain = jpeg(progressive=progressive)
    pixels, notices = read(plain[:-2] + tail, tmp_path)
    assert is_near(pixels, by_pillow(plain))
    assert notices == ("the end marker of the JPEG file is missing",)


def test_files_of_every_setting_are_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(60):
        height, width = int(random.integers(1, 68)), int(random.integers(1, 46))
        pixels = picture()[:height, :width].copy()
        if index % 3 == 0:
            pixels[height // 4 :] = 255
        options: dict[str, Any] = {"progressive": bool(index % 2), "optimize": bool(index % 5)}
        options["restart_marker_blocks"] = (0, 0, 1, 3)[index % 4]
        data = jpeg(pixels, ("RGB", "L", "RGB", "RGB")[index % 4], subsampling=index % 3, **options)
        assert is_near(read(data, tmp_path)[0], by_pillow(data)), options


def test_flat_pictures_whose_data_are_zeros_are_whole(tmp_path: Path) -> None:
    for mode in ("L", "RGB"):
        for value in (0, 128, 255):
            data = jpeg(np.full((512, 640, 3), value, np.uint8), mode, optimize=True)
            assert (read(data, tmp_path)[0] == by_pillow(data)).all()
            assert read(data[:-2], tmp_path)[0].shape[0] == 512


def damages(data: bytes) -> dict[str, bytes]:
    """Return damaged copies of a file, by what happened to them."""
    start, size = scan_start(data), len(data)
    middle = (start + size) // 2
    noise = np.random.default_rng(3).bytes(4096)
    return {
        "cut": data[:middle],
        "cut, end marker": data[:middle] + END,
        "cut early, end marker": data[: start + (size - start) // 10] + END,
        "cut late, end marker": data[:-40] + END,
        "end zeroed": data[:middle] + bytes(size - middle),
        "end zeroed, end marker": data[:middle] + bytes(size - middle - 2) + END,
        "512 zeros": data[:middle] + bytes(512) + data[middle + 512 :],
        "512 of noise": data[:middle] + noise[:512] + data[middle + 512 :],
        "4096 of noise": data[:middle] + noise + data[middle + 4096 :],
        "512 of 0xFF": data[:middle] + b"\xff" * 512 + data[middle + 512 :],
        "512 lost": data[:middle] + data[middle + 512 :],
        "1000 twice": data[:middle] + data[middle - 1000 :],
    }


KINDS = tuple(damages(jpeg()))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"subsampling": 2}),
        ("RGB", {"subsampling": 0}),
        ("RGB", {"subsampling": 2, "restart_marker_rows": 1}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
def test_rows_that_a_damaged_file_has_lost_are_never_made_up_in_silence(
    mode: str, options: dict[str, Any], progressive: bool, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, data in damages(jpeg(mode=mode, progressive=progressive, exif=exif, **options)).items():
        with pytest.raises(InputError, match=r"truncated|damaged") as caught:
            pytest.fail(f"{name}: {read(data, tmp_path)[1]}")
        assert "\n" not in str(caught.value)
        assert caught.value.option == "allow_damaged"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_a_damaged_file_is_read_with_a_notice_where_that_is_allowed(
    kind: str, progressive: bool, tmp_path: Path
) -> None:
    pixels, notices = read(damages(jpeg(progressive=progressive))[kind], tmp_path, allow_damaged=True)
    assert pixels.shape == (160, 200, 3)
    assert any("what it has lost was made up" in notice for notice in notices)


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("end", [b"", END])
def test_the_error_names_the_first_row_that_was_made_up(subsampling: int, end: bytes, tmp_path: Path) -> None:
    whole = jpeg(subsampling=subsampling)
    expected = by_pillow(whole)
    for share in (0.2, 0.5, 0.9):
        cut = whole[: int(len(whole) * share)] + end
        with pytest.raises(InputError, match=r"truncated after row \d+ of 160") as caught:
            read(cut, tmp_path)
        row = int(str(caught.value).split("after row ")[1].split()[0])
        pixels, notices = read(cut, tmp_path, allow_damaged=True)
        wrong = np.flatnonzero((np.abs(pixels.astype(int) - expected) > 2).any((1, 2)))[0]
        assert wrong - 16 <= row <= wrong
        assert any(f"truncated after row {row} of 160" in notice for notice in notices)


def test_the_error_names_the_scan_of_a_progressive_file(tmp_path: Path) -> None:
    whole = jpeg(progressive=True)
    starts = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    with pytest.raises(InputError, match=r"in scan 3 of 3 \(premature"):
        read(whole[: starts[2] + 100] + END, tmp_path)
    tables = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xc4" and at < starts[9]]
    with pytest.raises(InputError, match=r"after scan 9 \(scans are missing"):
        read(whole[: tables[-1]] + END, tmp_path)


def test_a_cut_within_the_header_never_reads_a_thumbnail(tmp_path: Path) -> None:
    thumbnail = jpeg(picture(48, 48))
    data = jpeg()
    data = data[:2] + segment(0xE1, b"Exif\0\0" + thumbnail + bytes(9000)) + data[2:]
    for size in (3, 20, len(thumbnail) + 40, find(data, 0xC0) + 5, scan_start(data) - 2):
        with pytest.raises(InputError, match=r"ends before its first row|damaged"):
            read(data[:size], tmp_path, allow_damaged=True)


@pytest.mark.parametrize(("marker", "name"), [(0xC3, "lossless"), (0xC5, "hierarchical"), (0xF7, "JPEG-LS")])
def test_other_processes_are_named_and_not_called_damaged(marker: int, name: str, tmp_path: Path) -> None:
    data = bytearray(jpeg())
    data[find(bytes(data), 0xC0) + 1] = marker
    with pytest.raises(InputError, match=f"{name}.*, which is not read") as caught:
        read(bytes(data), tmp_path)
    assert "damaged" not in str(caught.value)


def test_12_bits_and_two_components_are_named(tmp_path: Path) -> None:
    data = bytearray(jpeg())
    data[find(bytes(data), 0xC0) + 4] = 12
    with pytest.raises(InputError, match="JPEG of 12 bits, of which only 8 are read"):
        read(bytes(data), tmp_path)
    frame = struct.pack(">BHHB", 8, 8, 8, 2) + bytes((1, 0x11, 0, 2, 0x11, 0))
    scan = segment(0xDA, bytes((2, 1, 0, 2, 0, 0, 63, 0)))
    with pytest.raises(InputError, match="2 components, expected 1, 3 or 4"):
        read(b"\xff\xd8" + segment(0xC0, frame) + scan + b"abc" + END, tmp_path)


def test_arithmetic_coding_is_read_and_its_damage_seen(tmp_path: Path) -> None:
    if shutil.which("jpegtran") is None:
        pytest.skip("jpegtran, which writes arithmetic coding, is not installed")
    pixels = picture()
    pixels[120:] = 255  # takes next to no data
    plain = jpeg(pixels)
    for more in ([], ["-progressive"]):
        command = ["jpegtran", "-arithmetic", *more]
        data = subprocess.run(command, input=plain, capture_output=True, check=True).stdout
        got, notices = read(data, tmp_path)
        assert is_near(got, by_pillow(plain))
        assert notices == ()
        for kind in ("cut", "cut, end marker", "cut early, end marker"):
            with pytest.raises(InputError, match="truncated"):
                read(damages(data)[kind], tmp_path)


def test_exif_xmp_and_profile_are_those_of_the_file(tmp_path: Path) -> None:
    exif, icc = exif_block(orientation=6), libvips_profile("p3") * 30
    chunks = [icc[i : i + 5000] for i in range(0, len(icc), 5000)]
    stored = [segment(0xE2, b"ICC_PROFILE\0" + bytes((i, len(chunks))) + c) for i, c in enumerate(chunks, 1)]
    segments = segment(0xE1, b"Exif\0\0" + exif) + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    from realesr.images.formats.jpeg_metadata import read_metadata
    from realesr.images.formats.jpeg_segments import read_layout

    def metadata(parts: list[bytes]) -> Any:
        data = jpeg()
        return read_metadata(read_layout(io.BytesIO(data[:2] + segments + b"".join(parts) + data[2:])).metadata)

    found = metadata(stored[::-1])
    assert (found.exif, found.xmp, found.icc, found.notices) == (exif, XMP, icc, ())
    found = metadata(stored[1:])
    assert found.icc is None
    assert found.notices == ("the colour profile in the file is incomplete and was dropped",)
    extended = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + b"\0\0\0\4\0\0\0\0<x/>")
    assert metadata([extended]).notices == ("the extended part of the XMP metadata was dropped",)


@pytest.mark.parametrize(
    ("unit", "density", "expected"),
    [(1, (254, 508), (10, 20)), (2, (100, 50), (10, 5)), (0, (3, 4), None), (1, (1, 1), None)],
)
def test_resolution_comes_from_jfif_where_exif_states_none(
    unit: int, density: tuple[int, int], expected: tuple[float, float] | None, tmp_path: Path
) -> None:
    data = jpeg()
    at = data.index(b"JFIF\0") + 7
    (tmp_path / "a.jpg").write_bytes(data[:at] + struct.pack(">BHH", unit, *density) + data[at + 5 :])
    with open_image(tmp_path / "a.jpg") as reader:
        found = reader.info.pixels_per_mm
    assert found == (pytest.approx(expected) if expected else None)


@pytest.mark.parametrize("transform", [None, 0, 2, 7])
def test_cmyk_is_converted_from_the_values_that_pillow_reads(transform: int | None, tmp_path: Path) -> None:
    data = jpeg(mode="CMYK")
    at = data.index(b"Adobe") + 11
    assert data[at] == 2 or data[at] == 0
    if transform is not None:
        data = data[:at] + bytes((transform,)) + data[at + 1 :]
    with Image.open(io.BytesIO(data)) as image:
        inks = np.asarray(image)
    expected = pyvips.Image.new_from_array(np.ascontiguousarray(inks)).copy(interpretation="cmyk")
    expected = expected.icc_transform("srgb", input_profile="cmyk", intent="relative", black_point_compensation=True)
    assert is_near(read(data, tmp_path)[0], expected.numpy())


@pytest.mark.parametrize("transform", [0, 1, 9])
def test_three_components_are_rgb_where_the_file_says_so(transform: int, tmp_path: Path) -> None:
    data = jpeg()
    jfif = find(data, 0xE0)
    data = data[:jfif] + segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes((transform,))) + data[jfif + 18 :]
    assert is_near(read(data, tmp_path)[0], by_pillow(data))


def test_hostile_files_end_soon_and_in_one_error(tmp_path: Path) -> None:
    whole = jpeg(progressive=True)
    random = np.random.default_rng(0)
    start = scan_start(whole)
    for data in (
        b"\xff\xd8" + b"\xff\x01" * 200_000,
        b"\xff\xd8" + b"\xff\xd0" * 200_000,
        whole[:start] + b"\xff\x01" * 200_000,
        whole[:start] + b"\xff\xda\0\x08\1\1\0\0\0\0" * 50_000,
        *(whole[:start] + random.bytes(2000) for _ in range(5)),
        *(whole[:20] + random.bytes(2000) for _ in range(5)),
    ):
        with pytest.raises(InputError):
            read(data, tmp_path)


def test_damage_that_shows_after_the_last_row_leaves_no_output(tmp_path: Path) -> None:
    from realesr import FileOptions, Upscaler

    (tmp_path / "a.jpg").write_bytes(damages(jpeg())["1000 twice"])
    with Upscaler("realesr-animevideov3", engine="nearest") as upscaler:
        with pytest.raises(InputError, match="damaged"):
            upscaler.upscale_file(tmp_path / "a.jpg", tmp_path / "o.png")
        assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]
        options = FileOptions(allow_damaged=True)
        result = upscaler.upscale_file(tmp_path / "a.jpg", tmp_path / "o.png", file=options)
    assert any("made up" in notice for notice in result.notices)
