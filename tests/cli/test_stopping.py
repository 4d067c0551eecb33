"""Ctrl-C and SIGTERM reach every thread."""

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from realesr.cli import stopping

from .conftest import Command, FakeUpscaler, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process there")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    stopping._signals.clear()


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_the_main_thread_and_is_there_for_others_to_ask(
    number: signal.Signals, error: type[BaseException]
) -> None:
    ends: list[type[BaseException]] = []

    def work() -> None:
        try:
            stopping.check()
        except BaseException as stop:
            ends.append(type(stop))

    stopping.listen()
    stopping.check()
    with pytest.raises(error):
        signal.raise_signal(number)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ends == [error]


def test_a_job_in_the_background_goes_on_ignoring_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping.listen()
    signal.raise_signal(signal.SIGINT)
    stopping.check()


def test_what_breaks_while_stopping_is_no_failure_of_the_file(
    realesr: Command, fake: FakeUpscaler, folder: Path
) -> None:
    def break_a_lock() -> None:
        stopping._signals.append(signal.SIGTERM)
        raise RuntimeError("cannot release un-acquired lock")

    write(folder, "a.jpg")
    fake.before_step = break_a_lock
    result = realesr("upscale", "a.jpg")
    assert result.exit_code == 143
    assert "error" not in result.stderr


def test_the_next_tile_ends_the_run(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "a.jpg", "b.jpg")
    fake.before_step = lambda: stopping._signals.append(signal.SIGINT)
    assert realesr("upscale", ".").exit_code == 130
    assert [source.name for source, *_ in fake.asked] == ["a.jpg"]
    assert not (folder / "a_x4.jpg").exists()
