"""`realesr models search` and `pull`, against a server in this process."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realesr.cli import models_pull
from realesr.models.zoo import ZOO
from tests.models.public_list import ListServer, list_server, network_bytes

from .conftest import Command


@pytest.fixture(autouse=True)
def nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REALESR_MODELS", "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("realesr.models.zoo._package_folder", lambda _: [])


@pytest.fixture
def server() -> Iterator[ListServer]:
    with list_server() as server:
        yield server


@pytest.fixture
def url(server: ListServer) -> str:
    """Address of a list of four networks: one that is fetched, one to be accepted, one behind a page, one not ours."""
    made = server.entry(network_bytes())
    (file,) = made["resources"]
    return server.publish(
        {
            "2x-Other": made | {"architecture": "dat", "license": None},
            "2x-Page": made | {"resources": [file | {"urls": ["https://mega.nz/folder/1"]}], "tags": []},
            "2x-Made": made,
            "2x-Mine": made | {"license": "CC-BY-NC-4.0", "description": "of late"},
        }
    )


def fetched(server: ListServer) -> list[str]:
    return [path for path in server.paths() if path != "models.json"]


def test_a_pulled_network_enlarges_a_photo_by_its_name(
    realesr: Command, server: ListServer, url: str, folder: Path
) -> None:
    result = realesr("models", "pull", "2x-Made", "--list", url)
    assert result.exit_code == 0
    path = folder / "cache" / "models" / "pulled" / "2x-Made.safetensors"
    assert result.stdout == f"{path}\n"
    size = f"{len(network_bytes()) / 1e6:.3g} MB"
    assert result.stderr.splitlines() == [
        f"2x-Made by somebody, else: compact x2, licence CC-BY-4.0, {size}",
        f"fetching 2x-Made, {size}",
    ]
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save("photo.png")
    assert realesr("upscale", "photo.png", "-m", "2x-Made", "-s", 2, "-o", "large.png").exit_code == 0
    with Image.open("large.png") as large:
        assert large.size == (16, 16)


def test_a_scale_that_is_not_the_lists_is_told(realesr: Command, server: ListServer) -> None:
    url = server.publish({"8x-Made": server.entry(network_bytes(), scale=8)})
    result = realesr("models", "pull", "8x-Made", "--list", url)
    assert result.exit_code == 0
    assert "8x-Made: the list says x8, but the file is x2" in result.stderr


def test_it_is_listed_with_the_others(realesr: Command, url: str) -> None:
    realesr("models", "pull", "2x-Made", "--list", url)
    rows = [line.split("\t") for line in realesr("models").stdout.splitlines()]
    assert [row[0] for row in rows] == [*ZOO, "2x-Made"]
    assert rows[-1] == ["2x-Made", "x2", "0.0", "CC-BY-4.0", "photo, jpeg; by somebody, else", "yes"]
    record = json.loads(realesr("models", "--json").stdout.splitlines()[-1])
    assert record["author"] == "somebody, else"
    assert record["source"].startswith("http://127.0.0.1")
    found = json.loads(realesr("models", "info", "2x-Made", "--json").stdout)
    assert (found["name"], found["licence"], found["scale"]) == ("2x-Made", "CC-BY-4.0", 2)
    assert found["sha256"] == record["sha256"]


def test_a_network_on_disk_is_said_to_be_there(realesr: Command, server: ListServer, url: str) -> None:
    first = realesr("models", "pull", "2x-Mine", "--list", url, "--accept-licence")
    again = realesr("models", "pull", "2x-Mine", "--list", url, "--json")
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert json.loads(again.stdout)["on_disk"] == first.stdout.strip()
    assert again.stderr.splitlines()[0].endswith("; it is on disk")
    assert fetched(server) == ["net.safetensors"]


def test_a_licence_that_is_not_permissive_is_refused_where_nobody_can_answer(
    realesr: Command, server: ListServer, url: str
) -> None:
    result = realesr("models", "pull", "2x-Made", "2x-Mine", "--list", url, "--quiet")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: 2x-Mine by somebody, else is under CC-BY-NC-4.0: --accept-licence accepts it; nothing was fetched\n"
    )
    assert fetched(server) == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("Yes\n", 0), ("n\n", 2), ("\n", 2), ("", 2)])
def test_on_a_terminal_it_is_asked_for(
    realesr: Command, server: ListServer, url: str, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    from typer.testing import CliRunner

    from realesr.cli.app import build_app

    monkeypatch.setattr(models_pull, "has_terminal", lambda: True)
    result = CliRunner().invoke(build_app(), ["models", "pull", "2x-Mine", "--list", url], input=answer)
    assert result.exit_code == code
    assert "2x-Mine by somebody, else is under CC-BY-NC-4.0. Accept it? [y/N]" in result.stderr
    assert fetched(server) == (["net.safetensors"] if code == 0 else [])
    assert bool(result.stdout) is (code == 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("2x-Other", "2x-Other is of the architecture 'dat', which realesr does not run"),
        (
            "2x-Page",
            "2x-Page has no address that leads to the file itself: get it with a browser at https://mega.nz/folder/1",
        ),
        ("2x-Mad", "is called 2x-Mad: did you mean 2x-Made"),
        ("../2x-Made", "is called ../2x-Made"),
    ],
)
def test_what_cannot_be_pulled_is_one_line_and_nothing_is_fetched(
    realesr: Command, server: ListServer, url: str, name: str, message: str
) -> None:
    result = realesr("models", "pull", "2x-Made", name, "--list", url)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert fetched(server) == []


@pytest.mark.parametrize(("text", "code"), [("<html>", 1), ("[]", 1), ("", 1), (None, 1)])
def test_a_list_that_cannot_be_read_is_one_line(realesr: Command, folder: Path, text: str | None, code: int) -> None:
    if text is not None:
        Path("list.json").write_text(text)
    for command in (("search", "photo"), ("pull", "2x-Made")):
        result = realesr("models", *command, "--list", "list.json")
        assert result.exit_code == code
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("error: list.json is no ")


def test_an_address_of_another_kind_is_wrong_usage(realesr: Command) -> None:
    result = realesr("models", "search", "photo", "--list", "ftp://127.0.0.1/models.json")
    assert result.exit_code == 2
    assert "expected an address of http or https, or a file" in result.stderr


def test_search_shows_first_what_can_be_pulled(realesr: Command, server: ListServer, url: str) -> None:
    result = realesr("models", "search", "made", "--list", url)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows == [
        ["2x-Made", "x2", "0.0", "CC-BY-4.0", "photo, jpeg; by somebody, else", "yes"],
        ["2x-Mine", "x2", "0.0", "CC-BY-NC-4.0", "photo, jpeg; by somebody, else", "yes"],
        ["2x-Other", "x2", "0.0", "-", "photo, jpeg; by somebody, else", "no: dat"],
        ["2x-Page", "x2", "0.0", "CC-BY-4.0", "by somebody, else", "by hand"],
    ]
    assert fetched(server) == []


def test_search_as_json_has_the_reason(realesr: Command, url: str) -> None:
    lines = realesr("models", "search", "made", "--list", url, "--json").stdout.splitlines()
    records = {record["name"]: record for record in map(json.loads, lines)}
    assert [record["pull"] for record in records.values()] == [True, True, False, False]
    assert "'dat', which realesr does not run" in records["2x-Other"]["reason"]
    assert (records["2x-Mine"]["permissive"], records["2x-Made"]["permissive"]) == (False, True)
    assert records["2x-Mine"]["description"] == "of late"


def test_all_words_have_to_be_found(realesr: Command, url: str) -> None:
    assert realesr("models", "search", "LATE", "photo", "--list", url).stdout.startswith("2x-Mine\t")
    none = realesr("models", "search", "late", "nothing", "--list", url)
    assert (none.exit_code, none.stdout) == (0, "")
    assert "has all of these words: late nothing" in none.stderr


def test_entries_that_cannot_be_used_are_told(realesr: Command, server: ListServer) -> None:
    url = server.publish({"2x-Made": server.entry(network_bytes()), "a/b\x1b": {}, "2x-C": 5})
    result = realesr("models", "search", "made", "--list", url)
    assert len(result.stdout.splitlines()) == 1
    assert "entries of the list that cannot be used: 2, such as 'a/b\\x1b': its name is no safe name" in result.stderr
