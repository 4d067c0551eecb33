"""Distils a small network by `realesr train distill` in a limited time; called by scripts/test-gpu, step G.

The command runs as people run it, with few patches and few iterations. Whether it comes to its end or is stopped
before, what it has written until then is reported. PSNR is that to the teacher's answers, on images that are held out;
where the images are crops, other crops of the same photos may have been learned from.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_train import row_of

from realesr.train.distill.answers import SHARD
from realesr.train.distill.asking import TEACHER as TEACHER_FACTS
from realesr.train.distill.run import ANSWERS, STAGE_A
from realesr.train.log import LOG
from realesr.train.run import LAST

Row = dict[str, Any]

COMMAND = (sys.executable, "-m", "realesr", "train", "distill")
TEACHER, STUDENT = "realesrgan-x4plus", "realesr-animevideov3"

STOP_SECONDS = 15.0
"""Time that the command has to save what it did and to end, once it is told to stop."""
LOOK_SECONDS = 1.0
"""Time between looks at the GPU's memory."""
WORDS = 300
"""Characters of the command's last words that are told where it fails."""

FULL: Row = {
    "teacher.patches": 2048,
    "degrade.group": 24,
    "data.workers": 12,
    "stage1.iterations": 2000,
    "stage1.batch": 64,
    "stage2.iterations": 300,
    "stage2.batch": 32,
    "stage2.d_warm_up": 50,  # over with the first record, after which iterations count
    "stage2.gan_ramp": 100,
    "validation.every": 500,
    "log_every": 50,
}
"""Changes of the recipe distill_64x16."""

SMALL: Row = {
    "teacher.patches": 2 * SHARD,
    "teacher.patch_px": 16,
    "data.read_px": 96,
    "data.workers": 0,
    "stage1.iterations": 4,
    "stage1.batch": 2,
    "stage1.crop_px": 64,
    "stage1.bf16": "false",
    "stage2.iterations": 4,
    "stage2.batch": 2,
    "stage2.crop_px": 64,
    "stage2.bf16": "false",
    "stage2.d_warm_up": 1,
    "stage2.gan_ramp": 1,
    "discriminator.features": 4,
    "validation.every": 2,
    "validation.crops": 2,
    "log_every": 1,
}
"""Changes for a rehearsal on a CPU, most of which only imitate bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the command ended."""

    seconds: float
    gpu_memory_gb: float
    """Most memory in use, whoever used it; 0 where it is not known."""
    problem: str
    """What went wrong, or ""."""


def distillation(
    device: str,
    run: Path,
    photos: Sequence[Path],
    out: Path,
    *,
    seconds: float,
    small: bool = False,
    teacher: str = TEACHER,
    student: str = STUDENT,
) -> Iterator[Row]:
    """Distil, keep the networks, and yield rows that JSON takes.

    Args:
        device: "cuda" or "cpu".
        run: the command's folder, 0.5 GB; nothing in it need be kept.
        photos: images of 400 px or more a side.
        out: gets student-l1.safetensors (as stage A ends), student.safetensors (as stage B ends) and patches.png (the
            newest picture of a validation), as far as the command came.
        seconds: after which everything has ended.
        small: few tiny patches, to see that it works.
        teacher: name or file of the large network.
        student: name or file of the network that the small one starts from, a compact one of 16 convolutions.
    """
    changes = [f"--set={key}={value}" for key, value in (SMALL if small else FULL).items()]
    options = ["--device", device, "--out", str(run), "--teacher", teacher, "--init", student, *changes]
    command = [*COMMAND, *options, *(f"--data={path}" for path in photos)]
    ended = _run_command(command, run, seconds, on_gpu=device == "cuda")
    _keep(run, out)
    yield from _answers(run / ANSWERS)
    for name, folder in (("stage A", run / STAGE_A), ("stage B", run)):
        yield from _stage(name, _records(folder))
    memory = {"gpu_memory_gb": ended.gpu_memory_gb} if ended.gpu_memory_gb else {}
    yield {"what": "end", "seconds": ended.seconds, **memory}
    if ended.problem:
        yield {"what": "realesr train distill", "failed": ended.problem}


def _run_command(command: list[str], run: Path, seconds: float, *, on_gpu: bool) -> Ended:
    """Run the command, stop it where it would take too long, and print what it said."""
    run.parent.mkdir(parents=True, exist_ok=True)
    said = run.with_name(f"{run.name}.txt")
    began, most_gb = time.monotonic(), 0.0
    with said.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as child:
        while child.poll() is None and time.monotonic() - began < seconds - STOP_SECONDS:
            most_gb = max(most_gb, _gpu_memory_gb() if on_gpu else 0.0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(LOOK_SECONDS)
        is_stopped = child.poll() is None
        if is_stopped:
            _stop(child)
    taken, words = time.monotonic() - began, said.read_text(errors="replace")
    print(words, flush=True)
    problem = ""
    if is_stopped:
        problem = f"stopped after {taken:.0f} s, before its end"
    elif child.returncode:
        problem = f"it ended with {child.returncode}: {' '.join(words.split())[-WORDS:]}"
    return Ended(seconds=taken, gpu_memory_gb=most_gb, problem=problem)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Have the command save what it did and end; it has no longer than STOP_SECONDS for it."""
    child.terminate()  # Ctrl-C may be ignored in what a shell has started in the background
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def _gpu_memory_gb() -> float:
    """Return the memory in use on the first GPU in GB (10**9 bytes); 0 where nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    mebibytes = answer.stdout.partition("\n")[0].strip()
    return int(mebibytes) * 2**20 / 1e9 if mebibytes.isdigit() else 0.0


def _keep(run: Path, out: Path) -> None:
    """Copy the network of each stage, and the newest picture, as far as they are there."""
    for name, folder in (("student-l1", run / STAGE_A), ("student", run)):
        network = folder / f"{LAST}.safetensors"
        if network.exists():
            shutil.copyfile(network, out / f"{name}.safetensors")
        for picture in sorted((folder / "validation").glob("*.png")):
            shutil.copyfile(picture, out / "patches.png")


def _answers(folder: Path) -> Iterator[Row]:
    """Yield how many patches the teacher has answered, and how fast: by the times at which its folders were written.

    `seconds` begin when the network was about to be opened; `patches_s` is the speed after the first lot, for which
    processes had to be started.
    """
    written = sorted(path.stat().st_mtime for path in folder.glob("[0-9]*"))
    if not written:
        return
    began = (folder / TEACHER_FACTS).stat().st_mtime
    row: Row = {"what": "teacher's answers", "patches": SHARD * len(written), "seconds": written[-1] - began}
    if len(written) > 1:
        row["patches_s"] = SHARD * (len(written) - 1) / (written[-1] - written[0])
    yield row


def _records(folder: Path) -> list[Row]:
    """Return what a stage has logged; nothing where it was not begun."""
    log = folder / LOG
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []


def _stage(name: str, records: list[Row]) -> Iterator[Row]:
    """Yield a stage's speed by wall clock, validations included, and its scores, as far as they are logged."""
    losses = [record for record in records if record["kind"] == "losses"]
    if len(losses) > 1:
        begun = next(record for record in records if record["kind"] == "run")
        row = row_of("", name, begun["recipe"][begun["stage"]]["batch"], losses)
        del row["recipe"], row["stage"]
        yield {"what": name, "iterations": losses[-1]["iteration"], **row}
    for record in records:
        if record["kind"] == "validation":
            scores = {"psnr_to_teacher_db": record["psnr"], "bicubic_db": record["bicubic_psnr"]}
            yield {"what": f"scores, {name}", "iterations": record["iteration"], **scores}
