"""`realesr compare`: the page, the picture, JSON, many photos, and what makes no sense."""

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import Result

import realesr as library
from realesr.cli.comparing.page import _filled
from realesr.errors import InputError, ModelError, UsageError
from realesr.images.crop import Region
from realesr.models.compact import Compact
from realesr.models.pulled import PulledNetwork, keep_facts, pulled_folder
from realesr.models.recognition import text_from_architecture
from realesr.models.weights import read_weights
from realesr.models.zoo import ZOO
from tests.images.image_files import exif_block, libvips_profile, photo
from tests.models.small_networks import small_state

from .conftest import Command

DRY = ("--engine", "nearest", "-m", "realesrgan-x4plus,realesrgan-x2plus")


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photo of 60 x 40 px in the current folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(40, 60)).save("photo.png")
    return Path("photo.png")


def pixels_of(page: Path) -> list[np.ndarray]:
    """The pictures that a page holds, in its order: the original first."""
    uris = re.findall(r'src="data:image/png;base64,([^"]+)"', page.read_text("utf-8"))
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))) for uri in uris]


def enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def one_line_of(result: Result) -> str:
    """What was said of wrong usage: one line, and nothing else anywhere."""
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_a_page_and_a_picture_are_written_and_named_on_stdout(realesr: Command, picture: Path) -> None:
    result = realesr("compare", picture, *DRY)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == ["photo_compare.html", "photo_compare.png"]
    original, of_x4, of_x2 = pixels_of(Path("photo_compare.html"))
    assert original.shape == (160, 240, 3)
    assert (of_x4 == enlarged(photo(40, 60), 4)).all()
    assert (of_x2 == enlarged(photo(40, 60), 2)).all()
    with Image.open("photo_compare.png") as sheet:
        sheet.load()
        assert min(sheet.size) > 320


def test_the_page_needs_nothing_from_a_network(realesr: Command, picture: Path) -> None:
    assert realesr("compare", picture, *DRY).exit_code == 0
    text = Path("photo_compare.html").read_text("utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert re.findall(r"https?:|@import|url\(", text) == []
    assert all(uri.startswith("data:") for uri in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "{{" not in text


def test_names_are_text_on_the_page(realesr: Command, picture: Path) -> None:
    name = "<img src=x onerror=alert(1)> {{title}} \"'&\u202e.png"
    picture.rename(name)
    assert realesr("compare", name, *DRY, "-o", "a.html").exit_code == 0
    text = Path("a.html").read_text("utf-8")
    assert "<img src=x" not in text
    assert "{{title}} " in html.unescape(text)
    assert "\u202e" not in text
    assert r"\u202e" in text


def test_a_region_is_that_of_the_upright_photo(realesr: Command, picture: Path) -> None:
    flat = photo(40, 60)
    Image.fromarray(np.rot90(flat)).save("turned.png", exif=exif_block(orientation=6))
    result = realesr("compare", "turned.png", *DRY, "--region", "7,5,20,10", "--json")
    (record,) = map(json.loads, result.stdout.splitlines())
    assert record["photo_px"] == [60, 40]
    assert record["region"] == [7, 5, 20, 10]
    assert (pixels_of(Path(record["page"]))[1] == enlarged(flat[5:15, 7:27], 4)).all()


def test_colours_are_converted_to_srgb(realesr: Command, picture: Path) -> None:
    Image.fromarray(photo(40, 60)).save("wide.png", icc_profile=libvips_profile("p3"))
    assert realesr("compare", picture, "wide.png", *DRY, "-o", "pages").exit_code == 0
    plain, wide = (pixels_of(Path(f"pages/{stem}_compare.html"))[2].astype(int) for stem in ("photo", "wide"))
    assert np.abs(plain - wide).max() > 10
    assert wide.std() > plain.std()  # what is muted in P3 is more colourful in sRGB


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16", "1"])
def test_grey_alpha_and_16_bit_photos_are_shown(realesr: Command, picture: Path, mode: str) -> None:
    if mode == "I;16":
        Image.fromarray(np.arange(60 * 40, dtype=np.uint16).reshape(40, 60) * 27).save(picture)
    else:
        image = Image.open(picture).convert(mode)
        if "A" in mode:
            image.putalpha(Image.linear_gradient("L").resize((60, 40)))
        image.save(picture)
    result = realesr("compare", picture, *DRY)
    assert result.exit_code == 0, result.stderr
    assert [pixels.shape for pixels in pixels_of(Path("photo_compare.html"))] == [
        (160, 240, 3),
        (160, 240, 3),
        (80, 120, 3),
    ]
    assert ("checkerboard" in result.stderr) == ("A" in mode)


def test_json_is_one_object_with_a_record_per_network(realesr: Command, picture: Path) -> None:
    Image.fromarray(photo(220, 230)).save(picture)
    result = realesr("compare", picture, *DRY, "-o", "page.html", "--json", "--quiet")
    record = json.loads(result.stdout)
    assert result.stderr == ""
    assert [record[key] for key in ("source", "page", "sheet", "scale")] == ["photo.png", "page.html", "page.png", 4]
    assert record["region"] == [0, 0, 230, 220]
    x4, x2 = record["networks"]
    assert (x4["name"], x4["scale"], x4["licence"]) == ("realesrgan-x4plus", 4, "BSD-3-Clause")
    assert (x2["name"], x2["scale"], x2["engine"]) == ("realesrgan-x2plus", 2, "nearest fp32 on cpu")
    for network in (x4, x2):
        assert network["seconds"] > 0
        assert network["photo_seconds"] == pytest.approx(network["seconds"])
        assert 0 < network["niqe"] < 1000
    assert record["lanczos_niqe"] > 0


def test_every_network_on_disk_is_compared_and_the_others_are_told(
    realesr: Command, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"realesr-animevideov3", "span-x2"}
    monkeypatch.setattr("realesr.comparing.find_file", lambda entry: Path("file") if entry.name in there else None)
    result = realesr("compare", picture, "--engine", "nearest", "--json")
    record = json.loads(result.stdout)
    assert {network["name"] for network in record["networks"]} == there
    assert set(record["not_on_disk"]) == set(ZOO) - there
    assert "not on disk, left out: realesrgan-x4plus," in result.stderr
    assert "not on disk, and left out: realesrgan-x4plus," in Path("photo_compare.html").read_text("utf-8")
    monkeypatch.setattr("realesr.comparing.find_file", lambda _: None)
    assert "no network to compare" in realesr("compare", picture, "--overwrite").stderr


def test_a_file_is_a_network_like_any_other(realesr: Command, picture: Path) -> None:
    save_file(small_state(Compact(scale=2, features=8, convs=1)), "mine & yours.safetensors")
    result = realesr("compare", picture, "-m", "mine & yours.safetensors, realesrgan-x4plus", "--engine", "nearest")
    assert result.exit_code == 0, result.stderr
    assert "mine &amp; yours.safetensors" in Path("photo_compare.html").read_text("utf-8")
    assert "licence not known" in Path("photo_compare.html").read_text("utf-8")


def test_many_photos_get_a_page_each(realesr: Command, picture: Path) -> None:
    Path("holiday/deep").mkdir(parents=True)
    for name in ("holiday/a.png", "holiday/a.jpg", "holiday/deep/b.png"):
        Image.fromarray(photo(20, 20)).save(name)
    result = realesr("compare", picture, "holiday", "--recursive", *DRY, "-o", "pages")
    assert result.exit_code == 0, result.stderr
    pages = ["photo_compare", "a_jpg_compare", "a_png_compare", "deep/b_compare"]
    assert result.stdout.splitlines() == [f"pages/{page}.{suffix}" for page in pages for suffix in ("html", "png")]


def test_pictures_of_an_earlier_run_are_no_photos(realesr: Command, picture: Path) -> None:
    assert realesr("compare", ".", *DRY).stdout.splitlines() == ["photo_compare.html", "photo_compare.png"]
    result = realesr("compare", ".", *DRY, "--overwrite")
    assert result.stdout.splitlines() == ["photo_compare.html", "photo_compare.png"]
    named = realesr("compare", "photo_compare.png", *DRY)
    assert (named.exit_code, named.stdout) == (0, "")
    assert named.stderr == "photo_compare.png is the picture of an earlier comparison: skipped\n"


def test_what_is_there_is_kept_unless_it_may_be_overwritten(realesr: Command, picture: Path) -> None:
    Path("photo_compare.png").write_text("mine")
    result = realesr("compare", picture, *DRY, "--json")
    assert result.exit_code == 0
    assert "exists: skipped" in json.loads(result.stdout)["skipped"]
    assert Path("photo_compare.png").read_text() == "mine"
    assert not Path("photo_compare.html").exists()
    assert realesr("compare", picture, *DRY, "--overwrite").exit_code == 0
    assert Path("photo_compare.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--region", "50,0,20,20"), "not within photo.png of 60 x 40 px"),
        (("--region", "-1,0,20,20"), "not within photo.png of 60 x 40 px"),
        (("--region", "0,0,0,20"), "1 to 1,024 px"),
        (("--region", "0,0,20,1025"), "1 to 1,024 px"),
        (("--region", "0,0,20"), "expected left,top,width,height"),
        (("--region", "0,0,20,twenty"), "expected left,top,width,height"),
        (("-o", "sheet.png"), "ends in .html"),
        (("-o", "photo.html"), "would be written over the photo"),
        (("-m", "realesrgan-x4plus,realesrgan-x4plus"), "expected each once"),
        (("-m", "realesrgan-x4plus,,"), "expected each once"),
        (("--threads", "0"), "expected at least 1"),
    ],
)
def test_usage_that_makes_no_sense_is_refused(
    realesr: Command, picture: Path, arguments: tuple[str, str], words: str
) -> None:
    assert words in one_line_of(realesr("compare", picture, *DRY, *arguments, "--overwrite"))
    assert [path.name for path in Path().iterdir()] == ["photo.png"]


def test_one_page_for_many_photos_is_refused(realesr: Command, picture: Path) -> None:
    Image.fromarray(photo(20, 20)).save("b.png")
    for photos in ((picture, "b.png"), (".",)):
        assert "names one file, for many photos" in one_line_of(realesr("compare", *photos, *DRY, "-o", "page.html"))


def test_a_region_outside_one_of_many_photos_is_refused_before_any_is_done(realesr: Command, picture: Path) -> None:
    Image.fromarray(photo(20, 20)).save("small.png")
    result = realesr("compare", picture, "small.png", *DRY, "--region", "0,0,30,30", "-o", "pages")
    assert "small.png of 20 x 20 px" in one_line_of(result)
    assert not Path("pages").exists()


def test_a_photo_that_cannot_be_read_does_not_stop_the_others(realesr: Command, picture: Path) -> None:
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    result = realesr("compare", "broken.png", "missing.png", picture, *DRY, "--json")
    assert result.exit_code == 1
    records = list(map(json.loads, result.stdout.splitlines()))
    assert [record["source"] for record in records] == ["missing.png", "broken.png", "photo.png"]
    assert ["error" in record for record in records] == [True, True, False]


def test_a_network_that_fails_is_named_and_does_not_stop_the_others(realesr: Command, picture: Path) -> None:
    Path("broken.safetensors").write_bytes(b"broken")
    result = realesr("compare", picture, "--engine", "nearest", "-m", "broken.safetensors,span-x2", "--json", "--quiet")
    assert result.exit_code == 1
    assert "broken.safetensors gave nothing" in result.stderr
    (record,) = map(json.loads, result.stdout.splitlines())
    assert [network["name"] for network in record["networks"]] == ["span-x2"]
    assert [failed["name"] for failed in record["failed"]] == ["broken.safetensors"]
    assert "broken.safetensors gave nothing: " in Path("photo_compare.html").read_text("utf-8")


def test_networks_that_all_fail_are_an_error_of_each_photo(realesr: Command, picture: Path) -> None:
    Path("broken.safetensors").write_bytes(b"broken")
    Image.fromarray(photo(20, 20)).save("b.png")
    result = realesr("compare", picture, "b.png", "-m", "broken.safetensors", "--engine", "nearest", "--json")
    assert result.exit_code == 1
    assert ["error" in json.loads(line) for line in result.stdout.splitlines()] == [True, True]
    with pytest.raises(ModelError, match=r"no readable \.safetensors file"):
        library.compare(picture, ["broken.safetensors"], engine="nearest")


def test_a_place_that_cannot_be_written_is_named_and_nothing_half_written_is_left(
    realesr: Command, picture: Path
) -> None:
    Path("taken").write_text("a file")
    result = realesr("compare", picture, *DRY, "-o", "taken/page.html")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["photo.png", "taken"]


def test_the_library_returns_pixels_times_and_scores(picture: Path) -> None:
    Image.fromarray(photo(500, 400)).save(picture)
    started: list[str] = []
    names = ["realesrgan-x2plus", "realesrgan-x4plus"]
    comparison = library.compare(picture, names, (100, 50, 200, 210), engine="nearest", on_start=started.append)
    assert started == names
    assert comparison.region == Region(100, 50, 200, 210)
    assert comparison.photo_px == (400, 500)
    assert comparison.scale == 4
    assert (comparison.original == photo(500, 400)[50:260, 100:300]).all()
    assert comparison.lanczos.shape == (840, 800, 3)
    x2, x4 = comparison.networks
    assert (x2.pixels == enlarged(comparison.original, 2)).all()
    assert (x4.pixels == enlarged(comparison.original, 4)).all()
    assert x2.niqe is not None
    seen_px = (200 + 2 * 64) * (50 + 210 + 64)  # x2plus sees 64 px around it, but for those above the photo
    assert x2.photo_seconds == pytest.approx(x2.seconds * 400 * 500 / seen_px)


def test_scores_are_those_of_one_scale(picture: Path) -> None:
    """Alone, x2 is scored as it is; beside x4, enlarged to that scale."""
    from realesr.scores.niqe import niqe

    Image.fromarray(photo(220, 230)).save(picture)
    (alone,) = library.compare(picture, ["realesrgan-x2plus"], engine="nearest").networks
    beside, _ = library.compare(picture, ["realesrgan-x2plus", "realesrgan-x4plus"], engine="nearest").networks
    larger = Image.fromarray(alone.pixels).resize((920, 880), Image.Resampling.LANCZOS)
    assert alone.niqe == pytest.approx(niqe(alone.pixels))
    assert beside.niqe == pytest.approx(niqe(np.asarray(larger)))


def test_a_region_without_a_score_says_so(picture: Path) -> None:
    comparison = library.compare(picture, ["realesrgan-x2plus"], engine="nearest")
    assert comparison.networks[0].niqe is None
    assert "too small or too flat for NIQE" in comparison.notices[-1]


def test_networks_see_what_is_around_the_region(picture: Path) -> None:
    """A region's pixels are those of the whole photo's result, for a network that sees 3 px far."""
    save_file(small_state(Compact(scale=2, features=8, convs=1)), "small.safetensors")
    (part,) = library.compare(picture, ["small.safetensors"], (20, 10, 16, 16), engine="onnxruntime").networks
    (whole,) = library.compare(picture, ["small.safetensors"], (0, 0, 60, 40), engine="onnxruntime").networks
    assert np.abs(part.pixels.astype(int) - whole.pixels[20:52, 40:72]).max() <= 1


@pytest.mark.parametrize(
    ("models", "region", "error"),
    [
        (["realesrgan-x4plus"], (0, 0, 1.5, 3), UsageError),
        (["realesrgan-x4plus"], (0, 0, 3), UsageError),
        (["no-such-network"], None, ModelError),
        ([], None, UsageError),
    ],
)
def test_the_library_refuses_what_makes_no_sense(
    picture: Path, models: list[str], region: tuple[int, int, int, int] | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        library.compare(picture, models, region, engine="nearest")
    with pytest.raises(InputError):
        library.compare("missing.png", ["realesrgan-x4plus"], engine="nearest")


def test_the_sheet_shrinks_what_is_large_and_cuts_long_names(picture: Path) -> None:
    from realesr.cli.comparing.sheet import LONGEST_PX, sheet

    Image.fromarray(photo(30, 600)).save(picture)
    comparison = library.compare(picture, ["realesrgan-x4plus"], (0, 0, 600, 30), engine="nearest")
    object.__setattr__(comparison.networks[0], "name", "a-long-name" * 99)
    with Image.open(io.BytesIO(sheet(comparison))) as image:
        assert LONGEST_PX * 2 < image.width < LONGEST_PX * 2 + 200


def test_a_field_that_the_template_lacks_is_an_error() -> None:
    with pytest.raises(KeyError):
        _filled("{{nothing}}", {})


def test_networks_of_a_public_list_are_compared_by_name(
    realesr: Command, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = small_state(Compact(scale=2, features=8, convs=1))
    monkeypatch.setenv("REALESR_CACHE", str(Path("cache").absolute()))
    pulled_folder().mkdir(parents=True)
    save_file(state, pulled_folder() / "2x-mine.safetensors")
    weights = read_weights(pulled_folder() / "2x-mine.safetensors")
    facts = PulledNetwork(
        name="2x-mine",
        title="Mine",
        author="me",
        licence="CC-BY-4.0",
        source="here",
        file="2x-mine.safetensors",
        sha256=weights.sha256,
        bytes=1,
        tags="",
        architecture=text_from_architecture(weights.architecture),
    )
    keep_facts(facts)
    monkeypatch.setattr("realesr.comparing.find_file", lambda _: None)
    record = json.loads(realesr("compare", picture, "--engine", "nearest", "--json").stdout)
    assert [(network["name"], network["licence"]) for network in record["networks"]] == [("2x-mine", "CC-BY-4.0")]
