"""`scripts/test-gpu` without a GPU: fakes stand in for nvidia-smi and, but in the rehearsal, for the steps."""

import base64
import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "test-gpu"
VERSION = ".".join(platform.python_version_tuple()[:2])

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX programs stand in for others")

NVIDIA_SMI = """
case "$*" in
    -L) echo "GPU 0: NVIDIA Test 9000 (UUID: GPU-0)" ;;
    *) echo "NVIDIA Test 9000, 590.10, 24576 MiB, 8.9, 2520 MHz, 450.00 W" ;;
esac
"""

FAKE_STEPS = """
import os


def good(job, write):
    import carried

    write({"what": "a figure", "speed": 1.25, "place": carried.__file__, "model": os.environ["REALESR_MODELS"]})
    print("a word for the log")


def bad(job, write):
    write({"what": "first", "speed": 2.5})
    raise ValueError(f"no such thing in {job.work}/source/tests")


def hanging(job, write):
    write({"what": "before", "speed": 5.0})
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    write({"what": "child", "pid": child.pid})
    with open(job.results, "a") as file:
        file.write('{"step": "C", "torn')
    time.sleep(60)


def crashing(job, write):
    os.abort()


def lacking(job, write):
    imported("no_such_benchmark", "rows")


STEPS = (
    Step(name="A", what="good", seconds=30, run=good),
    Step(name="B", what="bad", seconds=30, run=bad),
    Step(name="C", what="hanging", seconds=5, run=hanging),
    Step(name="D", what="crashing", seconds=30, run=crashing),
    Step(name="E", what="lacking", seconds=30, run=lacking),
    Step(name="P", what="needs more", seconds=30, run=good, wheels="whl-more", missing="the kit has no more"),
    Step(name="G", what="only where it is named", seconds=30, run=good, if_named=True),
)

"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def write_wheel(folder: Path) -> None:
    """A wheel with one empty module."""
    folder.mkdir()
    files = {
        "carried.py": b"",
        "carried-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n",
        "carried-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()) for name, data in files.items()}
    record = [f"{name},sha256={hashes[name].decode().rstrip('=')},{len(files[name])}" for name in files]
    files["carried-1.0.dist-info/RECORD"] = "\n".join([*record, "carried-1.0.dist-info/RECORD,,", ""]).encode()
    with zipfile.ZipFile(folder / "carried-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A kit with the real runner, and steps that are good, fail, hang, crash and lack something."""
    folder = tmp_path / "kit"
    benchmarks = folder / "source" / "benchmarks"
    benchmarks.mkdir(parents=True)
    for name in ("gpu_run.py", "gpu_summary.py", "gpu_pytest.py"):
        shutil.copy(ROOT / "benchmarks" / name, benchmarks)
    text = (ROOT / "benchmarks" / "gpu_steps.py").read_text()
    before, after = text.split("\ndef written_to", 1)
    (benchmarks / "gpu_steps.py").write_text(f"{before}{FAKE_STEPS}\ndef written_to{after}")
    write_wheel(folder / "whl")
    about = {"commit": "abc1234", "is_changed": False, "python": VERSION, "left_out": {}}
    (folder / "kit.json").write_text(json.dumps(about))
    return folder


def run(kit: Path, *arguments: str, gpu: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the steps of a kit, beside a fake nvidia-smi."""
    programs = kit.parent / "programs"
    programs.mkdir(exist_ok=True)
    if gpu:
        program(programs / "nvidia-smi", NVIDIA_SMI)
    out = () if "--out" in arguments else ("--out", str(kit.parent / "out"))
    command = [sys.executable, str(SCRIPT), "run", "--kit", str(kit), *out, *arguments]
    environment = {**os.environ, "PATH": f"{programs}:/bin:/usr/bin"}
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=300)


def results(kit: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (kit.parent / "out" / "results.jsonl").read_text().splitlines()]


def outcomes(kit: Path) -> dict[str, str]:
    return {row["step"]: row["outcome"] for row in results(kit) if "outcome" in row}


def test_a_machine_without_a_gpu_is_told_in_one_line(kit: Path) -> None:
    result = run(kit, gpu=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "test-gpu: no NVIDIA GPU here (nvidia-smi was not found): expected one with its driver; nothing was run\n"
    )
    assert not (kit.parent / "out").exists()


def test_a_driver_that_does_not_answer_is_quoted(kit: Path) -> None:
    program(kit.parent / "programs" / "nvidia-smi", "echo 'NVIDIA-SMI has failed: no driver'; exit 9")
    result = run(kit, gpu=False)
    assert result.returncode == 2
    assert "(nvidia-smi: NVIDIA-SMI has failed: no driver)" in result.stderr


@pytest.mark.long
def test_a_step_that_fails_hangs_or_crashes_does_not_stop_the_others(kit: Path) -> None:
    result = run(kit, "--minutes", "1")
    assert result.returncode == 1
    expected = {"A": "passed", "B": "failed", "C": "failed", "D": "failed", "E": "skipped", "P": "skipped"}
    assert outcomes(kit) == expected
    reasons = {row["step"]: row["reason"] for row in results(kit) if "outcome" in row}
    assert reasons["B"].startswith("ended with 1; ValueError: no such thing in ")
    assert reasons["C"] == "stopped at its limit of 5 s"
    assert reasons["D"] == "ended by SIGABRT"
    assert reasons["E"].startswith("no_such_benchmark.rows cannot be had here: No module named")
    assert reasons["P"] == "the kit has no more"
    kept = [row["what"] for row in results(kit) if row["step"] == "C" and "what" in row]
    assert kept == ["before", "child"], "what a step had before it was stopped is kept"
    (child,) = (row["pid"] for row in results(kit) if "pid" in row)
    assert not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text()
    log = (kit.parent / "out" / "log.txt").read_text()
    assert "a word for the log" in log
    assert "Traceback" in log
    assert result.stdout.splitlines()[0] == "| step | what | outcome | good | failed | left out | s |"
    check_summary(kit)


def check_summary(kit: Path) -> None:
    """It can be committed: figures and failures are there, and no folder of this machine."""
    assert sorted(path.name for path in (kit.parent / "out").iterdir()) == ["log.txt", "results.jsonl", "summary.md"]
    summary = (kit.parent / "out" / "summary.md").read_text()
    assert "realesr at commit abc1234: `scripts/test-gpu run --minutes 1`." in summary
    assert re.search(r"^\| a figure \| 1.25 \| WORK/site/carried.py \| KIT/models \|$", summary, re.MULTILINE)
    assert "\n- B, bad: ValueError: no such thing in tests\n" in summary
    assert "/tmp" not in summary
    assert str(kit.parent) not in summary


def test_where_nothing_fails_the_run_is_good(kit: Path) -> None:
    result = run(kit, "--only", "a,e")
    assert result.returncode == 0, result.stderr
    assert outcomes(kit) == {"A": "passed", "E": "skipped"}


def test_a_step_that_is_not_for_all_runs_where_it_is_named(kit: Path) -> None:
    assert run(kit, "--only", "G").returncode == 0
    assert outcomes(kit) == {"G": "passed"}


def test_where_every_step_is_skipped_nothing_is_called_good(kit: Path) -> None:
    assert run(kit, "--only", "E").returncode == 1


def test_when_the_minutes_are_used_up_the_rest_is_skipped(kit: Path) -> None:
    assert run(kit, "--only", "C,A", "--minutes", "0.05").returncode == 1
    rows = [row for row in results(kit) if "outcome" in row]
    assert [row["outcome"] for row in rows] == ["skipped", "skipped"]
    assert all(row["reason"].startswith("no time is left: ") for row in rows)


def test_without_its_wheels_nothing_is_run(kit: Path) -> None:
    for wheel in (kit / "whl").iterdir():
        wheel.write_bytes(b"no wheel")
    assert run(kit).returncode == 1
    assert set(outcomes(kit).values()) == {"skipped"}
    assert all("nothing is installed: " in row["reason"] for row in results(kit) if "outcome" in row)
    assert "failed" in results(kit)[0]


def test_a_step_sees_its_own_wheels_alone_and_they_come_first(kit: Path) -> None:
    write_wheel(kit / "whl-more")
    assert run(kit, "--only", "A,P").returncode == 0
    places = {row["step"]: Path(row["place"]).parent.name for row in results(kit) if "place" in row}
    assert places == {"A": "site", "P": "whl-more"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "A,X"], "got --only X, expected some of A,B,C,D,E,P,G"),
        (["--kit", "/no/such/folder"], "got --kit /no/such/folder, expected a folder that pack has filled"),
    ],
)
def test_what_makes_no_sense_is_one_line(kit: Path, arguments: list[str], message: str) -> None:
    result = run(kit, *arguments)
    assert (result.returncode, result.stderr) == (1, f"test-gpu: {message}\n")


def test_a_kit_for_another_python_is_refused(kit: Path) -> None:
    about = json.loads((kit / "kit.json").read_text())
    (kit / "kit.json").write_text(json.dumps(about | {"python": "3.1"}))
    assert f"the kit is for Python 3.1, but this is {VERSION}: pack another one" in run(kit).stderr


def test_results_are_never_overwritten(kit: Path) -> None:
    (kit.parent / "out").mkdir()
    (kit.parent / "out" / "results.jsonl").write_text("{}\n")
    result = run(kit)
    assert result.returncode == 1
    assert "which holds the results of another run: name another folder" in result.stderr


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield


@pytest.fixture
def gpu_pytest(benchmarks: None) -> Any:
    return importlib.import_module("gpu_pytest")


@pytest.fixture
def gpu_kit(benchmarks: None) -> Any:
    return importlib.import_module("gpu_kit")


def test_every_file_with_a_test_for_a_gpu_is_run_but_tensorrts(gpu_pytest: Any) -> None:
    files = gpu_pytest.gpu_test_files(ROOT)
    assert all((ROOT / file).exists() for file in files)
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"mark\.(cuda)\b", path.read_text()) and path != Path(__file__)
    }
    assert marked - set(files) == {"tests/engines/nvidia/test_tensorrt_engine.py"}


def test_tests_are_collected_without_openvino() -> None:
    """A file that cannot be imported ends the collection of all others."""
    code = (
        "import sys; sys.modules['openvino'] = None; import pytest;"
        "sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', 'tests/test_readme.py']))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


TESTS = {
    "test_good.py": "import pytest\n\npytestmark = pytest.mark.cuda\n\n\ndef test_it(): pass\n"
    "\n\ndef test_bad(): raise ValueError('x' * 900)\n\n\ndef test_other(): pytest.skip('not here')\n",
    "test_broken.py": "import no_such_package\n",
    "test_left_out.py": "import pytest\n\npytest.importorskip('no_such_package')\n",
}


def test_each_test_is_told_and_a_file_that_cannot_be_imported_stops_none(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    for name, text in TESTS.items():
        (tmp_path / "tests" / name).write_text(text)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\nmarkers = ['cuda: c', 'tensorrt: t']\nfilterwarnings = ['error']\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import gpu_pytest, json;"
        "gpu_pytest.tested(sys.argv[1:], lambda row: print('ROW', json.dumps(row)))"
    )
    command = [sys.executable, "-c", code, *(f"tests/{name}" for name in TESTS)]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    rows = [json.loads(line.partition("ROW ")[2]) for line in printed.splitlines() if "ROW " in line]
    found = {row["test"].rpartition("/")[2]: row for row in rows}
    assert "failed" not in found["test_good.py::test_it"]
    assert found["test_good.py::test_bad"]["failed"] == ("ValueError: " + "x" * 900)[:500]
    assert found["test_good.py::test_other"]["skipped"] == "not here"
    assert "No module named 'no_such_package'" in found["test_broken.py"]["failed"]
    assert "could not import 'no_such_package'" in found["test_left_out.py"]["skipped"]
    assert not (tmp_path / ".pytest_cache").exists()


def test_whatever_realesr_needs_is_on_the_machine_or_brought(gpu_kit: Any) -> None:
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    needed = {re.split(r"[^\w-]", line, maxsplit=1)[0] for line in lines}
    brought = {*gpu_kit.WHEELS, *gpu_kit.BUILT}
    assert needed - brought - set(gpu_kit.ON_THE_MACHINE) == set()
    assert not brought & set(gpu_kit.ON_THE_MACHINE)


def test_wheels_are_those_of_the_machines_python_and_of_the_constraints(
    gpu_kit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(gpu_kit, "must_run", lambda command, *_, **__: commands.append(command))
    gpu_kit.download(["cffi"], "3.12", tmp_path)
    (command,) = commands
    assert command[command.index("--python-version") + 1] == "3.12"
    assert "--only-binary=:all:" in command
    assert "--no-deps" in command
    assert command[command.index("--constraint") + 1] == str(ROOT / "constraints.txt")
    assert command[-1] == "cffi"


def test_pycuda_alone_is_built_from_source_and_left_out_where_it_cannot_be(
    gpu_kit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`--no-binary :all:` would build setuptools and numpy as well, and fails."""
    commands: list[list[str]] = []

    def must_run(command: list[str], problem: str, **_: str) -> None:
        commands.append(command)
        if "--target" in command:
            target = Path(command[command.index("--target") + 1])
            (target / "lib").mkdir()
            (target / "lib" / "libcurand.so.10").touch()
            (target / "lib" / "cuda.h").touch()
        if command[-1] == "pycuda":
            raise gpu_kit.PackError(f"{problem}: no compiler")

    monkeypatch.setattr(gpu_kit, "must_run", must_run)
    assert gpu_kit.pack_pycuda("3.12", sys.executable, tmp_path / "whl-pycuda") == "cannot build pycuda: no compiler"
    (built,) = (command for command in commands if command[-1] == "pycuda")
    assert built[built.index("--no-binary") + 1] == "pycuda"
    assert gpu_kit.pack_pycuda("3.12", "", tmp_path) == "no Python 3.12 was found here to build it with"


def test_a_python_is_found_by_version_or_path(gpu_kit: Any) -> None:
    assert gpu_kit.python_for(sys.executable) == (VERSION, sys.executable)
    assert gpu_kit.python_for("3.0") == ("3.0", "")
    with pytest.raises(gpu_kit.PackError, match=r"expected a version like 3\.12"):
        gpu_kit.python_for("/no/such/python")


def test_a_folder_that_is_in_use_is_not_packed(gpu_kit: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(gpu_kit.PackError, match="which is not empty"):
        gpu_kit.pack(gpu_kit.Options(folder=tmp_path))


def test_a_kit_that_is_too_large_is_an_error(
    gpu_kit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("copy_models", "build_realesr", "download", "build"):
        monkeypatch.setattr(gpu_kit, name, lambda *_: None)
    monkeypatch.setattr(gpu_kit, "pack_pycuda", lambda *_: "not today")
    with pytest.raises(gpu_kit.PackError, match=r"the kit has \d+\.\d MB, expected 0 MB at most"):
        gpu_kit.pack(gpu_kit.Options(folder=tmp_path / "kit", most_bytes=1000))
    printed = capsys.readouterr().out
    assert re.search(r"^source +\d+\.\d\d MB$", printed, re.MULTILINE)
    assert "left out: pycuda: not today" in printed
    assert (tmp_path / "kit" / "source" / "scripts" / "test-gpu").exists()
    assert not (tmp_path / "kit" / "source" / "benchmarks" / "results").exists()


@pytest.mark.long
@pytest.mark.weights
def test_the_rehearsal_runs_every_step(gpu_kit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the packages of this environment in the place of the machine's: of the wheels realesr's alone is packed."""
    kit = tmp_path / "kit"
    gpu_kit.copy(gpu_kit.SOURCES, kit / "source")
    gpu_kit.copy_models(kit / "models")
    gpu_kit.copy_crops(None, kit / "crops")
    gpu_kit.build_realesr(kit / "whl", is_isolated=False)
    gpu_kit.write_about(kit, VERSION, {})
    result = run(kit, "--rehearse")
    assert result.returncode == 0, result.stdout + result.stderr
    found = outcomes(kit)
    assert {name: found[name] for name in "ABCDEF"} == dict.fromkeys("ABCDEF", "passed")
    rows = results(kit)
    assert next(row for row in rows if row.get("what") == "nvidia-smi")["name"] == "NVIDIA Test 9000"
    tests = [row for row in rows if row["step"] == "C" and "test" in row]
    assert len([row for row in tests if row.get("skipped") == "needs an NVIDIA GPU"]) > 80, "the tests that would run"
    assert len([row for row in tests if "skipped" not in row]) > 1
    assert (tmp_path / "out" / "summary.md").read_text().startswith("# Rehearsal of the run on a GPU, ")
