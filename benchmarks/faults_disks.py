"""Injects faults of disks and streams: full, read-only, gone, without inodes, with a limit of size, lost output.

Small file systems in memory (tmpfs) stand for disks; where they cannot be mounted, their part is skipped. Every command
must give whole files or none, one line for each that it cannot write, and leave nothing unfinished.
"""

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pyvips
from faults_commands import COMMAND, DRY_RUN, Ended, run_watched
from faults_image_files import photo, read_again, saved
from faults_verdicts import FAULTS, HALF, LEFTOVER, REFUSED, RIGHT, WRONG, Tally, judged_message
from PIL import Image

TRIALS = 160
SIDES_PX = (24, 60, 120)
FORMATS = ("png", "jpeg", "tiff", "webp", "avif")
_ALLOWED = ("realesr-manifest.jsonl",)


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Run `trials` commands, each with one fault of a disk or a stream."""
    bench = _Bench(folder, random.Random(seed))
    faults: list[Callable[[int], Iterator[tuple[str, Ended, bool]]]] = [
        bench.full_disk,
        bench.full_disk,
        bench.no_inodes,
        bench.size_limit,
        bench.read_only,
        bench.folder_removed,
        bench.input_cut,
        bench.lost_streams,
        bench.odd_targets,
        bench.full_temporary_folder,
    ]
    if reason := _cannot_mount(folder):
        tally.skipped["disks of their own"] = reason
        with_disks = (bench.full_disk, bench.no_inodes, bench.read_only, bench.full_temporary_folder)
        faults = [fault for fault in faults if fault not in with_disks]
    for number in range(trials):
        for subject, ended, must_be_done in faults[number % len(faults)](number):
            verdict, example = bench.judged(ended, must_be_done)
            tally.add(subject, verdict, f"trial {number}: {example}")


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory for a while."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def _cannot_mount(folder: Path) -> str:
    try:
        with small_disk(folder / "try", "size=64k"):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no file system can be mounted here ({error})"


class _Bench:
    """Three images, and where they go."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self._folder, self._dice = folder, dice
        self._inputs, self._output = folder / "in", folder / "out"
        self._inputs.mkdir()
        for side in SIDES_PX:
            (self._inputs / f"{side}.png").write_bytes(saved(Image.fromarray(photo(side, side)), "PNG"))

    def _command(self, output: Path, *more: str) -> list[str]:
        return [*COMMAND, "upscale", str(self._inputs), "-o", str(output), *DRY_RUN, *more]

    def _format(self) -> tuple[str, str]:
        return "--format", self._dice.choice(FORMATS)

    def full_disk(self, number: int) -> Iterator[tuple[str, Ended, bool]]:
        """Write to a disk of some kilobytes, which fills up at any moment."""
        size = self._dice.choice((4, 8, 16, 24, 32, 48, 64, 96, 128, 200, 300, 500))
        with small_disk(self._output, f"size={size}k"):
            yield "disk full", run_watched(self._command(self._output, *self._format())), False

    def no_inodes(self, number: int) -> Iterator[tuple[str, Ended, bool]]:
        """Write to a disk that takes no more files."""
        with small_disk(self._output, f"nr_inodes={self._dice.randint(1, 6)}"):
            yield "disk without inodes", run_watched(self._command(self._output, *self._format())), False

    def size_limit(self, number: int) -> Iterator[tuple[str, Ended, bool]]:
        """Write with a limit on the size of files (RLIMIT_FSIZE)."""
        import resource

        limit = self._dice.choice((0, 1, 100, 4096, 10_000, 30_000, 100_000))

        def limits() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        # The streams must be no files: they would be under the limit, too.
        read, write = os.pipe()
        with os.fdopen(read, "rb") as results, os.fdopen(write, "wb") as stream:
            command = self._command(self._output, *self._format())
            ended = run_watched(command, limits=limits, stdout=stream, stderr=stream)
            stream.close()
            words = results.read().decode("utf-8", "replace")
        yield "limit on file size", replace(ended, err=words), False

    def read_only(self, number: int) -> Iterator[tuple[str, Ended, bool]]:
        """Write to a disk that is mounted for reading alone."""
        with small_disk(self._output, "size=1m,ro"):
            yield "disk read-only", run_watched(self._command(self._output, *self._format())), False

    def folder_removed(self, number: int) -> Iterator[tuple[str, Ended, bool]]:
        """Delete the output folder while files are written to it."""
        yield "output folder removed", self._meanwhile(lambda: shutil.rmtree(self._output, ignore_errors=True)), False

    def input_cut(self, number: int) -> Iterator[tuple[str, Ended, bool]]:
        """Cut or delete an input while it is read."""
        source = self._inputs / f"{SIDES_PX[-1]}.png"
        whole = source.read_bytes()

        def spoil() -> None:
            if number % 2:
                os.truncate(source, len(whole) // 2)
            else:
                source.unlink()

        yield "input cut or removed", self._meanwhile(spoil), False
        source.write_bytes(whole)

    def _meanwhile(self, action: Callable[[], None]) -> Ended:
        """Do something at a random moment of a run."""
        timer = threading.Timer(self._dice.uniform(0.1, 1.2), action)
        ended = run_watched(self._command(self._output, *self._format()), on_start=lambda _: timer.start())
        timer.cancel()
        timer.join()
        return ended

    def lost_streams(self, number: int) -> Iterator[tuple[str, Ended, bool]]:
        """Give no one to read stdout or stderr: full, closed, or a pipe without a reader. All files must be written."""
        streams = [{"stdout"}, {"stderr"}, {"stdout", "stderr"}][number // 10 % 3]
        json = ("--json",) if number % 4 else ()
        command = self._command(self._output, *json)
        name = f"{' and '.join(sorted(streams))} lost"
        if number // 10 % 2:
            with open("/dev/full", "wb") as full:
                chosen: dict[str, IO[Any]] = dict.fromkeys(streams, full)
                yield name, run_watched(command, **chosen), True  # type: ignore[arg-type]
        else:
            closed = " ".join({"stdout": ">&-", "stderr": "2>&-"}[stream] for stream in sorted(streams))
            yield name, run_watched(["sh", "-c", f'exec "$@" {closed}', "sh", *command]), True

    def odd_targets(self, number: int) -> Iterator[tuple[str, Ended, bool]]:
        """Write where something else lies: a file for a folder, folders for files, names that are too long."""
        choice = number // 10 % 3
        if choice == 0:
            self._output.write_bytes(b"mine")
            ended = run_watched(self._command(self._output))
            assert self._output.read_bytes() == b"mine", "a file in place of the output folder was changed"
            self._output.unlink()
        elif choice == 1:
            for side in SIDES_PX:
                (self._output / f"{side}_x4.png" / "mine").mkdir(parents=True)
            ended = run_watched(self._command(self._output, "--overwrite"))
            for side in SIDES_PX:
                (self._output / f"{side}_x4.png" / "mine").rmdir()
                (self._output / f"{side}_x4.png").rmdir()
        else:
            ended = run_watched(self._command(self._output / ("x" * 300)))
        yield "target that is something else", ended, False

    def full_temporary_folder(self, number: int) -> Iterator[tuple[str, Ended, bool]]:
        """Give no room where temporary files go; outputs lie elsewhere and may need none of it."""
        with small_disk(self._folder / "tmp", "size=4k") as place:
            (place / "full").write_bytes(bytes(4096))
            command = self._command(self._output, *self._format())
            yield "temporary folder full", run_watched(command, environment={"TMPDIR": str(place)}), False

    def judged(self, ended: Ended, must_be_done: bool) -> tuple[str, str]:
        """Return the verdict on a command by its messages and what lies in the output folder, which is emptied."""
        try:
            return self._judged(ended, must_be_done)
        finally:
            shutil.rmtree(self._output, ignore_errors=True)

    def _judged(self, ended: Ended, must_be_done: bool) -> tuple[str, str]:
        about = f"code {ended.code}: {ended.err[-400:]}"
        if ended.fault:
            return ended.fault, about
        files = [path for path in self._output.rglob("*") if path.is_file()] if self._output.is_dir() else []
        outputs = [path for path in files if path.name not in _ALLOWED]
        if left := [path.name for path in outputs if path.name.startswith(".")]:
            return LEFTOVER, f"{left}; {about}"
        if half := [path.name for path in outputs if not _is_whole(path)]:
            return HALF, f"{half}; {about}"
        for line in ended.err.split("\n"):
            if line.startswith("error: ") and (verdict := judged_message(line)[0]) in FAULTS:
                return verdict, about
        if must_be_done and len(outputs) < len(SIDES_PX):
            return WRONG, f"{len(outputs)} of {len(SIDES_PX)} were written; {about}"
        if ended.code == 0:
            return RIGHT, ""
        if must_be_done or (ended.code in (1, 2) and "error: " in ended.err):
            return REFUSED, about
        return WRONG, f"no line says why; {about}"


def _is_whole(path: Path) -> bool:
    """Return whether an output can be read and has the size that it must have."""
    try:
        image = read_again(path)
    except pyvips.Error:
        return False
    return bool(image.width == image.height == 4 * int(path.name.partition("_")[0]))
