"""`realesr upscale` with a fake upscaler: what is said where, what is done, how it ends."""

import json
from dataclasses import asdict
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from PIL import Image

from realesr.cli.console import Messages
from realesr.cli.upscaling.run import open_upscaler
from realesr.errors import InputError
from realesr.models import zoo
from realesr.models.weights import Weights, read_weights
from realesr.options import FileOptions, ImageOptions, NetworkOptions

from .conftest import Command, FakeUpscaler, write


def test_one_file_gives_its_path_on_stdout_and_one_line_on_stderr(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "photo.jpg")
    result = realesr("upscale", "photo.jpg")
    assert result.exit_code == 0
    assert result.stdout == "photo_x4.jpg\n"
    assert result.stderr == (
        "photo.jpg  800 x 600 -> 3200 x 2400  realesrgan-x4plus, onnxruntime fp32 on cpu, 2 passes, "
        "12.3 s, 1.9 GB peak\n"
    )


def test_every_option_arrives(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "photo.jpg")
    words = (
        "upscale photo.jpg -o out -s 2.5 -m realesr-general-x4v3 --denoise 0.3 --format webp --quality 80 --overwrite "
        "--strip --no-provenance --page 2 --max-pixels 1000 --alpha lanczos --tile 100 --overlap 20 --tta "
        "--engine torch --device cuda:1 --precision fp16 --threads 3 --option mode=graphs --option join=device"
    )
    assert realesr(*words.split()).exit_code == 0
    assert fake.network == NetworkOptions(
        model="realesr-general-x4v3",
        denoise=0.3,
        engine="torch",
        device="cuda:1",
        precision="fp16",
        threads=3,
        tta=True,
        tile_px=100,
        overlap_px=20,
        options={"mode": "graphs", "join": "device"},
    )
    assert fake.asked == [
        (
            Path("photo.jpg"),
            Path("out/photo_x2.5.webp"),
            ImageOptions(scale=2.5, alpha="lanczos"),
            FileOptions(
                format="webp",
                quality=80,
                overwrite=True,
                strip=True,
                provenance=False,
                page=2,
                max_pixels=1000,
                resume=True,
            ),
        )
    ]


def test_without_options_the_defaults_are_those_of_the_library_but_that_rows_are_kept(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "photo.jpg")
    realesr("upscale", "photo.jpg")
    assert fake.network == NetworkOptions()
    assert fake.asked[0][2:] == (ImageOptions(), FileOptions(resume=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mode"], "got --option mode, expected KEY=VALUE, such as mode=graphs"),
        (["mode="], "got --option mode=, expected KEY=VALUE"),
        (["=graphs"], "got --option =graphs, expected KEY=VALUE"),
        (["mode=eager", "mode=graphs"], "got --option mode twice, with eager and graphs: give it once"),
    ],
)
def test_options_that_cannot_be_read_are_wrong_usage(
    realesr: Command, fake: FakeUpscaler, folder: Path, words: list[str], message: str
) -> None:
    write(folder, "photo.jpg")
    result = realesr("upscale", "photo.jpg", *(part for word in words for part in ("--option", word)))
    assert result.exit_code == 2
    assert message in result.stderr
    assert not fake.opened


def test_the_upscaler_gets_the_options_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("realesr.api.Upscaler.from_options", lambda options, _, model: given.append((options, model)))
    network = NetworkOptions(engine="torch", options={"mode": "graphs"})
    open_upscaler(network, Messages())
    assert given == [(network, None)]


def test_the_file_of_a_network_is_read_once_in_a_run_and_anew_in_the_next(
    realesr: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def read_and_count(path: Path) -> Weights:
        read.append(path)
        return read_weights(path)

    monkeypatch.setattr(zoo, "read_weights", read_and_count)
    Image.new("RGB", (8, 8)).save("photo.png")
    copyfile(Path(zoo.__file__).parent / "bundled" / "realesr-general-x4v3.safetensors", "own.safetensors")
    for runs in (1, 2):
        result = realesr("upscale", "photo.png", "-m", "./own.safetensors", "--engine", "nearest", "--overwrite")
        assert (result.exit_code, result.stdout) == (0, "photo_x4.png\n")
        assert read == [Path("own.safetensors")] * runs


def test_exact_arrives(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "photo.jpg")
    realesr("upscale", "photo.jpg", "--exact")
    assert fake.network == NetworkOptions(exact=True)


def test_the_default_scale_is_the_networks_own(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "photo.jpg")
    assert realesr("upscale", "photo.jpg", "-m", "realesrgan-x2plus").stdout == "photo_x2.jpg\n"


def test_quality_goes_to_the_files_that_have_one(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg", "b.png", "c.webp", "d.bmp")
    assert realesr("upscale", ".", "--quality", 70).exit_code == 0
    assert [(target.name, file.quality) for _, target, _, file in fake.asked] == [
        ("a_x4.jpg", 70),
        ("b_x4.png", None),
        ("c_x4.webp", 70),
        ("d_x4.png", None),
    ]


def test_one_failure_does_not_stop_the_others(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg", "broken.jpg", "c.jpg", "c_x4.jpg", "surprise.jpg", "z.jpg")
    result = realesr("upscale", "a.jpg", "missing.jpg", "broken.jpg", "c.jpg", "surprise.jpg", "z.jpg")
    assert result.exit_code == 1
    assert result.stdout == "a_x4.jpg\nz_x4.jpg\n"
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: missing.jpg does not exist: expected an image or a folder with images",
        "error: broken.jpg is truncated: expected 100 bytes, got 7",
        "error: surprise.jpg: unexpected RuntimeError: something that nobody thought of (--debug shows where)",
    ]
    assert "c_x4.jpg exists: skipped (--overwrite writes it anew)" in result.stderr
    assert result.stderr.splitlines()[-1] == "2 done, 3 failed, 1 skipped"
    assert "Traceback" not in result.stderr


def test_debug_shows_where_it_happened(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "surprise.jpg", "broken.jpg")
    result = realesr("upscale", "surprise.jpg", "broken.jpg", "--debug")
    assert result.exit_code == 1
    assert result.stderr.count("Traceback") == 2


def test_json_has_one_object_a_file(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg", "broken.jpg", "c.jpg", "c_x4.jpg")
    fake.notices = ("the thumbnail was left out",)
    result = realesr("upscale", ".", "--json")
    skipped, done, failed = map(json.loads, result.stdout.splitlines())
    assert done == {
        "source": "a.jpg",
        "target": "a_x4.jpg",
        "input_px": [800, 600],
        "output_px": [3200, 2400],
        "model": "realesrgan-x4plus",
        "engine": "onnxruntime",
        "device": "cpu",
        "precision": "fp32",
        "passes": 2,
        "tile_px": 192,
        "overlap_px": 32,
        "seconds": 12.34,
        "peak_bytes": 1_900_000_000,
        "notices": ["the thumbnail was left out"],
        "chosen_because": "",
        "region": None,
        "whole_seconds": None,
    }
    assert failed == {"source": "broken.jpg", "error": "broken.jpg is truncated: expected 100 bytes, got 7"}
    assert skipped["source"] == "c.jpg"
    assert skipped["target"] == "c_x4.jpg"
    assert "exists" in skipped["skipped"]


def test_notices_stand_before_the_summary(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg")
    fake.notices = ("the thumbnail was left out", "a.jpg holds PNG data")
    lines = realesr("upscale", "a.jpg").stderr.splitlines()
    assert lines[:2] == ["a.jpg: the thumbnail was left out", "a.jpg holds PNG data"]
    assert "800 x 600" in lines[2]


def test_the_choice_of_the_engine_is_printed_once(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg", "b.jpg")
    fake.choice = "onnxruntime fp32 on cpu: no GPU that an installed engine can use"
    result = realesr("upscale", ".")
    assert result.stderr.splitlines()[0] == fake.choice
    assert result.stderr.count(fake.choice) == 1
    assert fake.choice not in realesr("upscale", ".", "--overwrite", "--quiet").stderr


def test_a_bad_list_of_devices_is_refused_before_anything_is_opened(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "a.jpg")
    result = realesr("upscale", "a.jpg", "--device", "cuda:0,,1")
    assert result.exit_code == 2
    assert "got device cuda:0,,1, expected one name, or several like cuda:0,1; --device chooses it" in result.stderr
    assert fake.opened == 0


def test_quiet_leaves_only_errors(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg", "broken.jpg", "c.jpg", "c_x4.jpg")
    fake.notices = ("a notice",)
    result = realesr("upscale", ".", "--quiet")
    assert result.stdout == "a_x4.jpg\n"
    assert result.stderr == "error: broken.jpg is truncated: expected 100 bytes, got 7\n"


def test_where_all_is_there_already_no_network_is_opened(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg", "a_x4.jpg")
    result = realesr("upscale", "a.jpg")
    assert (result.exit_code, result.stdout, fake.opened) == (0, "", 0)
    assert realesr("upscale", "a.jpg", "--overwrite").stdout == "a_x4.jpg\n"


def test_a_tree_is_mirrored(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "in/a.jpg", "in/deep/b.png")
    assert realesr("upscale", "in", "--recursive", "-o", "out").exit_code == 0
    assert (folder / "out/a_x4.jpg").exists()
    assert (folder / "out/deep/b_x4.png").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("photo.jpg -s 17", "got scale 17, expected a number from 1 to 16; --scale sets it"),
        ("photo.jpg -s 0.5", "got scale 0.5, expected a number from 1 to 16; --scale sets it"),
        ("photo.jpg --tile 8", "got tile_px 8, expected at least 16 px; --tile sets it"),
        ("photo.jpg --quality 0", "got quality 0, expected 1 to 100; --quality sets it"),
        ("photo.jpg --quality 80 --format png", "got --quality 80, but photo_x4.png"),
        ("photo.jpg --denoise 2", "got denoise 2, expected a number from 0 to 1; --denoise sets it"),
        ("photo.jpg --exact --overlap 9", "exact chooses the overlap itself; leave out --exact or --overlap"),
        ("photo.jpg -o photo.jpg", "would be written over the input"),
        ("photo.jpg other.jpg -o one.png", "names one file, for many inputs"),
        ("photo.jpg --format gif", "gif"),
        ("photo.jpg --no-such-option", "--no-such-option"),
        ("", "PATHS"),
    ],
)
def test_wrong_usage_ends_with_2_before_anything_is_done(
    realesr: Command, fake: FakeUpscaler, folder: Path, words: str, expected: str
) -> None:
    write(folder, "photo.jpg", "other.jpg")
    result = realesr("upscale", *words.split())
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert fake.asked == []


def test_a_folder_without_images_is_an_error_and_says_so(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "empty/notes.txt")
    result = realesr("upscale", "empty")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: empty is a folder without images")
    assert fake.opened == 0


def test_an_unknown_network_names_the_near_ones(realesr: Command, folder: Path) -> None:
    write(folder, "photo.jpg")
    result = realesr("upscale", "photo.jpg", "-m", "realesrgan-x4pluss")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no network is called realesrgan-x4pluss")
    assert "realesrgan-x4plus" in result.stderr


def test_ctrl_c_ends_with_130(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg", "stopped.jpg", "z.jpg")
    result = realesr("upscale", ".")
    assert result.exit_code == 130
    assert result.stdout == "a_x4.jpg\n"
    assert result.stderr.splitlines()[-1] == "stopped: no half file is left; the same command goes on from here"


class SlowSteps:
    """A clock that goes on by so many seconds a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds_a_step: float) -> None:
        self.seconds, self.step = 0.0, seconds_a_step
        monkeypatch.setattr("realesr.cli.upscaling.run.clock", lambda: self.seconds)

    def __call__(self) -> None:
        self.seconds += self.step


STEPS = [(done, 100) for done in range(0, 101, 10)]


def test_an_estimate_comes_before_the_summary(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a.jpg", "b.jpg")
    fake.steps, fake.before_step = STEPS, SlowSteps(monkeypatch, 20)
    lines = realesr("upscale", ".").stderr.splitlines()
    assert lines[0] == "a.jpg (1 of 2): about 3 min"
    assert lines[1].startswith("a.jpg  800 x 600")
    assert lines[2] == "b.jpg (2 of 2): about 3 min"
    assert lines[4] == "2 done, 0 failed, 0 skipped"


def test_over_five_minutes_a_faster_network_is_named(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a.jpg")
    monkeypatch.setenv("REALESR_CACHE", str(folder / "cache"))
    fake.steps, fake.before_step = STEPS, SlowSteps(monkeypatch, 40)
    lines = realesr("upscale", "a.jpg").stderr.splitlines()
    assert lines[0] == (
        "a.jpg: about 7 min; -m realesr-general-x4v3 takes about 27 s (it comes with realesr); --preview does only the "
        "part with the most detail"
    )


def test_nothing_faster_is_named_under_five_minutes_or_for_the_fastest(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a.jpg")
    fake.steps, fake.before_step = STEPS, SlowSteps(monkeypatch, 40)
    assert "faster" not in realesr("upscale", "a.jpg", "-m", "realesr-general-x4v3").stderr
    fake.before_step = SlowSteps(monkeypatch, 20)
    assert "faster" not in realesr("upscale", "a.jpg", "--overwrite", "-m", "realesrgan-x4plus").stderr


def test_the_options_of_the_command_are_those_of_the_dataclasses() -> None:
    """So that an option which is added to one side and forgotten on the other is noticed."""
    import inspect

    from realesr.cli.upscale import upscale

    names = {
        "format_name": "format",
        "tile": "tile_px",
        "overlap": "overlap_px",
        "no_resume": "resume",
        "no_provenance": "provenance",
    }
    here = {names.get(name, name) for name in inspect.signature(upscale).parameters}
    there = {*asdict(NetworkOptions()), *asdict(ImageOptions()), *asdict(FileOptions())}
    of_the_command = {
        *("paths", "files_from", "null_separated", "output", "name", "in_place", "backup", "no_backup", "recursive"),
        *("shard", "retry_failed", "json", "quiet", "verbose", "debug", "preview"),
        *("long_side", "short_side", "width", "height", "megapixels", "print_size"),  # together they are `size`
    }
    assert here - there == of_the_command
    assert there - here == {"size"}


@pytest.mark.parametrize("name", ["own.pth", "own.onnx", "own.safetensors"])
def test_a_network_that_does_not_exist_leads_to_the_list_of_networks(realesr: Command, folder: Path, name: str) -> None:
    write(folder, "photo.jpg")
    result = realesr("upscale", "photo.jpg", "-m", f"below/{name}")
    assert result.exit_code == 1
    assert f"{name} does not exist: check the path" in result.stderr
    assert "'realesr models' lists the names" in result.stderr


def test_an_error_about_one_file_names_the_flag_that_would_help(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    write(folder, "photo.jpg")

    def fail() -> None:
        raise InputError("photo.jpg has 110 px, expected at most 109", option="max_pixels")

    fake.before_step = fail
    result = realesr("upscale", "photo.jpg", "--json")
    expected = "photo.jpg has 110 px, expected at most 109; --max-pixels sets the limit"
    assert result.stderr == f"error: {expected}\n"
    assert json.loads(result.stdout) == {"source": "photo.jpg", "error": expected}
