"""`realesr data`: what it prints, what it writes, and its exit codes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from realesr.cli.data import factors_in, few_images
from realesr.errors import UsageError
from realesr.machine import cgroup
from realesr.train.data import check, prepare
from tests.images.image_files import photo

from .conftest import Command


@pytest.fixture
def run(realesr: Command) -> Command:
    """`run("check", path)`: the command in this process."""
    return lambda *arguments: realesr("data", *arguments)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 7, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((120, 100), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    Image.fromarray(photo(30, 200)).save(folder / "thin.png")
    return folder


def test_faults_go_to_stdout_between_tabs_and_numbers_to_stderr(run: Command, photos: Path) -> None:
    result = run("check", photos, "--crop", 50)
    assert result.exit_code == 0
    line = f"{photos / 'thin.png'}\ttiny\t200 x 30 px, smaller than the crop of 50 px"
    assert result.stdout.splitlines() == [line]
    assert result.stderr.splitlines() == [
        "3 images, 0.0 MP: 1 tiny",
        "limits: sides of 50 px, JPEG quality 75, structure 0.05, sharpness 0.45, noise 6 levels",
        "2 good, 0.0 MP: room for 8 crops of 50 px side by side",
        "fewer than 100 good images: enough for a trial, too few for a network of use",
        "training would hold out 1 image to validate on: scores of fewer than 5 say little about others",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own there")
def test_a_link_to_nothing_is_an_image_that_cannot_be_read(run: Command, photos: Path) -> None:
    (photos / "linked.png").symlink_to(photos / "gone.png")
    result = run("check", photos, "--crop", 20)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{photos / 'linked.png'}\tunreadable\t{photos / 'linked.png'} is a link to ")


def test_few_images_are_told_until_there_are_enough_to_train_and_validate_on() -> None:
    assert len(list(few_images(19))) == 2
    assert list(few_images(20)) == ["fewer than 100 good images: enough for a trial, too few for a network of use"]
    assert list(few_images(100)) == []


def test_flat_blurred_and_noisy_images_are_told_with_what_was_measured_and_the_limit(
    run: Command, photos: Path
) -> None:
    image = Image.open(photos / "0.png")
    image.rotate(180).filter(ImageFilter.GaussianBlur(2)).save(photos / "blurred.png")
    noise = np.random.default_rng(0).normal(0, 20, (100, 120, 3))
    darker = np.asarray(image.rotate(180)) / 2 + 20
    Image.fromarray(np.clip(darker + noise, 0, 255).astype(np.uint8)).save(photos / "noisy.png")
    Image.new("RGB", (120, 100), (30, 90, 160)).save(photos / "flat.png")
    rows = [line.split("\t") for line in run("check", photos, "--crop", 20).stdout.splitlines()]
    told = {Path(path).stem: (fault, detail) for path, fault, detail in rows}
    assert {name: fault for name, (fault, _) in told.items()} == {
        "blurred": "blurred",
        "flat": "flat",
        "noisy": "noisy",
    }
    assert told["flat"][1] == "edges or texture in 0.0% of its area, below 5.0%"
    assert re.fullmatch(r"sharpness 0\.3\d, below 0\.45", told["blurred"][1])
    assert re.fullmatch(r"noise of 1\d\.\d levels, above 6", told["noisy"][1])
    rows = [line.split("\t") for line in run("check", photos, "--crop", 20, "--min-structure", 0).stdout.splitlines()]
    assert [fault for _, fault, _ in rows] == ["blurred", "noisy"]  # what has no structure has no sharpness either
    limits = ("--min-structure", 0, "--min-sharpness", 0, "--max-noise", 255)
    assert run("check", photos, "--crop", 20, *limits).stdout == ""


def test_as_many_images_are_read_at_once_as_the_container_allows_cores(
    run: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota of one core of a machine with many: threads beyond it would only wait for each other."""
    (tmp_path / "membership").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(cgroup, "_MOUNT", tmp_path)
    monkeypatch.setattr(cgroup, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    counts: list[int] = []

    def counted(_work: object, _items: object, threads: int) -> tuple[()]:
        counts.append(threads)
        return ()

    for module in (check, prepare):
        monkeypatch.setattr(module, "in_threads", counted)
    run("check", photos)
    run("prepare", photos, "-o", tmp_path / "out")
    assert counts == [1, 1]


def test_an_image_that_cannot_be_read_is_exit_code_1(run: Command, photos: Path) -> None:
    (photos / "half.png").write_bytes((photos / "0.png").read_bytes()[:300])
    result = run("check", photos, "--crop", 50, "--quiet")
    assert result.exit_code == 1
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["unreadable", "tiny"]
    assert result.stderr == ""


def test_a_folder_without_faults_prints_nothing_to_stdout(run: Command, photos: Path) -> None:
    result = run("check", photos, "--crop", 20)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("3 images, 0.0 MP: no faults\n")


def test_json_has_an_object_for_every_image(run: Command, photos: Path) -> None:
    result = run("check", photos, "--crop", 50, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["fault"] for record in records] == [None, None, "tiny"]
    assert [record["path"] for record in records] == [str(photos / name) for name in ("0.png", "1.png", "thin.png")]
    assert (records[0]["width_px"], records[0]["height_px"], records[0]["bits"]) == (120, 100, 8)
    assert records[0]["sharpness"] > records[0]["limits"]["least_sharpness"] == 0.45
    assert records[2]["structure"] is None  # too thin to be measured


def test_the_list_of_good_images_can_be_read_again(run: Command, photos: Path) -> None:
    target = photos / "good.txt"
    assert run("check", photos, "--crop", 50, "--write-list", target).exit_code == 0
    assert target.read_text() == "0.png\n1.png\n"
    result = run("check", target, "--crop", 50)
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_list_that_is_there_is_kept_unless_it_is_said(run: Command, photos: Path) -> None:
    target = photos / "good.txt"
    target.write_text("mine\n")
    result = run("check", photos, "--write-list", target)
    assert (result.exit_code, target.read_text()) == (1, "mine\n")
    assert "is there already" in result.stderr
    assert run("check", photos, "--write-list", target, "--crop", 50, "--overwrite").exit_code == 0
    assert target.read_text() == "0.png\n1.png\n"


def test_names_in_a_list_may_be_relative_to_a_root(run: Command, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("0.png\nthin.png\n")
    result = run("check", tmp_path / "list.txt", "--root", photos, "--crop", 50)
    assert result.stdout.startswith(f"{photos / 'thin.png'}\ttiny")


@pytest.mark.parametrize("command", ["check", "prepare"])
def test_what_is_missing_is_one_line(run: Command, tmp_path: Path, command: str) -> None:
    result = run(command, tmp_path / "gone", *(["-o", tmp_path / "out"] if command == "prepare" else []))
    assert result.exit_code == 1
    assert result.stderr == f"error: {tmp_path / 'gone'} does not exist: check the paths\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("--crop", 0), ("--min-quality", 101), ("--threads", 0), ("--max-noise", -1)])
def test_options_out_of_range_are_exit_code_2(run: Command, photos: Path, arguments: tuple[str, int]) -> None:
    assert run("check", photos, *arguments).exit_code == 2


def test_prepare_prints_the_folder_and_says_what_it_did(run: Command, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("prepare", photos, "-o", out, "--crop", 50, "--step", 50, "--shortest", 0, "--scales", "0.5,1/3")
    result = run(*arguments)
    assert result.exit_code == 0
    assert result.stdout == f"{out}\n"
    # 120 x 100: six squares of 50; 60 x 50: two of them.
    assert len(list(out.glob("*.png"))) == 2 * (6 + 2)
    assert result.stderr.splitlines() == [
        "16 files written",
        "2 versions left out: smaller than 50 px",
        f"1 image left out, smaller than 50 px: {photos / 'thin.png'}",
    ]
    assert run(*arguments).stderr.startswith("0 files written, 16 were there already\n")


def test_prepare_can_leave_originals_and_squares_out(run: Command, photos: Path, tmp_path: Path) -> None:
    options = ("--crop", 0, "--shortest", 0, "--scales", "0.5", "--no-originals")
    assert run("prepare", photos, "-o", tmp_path / "out", *options).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["0T0.png", "1T0.png", "thinT0.png"]


def test_what_cannot_be_read_is_an_error_at_the_end(run: Command, photos: Path, tmp_path: Path) -> None:
    (photos / "00.png").write_bytes((photos / "0.png").read_bytes()[:300])
    result = run("prepare", photos, "-o", tmp_path / "out", "--crop", 50)
    assert result.exit_code == 1
    assert "00.png is truncated or damaged" in result.stderr.splitlines()[-1]
    assert result.stdout == f"{tmp_path / 'out'}\n"


@pytest.mark.parametrize("below", ["", "ready"])
def test_what_is_written_must_not_be_read_the_next_time(run: Command, photos: Path, below: str) -> None:
    result = run("prepare", photos, "-o", photos / below)
    assert result.exit_code == 2
    assert "which lies in" in result.stderr


def test_scales_are_numbers_and_fractions() -> None:
    assert factors_in("0.75, 0.5,1/3") == (0.75, 0.5, 1 / 3)
    assert factors_in("none") == ()
    for text in ("", "half", "1/0", "0.5,,0.3"):
        with pytest.raises(UsageError, match="got --scales"):
            factors_in(text)


def test_neither_command_needs_torch(photos: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from realesr.cli.app import build_app\n"
        "build_app()(['data', *sys.argv[1:]], standalone_mode=False)"
    )
    for arguments in (("check", photos, "--crop", "50"), ("prepare", photos, "-o", tmp_path / "out", "--crop", "50")):
        subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=True, capture_output=True)
    assert list((tmp_path / "out").glob("*.png"))
