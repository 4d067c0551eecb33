"""winograd.c on processors and systems that are not here: cross-compiled, and run by an emulator where there is one."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from realesr.engines.winograd import kernel
from realesr.errors import MissingDependency

SOURCE = Path(__file__).parents[3] / "engines" / "winograd" / "winograd.c"
PROOF = Path(__file__).with_name("kernel_proof.c")
LARGEST_ERROR = 2e-5

C_COMPILER = shutil.which("gcc") or shutil.which("clang")
ON_LINUX_X86 = sys.platform == "linux" and os.uname().machine == "x86_64"

emulated = pytest.mark.skipif(not ON_LINUX_X86, reason="the emulators that are used here run on Linux on x86-64")


def needed(*programs: str) -> list[str]:
    """The paths of programs; the test is skipped where one is missing."""
    found = [shutil.which(program) for program in programs]
    for program, path in zip(programs, found, strict=True):
        if path is None:
            pytest.skip(f"needs {program}")
    return [path for path in found if path is not None]


def built(folder: Path, *compiler: str, library: str = "_winograd.abi3.so", flags: tuple[str, ...] = ()) -> list[str]:
    """Compile the library and what tests it; their paths, the program first."""
    program = folder / "kernel_proof.exe"
    shared = [*compiler, "-O3", "-Wall", "-Wextra", "-Werror", "-shared", str(SOURCE), "-o", str(folder / library)]
    proof = [*compiler, "-O2", f"-I{SOURCE.parent}", str(PROOF), "-o", str(program)]
    for command in ([*shared, *flags], [*proof, *(("-lm", "-ldl") if flags else ())]):
        subprocess.run(command, check=True, cwd=folder)
    return [str(program), str(folder / library)]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def assert_right(answer: subprocess.CompletedProcess[str], simd_width: int) -> None:
    assert answer.returncode == 0, answer.stdout + answer.stderr
    first, *lines = answer.stdout.splitlines()
    assert first == f"SIMD width {simd_width}"
    assert len(lines) == 8
    assert all(float(line.split()[0]) < LARGEST_ERROR for line in lines)


@emulated
def test_64_bit_arm_computes_the_same(tmp_path: Path) -> None:
    compiler, emulator = needed("aarch64-linux-gnu-gcc", "qemu-aarch64")
    paths = built(tmp_path, compiler, flags=("-fPIC",))
    assert_right(run(emulator, "-L", "/usr/aarch64-linux-gnu", *paths), 8)


@emulated
@pytest.mark.parametrize(("processor", "simd_width"), [("Nehalem", 0), ("Haswell", 8)])
def test_the_width_is_what_an_emulated_processor_has(tmp_path: Path, processor: str, simd_width: int) -> None:
    (emulator,) = needed("qemu-x86_64")
    if C_COMPILER is None:
        pytest.skip("needs GCC or Clang")
    paths = built(tmp_path, C_COMPILER, flags=("-fPIC",))
    answer = run(emulator, "-cpu", processor, *paths)
    if simd_width:
        assert_right(answer, simd_width)
    else:
        assert (answer.returncode, answer.stdout) == (3, "SIMD width 0\n")


@emulated
@pytest.mark.long
def test_windows_computes_the_same(tmp_path: Path) -> None:
    """By zig's clang: MSVC has no vectors of this kind. The first time it compiles Windows' C library, for minutes."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("needs the package ziglang")
    wine = shutil.which("wine64") or shutil.which("/usr/lib/wine/wine64")
    if wine is None:
        pytest.skip("needs wine64")
    zig = (sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-windows-gnu")
    paths = built(tmp_path, *zig, library="_winograd.pyd")
    answer = run(wine, *paths, WINEPREFIX=str(tmp_path / "wine"), WINEDEBUG="-all")
    width = answer.stdout.partition("\n")[0].rpartition(" ")[2]
    assert_right(answer, int(width))
    assert width in ("8", "16")


@emulated
@pytest.mark.long
@pytest.mark.parametrize("target", ["x86_64-macos.11.0", "aarch64-macos.11.0", "x86_64-linux-gnu.2.17"])
def test_zig_compiles_it_without_a_warning(tmp_path: Path, target: str) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("needs the package ziglang")
    zig = (sys.executable, "-m", "ziglang", "cc", "-target", target)
    command = [
        *zig,
        "-O3",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        str(SOURCE),
        "-o",
        str(tmp_path / "it.so"),
    ]
    assert subprocess.run(command, check=False).returncode == 0


def test_on_windows_a_wheel_is_advised_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(kernel, "_path", lambda: None)
    with pytest.raises(MissingDependency, match=r"was not compiled .*take a wheel of realesr for Windows"):
        kernel._library()
