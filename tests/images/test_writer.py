"""Writing files: values, bounded memory, and nothing half done."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.errors import OutputError, UsageError
from realesr.images import writer as image_writer
from realesr.images.file_target import FileTarget
from realesr.images.info import ImageInfo, OutputFormat
from realesr.images.reader import open_image
from realesr.images.writer import open_writer

from .image_files import exif_block, photo

FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "tiff", "webp", "avif")
LOSSLESS: tuple[OutputFormat, ...] = ("png", "tiff")


def info_for(rows: NDArray[Any], **facts: Any) -> ImageInfo:
    height, width, channels = rows.shape
    return ImageInfo(
        width_px=width,
        height_px=height,
        bits=8 if rows.dtype == np.uint8 else 16,
        is_grey=channels < 3,
        has_alpha=channels in (2, 4),
        format="png",
        **facts,
    )


def write(path: Path, rows: NDArray[Any], fmt: OutputFormat, *, band: int = 13, **options: Any) -> None:
    with open_writer(path, info_for(rows), fmt, **options) as writer:
        for top in range(0, len(rows), band):
            writer.write_rows(rows[top : top + band])


def read(path: Path) -> NDArray[Any]:
    with open_image(path) as reader:
        return reader.read_rows(reader.info.height_px)


def values(height: int, width: int, channels: int, bits: int) -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 2**bits, (height, width, channels)).astype(f"uint{bits}")


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.glob(".realesr-*"))
    assert not [thread for thread in threading.enumerate() if thread.name == "realesr-encode"]


@pytest.mark.parametrize("fmt", LOSSLESS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (129, 1), (50, 33)])
def test_lossless_formats_keep_every_value(
    fmt: OutputFormat, bits: int, channels: int, size: tuple[int, int], tmp_path: Path
) -> None:
    rows = values(*size, channels, bits)
    write(tmp_path / "a", rows, fmt)
    np.testing.assert_array_equal(read(tmp_path / "a"), rows)
    if bits == 8:
        with Image.open(tmp_path / "a") as image:
            np.testing.assert_array_equal(np.asarray(image).reshape(rows.shape), rows)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (129, 1), (50, 33)])
def test_every_format_looks_like_what_was_written(
    fmt: OutputFormat, channels: int, size: tuple[int, int], tmp_path: Path
) -> None:
    if fmt == "jpeg" and channels in (2, 4):
        pytest.skip("JPEG has no alpha")
    rows = photo(*size, channels)
    write(tmp_path / "a", rows, fmt)
    mode = ("L" if channels < 3 else "RGB") + "A" * (channels in (2, 4))
    with Image.open(tmp_path / "a") as image:
        assert image.format == fmt.upper()
        read_back = np.asarray(image.convert(mode)).reshape(rows.shape)
    assert np.abs(read_back.astype(int) - rows).mean() < 6


@pytest.mark.parametrize("fmt", ["jpeg", "webp", "avif"])
def test_16_bit_rows_are_rounded_into_formats_of_8_bit(fmt: OutputFormat, tmp_path: Path) -> None:
    rows = np.full((16, 16, 3), 200 * 257 + 128, np.uint16)  # 200.498 of 255
    write(tmp_path / "low", rows, fmt, quality=100)
    write(tmp_path / "high", rows + 2, fmt, quality=100)  # 200.506
    with Image.open(tmp_path / "low") as low, Image.open(tmp_path / "high") as high:
        assert (np.asarray(low).mean().round(), np.asarray(high).mean().round()) == (200, 201)


@pytest.mark.parametrize("fmt", ["jpeg", "webp", "avif"])
def test_quality_changes_the_size(fmt: OutputFormat, tmp_path: Path) -> None:
    sizes = []
    for quality in (30, 60, 95):
        write(tmp_path / "a", photo(64, 64), fmt, quality=quality)
        sizes.append((tmp_path / "a").stat().st_size)
    assert sizes == sorted(set(sizes))


def test_jpeg_has_full_chroma_and_is_baseline_by_default(tmp_path: Path) -> None:
    write(tmp_path / "a", photo(64, 64), "jpeg")
    with Image.open(tmp_path / "a") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
        assert "progressive" not in image.info


@pytest.mark.parametrize(("fmt", "quality"), [("jpeg", 0), ("jpeg", 101), ("webp", -1), ("png", 90), ("tiff", 90)])
def test_a_quality_that_makes_no_sense_is_refused(fmt: OutputFormat, quality: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"quality {quality}"):
        open_writer(tmp_path / "a", info_for(photo(4, 4)), fmt, quality=quality)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("written", [0, 1, 40, 99, 100])
def test_an_exception_in_the_middle_leaves_no_file_and_an_old_one_as_it_was(
    fmt: OutputFormat, written: int, tmp_path: Path
) -> None:
    rows = photo(100, 50)
    (tmp_path / "old").write_bytes(b"old")
    for name in ("new", "old"):
        with pytest.raises(KeyboardInterrupt), open_writer(tmp_path / name, info_for(rows), fmt) as writer:
            writer.write_rows(rows[:written])
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.parametrize("fmt", FORMATS)
def test_missing_rows_never_make_a_file(fmt: OutputFormat, tmp_path: Path) -> None:
    rows = photo(100, 50)
    with (
        pytest.raises(ValueError, match="got 99 rows of an image of 100"),
        open_writer(tmp_path / "a", info_for(rows), fmt) as writer,
    ):
        writer.write_rows(rows[:99])
    assert not list(tmp_path.iterdir())


def test_rows_of_another_shape_or_type_are_refused(tmp_path: Path) -> None:
    rows = photo(10, 5)
    for wrong in (rows[:, :4], rows[:, :, :1], rows.astype(np.uint16), photo(11, 5)):
        with pytest.raises(ValueError, match="got row"), open_writer(tmp_path / "a", info_for(rows), "png") as writer:
            writer.write_rows(wrong)


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    write(tmp_path / "a.png", photo(5, 5), "png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), photo(5, 5))


@pytest.mark.parametrize("name", ["photo[1].png", "фото 写真.png", "a b [Q=1].png"])
def test_any_file_name_is_written(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, photo(5, 5), "png")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_array_may_be_changed_after_it_was_given(tmp_path: Path) -> None:
    rows = photo(64, 20)
    band = np.empty((8, 20, 3), np.uint8)
    with open_writer(tmp_path / "a", info_for(rows), "png") as writer:
        for top in range(0, 64, 8):
            band[:] = rows[top : top + 8]
            writer.write_rows(band)
            band[:] = 0
    np.testing.assert_array_equal(read(tmp_path / "a"), rows)


def test_rows_that_are_not_contiguous_are_written(tmp_path: Path) -> None:
    rows = photo(40, 30, 4)[:, ::-1, :3]
    write(tmp_path / "a", rows, "png")
    np.testing.assert_array_equal(read(tmp_path / "a"), rows)


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_error_of_the_disk_is_named_and_leaves_nothing(
    fmt: OutputFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(FileTarget):
        def __init__(self, path: Path, **options: Any) -> None:
            super().__init__(path, **options)
            self._file: Any = _Full(self._file)

    class _Full:
        def __init__(self, file: Any) -> None:
            self.read, self.seek, self.close = file.read, file.seek, file.close

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("realesr.images.writer.FileTarget", FullDisk)
    rows = values(300, 200, 3, 8)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
        write(tmp_path / "a", rows, fmt)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written \(No such file or directory\)"):
        write(tmp_path / "gone" / "a.png", photo(64, 5), "png", band=4)


def test_writing_waits_for_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While libvips does not read, at most a few bands are taken."""
    may_encode = threading.Event()
    encode = image_writer.ImageWriter._encode

    def wait_and_encode(self: image_writer.ImageWriter) -> None:
        may_encode.wait()
        encode(self)

    monkeypatch.setattr(image_writer.ImageWriter, "_encode", wait_and_encode)
    rows, taken = photo(400, 50), []

    def run() -> None:
        with open_writer(tmp_path / "a", info_for(rows), "png") as writer:
            for top in range(0, 400, 4):
                writer.write_rows(rows[top : top + 4])
                taken.append(top)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    assert len(taken) <= 3
    may_encode.set()
    thread.join(20)
    np.testing.assert_array_equal(read(tmp_path / "a"), rows)


def test_many_files_at_once_do_not_mix(tmp_path: Path) -> None:
    arrays = [values(120, 40, 3, 8) ^ np.uint8(number) for number in range(8)]
    threads = [
        threading.Thread(target=write, args=(tmp_path / f"{number}.png", rows, "png"))
        for number, rows in enumerate(arrays)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, rows in enumerate(arrays):
        np.testing.assert_array_equal(read(tmp_path / f"{number}.png"), rows)


def test_a_read_in_one_thread_and_a_write_in_another_work_together(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", values(500, 60, 3, 16), "tiff")
    with open_image(tmp_path / "a.tif") as reader, open_writer(tmp_path / "b.png", reader.info, "png") as writer:

        def copy() -> None:
            while len(rows := reader.read_rows(17)):
                writer.write_rows(rows)

        thread = threading.Thread(target=copy)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(read(tmp_path / "b.png"), values(500, 60, 3, 16))


PEAK = """
import sys
from pathlib import Path
from realesr.images.reader import open_image
from realesr.images.writer import open_writer
source, target, fmt = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
with open_image(source) as reader, open_writer(target, reader.info, fmt) as writer:
    while len(rows := reader.read_rows(64)):
        writer.write_rows(rows)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("suffix", "fmt"), [("jpg", "png"), ("png", "jpeg"), ("tif", "tiff")])
def test_memory_does_not_grow_with_the_height(suffix: str, fmt: str, tmp_path: Path) -> None:
    peaks = []
    for height in (500, 12_000):
        Image.new("RGB", (1500, height), (90, 120, 40)).save(tmp_path / f"a.{suffix}")
        command = [sys.executable, "-c", PEAK, str(tmp_path / f"a.{suffix}"), str(tmp_path / "b"), fmt]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024)
    assert peaks[1] - peaks[0] < 15, f"{peaks} MB; the taller image has 54 MB of pixels"


def test_a_tall_image_has_as_many_strips_as_it_needs(tmp_path: Path) -> None:
    rows = values(70_001, 1, 1, 8)
    write(tmp_path / "a", rows, "png", band=999)
    np.testing.assert_array_equal(read(tmp_path / "a"), rows)


def test_a_file_to_which_exif_cannot_be_added_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the file has no meta box")

    monkeypatch.setattr("realesr.images.writer.add_exif_to_avif", fail)
    info = replace(info_for(photo(10, 12)), exif=exif_block())
    with (
        pytest.raises(OutputError, match="EXIF cannot be added"),
        open_writer(tmp_path / "a", info, "avif") as writer,
    ):
        writer.write_rows(photo(10, 12))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fmt", FORMATS)
def test_infos_of_other_sizes_are_taken_from_the_output(fmt: OutputFormat, tmp_path: Path) -> None:
    info = replace(info_for(photo(10, 12)), width_px=24, height_px=20)
    with open_writer(tmp_path / "a", info, fmt) as writer:
        writer.write_rows(photo(20, 24))
    with Image.open(tmp_path / "a") as image:
        assert image.size == (24, 20)


def test_a_writer_removes_what_a_killed_one_has_left_and_nothing_else(tmp_path: Path) -> None:
    for name in (".realesr-0a1b2c3d4e5f.image.part", "a.part"):
        (tmp_path / name).touch()
    info = ImageInfo(width_px=4, height_px=3, bits=8, is_grey=True, has_alpha=False, format="png")
    with open_writer(tmp_path / "a.png", info, "png") as writer:
        writer.write_rows(np.zeros((3, 4, 1), np.uint8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.part", "a.png"]
