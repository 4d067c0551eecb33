"""`realesr upscale` without --model, where the default network is not to be had."""

import json
from pathlib import Path

import pytest
from PIL import Image

from realesr.models.download import DownloadError

from .conftest import Command, FakeUpscaler, write

NOTICE = (
    "realesrgan-x4plus is not on disk and cannot be fetched (no connection): realesr-general-x4v3, which comes with "
    "realesr, is used instead"
)
LINE = f"{NOTICE}; 'realesr models fetch realesrgan-x4plus' fetches the former"


@pytest.fixture
def offline(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights but those in the package, and no network."""

    def download(*_: object, **__: object) -> None:
        raise DownloadError("https://x/net.pth cannot be fetched (no connection): try", reason="no connection")

    monkeypatch.setenv("REALESR_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("realesr.models.zoo._package_folder", lambda _: [])
    monkeypatch.setattr("realesr.models.download.download", download)


def photos(folder: Path, *names: str) -> None:
    for name in names:
        Image.new("RGB", (8, 6), "green").save(folder / name)


def test_a_photo_is_enlarged_all_the_same_and_one_line_says_by_what(
    offline: None, realesr: Command, folder: Path
) -> None:
    photos(folder, "photo.png")
    result = realesr("upscale", "photo.png")
    assert result.exit_code == 0
    assert result.stdout == "photo_x4.png\n"
    assert result.stderr.splitlines()[0] == LINE
    assert "8 x 6 -> 32 x 24  realesr-general-x4v3, " in result.stderr.splitlines()[-1]


def test_the_line_stands_once_for_a_folder_and_in_each_record_of_json(
    offline: None, realesr: Command, folder: Path
) -> None:
    photos(folder, "a.png", "b.png")
    result = realesr("upscale", folder, "--json")
    assert result.exit_code == 0
    assert result.stderr.count("is not on disk") == 1
    for record in map(json.loads, result.stdout.splitlines()):
        assert record["model"] == "realesr-general-x4v3"
        assert NOTICE in record["notices"]


def test_names_of_outputs_follow_the_network_that_runs(offline: None, realesr: Command, folder: Path) -> None:
    photos(folder, "a.png")
    result = realesr("upscale", "a.png", "--name", "{stem}_{model}", "--json")
    assert (folder / "a_realesr-general-x4v3.png").exists()
    assert result.stderr.count("is not on disk") == 1
    assert NOTICE in json.loads(result.stdout)["notices"]


def test_quiet_leaves_the_line_out(offline: None, realesr: Command, folder: Path) -> None:
    photos(folder, "photo.png")
    result = realesr("upscale", "photo.png", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")


def test_with_a_model_that_was_named_it_is_an_error_and_nothing_is_written(
    offline: None, realesr: Command, folder: Path
) -> None:
    photos(folder, "photo.png")
    result = realesr("upscale", "photo.png", "--model", "realesrgan-x4plus")
    assert result.exit_code == 1
    assert result.stderr == "error: https://x/net.pth cannot be fetched (no connection): try\n"
    assert not (folder / "photo_x4.png").exists()


def test_the_partner_for_denoising_must_still_be_fetched(offline: None, realesr: Command, folder: Path) -> None:
    photos(folder, "photo.png")
    result = realesr("upscale", "photo.png", "-m", "realesr-general-x4v3", "--denoise", "0.5")
    assert result.exit_code == 1
    assert "cannot be fetched (no connection)" in result.stderr


def test_nothing_is_fetched_where_every_output_is_there(
    realesr: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realesr.runtime.default_network.fetch", lambda *_, **__: pytest.fail("fetched"))
    photos(folder, "photo.png", "photo_x4.png")
    result = realesr("upscale", "photo.png")
    assert (result.exit_code, result.stdout) == (0, "")


def test_the_advice_follows_the_network_that_runs(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is faster than the network in the package."""
    write(folder, "a.jpg")
    asked: list[str | None] = []
    monkeypatch.setattr("realesr.cli.upscaling.reports.faster_advice", lambda model, _: asked.append(model))
    monkeypatch.setattr("realesr.cli.upscaling.reports.LONG_SECONDS", -1)
    monkeypatch.setattr("realesr.cli.estimate.SLOW_STEP_SECONDS", 0)
    fake.model, fake.substitution, fake.notices = "realesr-general-x4v3", NOTICE, (NOTICE, "another")
    fake.steps = [(0, 100), (50, 100), (100, 100)]
    result = realesr("upscale", "a.jpg")
    assert asked == ["realesr-general-x4v3"]
    assert result.stderr.splitlines()[0] == LINE
    assert result.stderr.count("is not on disk") == 1
    assert "a.jpg: another" in result.stderr


def test_help_tells_the_default(realesr: Command) -> None:
    text = " ".join(realesr("upscale", "--help").output.split())
    assert "Default: realesrgan-x4plus" in text.replace("│ │ ", "")
