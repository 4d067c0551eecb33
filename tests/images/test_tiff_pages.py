"""Which page of a TIFF file is its picture, and what happens to damaged, truncated and hostile files."""

import itertools
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.errors import InputError
from realesr.images.reader import open_image

from .image_files import photo
from .tiff_files import Value, page, tiff

Page = tuple[dict[int, Value], list[bytes]]


def small(value: int, **more: Any) -> Any:
    """A page of 3 x 2 px in one grey value."""
    return page(3, 2, [bytes([value] * 6)], bits=[8], photometric=1, **more)


def first_value(path: Path, number: int | None = None) -> int:
    with open_image(path, page=number) as reader:
        return int(reader.read_rows(1)[0, 0, 0])


def notices(path: Path, number: int | None = None) -> tuple[str, ...]:
    with open_image(path, page=number) as reader:
        return reader.notices


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([{}, {}], 0),
        ([{"t254": 0}, {"t254": 1}], 0),
        ([{"t254": 1}, {"t254": 0}], 1),
        ([{"t254": 1}, {"t254": 4}, {}], 2),
        ([{"t254": 4}, {"t254": 5}, {"t254": 2}, {"t254": 0}], 2),
        ([{"t255": 2}, {"t255": 1}], 1),
        ([{"t255": 2}, {"t255": 3}], 1),
        ([{"t254": 0, "t255": 2}, {}], 0),
        ([{"t254": 1}, {"t254": 1}], 0),
        ([{"t254": 4}], 0),
    ],
)
def test_the_picture_is_the_first_page_that_is_no_preview_and_no_mask(
    kinds: list[dict[str, int]], expected: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.gpr"  # whatever the suffix
    path.write_bytes(tiff(*(small(10 + number, **kind) for number, kind in enumerate(kinds))))
    assert first_value(path) == 10 + expected
    told = [notice for notice in notices(path) if "preview" in notice]
    assert told == ([f"page 0 is a preview or a mask; page {expected} was read"] if expected else [])
    for number in range(len(kinds)):
        assert first_value(path, number) == 10 + number
        assert not [notice for notice in notices(path, number) if "preview" in notice]


@pytest.mark.parametrize(
    ("kinds", "is_told"), [([{}], False), ([{}, {"t254": 1}], False), ([{}, {"t254": 1}, {}], True), ([{}, {}], True)]
)
def test_a_document_s_other_pages_are_told(kinds: list[dict[str, int]], is_told: bool, tmp_path: Path) -> None:
    path = tmp_path / "document.tif"
    path.write_bytes(tiff(*(small(10 + number, **kind) for number, kind in enumerate(kinds))))
    told = "the file holds more pages; only the first was read"
    assert (told in notices(path)) == is_told
    with open_image(path, page=0) as reader:
        assert told not in reader.notices


def test_a_damaged_second_page_does_not_hold_up_the_first(tmp_path: Path) -> None:
    path = tmp_path / "document.tif"
    whole = tiff(small(10), small(11))
    path.write_bytes(whole[: len(whole) - 3])
    assert first_value(path) == 10


def with_sub_directories(first: dict[str, Any], *below: Any, order: str = "<", big: bool = False) -> bytes:
    """A file whose page 0 has the pages `below` as sub-directories: all are written as pages, then unlinked."""
    file = bytearray(tiff(small(10, t330=[0] * len(below), **first), *below, order=order, big=big))
    offset, count, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    link, places = 8 if big else 4, []
    while at := struct.unpack_from(order + offset, file, link)[0]:
        places.append(at)
        (entries,) = struct.unpack_from(order + count, file, at)
        link = at + struct.calcsize(order + count) + entries * struct.calcsize(order + entry)
        if len(places) == 1:
            first_link = link
    struct.pack_into(order + offset, file, first_link, 0)
    for at in range(places[0] + struct.calcsize(order + count), first_link, struct.calcsize(order + entry)):
        tag, _, values, place = struct.unpack_from(order + entry, file, at)
        if tag == 330:
            where = (
                place
                if values * (8 if big else 4) > (8 if big else 4)
                else at + struct.calcsize(order + "HHI" * (not big) + "HHQ" * big)
            )
            struct.pack_into(f"{order}{values}{offset}", file, where, *places[1:])
    return bytes(file)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_preview_s_picture_in_a_sub_directory_is_read(order: str, big: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    below = [small(20, t254=1), small(30, t254=0), small(40)]
    path.write_bytes(with_sub_directories({"t254": 1, "t274": 6, "t271": b"Camera\0"}, *below, order=order, big=big))
    with open_image(path) as reader:
        assert reader.notices == ("page 0 is a preview; the picture in its sub-directory was read",)
        assert (reader.info.width_px, reader.info.height_px) == (2, 3)  # turned, as page 0 says
        assert reader.read_rows(1)[0, 0, 0] == 30
    assert first_value(path, 0) == 10
    path.write_bytes(with_sub_directories({}, small(20, t254=1), order=order, big=big))
    assert first_value(path) == 10


def test_a_camera_s_raw_in_a_sub_directory_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    raw = page(4, 4, [bytes(32)], bits=[16], photometric=32803)
    path.write_bytes(with_sub_directories({"t254": 1, "t50706": b"\1\4\0\0"}, raw))
    with pytest.raises(InputError, match=r"camera's raw file \(CFA"):
        open_image(path)
    assert first_value(path, 0) == 10


def test_pages_that_tifffile_writes_below_a_preview_are_found(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = photo(64, 96)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(values[::8, ::8].copy(), photometric="rgb", subifds=1, subfiletype=1, metadata=None)
        file.write(values, photometric="rgb", subfiletype=0, metadata=None)
    with open_image(tmp_path / "a.tif") as reader:
        np.testing.assert_array_equal(reader.read_rows(64), values)


def test_pages_in_a_circle_end(tmp_path: Path) -> None:
    file = bytearray(tiff(small(1, t254=1), small(2, t254=1)))
    struct.pack_into("<I", file, len(file) - 4, struct.unpack_from("<I", file, 4)[0])
    path = tmp_path / "a.tif"
    path.write_bytes(file)
    assert first_value(path) == 1
    with pytest.raises(InputError, match="has no page 7: it has 2 pages, 0 to 1"):
        open_image(path, page=7)


def layouts() -> dict[str, tuple[NDArray[Any], bytes]]:
    """Files without compression whose pixels come last, by name."""
    values = photo(64, 32)
    files = {}
    for name in ("strips", "planes", "tiles", "odd tiles", "16 bit"):
        stored: NDArray[Any] = values.astype("<u2") * 257 if name == "16 bit" else values
        pieces = [stored[top : top + 8].tobytes() for top in range(0, 64, 8)]
        more: dict[str, Any] = {"rows": 8}
        if name == "planes":
            pieces = [stored[top : top + 8, :, i].tobytes() for i in range(3) for top in range(0, 64, 8)]
            more["t284"] = 2
        if "tiles" in name:
            side = 16 if name == "tiles" else 8
            corners = itertools.product(range(0, 64, side), range(0, 32, side))
            pieces, more = [stored[y : y + side, x : x + side].tobytes() for y, x in corners], {"tile": (side, side)}
        bits = [8 * stored.itemsize] * 3
        files[name] = (stored, pixels_last(tiff(page(32, 64, pieces, bits=bits, photometric=2, **more))))
    return files


def pixels_last(file: bytes) -> bytes:
    """The file with a copy of its pixels behind its directory, and the directory pointing at the copy."""
    (at,) = struct.unpack_from("<I", file, 4)
    (count,) = struct.unpack_from("<H", file, at)
    moved, found = bytearray(file), {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values, place = struct.unpack_from("<HHII", file, entry)
        where = place if values * (2 if kind == 3 else 4) > 4 else entry + 8
        found[tag] = where, struct.unpack_from(f"<{values}{'H' if kind == 3 else 'I'}", file, where)
    offsets_at, offsets = found.get(273) or found[324]
    _, sizes = found.get(279) or found[325]
    shift = len(file) - offsets[0]
    struct.pack_into(f"<{len(offsets)}I", moved, offsets_at, *(offset + shift for offset in offsets))
    return bytes(moved) + file[offsets[0] : offsets[-1] + sizes[-1]]


@pytest.mark.parametrize("name", layouts())
@pytest.mark.parametrize("cut", [1, 500, 2000])
def test_a_cut_page_raises_and_never_gives_made_up_rows(name: str, cut: int, tmp_path: Path) -> None:
    values, file = layouts()[name]
    path = tmp_path / "a.tif"
    path.write_bytes(file)
    with open_image(path) as reader:
        np.testing.assert_array_equal(reader.read_rows(64), values)
    path.write_bytes(file[:-cut])
    rows: list[NDArray[Any]] = []
    with pytest.raises(InputError, match="truncated or damaged"), open_image(path) as reader:
        while len(rows) < 64:
            rows.append(reader.read_rows(1)[0])
    assert all((row == value).all() for row, value in zip(rows, values, strict=False))
    if name in ("strips", "16 bit"):
        assert rows  # what the file has can be read


@pytest.mark.parametrize("is_tiled", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_damaged_strip_or_tile_raises(is_tiled: bool, orientation: int, tmp_path: Path) -> None:
    values = photo(64, 16)
    pieces = [zlib.compress(values[top : top + 16].tobytes()) for top in range(0, 64, 16)]
    pieces[2] = pieces[2][:20] + b"\xff" * 20 + pieces[2][40:]
    more: dict[str, Any] = {"tile": (16, 16)} if is_tiled else {"rows": 16}
    one = page(16, 64, pieces, bits=[8] * 3, photometric=2, t259=8, t274=orientation, **more)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(one))
    with pytest.raises(InputError, match="truncated or damaged"), open_image(path) as reader:
        while len(reader.read_rows(8)):
            pass


def test_a_canon_raw_is_refused_whatever_its_name(tmp_path: Path) -> None:
    file = bytearray(tiff(small(1)))
    file[8:10] = b"CR"
    (tmp_path / "a.tif").write_bytes(file)
    with pytest.raises(InputError, match="camera's raw file"):
        open_image(tmp_path / "a.tif")


def test_strips_without_their_sizes_are_read_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    fields, pieces = small(77)
    file = bytearray(tiff((fields, pieces)))
    at = struct.unpack_from("<I", file, 4)[0]
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", file, at)[0], 12):
        if struct.unpack_from("<H", file, entry)[0] == 279:
            struct.pack_into("<H", file, entry, 65000)
    path.write_bytes(file)
    assert first_value(path) == 77


def test_a_directory_that_lists_too_few_strips_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(page(4, 40, [bytes(16)] * 3, bits=[8], photometric=1, rows=4)))
    with pytest.raises(InputError, match="damaged: it lists 3 of 10 strips"):
        open_image(path)


@pytest.mark.parametrize("more", [{"tile": (2**30, 2**30)}, {"tile": (0, 16)}, {"t277": 0}, {"t277": 60000}])
def test_sizes_without_measure_are_refused(more: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(page(4, 4, [bytes(16)], bits=[8], photometric=1, **more)))
    with pytest.raises(InputError):
        first_value(path)


def test_a_strip_far_outside_the_file_is_damage_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.tif"
    file = bytearray(tiff(page(4, 8, [bytes(16)] * 2, bits=[8], photometric=1, rows=4), big=True))
    for offset in (2**50, 2**59, 2**63, 2**64 - 8):
        changed = file.replace(struct.pack("<QQ", 16, 32), struct.pack("<QQ", 16, offset))
        assert changed != file
        path.write_bytes(changed)
        with pytest.raises(InputError, match="damaged"), open_image(path) as reader:
            reader.read_rows(8)
    assert capfd.readouterr() == ("", "")


def test_files_with_flipped_bytes_are_read_or_refused(tmp_path: Path) -> None:
    files = [file for _, file in layouts().values()]
    chance = random.Random(1)
    for _ in range(300):
        file = bytearray(chance.choice(files))
        start = struct.unpack_from("<I", file, 4)[0]
        for _ in range(chance.randint(1, 3)):
            file[start + chance.randrange(180)] = chance.choice((0, 1, 2, 7, 8, 255, chance.randrange(256)))
        (tmp_path / "a.tif").write_bytes(file)
        try:
            with open_image(tmp_path / "a.tif", max_pixels=1_000_000) as reader:
                while len(reader.read_rows(64)):
                    pass
        except InputError as error:
            assert "\n" not in str(error)


def test_pyramids_and_pages_of_pillow_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    first, second = (Image.new("L", (5, 4), value) for value in (50, 60))
    first.save(path, save_all=True, append_images=[second])
    assert (first_value(path), first_value(path, 1)) == (50, 60)
