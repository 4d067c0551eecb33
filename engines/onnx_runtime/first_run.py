"""Runs an ONNX file for the first time in a process of its own, and measures what it makes of an image.

Harmless operators are enough to take all memory or hours: constants of gigabytes that are computed when the file is
opened, an enlargement by a thousand, a list that doubles forty times. ONNX Runtime hears neither Ctrl-C nor a limit. So
the file is opened and run in a child first, which is ended after a time, and which gets no more address space than a
network of the file's size can need (RLIMIT_AS, on Linux; elsewhere only the time is limited). Only a file that stands
this test is opened in the process itself.

What it cannot bound: a graph that grows with other pixels or larger tiles than these.
"""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from realesr.errors import ModelError
from realesr.machine.memory import free_bytes
from realesr.models.architecture import MAX_SCALE
from realesr.models.torch_file import printable

LIMIT_SECONDS = 60.0
"""Time for import, opening, and a run of some 1,100 px or seven of up to 12,000. Assumption: ten times what the largest
networks take on a slow processor."""

_SECONDS_PER_PX, _LONGEST_SECONDS = 1e-3, 600.0
"""Additional time for files of a fixed shape: realesrgan-x4plus takes 0.2 ms on two cores."""

_SPARE_BYTES, _BYTES_PER_STORED_BYTE, _BYTES_PER_PX = 1 << 30, 6, 20_000
"""Memory beyond what the child has before: for itself, for each byte of the file (ONNX Runtime holds its weights up to
three times), and for each pixel of the image (realesrgan-x4plus takes 16 kB)."""

_LARGEST_OPEN_PX = 12_288
"""The largest image that is tried on a file which takes any."""

_MAX_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class FirstRun:
    """What was measured."""

    scale: int
    multiple_of: int
    """Heights and widths must be multiples of this; 1 where the shape is fixed."""
    size_px: tuple[int, int] | None
    """The one height and width that the file takes."""


def first_run(path: Path, stored_bytes: int, *, is_ours: bool = False) -> FirstRun:
    """Open and run a file in a child; a file that has not changed since is not run again.

    Args:
        path: of the file.
        stored_bytes: size of the file and of those beside it that hold its weights.
        is_ours: whether its graph is that of a network of ours. Then one of a fixed shape, whose image may be large, is
            opened alone.

    Raises:
        ModelError: It cannot be opened, does not enlarge RGB images, takes too long or too much memory.
    """
    found = path.stat()
    identity = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return _measured(path, stored_bytes, is_ours, identity)


@functools.lru_cache(maxsize=32)
def _measured(path: Path, stored_bytes: int, is_ours: bool, _identity: tuple[int, ...]) -> FirstRun:
    answer = _answer(path, {"path": str(path), "stored_bytes": stored_bytes, "is_ours": is_ours})
    if "error" in answer:
        raise ModelError(printable(answer["error"]))
    size = answer["size_px"]
    result = FirstRun(scale=answer["scale"], multiple_of=answer["multiple_of"], size_px=size and (size[0], size[1]))
    if result.scale > MAX_SCALE:
        raise ModelError(f"{path} enlarges {result.scale} times, expected at most {MAX_SCALE}")
    return result


def child_command() -> list[str]:
    """Return the command that starts the child; -P keeps the working folder's files from being imported."""
    return [sys.executable, "-P", "-m", "realesr.engines.onnx_runtime.first_run"]


def _answer(path: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Return the child's answer.

    Raises:
        ModelError: There is none, for it took too long or crashed.
    """
    with subprocess.Popen(
        child_command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        # Ctrl-C is for this process, which then ends the child.
        start_new_session=True,
    ) as child:
        try:
            answer, _ = child.communicate(json.dumps(task), timeout=_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            raise ModelError(_too_long(path)) from None
        finally:
            child.kill()
    with contextlib.suppress(ValueError, IndexError):
        made: dict[str, Any] = json.loads(answer.splitlines()[-1])
        return made
    if sys.platform != "win32" and child.returncode == -signal.SIGALRM:
        raise ModelError(_too_long(path))
    ending = f"signal {-child.returncode}" if child.returncode < 0 else f"code {child.returncode}"
    raise ModelError(
        f"{path} ended the process that ran it first ({ending}): it is damaged, or takes far more memory than a "
        "network of its size; fetch or export it again"
    )


def _too_long(path: Path) -> str:
    return f"{path} takes more than {LIMIT_SECONDS:.0f} s for its first image: expected a network that is done sooner"


def _run_child(task: dict[str, Any]) -> dict[str, Any]:
    """Measure the file of a task under limits; the answer is what the parent reads."""
    from realesr.engines.onnx_runtime.engine import form_and_session, scale_and_multiple
    from realesr.errors import OutOfMemory, RealesrError

    path = Path(task["path"])
    own_bytes = _address_space_bytes()
    spare_bytes = _SPARE_BYTES + _BYTES_PER_STORED_BYTE * task["stored_bytes"]
    _limit(LIMIT_SECONDS, own_bytes + spare_bytes)
    try:
        form, session = form_and_session(path, threads=min(_MAX_THREADS, os.cpu_count() or 1))
        px = form.size_px[0] * form.size_px[1] if form.size_px else _LARGEST_OPEN_PX
        _limit(LIMIT_SECONDS + _SECONDS_PER_PX * px, own_bytes + spare_bytes + _BYTES_PER_PX * px)
        scale, multiple_of = scale_and_multiple(session, path, form, is_ours=task["is_ours"])
    except OutOfMemory:
        return {"error": f"{path} takes far more memory than a network of its size: fetch or export it again"}
    except RealesrError as error:
        return {"error": str(error)}
    return asdict(FirstRun(scale=scale, multiple_of=multiple_of, size_px=form.size_px))


def _address_space_bytes() -> int:
    """Return the address space of this process."""
    if sys.platform != "linux":
        return 0
    import resource

    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _limit(seconds: float, address_space_bytes: int) -> None:
    """Let the system end this process after so many seconds from now, and refuse it more address space than that."""
    if sys.platform != "win32":
        signal.alarm(int(min(seconds, _LONGEST_SECONDS)))
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = min(address_space_bytes, _address_space_bytes() + max(_SPARE_BYTES, free_bytes()))
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_run_child(json.load(sys.stdin))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # ONNX Runtime's threads may still be at work, or its teardown short of memory
