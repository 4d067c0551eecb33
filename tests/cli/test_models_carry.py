"""`realesr models export` and `import`: what they print."""

import json
from pathlib import Path

import pytest

from tests.models.public_list import list_server, network_bytes

from .conftest import Command


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one pulled network."""
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REALESR_MODELS", "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("realesr.models.zoo._package_folder", lambda _: [])


@pytest.fixture
def pulled(realesr: Command) -> None:
    with list_server() as server:
        url = server.publish({"2x-Mine": server.entry(network_bytes(), license="CC-BY-NC-4.0")})
        assert realesr("models", "pull", "2x-Mine", "--list", url, "--accept-licence").exit_code == 0


@pytest.mark.usefixtures("pulled")
def test_a_network_goes_to_another_machine_and_is_used_there(
    realesr: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick = tmp_path / "stick"
    result = realesr("models", "export", stick)
    assert (result.exit_code, result.stdout) == (0, f"{stick / 'pulled' / '2x-Mine.safetensors'}\n")
    assert result.stderr == "2x-Mine is under CC-BY-NC-4.0, which goes with it\n"
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "there"))
    result = realesr("models", "import", stick, "--json")
    record = json.loads(result.stdout)
    assert (record["name"], record["copied"], record["left"]) == ("2x-Mine", True, None)
    assert record["files"] == [str(tmp_path / "there" / "models" / "pulled" / "2x-Mine.safetensors")]
    assert realesr("models", "info", "2x-Mine").exit_code == 0
    again = realesr("models", "import", stick, "2x-Mine")
    assert again.stderr == "2x-Mine was left as it is: there already\n"
    assert again.stdout.strip() == record["files"][0]


@pytest.mark.usefixtures("pulled")
def test_a_damaged_file_is_one_line(realesr: Command, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    realesr("models", "export", stick, "2x-Mine", "--quiet")
    (stick / "pulled" / "2x-Mine.safetensors").write_bytes(b"damaged")
    result = realesr("models", "import", stick)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: damaged or missing: {stick}")
    assert len(result.stderr.splitlines()) == 1


def test_nothing_to_carry_is_an_error(realesr: Command, tmp_path: Path) -> None:
    result = realesr("models", "export", tmp_path / "stick")
    assert result.exit_code == 1
    assert result.stderr == "error: no network is on this disk yet: fetch or pull one first\n"
    assert realesr("models", "import", tmp_path).exit_code == 1
    assert realesr("models", "import").exit_code == 2
