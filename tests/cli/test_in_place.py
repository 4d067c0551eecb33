"""`--in-place`: the enlargement takes the input's place, and at no moment is either lost."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from realesr.cli.upscaling import in_place
from realesr.cli.upscaling.manifest import Manifest
from realesr.errors import OutputError

from .conftest import Command, FakeUpscaler, write

NEAREST = ("--engine", "nearest", "-m", "realesr-animevideov3")

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="no such links or permissions")


def picture(path: Path, size: tuple[int, int] = (6, 4), **options: Any) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(path, **options)
    return path.read_bytes()


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_inputs_are_replaced_and_the_originals_mirrored(realesr: Command, folder: Path) -> None:
    originals = {name: picture(folder / "in" / name) for name in ("a.jpg", "deep/b.png")}
    words = ("upscale", "in", "--recursive", "--in-place", "--backup", "in/originals", "--quality", 80, *NEAREST)
    result = realesr(*words, "--json")
    assert result.exit_code == 0
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(record["source"], record["target"], record["backup"]) for record in records] == [
        (f"in/{name}", f"in/{name}", f"in/originals/{name}") for name in originals
    ]
    for name, content in originals.items():
        assert size_of(folder / "in" / name) == (24, 16)
        assert (folder / "in" / "originals" / name).read_bytes() == content
    manifests = {"realesr-manifest.jsonl", "deep/realesr-manifest.jsonl"}
    assert files_in(folder / "in") == {*originals, *(f"originals/{name}" for name in originals), *manifests}


@pytest.mark.parametrize("again", [["in"], ["in/a.png"], ["in", "--recursive", "--shard", "1/1"]])
def test_a_later_run_enlarges_nothing_again_however_it_is_named(
    realesr: Command, folder: Path, again: list[str]
) -> None:
    picture(folder / "in" / "a.png")
    words = ("--in-place", "--no-backup", *NEAREST)
    assert realesr("upscale", "in", *words).stdout == "in/a.png\n"
    second = realesr("upscale", *again, *words)
    assert (second.exit_code, second.stdout) == (0, "")
    assert second.stderr.startswith("in/a.png was enlarged in place before: skipped (--overwrite enlarges it again)")
    assert size_of(folder / "in" / "a.png") == (24, 16)
    assert realesr("upscale", *again, *words, "--overwrite").stdout == "in/a.png\n"
    assert size_of(folder / "in" / "a.png") == (96, 64)
    assert realesr("upscale", *again, *words).stdout == ""


def test_another_photo_of_the_same_name_is_enlarged(realesr: Command, folder: Path) -> None:
    picture(folder / "a.png")
    words = ("upscale", "a.png", "--in-place", "--no-backup", *NEAREST)
    realesr(*words)
    picture(folder / "a.png", (5, 3))
    assert realesr(*words).stdout == "a.png\n"
    assert size_of(folder / "a.png") == (20, 12)


def test_an_earlier_backup_is_never_replaced(realesr: Command, folder: Path) -> None:
    original = picture(folder / "a.png")
    words = ("upscale", "a.png", "--in-place", "--backup", "kept", *NEAREST)
    assert realesr(*words).exit_code == 0
    second = realesr(*words, "--overwrite")
    assert second.exit_code == 1
    assert second.stderr == "error: kept/a.png is there already, with other content: name another folder by --backup\n"
    assert (folder / "kept" / "a.png").read_bytes() == original
    assert size_of(folder / "a.png") == (24, 16)


def test_a_backup_on_another_disk_is_a_copy_with_the_files_time(
    realesr: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    original = picture(folder / "a.png")
    os.utime(folder / "a.png", (1_000_000, 1_000_000))
    assert realesr("upscale", "a.png", "--in-place", "--backup", "kept", *NEAREST).exit_code == 0
    assert (folder / "kept" / "a.png").read_bytes() == original
    assert (folder / "kept" / "a.png").stat().st_mtime == 1_000_000
    assert files_in(folder / "kept") == {"a.png"}


def test_what_a_file_holds_decides_its_format_and_its_name_stays(realesr: Command, folder: Path) -> None:
    picture(folder / "really.jpg", format="PNG")
    result = realesr("upscale", "really.jpg", "--in-place", "--no-backup", *NEAREST)
    assert result.stdout == "really.jpg\n"
    with Image.open(folder / "really.jpg") as image:
        assert (image.format, image.size) == ("PNG", (24, 16))


@posix_only
def test_permissions_stay(realesr: Command, folder: Path) -> None:
    picture(folder / "a.png")
    (folder / "a.png").chmod(0o640)
    realesr("upscale", "a.png", "--in-place", "--no-backup", *NEAREST)
    assert (folder / "a.png").stat().st_mode & 0o777 == 0o640


def broken_off(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


STEPS: list[tuple[Any, str]] = [(os, "link"), (in_place, "_sync_folder"), (Manifest, "add_replaced"), (os, "replace")]


@pytest.mark.parametrize("failure", [broken_off, full])
@pytest.mark.parametrize(("owner", "step"), STEPS)
def test_nothing_is_lost_at_any_step_and_the_next_run_goes_on(
    realesr: Command,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    step: str,
    failure: Callable[..., None],
) -> None:
    original = picture(folder / "a.png")
    words = ("upscale", "a.png", "--in-place", "--backup", "kept", *NEAREST)
    if step == "link" and failure is full:
        monkeypatch.setattr(in_place, "_copy_whole", full)
    with monkeypatch.context() as patched:
        real = getattr(owner, step)
        at = folder / "a.png"

        def fail_at_the_input(*given: Any, **options: Any) -> Any:
            if step == "replace" and Path(given[1]).absolute() != at:
                return real(*given, **options)
            return failure()

        patched.setattr(owner, step, fail_at_the_input)
        assert realesr(*words).exit_code == (130 if failure is broken_off else 1)
    assert (folder / "a.png").read_bytes() == original
    assert [name for name in files_in(folder) if name.startswith(".")] == []
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert realesr(*words).stdout == "a.png\n"
    assert size_of(folder / "a.png") == (24, 16)
    assert (folder / "kept" / "a.png").read_bytes() == original


def test_a_photo_that_changes_meanwhile_is_left_as_it_is(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    picture(folder / "a.png")

    def edit() -> None:
        (folder / "a.png").write_bytes(b"edited")

    fake.before_step = edit
    result = realesr("upscale", "a.png", "--in-place", "--no-backup")
    assert result.exit_code == 1
    assert result.stderr == "error: a.png has changed while it was enlarged, and was left as it is: start again\n"
    assert (folder / "a.png").read_bytes() == b"edited"


def test_without_a_manifest_nothing_is_replaced(realesr: Command, folder: Path) -> None:
    original = picture(folder / "a.png")
    (folder / "realesr-manifest.jsonl").mkdir()
    result = realesr("upscale", "a.png", "--in-place", "--no-backup", *NEAREST)
    assert result.exit_code == 1
    assert "realesr-manifest.jsonl cannot be written" in result.stderr
    assert (folder / "a.png").read_bytes() == original


def test_what_cannot_be_replaced_fails_before_the_network_is_opened(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    image = Image.new("RGB", (6, 4))
    image.save(folder / "a.gif")
    image.save(folder / "b.bmp")
    image.save(folder / "pages.tif", save_all=True, append_images=[image])
    result = realesr("upscale", ".", "--in-place", "--no-backup")
    assert (result.exit_code, result.stdout, fake.opened) == (1, "", 0)
    assert result.stderr.splitlines()[:3] == [
        "error: a.gif is GIF, which is not written: enlarge it with -o, into another file",
        "error: b.bmp is BMP, which is not written: enlarge it with -o, into another file",
        "error: pages.tif holds several images, and one alone would take their place: enlarge it with -o",
    ]
    assert realesr("upscale", ".").exit_code == 0  # none of it is a failure of the files themselves


def test_a_second_image_that_is_not_read_is_not_lost_either(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    first, second = Image.new("RGB", (6, 4)), Image.new("F", (6, 4))
    first.save(folder / "pages.tif", save_all=True, append_images=[second])
    result = realesr("upscale", "pages.tif", "--in-place", "--no-backup")
    assert (result.exit_code, fake.opened) == (1, 0)
    assert result.stderr.startswith("error: pages.tif")


@posix_only
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write to anything")
def test_a_write_protected_photo_stays(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    picture(folder / "a.png")
    (folder / "a.png").chmod(0o444)
    result = realesr("upscale", "a.png", "--in-place", "--no-backup")
    assert "a.png is write-protected and is not replaced" in result.stderr
    assert fake.opened == 0


@posix_only
def test_a_link_is_not_replaced_by_a_file(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    picture(folder / "elsewhere" / "a.png")
    (folder / "a.png").symlink_to("elsewhere/a.png")
    result = realesr("upscale", "a.png", "--in-place", "--no-backup")
    assert result.stderr == "error: a.png is a link to elsewhere/a.png: name the file itself to replace it\n"
    assert (folder / "a.png").is_symlink()


@posix_only
@pytest.mark.parametrize("words", [["in"], ["in/a.png", "in/b.png"], ["in/b.png", "in/a.png"]])
def test_a_link_to_a_photo_does_not_stand_for_it(realesr: Command, folder: Path, words: list[str]) -> None:
    picture(folder / "in" / "b.png")
    (folder / "in" / "a.png").symlink_to("b.png")
    result = realesr("upscale", *words, "--in-place", "--no-backup", *NEAREST)
    assert (result.exit_code, result.stdout) == (0, "in/b.png\n")
    assert size_of(folder / "in" / "b.png") == size_of(folder / "in" / "a.png") == (24, 16)
    assert (folder / "in" / "a.png").is_symlink()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a.png --in-place", "got --in-place with neither --backup nor --no-backup: expected --backup FOLDER"),
        ("a.png --in-place --backup kept --no-backup", "got --in-place with --backup and --no-backup"),
        ("a.png --in-place --no-backup -o out", "got --in-place and -o, which contradict each other"),
        ("a.png --in-place --no-backup --name {stem}", "got --in-place and --name"),
        ("a.png --in-place --no-backup --format png", "got --in-place and --format"),
        ("a.png --backup kept", "got --backup without --in-place"),
        ("a.png --no-backup", "got --no-backup without --in-place"),
        ("a.png --in-place --backup a.png", "got --backup a.png, which is no folder"),
        ("a.png --in-place --backup a.png/kept/deep", "got --backup a.png/kept/deep, which is no folder"),
        ("a.png --in-place --backup .", "got --backup ., where a.png lies itself: name another folder"),
        ("a.png in/a.png --in-place --backup kept", "a.png and in/a.png would both be kept as kept/a.png"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage(
    realesr: Command, fake: FakeUpscaler, folder: Path, words: str, message: str
) -> None:
    write(folder, "a.png", "in/a.png")
    result = realesr("upscale", *words.split())
    assert (result.exit_code, result.stdout, fake.opened) == (2, "", 0)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert files_in(folder) == {"a.png", "in/a.png"}


def test_errors_name_the_input_and_never_the_hidden_file(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path, **_: object) -> None:
        raise OutputError(f"{target} cannot be written", option="output")  # which in place has no -o to name another

    picture(folder / "a.png")
    monkeypatch.setattr(fake, "upscale_file", fail)
    assert realesr("upscale", "a.png", "--in-place", "--no-backup").stderr == "error: a.png cannot be written\n"
