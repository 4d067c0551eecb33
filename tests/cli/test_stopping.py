"""Ctrl-C and SIGTERM reach every thread."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from realesr.cli import stopping
from realesr.images.file_source import FileSource

from .conftest import Command, FakeUpscaler, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process there")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
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


def test_a_signal_that_comes_while_libvips_reads_waits_for_the_next_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def read_and_be_stopped(source: FileSource, size: int) -> bytes | None:
        if not stopping._signals:
            signal.raise_signal(signal.SIGTERM)
        return source._file.read(size) or None

    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    stopping.listen()
    monkeypatch.setattr(FileSource, "_on_read", read_and_be_stopped)
    with FileSource(path) as source:
        assert source.load("pngload").width == 8
    with pytest.raises(SystemExit):
        stopping.check()
    assert "Traceback" not in capfd.readouterr().err


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_end_is_ignored(number: signal.Signals) -> None:
    stopping.listen()
    stopping.end()
    signal.raise_signal(number)
    stopping.check()


def test_a_second_signal_after_the_end_kills_what_a_first_one_stopped() -> None:
    stopping.listen()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    stopping.end()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_signals_that_others_handle_are_left_alone_at_the_end() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stopping.end()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _realesr(before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, after the statements `before`."""
    program = f"import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{before}\n"
    program += "from realesr.cli import main\nsys.exit(main())\n"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)


def test_ctrl_c_while_the_command_is_imported_ends_without_a_traceback() -> None:
    ended = _realesr(
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'realesr.cli.doctor':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["no-such-command"], 2)])
def test_a_signal_while_python_ends_changes_nothing(sent: str, arguments: list[str], code: int) -> None:
    usual = _realesr("", *arguments)
    at_the_end = f"import atexit\natexit.register(lambda: signal.raise_signal(signal.{sent}))"
    ended = _realesr(at_the_end, *arguments)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, usual.stdout, usual.stderr)


def test_ctrl_c_before_the_command_begins_ends_without_a_traceback() -> None:
    before = "import realesr.cli.streams as streams\nstreams.prepare = lambda: signal.raise_signal(signal.SIGINT)"
    ended = _realesr(before, "--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
