"""The steps of `scripts/test-gpu run`, each in a process of its own on a machine with a GPU; STEPS is their table.

    python benchmarks/gpu_steps.py JOB.json      what gpu_run.py starts: one step, its results appended to a file

A result is one flat row. "failed" in it says what is wrong, "skipped" what is missing; whoever has neither is fine.
Every row is in the file before the next one is measured, so that a step which is stopped keeps what it had. Only the
standard library is imported before a step runs: gpu_run.py reads the table too.
"""

import dataclasses
import importlib
import importlib.metadata
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_pytest import GPU_TESTS, OUTPUT_SHAPES, REASON_CHARACTERS, Row, Write, gpu_test_files, tested

MODEL, SMALL_MODEL = "realesrgan-x4plus", "realesr-animevideov3"
"""Model that is compared, and its stand-in for the rehearsal."""
LEAST_DB = 45.0
"""Least PSNR of FP16 against float32, at a peak of 1."""
SHUTDOWN_SECONDS = 5.0
"""Time that a step leaves of its limit, to finish a row and to end its process."""

VERSIONS = ("torch", "triton", "numpy", "onnx", "onnxruntime", "pyvips-binary", "pillow", "cuda-bindings", "pytest")


class MissingError(Exception):
    """A step cannot run here, though nothing is wrong with it; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Paths, device and time limit of a step."""

    step: str
    results: str
    """File that rows are appended to; its folder is what is kept of a run."""
    kit: str
    """Folder that `pack` has filled."""
    work: str
    """Temporary folder: source/ (tests, benchmarks, pyproject.toml), which is the current one, and whatever is made."""
    device: str
    """Device of the networks: "cuda", or "cpu" for the rehearsal."""
    small: bool
    """Whether this is the rehearsal: networks, pictures and counts that a CPU does in seconds."""
    seconds: float
    """After which the step is stopped."""
    started: float
    """When the step's process was started, in seconds since the epoch."""

    @property
    def left_s(self) -> float:
        """Seconds in which further rows may be begun."""
        return self.started + self.seconds - SHUTDOWN_SECONDS - time.time()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step."""

    name: str
    what: str
    seconds: float
    """Its time limit; more where the steps that are run would not fill the time that there is."""
    run: Callable[[Job, Write], None]
    wheels: str = ""
    """Folder of the kit whose wheels this step alone sees; without them it is skipped."""
    missing: str = ""
    """Why, where there is no such folder."""
    if_named: bool = False
    """Whether it runs only where it is requested by name."""


def machine(job: Job, write: Write) -> None:
    """Tell the GPU, the versions, and what the GPU does at most; fail where another realesr than the kit's is seen."""
    write({"what": "nvidia-smi", **gpu_facts(job)})
    write({"what": "versions", "python": sys.version.split()[0], **versions(VERSIONS)})
    import realesr

    place = Path(realesr.__file__)
    row: Row = {"what": "realesr", "version": importlib.metadata.version("realesr")}
    if Path(job.work) not in place.parents:
        row["failed"] = f"expected the kit's realesr, got {place}"
    write(row)
    if unmet := unmet_requirements("realesr"):
        write({"what": "requirements", "failed": "; ".join(unmet)})
    write({"what": "rates", **rates(job)})


def gpu_facts(job: Job) -> Row:
    """Return what nvidia-smi reports about the first GPU."""
    keys = ("name", "driver_version", "memory.total", "compute_cap", "clocks.max.sm", "power.limit")
    try:
        command = ["nvidia-smi", f"--query-gpu={','.join(keys)}", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except OSError as error:
        return {"skipped" if job.small else "failed": f"nvidia-smi: {error.strerror}"}
    values = [value.strip() for value in answer.stdout.split("\n")[0].split(",")]
    if answer.returncode or len(values) != len(keys):
        return {"failed": f"nvidia-smi: {(answer.stdout + answer.stderr).strip()[-REASON_CHARACTERS:]}"}
    return dict(zip(keys, values, strict=True))


def versions(names: Iterable[str]) -> dict[str, str]:
    """Version of each package, or that it is not installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def unmet_requirements(package: str) -> list[str]:
    """Return the requirements of a package that are not met, with the installed versions."""
    from packaging.requirements import Requirement

    unmet = []
    for requirement in map(Requirement, importlib.metadata.requires(package) or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            version = versions([requirement.name])[requirement.name]
            if version == "not installed" or not requirement.specifier.contains(version, prereleases=True):
                unmet.append(f"{requirement.name} {version} (needs {requirement.specifier})")
    return unmet


def rates(job: Job) -> Row:
    """Rate of a half-precision matrix product in TFLOP/s and of a copy in GB/s (read and written), on random numbers.

    Power, and so the clock, depends on the numbers: zeros are faster.
    """
    import torch

    side, numbers = (256, 1 << 20) if job.small else (8192, 1 << 30)
    left, right = (torch.randn(side, side, device=job.device, dtype=torch.float16) for _ in range(2))
    source = torch.randn(numbers, device=job.device, dtype=torch.float16)
    target = torch.empty_like(source)
    product_s = seconds_of(lambda: left @ right, job)
    copy_s = seconds_of(lambda: target.copy_(source), job)
    return {
        "device": job.device if job.small else torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cudnn": None if job.small else torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "fp16_tflop_s": 2 * side**3 / product_s / 1e12,
        "copy_gb_s": 2 * source.nbytes / copy_s / 1e9,
    }


def seconds_of(work: Callable[[], Any], job: Job, runs: int = 10) -> float:
    """Mean time of some runs in a row, after three to warm up."""
    import torch

    def finish() -> None:
        if job.device.startswith("cuda"):
            torch.cuda.synchronize()

    for _ in range(3):
        work()
    finish()
    started = time.perf_counter()
    for _ in range(runs):
        work()
    finish()
    return (time.perf_counter() - started) / runs


def precision(job: Job, write: Write) -> None:
    """Compare a network in FP16 on the GPU with float32 on the CPU: the engine, then the command; ask the doctor."""
    import numpy as np
    from PIL import Image

    from realesr.engines.trial import photo_like

    model, side_px = (SMALL_MODEL, 16) if job.small else (MODEL, 96)
    values = np.round(photo_like(side_px) * 255).astype(np.uint8)
    batch = values.astype(np.float32) / 255
    expected, reference = float32_of_the_cpu(model, batch)
    found = enlarged(model, batch, "torch", job.device, "fp16")
    write({"what": "engine torch, fp16", "model": model, "reference": reference, **distance(found, expected)})
    folder = Path(job.work) / "upscale"
    folder.mkdir()
    Image.fromarray(values[0].transpose(1, 2, 0)).save(folder / "photo.png")
    write({"what": "realesr upscale", **upscaled(model, folder, job, expected)})
    write({"what": "realesr doctor", **doctor(Path(job.work))})


def float32_of_the_cpu(model: str, batch: Any) -> tuple[Any, str]:
    """Enlarge a batch in float32 on the CPU; return the result and the engine's name."""
    from realesr.engines.winograd.kernel import is_usable

    engine = "winograd" if is_usable() else "torch"
    return enlarged(model, batch, engine, "cpu", "fp32"), f"{engine} on the CPU, fp32"


def enlarged(model: str, batch: Any, engine: str, device: str, precision: str) -> Any:
    """Enlarge a batch with an engine."""
    from realesr.engines import open_engine
    from realesr.models.zoo import load_model

    with open_engine(load_model(model), engine=engine, device=device, precision=precision) as network:
        return network.run(batch)


def distance(found: Any, expected: Any) -> Row:
    """PSNR and largest difference of two pictures with values of 0 to 1; a failure where they are too far apart."""
    import numpy as np

    from realesr.engines.fidelity import psnr_db

    difference = np.clip(found, 0, 1).astype(np.float64) - np.clip(expected, 0, 1)
    row: Row = {"psnr_db": psnr_db(float(np.mean(difference**2))), "largest": float(np.abs(difference).max())}
    if not row["psnr_db"] >= LEAST_DB:
        row["failed"] = f"{row['psnr_db']:.1f} dB, expected {LEAST_DB:.0f} at least"
    return row


def upscaled(model: str, folder: Path, job: Job, expected: Any) -> Row:
    """Run the command on photo.png, and compare what it writes."""
    import numpy as np
    from PIL import Image

    command = [sys.executable, "-m", "realesr", "upscale", "photo.png", "--model", model, "--engine", "torch"]
    command += ["--device", job.device, "--precision", "fp16", "--output", "large.png"]
    started = time.perf_counter()
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if answer.returncode:
        return {"failed": f"it ended with {answer.returncode}: {answer.stderr.strip()[-REASON_CHARACTERS:]}"}
    with Image.open(folder / "large.png") as image:
        large = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255
    return {**distance(large, expected), "whole_s": taken}


def doctor(folder: Path) -> Row:
    """Return the choice of `realesr doctor`, and the problems that it finds."""
    command = [sys.executable, "-m", "realesr", "doctor", "--json"]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    try:
        found = json.loads(answer.stdout)
    except ValueError:
        return {"failed": f"it printed no JSON: {(answer.stdout + answer.stderr).strip()[-REASON_CHARACTERS:]}"}
    problems = "; ".join(found.get("problems", ()))
    choice = found.get("choice") or {}
    row: Row = {"engine": choice.get("engine"), "device": choice.get("device")}
    return {**row, "failed": problems or f"it ended with {answer.returncode}"} if answer.returncode else row


def gpu_tests(job: Job, write: Write) -> None:
    """Run the tests that need a GPU, without those of TensorRT and of ONNX Runtime on CUDA."""
    keyword = f"not {OUTPUT_SHAPES} and not onnxruntime"
    tested(gpu_test_files(Path.cwd()), write, keyword=keyword, may_skip_all=job.small)
    if job.small:  # tests that run without a GPU, to see that any can, outside the checkout
        tested([GPU_TESTS[0]], write, keyword="refused", marks="not cuda")


def pycuda_tests(job: Job, write: Write) -> None:
    """Run the tests of GPU memory once more, now that pycuda is there."""
    tested(["tests/engines/nvidia/test_cuda_memory.py"], write, may_skip_all=job.small)


def onnxruntime_tests(job: Job, write: Write) -> None:
    """Run the tests of ONNX Runtime on CUDA, whose package is found before the one for CPUs."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers() and not job.small:
        raise RuntimeError(f"expected CUDA among the providers, got {onnxruntime.get_available_providers()}")
    tested(GPU_TESTS[1:3], write, keyword=f"onnxruntime and not {OUTPUT_SHAPES}", may_skip_all=job.small)


def throughput(job: Job, write: Write) -> None:
    """Measure tiles and photos: the peers' way, ours with each option."""
    for row in imported("gpu_tiles", "rows")(job.device, job.left_s, small=job.small):
        write(row)


def profile(job: Job, write: Write) -> None:
    """Profile one tile; two images from two threads."""
    for row in imported("gpu_profile", "profile")(job.device, small=job.small):
        write(row)


def kernels(job: Job, write: Write) -> None:
    """Measure the Triton kernels against PyTorch's convolutions."""
    for row in imported("gpu_kernels", "kernels")(job.device, seconds=job.left_s, small=job.small):
        write(row)


def training(job: Job, write: Write) -> None:
    """Train for a few iterations, save, resume."""
    folder = Path(job.work) / "training"
    for row in imported("gpu_train", "training")(job.device, folder, crops(job), small=job.small):
        write(row)


def distillation(job: Job, write: Write) -> None:
    """Distil a small network by the command; it is kept beside the results."""
    run, out = Path(job.work) / "distilled", Path(job.results).parent
    distil = imported("gpu_distill", "distillation")
    for row in distil(job.device, run, crops(job), out, seconds=job.left_s, small=job.small):
        write(row)


def crops(job: Job) -> list[Path]:
    """The kit's pictures to train on.

    Raises:
        MissingError: there are none.
    """
    found = sorted(path for path in (Path(job.kit) / "crops").rglob("*") if path.suffix in (".jpg", ".png"))
    if not found:
        raise MissingError("the kit has no crops")
    return found


def imported(module: str, function: str) -> Callable[..., Iterable[Row]]:
    """A function of a benchmark.

    Raises:
        MissingError: it cannot be imported here.
    """
    try:
        found: Callable[..., Iterable[Row]] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise MissingError(f"{module}.{function} cannot be had here: {error}") from error
    return found


STEPS = (
    Step(name="A", what="the machine: GPU, versions, matrix product, copy", seconds=60, run=machine),
    Step(name="B", what="FP16 against float32 on the CPU; the command; the doctor", seconds=60, run=precision),
    Step(name="C", what="tests that need a GPU", seconds=150, run=gpu_tests),
    Step(
        name="P",
        what="tests of GPU memory by pycuda",
        seconds=25,
        run=pycuda_tests,
        wheels="whl-pycuda",
        missing="the kit has no pycuda",
    ),
    Step(name="D", what="throughput of tiles and photos", seconds=100, run=throughput),
    Step(name="E", what="profile of a tile, two images at once", seconds=35, run=profile),
    Step(name="K", what="Triton kernels", seconds=60, run=kernels),
    Step(name="F", what="training, saving, resuming", seconds=70, run=training),
    Step(
        name="O",
        what="tests of ONNX Runtime on CUDA",
        seconds=40,
        run=onnxruntime_tests,
        wheels="whl-onnxruntime",
        missing="the kit has no onnxruntime-gpu, and the package for CPUs cannot use a GPU",
    ),
    Step(name="G", what="distillation of a small network by the command", seconds=240, run=distillation, if_named=True),
)
"""In this order. P and O come where `pack` or you have put their wheels into the kit."""


def written_to(path: Path, step: str) -> Write:
    """Return a function that appends a row to the results at once."""

    def write(row: Row) -> None:
        line = json.dumps({"step": step, "at": round(time.time(), 1), **row}, default=plain)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return write


def plain(value: Any) -> Any:
    """A NumPy number as Python's; anything else in words."""
    return value.item() if hasattr(value, "item") else str(value)


def main() -> int:
    """Run one step; whatever goes wrong is a row too."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text("utf-8")))
    write = written_to(Path(job.results), job.step)
    (step,) = (step for step in STEPS if step.name == job.step)
    try:
        step.run(job, write)
    except MissingError as reason:
        write({"what": step.what, "skipped": str(reason)})
    except Exception as error:
        traceback.print_exc()
        write({"what": step.what, "failed": " ".join(f"{type(error).__name__}: {error}".split())[:REASON_CHARACTERS]})
        return 1
    return 0


def write_job(job: Job, path: Path) -> None:
    """Write down what `main` reads."""
    path.write_text(json.dumps(dataclasses.asdict(job)), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
