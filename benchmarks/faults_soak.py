"""Enlarges thousands of tiny images of mixed formats by one command: memory and open files must not grow."""

import json
import statistics
import subprocess
import time
from pathlib import Path

import psutil
from faults_commands import COMMAND, DRY_RUN, NETWORK, end_group
from faults_image_files import photo, saved
from faults_verdicts import HANG, LEFTOVER, LIMIT_SECONDS, MEMORY, RIGHT, WRONG, Tally
from PIL import Image

TRIALS = 2000
_KINDS = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF", ".webp": "WEBP", ".bmp": "BMP", ".ppm": "PPM", ".gif": "GIF"}
_WARM_UP = 200
"""Images after which libraries have all that they keep."""
_MOST_GROWTH = 0.05
_MEAN_OF = 20


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Enlarge `trials` images, and watch resident memory and open files after each."""
    inputs = folder / "in"
    inputs.mkdir()
    kinds = list(_KINDS.items())
    for number in range(trials):
        suffix, kind = kinds[number % len(kinds)]
        side = 16 + number % 13
        (inputs / f"{number:05}{suffix}").write_bytes(saved(Image.fromarray(photo(side, side + 3)), kind))
    command = [*COMMAND, "upscale", str(inputs), "-o", str(folder / "out"), "--json", "--quiet"]
    held, files = _watched(tally, [*command, *(NETWORK if trials > _WARM_UP else DRY_RUN)])
    if len(held) < trials:
        tally.add("images", WRONG, f"{len(held)} of {trials} have a record")
    left = [path.name for path in (folder / "out").glob(".*")]
    if left:
        tally.add("files left behind", LEFTOVER, ", ".join(left[:5]))
    if len(held) > _WARM_UP + _MEAN_OF:
        _judge_growth(tally, held, files)


def _watched(tally: Tally, command: list[str]) -> tuple[list[int], list[int]]:
    """Count how each image ends; return resident bytes and open files after each."""
    held, files = [], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        watch = psutil.Process(process.pid)
        began = time.monotonic()
        for line in process.stdout:
            record = json.loads(line)
            tally.add("images", RIGHT if "target" in record else WRONG, str(record.get("error")))
            try:
                held.append(watch.memory_info().rss)
                files.append(watch.num_fds())
            except psutil.Error:  # it has ended meanwhile
                pass
            if time.monotonic() - began > 3 * LIMIT_SECONDS:
                tally.add("images", HANG, f"after {len(held)} images")
                end_group(process)
                break
            began = time.monotonic()
    while held and len(held) < len(files):
        files.pop()
    return held, files


def _judge_growth(tally: Tally, held: list[int], files: list[int]) -> None:
    """Compare memory and open files after the warm-up with those at the end."""
    before, after = (statistics.median(held[at : at + _MEAN_OF]) for at in (_WARM_UP, len(held) - _MEAN_OF))
    most_before, most_after = max(files[_WARM_UP : _WARM_UP + _MEAN_OF]), max(files[-_MEAN_OF:])
    growth = after / before - 1
    tally.figures |= {
        "rss_mb_after_200": round(before / 1e6, 1),
        "rss_mb_at_the_end": round(after / 1e6, 1),
        "growth_percent": round(100 * growth, 2),
        "open_files_after_200": most_before,
        "open_files_at_the_end": most_after,
    }
    told = f"{before / 1e6:.1f} to {after / 1e6:.1f} MB, {most_before} to {most_after} files"
    tally.add("growth of memory", MEMORY if growth > _MOST_GROWTH else RIGHT, told)
    tally.add("growth of open files", LEFTOVER if most_after > most_before else RIGHT, told)
