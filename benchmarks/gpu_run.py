"""`scripts/test-gpu run`: install a kit into a temporary folder, run the steps of gpu_steps.py, write down the results.

OUT holds three files: results.jsonl (a row a line, in the order in which they were known), log.txt (what the steps
printed) and summary.md, which is written anew after each step.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gpu_summary
from gpu_pytest import Row
from gpu_steps import STEPS, Job, Step, write_job, written_to

MINUTES = 7.0
"""Total time of the steps that run by default; their limits add up to more, for most end early."""
LEAST_SECONDS = 5.0
"""A step that would get less is not begun."""
INSTALL_SECONDS = 120.0
LOG_BYTES = 8_000_000
"""The log keeps its end."""


class RunError(Exception):
    """Nothing can be run, and why; `code` is what the program ends with."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the command line."""

    kit: Path
    out: Path
    minutes: float = MINUTES
    only: tuple[str, ...] = ()
    """Names of steps; none is all."""
    rehearse: bool = False


@dataclass(frozen=True, kw_only=True)
class Place:
    """Folders that a run reads and writes."""

    kit: Path
    work: Path
    results: Path
    log: Path

    @property
    def short_names(self) -> dict[str, str]:
        """Return short names for this machine's folders, for texts that others read."""
        return {f"{self.work}/source/": "", str(self.work): "WORK", str(self.kit): "KIT", sys.prefix: "PYTHON"}

    def make(self) -> None:
        """Make the folders below `work`, and copy what runs out of the kit: no ./realesr may hide the installed one."""
        for name in ("home", "tmp", "cache"):
            (self.work / name).mkdir()
        shutil.copytree(self.kit / "source", self.work / "source")


def run(options: Options) -> int:
    """Run the steps; return 0 where none failed, 1 where one did.

    Raises:
        RunError: there is no GPU, or no kit, or OUT is in use: nothing was run.
    """
    steps, about = checked(options)
    if not options.rehearse:
        check_gpu()
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="realesr-gpu-", ignore_cleanup_errors=True) as work:
        place = Place(
            kit=options.kit.resolve(),
            work=Path(work).resolve(),
            results=options.out.resolve() / "results.jsonl",
            log=options.out.resolve() / "log.txt",
        )
        place.make()
        about |= {"command": shown(options), "rehearsal": options.rehearse}
        scale = max(1.0, 60 * options.minutes / sum(step.seconds for step in steps))
        problem = install(place)
        for step in steps:
            limit_s = min(step.seconds * scale, end - time.monotonic())
            run_step(step, place, options, problem or why_not(step, place, limit_s), limit_s)
            rows = gpu_summary.read(place.results)
            gpu_summary.write(options.out / "summary.md", about, rows, place.short_names)
    print(gpu_summary.table_of_steps(rows))
    return 0 if gpu_summary.is_good(rows) else 1


def checked(options: Options) -> tuple[list[Step], Row]:
    """The steps that are asked for, and what the kit says about itself.

    Raises:
        RunError: something of what was asked for makes no sense.
    """
    names = [step.name for step in STEPS]
    if unknown := [name for name in options.only if name not in names]:
        raise RunError(f"got --only {','.join(unknown)}, expected some of {','.join(names)}")
    try:
        about: Row = json.loads((options.kit / "kit.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"got --kit {options.kit}, expected a folder that pack has filled ({error})") from error
    here = platform.python_version_tuple()[:2]
    if tuple(about["python"].split(".")) != here:
        raise RunError(f"the kit is for Python {about['python']}, but this is {'.'.join(here)}: pack another one")
    if (options.out / "results.jsonl").exists():
        raise RunError(f"got --out {options.out}, which holds the results of another run: name another folder")
    return [step for step in STEPS if step.name in options.only or not (options.only or step.if_named)], about


def check_gpu() -> None:
    """Ask the driver for a GPU.

    Raises:
        RunError: there is none.
    """
    program = shutil.which("nvidia-smi")
    problem = "nvidia-smi was not found"
    if program is not None:
        answer = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            return
        lines = (answer.stdout + answer.stderr).strip().splitlines() or ["it said nothing"]
        problem = f"nvidia-smi: {lines[-1]}"
    raise RunError(f"no NVIDIA GPU here ({problem}): expected one with its driver; nothing was run", 2)


def shown(options: Options) -> str:
    """Return the command without folders."""
    only = f" --only {','.join(options.only)}" if options.only else ""
    return f"scripts/test-gpu run --minutes {options.minutes:g}{only}{' --rehearse' if options.rehearse else ''}"


def install(place: Place) -> str:
    """Install the kit's wheels beside what the machine has; why nothing can be run, or "".

    A virtual environment would not do: it does not see the packages of another one, and the `python3` that has torch
    may itself lie in one.
    """
    started = time.monotonic()
    problem = installed(place.kit / "whl", place.work / "site", place.log)
    row: Row = {"what": "install", "whole_s": round(time.monotonic() - started, 1)}
    written_to(place.results, "install")(row | ({"failed": problem} if problem else {}))
    return f"nothing is installed: {problem}" if problem else ""


def installed(wheels: Path, target: Path, log: Path) -> str:
    """Install all wheels of a folder into another one; what went wrong, or ""."""
    files = sorted(map(str, wheels.glob("*.whl")))
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-compile"]
    command += ["--disable-pip-version-check", "--root-user-action", "ignore", "--target", str(target), *files]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"pip took more than {INSTALL_SECONDS:.0f} s"
    with log.open("a", encoding="utf-8") as file:
        file.write(answer.stdout + answer.stderr)
    return "" if answer.returncode == 0 else (answer.stderr.strip().splitlines() or ["pip failed"])[-1]


def why_not(step: Step, place: Place, limit_s: float) -> str:
    """Return why a step cannot be begun, or ""."""
    if step.wheels and not any((place.kit / step.wheels).glob("*.whl")):
        return step.missing
    if limit_s < LEAST_SECONDS:
        return f"no time is left: {max(limit_s, 0):.0f} s"
    if step.wheels and (problem := installed(place.kit / step.wheels, place.work / step.wheels, place.log)):
        return f"its wheels cannot be installed: {problem}"
    return ""


def run_step(step: Step, place: Place, options: Options, problem: str, limit_s: float) -> None:
    """Run one step in a process of its own and write down what came of it."""
    write = written_to(place.results, step.name)
    if problem:
        write({"outcome": "skipped", "reason": problem, "whole_s": 0.0})
        return
    print(f"test-gpu: {step.name}, {step.what}: {limit_s:.0f} s at most", file=sys.stderr, flush=True)
    job = Job(
        step=step.name,
        results=str(place.results),
        kit=str(place.kit),
        work=str(place.work),
        device="cpu" if options.rehearse else "cuda",
        small=options.rehearse,
        seconds=limit_s,
        started=time.time(),
    )
    started = time.monotonic()
    ended = process(step, job, place, environment(step, place, rehearse=options.rehearse))
    remove_torn_line(place.results)
    rows = [row for row in gpu_summary.read(place.results) if row["step"] == step.name]
    write({**outcome(rows, ended), "whole_s": round(time.monotonic() - started, 1)})
    keep_end(place.log)


def environment(step: Step, place: Place, *, rehearse: bool) -> dict[str, str]:
    """Variables of a step's process: the kit's packages first, and every cache in the temporary folder."""
    folders = [place.work / step.wheels] if step.wheels else []
    folders += [place.work / "site", place.work / "source" / "benchmarks"]
    own = {
        "PYTHONPATH": os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "REALESR_MODELS": str(place.kit / "models"),
        "REALESR_CACHE": str(place.work / "cache"),
        "HOME": str(place.work / "home"),
        "TMPDIR": str(place.work / "tmp"),
        "XDG_CACHE_HOME": str(place.work / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(place.work / "cache" / "inductor"),
        "TRITON_CACHE_DIR": str(place.work / "cache" / "triton"),
        "CUDA_CACHE_PATH": str(place.work / "cache" / "cuda"),
        "ORT_DISABLE_TELEMETRY": "1",
    }
    libraries = [*cuda_library_folders(), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])] if step.wheels else []
    if libraries:
        own["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    if rehearse:  # threads that share out what is so small would mostly wait for each other
        own |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def cuda_library_folders() -> Iterator[str]:
    """Folders of CUDA's libraries that pip has installed beside torch; pycuda and ONNX Runtime find none there."""
    for place in sys.path:
        yield from sorted({str(path.parent) for path in (Path(place) / "nvidia").glob("*/lib/lib*.so*")})


def process(step: Step, job: Job, place: Place, variables: dict[str, str]) -> str:
    """Run the step; how it ended, or "" where it ended well. Whatever it has started ends with it."""
    file = place.work / f"{step.name}.json"
    write_job(job, file)
    source = place.work / "source"
    command = [sys.executable, str(source / "benchmarks" / "gpu_steps.py"), str(file)]
    with place.log.open("a", encoding="utf-8") as log:
        log.write(f"\n===== {step.name}: {step.what}\n")
        log.flush()
        child = subprocess.Popen(
            command, cwd=source, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = child.wait(job.seconds)
        except subprocess.TimeoutExpired:
            return f"stopped at its limit of {job.seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with {code}" if code else ""


def remove_torn_line(path: Path) -> None:
    """Remove a last line that a stopped process has not finished."""
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        path.write_bytes(data[: data.rfind(b"\n") + 1])


def outcome(rows: Iterable[Row], ended: str) -> Row:
    """Return a step's outcome: the number of good rows, and whether it passed, failed or was skipped."""
    rows = list(rows)
    failed = [row["failed"] for row in rows if "failed" in row]
    skipped = [row["skipped"] for row in rows if "skipped" in row]
    counts = {"good": len(rows) - len(failed) - len(skipped), "failed_rows": len(failed), "skipped_rows": len(skipped)}
    if failed or ended:
        return {"outcome": "failed", "reason": "; ".join(filter(None, [ended, *failed[:1]])), **counts}
    if not counts["good"]:
        return {"outcome": "skipped", "reason": skipped[0] if skipped else "it gave no result", **counts}
    return {"outcome": "passed", "reason": "", **counts}


def keep_end(path: Path) -> None:
    """Cut a log that has grown too long."""
    if path.stat().st_size > LOG_BYTES:
        data = path.read_bytes()[-LOG_BYTES // 2 :]
        path.write_bytes(b"(the beginning was cut)\n" + data)
