"""A signal that arrives while libvips reads a file is neither lost nor printed, nor a fault of the file."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from realesr.images.file_source import FileSource
from realesr.images.libvips import own_messages
from realesr.images.reader import open_image
from realesr.machine.held_signals import signals_held

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process there")

PIXELS = np.random.default_rng(0).integers(0, 256, (400, 300, 3), np.uint8)
SUFFIXES = ["jpg", "png", "tif", "webp"]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    after = [signal.getsignal(number) for number in numbers]
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    assert after[0] == before[0]


def picture(tmp_path: Path, suffix: str) -> Path:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path)
    return path


def read(path: Path) -> Any:
    with open_image(path) as reader:
        return reader.read_rows(400)


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Let libvips' call number `call` for bytes of a file send signals; returns the signals that have been sent."""

    def send(*numbers: signal.Signals, call: int) -> list[int]:
        original, calls = FileSource._on_read, iter(range(10**6))
        sent: list[int] = []

        def interrupted(self: FileSource, size: int) -> Any:
            if next(calls) == call:
                for number in numbers:
                    signal.raise_signal(number)
                    sent.append(number)
            return original(self, size)

        monkeypatch.setattr(FileSource, "_on_read", interrupted)
        return sent

    return send


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("call", [0, 1])
def test_ctrl_c_within_a_callback_of_libvips_is_raised_and_not_printed(
    suffix: str, call: int, tmp_path: Path, sends: Callable[..., list[int]], capfd: pytest.CaptureFixture[str]
) -> None:
    sent = sends(signal.SIGINT, call=call)
    with pytest.raises(KeyboardInterrupt):
        read(picture(tmp_path, suffix))
    assert sent == [signal.SIGINT]
    assert capfd.readouterr().err == ""


def test_ctrl_c_while_rows_are_decoded_is_raised_and_not_printed(
    tmp_path: Path, sends: Callable[..., list[int]], capfd: pytest.CaptureFixture[str]
) -> None:
    path = picture(tmp_path, "png")
    sent = sends(signal.SIGINT, call=30)  # opening takes fewer calls
    with open_image(path) as reader:
        assert sent == []
        with pytest.raises(KeyboardInterrupt):
            reader.read_rows(400)
    assert sent == [signal.SIGINT]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_signal_whose_handler_returns_changes_nothing(
    suffix: str, tmp_path: Path, sends: Callable[..., list[int]]
) -> None:
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    path = picture(tmp_path, suffix)
    whole = read(path)
    sends(signal.SIGTERM, call=1)
    np.testing.assert_array_equal(read(path), whole)
    assert received == [signal.SIGTERM]


def test_every_signal_is_handled_in_order_even_if_a_handler_raises() -> None:
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    with pytest.raises(KeyboardInterrupt), signals_held():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert received == []
    assert received == [signal.SIGTERM]


def test_the_signal_comes_before_what_has_failed_in_the_meantime() -> None:
    with pytest.raises(KeyboardInterrupt), own_messages():
        signal.raise_signal(signal.SIGINT)
        raise ValueError


def test_signals_that_are_ignored_and_other_threads_are_left_alone() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with signals_held():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    ours: list[object] = []

    def ask() -> None:
        with signals_held():
            ours.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert ours == [signal.getsignal(signal.SIGINT)]
