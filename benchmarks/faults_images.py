"""Injects damage into images: mutated files of every format, by hundreds in folders, through the command.

A file's end is one of: a whole output of the size that is reported; one line that refuses it. A file that was cut must
not come out with another picture than the whole one unless a line says so.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyvips
from faults_commands import COMMAND, DRY_RUN, end_group, tree_bytes
from faults_image_files import read_again, whole_files
from faults_mutations import mutated
from faults_verdicts import (
    CRASH,
    HALF,
    HANG,
    LEFTOVER,
    LIMIT_BYTES,
    LIMIT_SECONDS,
    MEMORY,
    REFUSED,
    RIGHT,
    TRACEBACK,
    WRONG,
    Tally,
    judged_message,
)

TRIALS = 7000
FILES_AT_ONCE = 350
_LARGEST_CHECKED_PX = 20_000_000
_MOST_RUNS_IN_VAIN = 20
_START_SECONDS = 30.0
FLOATS = "float~whole.tif"
"""The one whole file that is refused: nothing says what range its values have."""

Record = dict[str, Any]


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Enlarge whole files, then `trials` mutated ones."""
    whole = whole_files()
    pictures = _whole_pictures(whole, tally, folder)
    dice, names = random.Random(seed), sorted(whole)
    for number in range(0, trials, FILES_AT_ONCE):
        inputs, output = folder / "in", folder / "out"
        inputs.mkdir(parents=True)
        for index in range(number, min(number + FILES_AT_ONCE, trials)):
            base = names[index % len(names)]
            kind = Path(base).suffix
            other = dice.choice([name for name in names if Path(name).suffix == kind])
            mutation, data = mutated(whole[base], dice, whole[other])
            stem = Path(base).stem
            (inputs / f"{index:05}~{stem}~{mutation.replace(' ', '-')}{kind}").write_bytes(data)
        as_png = ("--format", "png") if number // FILES_AT_ONCE % 2 else ()
        for source, record in enlarged(inputs, output, as_png):
            verdict, example = judged(source, record, pictures)
            tally.add(source.suffix.removeprefix("."), verdict, f"{source.name}: {example}", source)
        _count_leftovers(tally, output)
        shutil.rmtree(inputs)
        shutil.rmtree(output, ignore_errors=True)


def _whole_pictures(whole: dict[str, bytes], tally: Tally, folder: Path) -> dict[str, pyvips.Image]:
    """Enlarge the whole files; return the name of each -> its result in memory."""
    inputs, output, pictures = folder / "whole", folder / "whole-out", {}
    inputs.mkdir(parents=True)
    for name, data in whole.items():
        (inputs / name.replace(".", "~whole.")).write_bytes(data)
    for source, record in enlarged(inputs, output):
        verdict, example = judged(source, record, {})
        if verdict == REFUSED and source.name != FLOATS:
            verdict = WRONG
        tally.add("whole files", verdict, f"{source.name}: {example}", source)
        if verdict == RIGHT:
            pictures[source.name.replace("~whole", "")] = read_again(record["target"])
    shutil.rmtree(inputs)
    return pictures


def _count_leftovers(tally: Tally, output: Path) -> None:
    left = sorted(path.name for path in output.rglob(".*")) if output.exists() else []
    if left:
        tally.add("files left behind", LEFTOVER, ", ".join(left[:5]))


def enlarged(inputs: Path, output: Path, more: Sequence[str] = ()) -> Iterator[tuple[Path, Record]]:
    """Run the command over a folder; yield each file and its record.

    A run that ends early, or is ended for its time or memory, is that file's fault which has no record yet; it is moved
    away, and the next run goes on with those after it. The record then has "fault" and "error".

    Raises:
        RuntimeError: many runs in a row ended before their first file: the command itself is broken.
    """
    waiting, before = sorted(inputs.iterdir()), "none"
    away = inputs.with_name(f"{inputs.name}-away")
    away.mkdir(exist_ok=True)
    fault, words, in_vain = "", "", 0
    while waiting:
        if in_vain >= _MOST_RUNS_IN_VAIN:
            raise RuntimeError(f"the command ended {in_vain} times before its first file: {fault} {words}")
        in_vain += 1
        for entry in _run(inputs, output, more):
            if isinstance(entry, tuple):
                fault, words = entry
                continue
            source = Path(entry["source"])
            if source in waiting:
                waiting.remove(source)
                yield source, entry
                source.rename(away / source.name)
                before, in_vain = source.name, 0
        if waiting:
            source = waiting.pop(0)
            yield (
                source,
                {
                    "source": str(source),
                    "fault": fault or WRONG,
                    "error": f"no record ({before} was before it); {words}",
                },
            )
            source.rename(away / source.name)
    shutil.rmtree(away)


def _run(inputs: Path, output: Path, more: Sequence[str]) -> Iterator[Record | tuple[str, str]]:
    """Yield the records of one run of the command, and at last the fault that ended it, with its last words."""
    command = [*COMMAND, "upscale", str(inputs), "-o", str(output), *DRY_RUN, "--json", "--quiet", *more]
    words = inputs.with_name("words.txt")
    with (
        words.open("wb") as err,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=err,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        fault, buffer, until = "", b"", time.monotonic() + _START_SECONDS
        is_running = True
        while is_running and not fault:
            is_running = process.poll() is None
            data = process.stdout.read() or b""
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                until = time.monotonic() + LIMIT_SECONDS
                yield json.loads(line)
            if tree_bytes(process.pid) > LIMIT_BYTES:
                fault = MEMORY
            elif time.monotonic() > until:
                fault = HANG
            if not data:
                time.sleep(0.01)
        if fault:
            end_group(process)
    text = words.read_text("utf-8", "replace")
    if not fault and process.returncode < 0:
        fault = CRASH
    if not fault and "Traceback (most recent call last)" in text:
        fault = TRACEBACK
    yield fault, f"exit code {process.returncode}: {text[-300:]}"


def judged(source: Path, record: Record, pictures: dict[str, pyvips.Image]) -> tuple[str, str]:
    """Return the verdict on a file by its record and its output, and why.

    Args:
        source: named NUMBER~STEM~MUTATION.SUFFIX.
        record: of the command.
        pictures: name of each whole file -> what it comes out as.
    """
    if "fault" in record:
        return record["fault"], record["error"]
    if "error" in record:
        return judged_message(record["error"])
    if "skipped" in record:
        return WRONG, record["skipped"]
    (width, height), size = record["input_px"], tuple(record["output_px"])
    if size != (4 * width, 4 * height):
        return WRONG, f"{width} x {height} px became {size}"
    if size[0] * size[1] > _LARGEST_CHECKED_PX:
        return RIGHT, ""
    try:
        image = read_again(record["target"])
    except pyvips.Error as error:
        return HALF, f"the output cannot be read: {error}"
    if (image.width, image.height) != size:
        return WRONG, f"{size} px are reported, the file has {image.width} x {image.height}"
    _, stem, mutation = source.stem.split("~") if source.stem.count("~") == 2 else ("", "", "")
    expected = pictures.get(f"{stem}{source.suffix}")
    if mutation == "cut" and expected is not None and not record["notices"] and differs(image, expected):
        return WRONG, "it was cut and came out with another picture, without a word"
    return RIGHT, ""


def differs(image: pyvips.Image, expected: pyvips.Image) -> bool:
    """Return whether two images differ in size, or in colour by more than a level of 8 bits."""
    if (image.width, image.height) != (expected.width, expected.height):
        return True
    a, b = (
        one.colourspace("srgb").flatten() if one.hasalpha() else one.colourspace("srgb") for one in (image, expected)
    )
    return float((a - b).abs().max()) > 1


if __name__ == "__main__":
    sys.exit("run bench_faults.py --only images")
