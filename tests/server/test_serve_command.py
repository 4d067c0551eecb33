"""The command `realesr serve`: options, the token, the link, and how it ends."""

import logging
import re
import signal
import subprocess
import sys
from typing import Any

import httpx
import psutil
import pytest
import typer
from typer.testing import CliRunner

from realesr.cli import serve as command
from realesr.cli.help import CommandHelp
from realesr.cli.quantities import bytes_from, seconds_from
from realesr.errors import UsageError
from realesr.server import serving
from realesr.server.settings import ServerSettings

from .core_queues import png
from .test_app import upload

START = """
import typer
from realesr.cli import stopping, streams
from realesr.cli.serve import serve
app = typer.Typer(add_completion=False)
app.command()(serve)
stopping.listen()
streams.prepare()
app()
"""


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings of the server that the command would run, by its arguments; also its exit code and output."""
    monkeypatch.delenv("REALESR_TOKEN", raising=False)
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(cls=CommandHelp, epilog=command.EXAMPLES)(command.serve)

    def run(*arguments: str) -> tuple[ServerSettings | None, Any]:
        seen: list[ServerSettings] = []
        monkeypatch.setattr(serving, "serve", lambda settings, _: seen.append(settings))
        result = CliRunner().invoke(app, list(arguments))
        return (seen[0] if seen else None), result

    return run


def test_an_address_of_ipv6_may_stand_in_brackets(given: Any) -> None:
    settings, _ = given("--host", "[::1]")
    assert (settings.host, settings.token) == ("::1", None)


def test_without_options_only_this_machine_is_served_and_no_token_is_needed(given: Any) -> None:
    settings, result = given()
    assert settings == ServerSettings()
    assert result.exit_code == 0


def test_once_it_has_ended_the_log_goes_where_it_went_before(given: Any) -> None:
    loggers = [logging.getLogger(name) for name in ("realesr", "uvicorn")]
    before = [list(logger.handlers) for logger in loggers]
    given()
    assert [logger.handlers for logger in loggers] == before


def test_options_become_settings(given: Any) -> None:
    arguments = (
        "--host localhost --port 9000 --token correct-horse-battery --allow-host a.example --allow-host b.example"
    )
    arguments += (
        " --queue 3 --max-upload 5MB --max-pixels 1000 --keep 10min --grace 5s --engine torch --device cuda:0,1"
    )
    settings, _ = given(*arguments.split(), "--precision", "fp16", "--threads", "2")
    assert settings == ServerSettings(
        host="localhost",
        port=9000,
        token="correct-horse-battery",
        allowed_hosts=("a.example", "b.example"),
        queue_length=3,
        most_upload_bytes=5_000_000,
        most_pixels=1000,
        keep_seconds=600,
        grace_seconds=5,
        engine="torch",
        devices=("cuda:0", "cuda:1"),
        precision="fp16",
        threads=2,
    )


@pytest.mark.parametrize("line", command.EXAMPLES.splitlines())
def test_the_examples_are_understood(given: Any, line: str) -> None:
    settings, result = given(*re.split("[#>]", line)[0].split()[2:])
    assert settings is not None, result.output
    assert len(line) <= 78


def test_every_option_has_an_example() -> None:
    app = typer.Typer(add_completion=False)
    app.command()(command.serve)
    words = set(command.EXAMPLES.split())
    options = [each for each in typer.main.get_command(app).params if each.name not in ("debug", "help")]
    assert [each.opts for each in options if not words & set(each.opts)] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "photos.example", "127.0.0.2"])
def test_for_other_machines_a_token_is_made_that_cannot_be_guessed(given: Any, host: str) -> None:
    tokens = {given("--host", host)[0].token for _ in range(2)}
    assert len(tokens) == 2
    assert all(len(token) >= 32 for token in tokens)


def test_behind_a_reverse_proxy_a_token_is_made_too(given: Any) -> None:
    assert len(given("--allow-host", "photos.example.org")[0].token) >= 32
    assert given("--allow-host", "photos.example.org", "--no-auth")[0].token is None


def test_no_token_is_needed_where_one_says_so(given: Any) -> None:
    assert given("--host", "0.0.0.0", "--no-auth")[0].token is None


def test_the_token_comes_from_a_variable_that_others_cannot_see(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALESR_TOKEN", "correct-horse-battery")
    assert given("--host", "0.0.0.0")[0].token == "correct-horse-battery"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--token", "short"),
        ("--token", "with a space in it"),
        ("--token", "tökens-are-of-ascii"),
        ("--token", "correct-horse-battery", "--no-auth"),
        ("--max-upload", "5 apples"),
        ("--max-upload", "0"),
        ("--max-upload", "-5MB"),
        ("--keep", "soon"),
        ("--grace", "1MB"),
        ("--queue", "0"),
        ("--max-pixels", "0"),
        ("--port", "70000"),
        ("--device", "cuda:0,cuda:0"),
        ("--precision", "fp8"),
        ("--engine", "onnx"),
        ("--allow-host", "https://photos.example"),
        ("--threads", "0"),
    ],
)
def test_options_that_make_no_sense_end_by_2_before_anything_starts(given: Any, arguments: tuple[str, ...]) -> None:
    settings, result = given(*arguments)
    assert (settings, result.exit_code) == (None, 2)
    assert "short" not in result.output


@pytest.mark.parametrize(
    ("text", "amount"),
    [("200MB", 200e6), ("1.5 GB", 1.5e9), ("64MiB", 64 * 2**20), ("1000", 1000), ("5kb", 5000), ("7B", 7)],
)
def test_sizes_are_read(text: str, amount: float) -> None:
    assert bytes_from(text, "--max-upload") == amount


@pytest.mark.parametrize(
    ("text", "amount"), [("30s", 30), ("1.5h", 5400), ("10min", 600), ("2m", 120), ("90", 90), ("1d", 86_400)]
)
def test_times_are_read(text: str, amount: float) -> None:
    assert seconds_from(text, "--keep") == amount


@pytest.mark.parametrize("text", ["", "MB", "1e3", "1_000", "٣MB", "5 parsecs", "1.2.3s", "inf", "nan"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-upload"):
        bytes_from(text, "--max-upload")
    with pytest.raises(UsageError, match="--keep"):
        seconds_from(text, "--keep")


def test_a_missing_package_is_named_with_the_line_that_installs_it(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings, result = given()
    assert (settings, result.exit_code) == (None, 1)
    assert "pip install" in result.output and "starlette" in result.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_command_prints_the_link_and_ends_by_0(number: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("the signal is ignored here, as under nohup, and so it is by the command")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-c", START, "--port", "0", "--engine", "nearest"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline().startswith("http://127.0.0.1:")
            server.send_signal(number)
            _, stderr = server.communicate(timeout=20)
        finally:
            server.kill()
    assert (server.returncode, stderr.splitlines()) == (0, ["serving; Ctrl-C ends it", "ended"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "times"),
    [
        (["--host", "0.0.0.0", "--no-auth"], 1),
        (["--allow-host", "photos.example", "--no-auth"], 1),
        (["--no-auth"], 0),
        (["--host", "0.0.0.0"], 0),
    ],
)
def test_that_everybody_is_let_in_is_said(arguments: list[str], times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REALESR_TOKEN", raising=False)
    monkeypatch.setattr(serving, "serve", lambda settings, on_ready: on_ready("http://10.0.0.7:8765/"))
    app = typer.Typer(add_completion=False)
    app.command()(command.serve)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert result.output.count("whoever reaches this address may use it") == times


@pytest.mark.parametrize(("option", "times"), [("", 1), ("--quiet", 0)])
def test_a_job_that_failed_is_told_to_those_who_run_the_server(
    option: str, times: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-c", START, "--port", "0", "--engine", "nearest", *filter(None, [option])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip()
            fields = {"model": "realesr-general-x4v3"}
            cut = png(64, 64)[:-5000]
            answer = httpx.post(f"{address}v1/images/upscale", files=upload(content=cut), data=fields, trust_env=False)
            assert answer.status_code == 422
            server.terminate()
            _, stderr = server.communicate(timeout=20)
        finally:
            server.kill()
    assert len(re.findall(r"job [\w-]{22} failed: \S+", stderr)) == times


def test_processes_that_read_images_do_not_know_the_token(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("REALESR_TOKEN", "correct-horse-battery")
    command = [sys.executable, "-c", START, "--port", "0", "--engine", "nearest"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline().endswith("?token=correct-horse-battery\n")
            children = psutil.Process(server.pid).children()
            assert len(children) >= 2
            assert not any("REALESR_TOKEN" in child.environ() for child in children)
        finally:
            server.terminate()
