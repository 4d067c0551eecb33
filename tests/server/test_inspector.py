"""The process that looks at files: every kind of upload, hostile ones, thumbnails, previews and tiles."""

import asyncio
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from realesr.errors import InputError, LargeEnough, UsageError
from realesr.server.displaying import write_display, write_pyramid, write_tile
from realesr.server.job_queue import JobQueue
from realesr.server.jobs import Job, Output
from realesr.server.tile_grid import TILE_PX, highest_level, level_size, tile_box
from realesr.target_size import TargetSize

from .core_queues import png, real_queue, run, submitted, temporary, until

__all__ = ["temporary"]


def smooth(width: int, height: int) -> Image.Image:
    """Return a picture without hard edges, which JPEG keeps well."""
    y, x = np.mgrid[:height, :width]
    planes = [128 + 100 * np.sin(x / 17 + k) * np.cos(y / (11 + k)) for k in range(3)]
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def encoded(image: Image.Image, fmt: str) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, fmt)
    return buffer.getvalue()


async def probed(queue: JobQueue, content: bytes, **options: Any) -> Job:
    """Submit an upload and do not wait for its result."""
    return await submitted(queue, "photo", content=content, **options)


def test_every_kind_that_realesr_reads_is_read_with_untrusted_loaders_blocked(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            for fmt in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "GIF", "BMP", "PPM"):
                job = await probed(queue, encoded(smooth(40, 30), fmt), strength=0.0)
                assert job.input_px == (40, 30), fmt
                assert (await queue.inspector.thumbnail(job)).stat().st_size > 100
                await job.over.wait()
                assert job.error is None, fmt

    run(test())


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
PDF = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG file whose header promises this size, and which has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture(scope="module")
def hostile() -> list[tuple[str, bytes, str]]:
    """Return files that are refused, and a word of why."""
    return [
        ("empty", b"", "empty"),
        ("text", b"hello, this is no image", "not an image"),
        ("svg", SVG, "SVG"),
        ("pdf", PDF, "PDF"),
        ("a bomb", png_of_size(30_000, 30_000), "pixels"),
        ("a huge bomb", png_of_size(2**31 - 1, 2**31 - 1), "photo"),
        ("cut", encoded(smooth(64, 64), "TIFF")[:100], "photo"),
        ("no rows", encoded(smooth(64, 64), "JPEG")[:60], "photo"),
        ("half a header", b"\xff\xd8\xff", "photo"),
    ]


def test_hostile_files_are_refused_in_words_without_a_path_and_the_process_goes_on(
    temporary: Path, hostile: list[tuple[str, bytes, str]]
) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            for name, content, word in hostile:
                with pytest.raises(InputError, match=word) as error:
                    await probed(queue, content)
                assert str(temporary) not in str(error.value), name
                assert "photo" in str(error.value), name
            assert queue.inspector.child.starts == 1
            assert queue.counts["kept"] == 0
            assert not list(temporary.glob("*/job-*"))

    run(test())


def test_libvips_untrusted_loaders_are_blocked_in_the_processes(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(4))
    code = f"import pyvips; pyvips.Image.rawload({str(tmp_path / 'a.raw')!r}, 2, 2, 1)"

    async def test() -> None:
        async with real_queue() as queue:
            for child in (queue.inspector.child, queue.inspector.viewer, queue.workers[0].child):
                variables = {**os.environ, **child._variables}
                ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)
                assert "blocked" in ran.stderr

    run(test())


def test_limits_and_sizes_are_checked_before_a_job_waits(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue(most_pixels=1000, most_result_pixels=20_000) as queue:
            with pytest.raises(InputError, match=r"photo .* 1,?000"):
                await probed(queue, png(40, 30))
            with pytest.raises(InputError, match="would come to 160 x 160 px"):
                await probed(queue, png(20, 20), scale=8.0)
            with pytest.raises(LargeEnough):
                await probed(queue, png(20, 20), size=_long_side(10))
            with pytest.raises(UsageError, match="times"):
                await probed(queue, png(2, 2), size=_long_side(100))

    run(test())


def _long_side(px: int) -> TargetSize:
    return TargetSize(long_side_px=px)


def test_the_networks_are_listed(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            names = [model["name"] for model in queue.models]
            assert "realesr-general-x4v3" in names
            assert [model["name"] for model in queue.models if model["is_default"]] == ["realesrgan-x4plus"]
            fields = {"name", "scale", "purpose", "licence", "bytes", "on_disk", "is_default"}
            assert all(set(model) == fields for model in queue.models)

    run(test())


def test_pictures_of_a_job_are_made_once_and_whoever_leaves_stops_nothing(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            job = await probed(queue, encoded(smooth(700, 500), "PNG"), scale=3.0)
            await job.over.wait()
            leaving = asyncio.create_task(queue.inspector.preview(job, "result"))
            staying = asyncio.create_task(queue.inspector.preview(job, "result"))
            await asyncio.sleep(0.01)
            leaving.cancel()
            path = await staying
            assert queue.inspector.viewer.starts == 1
            with Image.open(path) as image:
                assert (image.format, image.size) == ("JPEG", (2048, 1463))
            with Image.open(await queue.inspector.thumbnail(job)) as image:
                assert image.size == (320, 229)
            made = path.stat().st_mtime_ns
            assert (await queue.inspector.preview(job, "result")).stat().st_mtime_ns == made
            tile = await queue.inspector.tile(job, "source", 3, 4, 2)
            with Image.open(tile) as image:
                assert image.size == (2100 - 4 * 512, 1500 - 2 * 512)
            with pytest.raises(UsageError, match="got tile 5, 2"):
                await queue.inspector.tile(job, "result", 3, 5, 2)
            with pytest.raises(UsageError, match="got level 4"):
                await queue.inspector.tile(job, "result", 4, 0, 0)

    run(test())


def test_a_result_that_is_gone_is_an_error_in_words(temporary: Path) -> None:
    async def test() -> None:
        async with real_queue() as queue:
            job = await probed(queue, png(20, 20))
            await job.over.wait()
            await until(lambda: not queue.counts["running"])
            job.result.unlink()
            with pytest.raises(InputError, match="the result does not exist"):
                await queue.inspector.preview(job, "result")

    run(test())


def test_a_small_picture_keeps_its_size_and_a_transparent_one_gets_a_checkerboard(tmp_path: Path) -> None:
    Image.new("RGBA", (200, 130), (255, 0, 0, 0)).save(tmp_path / "a.png")
    write_display(tmp_path / "a.png", tmp_path / "a.jpg", 320)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.size == (200, 130)
        pixels = np.asarray(image.convert("L")).astype(int)
    for y in range(4, 130, 8):  # the board goes on where the rows were read in parts
        for x in range(4, 200, 8):
            assert abs(pixels[y, x] - (255 if (x // 8 + y // 8) % 2 == 0 else 204)) < 6, (x, y)


def tiles_joined(pyramid: Path, size: tuple[int, int], level: int, folder: Path) -> np.ndarray:
    """Return all tiles of a level as one picture."""
    width, height = level_size(*size, level)
    joined = np.zeros((height, width, 3), np.uint8)
    for y in range(-(-height // TILE_PX)):
        for x in range(-(-width // TILE_PX)):
            box = tile_box(*size, level, x, y)
            write_tile(pyramid, folder / "tile.jpg", (width, height), box)
            with Image.open(folder / "tile.jpg") as tile:
                joined[box[1] : box[3], box[0] : box[2]] = np.asarray(tile)
    return joined


@pytest.mark.parametrize(
    ("source_px", "shown_px"), [((1300, 700), (1300, 700)), ((650, 350), (1300, 700)), ((300, 180), (1100, 660))]
)
def test_tiles_of_each_level_join_into_the_whole_picture_resized_by_lanczos(
    tmp_path: Path, source_px: tuple[int, int], shown_px: tuple[int, int]
) -> None:
    picture = smooth(*source_px)
    picture.save(tmp_path / "a.png")
    write_pyramid(tmp_path / "a.png", tmp_path / "a.pyramid")
    for level in range(highest_level(*shown_px) + 1):
        expected = np.asarray(picture.resize(level_size(*shown_px, level), Image.Resampling.LANCZOS)).astype(int)
        found = tiles_joined(tmp_path / "a.pyramid", shown_px, level, tmp_path)
        difference = np.abs(found - expected)
        assert difference.mean() < 2, level
        assert np.percentile(difference, 99.9) < 16, level


def test_the_grid_has_each_pixel_once() -> None:
    width, height = 1537, 513
    assert highest_level(width, height) == 2
    assert level_size(width, height, 2) == (width, height)
    assert level_size(width, height, 0) == (385, 129)
    covered = np.zeros((height, width), int)
    for y in range(2):
        for x in range(4):
            left, top, right, bottom = tile_box(width, height, 2, x, y)
            covered[top:bottom, left:right] += 1
    assert (covered == 1).all()
    assert highest_level(512, 512) == 0
    assert Output(width_px=513, height_px=1, format="png", bytes=1).to_json()["highest_level"] == 1
