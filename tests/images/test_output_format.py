"""Choice of the output's format, and what is refused before the first tile."""

import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from realesr.errors import OutputError, OutputExists, UsageError
from realesr.images.info import ImageInfo, OutputFormat
from realesr.images.output_format import check_output, check_target, output_format, output_path, suffix_for

INFO = ImageInfo(width_px=100, height_px=80, bits=8, is_grey=False, has_alpha=False, format="jpeg")
DEEP = replace(INFO, bits=16)
Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.mark.parametrize(
    ("kind", "path", "wanted", "expected"),
    [
        ("jpeg", None, None, "jpeg"),
        ("avif", None, None, "avif"),
        *((kind, None, None, "png") for kind in ("gif", "bmp", "ppm", "heic")),
        ("jpeg", "out.TIF", None, "tiff"),
        ("jpeg", "out", None, "jpeg"),
        ("jpeg", "out.webp", "png", "png"),
        ("png", None, "JPG", "jpeg"),
        ("png", None, ".tif", "tiff"),
    ],
)
def test_the_format_is_what_was_asked_then_the_suffix_then_the_inputs(
    kind: str, path: str | None, wanted: str | None, expected: str
) -> None:
    assert output_format(kind, None if path is None else Path(path), wanted) == expected


def test_unknown_formats_and_suffixes_are_refused() -> None:
    with pytest.raises(UsageError, match="'bmp' is not known, expected png, jpeg, tiff, webp or avif"):
        output_format("jpeg", None, "bmp")
    with pytest.raises(UsageError, match=r"ends in '\.gif', expected \.png, .*name the format") as caught:
        output_format("jpeg", Path("a.gif"), None)
    assert caught.value.option == "format"


def test_the_suffix_is_the_sources_own_where_it_fits() -> None:
    assert suffix_for("jpeg", Path("a.JPEG")) == ".JPEG"
    assert suffix_for("jpeg", Path("a.png")) == ".jpg"
    assert [suffix_for(fmt, Path("a")) for fmt in ("png", "tiff", "webp", "avif")] == [".png", ".tif", ".webp", ".avif"]


def test_the_default_path_carries_the_scale_and_lies_beside_the_source_or_in_the_folder() -> None:
    assert output_path(Path("in/a.JPG"), "x4", "jpeg") == Path("in/a_x4.JPG")
    assert output_path(Path("in/a.gif"), "3840px", "png") == Path("in/a_3840px.png")
    assert output_path(Path("in/a.jpg"), "x4", "webp", Path("out")) == Path("out/a_x4.webp")


def test_a_target_that_exists_is_refused_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    source.touch()
    check_target(source, target, overwrite=False)
    target.touch()
    with pytest.raises(OutputExists, match="is there already") as caught:
        check_target(source, target, overwrite=False)
    assert caught.value.option == "overwrite"
    check_target(source, target, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_target_that_is_the_source_is_always_refused(tmp_path: Path, overwrite: bool) -> None:
    source, link = tmp_path / "a.png", tmp_path / "link.png"
    source.touch()
    link.symlink_to(source)
    for target in (source, link):
        with pytest.raises(OutputError, match="would replace the input"):
            check_target(source, target, overwrite=overwrite)


@pytest.mark.parametrize(("fmt", "longest"), [("jpeg", 65_500), ("webp", 16_383), ("avif", 16_384)])
def test_the_longest_side_that_the_encoder_takes_passes_and_one_more_does_not(
    fmt: OutputFormat, longest: int, tmp_path: Path
) -> None:
    """The encoders themselves are asked, by strips of one pixel."""
    import numpy as np

    from realesr.images.writer import open_writer

    for width in (longest, longest + 1):
        info = replace(INFO, width_px=width, height_px=1)
        fits = width == longest
        if fits:
            check_output(tmp_path / "a", info, fmt)
        else:
            with pytest.raises(OutputError, match=f"{fmt.upper()}, which holds {longest:,} px a side"):
                check_output(tmp_path / "a", info, fmt)
        try:
            with open_writer(tmp_path / "a", info, fmt) as writer:
                writer.write_rows(np.zeros((1, width, 3), np.uint8))
        except OutputError:
            assert not fits
        else:
            assert fits


def test_alpha_into_jpeg_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose png, webp, tiff or avif") as caught:
        check_output(tmp_path / "a.jpg", replace(INFO, has_alpha=True), "jpeg")
    assert caught.value.option == "format"


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    cases = {"gone/a.png": "does not exist", "file/a.png": "is a file, expected a folder", "folder": "is a folder"}
    for name, words in cases.items():
        with pytest.raises(OutputError, match=words) as caught:
            check_output(tmp_path / name, INFO, "png")
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="no permissions to lack")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="may not be written to"):
        check_output(tmp_path / "a.png", INFO, "png")


def test_a_full_disk_is_refused_and_a_nearly_full_one_gives_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = replace(INFO, width_px=10_000, height_px=10_000)  # 300 MB raw

    def with_free(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))

    with_free(50_000_000)
    with pytest.raises(OutputError, match=r"has 50\.0 MB free, and the output needs 90\.0 MB to 315\.0 MB"):
        check_output(tmp_path / "a.png", big, "png")
    assert check_output(tmp_path / "a.jpg", big, "jpeg") == (
        "the disk has 50.0 MB free, and the output may need up to 120.0 MB",
    )
    with_free(400_000_000)
    assert check_output(tmp_path / "a.png", big, "png") == ()
    assert len(check_output(tmp_path / "a.png", replace(big, bits=16), "png")) == 1


@pytest.mark.parametrize("fmt", ["jpeg", "webp", "avif"])
def test_16_bit_into_8_bit_gives_a_notice(fmt: OutputFormat, tmp_path: Path) -> None:
    assert check_output(tmp_path / "a", DEEP, fmt)[0].startswith(f"{fmt.upper()} holds 8 bit a channel")
    assert check_output(tmp_path / "a", INFO, fmt) == ()
    assert check_output(tmp_path / "a", DEEP, "png") == ()


def test_xmp_too_large_for_jpeg_gives_a_notice_and_is_left_out(tmp_path: Path) -> None:
    info = replace(INFO, xmp=b"x" * 65_503)
    assert "XMP of 65,503 bytes does not fit into JPEG" in check_output(tmp_path / "a.jpg", info, "jpeg")[0]
    assert check_output(tmp_path / "a.png", info, "png") == ()
    assert check_output(tmp_path / "a.jpg", replace(INFO, xmp=b"x" * 65_502), "jpeg") == ()
