"""Runs the command with little memory: in steps of `ulimit -v`, and in control groups with a limit.

Each run must give the very result of a run with all memory, or refuse in one line.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from faults_commands import COMMAND, NETWORK, Ended, last_line, run_watched
from faults_image_files import photo, saved
from faults_verdicts import LEFTOVER, REFUSED, RIGHT, WRONG, Tally, judged_message
from PIL import Image

TRIALS = 35 + 20
_ADDRESS_SPACE_MB = range(300, 1000, 20)
_GROUP_MB = range(100, 500, 20)
"""From about what Python and the libraries take before anything is read; below it the kernel ends any program."""
_SIDE_PX = 512
_SECONDS = 60.0
"""Time for one run: small tiles are slow, and a group at its limit drops and reads files again."""
_GROUPS = Path("/sys/fs/cgroup/memory")
_GROUP_IN_V2 = Path("/sys/fs/cgroup")


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Run the steps; of fewer trials than there are steps, some between the ends."""
    source, target = folder / "a.png", folder / "out" / "a.png"
    source.write_bytes(saved(Image.fromarray(photo(_SIDE_PX, _SIDE_PX)), "PNG"))
    command = [*COMMAND, "upscale", str(source), "-o", str(target), *NETWORK, "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    expected = target.read_bytes()
    shares = min(1.0, trials / TRIALS)

    def judge(subject: str, ended: Ended) -> None:
        verdict, example = judged(ended, target, expected)
        tally.add("ulimit -v" if subject.startswith("ulimit") else "control group", verdict, f"{subject}: {example}")

    for limit_mb in _some(_ADDRESS_SPACE_MB, shares):
        target.unlink(missing_ok=True)
        judge(f"ulimit -v {limit_mb} MB", run_watched(command, limit_seconds=_SECONDS, limits=_limit(limit_mb)))
    for limit_mb in _some(_GROUP_MB, shares):
        target.unlink(missing_ok=True)
        try:
            with control_group(limit_mb << 20) as join:
                judge(f"control group of {limit_mb} MB", run_watched(command, limit_seconds=_SECONDS, limits=join))
        except OSError as error:
            tally.skipped["control groups"] = f"none can be made here ({error})"
            return


def _some(steps: range, share: float) -> list[int]:
    count = max(1, round(len(steps) * share))
    return [steps[index * len(steps) // count] for index in range(count)]


def _limit(megabytes: int) -> Callable[[], None]:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    return limit


@contextmanager
def control_group(limit_bytes: int) -> Iterator[Callable[[], None]]:
    """Make a control group with a limit of memory; yield what a child calls to join it.

    Raises:
        OSError: it cannot be made.
    """
    name, is_v1 = f"realesr-faults-{os.getpid()}", _GROUPS.is_dir()
    group = (_GROUPS if is_v1 else _GROUP_IN_V2) / name
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(limit_bytes))

        def join() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

        yield join
    finally:
        group.rmdir()


def judged(ended: Ended, target: Path, expected: bytes) -> tuple[str, str]:
    """Return the verdict on a run by its end and its output."""
    about = f"code {ended.code}, {ended.peak_bytes >> 20} MB: {last_line(ended.err)}"
    left = [path.name for path in target.parent.glob(".*")]
    if ended.fault:
        for name in left:
            (target.parent / name).unlink()
        return ended.fault, about
    if left:
        return LEFTOVER, f"{left}; {about}"
    if ended.code == 0:
        is_equal = target.exists() and target.read_bytes() == expected
        return (RIGHT, "") if is_equal else (WRONG, f"another result than with all memory; {about}")
    if target.exists():
        return WRONG, f"refused, but an output is there; {about}"
    errors = [line for line in ended.err.split("\n") if line.startswith("error: ")]
    if len(errors) != 1:
        return WRONG, f"{len(errors)} lines of errors; {about}"
    verdict, text = judged_message(errors[0])
    return verdict, text if verdict != REFUSED else about
