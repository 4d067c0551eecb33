"""`realesr score`: files, folders and references, as tables and as JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image
from typer.testing import Result

from realesr.cli.score_run import CAUTION
from realesr.scores.photos import score_file

from .conftest import Command

PHOTO = skimage.data.chelsea()[:192, :200]


def photo(path: Path, *, levels: int = 0, rows: int = 192) -> Path:
    """Write a photo, a number of levels darker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PHOTO[:rows] - np.minimum(PHOTO[:rows], levels).astype(np.uint8)).save(path)
    return path


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def rows(result: Result) -> list[list[str]]:
    return [line.split("\t") for line in result.stdout.splitlines()]


def test_one_file_has_its_niqe(realesr: Command, folder: Path) -> None:
    result = realesr("score", photo(folder / "a.png"))
    assert result.exit_code == 0
    scores = score_file(folder / "a.png")
    assert rows(result) == [[str(folder / "a.png"), f"{scores.niqe:.3f}"]]


def test_several_files_have_a_mean_in_the_last_line(realesr: Command, folder: Path) -> None:
    result = realesr("score", photo(folder / "a.png"), photo(folder / "b.png", levels=20))
    first, second, mean = rows(result)
    assert mean[0] == "mean"
    assert float(mean[1]) == pytest.approx((float(first[1]) + float(second[1])) / 2, abs=0.001)


def test_a_folder_is_scored_with_the_outputs_in_it(realesr: Command, folder: Path) -> None:
    photo(folder / "photo.png")
    photo(folder / "photo_x4.png", levels=9)
    assert [row[0] for row in rows(realesr("score", "."))] == ["photo.png", "photo_x4.png", "mean"]


def test_the_caution_is_said_once_and_not_with_quiet(realesr: Command, folder: Path) -> None:
    files = photo(folder / "a.png"), photo(folder / "b.png")
    assert realesr("score", *files).stderr.splitlines() == [CAUTION]
    assert realesr("score", *files, "--json").stderr.splitlines() == [CAUTION]
    assert realesr("score", *files, "-q").stderr == ""


def test_a_reference_adds_psnr_and_ssim(realesr: Command, folder: Path) -> None:
    photo(folder / "large" / "a_x4.png", levels=10)
    photo(folder / "truth" / "a.png")
    result = realesr("score", "large", "--reference", "truth")
    scores = score_file(folder / "large" / "a_x4.png", folder / "truth" / "a.png")
    assert rows(result) == [
        [str(Path("large/a_x4.png")), f"{scores.niqe:.3f}", f"{scores.psnr_y_db:.2f}", f"{scores.ssim_y:.4f}"]
    ]


def test_json_has_an_object_an_image_and_one_with_the_means(realesr: Command, folder: Path) -> None:
    photo(folder / "large" / "a_x4.png", levels=10)
    photo(folder / "large" / "b_x2.5.png", levels=5)
    for name in "ab":
        photo(folder / "truth" / f"{name}.png")
    first, second, mean = records(realesr("score", "large", "--reference", "truth", "--json"))
    assert set(first) == {
        *("image", "reference", "width_px", "height_px", "niqe", "psnr_y_db", "ssim_y", "lpips", "notices"),
    }
    assert (first["image"], first["reference"]) == (str(Path("large/a_x4.png")), str(Path("truth/a.png")))
    assert (first["width_px"], first["height_px"], first["lpips"]) == (200, 192, None)
    scores = score_file(folder / "large" / "a_x4.png", folder / "truth" / "a.png")
    assert (first["niqe"], first["psnr_y_db"], first["ssim_y"]) == (scores.niqe, scores.psnr_y_db, scores.ssim_y)
    assert mean["mean_of"] == 2
    assert mean["psnr_y_db"] == pytest.approx((first["psnr_y_db"] + second["psnr_y_db"]) / 2)


def test_json_has_null_for_what_is_infinite(realesr: Command, folder: Path) -> None:
    photo(folder / "a.png")
    first, mean = records(realesr("score", "a.png", "--reference", "a.png", "--json"))
    assert first["psnr_y_db"] is None
    assert first["ssim_y"] == pytest.approx(1)
    assert mean["psnr_y_db"] is None
    assert rows(realesr("score", "a.png", "--reference", "a.png"))[0][2] == "inf"


def test_one_reference_serves_several_images(realesr: Command, folder: Path) -> None:
    files = [photo(folder / f"{name}.png", levels=levels) for name, levels in (("soft", 4), ("sharp", 12))]
    found = records(realesr("score", *files, "--reference", photo(folder / "truth.jpg"), "--json"))
    assert [record.get("reference") for record in found[:2]] == [str(folder / "truth.jpg")] * 2


def test_the_border_is_left_out(realesr: Command, folder: Path) -> None:
    truth, image = photo(folder / "truth.png"), folder / "image.png"
    pixels = PHOTO.copy()
    pixels[:3] = 0
    Image.fromarray(pixels).save(image)
    assert rows(realesr("score", image, "--reference", truth))[0][2] == "inf"
    assert float(rows(realesr("score", image, "--reference", truth, "--border", 0))[0][2]) < 30


def test_references_are_found_by_stem_and_folder(realesr: Command, folder: Path) -> None:
    for name in ("a_x4.png", "trip/a_x2.webp", "trip/day 2/b.png"):
        photo(folder / "large" / name, levels=3)
    for name in ("a.jpg", "trip/a.png", "trip/day 2/b.tif"):
        photo(folder / "truth" / name)
    found = records(realesr("score", "large", "--reference", "truth", "--recursive", "--json"))
    assert {Path(record["image"]).as_posix(): Path(record["reference"]).as_posix() for record in found[:-1]} == {
        "large/a_x4.png": "truth/a.jpg",
        "large/trip/a_x2.webp": "truth/trip/a.png",
        "large/trip/day 2/b.png": "truth/trip/day 2/b.tif",
    }


def test_images_beside_their_references_are_compared_with_them(realesr: Command, folder: Path) -> None:
    photo(folder / "photo.png")
    photo(folder / "photo_x4.png", levels=9)
    result = realesr("score", "photo_x4.png", "--reference", ".", "--json")
    assert result.exit_code == 0
    assert records(result)[0]["reference"] == "photo.png"


def test_the_reference_of_the_same_name_is_preferred(realesr: Command, folder: Path) -> None:
    for name in ("a.jpg", "a.png"):
        photo(folder / "truth" / name)
    photo(folder / "a.png", levels=2)
    assert records(realesr("score", "a.png", "--reference", "truth", "--json"))[0]["reference"] == str(
        Path("truth/a.png")
    )
    photo(folder / "a.webp", levels=2)
    result = realesr("score", "a.webp", "--reference", "truth")
    assert result.exit_code == 1
    assert "a.webp has more than one reference (a.jpg and a.png)" in result.stderr


def test_one_line_for_each_that_cannot_be_scored_and_the_others_go_on(realesr: Command, folder: Path) -> None:
    photo(folder / "large" / "good.png", levels=3)
    photo(folder / "large" / "cut.png", rows=190)
    photo(folder / "large" / "lonely_x4.png")
    (folder / "large" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in ("good", "cut", "broken", "left over"):
        photo(folder / "truth" / f"{name}.png")
    result = realesr("score", "large", "none.png", "--reference", "truth", "--json")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == CAUTION
    errors = sorted(line for line in lines if line.startswith("error: "))
    assert len(errors) == 4
    assert "error: cut.png: got an image of 200 x 190 px and a reference of 200 x 192 px" in errors[0]
    assert "broken.png" in errors[1]
    assert errors[2].startswith("error: lonely_x4.png has no reference: expected lonely_x4.png")
    assert errors[3].startswith("error: none.png does not exist")
    assert f"no image to score for the reference {Path('truth/left over.png')}" in lines
    found = records(result)
    assert [set(record) for record in found if "error" in record] == [{"image", "error"}] * 4
    assert [record["image"] for record in found if "niqe" in record and "image" in record] == [
        str(Path("large/good.png"))
    ]
    assert found[-1]["mean_of"] == 1


def test_where_nothing_can_be_scored_there_is_no_table(realesr: Command, folder: Path) -> None:
    result = realesr("score", "none.png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert records(realesr("score", "none.png", "--json"))[-1]["mean_of"] == 0


def test_what_is_small_is_told_beside_other_scores(realesr: Command, folder: Path) -> None:
    photo(folder / "a.png", rows=100)
    result = realesr("score", "a.png", "--reference", "a.png")
    assert result.exit_code == 0
    assert rows(result)[0][1] == "-"
    assert "a.png: NIQE is left out" in result.stderr
    assert realesr("score", "a.png").exit_code == 1


def test_of_many_references_without_an_image_the_first_are_named(realesr: Command, folder: Path) -> None:
    for name in "abcdef":
        photo(folder / "truth" / f"{name}.png", rows=20)
    photo(folder / "large" / "a.png", levels=1, rows=20)
    names = ", ".join(str(Path(f"truth/{name}.png")) for name in "bcd")
    result = realesr("score", "large", "--reference", "truth")
    assert result.exit_code == 0
    assert f"no image to score for the reference {names} and 2 others" in result.stderr
    assert "no image" not in realesr("score", "large/a.png", "--reference", "truth").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--border", 2), "got --border without --reference"),
        (("--lpips", "alex.pth"), "got --lpips without --reference"),
        (("--reference", "nowhere"), "got --reference nowhere, which does not exist"),
        (("--reference", "a.png", "--border", -1), "got --border -1, expected 0 or more"),
        (("--reference", "a.png", "--lpips", "alex.pth"), "got --lpips alex.pth, which is no file"),
    ],
)
def test_wrong_usage_is_one_line_and_ends_with_2(
    realesr: Command, folder: Path, options: tuple[object, ...], message: str
) -> None:
    photo(folder / "a.png")
    result = realesr("score", "a.png", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_lpips_has_a_column(realesr: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def distance(self, image: np.ndarray, reference: np.ndarray) -> float:
            return 0.25

    asked: list[list[Path]] = []

    def opened(paths: list[Path]) -> Fake:
        asked.append(list(paths))
        return Fake()

    monkeypatch.setattr("realesr.scores.lpips.open_lpips", opened)
    photo(folder / "a.png", levels=3)
    photo(folder / "truth.png")
    weights = [folder / "alex.pth", folder / "alexnet.pth"]
    for path in weights:
        path.touch()
    options = ("--reference", "truth.png", "--lpips", weights[0], "--lpips", weights[1])
    assert rows(realesr("score", "a.png", *options))[0][4] == "0.2500"
    assert records(realesr("score", "a.png", *options, "--json"))[-1]["lpips"] == 0.25
    assert asked == [weights, weights]


def test_weights_that_cannot_be_read_end_the_command(realesr: Command, folder: Path) -> None:
    photo(folder / "a.png")
    (folder / "alex.pth").write_bytes(b"no weights")
    result = realesr("score", "a.png", "--reference", "a.png", "--lpips", "alex.pth")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: alex.pth is no readable torch file")
