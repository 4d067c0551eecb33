"""Which network runs where none was named: the default one where it can be had, else the one in the package."""

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import realesr
from realesr.errors import ModelError, UsageError
from realesr.models.download import DownloadError
from realesr.models.zoo import BUNDLED_MODEL, DEFAULT_MODEL, ZooEntry
from realesr.options import NetworkOptions
from realesr.runtime import default_network
from realesr.runtime.default_network import with_network

OFFLINE = DownloadError("https://x/net.pth cannot be fetched (no connection): check it", reason="no connection")
LINE = (
    "realesrgan-x4plus is not on disk and cannot be fetched (no connection): realesr-general-x4v3, which comes with "
    "realesr, is used instead"
)


def fails_with(error: Exception) -> Callable[..., Path]:
    """Return what stands for `fetch` and raises this error."""

    def fetch(*_: object, **__: object) -> Path:
        raise error

    return fetch


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_network, "fetch", fails_with(OFFLINE))


def test_the_default_runs_where_it_is_on_disk_or_can_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fetch(entry: ZooEntry, **how: object) -> Path:
        asked.append((entry.name, how))
        return Path("net.pth")

    def on_download(done: int, total: int) -> None:
        pass

    monkeypatch.setattr(default_network, "fetch", fetch)
    assert with_network(NetworkOptions(tta=True), on_download) == (NetworkOptions(model=DEFAULT_MODEL, tta=True), "")
    assert asked == [(DEFAULT_MODEL, {"on_progress": on_download, "is_optional": True})]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OFFLINE, "no connection"),
        (ModelError("/cache cannot be written: No space left on device"), "/cache cannot be written: No space left"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_where_it_cannot_be_had_the_network_in_the_package_stands_in_and_one_line_says_why(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    monkeypatch.setattr(default_network, "fetch", fails_with(error))
    options, line = with_network(NetworkOptions(tta=True))
    assert options == NetworkOptions(model=BUNDLED_MODEL, tta=True)
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "options",
    [
        NetworkOptions(model=DEFAULT_MODEL),
        NetworkOptions(model="net.pth", engine="nearest"),
        NetworkOptions(model="realesr-general-x4v3", denoise=0.5),
    ],
)
def test_a_network_that_was_named_stays(options: NetworkOptions, offline: None) -> None:
    assert with_network(options) == (options, "")


@pytest.mark.parametrize("options", [NetworkOptions(engine="nearest"), NetworkOptions(denoise=0.5)])
def test_nothing_is_fetched_or_replaced_without_weights_or_with_a_denoising_strength(
    options: NetworkOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_network, "fetch", lambda *_, **__: pytest.fail("fetched"))
    found, line = with_network(options)
    assert (found.model, line) == (DEFAULT_MODEL, "")


def test_an_image_in_memory_is_enlarged_and_the_log_has_the_line(
    offline: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        large = realesr.upscale(np.zeros((6, 8, 3), np.uint8))
    assert large.shape == (24, 32, 3)
    assert [record.getMessage() for record in caplog.records] == [LINE]


def test_every_files_result_has_the_line_and_the_network_that_ran(
    offline: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (8, 6), "green").save(tmp_path / "photo.png")
    with realesr.Upscaler.from_options(NetworkOptions()) as upscaler:
        result = upscaler.upscale_file(tmp_path / "photo.png")
    assert result.notices[0] == upscaler.substitution == LINE
    assert (result.model, upscaler.options.model) == (BUNDLED_MODEL, BUNDLED_MODEL)
    assert caplog.records == []


def test_a_network_that_was_named_and_is_not_to_be_had_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path))
    monkeypatch.setattr("realesr.models.zoo._package_folder", lambda _: [])
    monkeypatch.setattr("realesr.models.download.download", fails_with(OFFLINE))
    with pytest.raises(ModelError, match="no connection"):
        realesr.Upscaler(DEFAULT_MODEL)
    with pytest.raises(UsageError, match="realesrgan-x4plus has no denoise strength"):
        realesr.Upscaler(denoise=0.5)
