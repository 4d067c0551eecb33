"""The tests of the checkout that need a GPU, run by pytest in this process, for gpu_steps.py."""

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Write = Callable[[Row], None]

REASON_CHARACTERS = 500

GPU_TESTS = (
    "tests/engines/pytorch/test_engine.py",
    "tests/engines/test_contract.py",
    "tests/engines/test_recovery.py",
    "tests/engines/nvidia/test_cuda_memory.py",
    "tests/train/degrade/test_apply.py",
    "tests/train/test_steps.py",
)
"""Files with tests that need a GPU; others with such tests are found by their marks."""
MARK = re.compile(r"^\s*@?pytest\.mark\.cuda\b|marks=.*\bmark\.cuda\b", re.MULTILINE)
OUTPUT_SHAPES = "scaled_shape"
"""A test with 48 shapes for each engine, each of which cuDNN searches: minutes."""
TEST_SECONDS = 60
"""Time limit of one test, where pytest-timeout is installed."""


def gpu_test_files(root: Path) -> list[str]:
    """Return the files of GPU_TESTS, and others with marked tests; TensorRT's need another machine."""
    marked = (path for path in sorted((root / "tests").rglob("test_*.py")) if MARK.search(path.read_text("utf-8")))
    others = (path.relative_to(root).as_posix() for path in marked if "tensorrt" not in path.name)
    return list(dict.fromkeys([*GPU_TESTS, *others]))


def tested(
    files: Iterable[str],
    write: Write,
    *,
    keyword: str = "",
    marks: str = "cuda and not tensorrt",
    may_skip_all: bool = False,
) -> None:
    """Run tests of the current folder, a row for each as soon as it has ended.

    Plug-ins of pytest that the machine happens to have stay out, but for time limits.

    Args:
        files: where the tests are.
        write: takes the rows.
        keyword: as in pytest's `-k`.
        marks: as in pytest's `-m`.
        may_skip_all: whether it is no failure that no test is passed.
    """
    sys.path.insert(0, str(Path.cwd()))  # tests import each other
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import pytest

    arguments = ["-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", "-m", marks, "-k", keyword]
    arguments += ["-W", "ignore:Synchronization debug mode", "--durations=10", "--rootdir", str(Path.cwd())]
    if importlib.util.find_spec("pytest_timeout") is not None:
        arguments += ["-p", "pytest_timeout", f"--timeout={TEST_SECONDS}"]
    rows = TestRows(write)
    code = int(pytest.main([*arguments, *files], plugins=[rows]))
    if rows.count == 0:
        write({"what": "pytest", "failed": f"no test was run: pytest ended with {code}"})
    elif code not in (0, 1):
        write({"what": "pytest", "failed": f"pytest ended with {code}"})
    elif not rows.passed and not may_skip_all:
        write({"what": "pytest", "failed": f"none of {rows.count} tests was passed"})


class TestRows:
    """A plug-in of pytest that writes what came of each test."""

    __test__ = False  # it is none itself

    def __init__(self, write: Write) -> None:
        self.count = 0
        self.passed = 0
        self._write = write

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be imported, or that leaves itself out."""
        if not report.passed:
            self._tell(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test has three reports: those of what comes before and after it count where they are not passed."""
        if report.when == "call" or not report.passed:
            self._tell(report)

    def _tell(self, report: Any) -> None:
        self.count += 1
        self.passed += report.passed
        row: Row = {"test": report.nodeid, "seconds": round(getattr(report, "duration", 0.0), 2)}
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            row["skipped"] = str(reason).removeprefix("Skipped: ")[:REASON_CHARACTERS]
        elif report.failed:
            row["failed"] = reason_of(report)
        self._write(row)


def reason_of(report: Any) -> str:
    """Return the error itself, without the lines of code that pytest shows before it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longrepr)[-REASON_CHARACTERS:] if crash is None else crash.message[:REASON_CHARACTERS]
