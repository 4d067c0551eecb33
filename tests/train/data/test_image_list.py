"""Tries folders, lists and pairs of images, and the messages where some are missing."""

import os
import sys
from pathlib import Path

import pytest

from realesr.errors import InputError, OutputError
from realesr.train.data.image_list import find_training_images, names_below, write_image_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "deep/er/c.tif", "deep/notes.md", ".hidden.png", ".cache/d.png", "sp ace, 1.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")
    return tmp_path / "photos"


def names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_is_enough(folder: Path) -> None:
    assert names(find_training_images([folder]), folder) == ["a.PNG", "b.jpg", "deep/er/c.tif", "sp ace, 1.webp"]


def test_every_image_comes_once_however_it_was_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    found = find_training_images([folder, folder / "b.jpg", Path("photos/deep/../b.jpg"), Path("photos/deep")])
    assert len(found) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own there")
def test_links_to_folders_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "linked.png").write_bytes(b"image")
    (folder / "link").symlink_to(other)
    (other / "back").symlink_to(folder)
    assert names(find_training_images([folder]), folder)[-2:] == ["link/linked.png", "sp ace, 1.webp"]
    assert len(find_training_images([folder])) == 5


def test_a_list_names_images_beside_it(folder: Path) -> None:
    text = "\ufeff# good ones\nb.jpg (480,480,3)\n\ndeep/er/c.tif, lq/c.tif\nsp ace, 1.webp\r\n"
    (folder / "meta_info.txt").write_text(text, "utf-8")
    found = find_training_images([folder / "meta_info.txt"])
    assert names(found, folder) == ["b.jpg", "deep/er/c.tif", "sp ace, 1.webp"]


def test_a_list_may_lie_elsewhere_than_its_images(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("b.jpg\n")
    assert find_training_images([tmp_path / "list.txt"], root=folder) == [folder / "b.jpg"]
    (tmp_path / "list.txt").write_text(f"{folder / 'b.jpg'}\n")
    assert find_training_images([tmp_path / "list.txt"]) == [folder / "b.jpg"]


def test_all_missing_images_are_counted_and_the_first_named(folder: Path) -> None:
    (folder / "list.txt").write_text("b.jpg\n" + "".join(f"gone{number}.png\n" for number in range(7)))
    with pytest.raises(
        InputError, match=r"^7 of 8 images: .*gone0\.png, .*gone4\.png and 2 more do not exist"
    ) as raised:
        find_training_images([folder / "list.txt"])
    assert "\n" not in str(raised.value)


def test_one_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^\S*no/such/folder does not exist: check the paths$"):
        find_training_images([tmp_path / "no/such/folder"])


@pytest.mark.parametrize("make", ["folder", "list"])
def test_where_no_image_is_found_that_is_said(tmp_path: Path, make: str) -> None:
    path = tmp_path / ("empty" if make == "folder" else "empty.txt")
    if make == "folder":
        path.mkdir()
        (path / "readme.md").write_text("no image")
    else:
        path.write_text("# nothing\n")
    with pytest.raises(InputError, match=r"empty(\.txt)?: found no images, expected \.jpg"):
        find_training_images([path])


def test_a_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match=r"list\.txt is no text in UTF-8"):
        find_training_images([tmp_path / "list.txt"])


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not hold here")
def test_a_folder_that_may_not_be_searched_is_named(folder: Path) -> None:
    (folder / "deep").chmod(0)
    try:
        with pytest.raises(InputError, match="deep cannot be searched"):
            find_training_images([folder])
    finally:
        (folder / "deep").chmod(0o755)


def test_a_list_that_is_written_is_read_as_it_was(folder: Path, tmp_path: Path) -> None:
    (folder / "#1.png").write_bytes(b"image")
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"image")
    images = find_training_images([folder, outside])
    write_image_list(folder / "good.txt", images)
    assert find_training_images([folder / "good.txt"]) == images
    assert "b.jpg\n" in (folder / "good.txt").read_text()


def test_a_list_that_cannot_be_written_is_an_error_and_leaves_nothing(folder: Path) -> None:
    with pytest.raises(OutputError, match=r"b\.jpg.good\.txt cannot be written"):
        write_image_list(folder / "b.jpg" / "good.txt", [folder / "b.jpg"])
    assert not list(folder.rglob("*.part"))


def test_names_are_relative_to_the_folder_or_list_that_named_an_image(folder: Path, tmp_path: Path) -> None:
    (folder / "list.txt").write_text("deep/er/c.tif\n../elsewhere.png\n")
    (tmp_path / "elsewhere.png").write_bytes(b"image")
    images = [folder / "deep" / "er" / "c.tif", tmp_path / "elsewhere.png"]
    assert names_below(images, [folder / "list.txt"]) == [Path("deep/er/c.tif"), Path("elsewhere.png")]
    assert names_below(images[:1], [folder / "deep"]) == [Path("er/c.tif")]
    assert names_below(images[:1], images[:1]) == [Path("c.tif")]


def test_what_a_folder_has_that_is_no_file_is_left_to_who_reads_it(folder: Path) -> None:
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    assert folder / "nowhere.png" in find_training_images([folder])
    with pytest.raises(InputError, match=r"nowhere\.png does not exist"):
        find_training_images([folder / "nowhere.png"])
