"""Compiles winograd.c for each system by zig's clang, and makes a wheel of the library and the files that all share."""

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "engines" / "winograd" / "winograd.c"
PLACE = Path("realesr", "engines", "winograd")
"""Of the library in a wheel."""

STABLE_ABI_SUFFIX = ".abi3.so"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One operating system and processor."""

    name: str
    zig: str
    """Zig's name for it, with the oldest version of glibc or of macOS that it shall run on."""
    platform_tag: str
    """As in a wheel's name; auditwheel gives Linux another one."""
    suffix: str = STABLE_ABI_SUFFIX
    """Of an extension module."""
    flags: tuple[str, ...] = ()

    @property
    def library_name(self) -> str:
        """Return the name of the library, under which `realesr.engines.winograd.kernel` looks for it."""
        return f"_winograd{self.suffix}"


TARGETS = (
    Target(name="linux-x86_64", zig="x86_64-linux-gnu.2.17", platform_tag="linux_x86_64", flags=("-fPIC",)),
    Target(name="linux-aarch64", zig="aarch64-linux-gnu.2.17", platform_tag="linux_aarch64", flags=("-fPIC",)),
    Target(name="windows-x86_64", zig="x86_64-windows-gnu", platform_tag="win_amd64", suffix=".pyd"),
    Target(name="macos-x86_64", zig="x86_64-macos.11.0", platform_tag="macosx_11_0_x86_64"),
    Target(name="macos-arm64", zig="aarch64-macos.11.0", platform_tag="macosx_11_0_arm64"),
)


class BuildError(Exception):
    """A tool has failed; the message says which, and what it said."""


def run(*command: str | Path, environment: dict[str, str] | None = None, folder: Path | None = None) -> str:
    """Run a command and return what it wrote; raises BuildError where it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        cwd=folder,
        check=False,
    )
    if result.returncode:
        raise BuildError(f"{' '.join(map(str, command))} ended with {result.returncode}:\n{result.stdout.strip()}")
    return result.stdout


def compile_c(target: Target, source: Path, output: Path, *flags: str) -> None:
    """Compile a C file for a target."""
    run(sys.executable, "-m", "ziglang", "cc", "-target", target.zig, *flags, "-s", "-o", output, source)


def compile_library(target: Target, folder: Path) -> Path:
    """Compile winograd.c into a shared library, which calls nothing of Python: every version loads it."""
    library = folder / target.library_name
    compile_c(target, SOURCE, library, "-O3", "-Wall", "-Wextra", "-Werror", "-shared", *target.flags)
    return library


def build_common(folder: Path) -> tuple[Path, Path]:
    """Build the source distribution, and from that a wheel without the library; return both.

    The compiler that the build is told of fails, which leaves the extension out: it is optional.
    """
    run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT,
        environment={"PATH": "/usr/bin:/bin", "CC": "false"},
    )  # fmt: skip
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    if any("_winograd" in name for name in zipfile.ZipFile(wheel).namelist()):
        raise BuildError(f"{wheel.name} holds a library, expected none before the targets' own are put in")
    return sdist, wheel


def with_library(wheel: Path, target: Target, library: Path, folder: Path) -> Path:
    """Return a wheel that holds a target's library and bears its tag."""
    unpacked, packed = folder / "unpacked", folder / "packed"
    run(sys.executable, "-m", "wheel", "unpack", "--dest", unpacked, wheel)
    (tree,) = unpacked.iterdir()
    shutil.copy(library, tree / PLACE / target.library_name)
    (metadata,) = tree.glob("*.dist-info/WHEEL")
    lines = [line for line in metadata.read_text(encoding="utf-8").splitlines() if not line.startswith("Tag:")]
    text = "\n".join([*filter(None, lines), f"Tag: cp311-abi3-{target.platform_tag}"]) + "\n"
    metadata.write_text(text, encoding="utf-8")
    packed.mkdir()
    run(sys.executable, "-m", "wheel", "pack", "--dest-dir", packed, tree)
    (result,) = packed.glob("*.whl")
    return result
