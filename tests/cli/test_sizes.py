"""`realesr upscale` with a size instead of a scale, on real files; engine `nearest`, so that no weights are needed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from realesr.cli.files import source_of, source_stems
from realesr.options import ImageOptions
from realesr.target_size import TargetSize

from .conftest import Command, FakeUpscaler, write

NEAREST = ("--engine", "nearest", "-m", "realesrgan-x4plus")


def picture(path: str, width: int, height: int, **options: object) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("--long-side 3840", {"long_side_px": 3840}),
        ("--short-side 2160", {"short_side_px": 2160}),
        ("--width 1200", {"width_px": 1200}),
        ("--height 800", {"height_px": 800}),
        ("--width 1200 --height 800", {"width_px": 1200, "height_px": 800}),
        ("--megapixels 24", {"megapixels": 24}),
        ("--megapixels 0.5 --shrink", {"megapixels": 0.5}),
        ("--print 30x20cm@300", {"print_mm": (300, 200), "dpi": 300}),
        ("--print 30x20cm", {"print_mm": (300, 200)}),
    ],
)
def test_the_size_arrives_and_is_in_the_name(
    realesr: Command, fake: FakeUpscaler, folder: Path, words: str, size: dict[str, float]
) -> None:
    write(folder, "photo.jpg")
    expected = TargetSize(**size)  # type: ignore[arg-type]
    result = realesr("upscale", "photo.jpg", *words.split())
    assert result.exit_code == 0
    assert result.stdout == f"photo_{expected.label}.jpg\n"
    assert fake.asked[0][2] == ImageOptions(size=expected, shrink="--shrink" in words)


def test_the_table_in_the_documentation_is_right(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "photo.jpg")
    page = (Path(__file__).parents[2] / "docs/options.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `--") and " px" in line]
    rows = [[cell.strip("| `") for cell in row] for row in rows if "photo_" in row[-1]]
    assert len(rows) == 7
    for words, output, name in rows:
        assert realesr("upscale", "photo.jpg", *words.split()).stdout == f"{name}\n"
        size = fake.asked[-1][2].size
        assert size is not None
        width, height = size.output_px(800, 600)
        assert f"{width} x {height} px" in output, words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--long-side 0", "got long_side_px 0, expected a whole number from 1 to 10000000; --long-side sets it"),
        ("--short-side -7", "got short_side_px -7, expected a whole number from 1 to 10000000; --short-side sets it"),
        ("--width 1000000000", "got width_px 1000000000"),
        ("--height 1.5", "--height"),
        ("--long-side nan", "--long-side"),
        ("--megapixels nan", "got nan megapixels, expected 0.0001 to 100000; --megapixels sets it"),
        ("--megapixels 0", "got 0 megapixels"),
        ("--print 30x20", "got print 30x20, expected two sides, mm, cm or in"),
        ("--print 30x20furlong@300", "--print sets it"),
        ("--print 0x0cm", "got a print with a side of 0 mm, expected 1 to 100000; --print sets it"),
        ("-s 2 --long-side 300", "got scale 2 and a long side of 300 px: expected one of them"),
        ("--long-side 300 --megapixels 2", "got long side and megapixels, expected one size"),
        ("--print 3x2cm --width 400", "got width and print, expected one size, or width and height together"),
        ("--shrink", "got shrink without a size to shrink to; --long-side, --short-side, --width"),
        ("-s 2 --shrink", "got shrink without a size to shrink to"),
    ],
)
def test_sizes_that_make_no_sense_are_wrong_usage(
    realesr: Command, fake: FakeUpscaler, folder: Path, words: str, message: str
) -> None:
    write(folder, "photo.jpg")
    result = realesr("upscale", "photo.jpg", "-o", "out", *words.split())
    assert result.exit_code == 2
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if "rror: " in line]) == 1
    assert result.stdout == ""
    assert [path.name for path in folder.iterdir()] == ["photo.jpg"]
    assert not fake.opened


def test_a_folder_is_enlarged_to_one_size_and_large_images_are_skipped(realesr: Command, folder: Path) -> None:
    picture("in/a.png", 20, 10)
    picture("in/b.jpg", 10, 20)
    picture("in/deep/c.webp", 60, 60)
    picture("in/deep/d.png", 50, 40)
    result = realesr("upscale", "in", "--recursive", "-o", "out", "--long-side", 50, "--json", *NEAREST)
    assert result.exit_code == 0
    records = {Path(record["source"]).name: record for record in map(json.loads, result.stdout.splitlines())}
    assert records["a.png"]["output_px"] == [50, 25]
    assert records["b.jpg"]["output_px"] == [25, 50]
    reason = "in/deep/c.webp is 60 x 60 px, large enough for a long side of 50 px: skipped (--shrink resamples it down)"
    target = "out/deep/c_50px.webp"
    assert records["c.webp"] == {"source": "in/deep/c.webp", "target": target, "skipped": reason}
    assert "in/deep/d.png is 50 x 40 px, large enough" in records["d.png"]["skipped"]
    assert reason in result.stderr
    assert result.stderr.splitlines()[-1] == "2 done, 0 failed, 2 skipped"
    assert size_of("out/a_50px.png") == (50, 25)
    assert not Path(target).exists()


def test_the_manifest_says_which_images_were_large_enough(realesr: Command, folder: Path) -> None:
    picture("in/c.png", 60, 60)
    realesr("upscale", "in", "-o", "out", "--long-side", 50, *NEAREST)
    lines = Path("out/realesr-manifest.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert (last["state"], last["source"]) == ("skipped", "../in/c.png")
    assert "large enough" in last["reason"]
    again = realesr("upscale", "in", "-o", "out", "--long-side", 50, "--shrink", *NEAREST)
    assert again.stdout == "out/c_50px.png\n"


def test_shrink_resamples_by_lanczos_without_the_network(realesr: Command, folder: Path) -> None:
    picture("large.png", 64, 48)
    picture("exact.png", 32, 24)
    result = realesr("upscale", "large.png", "exact.png", "--width", 32, "--shrink", *NEAREST)
    assert result.exit_code == 0
    assert result.stdout == "large_32w.png\n"
    assert "64 x 48 -> 32 x 24" in result.stderr
    assert "0 passes (Lanczos alone)" in result.stderr
    assert "exact.png is 32 x 24 px, large enough for a width of 32 px: skipped\n" in result.stderr
    with Image.open("large.png") as image:
        planes = [
            np.asarray(Image.fromarray(np.asarray(band, np.float32)).resize((32, 24), Image.Resampling.LANCZOS))
            for band in image.split()
        ]
    expected = np.rint(np.stack(planes, axis=-1).clip(0, 255))
    assert np.abs(np.asarray(Image.open("large_32w.png")) - expected).max() <= 1


def test_sizes_are_those_of_the_upright_image(realesr: Command, folder: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture("turned.jpg", 20, 10, exif=exif)
    assert realesr("upscale", "turned.jpg", "--width", 30, *NEAREST).exit_code == 0
    assert size_of("turned_30w.jpg") == (30, 60)
    assert realesr("upscale", "turned.jpg", "--print", "20x10mm@50.8", *NEAREST).exit_code == 0
    assert size_of("turned_2x1cm50.8.jpg") == (20, 40)


def test_an_image_too_small_for_its_size_fails_and_the_others_go_on(realesr: Command, folder: Path) -> None:
    picture("small.png", 4, 3)
    picture("b.png", 40, 30)
    result = realesr("upscale", "small.png", "b.png", "--long-side", 65, *NEAREST)
    assert result.exit_code == 1
    assert result.stdout == "b_65px.png\n"
    assert (
        "error: small.png is 4 x 3 px, and a long side of 65 px would enlarge it 16.3 times, expected at most 16: "
        "choose a smaller size\n"
    ) in result.stderr
    assert not Path("small_65px.png").exists()


def test_a_side_over_the_limit_of_the_format_is_one_line(realesr: Command, folder: Path) -> None:
    picture("wide.webp", 2000, 1)
    result = realesr("upscale", "wide.webp", "--long-side", 16384, *NEAREST)
    assert result.exit_code == 1
    assert "16384 x 8 px do not fit into WEBP, which holds 16,383 px a side" in result.stderr


def test_outputs_of_an_earlier_run_are_known_by_their_size(realesr: Command, folder: Path) -> None:
    picture("in/a.png", 20, 10)
    for size in ("--long-side 40", "--short-side 20", "--width 44", "--height 24", "--width 40 --height 40"):
        realesr("upscale", "in", *size.split(), *NEAREST)
    for size in ("--megapixels 0.001", "--print 20x10mm@50.8", "--print 1x1in@40", "-s 2.5"):
        realesr("upscale", "in", *size.split(), *NEAREST)
    names = sorted(path.name for path in Path("in").glob("*.png"))
    assert len(names) == 10
    again = realesr("upscale", "in", "--long-side", 48, *NEAREST)
    assert again.stdout == "in/a_48px.png\n"
    stems = source_stems(["a.png"])
    for name in ("a_1080.png", "a_2.png", "a_px.png", "a_1920x1080.png", "a_x.png", "a_30x20.png"):
        assert source_of(name, stems) is None, name


def test_no_network_is_opened_where_all_images_are_large_enough(
    realesr: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realesr.cli.upscaling.run.open_upscaler", lambda *_: pytest.fail("opened"))
    picture("a.png", 40, 30)
    picture("b.png", 50, 30)
    result = realesr("upscale", "a.png", "b.png", "--long-side", "40", "--json")
    assert result.exit_code == 0
    assert all("large enough" in json.loads(line)["skipped"] for line in result.stdout.splitlines())
    assert "0 done, 0 failed, 2 skipped" in result.stderr
