"""The command as a whole: peak memory on large photos, time of `--help` and of small photos, size of the light install.

    python benchmarks/bench_command.py memory [--model NAME]    4000 x 3000 and 4000 x 12000 baseline JPEG to a x4 PNG
    python benchmarks/bench_command.py memory --heights 500 25000    2 MP and 100 MP: the time per input pixel
    python benchmarks/bench_command.py partial --model NAME    4000 x 3000, stopped after --seconds
    python benchmarks/bench_command.py help                     `realesr --help`, median of 11
    python benchmarks/bench_command.py start --model NAME      16 x 16 and 450 x 450 px, median of nine; of several
                                                                environments in turn with --python PATH ...,
                                                                of other sizes with --sides PX ...
    python benchmarks/bench_command.py size                     fresh environments: light, and with `weights`
    python benchmarks/bench_command.py first                    from `pip install .` to pictures, offline (Linux)

The photos are made from one that scikit-image ships, enlarged and repeated, with noise so that they do not compress.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import report
from PIL import Image

ROOT = Path(__file__).parent.parent


def make_photo(path: Path, width: int, height: int) -> None:
    """A baseline JPEG of this size with the detail of a photo."""
    from skimage import data

    base = Image.fromarray(data.astronaut()).resize(  # type: ignore[no-untyped-call]
        (width, 3000), Image.Resampling.BICUBIC
    )
    pixels = np.tile(np.asarray(base), (-(-height // 3000), 1, 1))[:height].astype(np.int16)
    pixels += np.random.default_rng(0).integers(-6, 7, pixels.shape, np.int16)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def peak_of(command: list[str], stop_after_s: float | None = None) -> tuple[float, float]:
    """Seconds, and the largest resident memory in GB, of a command; it may be stopped after a while."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak_kb, status = 0, Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                peak_kb = max(peak_kb, int(line.split()[1]))
        if stop_after_s is not None and time.perf_counter() - started > stop_after_s:
            process.terminate()
            process.wait()
            break
        time.sleep(0.2)
    else:
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - started, peak_kb / 1e6


def memory(model: str, heights: list[int], stop_after_s: float | None) -> list[dict[str, Any]]:
    """Peak memory of the command by height of the photo."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for height in heights:
            photo, target = Path(folder) / f"{height}.jpg", Path(folder) / f"{height}.png"
            subprocess.run([sys.executable, __file__, "photo", str(photo), "--height", str(height)], check=True)
            command = [
                sys.executable,
                "-m",
                "realesr",
                "upscale",
                str(photo),
                "-m",
                model,
                "-o",
                str(target),
                "--quiet",
            ]
            seconds, peak_gb = peak_of(command, stop_after_s)
            whole = stop_after_s is None
            rows.append(
                {
                    "model": model,
                    "input": f"4000 x {height} JPEG",
                    "peak_gb": peak_gb,
                    "seconds": seconds,
                    "us_per_px": seconds / (4000 * height) * 1e6 if whole else 0.0,
                    "output_gb": target.stat().st_size / 1e9 if whole else 0.0,
                    "whole": "yes" if whole else "stopped",
                }
            )
            target.unlink(missing_ok=True)
    return rows


def help_time() -> list[dict[str, Any]]:
    """Wall time of `realesr --help`."""
    script = str(Path(sys.executable).with_name("realesr"))
    times = []
    for _ in range(11):
        started = time.perf_counter()
        subprocess.run([script, "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return [{"command": "realesr --help", "median_s": statistics.median(times), "max_s": max(times)}]


def start_time(model: str, pythons: list[Path], sides: list[int]) -> list[dict[str, Any]]:
    """Wall and processor time of `realesr upscale` on photos so small that its start is much of it.

    Python may keep its bytecode, as it does where people install realesr.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            photo, target = Path(folder) / f"{side}.jpg", Path(folder) / "large.png"
            make_photo(photo, side, side)
            options = ["-m", "realesr", "upscale", str(photo), "-m", model, "-o", str(target), "--overwrite", "--quiet"]
            times: dict[Path, list[tuple[float, float]]] = {python: [] for python in pythons}
            for run in range(10):
                for python in pythons:
                    wall_s, cpu_s = times_of([str(python), *options], environment, folder)
                    if run:  # the first one compiles modules and reads from the disk
                        times[python].append((wall_s, cpu_s))
            for python, measured in times.items():
                wall, cpu = ([run[which] for run in measured] for which in (0, 1))
                rows.append(
                    {
                        "python": python.parents[1].name,
                        "model": model,
                        "px": f"{side} x {side}",
                        "wall_s": statistics.median(wall),
                        "least_wall_s": min(wall),
                        "cpu_s": statistics.median(cpu),
                        "least_cpu_s": min(cpu),
                    }
                )
    return rows


def times_of(command: list[str], environment: dict[str, str], folder: str) -> tuple[float, float]:
    """Wall and processor seconds of a command, the latter of all its threads."""
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - started, os.times()
    own = after.children_user + after.children_system
    return wall_s, own - before.children_user - before.children_system


def install_size() -> list[dict[str, Any]]:
    """Size on disk of fresh environments, pip included."""
    rows = []
    for extra in ("", "[weights]"):
        with tempfile.TemporaryDirectory() as folder:
            venv.create(folder, with_pip=True)
            python = Path(folder) / "bin" / "python"
            pip = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
            subprocess.run([*pip, f"{ROOT}{extra}"], check=True, stderr=subprocess.DEVNULL)
            disk = int(
                subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True).stdout.split()[0]
            )
            torch = (python.parent.parent / "lib").glob("python*/site-packages/torch")
            rows.append({"install": f"realesr{extra}", "mb": disk, "torch": "yes" if list(torch) else "no"})
    return rows


def first_photo() -> list[dict[str, Any]]:
    """Time from nothing to the first pictures: install into a fresh environment, then commands without a network.

    The photo has 640 x 480 px. The cache is empty, and nothing but the light install is there.
    """
    from skimage import data

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        venv.create(Path(folder) / "venv", with_pip=True)
        scripts = Path(folder) / "venv" / "bin"
        pip = [str(scripts / "python"), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(ROOT)]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
        rows = [{"command": "python -m venv, pip install .", "s": time.perf_counter() - started}]
        photo = Image.fromarray(data.astronaut()).resize((640, 480))  # type: ignore[no-untyped-call]
        photo.save(Path(folder) / "photo.jpg", quality=90)
        for command in (
            "realesr upscale photo.jpg",
            "cat photo.jpg | realesr upscale - --format png --long-side 1200 > out.png",
            "realesr compare photo.jpg",
        ):
            started = time.perf_counter()
            environment = {
                "PATH": f"{scripts}:{os.environ['PATH']}",
                "REALESR_CACHE": f"{folder}/cache",
                "HOME": folder,
            }
            offline = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c", command]
            answer = subprocess.run(offline, cwd=folder, env=environment, capture_output=True, text=True, check=True)
            rows.append({"command": command, "s": time.perf_counter() - started})
            print(f"$ {command}\n{answer.stdout}{answer.stderr}")
        return rows


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "partial", "help", "start", "size", "first", "photo"])
    parser.add_argument("path", type=Path, nargs="?", help="where `photo` writes")
    parser.add_argument("--model", default="realesr-animevideov3")
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--heights", type=int, nargs="*", default=[3000, 12000])
    parser.add_argument("--seconds", type=float, default=180, help="when `partial` stops")
    parser.add_argument("--python", type=Path, nargs="*", default=[Path(sys.executable)], help="for `start`")
    parser.add_argument("--sides", type=int, nargs="*", default=[16, 450], help="for `start`, in px")
    arguments = parser.parse_args()
    if arguments.what == "photo":
        make_photo(arguments.path, 4000, arguments.height)
        return
    if arguments.what == "memory":
        rows = memory(arguments.model, arguments.heights, None)
    elif arguments.what == "partial":
        rows = memory(arguments.model, [arguments.height], arguments.seconds)
    elif arguments.what == "start":
        rows = start_time(arguments.model, arguments.python, arguments.sides)
    else:
        rows = {"help": help_time, "size": install_size, "first": first_photo}[arguments.what]()
    report.show(arguments.what, rows)
    network = f"-{arguments.model}" if arguments.what in ("memory", "partial") else ""
    report.save(f"command-{arguments.what}{network}", rows)


if __name__ == "__main__":
    main()
