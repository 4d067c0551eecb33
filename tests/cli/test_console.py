"""What is said on stderr: what moves on a terminal, and nothing that moves elsewhere."""

import errno
import io
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console

from realesr.cli import console, streams
from realesr.cli.console import Messages, errors_reported, megabytes, one_line
from realesr.errors import InputError, OutputError, UsageError


def messages_on(stream: io.StringIO, *, terminal: bool, quiet: bool = False) -> Messages:
    words = Messages(quiet=quiet)
    words._console = Console(file=stream, force_terminal=terminal, width=100, highlight=False, soft_wrap=True)
    return words


def test_a_terminal_sees_a_bar_in_megapixels_with_speed() -> None:
    stream = io.StringIO()
    with messages_on(stream, terminal=True).progress("photo.jpg") as advance:
        for done in (0, 3_000_000, 12_000_000):
            advance(done, 12_000_000)
    text = stream.getvalue()
    assert "photo.jpg" in text
    assert "12.0/12.0 MP" in text
    assert "MP/s" in text


@pytest.mark.parametrize(("terminal", "quiet"), [(False, False), (True, True)])
def test_nothing_moves_where_it_is_no_terminal_or_was_silenced(terminal: bool, quiet: bool) -> None:
    stream = io.StringIO()
    with messages_on(stream, terminal=terminal, quiet=quiet).progress("photo.jpg") as advance:
        advance(0, 100)
        advance(100, 100)
    assert stream.getvalue() == ""


def test_lines_are_not_wrapped_and_brackets_are_no_markup() -> None:
    stream = io.StringIO()
    line = "[red]photo[1].jpg " + "x" * 300
    messages_on(stream, terminal=False).say(line)
    assert stream.getvalue() == line + "\n"


LINES = ["[red]photo[1].jpg " + "x" * 300, "a\tb \x1b[2J", "  fin\u00e9 :smile: \u5199\u771f  ", ""]


@pytest.mark.parametrize("text", LINES, ids=["long", "control", "spaces", "empty"])
def test_what_is_printed_without_rich_is_what_rich_prints(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by_rich, plain = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", plain)
    words = Messages(verbose=True)
    words._console = Console(file=by_rich, width=100, highlight=False, soft_wrap=True)
    for each in (words, Messages(verbose=True)):
        each.say(text)
        each.detail(text)
        each.error(InputError(text))
        with each.progress("photo.jpg") as advance, each.status() as show:
            advance(1, 2)
            show(text)
    assert plain.getvalue() == by_rich.getvalue() != ""


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_stream_that_the_environment_calls_a_terminal_is_left_to_rich(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(variable, "1")
    Messages().error(InputError("a.jpg is empty"))
    assert stream.getvalue() == "\x1b[31merror: a.jpg is empty\x1b[0m\n"


def test_errors_are_red_on_a_terminal_and_quiet_does_not_silence_them() -> None:
    stream = io.StringIO()
    messages_on(stream, terminal=True, quiet=True).error(InputError("a.jpg is empty"), about=[Path("a.jpg")])
    assert stream.getvalue() == "\x1b[31merror: a.jpg is empty\x1b[0m\n"


def test_a_download_is_told_when_its_first_bytes_come() -> None:
    stream = io.StringIO()
    words = messages_on(stream, terminal=False)
    with words.download("realesrgan-x4plus") as advance:
        assert stream.getvalue() == ""
        advance(1, 67_000_000)
        advance(67_000_000, 67_000_000)
    assert stream.getvalue() == "fetching realesrgan-x4plus, 67 MB\n"


def test_a_download_of_unknown_size_is_shown_as_well() -> None:
    stream = io.StringIO()
    with messages_on(stream, terminal=True).download("esrgan-x4") as advance:
        advance(1_000_000, 0)
        advance(2_000_000, 0)
    assert "fetching esrgan-x4\n" in stream.getvalue()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("got 17"), 2, "error: got 17\n"),
        (InputError("got\nnothing"), 1, "error: got nothing\n"),
        (ZeroDivisionError("oh"), 1, "error: unexpected ZeroDivisionError: oh (--debug shows where)\n"),
        (KeyboardInterrupt(), 130, "stopped: no half file is left; the same command goes on from here\n"),
    ],
)
def test_what_ends_a_command_becomes_one_line_and_a_code(error: BaseException, code: int, line: str) -> None:
    stream = io.StringIO()
    with pytest.raises(typer.Exit) as ended, errors_reported(messages_on(stream, terminal=False)):
        raise error
    assert (ended.value.exit_code, stream.getvalue()) == (code, line)


def test_an_exit_code_that_was_meant_passes() -> None:
    with pytest.raises(typer.Exit) as ended, errors_reported(Messages()):
        raise typer.Exit(7)
    assert ended.value.exit_code == 7


def test_sizes_are_decimal() -> None:
    assert [megabytes(size) for size in (67_040_989, 2_504_012, 1_900_000_000)] == ["67 MB", "2.5 MB", "1.9 GB"]


def test_an_error_of_several_lines_is_said_in_one() -> None:
    assert one_line(InputError("a\n  b")) == "a b"


def test_a_table_on_a_narrow_terminal_keeps_its_names_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(force_terminal=True, width=50))
    console.table("Networks", ("name", "for"), [("realesr-general-wdn-x4v3", "many words " * 20)])
    assert "realesr-general-wdn-x4v3" in capsys.readouterr().out


def test_a_table_is_tab_separated_where_stdout_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.table("Networks", ("name", "scale"), [("a", "x4"), ("b", "x2")])
    assert capsys.readouterr().out == "a\tx4\nb\tx2\n"


def test_escape_sequences_never_reach_the_terminal() -> None:
    stream = io.StringIO()
    words = messages_on(stream, terminal=False)
    words.say("title \x1b]0;owned\x07")
    words.error(InputError("in/\x1b[2J\n.jpg is empty"), [Path("in/\x1b[2J\n.jpg")])
    words.error(ValueError("cut"), [Path("in/a\tb.jpg")])
    assert stream.getvalue().splitlines() == [
        r"title \x1b]0;owned\x07",
        r"error: 'in/\x1b[2J\n.jpg' is empty",
        r"error: 'a\tb.jpg': unexpected ValueError: cut (--debug shows where)",
    ]


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_messages_that_cannot_be_written_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (Full(), None):
        monkeypatch.setattr("sys.stderr", stream)
        words = Messages(debug=True)
        words.say("a line")
        words.error(InputError("empty"))
        with words.progress("a.jpg") as advance, words.status() as show:
            advance(1, 2)
            show("a line")


def test_results_that_cannot_be_written_are_an_error_and_a_reader_that_has_gone_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(OutputError, match=r"results cannot be written to stdout \(No space left on device\)"):
        console.result("a line")
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(OutputError, match="stdout, which is closed"):
        console.json_line({"a": 1})

    def broken(text: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr("sys.stdout.write", broken)
    with pytest.raises(BrokenPipeError):
        console.result("a line")


@pytest.mark.skipif(sys.platform == "win32", reason="elsewhere names are bytes")
def test_a_path_is_quoted_on_a_terminal_and_exact_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    console.result(Path("line\nbreak \u65e5.png"))
    stdout.isatty = lambda: True  # type: ignore[method-assign]
    console.result(Path("line\nbreak.png"))
    assert raw.getvalue() == "line\nbreak \u65e5.png\n'line\\nbreak.png'\n".encode()


@pytest.mark.skipif(sys.platform == "win32", reason="elsewhere names are bytes")
def test_text_that_stdout_cannot_encode_is_escaped_and_bytes_stay() -> None:
    streams.prepare()
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="latin-1", errors=streams.ESCAPES) as stdout:
        stdout.write("\xe9 \u20ac \udce9")
        stdout.flush()
        assert raw.getvalue() == b"\xe9 \\u20ac \xe9"


def test_a_stderr_that_was_closed_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    messages = console.Messages()
    stream.close()
    messages.say("to nobody")
