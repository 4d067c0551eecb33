"""Which files are read, and which are written."""

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from realesr.cli.files import (
    Found,
    Job,
    Output,
    find_images,
    job_state,
    make_folder,
    output_at,
    plan_jobs,
    source_of,
    source_stems,
    without_outputs,
)
from realesr.errors import OutputError, UsageError

from .conftest import write


def found_in(*paths: Path, recursive: bool = False, output: Path | None = None) -> list[str]:
    found, _ = find_images(paths, recursive=recursive, output=output)
    return [str(image.path.relative_to(paths[0])) if paths[0].is_dir() else image.path.name for image in found]


def targets(*names: str, output: Output | None = None, ending: str = "x4") -> list[str]:
    jobs = plan_jobs([Found(Path(name)) for name in names], ending=ending, output=output or Output())
    return [str(job.target) for job in jobs]


def test_a_folder_gives_its_images_in_order_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, "b.JPG", "a.png", "notes.txt", ".hidden.png", "deep/c.tif", "folder.png/inside.txt")
    assert found_in(tmp_path) == ["a.png", "b.JPG"]


def test_recursive_goes_below_but_not_into_hidden_folders(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "deep/deeper/c.webp", ".git/d.png")
    assert found_in(tmp_path, recursive=True) == ["a.png", "deep/deeper/c.webp"]


def test_the_output_folder_is_not_searched_where_it_lies_below_the_input(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "out/a_x4.png", "other/b.png")
    assert found_in(tmp_path, recursive=True, output=tmp_path / "out") == ["a.png", "other/b.png"]
    assert found_in(tmp_path, recursive=True, output=tmp_path) == ["a.png", "other/b.png", "out/a_x4.png"]


def test_each_image_is_taken_once(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    found, _ = find_images([tmp_path / "b.png", tmp_path, tmp_path / "a.png"], recursive=False)
    assert [image.path.name for image in found] == ["b.png", "a.png"]


def test_a_link_to_a_folder_above_does_not_go_round_for_ever(tmp_path: Path) -> None:
    write(tmp_path, "deep/a.png")
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    assert found_in(tmp_path, recursive=True) == ["deep/a.png"]


def test_missing_images_are_reported_beside_those_that_were_found(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "empty/notes.txt")
    missing, empty = tmp_path / "missing.png", tmp_path / "empty"
    found, failures = find_images([missing, tmp_path / "a.png", empty], recursive=False)
    assert [image.path.name for image in found] == ["a.png"]
    assert [path for path, _ in failures] == [missing, empty]
    assert "does not exist" in str(failures[0][1])
    assert "without images" in str(failures[1][1])
    assert "--recursive" not in str(failures[1][1])


def test_a_folder_of_folders_leads_to_advice_about_recursive(tmp_path: Path) -> None:
    write(tmp_path, "deep/a.png")
    _, failures = find_images([tmp_path], recursive=False)
    assert "--recursive" in str(failures[0][1])


@pytest.mark.parametrize(
    ("name", "others", "is_own"),
    [
        ("photo_x4.png", ["photo.jpg"], True),
        ("photo_x2.5.jpg", ["photo.jpg"], True),
        ("photo_bmp_x4.png", ["photo.bmp", "photo.png"], True),
        ("photo_x4.jpg", ["other.jpg"], False),
        ("photo_x4.jpg", [], False),
        ("bmw_x5_black.jpg", ["bmw.jpg"], False),
        ("photo_x4_x2.jpg", ["photo_x4.jpg"], True),
        ("_x4.jpg", [".jpg"], False),
    ],
)
def test_outputs_of_earlier_runs_are_known_by_their_source(name: str, others: list[str], is_own: bool) -> None:
    assert (source_of(name, source_stems([name, *others])) is not None) is is_own


def test_a_second_run_over_a_folder_finds_the_same_images(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "a.bmp", "a.png", "b.gif", "c_x4.png")
    first, _ = find_images([tmp_path], recursive=False)
    for job in plan_jobs(first, ending="x2.5", output=Output()):
        job.target.write_bytes(b"enlarged")
    second, _ = find_images([tmp_path], recursive=False)
    assert second == first


def test_the_default_output_lies_beside_the_input_and_says_its_scale() -> None:
    assert targets("in/photo.jpg") == ["in/photo_x4.jpg"]
    assert targets("photo.jpg", ending="x2.5") == ["photo_x2.5.jpg"]
    assert targets("two.dots.TIFF", ending="x16") == ["two.dots_x16.TIFF"]


@pytest.mark.parametrize("name", ["a.gif", "a.bmp", "a.ppm", "a.heic", "a"])
def test_what_cannot_be_written_becomes_png(name: str) -> None:
    assert targets(name) == ["a_x4.png"]


def test_the_kind_that_a_file_holds_decides_its_format_not_its_suffix(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "really.jpg", "PNG")
    Image.new("RGB", (2, 2)).save(tmp_path / "bare", "JPEG")
    found, _ = find_images([tmp_path / "really.jpg", tmp_path / "bare"], recursive=False)
    jobs = plan_jobs(found, ending="x4", output=Output())
    assert [job.target.name for job in jobs] == ["really_x4.png", "bare_x4.jpg"]


def test_a_wanted_format_changes_the_suffix_only_where_it_must() -> None:
    jpeg = Output(format="jpeg")
    assert targets("a.png", "b.JPEG", "c.jfif", output=jpeg) == ["a_x4.jpg", "b_x4.JPEG", "c_x4.jfif"]


def test_folders_are_mirrored_below_the_output() -> None:
    jobs = plan_jobs([Found(Path("in/deep/a.png"), Path("deep"))], ending="x4", output=Output(Path("out")))
    assert jobs == [Job(Path("in/deep/a.png"), Path("out/deep/a_x4.png"))]


def test_images_of_one_name_keep_their_suffix_in_the_name_of_the_output() -> None:
    assert targets("a.bmp", "a.png", "b.bmp") == ["a_bmp_x4.png", "a_png_x4.png", "b_x4.png"]


def test_images_of_one_name_from_two_folders_are_refused_for_one_output_folder() -> None:
    with pytest.raises(UsageError, match=r"one/a\.png and two/a\.png would both be written to out/a_png_x4\.png"):
        targets("one/a.png", "two/a.png", output=Output(Path("out")))


def test_names_that_differ_in_case_only_are_one_file_on_some_systems() -> None:
    found = [Found(Path("one/a.png")), Found(Path("two/A.png"))]
    assert len(plan_jobs(found, ending="x4", output=Output(Path("out")), folds_case=False)) == 2
    with pytest.raises(UsageError, match="would both be written"):
        plan_jobs(found, ending="x4", output=Output(Path("out")), folds_case=True)


def test_an_output_that_is_an_input_is_refused() -> None:
    with pytest.raises(UsageError, match=r"in/\.\./a\.png would be written over the input"):
        targets("in/../a.png", output=Output(Path("a.png"), is_folder=False))
    with pytest.raises(UsageError, match=r"a\.png would be written over the input a_x4\.png"):
        targets("a.png", "a_x4.png")


STEMS = st.sampled_from(["a", "b", "a_png", "a_x4", "a_png_x4", ""])
SUFFIXES = st.sampled_from([".png", ".PNG", ".jpg", ".jpeg", ".gif", ".bmp", ""])
NAMES = st.builds(lambda stem, suffix: Path(stem + suffix or "c"), STEMS, SUFFIXES)
FOUND = st.builds(
    lambda folder, name: Found(Path("in") / folder / name, Path(folder)), st.sampled_from([".", "d", "d/e"]), NAMES
)
OUTPUTS = st.builds(
    lambda path, fmt: Output(path, format=fmt),
    st.sampled_from([None, Path("out"), Path("in"), Path("in/d")]),
    st.sampled_from([None, "png", "jpeg"]),
)


@given(
    st.lists(FOUND, max_size=8, unique_by=lambda image: image.path),
    OUTPUTS,
    st.sampled_from(["x1", "x2.5", "3840px"]),
    st.booleans(),
)
def test_every_plan_writes_each_file_once_and_no_input_or_is_refused(
    found: list[Found], output: Output, ending: str, folds_case: bool
) -> None:
    try:
        jobs = plan_jobs(found, ending=ending, output=output, folds_case=folds_case)
    except UsageError:
        return
    names = [str(job.target).casefold() if folds_case else str(job.target) for job in jobs]
    sources = [str(job.source).casefold() if folds_case else str(job.source) for job in jobs]
    assert [job.source for job in jobs] == [image.path for image in found]
    assert len(set(names)) == len(names)
    assert not set(names) & set(sources)


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, unique=True), st.sampled_from([".png", ".gif", ".bmp"]))
def test_images_with_names_of_their_own_are_never_refused(stems: list[str], suffix: str) -> None:
    assert targets(*(stem + suffix for stem in stems)) == [f"{stem}_x4.png" for stem in stems]


def test_a_path_with_a_known_suffix_is_a_file_and_everything_else_a_folder(tmp_path: Path) -> None:
    (tmp_path / "is.png").mkdir()
    assert output_at("out.png", many=False, wanted=None) == Output(Path("out.png"), is_folder=False, format="png")
    assert output_at("out", many=False, wanted=None) == Output(Path("out"))
    assert output_at("out.png/", many=False, wanted="webp") == Output(Path("out.png"), format="webp")
    assert output_at("v1.2", many=True, wanted=None) == Output(Path("v1.2"))
    assert output_at(str(tmp_path / "is.png"), many=True, wanted=None).is_folder
    assert output_at(None, many=True, wanted="tiff") == Output(format="tiff")


@pytest.mark.parametrize(
    ("text", "many", "wanted", "words"),
    [
        ("out.png", True, None, "names one file, for many inputs"),
        ("out.xyz", False, None, "got -o out.xyz, expected a folder"),
        ("out.gif", False, None, "got -o out.gif, expected a folder"),
        ("out.png", False, "jpeg", "contradict"),
    ],
)
def test_outputs_that_make_no_sense_are_refused(text: str, many: bool, wanted: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        output_at(text, many=many, wanted=wanted)


def test_an_existing_output_is_skipped_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "a_x4.png")
    job = Job(tmp_path / "a.png", tmp_path / "a_x4.png")
    assert "--overwrite" in (job_state(job, overwrite=False) or "")
    assert job_state(job, overwrite=True) is None
    assert job_state(Job(job.source, tmp_path / "new.png"), overwrite=False) is None


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_link_to_the_input_is_not_overwritten(tmp_path: Path, link: object) -> None:
    write(tmp_path, "a.png")
    target = tmp_path / "linked.png"
    link(target, tmp_path / "a.png")  # type: ignore[operator]
    with pytest.raises(OutputError, match="is the input"):
        job_state(Job(tmp_path / "a.png", target), overwrite=True)


def test_what_a_shell_makes_of_a_star_the_second_time_is_told_from_the_sources() -> None:
    found = [Found(Path(name)) for name in ("a.jpg", "a_x4.jpg", "a_x4_x4.jpg", "b.png", "b_png_x2.webp", "c_x4.jpg")]
    kept, outputs = without_outputs(found, ending="x4", output=Output())
    assert [image.path.name for image in kept] == ["a.jpg", "b.png", "c_x4.jpg"]
    assert [path.name for path, _ in outputs] == ["a_x4.jpg", "a_x4_x4.jpg", "b_png_x2.webp"]
    assert "a_x4.jpg is taken for an output of a.jpg: skipped" in outputs[0][1]


def test_an_image_is_taken_for_an_output_only_beside_its_source_or_where_it_would_be_written() -> None:
    found = [Found(Path(name)) for name in ("one/a.jpg", "two/a_x4.jpg", "out/a_x4.jpg")]
    kept, _ = without_outputs(found, ending="x4", output=Output())
    assert len(kept) == 3
    kept, outputs = without_outputs(found, ending="x4", output=Output(Path("out")))
    assert [path for path, _ in outputs] == [Path("out/a_x4.jpg")]
    lone, none = without_outputs([Found(Path("a_x4.jpg"))], ending="x4", output=Output())
    assert (len(lone), none) == (1, [])


def test_a_second_run_over_thousands_of_files_is_planned_at_once(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(5000)]
    found = [Found(tmp_path / name) for name in (*names, *(name.replace(".", "_x4.") for name in names))]
    started = time.monotonic()
    kept, outputs = without_outputs(found, ending="x4", output=Output())
    assert (len(kept), len(outputs)) == (5000, 5000)
    assert time.monotonic() - started < 10


@pytest.mark.skipif(sys.platform == "win32", reason="no such files")
def test_what_is_no_readable_file_in_a_folder_is_named_and_the_others_are_found(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "z.png", "deep/b.png")
    (tmp_path / "dead.jpg").symlink_to("gone.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "dead.txt").symlink_to("gone.txt")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    found, failures = find_images([tmp_path], recursive=True)
    assert [image.path.name for image in found] == ["a.png", "z.png", "b.png"]
    assert {path.name: str(error) for path, error in failures} == {
        "dead.jpg": f"{tmp_path}/dead.jpg is a link to gone.jpg, which does not exist",
        "loop.jpg": f"{tmp_path}/loop.jpg cannot be read: Too many levels of symbolic links",
        "pipe.png": f"{tmp_path}/pipe.png is a pipe: expected an image file; write the data to a file first",
    }


def test_a_folder_that_cannot_be_listed_is_named_and_the_others_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.png", "closed/b.png", "open/c.png")
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    found, failures = find_images([tmp_path, tmp_path / "closed"], recursive=True)
    assert [image.path.name for image in found] == ["a.png", "c.png"]
    assert [str(error) for _, error in failures] == [f"{tmp_path}/closed cannot be read: Permission denied"] * 2


def test_arguments_that_no_disk_takes_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    arguments = [tmp_path / ("x" * 300), tmp_path / ("d/" * 3000), tmp_path / "a.png" / "b.png", tmp_path / "a.png"]
    found, failures = find_images(arguments, recursive=False)
    assert [image.path.name for image in found] == ["a.png"]
    assert ["too long" in str(error) for _, error in failures] == [True, True, False]
    assert "does not exist: expected an image or a folder" in str(failures[2][1])


@pytest.mark.skipif(sys.platform == "win32", reason="other limits")
def test_a_name_that_becomes_too_long_is_told_with_its_length(tmp_path: Path) -> None:
    source = tmp_path / ("L" * 251 + ".png")
    job = Job(source, source.with_name("L" * 251 + "_x4.png"))
    with pytest.raises(OutputError, match="its name has 258 bytes, and the disk takes 255"):
        job_state(job, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_file_is_never_taken_for_an_earlier_output(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "a_x4.png").mkdir()
    with pytest.raises(OutputError, match="is a folder, expected a file name"):
        job_state(Job(tmp_path / "a.png", tmp_path / "a_x4.png"), overwrite=overwrite)


@pytest.mark.skipif(sys.platform == "win32", reason="no such files")
def test_pipes_and_devices_are_no_outputs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for text in ("/dev/null", str(tmp_path / "pipe.png")):
        with pytest.raises(UsageError, match="is a pipe or a device"):
            output_at(text, many=False, wanted=None)
    with pytest.raises(OutputError, match="is a pipe, expected a file name"):
        job_state(Job(tmp_path / "a.png", tmp_path / "pipe.png"), overwrite=True)


def test_a_folder_for_outputs_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "file")
    make_folder(tmp_path / "new/deeper")
    make_folder(tmp_path / "new/deeper")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(OutputError, match=r"file is no folder: expected one for the output"):
            make_folder(folder)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.mkdir", read_only)
    with pytest.raises(OutputError, match=r"the folder .*other cannot be made \(Read-only file system\)"):
        make_folder(tmp_path / "other")
