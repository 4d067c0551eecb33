"""Checks a wheel: its tags, its library's dependencies, the values that the library computes, and an installation."""

import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wheel_targets import PLACE, ROOT, SOURCE, BuildError, Target, compile_c, run

PROOF = ROOT / "tests" / "engines" / "winograd" / "kernel_proof.c"

THIS_MACHINE = f"{sys.platform}-{os.uname().machine}"
"""Name of the target that runs here without an emulator."""

FUNCTIONS = {"winograd_simd_width", "winograd_convolve_tiles_8", "winograd_prepare_weights_8"}
"""What every library must export."""

OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}
"""Minor version of the oldest glibc 2 that there is a tag for: the library needs memcpy at most."""

WINDOWS_LIBRARIES = ("kernel32.dll", "ntdll.dll", "ucrtbase.dll", "api-ms-win-crt-")
"""Beginnings of the names of what Windows has itself, from version 10 on."""
MACOS_LIBRARIES = ("/usr/lib/libSystem.B.dylib",)
CPU_TYPE_ARM64 = 0x0100000C
"""Source: Apple, <mach/machine.h>."""


class NotRunError(Exception):
    """A check could not be made here; the message says what is missing."""


def repair(wheel: Path, target: Target, folder: Path) -> Path:
    """Return the wheel with a tag that installers take: on Linux auditwheel finds out which manylinux it is."""
    if not target.name.startswith("linux"):
        return Path(shutil.copy(wheel, folder))
    processor = target.name.partition("-")[2]
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    run(bin_folder / "auditwheel", "repair", "--plat", "auto", "-w", folder, wheel, environment=environment)
    repaired = [
        path for path in folder.glob("*.whl") if f"manylinux_2_{OLDEST_GLIBC[processor]}_{processor}" in path.name
    ]
    if len(repaired) != 1:
        made = [path.name for path in folder.iterdir()]
        raise BuildError(f"auditwheel made {made}, expected one wheel for glibc 2.{OLDEST_GLIBC[processor]} or later")
    return repaired[0]


def check_metadata(wheel: Path) -> str:
    """Check what the package index reads, and that the library calls nothing beyond Python 3.11's stable ABI."""
    run(sys.executable, "-m", "twine", "check", "--strict", wheel)
    if wheel.suffix == ".whl":
        run(sys.executable, "-m", "abi3audit", "--strict", wheel)
    return "right"


def check_library(library: Path, target: Target) -> str:
    """Check what the library needs and exports; return what it needs."""
    if target.name.startswith("windows"):
        needed, exported = _portable_executable(library)
        allowed: tuple[str, ...] = WINDOWS_LIBRARIES
    elif target.name.startswith("macos"):
        needed, exported = _mach_o(library)
        allowed = MACOS_LIBRARIES
    else:
        needed, exported = _elf(library)
        allowed = ("libc.so.6",)
    foreign = [name for name in needed if not name.lower().startswith(tuple(map(str.lower, allowed)))]
    if foreign:
        raise BuildError(f"{library.name} for {target.name} needs {foreign}, expected none but {allowed}")
    if not exported >= FUNCTIONS:
        raise BuildError(f"{library.name} for {target.name} exports {sorted(exported)}, expected {sorted(FUNCTIONS)}")
    return "system's own only"


def _elf(library: Path) -> tuple[list[str], set[str]]:
    from elftools.elf.elffile import ELFFile

    with library.open("rb") as file:
        elf = ELFFile(file)
        needed = [tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
        symbols = elf.get_section_by_name(".dynsym").iter_symbols()
        return needed, {symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF"}


def _portable_executable(library: Path) -> tuple[list[str], set[str]]:
    import pefile

    with pefile.PE(str(library)) as parsed:
        needed = [entry.dll.decode() for entry in getattr(parsed, "DIRECTORY_ENTRY_IMPORT", [])]
        return needed, {symbol.name.decode() for symbol in parsed.DIRECTORY_ENTRY_EXPORT.symbols}


def _mach_o(library: Path) -> tuple[list[str], set[str]]:
    from macholib.MachO import MachO
    from macholib.SymbolTable import SymbolTable

    file = MachO(str(library))
    (header,) = file.headers
    needed = [name for _, _, name in header.walkRelocatables()]
    exported = {name.decode().removeprefix("_") for symbol, name in SymbolTable(file).nlists if symbol.n_sect}
    if header.header.cputype == CPU_TYPE_ARM64 and not _is_signed(header):
        raise BuildError(f"{library.name} is not signed: macOS on ARM loads no library without an ad-hoc signature")
    return needed, exported


def _is_signed(header: Any) -> bool:
    from macholib.mach_o import LC_CODE_SIGNATURE

    return any(command.cmd == LC_CODE_SIGNATURE for command, _, _ in header.commands)


def check_values(library: Path, target: Target, folder: Path) -> str:
    """Compare what the library computes with the definition, on an emulated processor or system where need be."""
    launcher = _launcher(target)
    proof = folder / ("kernel_proof.exe" if target.name.startswith("windows") else "kernel_proof")
    flags = ["-O2", f"-I{SOURCE.parent}"]
    compile_c(target, PROOF, proof, *flags, *(() if target.name.startswith("windows") else ("-lm", "-ldl")))
    environment = {**os.environ, "WINEPREFIX": str(folder / "wine"), "WINEDEBUG": "-all"}
    answer = run(*launcher, proof, library, environment=environment, folder=folder).splitlines()
    errors = [float(line.split()[0]) for line in answer if line[:1].isdigit()]
    width = next(line.split()[-1] for line in answer if line.startswith("SIMD width"))
    return f"{width} lanes, within {max(errors):.0e}" + (f" ({Path(launcher[0]).name})" if launcher else "")


def _launcher(target: Target) -> list[str]:
    """Return the command that runs a target's programs here; raises NotRunError where there is none."""
    if target.name == THIS_MACHINE:
        return []
    if target.name == "linux-aarch64":
        tree = Path("/usr/aarch64-linux-gnu")
        qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
        if qemu is None or not (tree / "lib" / "libc.so.6").exists():
            raise NotRunError("not run: apt install qemu-user libc6-arm64-cross")
        return [qemu, "-L", str(tree)]
    if target.name == "windows-x86_64":
        wine = shutil.which("wine64") or shutil.which("/usr/lib/wine/wine64")
        if wine is None:
            raise NotRunError("not run: apt install wine64")
        return [wine]
    raise NotRunError("not run: there is no emulator")


def check_installation(wheel: Path, folder: Path) -> str:
    """Install the wheel where there is no compiler, and enlarge the sample photo by the library in it."""
    python = folder / "fresh" / "bin" / "python"
    run(sys.executable, "-m", "venv", python.parents[1])
    environment = {
        "PATH": f"{python.parent}:/nowhere",
        "CC": "false",
        "HOME": str(folder),
        "REALESR_CACHE": str(folder / "cache"),
    }
    run(
        python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt",
        wheel, environment={**os.environ, **environment},
    )  # fmt: skip
    shutil.copy(ROOT / "export" / "portrait.jpg", folder / "photo.jpg")
    command = "upscale photo.jpg --model realesr-general-x4v3 --scale 2 --engine winograd --output large.png"
    run(python.parent / "realesr", *command.split(), environment=environment, folder=folder)
    if not (folder / "large.png").stat().st_size:
        raise BuildError("the installed wheel wrote no picture")
    return "upscales by winograd"


def outcome(check: Callable[[], str]) -> str:
    """Return what a check says, or why it was not made."""
    try:
        return check()
    except NotRunError as reason:
        return str(reason)


def library_of(wheel: Path, target: Target, folder: Path) -> Path:
    """Take the library out of a wheel as it is delivered."""
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract((PLACE / target.library_name).as_posix(), folder))
