"""A command whose upscaler is a fake: it writes a few bytes, and fails where the source's name says so."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from typer.testing import CliRunner, Result

from realesr.cli.app import build_app
from realesr.errors import InputError
from realesr.options import FileOptions, ImageOptions, NetworkOptions
from realesr.runtime.file_job import UpscaleResult

Command = Callable[..., Result]


class FakeUpscaler:
    """Records what it was asked for; `steps` are the calls of progress, `before_step` runs before each of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[Path, Path, ImageOptions, FileOptions]] = []
        self.network: Any = None
        self.model = "realesrgan-x4plus"
        self.substitution = ""
        self.opened = 0
        self.choice = ""
        self.steps = [(0, 100), (100, 100)]
        self.before_step: Callable[[], None] = lambda: None
        self.notices: tuple[str, ...] = ()
        self.whole_seconds: float | None = None
        self.seconds_per_px: float | None = None

    @property
    def options(self) -> NetworkOptions:
        network: NetworkOptions = self.network
        return replace(network, model=network.model or self.model)

    def __enter__(self) -> Self:
        self.opened += 1
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def upscale_file(
        self,
        source: Path,
        target: Path,
        *,
        image: ImageOptions,
        file: FileOptions,
        on_progress: Callable[[int, int], None],
    ) -> UpscaleResult:
        self.asked.append((source, target, image, file))
        if "broken" in source.name:
            raise InputError(f"{source} is truncated: expected 100 bytes, got 7")
        if "surprise" in source.name:
            raise RuntimeError("something that nobody\nthought of")
        if "stopped" in source.name:
            raise KeyboardInterrupt
        for done, total in self.steps:
            self.before_step()
            on_progress(done, total)
        target.write_bytes(b"enlarged")
        return UpscaleResult(
            source=source,
            target=target,
            input_px=(800, 600),
            output_px=(3200, 2400),
            model="realesrgan-x4plus",
            engine="onnxruntime",
            device="cpu",
            precision="fp32",
            passes=2,
            tile_px=192,
            overlap_px=32,
            seconds=12.34,
            peak_bytes=1_900_000_000,
            notices=self.notices,
            whole_seconds=self.whole_seconds,
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeUpscaler:
    upscaler = FakeUpscaler()

    def open_fake(network: Any, _words: Any) -> FakeUpscaler:
        upscaler.network = network
        return upscaler

    monkeypatch.setattr("realesr.cli.upscaling.run.open_upscaler", open_fake)
    return upscaler


@pytest.fixture
def realesr() -> Command:
    """`realesr("upscale", path, "-s", 2)`: the command in this process, with `data` on stdin."""
    app = build_app()

    def run(*arguments: object, data: bytes | None = None) -> Result:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(app, words, input=data, prog_name="realesr")

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def write(folder: Path, *names: str) -> None:
    """Make files that are taken for images by their names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")
