"""The scripts of the checkout, as far as they go without a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [".ci/run", "scripts/check", "scripts/demo", "scripts/install", "scripts/test", "scripts/wheels"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell scripts")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `scripts/install` reads, and no .venv."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def install(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `scripts/install` from another folder."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "REALESR_PYTHON")}
    command = [str(checkout / "scripts" / "install"), *arguments]
    return subprocess.run(command, cwd="/", env=clean | environment, capture_output=True, text=True, check=False)


def program(path: Path, text: str) -> str:
    """Write a shell program and return its path."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_can_be_executed_and_are_valid_shell(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    shell = (ROOT / name).read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    assert subprocess.run([shell, "-n", str(ROOT / name)], check=False).returncode == 0


@pytest.mark.parametrize("variable", ["PYTHON", "REALESR_PYTHON"])
def test_an_older_python_is_refused_in_clear_words(checkout: Path, variable: str) -> None:
    old = program(checkout / "old", 'if [ "$1" = --version ]; then echo "Python 3.9.2"; else exit 1; fi')
    result = install(checkout, "light", **{variable: old})
    assert result.returncode == 1
    assert "found Python 3.9.2, but Python 3.11 or later is needed" in result.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_that_is_not_there_is_named(checkout: Path) -> None:
    result = install(checkout, "light", REALESR_PYTHON="python9.9")
    assert result.returncode == 1
    assert "no python9.9 that runs" in result.stderr


def test_install_needs_to_know_how_much(checkout: Path) -> None:
    result = install(checkout)
    assert result.returncode == 1
    assert "expected light or full" in result.stderr


def test_install_runs_pip_once_until_the_constraints_change(checkout: Path) -> None:
    """A .venv whose python only writes down what it was asked."""
    (checkout / ".venv" / "bin").mkdir(parents=True)
    program(checkout / ".venv" / "bin" / "python", 'echo "$@" >>"$(dirname "$0")/log"')
    log = checkout / ".venv" / "bin" / "log"

    def installs() -> list[str]:
        return [line for line in log.read_text().splitlines() if "install" in line]

    assert install(checkout, "light").returncode == 0
    assert install(checkout, "light").returncode == 0
    assert len(installs()) == 1
    assert ".[weights,openvino,ncnn]" in installs()[0]
    assert "-c constraints.txt" in installs()[0]
    with (checkout / "constraints.txt").open("a") as constraints:
        constraints.write("# newer\n")
    assert install(checkout, "full").returncode == 0
    assert install(checkout, "light").returncode == 0
    assert len(installs()) == 2
    assert ".[weights,openvino,ncnn,tensorrt-rtx,torch,heif,serve,dev]" in installs()[1]


def test_demo_shows_the_network_in_the_package_before_the_default() -> None:
    text = (ROOT / "scripts" / "demo").read_text(encoding="utf-8")
    fast, best = (text.index(f"--output examples/portrait_{name}.png") for name in ("general_x4", "x4"))
    assert fast < best
    assert "--model realesr-general-x4v3" in text[:fast]
    assert "--model" not in text[fast:best]


def test_demo_installs_no_torch() -> None:
    assert "torch" not in (ROOT / "scripts" / "demo").read_text(encoding="utf-8").split("set -eu")[1]
    assert "install light" in (ROOT / "scripts" / "demo").read_text(encoding="utf-8")


def test_the_sample_photo_is_what_its_script_makes() -> None:
    """Up to what another version of the JPEG library may change."""
    import io
    import runpy

    import numpy as np
    from PIL import Image

    made = runpy.run_path(str(ROOT / "examples" / "make_portrait.py"))["portrait_jpeg"]()
    with Image.open(io.BytesIO(made)) as new, Image.open(ROOT / "export" / "portrait.jpg") as committed:
        assert new.size == committed.size == (160, 200)
        difference = np.abs(np.asarray(new, float) - np.asarray(committed, float))
    assert difference.mean() < 1.0
