"""`scripts/test-gpu`, as far as it goes without a GPU: fakes stand in for nvidia-smi and the Python of .venv-gpu."""

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell programs stand in for others")

REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.a" name="good"/>
<testcase classname="tests.a" name="left_out"><skipped message="TensorRT is not installed"/></testcase>
{more}</testsuite></testsuites>"""
FAILURE = '<testcase classname="tests.a" name="bad"><failure message="assert 1 == 2">long</failure></testcase>'

VENV_PYTHON = """
echo "$@" >>"$(dirname "$0")/log"
case "$*" in
    *importlib.metadata*) cat "$(dirname "$0")/installed.json" ;;
    *"-m pytest"*) for word; do case "$word" in
        --junitxml=*) cp "$(dirname "$0")/report.xml" "${word#*=}" ;;
    esac; done ;;
    *"-m realesr doctor"*) echo '{"engines": [], "choice": {"engine": "torch"}, "problems": []}' ;;
esac
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a .venv-gpu that has everything, and a folder of programs that has no nvidia-smi."""
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "test-gpu", folder / "scripts")
    shutil.copy(ROOT / "pyproject.toml", folder)
    bin_folder = folder / ".venv-gpu" / "bin"
    program(bin_folder / "python", VENV_PYTHON)
    needed = ["numpy", "onnx", "onnxruntime", "pyvips", "pillow", "typer", "rich", "platformdirs", "requests", "psutil"]
    needed += ["torch", "safetensors", "pyvips-binary", "pytest", "hypothesis", "scikit-image", "setuptools"]
    (bin_folder / "installed.json").write_text(json.dumps(dict.fromkeys(needed, "1.0") | {"setuptools": "80.1"}))
    (bin_folder / "report.xml").write_text(REPORT.format(more=""))
    return folder


def run(checkout: Path, *arguments: str, gpu: bool = True) -> subprocess.CompletedProcess[str]:
    programs = checkout.parent / "programs"
    programs.mkdir(exist_ok=True)
    if gpu:
        program(programs / "nvidia-smi", 'echo "NVIDIA Test 9000, 590.10, 24576 MiB, 8.9"')
    command = [sys.executable, str(checkout / "scripts" / "test-gpu"), *arguments]
    environment = {**os.environ, "PATH": f"{programs}:/bin:/usr/bin"}
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=60)


def record(folder: Path) -> dict:
    (path,) = folder.glob("*.json")
    assert path.name == f"{datetime.date.today().isoformat()}-gpu-tests.json"
    found: dict = json.loads(path.read_text())
    return found


def test_a_machine_without_a_gpu_is_told_in_one_line(checkout: Path) -> None:
    result = run(checkout, gpu=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "test-gpu: no NVIDIA GPU here (nvidia-smi was not found): expected one with its driver; nothing was run\n"
    )
    assert not (checkout / ".venv-gpu" / "bin" / "log").exists()


def test_a_driver_that_does_not_answer_is_quoted(checkout: Path) -> None:
    program(checkout.parent / "programs" / "nvidia-smi", "echo 'NVIDIA-SMI has failed: no driver'; exit 9")
    result = run(checkout, gpu=False)
    assert result.returncode == 2
    assert "(nvidia-smi: NVIDIA-SMI has failed: no driver)" in result.stderr


def test_what_came_of_the_tests_is_written_down(checkout: Path, tmp_path: Path) -> None:
    result = run(checkout, "--out", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    found = record(tmp_path / "out")
    assert found["gpus"] == [
        {"name": "NVIDIA Test 9000", "driver_version": "590.10", "memory.total": "24576 MiB", "compute_cap": "8.9"}
    ]
    assert found["tests"] == {
        "passed": 1,
        "failed": [],
        "skipped": [{"name": "tests.a::left_out", "reason": "TensorRT is not installed"}],
    }
    assert found["doctor"]["choice"] == {"engine": "torch"}
    assert found["packages"]["numpy"] == "1.0, was there"
    assert found["packages"]["pycuda"] == "missing: no wheel"
    assert "1 passed, 0 failed, 1 skipped" in result.stdout
    log = (checkout / ".venv-gpu" / "bin" / "log").read_text()
    assert "--no-index --no-deps --no-build-isolation --editable" in log
    assert "-m pytest -m cuda or tensorrt" in log
    assert [item.name for item in (tmp_path / "out").iterdir()] == [f"{found['date']}-gpu-tests.json"]


def test_a_failed_test_ends_with_1_and_is_named(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv-gpu" / "bin" / "report.xml").write_text(REPORT.format(more=FAILURE))
    assert run(checkout, "--out", str(tmp_path / "out")).returncode == 1
    assert record(tmp_path / "out")["tests"]["failed"] == [{"name": "tests.a::bad", "reason": "assert 1 == 2"}]


def test_where_no_test_could_run_nothing_is_called_good(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv-gpu" / "bin" / "report.xml").write_text("<testsuites><testsuite/></testsuites>")
    assert run(checkout, "--out", str(tmp_path / "out")).returncode == 1


def test_what_is_missing_and_needed_is_named_before_any_test(checkout: Path, tmp_path: Path) -> None:
    path = checkout / ".venv-gpu" / "bin" / "installed.json"
    have = json.loads(path.read_text())
    del have["pyvips"], have["hypothesis"]
    path.write_text(json.dumps(have))
    result = run(checkout, "--wheels", str(tmp_path), "--out", str(tmp_path / "out"))
    assert result.returncode == 1
    assert (
        "expected these here or in --wheels: pyvips (missing: no wheel), hypothesis (missing: no wheel)"
        in result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_wheels_are_installed_without_a_network(checkout: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("pycuda-2026.1.tar.gz", "onnxruntime_gpu-1.31.1-cp311-cp311-linux_x86_64.whl"):
        (wheels / name).touch()
    run(checkout, "--wheels", str(wheels), "--out", str(tmp_path / "out"))
    lines = (checkout / ".venv-gpu" / "bin" / "log").read_text().splitlines()
    installs = [line for line in lines if "--find-links" in line]
    assert installs == [
        f"-m pip install --quiet --no-index --find-links {wheels} --no-build-isolation --upgrade pycuda"
    ]
    assert "onnxruntime is there, and each overwrites" in record(tmp_path / "out")["packages"]["onnxruntime-gpu"]


def test_a_folder_of_wheels_that_is_not_there_is_named(checkout: Path) -> None:
    result = run(checkout, "--wheels", "/no/such/folder")
    assert result.returncode == 1
    assert "got --wheels /no/such/folder, expected a folder with wheels" in result.stderr


def test_a_venv_is_made_where_there_is_none(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".venv-gpu")
    result = run(checkout, "--out", str(tmp_path / "out"))
    assert (checkout / ".venv-gpu" / "bin" / "python").exists()
    settings = (checkout / ".venv-gpu" / "pyvenv.cfg").read_text()
    assert "include-system-site-packages = true" in settings
    assert result.returncode == 1, "nothing is installed there"
