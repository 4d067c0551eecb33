"""winograd.c for every SIMD width, whatever this processor has."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from realesr.engines.winograd import engine, kernel

SOURCE = Path(__file__).parents[3] / "engines" / "winograd" / "winograd.c"


@pytest.fixture(scope="session")
def library_of_all_widths(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """With the instructions of AVX2: compilers make two vectors of one that is too long."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not kernel.is_usable():
        pytest.skip("needs a compiler")
    folder = tmp_path_factory.mktemp("winograd")
    source, built = folder / "winograd.c", folder / "winograd.so"
    source.write_text(SOURCE.read_text().replace('target("avx512f")', 'target("avx2,fma")'))
    subprocess.run([compiler, "-O1", "-w", "-shared", "-fPIC", str(source), "-o", str(built)], check=True)
    return ctypes.CDLL(str(built))


@pytest.fixture(params=[8, 16])
def any_simd_width(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, library_of_all_widths: ctypes.CDLL
) -> int:
    """The kernel that is loaded has vectors of so many numbers."""
    simd_width: int = request.param
    if not hasattr(library_of_all_widths, f"winograd_convolve_tiles_{simd_width}"):
        pytest.skip("not for this processor")
    monkeypatch.setattr(kernel, "_library", lambda: library_of_all_widths)
    monkeypatch.setattr(engine, "load_kernel", lambda: kernel.kernel_for(simd_width))
    return simd_width
