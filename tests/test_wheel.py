"""The wheel: what is in it, that it runs, and how it is made for other systems."""

import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"realesr": "realesr", "engines": "realesr/engines", "export": "realesr/export", "train": "realesr/train"}
"""Folder of the repository -> where the wheel holds it."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the sources: an old build/ must not lend it files, nor may a new one be left behind."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """Paths of all files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_owns_one_top_level_name(names: set[str]) -> None:
    top_level = {name.split("/")[0] for name in names}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"realesr"}


def test_wheel_holds_every_module_and_nothing_else(names: set[str]) -> None:
    modules = {
        f"{place}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, place in FOLDERS.items()
        for file in (ROOT / folder).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules


def test_wheel_carries_the_network_that_needs_no_download(names: set[str]) -> None:
    assert "realesr/models/bundled/realesr-general-x4v3.safetensors" in names


def test_wheel_carries_the_parameters_of_niqe(names: set[str]) -> None:
    assert "realesr/scores/niqe_pristine.npz" in names


def test_wheel_is_typed_and_carries_the_licences(names: set[str]) -> None:
    assert "realesr/py.typed" in names
    assert {name.rpartition("/")[2] for name in names if ".dist-info/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_wheel_holds_the_page_that_compares_networks(names: set[str]) -> None:
    assert "realesr/cli/comparing/page.html" in names


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of scripts/wheels that knows the systems."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("wheel_targets")


def test_the_library_of_each_system_has_a_name_that_python_knows_there(targets: ModuleType) -> None:
    """`EXTENSION_SUFFIXES`, among which the engine looks, has ".abi3.so" on POSIX systems and ".pyd" on Windows."""
    names = {target.name: target.library_name for target in targets.TARGETS}
    assert names.pop("windows-x86_64") == "_winograd.pyd"
    assert set(names.values()) == {"_winograd.abi3.so"}


def test_a_library_is_put_into_the_wheel_of_its_system(targets: ModuleType, wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip("wheel", reason="scripts/wheels installs it")
    (windows,) = (target for target in targets.TARGETS if target.name == "windows-x86_64")
    (tmp_path / windows.library_name).write_bytes(b"a library")
    made = targets.with_library(wheel, windows, tmp_path / windows.library_name, tmp_path)
    assert made.name.endswith("-cp311-abi3-win_amd64.whl")
    with zipfile.ZipFile(made) as archive:
        assert archive.read("realesr/engines/winograd/_winograd.pyd") == b"a library"
        (record,) = (name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        assert "realesr/engines/winograd/_winograd.pyd,sha256=" in archive.read(record).decode()
        (tags,) = (name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        assert [line for line in archive.read(tags).decode().splitlines() if line.startswith("Tag:")] == [
            "Tag: cp311-abi3-win_amd64"
        ]


def test_command_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import realesr, sys; print(realesr.__file__); from realesr.cli import main; sys.argv[1:] = ['--help']; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == str(tmp_path / "realesr" / "__init__.py")
    assert "upscale" in result.stdout
