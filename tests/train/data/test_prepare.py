"""Compares smaller versions and squares with Pillow; files that are there are kept, small images counted."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from realesr.errors import OutputError, UsageError
from realesr.train.data.image_list import find_training_images
from realesr.train.data.prepare import (
    Prepared,
    PrepareOptions,
    named_sources,
    prepare_images,
    resized,
    versions,
    windows,
)
from tests.images.image_files import ADOBE_PRIMARIES, photo, rgb_profile

SMALL = PrepareOptions(factors=(0.75, 0.5, 1 / 3), shortest_px=40, crop_px=40, step_px=20)
WHOLE = PrepareOptions(factors=(0.5,), shortest_px=0, crop_px=0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(photo(120, 150)).save(folder / "a.png")
    Image.fromarray(photo(60, 45, seed=1)).save(folder / "deep" / "b.png")
    return folder


def prepare(folder: Path, out: Path, options: PrepareOptions, threads: int = 2) -> Prepared:
    images = find_training_images([folder])
    return prepare_images(named_sources(images, [folder]), out, options, threads=threads)


def opened(path: Path) -> Image.Image:
    """Return an image whose file is closed again."""
    with Image.open(path) as image:
        image.load()
    return image


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_the_defaults_are_the_papers() -> None:
    options = PrepareOptions()
    assert (options.factors, options.shortest_px) == ((0.75, 0.5, 1 / 3), 400)
    assert (options.crop_px, options.step_px) == (400, 200)


def test_all_versions_are_cut_into_all_squares(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared = prepare(photos, out, SMALL)
    found = names(out)
    assert prepared.written == len(found)
    # 150 x 120: rows at 0, 20, 40, 60, 80, columns at 0, ..., 100 and the edge's 110; T1 is 75 x 60, T3 50 x 40.
    assert found[:3] == ["aT0_s001.png", "aT0_s002.png", "aT0_s003.png"]
    assert len([name for name in found if name.startswith("a_s")]) == 5 * 7
    assert len([name for name in found if name.startswith("aT1_s")]) == 2 * 3
    assert [name for name in found if name.startswith("aT3")] == ["aT3_s001.png", "aT3_s002.png"]
    assert [name for name in found if name.startswith("deep/")] == [
        "deep/bT3_s001.png",
        "deep/bT3_s002.png",
        "deep/b_s001.png",
        "deep/b_s002.png",
        "deep/b_s003.png",
        "deep/b_s004.png",
    ]
    assert {opened(out / name).size for name in found} == {(40, 40)}


def test_pixels_are_those_of_pillow(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(photos, out, SMALL)
    original = opened(photos / "a.png")
    small = original.resize((75, 60), Image.Resampling.LANCZOS)
    for name, image, corner in (
        ("a_s001.png", original, (0, 0)),
        ("a_s007.png", original, (110, 0)),
        ("a_s035.png", original, (110, 80)),
        ("aT1_s003.png", small, (35, 0)),
        ("aT1_s006.png", small, (35, 20)),
    ):
        left, top = corner
        expected = np.asarray(image.crop((left, top, left + 40, top + 40)))
        np.testing.assert_array_equal(np.asarray(opened(out / name)), expected, err_msg=name)


def test_without_squares_versions_are_whole(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "out", WHOLE)
    assert names(tmp_path / "out") == ["a.png", "aT0.png", "deep/b.png", "deep/bT0.png"]
    assert opened(tmp_path / "out" / "aT0.png").size == (75, 60)
    assert opened(tmp_path / "out" / "deep" / "bT0.png").size == (22, 30)


@given(side=st.tuples(st.integers(1, 60), st.integers(1, 60)), crop=st.integers(1, 60), step=st.integers(1, 60))
def test_squares_cover_the_image_and_never_leave_it(side: tuple[int, int], crop: int, step: int) -> None:
    width, height = side
    if crop > min(side) or step > crop:
        return
    seen = np.zeros((height, width), int)
    cuts = windows(width, height, crop, step)
    for top, left, high, wide in cuts:
        assert (high, wide) == (crop, crop)
        assert top + crop <= height and left + crop <= width
        seen[top : top + crop, left : left + crop] += 1
    assert seen.min() >= 1
    assert cuts == sorted(set(cuts))
    # All but the last row and column lie on the grid.
    assert all(top % step == 0 or top == height - crop for top, *_ in cuts)


def test_sizes_are_truncated_and_the_shortest_side_is_exact() -> None:
    found, small = versions(1203, 1001, PrepareOptions())
    assert [(version.name, version.width_px, version.height_px) for version in found] == [
        ("", 1203, 1001),
        ("T0", 902, 750),
        ("T1", 601, 500),
        ("T3", int(400 * (1203 / 1001)), 400),
    ]
    assert small == 1


@pytest.mark.parametrize(("width", "height", "expected"), [(400, 600, [""]), (399, 600, []), (401, 600, ["", "T3"])])
def test_nothing_is_enlarged_or_written_twice(width: int, height: int, expected: list[str]) -> None:
    assert [version.name for version in versions(width, height, PrepareOptions())[0]] == expected


def test_images_that_are_too_small_are_named_and_counted(photos: Path, tmp_path: Path) -> None:
    Image.fromarray(photo(39, 200)).save(photos / "thin.png")
    prepared = prepare(photos, tmp_path / "out", SMALL)
    assert prepared.too_small == [photos / "thin.png"]
    assert prepared.small_versions == 3  # T0 to T2 of deep/b.png, which is 45 x 60; T2 of a.png is 50 x 40
    assert not [name for name in names(tmp_path / "out") if "thin" in name]


def test_a_run_that_was_stopped_goes_on_and_keeps_what_is_there(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare(photos, out, SMALL)
    before = {name: (out / name).read_bytes() for name in names(out)}
    (out / "a_s003.png").unlink()
    (out / "aT1_s002.png").write_bytes(b"")  # what a power failure may leave
    (out / "a_s004.png").write_bytes(b"mine")
    second = prepare(photos, out, SMALL)
    assert (second.written, second.kept) == (2, first.written - 2)
    assert (out / "a_s004.png").read_bytes() == b"mine"
    assert {name: (out / name).read_bytes() for name in names(out) if name != "a_s004.png"} == {
        name: data for name, data in before.items() if name != "a_s004.png"
    }


def test_a_folder_is_not_mixed_from_two_sets_of_options(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "out", SMALL)
    with pytest.raises(UsageError, match=r"was made with other options \(\S*prepared\.json\)"):
        prepare(photos, tmp_path / "out", WHOLE)
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["crop_px"] == 40


def test_threads_change_nothing(photos: Path, tmp_path: Path) -> None:
    for threads in (1, 4):
        prepare(photos, tmp_path / str(threads), SMALL, threads)
    assert names(tmp_path / "1") == names(tmp_path / "4")
    assert all(
        (tmp_path / "1" / name).read_bytes() == (tmp_path / "4" / name).read_bytes() for name in names(tmp_path / "1")
    )


def test_sixteen_bits_stay_sixteen(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    values = photo(80, 80).astype(np.uint16) * 251 + 77
    pyvips.Image.new_from_array(values).copy(interpretation="rgb16").pngsave(str(tmp_path / "in" / "a.png"))
    prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(factors=(0.5,), shortest_px=0, crop_px=40, step_px=40))
    whole = pyvips.Image.new_from_file(str(tmp_path / "out" / "a_s004.png"))
    assert (whole.format, whole.bands) == ("ushort", 3)
    np.testing.assert_array_equal(whole.numpy(), values[40:, 40:])
    small = pyvips.Image.new_from_file(str(tmp_path / "out" / "aT0_s001.png")).numpy()
    planes = [
        np.asarray(Image.fromarray(values[:, :, c].astype(np.float32)).resize((40, 40), Image.Resampling.LANCZOS))
        for c in range(3)
    ]
    assert np.abs(small - np.stack(planes, axis=2)).max() <= 0.5


def test_sixteen_bits_do_not_wrap_around_where_lanczos_overshoots() -> None:
    edge = np.zeros((40, 40, 1), np.uint16)
    edge[:, 20:] = 65535
    small = resized(edge, 30, 30)
    assert small[:, :13].max() < 20_000 and small[:, 17:].min() > 45_000


def test_grey_stays_grey_and_alpha_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, channels in (("grey", 1), ("clear", 4), ("both", 2)):
        pixels = photo(50, 50, channels)
        Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(tmp_path / "in" / f"{name}.png")
    prepare(tmp_path / "in", tmp_path / "out", WHOLE)
    modes = {name: opened(tmp_path / "out" / name).mode for name in names(tmp_path / "out")}
    assert modes == {
        **dict.fromkeys(("both.png", "bothT0.png", "grey.png", "greyT0.png"), "L"),
        **dict.fromkeys(("clear.png", "clearT0.png"), "RGB"),
    }


def test_a_profile_stays_with_its_values(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    profile = rgb_profile(ADOBE_PRIMARIES, 2.2)
    Image.fromarray(photo(50, 50)).save(tmp_path / "in" / "a.png", icc_profile=profile)
    prepare(tmp_path / "in", tmp_path / "out", WHOLE)
    made = opened(tmp_path / "out" / "a.png")
    assert made.info["icc_profile"] == profile
    np.testing.assert_array_equal(np.asarray(made), photo(50, 50))


def test_an_image_that_cannot_be_read_does_not_stop_the_others(photos: Path, tmp_path: Path) -> None:
    (photos / "aa.png").write_bytes((photos / "a.png").read_bytes()[:4000])
    prepared = prepare(photos, tmp_path / "out", SMALL)
    assert len(prepared.failed) == 1 and "aa.png is truncated or damaged" in str(prepared.failed[0])
    assert not [name for name in names(tmp_path / "out") if name.startswith("aa")]
    assert "deep/b_s001.png" in names(tmp_path / "out")


def test_a_full_disk_ends_it_and_what_is_there_is_whole(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes
    left = iter(range(10))

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".part" and next(left, None) is None:
            write(path, data[: len(data) // 2])
            raise OSError(28, os.strerror(28))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="cannot be written \\(No space left on device\\)"):
        prepare(photos, tmp_path / "out", SMALL, 1)
    assert not list((tmp_path / "out").rglob("*.part"))
    assert len(names(tmp_path / "out")) == 9
    for name in names(tmp_path / "out"):
        Image.open(io.BytesIO((tmp_path / "out" / name).read_bytes())).load()


def test_names_mirror_the_folders_that_were_searched(tmp_path: Path) -> None:
    images = [tmp_path / name for name in ("x/1/a.jpg", "x/2/a.jpg", "y/b.jpg", "c.jpg", "x/1/a.png")]
    paths = [tmp_path / "x", tmp_path / "list.txt", tmp_path / "c.jpg"]
    stems = [source.stem.as_posix() for source in named_sources(images, paths)]
    assert stems == ["1/a_jpg", "2/a", "y/b", "c", "1/a_png"]
    assert [source.stem.as_posix() for source in named_sources(images[2:3], paths, root=tmp_path / "y")] == ["b"]


def test_names_that_would_be_one_are_refused(tmp_path: Path) -> None:
    images = [tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.jpg"]
    with pytest.raises(UsageError, match=r"x\S+a\.jpg and \S+y\S+a\.jpg would get one name"):
        named_sources(images, [tmp_path / "x", tmp_path / "y"])


def test_a_name_that_a_version_gets_is_refused(tmp_path: Path) -> None:
    sources = named_sources([tmp_path / "a.jpg", tmp_path / "aT1.jpg"], [tmp_path])
    with pytest.raises(UsageError, match=r"aT1\.jpg has the name that a smaller version of \S+a\.jpg gets"):
        prepare_images(sources, tmp_path / "out", SMALL, threads=1)


@pytest.mark.parametrize(
    "options",
    [
        {"factors": (1.0,)},
        {"factors": (0.5, 0.0)},
        {"shortest_px": -1},
        {"crop_px": -1},
        {"step_px": 0},
        {"step_px": 401},
        {"factors": (), "shortest_px": 0, "original": False},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="expected"):
        PrepareOptions(**options)  # type: ignore[arg-type]
