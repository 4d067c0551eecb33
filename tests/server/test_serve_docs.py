"""The examples of docs/serve.md, run as they stand against `realesr serve`; only the port is another one."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from realesr.options import MAX_SCALE
from realesr.server.archive import MOST_FILES
from realesr.server.http_protocol import HEADER_SECONDS, READ_SECONDS
from realesr.server.job_queue import HEAD_START_SECONDS, SHORT_SECONDS
from realesr.server.serving import MOST_CONNECTIONS
from realesr.server.settings import DEFAULT_PORT, ServerSettings
from realesr.server.storage import LEAST_FREE_BYTES
from realesr.server.uploads import LEAST_BYTES_PER_S, PATIENCE_S
from realesr.server.worker import SECONDS_BEFORE_NEXT_FETCH

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
ADDRESS = f"http://127.0.0.1:{DEFAULT_PORT}"
TOKEN = "correct-horse-battery-staple"

NEEDS_CURL = pytest.mark.skipif(
    not shutil.which("curl") or not shutil.which("sh"), reason="needs curl and a shell: apt install curl"
)


def blocks(language: str, word: str) -> list[str]:
    """Fenced blocks in one language that have a word in them."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [block for block in found if word in block]


CURL = {block: name for block, name in zip(blocks("sh", "curl "), ("one", "steps", "zip", "token"), strict=True)}
PYTHON = blocks("python", "requests")


@contextlib.contextmanager
def serving(temporary: Path, **variables: str) -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, "-m", "realesr", "serve", "--port", "0", "--engine", "nearest", "--quiet"]
    environment = {**os.environ, "TMPDIR": str(temporary), **variables}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().partition("/?")[0].rstrip("/")
        finally:
            process.terminate()
    assert process.returncode == 0
    assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="module")
def guarded_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server"), REALESR_TOKEN=TOKEN) as address:
        yield address


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that examples run in has two photos of 16 x 12 px."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("photo.jpg", "other.jpg"):
        Image.effect_noise((16, 12), 60).convert("RGB").save(name)


def run_shell(block: str, address: str, **variables: str) -> None:
    """Run a block as a script that ends at the first error."""
    assert ADDRESS in block
    script = block.replace(ADDRESS, address)
    ran = subprocess.run(
        ["sh", "-euc", script], capture_output=True, text=True, timeout=60, env={**os.environ, **variables}
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout


def run_python(block: str, address: str, **variables: str) -> str:
    """Run a block as a program, and return what it prints."""
    assert ADDRESS in block
    ran = subprocess.run(
        [sys.executable, "-c", block.replace(ADDRESS, address)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **variables},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def block_of(name: str) -> str:
    """The example of this name."""
    (block,) = (block for block, its_name in CURL.items() if its_name == name)
    return block


def facts(path: str) -> tuple[str | None, tuple[int, int]]:
    """Format and size of an image."""
    with Image.open(path) as image:
        image.load()
        return image.format, image.size


def documented_keys() -> set[str]:
    """Keys of a job that the page's table has."""
    table = PAGE.split("\n| key | value |\n", 1)[1].split("\n\n", 1)[0]
    return {key for line in table.splitlines()[1:] for key in re.findall(r"`(\w+)`", line.split("|")[1])}


@NEEDS_CURL
def test_one_request_by_curl_gives_the_image(address: str) -> None:
    run_shell(block_of("one"), address)
    assert facts("large.jpg") == ("JPEG", (32, 24))


@NEEDS_CURL
def test_the_steps_by_curl_give_the_job_its_changes_and_the_image(address: str) -> None:
    run_shell(block_of("steps"), address)
    jobs = [json.loads(Path(name).read_text()) for name in ("job.json", "state.json")]
    assert [set(job) for job in jobs] == [documented_keys()] * 2
    assert jobs[1]["state"] == "done"
    told = re.findall(r"^event: job\ndata: (.*)$", Path("events.txt").read_text(), flags=re.MULTILINE)
    assert json.loads(told[-1]) == jobs[1]
    assert facts("photo_x4.jpg") == ("JPEG", (64, 48))
    assert subprocess.run(["curl", "-sf", f"{address}/api/jobs/{jobs[0]['id']}"]).returncode == 22  # gone


@NEEDS_CURL
def test_results_come_as_a_zip_by_curl(address: str) -> None:
    run_shell(block_of("zip"), address)
    with zipfile.ZipFile("photos.zip") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["other_x4.webp", "photo_x4.webp"]
        assert facts_of(archive.read("photo_x4.webp")) == ("WEBP", (64, 48))


def facts_of(content: bytes) -> tuple[str | None, tuple[int, int]]:
    """Format and size of an image in memory."""
    with Image.open(io.BytesIO(content)) as image:
        return image.format, image.size


@NEEDS_CURL
def test_a_token_is_sent_by_curl(guarded_address: str) -> None:
    run_shell(block_of("token"), guarded_address, REALESR_TOKEN=TOKEN)
    assert {"models", "formats", "limits"} <= set(json.loads(Path("models.json").read_text()))
    with pytest.raises(AssertionError):
        run_shell(block_of("token"), guarded_address, REALESR_TOKEN="wrong-horse-battery-staple")


def test_one_request_in_python_gives_the_image(address: str) -> None:
    run_python(PYTHON[0], address)
    assert facts("large.png") == ("PNG", (64, 48))


@pytest.mark.parametrize("token", [None, TOKEN])
def test_python_follows_a_job(request: pytest.FixtureRequest, token: str | None) -> None:
    address = request.getfixturevalue("guarded_address" if token else "address")
    printed = run_python(PYTHON[1], address, **({"REALESR_TOKEN": token} if token else {}))
    assert printed.splitlines()[-1] == "done 100% 0.0"
    assert facts("large.jpeg") == ("JPEG", (48, 36))


def test_all_examples_are_run() -> None:
    assert len(PYTHON) == len(blocks("python", "")) == 2
    assert len(blocks("console", "")) == 0


def test_what_a_program_gets_wrong_is_told_in_words(address: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PYTHON[0].replace(ADDRESS, address).replace('"png"', '"gif"')],
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, "expected" in ran.stderr, "Traceback" in ran.stderr) == (1, True, False), ran.stderr


SETTINGS = ServerSettings()
ROWS: list[tuple[str, Any]] = [
    ("file of an upload", f"{SETTINGS.most_upload_bytes / 1e6:g} MB"),
    ("pixels of an upload", f"{SETTINGS.most_pixels / 1e6:g} million"),
    ("pixels of a result; scale", f"{SETTINGS.most_result_pixels / 1e6:,.0f} million; {MAX_SCALE:g}"),
    ("images that wait, uploads included", f"{SETTINGS.queue_length}"),
    ("room on the disk", f"{LEAST_FREE_BYTES / 1e6:g} MB"),
    ("connections", f"{MOST_CONNECTIONS}"),
    ("headers of a request; a pause in reading an answer", f"{HEADER_SECONDS:g} s; {READ_SECONDS:g} s"),
    ("results of a ZIP", f"{MOST_FILES:,}"),
    ("speed of an upload", f"{LEAST_BYTES_PER_S / 1000:g} kB/s"),
]


@pytest.mark.parametrize(("row", "amount"), ROWS)
def test_limits_are_those_of_the_program(row: str, amount: str) -> None:
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {row} |"))
    assert re.search(rf"(?<![\d,.]){re.escape(amount)}(?![\d,.])", line)


def test_times_in_words_are_those_of_the_program() -> None:
    times = (PATIENCE_S, SETTINGS.keep_seconds, SHORT_SECONDS, HEAD_START_SECONDS, SECONDS_BEFORE_NEXT_FETCH)
    assert times == (30, 3600, 10, 60, 300)
    words = ("half a minute", "an hour", "less than ten seconds", "less than a minute before", "five minutes later")
    assert [phrase for phrase in words if phrase not in PAGE.replace("\n", " ")] == []
