"""Records the facts beside every benchmark's figures: machine, versions, commit, command, date."""

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from realesr.machine import processor
from realesr.machine.whole_file import write_whole

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("realesr", "numpy", "onnx", "onnxruntime", "openvino", "ncnn", "pyvips", "pyvips-binary", "pillow", "torch")
"""Packages whose versions are recorded."""
GPU_PACKAGES = ("triton", "onnxruntime-gpu", "tensorrt", "cuda-bindings", "pycuda")
"""Packages whose versions are recorded where they are installed."""
INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "amx_fp16")
"""Processor features, by Linux's names, that decide which way is fast."""


def instruction_sets() -> list[str]:
    """Return those of the relevant vector instructions that the processor has."""
    return [name for name in INSTRUCTION_SETS if name in processor.flags()]


def facts() -> dict[str, Any]:
    """Return machine, versions, commit, command and date of this run."""
    versions = {}
    for package in (*PACKAGES, *GPU_PACKAGES):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            if package in PACKAGES:
                versions[package] = "not installed"
    return {
        "date": datetime.date.today().isoformat(),
        "command": "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *map(_shown, sys.argv[1:])]),
        "commit": _commit(),
        "cpu": processor.name(),
        "instruction_sets": instruction_sets(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
    }


def _commit() -> str:
    """Return the short hash of the checkout's commit; a bare machine may have neither git nor a checkout."""
    if shutil.which("git") is None:
        return "unknown"
    answer = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def _shown(argument: str) -> str:
    """Return an argument without the folders of this machine."""
    return Path(argument).name if "/" in argument else argument


def save(
    name: str, rows: list[dict[str, Any]], *, folder: Path | None = None, quiet: bool = False, **more: Any
) -> Path:
    """Write the figures as JSON under results/, beside facts(); a run of the same day replaces the last.

    It may be called after every row: the file is replaced as a whole, so that a run that is ended keeps what it has.

    Args:
        name: what the file is called, after the date.
        rows: the figures.
        folder: where it goes instead of results/.
        quiet: whether nothing is said of it.
        more: facts of this benchmark, to stand beside the rows.
    """
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.date.today().isoformat()}-{name}.json"
    write_whole(path, (json.dumps({**facts(), **more, "rows": rows}, indent=1) + "\n").encode())
    if not quiet:
        print(f"written: {folder.name}/{path.name}", file=sys.stderr)
    return path


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table; every key of any row is a column."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title, title_justify="left")
    for key in columns:
        is_text = any(isinstance(row.get(key), str) for row in rows)
        table.add_column(key, justify="left" if is_text else "right")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(key, ""))) for key in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
